"""Faults on one process and on two: each ends in time, with its code, and the run goes on whole.

docs/faults.md has the table. Those of two processes take minutes and hang on timeouts, so a busy
machine may fail them: JSSD_FAULTS=1 runs them.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from jssd import goodput
from tests.e2e import conftest

# jssd, but for a method that at its n-th call, on one process, does not come back.
STUCK = """
import sys, time
from jssd import main
from {module} import {owner}
known, calls = {owner}.{name}, [0]
def frozen_in_test(self):
    calls[0] += 1
    while calls[0] == {call} and "--process_id={process}" in sys.argv:
        time.sleep(1)
    return known(self)
{owner}.{name} = frozen_in_test
main.app.run(main.main, flags_parser=main._parse)
"""
TWO = ("--stages=sample,sft,export", "--config.train.num_steps=8", "--config.survival.heartbeat=10")

of_two_processes = pytest.mark.skipif(
    "JSSD_FAULTS" not in os.environ, reason="takes minutes; JSSD_FAULTS=1 runs it"
)


@contextlib.contextmanager
def started(processes: list[subprocess.Popen]) -> Iterator[list[subprocess.Popen]]:
    """Processes none of which outlives the block."""
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def start(tiny, workdir, *flags) -> subprocess.Popen:
    return subprocess.Popen(
        # Where these tests are a script's background job, SIGINT is ignored, and so by children.
        ["env", "--default-signal=INT", *conftest.command(tiny, workdir, *flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=conftest.cpu_devices(),
    )


def wait_until(came: Callable[[], object], process: subprocess.Popen) -> None:
    while process.poll() is None and not came():
        time.sleep(0.01)


def same_bytes(found: pathlib.Path, wanted: pathlib.Path) -> None:
    ours, theirs = conftest.outputs(found), conftest.outputs(wanted)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_sigterm_in_each_phase_ends_with_42_and_later_in_the_same_bytes(straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    partial = workdir / "samples/part-00000.jsonl.partial"
    moments = {
        "the first compile": partial.exists,
        "sampling": lambda: conftest.count_lines(partial) >= 2,
        "training": lambda: any(workdir.glob("checkpoints/2")),
        "export": lambda: any(workdir.glob(".export*")) or any(workdir.glob("export")),
        "grading": lambda: any(workdir.glob("eval/tasks/*/*/scores.json")),
    }
    for name, came in moments.items():
        with started([start(tiny, workdir)]) as [process]:
            wait_until(came, process)
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=60)[0]
        assert process.returncode == 42, f"{name}: {output}"
        assert "received SIGTERM" in output and "Traceback" not in output, name
    done = conftest.cli(tiny, workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    same_bytes(workdir, straight)
    found = goodput.read([workdir])
    assert found is not None and found.starts >= 5
    # What SIGTERM ends is saved first: no step was done twice.
    assert found.seconds["step"] > 0 and found.seconds.get(goodput.LOST, 0.0) < 1.0
    assert not list(workdir.glob("heartbeat-*"))


def test_ctrl_c_is_one_line_and_130(tiny, tmp_path):
    with started([start(tiny, tmp_path / "run")]) as [process]:
        wait_until(lambda: any(tmp_path.glob("run/samples/*.partial")), process)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output and output.count("interrupted") == 1


def test_a_second_job_in_a_workdir_is_refused_and_a_killed_one_is_not_in_the_way(tiny, tmp_path):
    workdir = tmp_path / "run"
    with started([start(tiny, workdir, "--stages=sample")]) as [process]:
        wait_until(lambda: any(workdir.glob("samples/*.partial")), process)
        process.send_signal(signal.SIGSTOP)
        second = conftest.cli(tiny, workdir, "--stages=sample")
        assert second.returncode == 2, second.stdout + second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        assert f"in use by process {process.pid}" in second.stderr
    assert conftest.cli(tiny, workdir, "--stages=sample").returncode == 0


def test_a_process_that_does_not_come_is_named(tiny, tmp_path):
    flags = ("--coordinator=localhost:1", "--num_processes=3", "--process_id=1")
    done = conftest.cli(tiny, tmp_path / "run", *flags, "--config.survival.join=6")
    assert done.returncode == 140, done.stdout + done.stderr
    assert "process 1/3" in done.stdout and "jaxlib" in done.stdout
    assert "not all of 3 processes came" in done.stderr and ": 0, 2" in done.stderr


@pytest.fixture(scope="module")
def two_straight(tiny, tmp_path_factory) -> pathlib.Path:
    """A run of two processes that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    flags = (*TWO, "--config.survival.stragglers_every=3")
    outputs = conftest.finish_hosts(conftest.start_hosts(tiny, workdir, *flags, count=2))
    assert outputs[0].count("slowest host: process") == 2
    assert "process 1/2 joined: 1 of 2 devices" in outputs[1]
    return workdir


@of_two_processes
def test_two_processes_end_together_and_go_on_whole(two_straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    step = lambda number: lambda: (workdir / "checkpoints" / str(number)).exists()
    drawn = lambda: any(conftest.count_lines(p) for p in workdir.glob("samples/*.partial"))
    faults = [
        (drawn, signal.SIGTERM, 0, [42, 42]),
        (step(2), signal.SIGTERM, 1, [42, 42]),
        (step(4), signal.SIGKILL, 1, [-signal.SIGABRT, -signal.SIGKILL]),
    ]
    for came, number, index, codes in faults:
        with started(conftest.start_hosts(tiny, workdir, *TWO, count=2)) as processes:
            wait_until(came, processes[0])
            processes[index].send_signal(number)
            outputs = [process.communicate(timeout=90)[0] for process in processes]
        assert [process.returncode for process in processes] == codes, "\n".join(outputs)
        if number == signal.SIGTERM:
            assert all("received SIGTERM" in output for output in outputs)
    conftest.finish_hosts(conftest.start_hosts(tiny, workdir, *TWO, count=2))
    same_bytes(workdir, two_straight)


@of_two_processes
def test_a_stuck_process_ends_both_with_140_and_the_line_it_is_at(two_straight, tiny, tmp_path):
    workdir = _with_samples(two_straight, tmp_path)
    program = STUCK.format(
        module="jssd.data.pipeline", owner="Batches", name="__next__", call=4, process=1
    )
    flags = ("--stages=sft", *TWO[1:], "--config.survival.step=10")
    processes = conftest.start_hosts(
        tiny, workdir, *flags, count=2, start=[sys.executable, "-c", program]
    )
    with started(processes):
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [140, 140], "\n".join(outputs)
    assert "frozen_in_test" in outputs[1] and "process 1/2 is hung" in "".join(outputs)
    conftest.finish_hosts(conftest.start_hosts(tiny, workdir, *TWO, count=2))
    same_bytes(workdir, two_straight)


@of_two_processes
def test_a_frozen_process_is_given_up_by_the_other(two_straight, tiny, tmp_path):
    workdir = _with_samples(two_straight, tmp_path)
    with started(conftest.start_hosts(tiny, workdir, *TWO, count=2)) as processes:
        wait_until((workdir / "checkpoints/2").exists, processes[0])
        processes[1].send_signal(signal.SIGSTOP)
        output = processes[0].communicate(timeout=90)[0]
        assert processes[0].returncode == -signal.SIGABRT, output
        heartbeat = json.loads((workdir / "heartbeat-1.json").read_text())
        assert heartbeat["rank"] == 1 and heartbeat["pid"] == processes[1].pid


def _with_samples(run: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "samples").symlink_to(run / "samples")
    return workdir
