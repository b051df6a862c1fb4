"""Heartbeat files: what each process of a job writes in the work directory while it lives."""

import contextlib
import json
import os
import pathlib
import socket
import time
from typing import Any

SECONDS = 5.0  # Between two writings.
STALE_SECONDS = 30.0  # A file older than that is one of a process that is no more.


def path(folder: pathlib.Path, rank: int) -> pathlib.Path:
    """The file that process `rank` of a job writes every few seconds while it lives."""
    return folder / f"heartbeat-{rank}.json"


def write(folder: pathlib.Path, entry: dict[str, Any]) -> None:
    """Writes the file of process `entry["rank"]`, with where and when it lives, beside its place
    and renames it. That of a living process of another job stays: it is that job's sign of life."""
    if is_anothers(folder, entry["rank"]):
        return
    file = path(folder, entry["rank"])
    beside = file.with_name(file.name + ".tmp")
    where = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    beside.write_text(json.dumps(entry | where) + "\n", encoding="utf-8")
    os.replace(beside, file)


def remove(folder: pathlib.Path, rank: int) -> None:
    """Removes the file of a process that is done, unless it is another's."""
    if not is_anothers(folder, rank):
        path(folder, rank).unlink(missing_ok=True)


def is_anothers(folder: pathlib.Path, rank: int) -> bool:
    """Whether the file of process `rank` comes from one that lives and is not this one."""
    entry = next((entry for entry in read(folder) if entry["rank"] == rank), None)
    if entry is None or entry["ended"] is not None:
        return False
    if time.time() - entry["time"] >= STALE_SECONDS:
        return False
    if entry["host"] != socket.gethostname():
        return True
    return entry["pid"] != os.getpid() and _lives(entry["pid"])


def _lives(pid: int) -> bool:
    """Whether there is such a process on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # It is there, and somebody else's.
        return True
    return True


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The heartbeat files of a work directory, by rank; broken ones are left out."""
    found = []
    for file in folder.glob("heartbeat-*.json"):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda entry: entry["rank"])


def missing(folder: pathlib.Path, count: int, since: float) -> list[int]:
    """The processes of which no heartbeat is newer than `since` (seconds of the epoch)."""
    alive = {
        entry["rank"]
        for entry in read(folder)
        if entry["time"] >= since - STALE_SECONDS and entry["ended"] is None
    }
    return sorted(set(range(count)) - alive)
