"""Where the time of a run went, from its ledger: how much made progress, and what was lost.

Lost is work that an interruption undid: training steps after the checkpoint that a later start
went on from, and grading or measuring of which nothing was written. It is taken out of its phase.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable

from jssd.phases import LEDGER

# In the order of a run, each with what it says. Whatever else a ledger has counts as "init".
PHASES = {
    "init": "starting, loading and the rest",
    "compile": "compiling",
    "sample": "sampling",
    "data_wait": "waiting for data",
    "step": "training steps",
    "save": "saving",
    "restore": "restoring",
    "export": "export",
    "grade": "grading",
    "measure": "measuring",
    "wait": "waiting for other hosts",
}
LOST = "lost"
PROGRESS = ("sample", "step", "grade", "export", "measure")
_UNSAVED = ("measure",)  # Until marked as kept.


@dataclasses.dataclass(frozen=True)
class Goodput:
    """Seconds by phase, those lost under `LOST`; how often the run was started."""

    seconds: dict[str, float]
    starts: int

    @property
    def total(self) -> float:
        """All seconds that some process worked."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """Share of the time that made progress."""
        return sum(self.seconds.get(name, 0.0) for name in PROGRESS) / max(self.total, 1e-9)

    def rows(self) -> list[tuple[str, float, float]]:
        """(what, seconds, share) of every phase that took time, in the order of a run."""
        names = {**PHASES, LOST: "lost to interruptions"}
        found = ((told, self.seconds.get(name, 0.0)) for name, told in names.items())
        return [(told, value, value / self.total) for told, value in found if value > 0]


def read(folders: Iterable[pathlib.Path]) -> Goodput | None:
    """The sum over the ledgers of runs; None where no folder has one."""
    seconds: dict[str, float] = collections.defaultdict(float)
    starts = 0
    for folder in folders:
        path = folder / LEDGER
        if path.exists():
            found = _sum_up(_entries(path))
            for name, spent in found.seconds.items():
                seconds[name] += spent
            starts += found.starts
    return Goodput(dict(seconds), starts) if starts else None


def _entries(path: pathlib.Path) -> Iterable[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # Cut short by a kill.


def _sum_up(entries: Iterable[dict]) -> Goodput:
    seconds: dict[str, float] = collections.defaultdict(float)
    unsaved: dict[str, float] = collections.defaultdict(float)  # Seconds of phases not kept yet.
    steps: list[tuple[int, int, float]] = []  # Not kept yet: the last step, how many, seconds.
    starts = 0

    def lose(phase: str, lost: float) -> None:
        seconds[phase] -= lost
        seconds[LOST] += lost

    for entry in entries:
        event, phase = entry.get("event"), entry.get("phase", "")
        if event is None:
            seconds[phase if phase in PHASES else "init"] += entry["seconds"]
            if phase in _UNSAVED:
                unsaved[phase] += entry["seconds"]
            elif phase == "step" and entry["steps"]:
                steps.append((entry["step"], entry["steps"], entry["seconds"]))
        elif event == "kept":
            unsaved.pop(phase, None)
            if phase == "step":
                steps.clear()
        elif event == "started":
            starts += 1
            for name, lost in unsaved.items():
                lose(name, lost)
            unsaved.clear()
        elif event == "restored":
            for step, count, spent in steps:
                lose("step", spent * min(max(step - entry["step"], 0), count) / count)
            steps.clear()
    return Goodput(dict(seconds), starts)
