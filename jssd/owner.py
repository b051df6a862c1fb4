"""One job at a time in a work directory: the second is refused."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator

import filelock

from jssd import heartbeats, places, survival

LOCK = ".lock"


@contextlib.contextmanager
def owned(workdir: pathlib.Path) -> Iterator[None]:
    """Holds `workdir` for this process, the first of its job; the others of the job share it.

    The kernel lets go of the lock when its process ends in whatever way. Where hosts do not see one
    another's locks, as on many network file systems, a heartbeat that still comes from another host
    is a sign of a job as well: if there is a fresh one, it takes half a minute to be sure. A bucket
    has no locks: there the lock lies on this machine, and the heartbeat says the rest.

    Raises:
      ValueError: another job is at work there.
    """
    home = places.cache(workdir)
    home.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(home / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(_told(workdir)) from None
    try:
        if _beats_elsewhere(workdir):
            raise ValueError(_told(workdir))
        yield
    finally:
        lock.release()


def _told(workdir: pathlib.Path) -> str:
    owner = next(iter(heartbeats.read(workdir)), None)
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return (
        f"{workdir} is in use by {who}. Wait for it or end it, or give this run another --workdir."
    )


def _beats_elsewhere(workdir: pathlib.Path) -> bool:
    """Whether the first process of a job on another host lives."""
    first = _heartbeat(workdir)
    if first is None or first["ended"] is not None or _is_gone(first, workdir):
        return False
    while time.time() - first["time"] < heartbeats.STALE_SECONDS:
        time.sleep(1.0)
        survival.check()
        now = _heartbeat(workdir)
        if now is None or now["ended"] is not None:
            return False
        if now["time"] != first["time"] and not _is_own(now):
            return True
    return False


def _is_own(entry: dict) -> bool:
    return (entry["host"], entry["pid"]) == (socket.gethostname(), os.getpid())


def _is_gone(entry: dict, workdir: pathlib.Path) -> bool:
    """Whether its process does not live, since this one holds the lock. That of a bucket lies in a
    cache, and a container of this host may have its own: there the process is looked for."""
    if entry["host"] != socket.gethostname():
        return False
    if not places.is_remote(workdir) or _is_own(entry):
        return True
    return not heartbeats.lives(entry["pid"])


def _heartbeat(workdir: pathlib.Path) -> dict | None:
    found = [entry for entry in heartbeats.read(workdir) if entry["rank"] == 0]
    return found[0] if found else None
