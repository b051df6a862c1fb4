"""One writer for what a run reports: console, JSON lines, TensorBoard, trackers.

`metrics.jsonl` holds one line per logged step and, after `resume`, no step twice. `events.jsonl` is
a ledger of what happened (started, compiled, saved, resumed) and is only ever appended to. A
disabled writer, as every process but the first has, prints and writes nothing.
"""

import contextlib
import datetime
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from jssd import growing, places
from jssd.trackers import Trackers

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class Advance(Protocol):
    """Takes how many more are done, and a few words on how it goes."""

    def __call__(self, count: int, note: str = "") -> None: ...


class Writer:
    """Writes to `folder`; close it, or use it in a `with` statement."""

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        enabled: bool = True,
        progress_seconds: float = 30.0,
        trackers: Trackers | None = None,
    ):
        """
        Args:
          folder: created if missing. Each stage that logs steps has its own.
          enabled: False makes every method do nothing: for all processes but the first.
          progress_seconds: time between progress lines where there is no terminal to draw a bar on.
          trackers: get scalars under the folder's name, and summaries. Closed with the writer.
        """
        self._folder = places.path(folder)
        self._logs: dict[str, growing.Log] = {}
        self._enabled = enabled
        self._progress_seconds = progress_seconds
        self._trackers = trackers if enabled else None
        self._resumed_at = 0
        self._tensorboard: Any = None
        self._bar: Any = None  # The live rich bar, which lines have to be printed above.
        if enabled:
            self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def resume(self, step: int) -> None:
        """Forgets logged steps after `step`, and a line that a crash cut short.

        Every start over an existing folder calls it, a fresh run with 0, before `scalars`.
        """
        assert self._tensorboard is None, "resume comes before the first scalars"
        self._resumed_at = step
        path = self._folder / METRICS_FILE
        if not self._enabled or not path.exists():
            return
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        self._log(METRICS_FILE).rewrite([f"{line}\n".encode() for line in kept])

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Logs one step everywhere: the console line has the keys in their order.

        None and numbers that are not finite become null in JSON, "-" or "nan" on the console, and
        no point in TensorBoard.
        """
        if not self._enabled:
            return
        numbers = {name: None if value is None else float(value) for name, value in values.items()}
        finite = {n: v if v is not None and math.isfinite(v) else None for n, v in numbers.items()}
        self._append(METRICS_FILE, {"step": step, **finite})
        board = self._open_tensorboard()
        for name, value in finite.items():
            if value is not None:
                board.add_scalar(name, value, step)
        if self._trackers is not None:
            there = {name: value for name, value in finite.items() if value is not None}
            self._trackers.scalars(self._folder.name, step, there)
        text = ", ".join(f"{name}: {_format(value)}" for name, value in numbers.items())
        self.line(f"step: {step}, {text}")

    def summary(self, values: Mapping[str, float]) -> None:
        """Results that belong to no step: to trackers alone, for a stage's own files hold them."""
        if self._trackers is not None and values:
            self._trackers.summary(values)

    def event(self, kind: str, **fields: Any) -> None:
        """Adds one entry to the ledger, with the time (UTC)."""
        if self._enabled:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            self._append(EVENTS_FILE, {"time": now, "kind": kind, **fields})

    def line(self, text: str) -> None:
        """Prints one line, above the progress bar if there is one."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    @contextlib.contextmanager
    def progress(self, total: int, desc: str, *, done: int = 0) -> Iterator[Advance]:
        """Shows how many of `total` are done: a bar on a terminal, else a line now and then.

        Gives a function that takes how many more are done. `done` were so before.
        """
        if not self._enabled:
            yield lambda count, note="": None
        elif sys.stdout.isatty():
            yield from self._rich_bar(total, desc, done)
        else:
            yield _Lines(self.line, total, desc, done, self._progress_seconds).advance

    def close(self) -> None:
        """Flushes files, TensorBoard and trackers. Later calls open them again."""
        for log in self._logs.values():
            log.close()
        if self._trackers is not None:
            self._trackers.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def _rich_bar(self, total: int, desc: str, done: int) -> Iterator[Advance]:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
        )
        with progress.Progress(*columns, transient=True) as bar:
            task = bar.add_task(desc, total=total, completed=done, note="")
            self._bar = bar
            try:
                yield lambda count, note="": bar.update(task, advance=count, note=note)
            finally:
                self._bar = None

    def _append(self, name: str, entry: dict) -> None:
        self._log(name).write(f"{json.dumps(entry)}\n".encode())

    def _log(self, name: str) -> growing.Log:
        if name not in self._logs:
            self._logs[name] = growing.Log(self._folder / name)
        return self._logs[name]

    def _open_tensorboard(self):
        if self._tensorboard is None:
            from tensorboardX import SummaryWriter, record_writer

            # Its own writer to buckets asks for the name of a project, and its thread ends for good
            # with the first request that fails.
            record_writer.register_writer_factory("gs", _Boards)
            # TensorBoard itself hides points of an older file from `purge_step` on.
            self._tensorboard = SummaryWriter(
                str(self._folder / TENSORBOARD_FOLDER),
                purge_step=self._resumed_at + 1,
                flush_secs=30,
            )
        return self._tensorboard


class _Boards:
    """How tensorboardX opens a file of events in a bucket."""

    @staticmethod
    def open(path: str) -> growing.Log:
        return growing.Log(places.path(path))

    @staticmethod
    def directory_check(path: str) -> None:
        pass


class _Lines:
    """Progress as plain lines: one every so many seconds, and one at the end."""

    def __init__(
        self, line: Callable[[str], None], total: int, desc: str, done: int, seconds: float
    ):
        self._line, self._total, self._desc, self._seconds = line, total, desc, seconds
        self._done = self._done_at_start = done
        self._started = self._shown = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if self._done < self._total and now - self._shown < self._seconds:
            return
        self._shown = now
        elapsed = now - self._started
        left = (self._total - self._done) * elapsed / max(self._done - self._done_at_start, 1)
        self._line(
            f"{self._desc}: {self._done}/{self._total}, {elapsed:.0f} s, about {left:.0f} s left"
            + (f", {note}" if note else "")
        )


def read_scalars(folder: str | os.PathLike) -> list[dict]:
    """The logged steps of a folder, oldest first; empty if nothing was logged."""
    path = places.path(folder) / METRICS_FILE
    return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []


def _whole_lines(path: pathlib.Path) -> list[str]:
    """Lines of a JSON lines file without a last one that a crash cut short."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _format(value: float | None) -> str:
    """Short text of a number: whole numbers whole, others with five digits."""
    if value is None:
        return "-"
    if value.is_integer() and abs(value) < 1e12:
        return str(int(value))
    return f"{value:.5g}"
