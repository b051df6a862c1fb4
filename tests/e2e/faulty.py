"""jssd, with a fault at a moment: `python -m tests.e2e.faulty FAULT PHASE CALL PROCESS FLAGS`.

The moment is the CALL-th sign of life that process PROCESS shows in PHASE ("-" for a run of one).

  term   sends SIGTERM to itself there, and goes on two seconds later: the phase is the one meant.
         In "compile" it goes on after a minute: a compiler is not waited for.
  kill, stop   the same with SIGKILL and SIGSTOP.
  stuck  does not come back, while its other threads live.
  full   finds the disk full.

`slow step 1 PROCESS` is a process whose every batch takes half a second longer.
"""

import errno
import os
import signal
import sys
import time

from jssd import main, phases
from jssd.data.pipeline import Batches

_SIGNALS = {"term": signal.SIGTERM, "kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _install(fault: str, phase: str, call: int, process: str) -> None:
    if process != "-" and f"--process_id={process}" not in sys.argv:
        return
    if fault == "slow":
        _slow_down()
        return
    known, seen = phases.beat, [0]

    def faulty_beat(step: int | None = None) -> None:
        if phases.current().name == phase:
            seen[0] += 1
            if seen[0] == call:
                go_wrong(fault, phase)
        known(step)

    phases.beat = faulty_beat


def go_wrong(fault: str, phase: str) -> None:
    """The fault itself; its name is in the stacks of a process that is stuck in it."""
    print(f"fault at {time.time()} s", file=sys.stderr, flush=True)
    if fault in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[fault])
        time.sleep(60 if phase == "compile" else 2)
    while fault == "stuck":
        time.sleep(1)
    if fault == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def _slow_down() -> None:
    known = Batches.__next__

    def slow_next(self: Batches):
        time.sleep(0.5)
        return known(self)

    Batches.__next__ = slow_next


if __name__ == "__main__":
    _, *chosen = sys.argv[:5]
    del sys.argv[1:5]
    _install(chosen[0], chosen[1], int(chosen[2]), chosen[3])
    main.app.run(main.main, flags_parser=main._parse)
