"""Tests of finding the processes of a program and of adding up their memory."""

import os
import subprocess
import sys
import time

from jssd.evals import watch

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_tree_is_found_with_or_without_the_kernels_lists(monkeypatch):
    script = "sleep 60 & (sleep 60 & sleep 60; true) & echo begun; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout and shell.stdout.readline() == b"begun\n"
        soon = time.monotonic() + 10
        while len(found := watch.tree(shell.pid)) < 5 and time.monotonic() < soon:
            time.sleep(0.01)
        assert shell.pid in found and len(found) == 5
        monkeypatch.setattr(watch, "_tells_children", lambda: False)
        assert watch.tree(shell.pid) == found
        assert found < watch.tree(os.getpid())
        for pid in found:
            os.kill(pid, 9)
    assert watch.tree(shell.pid) == {shell.pid}


def test_marks_are_found_in_the_environment_only():
    env = {**os.environ, "MARK": "here-7319"}
    with subprocess.Popen(SLEEPS, env=env) as with_it, subprocess.Popen(SLEEPS) as without:
        find = watch.marked("MARK=here-7319")
        soon = time.monotonic() + 10
        while not (found := find()) and time.monotonic() < soon:
            time.sleep(0.01)
            find = watch.marked("MARK=here-7319")  # It may not have begun when first looked at.
        assert found == {with_it.pid}
        for process in (with_it, without):
            process.kill()
            process.wait()
        assert find() == set()


def test_users_are_told_apart():
    assert os.getpid() in watch.of_user(os.getuid())
    assert watch.of_user(60577) == set()


def test_shared_memory_counts_once_where_it_matters():
    program = (
        "import os, time\ndata = bytearray(b'x' * (100 << 20))\n"
        "for _ in range(4):\n    if os.fork() == 0:\n        time.sleep(60)\n"
        "print('begun', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as first:
        assert first.stdout and first.stdout.readline() == b"begun\n"
        family = watch.tree(first.pid)
        assert len(family) == 5
        assert watch.memory(family, 1 << 40) > 500 << 20  # Quick, and too high.
        assert 100 << 20 < watch.memory(family, 0) < 200 << 20
        for pid in family:
            os.kill(pid, 9)
    soon = time.monotonic() + 10
    while watch.memory(family, 0) and time.monotonic() < soon:
        time.sleep(0.01)
    assert watch.memory(family, 0) == 0  # Of those that are gone.
