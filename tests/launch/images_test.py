"""Images: linted, and built and run where a base is at hand.

No registry is needed for a base. As root, with Debian's buildah and debootstrap:

    debootstrap --variant=minbase --include=python3,python3-pip,python-is-python3,ca-certificates \\
        bookworm root
    rm root/usr/lib/python3*/EXTERNALLY-MANAGED       # The image is pip's alone.
    mkdir context && tar -C root -cf context/base.tar .
    printf 'FROM scratch\\nADD base.tar /\\n' > Dockerfile
    buildah bud --isolation chroot -t localhost/jssd-base -f Dockerfile context
    JSSD_BASE_IMAGE=localhost/jssd-base python -m pytest -m optin tests/launch/images_test.py

JSSD_BUILD_FLAGS holds more flags of `buildah bud`. Where pip needs a setting of this machine to
reach its index, give it for the build alone, so that no layer keeps it:
`--volume /etc/pip.conf:/etc/pip.conf:ro`, and the same of files that it names.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

from launch import manifests

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = sorted((ROOT / "launch" / "docker").glob("Dockerfile.*"))
BIN = pathlib.Path(sys.executable).parent  # Where pip puts hadolint.
BASE = os.environ.get("JSSD_BASE_IMAGE", "")
name_of = lambda path: path.name


@pytest.mark.parametrize("path", IMAGES, ids=name_of)
def test_hadolint_finds_nothing(path):
    done = subprocess.run([BIN / "hadolint", "--no-color", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = path.read_text().splitlines()
    assert lines[-1] == 'ENTRYPOINT ["python", "-m", "jssd.main"]' and "USER 1000" in lines
    assert manifests.USER == 1000


@pytest.mark.parametrize("path", IMAGES, ids=name_of)
def test_the_build_gets_what_it_copies_and_nothing_else(path):
    """.dockerignore lets through exactly the names that COPY asks for."""
    copies = [line.split()[1:-1] for line in path.read_text().splitlines() if "COPY " in line]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    let = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert let == {name for names in copies for name in names}
    assert all((ROOT / name).exists() for name in let)


@pytest.mark.optin
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not (shutil.which("buildah") and BASE),
    reason="needs buildah, and JSSD_BASE_IMAGE: see the top of this file",
)
@pytest.mark.parametrize("path", IMAGES, ids=name_of)
def test_an_image_builds_and_runs(path):
    tag = f"localhost/jssd-test:{path.suffix.removeprefix('.')}"
    _buildah(
        "bud", "--isolation", "chroot", "--network", "host", "--file", str(path),
        "--build-arg", f"BASE_IMAGE={BASE}", "--tag", tag,
        *shlex.split(os.environ.get("JSSD_BUILD_FLAGS", "")), str(ROOT),
    )  # fmt: skip
    container = _buildah("from", tag).strip()
    try:
        run = ("run", "--isolation", "chroot", "--env", "JAX_PLATFORMS=cpu", container, "--")
        said = _buildah(*run, "python", "-c", "import os, jssd.config; print(os.getuid())")
        assert said.split() == ["1000"]
        # As the entry point does, which `run` leaves out.
        flags = ("--config=configs/toy.py", "--workdir=/tmp/toy")
        assert "13.77 at T 2.091" in _buildah(*run, "python", "-m", "jssd.main", *flags)
        _buildah(*run, "bwrap", "--version")
    finally:
        _buildah("rm", container)


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
