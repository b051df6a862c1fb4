"""What this process is at: its phase, signs of life, and a ledger of where the time went.

The work says `with phase("sample")` and `beat()`; the watchdog (`survival.py`) reads `current()`.
`events.jsonl` in a run's folder gets a line for the seconds of each phase, written at least every
ten seconds of work, so that a killed run tells where it was. `goodput.py` sums it up.
"""

import contextlib
import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from jssd import growing

LEDGER = "events.jsonl"
_FLUSH_SECONDS = 10.0  # At most so much of a killed run is missing from the ledger.


@dataclasses.dataclass(frozen=True)
class View:
    """What the process is at, for its watchdog.

    Attributes:
      name: of the phase; "compile" before the first sign of life of one that compiles first.
      beat: when it last showed a sign of life, by `time.monotonic`.
      step: of training, or what `beat` was last told; 0 before.
      holds: whether something would be lost if the process ended now.
    """

    name: str
    beat: float
    step: int
    holds: bool


@dataclasses.dataclass
class _Open:
    name: str
    now: str


class _Clock:
    """The state of this module: a process is at one thing at a time."""

    def __init__(self):
        self.stack = [_Open("init", "init")]
        self.beat = self.charged = self.flushed = time.monotonic()
        self.step, self.steps = 0, 0
        self.holds = False
        self.log: growing.Log | None = None
        self.spent: dict[str, float] = {}  # Since the last line of the ledger.
        self.totals: dict[str, float] = {}


_clock = _Clock()


def current() -> View:
    """What the process is at. May be asked from any thread."""
    return View(_clock.stack[-1].now, _clock.beat, _clock.step, _clock.holds)


@contextlib.contextmanager
def phase(name: str, *, first: str = "") -> Iterator[None]:
    """Time inside counts as `name`; time of a phase within it does not.

    Args:
      name: a bucket of the ledger.
      first: what it counts as until the first `beat`, as "compile" where programs are compiled
        before anything is done.
    """
    _charge()
    _clock.stack.append(_Open(name, first or name))
    try:
        yield
    finally:
        _charge()
        _clock.stack.pop()


def beat(step: int | None = None) -> None:
    """A sign of life, after each piece of work; `step` counts them where they have a number."""
    _charge()
    opened = _clock.stack[-1]
    opened.now = opened.name
    if step is not None:
        _clock.step = step
        _clock.steps += opened.now == "step"
    if _clock.charged - _clock.flushed >= _FLUSH_SECONDS:
        flush()


def total(name: str) -> float:
    """Seconds that this process has spent in a phase."""
    return _clock.totals.get(name, 0.0)


def hold(holds: bool) -> None:
    """Says whether work exists that is not on disk: such a process is given time to save it."""
    _clock.holds = holds


@contextlib.contextmanager
def ledger(folder: pathlib.Path | None) -> Iterator[None]:
    """Time inside, and what came before the first ledger, goes into that of `folder`; None, as on
    all processes but the first, keeps none."""
    if folder is None:
        yield
        return
    _clock.log = growing.Log(folder / LEDGER)
    if (lines := _clock.log.lines()) and not lines[-1].endswith(b"\n"):
        _clock.log.write(b"\n")  # A kill cut the last line short: it ends here.
    mark("started")
    try:
        yield
    finally:
        _charge()
        flush()
        log, _clock.log = _clock.log, None
        log.close()


def mark(event: str, **fields: Any) -> None:
    """Writes down that something happened: "started", "kept" (by phase: nothing of it can be lost
    any more) or "restored" (with the step)."""
    _charge()
    flush()
    _write({"event": event, **fields})


def flush() -> None:
    """Writes down the seconds since the last time."""
    spent, _clock.spent = _clock.spent, {} if _clock.log else _clock.spent
    _clock.flushed = _clock.charged
    if _clock.log is None:
        return  # What came before the first ledger is kept for it.
    for name, seconds in spent.items():
        entry: dict[str, Any] = {"phase": name, "seconds": round(seconds, 3)}
        if name == "step":
            entry |= {"step": _clock.step, "steps": _clock.steps}
        _write(entry)
    _clock.steps = 0


def _charge() -> None:
    now, name = time.monotonic(), _clock.stack[-1].now
    for seconds in (_clock.spent, _clock.totals):
        seconds[name] = seconds.get(name, 0.0) + now - _clock.charged
    _clock.beat = _clock.charged = now


def _write(entry: dict[str, Any]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    if _clock.log is not None:
        _clock.log.write(f"{json.dumps({'time': now, **entry})}\n".encode())
