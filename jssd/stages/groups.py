"""Base against student within groups of problems, such as those of one difficulty."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jssd.evals import passk
from jssd.stages import findings
from jssd.stages.findings import Cell, Gap
from jssd.stages.run_files import MODELS, Place, RunFiles


@dataclasses.dataclass(frozen=True)
class Row:
    """pass@k on one group's problems; of a model that was not scored there, None.

    With several seeds each problem's mean over them comes first, as in `findings.Pooled`.
    `difference` is student minus base, paired by problem. `kind` is as in `findings.Gap`.
    """

    benchmark: str
    kind: str
    base_decode: str
    student_decode: str
    k: int
    group: str
    problems: int
    base: passk.Estimate | None
    student: passk.Estimate | None
    difference: passk.Difference | None


def rows(runs: Sequence[RunFiles], cells: Sequence[Cell], gaps: Sequence[Gap]) -> list[Row]:
    """A row for each comparison and group; without comparisons, for each decoding and group.

    Empty where the problems are all of one group.
    """
    compared = {gap.benchmark for gap in gaps}
    ways = [(g.benchmark, g.kind, g.base_decode, g.student_decode, g.k) for g in gaps]
    ways += [
        (cell.benchmark, "same", cell.decode["name"], cell.decode["name"], k)
        for cell in cells
        if cell.benchmark not in compared
        for k in cell.pass_at
    ]
    return [
        row
        for way in dict.fromkeys(ways)
        for group in _names(runs, way[0])
        for row in _row(runs, *way, group)
    ]


def _names(runs: Sequence[RunFiles], benchmark: str) -> list[str]:
    """Groups of a benchmark in the order of the scores."""
    found = {
        name: None
        for run in runs
        for place, scores in run.scores.items()
        if place[0] == benchmark
        for name in scores.get("by_group", {})  # Work directories of old may have none.
    }
    return list(found)


def _row(
    runs: Sequence[RunFiles],
    benchmark: str,
    kind: str,
    base_decode: str,
    student_decode: str,
    k: int,
    group: str,
) -> list[Row]:
    places: dict[str, Place] = {
        model: (benchmark, decode, model)
        for model, decode in zip(MODELS, (base_decode, student_decode))
    }
    having: dict[str, list[RunFiles]] = {
        model: [run for run in runs if _has(run, place, k, group)]
        for model, place in places.items()
    }
    both = [run for run in having["base"] if run in having["student"]]
    if both:
        having = dict.fromkeys(MODELS, both)
    values: dict[str, np.ndarray] = {
        model: findings.by_problem(having[model], place, k, group)
        for model, place in places.items()
        if having[model]
    }
    if not values:
        return []
    how = findings.resampling(runs)
    found: dict[str, passk.Estimate] = {
        model: passk.mean_interval(mean, **how) for model, mean in values.items()
    }
    gap = passk.paired_difference(values["student"], values["base"], **how) if both else None
    return [
        Row(
            benchmark,
            kind,
            base_decode,
            student_decode,
            k,
            group,
            problems=len(next(iter(values.values()))),
            base=found.get("base"),
            student=found.get("student"),
            difference=gap,
        )
    ]


def _has(run: RunFiles, place: Place, k: int, group: str) -> bool:
    part = run.scores.get(place, {}).get("by_group", {}).get(group)
    return part is not None and str(k) in part["pass_at"]
