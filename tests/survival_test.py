"""Limits by phase, and what a process without a guard answers. The faults: e2e/faults_test.py."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jssd import survival
from jssd.config import SurvivalConfig

LIMITS = SurvivalConfig(start=1, compile=2, sample=3, step=4, save=5, grade=6, wait=7, join=8)
# A process that is at something, with a second to show a sign of life, until it is ended.
PROGRAM = """
import pathlib, sys, time
from jssd import phases, survival
from jssd.config import SurvivalConfig
guard = survival.start()
limits = SurvivalConfig(grade=2, grace=2)
guard.configure(limits)
guard.beat_in(pathlib.Path(sys.argv[1]))
holds, stops = (word == "yes" for word in sys.argv[2:])
try:
    with phases.phase("grade" if not holds and not stops else "init"):
        phases.hold(holds)
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
            if stops:
                survival.go_on()
except survival.Stopped:
    guard.stopped()
"""


@pytest.mark.parametrize(
    ("phase", "limit"),
    [
        ("join", 8), ("init", 1), ("restore", 1), ("export", 1), ("compile", 2), ("sample", 3),
        ("measure", 3), ("step", 4), ("data_wait", 4), ("save", 5), ("grade", 6), ("wait", 7),
    ],
)  # fmt: skip
def test_each_phase_has_its_limit(phase, limit):
    assert survival.limit_of(LIMITS, phase) == limit


def test_waiting_for_others_has_none_by_default():
    assert survival.limit_of(SurvivalConfig(), "wait") == 0


def test_without_a_guard_nothing_stops_anyone(monkeypatch):
    monkeypatch.setattr(survival, "_guard", None)
    assert survival.rank() == 0 and not survival.stopping()
    survival.check()
    survival.go_on()
    survival.check_alone()
    survival.fail(1, "no matter")


def _start(folder, *, holds="no", stops="no") -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), holds, stops],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_a_hung_process_says_where_it_is_and_ends_with_140(tmp_path):
    with _start(tmp_path) as process:
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 140
    assert "no sign of life in grade for 2 s (survival.grade), last at step 0" in error
    assert 'File "<string>", line 14' in error or "in <module>" in error
    assert f'"ended": {140}' in (tmp_path / "heartbeat-0.json").read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stops": "yes"}, ""),
        ({}, "stopped in grade, where nothing is lost"),
        ({"holds": "yes"}, "survival.grace=2 s are over in init at step 0"),
    ],
    ids=["asks", "does not ask", "holds what is lost"],
)
def test_sigterm_ends_with_42_whatever_the_work_is_at(tmp_path, settings, told):
    with _start(tmp_path, **settings) as process:
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 42, error
    assert "received SIGTERM during " in error and told in error
    assert time.monotonic() - began < 30
