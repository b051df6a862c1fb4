"""Sandboxes for the tests of this room: the strongest one, and one of every way that works here."""

import os
import tempfile

import pytest

from jssd.evals import sandbox as sandbox_lib
from jssd.evals import ways


@pytest.fixture(scope="session")
def sandbox():
    return sandbox_lib.open_sandbox("auto")


@pytest.fixture(params=ways.NAMES)
def any_way(request):
    """A sandbox of each way in turn; ways that do not work on this machine are skipped, and why."""
    return _of_way(request.param)


@pytest.fixture(params=["bwrap", "unshare"])
def walled(request):
    """A sandbox of each way that shuts out files, network and other processes."""
    return _of_way(request.param)


@pytest.fixture(params=["bwrap", "unshare", "uid"])
def not_same_user(request):
    """A sandbox of each way whose programs may not act as this user."""
    return _of_way(request.param)


@pytest.fixture
def temp_root(monkeypatch):
    """The folder in which sandboxes make theirs; readable by all, as other user ids work in it."""
    with tempfile.TemporaryDirectory(prefix="jssd-tests-") as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield folder


def _of_way(name: str) -> sandbox_lib.Sandbox:
    choices = [ways.this_interpreter()]
    if name == "uid" and os.path.exists("/usr/bin/python3.11"):
        # The interpreter of a virtual environment may lie where other users cannot read.
        choices.append(ways.Interpreter(os.path.realpath("/usr/bin/python3.11"), ("/usr",), ()))
    for interpreter in choices:
        found = sandbox_lib.Sandbox(name, interpreter)
        if not sandbox_lib.why_not(found):
            return found
    pytest.skip(f"{name}: {sandbox_lib.why_not(sandbox_lib.Sandbox(name, choices[0]))}")
