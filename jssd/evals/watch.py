"""All processes of one program: finding them, and ending them once together they hold too much.

The limit on address space holds for each process alone, and control groups need rights that few
places give. So a thread looks at them every so often: a program may be over for a moment.
"""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from jssd.evals.child import Child, Failure

WALL_BYTES = 8 << 20  # For what the wall itself runs beside the program.
_TICK = 0.05  # Seconds between looks,
_SHARE = 0.05  # or more where a look is slow: at most this share of a core is spent on looking.
_PROC = Path("/proc")


@contextlib.contextmanager
def together(child: Child, find: Callable[[], Iterable[int]], memory_mb: int):
    """Ends `child` and all that `find` finds with verdict "memory" when they hold more than that.

    Memory that several of them share counts once. Where there is no /proc, nothing is seen.
    """
    limit = (memory_mb << 20) + WALL_BYTES
    done = threading.Event()

    def look_on() -> None:
        pause = _TICK
        while not done.wait(pause):
            start = time.thread_time()
            found = list(find())
            held = memory(found, limit)
            if held > limit:
                # Pages of a process that forked or ended between two readings were counted twice.
                found = list(find())
                held = min(held, memory(found, limit))
            if held > limit:
                detail = f"its processes together held {held >> 20} MB, more than {memory_mb}"
                child.end(Failure("memory", detail))
                for pid in found:  # Those that left the group: nobody may be reading just now.
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            pause = max(_TICK, (time.thread_time() - start) / _SHARE)

    thread = threading.Thread(target=look_on, name="jssd-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def memory(pids: Iterable[int], enough: int) -> int:
    """Bytes that processes hold together, swapped ones too; more exact above `enough`.

    Up to there, what is shared counts for each of them: that is quick to read, and never too low.
    """
    resident = {pid: _resident(pid) for pid in pids}
    total = sum(filter(None, resident.values())) << 10
    if total <= enough:
        return total
    total = 0
    for pid in resident:
        exact = _kilobytes(pid, "smaps_rollup", rb"^(?:Pss|SwapPss):\s+(\d+)")
        # A process may forbid the exact look; one that has ended since holds nothing.
        total += (_resident(pid) or 0) if exact is None else exact
    return total << 10


def _resident(pid: int) -> int | None:
    return _kilobytes(pid, "status", rb"^Vm(?:RSS|Swap):\s+(\d+)")


def tree(root: int) -> set[int]:
    """A process and all that descend from it. Those whose parents died hang elsewhere."""
    children = _children_told if _tells_children() else _children_asked()
    found, waiting = set(), [root]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children(pid)
    return found


def of_user(uid: int) -> set[int]:
    """Processes that act as a user in any way."""
    # The owner of their folder in /proc would be quicker; a program can make that root.
    wanted = re.compile(rb"^Uid:.*\b%d\b" % uid, re.M)
    return {pid for pid in _all() if wanted.search(_read(pid, "status"))}


def marked(mark: str) -> Callable[[], set[int]]:
    """What finds the processes that began with `mark` in their environment; it looks at each once.

    Raises nothing for those that cannot be read: they are not found.
    """
    known: dict[int, bool] = {}

    def find() -> set[int]:
        present = _all()
        for pid in known.keys() - set(present):
            del known[pid]
        for pid in present:
            if pid not in known:
                known[pid] = mark.encode() in _read(pid, "environ")
        return {pid for pid, mine in known.items() if mine}

    return find


def _all() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    return []


def _tells_children() -> bool:
    return os.path.exists(_PROC / f"self/task/{os.getpid()}/children")


def _children_told(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(_PROC / str(pid) / "task"):
            found += map(int, _read(pid, f"task/{thread}/children").split())
    return found


def _children_asked() -> Callable[[int], list[int]]:
    """For kernels that do not list children: asks every process for its parent."""
    children: dict[int, list[int]] = {}
    for pid in _all():
        parent = _kilobytes(pid, "status", rb"^PPid:\s+(\d+)")
        children.setdefault(parent or 0, []).append(pid)
    return lambda pid: children.get(pid, [])


def _kilobytes(pid: int, name: str, pattern: bytes) -> int | None:
    """The sum of the numbers that `pattern` finds in a file of a process; None for none."""
    numbers = re.findall(pattern, _read(pid, name), re.M)
    return sum(map(int, numbers)) if numbers else None


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / name).read_bytes()
    return b""
