"""Heartbeat files: what each process of a job writes in the work directory while it lives."""

import contextlib
import json
import os
import pathlib
from typing import Any

SECONDS = 5.0  # Between two writings.
STALE_SECONDS = 30.0  # A file older than that is one of a process that is no more.


def path(folder: pathlib.Path, rank: int) -> pathlib.Path:
    """The file that process `rank` of a job writes every few seconds while it lives."""
    return folder / f"heartbeat-{rank}.json"


def write(folder: pathlib.Path, entry: dict[str, Any]) -> None:
    """Writes the file of process `entry["rank"]` beside its place and renames it."""
    file = path(folder, entry["rank"])
    beside = file.with_name(file.name + ".tmp")
    beside.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    os.replace(beside, file)


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
