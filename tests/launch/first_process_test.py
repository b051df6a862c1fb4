"""jssd as process 1 of a container, by the entries that manifests and images have.

Process 1 gets no signal that it has not asked for, and a shell in its place passes none on. So the
commands are run as the first process of a PID namespace, and SIGTERM comes from outside of it.
"""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from launch import manifests, targets
from tests.e2e import conftest
from tests.e2e.conftest import tiny as tiny  # A fixture.

NAMESPACE = [
    "unshare", "--pid", "--fork", "--mount-proc",
    *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
]  # fmt: skip


def _possible() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=60)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not _possible(), reason="unshare --pid --fork is not possible here")


def entry(name: str, folder: pathlib.Path) -> list[str]:
    """The command of a container, with what it finds there in `folder`; arguments follow."""
    if name == "docs":  # What docs/faults.md advises for a shell.
        return ["bash", "-c", 'exec python -m jssd.main "$@"', "jssd.main"]
    if name == "image":
        text = (pathlib.Path(manifests.__file__).parent / "docker" / "Dockerfile.tpu").read_text()
        line = text.splitlines()[-1]
        return [
            part.strip(',"') for part in shlex.split(line.removeprefix("ENTRYPOINT ").strip("[]"))
        ]
    [job] = [job for job in targets.COMMITTED if job.name == name]
    inner = manifests.render(job)["spec"]["replicatedJobs"][0]["template"]["spec"]
    command = inner["template"]["spec"]["containers"][0]["command"]
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / "scripts" / "set_nccl_env.sh").write_text("echo NCCL is set\n")
    return [part.replace("/usr/local/gib", str(folder)) for part in command]


def test_a_tpus_container_has_the_entry_of_the_image(tmp_path):
    assert entry("jssd-v6e-sft", tmp_path) == entry("image", tmp_path)


@pytest.mark.parametrize("name", ["docs", "image", "jssd-b200-sft"])
def test_sigterm_reaches_the_first_process(name, tiny, tmp_path):
    command = entry(name, tmp_path)
    workdir = tmp_path / "run"
    here = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        [*NAMESPACE, *conftest.command(tiny, workdir, "--stages=sample", start=command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=conftest.cpu_devices() | {"PATH": here},
    ) as outer:
        children = pathlib.Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        while outer.poll() is None and not any(workdir.glob("samples/*.partial")):
            time.sleep(0.01)
        [first] = children.read_text().split() if outer.poll() is None else ["0"]
        try:
            assert outer.poll() is None, outer.communicate()[0]
            inside = pathlib.Path(f"/proc/{first}/status").read_text()
            [numbers] = [line for line in inside.splitlines() if line.startswith("NSpid:")]
            assert numbers.split()[-1] == "1"
            os.kill(int(first), signal.SIGTERM)
            output = outer.communicate(timeout=60)[0]
        finally:
            if outer.poll() is None:
                os.kill(int(first), signal.SIGKILL)
    assert outer.returncode == manifests.SAVED["values"][0] == 42, output
    assert "received SIGTERM" in output
    assert ("NCCL is set" in output) == (name == "jssd-b200-sft")
