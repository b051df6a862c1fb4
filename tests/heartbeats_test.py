"""Files that say which processes live, and whose they are."""

import json
import os
import socket
import time

import pytest

from jssd import heartbeats

US = {"host": socket.gethostname(), "pid": os.getpid()}
PARENT = {"host": socket.gethostname(), "pid": os.getppid()}
GONE = {"host": socket.gethostname(), "pid": 2**22 + 1}  # Above what Linux counts to.
ELSEWHERE = {"host": "another", "pid": 7}


def _lay(folder, rank=0, **changes):
    entry = {"rank": rank, **US, "time": time.time(), "ended": None} | changes
    heartbeats.path(folder, rank).write_text(json.dumps(entry))


def test_a_file_is_written_read_and_removed(tmp_path):
    heartbeats.write(tmp_path, {"rank": 3, "phase": "sample", "ended": None})
    heartbeats.write(tmp_path, {"rank": 1, "phase": "wait", "ended": None})
    (tmp_path / "heartbeat-2.json").write_text("{")  # Cut short.
    found = heartbeats.read(tmp_path)
    assert [(entry["rank"], entry["phase"]) for entry in found] == [(1, "wait"), (3, "sample")]
    assert {name: found[0][name] for name in US} == US
    assert time.time() - found[0]["time"] < 5
    heartbeats.remove(tmp_path, 3)
    assert [entry["rank"] for entry in heartbeats.read(tmp_path)] == [1]


def test_missing_are_those_without_a_fresh_heartbeat(tmp_path):
    now = time.time()
    _lay(tmp_path, 0)
    _lay(tmp_path, 1, time=now - 3600)  # Of an earlier start.
    _lay(tmp_path, 2, ended=42)
    _lay(tmp_path, 4, time=now - 20)  # It came a little before this one.
    assert heartbeats.missing(tmp_path, 6, now) == [1, 2, 3, 5]


@pytest.mark.parametrize(
    ("changes", "anothers"),
    [
        (US, False), (PARENT, True), (GONE, False), (ELSEWHERE, True),
        (ELSEWHERE | {"ended": 0}, False), (ELSEWHERE | {"time": 0.0}, False),
        (PARENT | {"time": 0.0}, False),  # Frozen.
    ],
)  # fmt: skip
def test_the_file_of_a_living_process_is_left_alone(tmp_path, changes, anothers):
    _lay(tmp_path, **changes)
    assert heartbeats.is_anothers(tmp_path, 0) is anothers
    before = heartbeats.path(tmp_path, 0).read_text()
    heartbeats.write(tmp_path, {"rank": 0, "ended": None})
    assert (heartbeats.path(tmp_path, 0).read_text() == before) is anothers
    heartbeats.remove(tmp_path, 0)
    assert heartbeats.path(tmp_path, 0).exists() is anothers
