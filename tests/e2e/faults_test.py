"""Faults on one process and on two: each ends in time, with its code, and the run goes on whole.

docs/faults.md has the table. Faults are made from inside, at a chosen moment (`faulty.py`): a phase
of a tiny run is over before another process could aim at it. On two processes SIGTERM in each phase
and a killed coordinator run by default; those that wait for time-outs run with JSSD_FAULTS=1.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from jssd import goodput, heartbeats
from jssd.config import SurvivalConfig
from tests.e2e import conftest

GRACE = SurvivalConfig().grace
HEARTBEAT = 10  # Seconds until the survivors of a lost process give up.
TWO = (
    "--stages=sample,sft,export,evaluate", "--config.train.num_steps=8",
    f"--config.survival.heartbeat={HEARTBEAT}",
)  # fmt: skip
PATIENCE = 900  # Seconds that a busy machine may take for anything.

waits_for_timeouts = pytest.mark.skipif(
    "JSSD_FAULTS" not in os.environ, reason="waits for time-outs; JSSD_FAULTS=1 runs it"
)


def faulty(*fault: object) -> list[str]:
    """What starts jssd with a fault, as `faulty.py` takes it."""
    return [sys.executable, "-m", "tests.e2e.faulty", *map(str, fault)]


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


def start(tiny, workdir, *flags, start: list[str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        # Where these tests are a script's background job, SIGINT is ignored, and so by children.
        ["env", "--default-signal=INT", *conftest.command(tiny, workdir, *flags, start=start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=conftest.cpu_devices(),
    )


def ended(processes: list[subprocess.Popen]) -> tuple[list[int], list[str], float]:
    """Exit codes, what was printed, and seconds from the fault to the last end."""
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    now = time.time()
    at = re.search(r"^fault at ([0-9.]+) s$", "".join(outputs), re.M)
    assert at, "\n".join(outputs)
    return [process.returncode for process in processes], outputs, now - float(at[1])


def wait_until(came: Callable[[], object], process: subprocess.Popen) -> None:
    while process.poll() is None and not came():
        time.sleep(0.01)


def same_bytes(found: pathlib.Path, wanted: pathlib.Path) -> None:
    ours, theirs = conftest.outputs(found), conftest.outputs(wanted)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


# (phase, its how-manieth sign of life): "compile" is the first compile of the run.
MOMENTS = [("compile", 1), ("sample", 2), ("step", 2), ("export", 3), ("grade", 2)]


@pytest.mark.timeout(3 * PATIENCE)
def test_sigterm_in_each_phase_ends_with_42_and_later_in_the_same_bytes(straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    for phase, call in MOMENTS:
        with started([start(tiny, workdir, start=faulty("term", phase, call, "-"))]) as processes:
            codes, (output,), seconds = ended(processes)
        assert codes == [42], f"{phase}: {output}"
        assert f"received SIGTERM during {phase}: " in output and "Traceback" not in output
        assert seconds < GRACE, phase
    partial = next(workdir.rglob("verdicts.jsonl.partial"))
    assert conftest.count_lines(partial) > 1  # What was graded is not graded again.
    done = conftest.cli(tiny, workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    same_bytes(workdir, straight)
    found = goodput.read([workdir])
    assert found is not None and found.starts == len(MOMENTS) + 1
    # What SIGTERM ends is saved first: no step was done twice.
    assert found.seconds["step"] > 0 and found.seconds.get(goodput.LOST, 0.0) < 1.0
    assert not list(workdir.glob("heartbeat-*")) and not list(workdir.rglob("verdicts*"))


@pytest.mark.parametrize("phase", ["sample", "step", "grade"])
def test_a_process_that_hangs_is_found_by_the_limit_of_its_phase(straight, tiny, tmp_path, phase):
    workdir = with_parts(
        straight, tmp_path, *({"step": ["samples"], "grade": ["export"]}.get(phase, []))
    )
    stage = {"sample": "sample", "step": "sft", "grade": "evaluate"}[phase]
    flags = (f"--stages={stage}", f"--config.survival.{phase}=3")
    with started([start(tiny, workdir, *flags, start=faulty("stuck", phase, 2, "-"))]) as processes:
        codes, (output,), seconds = ended(processes)
    assert codes == [140], output
    assert f"no sign of life in {phase} for 3 s (survival.{phase})" in output
    assert "in go_wrong" in output  # The line it is at.
    assert 3 <= seconds < 3 + GRACE


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


@pytest.mark.parametrize("who", ["flags", "SLURM"])
def test_a_process_that_does_not_come_is_named(tiny, tmp_path, monkeypatch, who):
    flags = ("--coordinator=localhost:1", "--num_processes=3", "--process_id=1")
    if who == "SLURM":
        flags = ("--distributed",)
        step = {"JOB_ID": 7, "STEP_NODELIST": "localhost", "NTASKS": 3, "PROCID": 1, "LOCALID": 0}
        for name, value in step.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
    done = conftest.cli(tiny, tmp_path / "run", *flags, "--config.survival.join=6")
    assert done.returncode == 140, done.stdout + done.stderr
    assert "process 1/3 on " in done.stdout and "jaxlib" in done.stdout
    assert "waits for the others at localhost:" in done.stdout
    assert "not all of 3 processes came" in done.stderr and ": 0, 2" in done.stderr
    # No other's file: it would look like a process 0 that lives.
    assert [path.name for path in tmp_path.glob("run/heartbeat-*")] == ["heartbeat-1.json"]


def hosts(tiny, workdir, *fault: object, flags=()) -> list[subprocess.Popen]:
    """Two processes, one of which perhaps has a fault."""
    start = faulty(*fault) if fault else None
    return conftest.start_hosts(tiny, workdir, *TWO, *flags, count=2, start=start)


@pytest.fixture(scope="module")
def two_straight(tiny, tmp_path_factory) -> pathlib.Path:
    """A run of two processes that nothing disturbed, though the second is slow."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    flags = ("--config.survival.stragglers_every=3",)
    outputs = conftest.finish_hosts(hosts(tiny, workdir, "slow", "step", 1, 1, flags=flags))
    # Two lines in eight steps; a busy machine may slow the other one down for some of them.
    assert outputs[0].count("slowest host: process ") == 2, outputs[0]
    assert "slowest host: process 1, busy " in outputs[0], outputs[0]
    assert "process 1/2 joined: 1 of 2 devices" in outputs[1]
    return workdir


def test_two_processes_score_what_one_does(two_straight, tiny, tmp_path):
    workdir = with_parts(two_straight, tmp_path, "export")
    done = conftest.cli(tiny, workdir, "--stages=evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = (
        {name: found for name, found in conftest.outputs(folder).items() if name[:5] == "eval/"}
        for folder in (two_straight, workdir)
    )
    # Only who drew what differs: each process has a part.
    parts = [name for name in theirs if "/part-" in name]
    assert len(parts) == 4
    for name in parts:
        both = theirs.pop(name), ours.pop(name) + ours.pop(name.replace("part-00000", "part-00001"))
        assert sorted(both[0].splitlines()) == sorted(both[1].splitlines())
    assert ours.pop("eval/hosts.json") != theirs.pop("eval/hosts.json")
    assert "eval/comparisons.json" in ours and ours == theirs


@pytest.mark.timeout(6 * PATIENCE)
def test_two_processes_end_together_in_each_phase_and_go_on_whole(two_straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    # The second draws nothing before its fault: the first may be done by then. The first grades.
    for (phase, call), process in zip(MOMENTS, (1, 1, 0, 1, 0), strict=True):
        with started(hosts(tiny, workdir, "term", phase, call, process)) as processes:
            codes, outputs, seconds = ended(processes)
        told = "\n".join(outputs)
        assert codes == [42, 42], f"{phase}: {told}"
        assert f"jssd: received SIGTERM during {phase}: " in outputs[process]
        assert f"jssd: process {process} received SIGTERM during " in outputs[1 - process]
        assert "Traceback" not in told and seconds < GRACE, f"{phase}: {seconds} s, {told}"
        if phase == "step":
            saved = re.search(r"saved step (\d+) of 8", outputs[0])
            assert saved and (workdir / "checkpoints" / saved[1]).exists(), told
            with started(hosts(tiny, workdir, "kill", "step", 2, 0)) as processes:
                codes, outputs, seconds = ended(processes)
            assert codes == [-signal.SIGKILL, -signal.SIGABRT], "\n".join(outputs)
            assert seconds < HEARTBEAT + GRACE
            events = conftest.read_lines(workdir / "events.jsonl")
            restored = [event["step"] for event in events if event.get("event") == "restored"]
            assert restored == [0, int(saved[1])]
    conftest.finish_hosts(hosts(tiny, workdir))
    same_bytes(workdir, two_straight)


@waits_for_timeouts
@pytest.mark.timeout(6 * PATIENCE)
def test_a_process_killed_frozen_stuck_or_out_of_disk_ends_the_other(two_straight, tiny, tmp_path):
    workdir = with_parts(two_straight, tmp_path, "samples")
    with started(hosts(tiny, workdir, "kill", "step", 1, 1)) as processes:
        codes, outputs, seconds = ended(processes)
    assert codes == [-signal.SIGABRT, -signal.SIGKILL], "\n".join(outputs)
    assert seconds < HEARTBEAT + GRACE
    with started(hosts(tiny, workdir, "stop", "step", 3, 1)) as processes:
        output = processes[0].communicate(timeout=PATIENCE)[0]
        frozen = json.loads((workdir / "heartbeat-1.json").read_text())["time"]
        assert processes[0].returncode == -signal.SIGABRT, output
        # The frozen one wrote its file every five seconds until then.
        assert time.time() - frozen < heartbeats.SECONDS + HEARTBEAT + GRACE
        heartbeat = json.loads((workdir / "heartbeat-1.json").read_text())
        assert heartbeat["rank"] == 1 and heartbeat["pid"] == processes[1].pid
        processes[1].kill()
    flags = ("--config.survival.step=10",)
    with started(hosts(tiny, workdir, "stuck", "step", 3, 1, flags=flags)) as processes:
        codes, outputs, seconds = ended(processes)
    assert codes == [140, 140], "\n".join(outputs)
    assert "in go_wrong" in outputs[1] and "process 1/2 is hung" in "".join(outputs)
    assert 10 <= seconds < 10 + GRACE
    with started(hosts(tiny, workdir, "full", "step", 1, 1)) as processes:
        codes, outputs, seconds = ended(processes)
    assert codes == [1, 1], "\n".join(outputs)
    assert "process 1 ended with code 1: a file: No space left on device." in outputs[0]
    conftest.finish_hosts(hosts(tiny, workdir))
    same_bytes(workdir, two_straight)


def with_parts(run: pathlib.Path, tmp_path: pathlib.Path, *names: str) -> pathlib.Path:
    """A work directory with these folders of another."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    for name in names:
        (workdir / name).symlink_to(run / name)
    return workdir
