"""The batch script on a SLURM of one node, made here for the test and ended after it.

    apt-get install slurm-wlm munge         Debian 12: SLURM 22.05.8
    JSSD_SLURM=1 python -m pytest -m optin tests/launch/slurm_test.py

No service is needed, and none that runs is touched: keys, ports, logs and state are the test's own.
Ten minutes on two cores that have other work.
"""

import contextlib
import getpass
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import conftest
from tests.e2e.conftest import tiny as tiny  # A fixture.

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm" / "jssd.sbatch"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"
# Debian's SLURM has no cgroups of version 2 and no GPU here; the rest is what a site has anyway.
CONF = """
ClusterName=jssd
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=3600
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
pytestmark = [
    pytest.mark.optin,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("JSSD_SLURM")
        or any(shutil.which(name, path=SBIN) is None for name in NEEDED),
        reason="needs JSSD_SLURM=1, and slurm-wlm and munge: see the top of this file",
    ),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a client of a running SLURM."""
    with contextlib.ExitStack() as stack:
        # Not pytest's folder: the path of a socket has 107 characters at most.
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        text = CONF.format(folder=folder, host=host, ports=_ports(2), user=getpass.getuser())
        (folder / "slurm.conf").write_text(text)
        environment = conftest.cpu_devices() | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{pathlib.Path(sys.executable).parent}:{SBIN}",
        }
        for command in (
            ["munged", "--foreground", "--force", f"--key-file={key}",
             f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
             f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
            ["slurmctld", "-D", "-f", str(folder / "slurm.conf")],
            ["slurmd", "-D", "-f", str(folder / "slurm.conf")],
        ):  # fmt: skip
            stack.enter_context(_daemon(command, environment, folder))
        ask = lambda: _client(environment, "sinfo", "--noheader", "--format=%T")
        _wait(lambda: "idle" in ask(), 60, lambda: ask() + _logs(folder))
        yield environment
        _client(environment, "scancel", "--user", getpass.getuser())


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def _daemon(command, environment, folder) -> Iterator[None]:
    with (
        (folder / f"{command[0]}.out").open("w") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            _wait(lambda: command[0] != "munged" or (folder / "munge.socket").exists(), 30)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _client(environment, *command) -> str:
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


def _logs(folder: pathlib.Path) -> str:
    paths = [*folder.glob("*.log"), *folder.glob("*.out")]
    return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in paths)


def _wait(came: Callable[[], object], seconds: float, told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not came():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def _submit(slurm, log, tiny, workdir, *flags, sbatch: tuple[str, ...] = ()) -> str:
    """The job's id."""
    said = _client(
        slurm, "sbatch", "--parsable", "--gpus-per-node=0", f"--output={log}", *sbatch,
        str(SCRIPT), f"--config={tiny / 'config.py'}", f"--workdir={workdir}", *flags,
    )  # fmt: skip
    assert re.fullmatch(r"\d+\s*", said), said
    return said.strip()


def _job(slurm, job: str) -> dict[str, str]:
    said = _client(slurm, "scontrol", "show", "--oneliner", "job", job)
    return dict(re.findall(r"(\w+)=(\S+)", said))


def _ended(slurm, job: str, log: pathlib.Path) -> dict[str, str]:
    """The job as SLURM shows it, when it has ended."""
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def came():
        shown = _job(slurm, job)
        if shown.get("JobState") == "PENDING" and shown.get("Reason") == "BeginTime":
            # A job that was put back waits two minutes or more; nothing is left to wait for here.
            _client(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")
        return shown.get("JobState") in over

    _wait(came, 300, lambda: f"{_job(slurm, job)}\n{log.read_text()}")
    return _job(slurm, job)


def test_a_gang_of_two_is_signalled_put_back_and_ends_in_the_same_bytes(slurm, tiny, tmp_path):
    """SIGTERM by SLURM, 42 of both, back to the queue by the script, and the end of it."""
    flags = ("--stages=sample,sft,export", "--config.train.num_steps=40")
    alone = tmp_path / "alone"
    conftest.finish_hosts(conftest.start_hosts(tiny, alone, *flags, count=2))
    workdir, log = tmp_path / "run", tmp_path / "log"
    job = _submit(slurm, log, tiny, workdir, *flags, sbatch=("--ntasks-per-node=2",))
    trained = lambda: (workdir / "checkpoints" / "4").exists()
    _wait(trained, 240, lambda: f"{_job(slurm, job)}\n{log.exists() and log.read_text()}")
    # To the step's processes, as --signal does before the time is over. With --full srun would get
    # it too, and kill them.
    assert _client(slurm, "scancel", "--signal=TERM", job) == ""
    shown = _ended(slurm, job, log)
    said = log.read_text()
    assert shown["JobState"] == "COMPLETED" and shown["Restarts"] == "1", f"{shown}\n{said}"
    assert shown["ExitCode"] == "0:0"
    for process in range(2):
        assert said.count(f"process {process}/2 joined: 1 of 2 devices are here") == 2, said
    assert "received SIGTERM" in said and "ended with 42, back to the queue" in said
    ours, theirs = conftest.outputs(workdir), conftest.outputs(alone)
    assert ours.keys() == theirs.keys() and len(ours) > 2
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_a_mistake_is_not_put_back(slurm, tiny, tmp_path):
    log = tmp_path / "log"
    job = _submit(slurm, log, tiny, tmp_path / "run", "--config.sampling.top_p=1.5")
    shown = _ended(slurm, job, log)
    assert (shown["JobState"], shown["ExitCode"], shown["Restarts"]) == ("FAILED", "2:0", "0")
    assert "sampling.top_p=1.5" in log.read_text()


def test_an_array_draws_what_one_job_draws(slurm, tiny, tmp_path):
    workdir = tmp_path / "run"
    job = _submit(
        slurm, tmp_path / "log-%a", tiny, workdir, "--stages=sample", sbatch=("--array=0-1",)
    )
    for index in range(2):
        log = tmp_path / f"log-{index}"
        shown = _ended(slurm, f"{job}_{index}", log)
        assert shown["JobState"] == "COMPLETED", log.read_text()
    done = conftest.cli(tiny, workdir, "--stages=sample")  # Takes up what was drawn.
    assert done.returncode == 0, done.stdout + done.stderr
    whole = conftest.cli(tiny, tmp_path / "whole", "--stages=sample")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    lines = lambda run: sorted(
        line for path in (run / "samples").glob("part-*") for line in path.read_bytes().splitlines()
    )
    assert lines(workdir) == lines(tmp_path / "whole") != []
