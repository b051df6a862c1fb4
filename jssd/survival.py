"""How a process ends before its work is done: told to by a signal, or found hung.

    0 done  1 failed  2 a mistake of the user: starting again would not help
    42 saved after SIGTERM  130 Ctrl-C  140 hung  others of 128 and above: a signal. Start again.

A thread watches, for the main thread may sit in a compiler for minutes. On SIGTERM the work is
asked to stop where nothing is lost (`check`); where nothing would be lost anyway, the thread ends
the process by itself. All processes of a job end together, with one code.
"""

import contextlib
import faulthandler
import os
import pathlib
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from jssd import heartbeats, phases
from jssd.config import SurvivalConfig

FAILED, MISTAKE, PREEMPTED, INTERRUPTED, HUNG = 1, 2, 42, 130, 140
_IDLE_SECONDS = 3.0  # For work without anything to lose to stop by itself.
_TICK = 0.25
_LISTEN_SECONDS = 1.0
_KEY = "jssd/end"  # In the coordination service: why the job ends.


class Stopped(BaseException):
    """The work has come to a place where nothing is lost, after SIGTERM."""


class Guard:
    """Watches one process. There is one, made by `start`.

    Attributes:
      rank: number of this process.
      count: how many there are.
    """

    def __init__(self):
        self.rank, self.count = 0, 1
        self._placed = False  # Whether these are known.
        self._limits = SurvivalConfig()
        self._pulse: heartbeats.Pulse | None = None
        self._client: Any = None  # Of JAX's coordination service, on several processes.
        self._listener: threading.Thread | None = None
        self._finished = threading.Event()
        self._leaving = threading.Lock()
        self._began = time.time()
        self._written = 0.0
        self._stop_at: float | None = None  # When SIGTERM came, here or at another process.
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self.take_signals()
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="survival", daemon=True).start()

    def take_signals(self) -> None:
        """Makes SIGTERM and SIGINT ours. JAX takes the first when it joins processes: call again
        after that."""
        # The thread reads the signal from a pipe, whatever the main thread is at; Python only
        # writes to the pipe for signals that have a handler.
        signal.signal(signal.SIGTERM, lambda *_: None)
        # A shell starts a script's background jobs with SIGINT ignored: so they stay.
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: None)

    def configure(self, limits: SurvivalConfig, *, joins: bool = False) -> None:
        """From now on with these limits. A process that `joins` others has no heartbeat file until
        it knows its number."""
        self._limits, self._placed = limits, not joins

    def beat_in(self, folder: pathlib.Path) -> None:
        """From now on with a heartbeat file in `folder`."""
        self._pulse, self._written = heartbeats.Pulse(folder), 0.0

    def join(self, rank: int, count: int, client: Any = None) -> None:
        """Says which process this is; `client`, once there, lets processes tell one another."""
        self.rank, self.count, self._placed = rank, count, True
        self._written = 0.0
        if self._pulse is not None:
            self._pulse.folder.mkdir(parents=True, exist_ok=True)
        if client is not None:
            self._client = client
            self._listener = threading.Thread(target=self._listen, name="listen", daemon=True)
            self._listener.start()

    def stopping(self) -> bool:
        """Whether this process or another was told to stop."""
        return self._stop_at is not None

    def finish(self) -> None:
        """The work is done: nothing is watched any more, and no heartbeat is left."""
        self._finished.set()
        if self._listener is not None:
            self._listener.join()  # A thread inside of JAX would abort the interpreter's end.
        pulse, self._pulse = self._pulse, None
        self._limits = SurvivalConfig(start=0, grace=self._limits.grace)
        if pulse is not None and self._placed:
            pulse.remove(self.rank)

    def depart(self, code: int, reason: str = "", *, wait: float = 5.0, told: str = "") -> NoReturn:
        """Says `told`, and ends this process with `code`, with the others if they come within
        `wait` seconds.

        Without joining in JAX's own shutdown: that waits minutes for a process that is hung.
        """
        self._leaving.acquire()  # Whoever comes second waits for the end, and says no more.
        if told:
            _say(told)
        if self._client is not None:
            self._tell(code, reason)
            with contextlib.suppress(Exception):
                self._client.wait_at_barrier("jssd-departing", max(1, int(wait * 1000)))
            if self.rank == 0:
                time.sleep(0.5)  # The coordinator goes last: without it JAX aborts the others.
        self._beat(ended=code)
        _flush()
        os._exit(code)

    def _tell(self, code: int, reason: str) -> None:
        def tell():
            with contextlib.suppress(Exception):  # Another was first, or the coordinator is gone.
                self._client.key_value_set(_KEY, f"{code} {self.rank} {reason}")

        # A frozen coordinator must not hold up the end.
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        teller.join(1.0)

    def _listen(self) -> None:
        """Waits for another process to say that the job ends."""
        said = ""
        while not said:
            if self._finished.wait(_LISTEN_SECONDS):
                return
            with contextlib.suppress(Exception):  # Nobody said so: the key is not there.
                said = self._client.key_value_try_get(_KEY)
        code, rank, reason = said.split(" ", 2)
        if int(rank) == self.rank:
            return
        if int(code) == PREEMPTED:
            self._ask_to_stop(f"process {rank} received SIGTERM")
            return
        _say(f"process {rank} ended with code {code}: {reason}")
        if int(code) == HUNG:
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        self.depart(int(code), reason)

    def _watch(self) -> None:
        while True:
            if select.select([self._wake_read], [], [], _TICK)[0]:
                for number in os.read(self._wake_read, 64):
                    self._take(number)
            now = time.monotonic()
            if now - self._written >= heartbeats.SECONDS:
                self._written = now
                self._beat()
            view = phases.current()
            if self._stop_at is not None:
                waited = now - self._stop_at
                if waited > (self._limits.grace if view.holds else _IDLE_SECONDS):
                    self._give_up(view)
            else:
                self._check_alive(view, now)

    def _take(self, number: int) -> None:
        if number == signal.SIGTERM and self._stop_at is None:
            self._ask_to_stop("received SIGTERM")
            if self._client is not None:
                self._tell(PREEMPTED, "")
        elif number == signal.SIGINT:
            self._interrupted()

    def _ask_to_stop(self, told: str) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic()
            _say(f"{told} during {phases.current().name}: stopping where nothing is lost")

    def _give_up(self, view: phases.View) -> NoReturn:
        if view.holds:
            _say(
                f"survival.grace={self._limits.grace} s are over in {view.name} at step "
                f"{view.step}: what came after the last checkpoint is lost"
            )
        else:
            _say(f"stopped in {view.name}, where nothing is lost")
        left = 0.0 if view.holds else self._limits.grace - _IDLE_SECONDS
        self.depart(PREEMPTED, "", wait=left)

    def stopped(self) -> NoReturn:
        """Ends the process after `Stopped`."""
        began = self._stop_at or time.monotonic()
        self.depart(PREEMPTED, wait=max(1.0, began + self._limits.grace - time.monotonic()))

    def failed(self) -> NoReturn:
        """Ends one process of several after an unexpected error.

        Perhaps it comes from another process that is gone: JAX finds that out after
        `survival.heartbeat` seconds and ends this one by SIGABRT. If it does not, the error is this
        process's own.
        """
        self._finished.wait(self._limits.heartbeat + 10)
        self.depart(FAILED, "an unexpected error: see its traceback")

    def _interrupted(self) -> NoReturn:
        """Ends the process after Ctrl-C, at once: a KeyboardInterrupt may come up in other people's
        code, which makes a traceback of it, or nothing."""
        told = "interrupted. The same command goes on where it was stopped."
        self.depart(INTERRUPTED, "interrupted", wait=1.0, told=told)

    def _check_alive(self, view: phases.View, now: float) -> None:
        limit = limit_of(self._limits, view.name)
        if not limit or now - view.beat <= limit:
            return
        told = (
            f"process {self.rank}/{self.count} is hung: no sign of life in {view.name} for "
            f"{limit:g} s (survival.{_field(self._limits, view.name)}), last at step {view.step}"
        )
        if view.name == "join" and self._pulse is not None and self._placed:
            folder = self._pulse.folder
            absent = ", ".join(map(str, heartbeats.missing(folder, self.count, self._began)))
            told = (
                f"not all of {self.count} processes came within survival.join={limit:g} s. "
                f"Without a heartbeat in {folder}: {absent or 'none, so look at the network'}"
            )
        _say(told)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        self.depart(HUNG, told, wait=2.0)

    def _beat(self, ended: int | None = None) -> None:
        if self._pulse is None or not self._placed:
            return
        view = phases.current()
        entry = {
            "rank": self.rank,
            "count": self.count,
            "began": self._began,
            "phase": view.name,
            "step": view.step,
            "seconds_since_progress": round(time.monotonic() - view.beat, 1),
            "ended": ended,
        }
        self._pulse.write(entry)


def limit_of(limits: SurvivalConfig, phase: str) -> float:
    """Seconds without a sign of life that `phase` is given; 0 any number."""
    return getattr(limits, _field(limits, phase))


_OF_PHASE = {"data_wait": "step", "wait": "wait", "measure": "sample"}


def _field(limits: SurvivalConfig, phase: str) -> str:
    name = _OF_PHASE.get(phase, phase)
    return name if hasattr(limits, name) else "start"


_guard: Guard | None = None


def start() -> Guard:
    """The guard of this process; the first call has it take the signals."""
    global _guard
    if _guard is None:
        _guard = Guard()
    return _guard


def beat_in(folder: pathlib.Path) -> None:
    """Has this process write its heartbeat in `folder`, if it has a guard."""
    if _guard is not None:
        _guard.beat_in(folder)


def rank() -> int:
    """The number of this process among those of its job."""
    return _guard.rank if _guard else 0


def fail(code: int, reason: str) -> None:
    """Ends all processes of a job of several with `code`, since others may wait for this one.
    Returns where there is one, which has nothing to watch any more."""
    if _guard is not None:
        if _guard.count > 1:
            _guard.depart(code, reason)
        _guard.finish()


def check() -> None:
    """A place where nothing is lost: raises `Stopped` after SIGTERM. Processes that work together
    agree first (`stages/together.py`), or some would wait for those that stopped."""
    if _guard is not None and _guard.stopping():
        raise Stopped


def go_on() -> None:
    """A sign of life, and a `check`: between pieces of work that nobody else waits for."""
    phases.beat()
    check()


def check_alone() -> None:
    """`check`, where this is the only process: between stages, which begin with collectives."""
    if _guard is not None and _guard.count == 1:
        check()


def stopping() -> bool:
    """Whether this process was told to stop."""
    return _guard is not None and _guard.stopping()


def _say(text: str) -> None:
    # Not by print: the main thread may hold the stream's lock.
    os.write(2, f"jssd: {text}\n".encode())


def _flush() -> None:
    """Flushes the output, unless somebody holds it for good."""

    def flush(write: Callable[[], None]) -> None:
        with contextlib.suppress(Exception):
            write()

    for stream in (sys.stdout, sys.stderr):
        thread = threading.Thread(target=flush, args=(stream.flush,), daemon=True)
        thread.start()
        thread.join(1.0)
