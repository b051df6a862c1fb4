"""Verdicts kept as they come: grading that is ended goes on with the programs that are left."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jssd import growing, phases, survival
from jssd.data.samples import Sample
from jssd.evals import grading
from jssd.evals.benchmarks import Task
from jssd.evals.grading import Grade


class Kept:
    """The verdicts on some samples, in `<path>.partial` until `drop`.

    Its first line says what was asked, so that verdicts on others are not taken for these; each
    further line is one graded completion. A line that is cut short counts as missing.
    """

    def __init__(self, path: pathlib.Path, drawn: Sequence[Sample], rules: dict[str, Any]):
        """
        Args:
          path: of what the verdicts go into in the end, or beside it.
          drawn: the samples that are graded, in the order of the programs.
          rules: what else decides a verdict, such as the protocol; JSON.
        """
        self._path = path.with_name(path.name + ".partial")
        text = json.dumps(rules, sort_keys=True)
        self._about = {"samples": digest(drawn), "rules": hashlib.sha256(text.encode()).hexdigest()}

    def grade(
        self,
        tasks: Sequence[Task],
        programs: Sequence[str | None],
        *,
        advance: Callable[[int], Any] = lambda count: None,
        **limits: Any,
    ) -> list[Grade]:
        """The grade of each program, as `grading.grade_programs` with `limits`; a place to stop
        after each. `advance` gets the number of those that are new."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(growing.Log(self._path)) as log:
            known = self._recover(log)
            if known:
                advance(len(known))
            left = [i for i in range(len(programs)) if i not in known]

            def on_grade(places: Sequence[int], grade: Grade) -> None:
                lines = []
                for index in (left[place] for place in places):
                    known[index] = grade
                    lines.append(_line({"index": index, **dataclasses.asdict(grade)}))
                log.write(b"".join(lines))
                phases.hold(log.pending)
                advance(len(places))
                survival.go_on()

            grading.grade_programs(
                [tasks[i] for i in left], [programs[i] for i in left], on_grade=on_grade, **limits
            )
        phases.hold(False)
        return [known[i] for i in range(len(programs))]

    def drop(self) -> None:
        """Removes the file: its verdicts are where they belong."""
        self._path.unlink(missing_ok=True)

    def _recover(self, log: growing.Log) -> dict[int, Grade]:
        """What an earlier start left, by the place of the program. The file ends after that."""
        known, good = {}, []
        lines = log.lines()
        with contextlib.suppress(ValueError):  # The run that wrote this line was killed here.
            for number, raw in enumerate(lines):
                entry = json.loads(raw)
                if not raw.endswith(b"\n") or (number == 0 and entry != self._about):
                    break
                if number:
                    index = entry.pop("index")
                    known[index] = Grade(**entry)
                good.append(raw)
        if not good or len(good) < len(lines):
            log.rewrite(good or [_line(self._about)])
        return known


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry) + "\n").encode()


def digest(drawn: Sequence[Sample]) -> str:
    """A name of the samples in their order: ids, tokens and texts."""
    lines = (json.dumps([s.prompt_id, s.sample, s.token_ids, s.text]) for s in drawn)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
