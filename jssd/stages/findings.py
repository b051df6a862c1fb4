"""What finished runs found: scores, and base against student, over all seeds."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jssd.evals import passk
from jssd.stages import pages
from jssd.stages.run_files import MODELS, Place, RunFiles


@dataclasses.dataclass(frozen=True)
class Pooled:
    """pass@k over all seeds (each problem's mean, then over problems) and of each seed."""

    over_all: passk.Estimate
    by_seed: dict[str, passk.Estimate]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model on one benchmark at one decoding. Counts are summed over seeds, means averaged."""

    benchmark: str
    decode: dict[str, Any]
    model: str
    problems: int
    n: int
    seeds: int
    pass_at: dict[int, Pooled]
    verdicts: dict[str, int]
    mean_tokens: float
    truncated: float


@dataclasses.dataclass(frozen=True)
class Gap:
    """Student minus base; `kind` is "same" decoding or each its "own"."""

    benchmark: str
    k: int
    kind: str
    base_decode: str
    student_decode: str
    base: passk.Estimate
    student: passk.Estimate
    difference: passk.Difference
    verdict: str
    by_seed: dict[str, dict[str, Any]]  # The rows of eval/comparisons.json.


def cells(runs: Sequence[RunFiles]) -> list[Cell]:
    """Every scored (benchmark, decoding, model), in the order of the config."""
    places = {place: None for run in runs for place in run.scores}
    return [_cell(place, runs) for place in places]


def gaps(runs: Sequence[RunFiles]) -> list[Gap]:
    """Every comparison of eval/comparisons.json, over the seeds that have it."""
    rows: dict[tuple, dict[str, dict]] = {}
    for run in runs:
        for row in run.comparisons or []:
            keys = ("benchmark", "kind", "base_decode", "student_decode", "k")
            rows.setdefault(tuple(row[key] for key in keys), {})[run.name] = row
    return [_gap(by_seed, runs) for by_seed in rows.values()]


def graded(scores: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """How these scores came about, each line once: `told` names the problems, `rules` those of
    reading, running and judging, `sandboxes` where programs ran."""
    found: dict[str, dict[str, None]] = {"told": {}, "rules": {}, "sandboxes": {}}
    for row in scores:  # Work directories of old may lack the first two.
        rules = row.get("protocol", {})
        told = [f"{key.replace('_', ' ')}: {pages.number(value)}" for key, value in rules.items()]
        found["rules"]["; ".join(told)] = found["told"][row.get("told", "")] = None
        found["sandboxes"][row["sandbox"]] = None
    return {name: list(filter(None, lines)) for name, lines in found.items()}


def by_problem(runs: Sequence[RunFiles], place: Place, k: int, group: str = "") -> np.ndarray:
    """pass@k of each problem, averaged over seeds, in the order of problem ids; float64.

    `group` takes those of one group only. Raises ValueError where seeds have other problems.
    """
    parts = [run.scores[place] for run in runs]
    if group:
        parts = [scores["by_group"][group] for scores in parts]
    rows = [part["per_problem"] for part in parts]
    ids = [sorted(row["id"] for row in seed) for seed in rows]
    for run, other in zip(runs, ids):
        if other != ids[0]:
            raise ValueError(
                f"{runs[0].workdir} and {run.workdir} were scored on different problems of "
                f"{place[0]} at {place[1]}. Evaluate both on the same ones, or report one by one."
            )
    return np.mean([passk.by_problem(seed, k) for seed in rows], axis=0)


def resampling(runs: Sequence[RunFiles]) -> dict[str, int]:
    """How intervals of these runs are resampled, for functions of `passk`."""
    evaluate = runs[0].config["evaluate"]
    return {"resamples": evaluate["bootstrap"], "seed": evaluate["seed"]}


def _cell(place: Place, runs: Sequence[RunFiles]) -> Cell:
    having = [run for run in runs if place in run.scores]
    found = [run.scores[place] for run in having]
    verdicts: dict[str, int] = {}
    for scores in found:
        for verdict, count in scores["verdicts"].items():
            verdicts[verdict] = verdicts.get(verdict, 0) + count
    common = set.intersection(*(set(scores["pass_at"]) for scores in found))
    pass_at = {}
    for k in sorted(map(int, common)):
        by_seed = {
            run.name: passk.Estimate(**run.scores[place]["pass_at"][str(k)]) for run in having
        }
        over_all = next(iter(by_seed.values()))
        if len(having) > 1:
            over_all = passk.mean_interval(by_problem(having, place, k), **resampling(runs))
        pass_at[k] = Pooled(over_all, by_seed)
    return Cell(
        benchmark=place[0],
        decode=found[0]["decode"],
        model=place[2],
        problems=found[0]["problems"],
        n=found[0]["n"],
        seeds=len(having),
        pass_at=pass_at,
        verdicts=verdicts,
        mean_tokens=float(np.mean([scores["mean_tokens"] for scores in found])),
        truncated=float(np.mean([scores["truncated"] for scores in found])),
    )


def _gap(by_seed: dict[str, dict], runs: Sequence[RunFiles]) -> Gap:
    row = next(iter(by_seed.values()))
    base, student = (passk.Estimate(**row[model]) for model in MODELS)
    difference, verdict = passk.Difference(**row["difference"]), row["verdict"]
    if len(by_seed) > 1:
        having = [run for run in runs if run.name in by_seed]
        means = [
            by_problem(having, (row["benchmark"], row[f"{model}_decode"], model), row["k"])
            for model in MODELS
        ]
        base, student = (passk.mean_interval(mean, **resampling(runs)) for mean in means)
        difference = passk.paired_difference(means[1], means[0], **resampling(runs))
        verdict = difference.verdict
    names = ("benchmark", "k", "kind", "base_decode", "student_decode")
    return Gap(
        **{name: row[name] for name in names},
        base=base,
        student=student,
        difference=difference,
        verdict=verdict,
        by_seed=by_seed,
    )
