"""Heartbeat files: what each process of a job writes in the work directory while it lives."""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
from typing import Any

from jssd import places

SECONDS = 5.0  # Between two writings.
_BUCKET_SECONDS = 2.0  # For the last word to get to a bucket.
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
    where = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    text = json.dumps(entry | where) + "\n"
    if places.is_remote(file):
        places.write_text(file, text)
        return
    beside = file.with_name(file.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, file)


class Pulse:
    """The heartbeat file of this process. What fails here ends nothing: the work tells it better.

    A bucket may take minutes to answer, in which the watchdog that writes would watch nothing:
    there a thread writes, and what comes while it does is left out.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._thread: threading.Thread | None = None

    def write(self, entry: dict[str, Any]) -> None:
        """Writes the entry, or begins to; the last one, with its exit code, is waited for."""
        if not places.is_remote(self.folder):
            self._write(entry)
            return
        last = entry["ended"] is not None
        if self._thread is not None:
            self._thread.join(_BUCKET_SECONDS if last else 0.0)
            if self._thread.is_alive():
                return
        self._thread = threading.Thread(target=self._write, args=(entry,), daemon=True)
        self._thread.start()
        if last:
            self._thread.join(_BUCKET_SECONDS)

    def remove(self, rank: int) -> None:
        """Takes the file away: nobody is at work any more."""
        if self._thread is not None:
            self._thread.join(_BUCKET_SECONDS)
        with contextlib.suppress(places.Trouble):
            remove(self.folder, rank)

    def _write(self, entry: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            write(self.folder, entry)


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
    return entry["pid"] != os.getpid() and lives(entry["pid"])


def lives(pid: int) -> bool:
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
