"""What finished runs found: their files read back, and base against student over all seeds."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jssd import metrics
from jssd.data import samples
from jssd.evals import passk

MODELS = ("base", "student")
# What may differ between the seeds of one run: the seeds, and what never changes a token.
_FREE = {"sampling": ("seed",), "train": ("seed",), "evaluate": ("seed", "workers")}
_FREE_SECTIONS = (
    "name", "stages", "seeds", "rounds", "trackers", "shard", "survival", "compile_cache",
    "mesh", "engine", "hardware", "plan", "mechanism", "toy",
)  # fmt: skip

Place = tuple[str, str, str]  # Benchmark, decoding, model.


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """One run folder as found on disk; None or empty where a stage has not been run."""

    name: str
    workdir: pathlib.Path
    config: dict[str, Any]
    samples: dict[str, Any] | None
    data: dict[str, Any] | None
    steps: list[dict[str, Any]]
    exported: bool
    scores: dict[Place, dict[str, Any]]
    comparisons: list[dict[str, Any]] | None
    mechanism: dict[str, Any] | None
    sweep: dict[str, Any] | None

    @property
    def status(self) -> dict[str, str]:
        """For each stage "done", "not run", or how far it is."""
        last, goal = self.steps[-1]["step"] if self.steps else 0, self.config["train"]["num_steps"]
        sft = "done" if last >= goal else f"step {last} of {goal}" if last else "not run"
        evaluate = "done" if self.comparisons is not None else "not run"
        if self.comparisons is None and self.scores:
            evaluate = f"{len(self.scores)} of {_num_cells(self.config)} scores"
        return {
            "sample": "done" if self.samples else "not run",
            "sft": sft,
            "export": "done" if self.exported else "not run",
            "evaluate": evaluate,
        }


@dataclasses.dataclass(frozen=True)
class Pooled:
    """pass@k over all seeds (each problem's mean, then over problems) and of each seed."""

    over_all: passk.Estimate
    by_seed: dict[str, passk.Estimate]


@dataclasses.dataclass(frozen=True)
class Group:
    """pass@1 of some of the problems, as those of one difficulty. `interval` is of a single seed;
    with several, `value` is their mean and there is none."""

    problems: int
    value: float
    interval: passk.Estimate | None


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
    groups: dict[str, Group]


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


def read(workdirs: Sequence[pathlib.Path]) -> tuple[list[RunFiles], list[str]]:
    """The runs that hold something, and the names of those that do not.

    Raises:
      FileNotFoundError: none of them holds anything to report, or one has no config.json.
      ValueError: a broken file, or runs that are not seeds of one experiment.
    """
    names = [path.name for path in workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in workdirs]
    runs, absent = [], []
    for name, workdir in zip(names, workdirs):
        run = _read_run(name, workdir)
        if run is None:
            absent.append(name)
        else:
            runs.append(run)
    if not runs:
        told = ", ".join(map(str, workdirs)) or "no folder"
        raise FileNotFoundError(f"nothing to report in {told}. Run stage sample first.")
    for run in runs[1:]:
        _check_same_experiment(runs[0], run)
    return runs, absent


def read_plan(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What stage plan found for a run, or None where it has not been run."""
    return _read_json(workdir / "plan" / "plan.json")


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


def _read_run(name: str, workdir: pathlib.Path) -> RunFiles | None:
    config = _read_json(workdir / "config.json")
    found = RunFiles(
        name=name,
        workdir=workdir,
        config=config or {},
        samples=_read_json(workdir / "samples" / samples.MANIFEST),
        data=_read_json(workdir / "data" / "stats.json"),
        steps=metrics.read_scalars(workdir / "train"),
        exported=(workdir / "export").is_dir(),
        scores={
            (path.parts[-4], path.parts[-3], path.parts[-2]): _read_json(path)
            for path in sorted(workdir.glob("eval/*/*/*/scores.json"))
        },
        comparisons=_read_json(workdir / "eval" / "comparisons.json"),
        mechanism=_read_json(workdir / "mechanism" / "summary.json"),
        sweep=_read_json(workdir / "sweep" / "summary.json"),
    )
    planned = read_plan(workdir) is not None
    if not (
        found.samples or found.data or found.steps or found.scores or found.exported
        or found.mechanism or found.sweep or planned
    ):  # fmt: skip
        return None
    if config is None:
        raise FileNotFoundError(
            f"{workdir}/config.json is missing. Run any stage over the folder again to write it."
        )
    evaluate = config["evaluate"]
    decodes = [law["name"] for law in evaluate["decodes"]]
    orders = (list(evaluate["benchmarks"]), decodes, MODELS)

    def rank(place: Place) -> tuple[int, ...]:
        known = zip(place, orders)
        return tuple(o.index(part) if part in o else len(o) for part, o in known)

    ordered = {place: found.scores[place] for place in sorted(found.scores, key=rank)}
    return dataclasses.replace(found, scores=ordered)


def _read_json(path: pathlib.Path) -> Any:
    """A JSON file, or None if there is none. Raises ValueError naming a broken one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. Delete it and run its stage again."
        ) from None


def _check_same_experiment(first: RunFiles, other: RunFiles) -> None:
    a, b = _settings(first.config), _settings(other.config)
    changed = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    if changed:
        told = "; ".join(f"{key} is {a.get(key)!r} and {b.get(key)!r}" for key in changed[:3])
        raise ValueError(
            f"{first.workdir} and {other.workdir} are not seeds of one run: {told}. "
            "Report them one by one."
        )


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in config.items()
        if section not in _FREE_SECTIONS
        for key, value in values.items()
        if key not in _FREE.get(section, ())
    }


def _num_cells(config: dict[str, Any]) -> int:
    evaluate = config["evaluate"]
    return len(evaluate["benchmarks"]) * sum(len(law["models"]) for law in evaluate["decodes"])


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
            over_all = passk.mean_interval(_by_problem(having, place, k), **_resampling(runs))
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
        groups={name: _group([s["by_group"][name] for s in found]) for name in _groups(found)},
    )


def _groups(found: list[dict[str, Any]]) -> list[str]:
    """Names of the groups that every seed has; work directories of old may have none."""
    return [
        name for name in found[0].get("by_group", {}) if all(name in s["by_group"] for s in found)
    ]


def _group(parts: list[dict[str, Any]]) -> Group:
    firsts = [passk.Estimate(**part["pass_at"]["1"]) for part in parts]
    return Group(
        problems=parts[0]["problems"],
        value=float(np.mean([first.value for first in firsts])),
        interval=firsts[0] if len(firsts) == 1 else None,
    )


def _gap(by_seed: dict[str, dict], runs: Sequence[RunFiles]) -> Gap:
    row = next(iter(by_seed.values()))
    base, student = (passk.Estimate(**row[model]) for model in MODELS)
    difference, verdict = passk.Difference(**row["difference"]), row["verdict"]
    if len(by_seed) > 1:
        having = [run for run in runs if run.name in by_seed]
        means = [
            _by_problem(having, (row["benchmark"], row[f"{model}_decode"], model), row["k"])
            for model in MODELS
        ]
        base, student = (passk.mean_interval(mean, **_resampling(runs)) for mean in means)
        difference = passk.paired_difference(means[1], means[0], **_resampling(runs))
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


def _by_problem(runs: Sequence[RunFiles], place: Place, k: int) -> np.ndarray:
    """pass@k of each problem, averaged over seeds, in the order of problem ids; float64."""
    rows = [sorted(run.scores[place]["per_problem"], key=lambda row: row["id"]) for run in runs]
    ids = [[row["id"] for row in seed] for seed in rows]
    for run, other in zip(runs, ids):
        if other != ids[0]:
            raise ValueError(
                f"{runs[0].workdir} and {run.workdir} were scored on different problems of "
                f"{place[0]} at {place[1]}. Evaluate both on the same ones, or report one by one."
            )
    counts = [np.array([[row["n"], row["c"]] for row in seed]).T for seed in rows]
    return np.mean([passk.pass_at_k(n, c, k) for n, c in counts], axis=0)


def _resampling(runs: Sequence[RunFiles]) -> dict[str, int]:
    evaluate = runs[0].config["evaluate"]
    return {"resamples": evaluate["bootstrap"], "seed": evaluate["seed"]}
