"""One job in a work directory, on one host and where hosts do not see one another's locks."""

import json
import os
import socket
import time

import pytest

from jssd import heartbeats, owner


def _heartbeat(folder, **changes):
    entry = {"rank": 0, "host": "another", "pid": 7, "time": time.time(), "ended": None} | changes
    heartbeats.path(folder, 0).write_text(json.dumps(entry))


def test_the_second_is_refused_until_the_first_lets_go(tmp_path):
    with owner.owned(tmp_path), pytest.raises(ValueError, match="in use"), owner.owned(tmp_path):
        pass
    with owner.owned(tmp_path):
        pass


def test_a_job_that_beats_on_another_host_is_in_the_way(tmp_path, monkeypatch):
    _heartbeat(tmp_path)
    monkeypatch.setattr(owner.time, "sleep", lambda _: _heartbeat(tmp_path, time=time.time() + 1))
    with pytest.raises(ValueError, match="process 7 on another"), owner.owned(tmp_path):
        pass


@pytest.mark.parametrize("left", [{"ended": 42}, {"time": 0.0}], ids=["ended", "old"])
def test_what_a_dead_job_left_is_not(tmp_path, left):
    _heartbeat(tmp_path, **left)
    with owner.owned(tmp_path):
        pass


def test_a_job_that_falls_silent_is_waited_for_and_then_not_in_the_way(tmp_path, monkeypatch):
    began = time.time()
    now = [began]
    _heartbeat(tmp_path, time=began)
    monkeypatch.setattr(owner.time, "time", lambda: now[0])
    monkeypatch.setattr(owner.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    with owner.owned(tmp_path):
        assert now[0] - began >= heartbeats.STALE_SECONDS


def test_of_several_processes_the_first_is_not_taken_for_another_job(tmp_path, monkeypatch):
    _heartbeat(tmp_path)
    own = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time() + 1}
    now = [time.time()]
    monkeypatch.setattr(owner.time, "time", lambda: now[0])

    def sleep(seconds):
        now[0] += seconds
        _heartbeat(tmp_path, **own)

    monkeypatch.setattr(owner.time, "sleep", sleep)
    with owner.owned(tmp_path):
        pass


def test_in_a_bucket_the_heartbeat_of_a_living_job_is_not_written_over(bucket, monkeypatch):
    workdir = bucket / "several"
    living = {"rank": 0, "host": "another", "pid": 7, "time": time.time(), "ended": None}
    heartbeats.path(workdir, 0).write_text(json.dumps(living))
    heartbeats.write(workdir, {"rank": 0, "ended": None})
    assert heartbeats.read(workdir) == [living]
    later = json.dumps(living | {"time": time.time() + 5})
    monkeypatch.setattr(
        owner.time, "sleep", lambda _: heartbeats.path(workdir, 0).write_text(later)
    )
    with pytest.raises(ValueError, match="in use by process 7 on another"), owner.owned(workdir):
        pass
