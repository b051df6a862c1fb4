"""Finished runs read back from their folders, for the report."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jssd import metrics, places
from jssd.data import samples

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
    def begun(self) -> bool:
        """Whether any of the run's own stages, sample to evaluate, has left something."""
        return bool(self.samples or self.data or self.steps or self.scores or self.exported)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.begun or self.mechanism or self.sweep or self.num_swept)

    @property
    def num_swept(self) -> int:
        """Scored cells of a sweep."""
        return sum(1 for _ in self.workdir.glob("sweep/cells/*/*/*/scores.json"))

    @property
    def status(self) -> dict[str, str]:
        """For each stage "done", "not run", or how far it is."""
        last, goal = self.steps[-1]["step"] if self.steps else 0, self.config["train"]["num_steps"]
        sft = "done" if last >= goal else f"step {last} of {goal}" if last else "not run"
        evaluate = "done" if self.comparisons is not None else "not run"
        if self.comparisons is None and self.scores:
            evaluate = f"{len(self.scores)} of {_num_cells(self.config)} scores"
        own = {
            "sample": "done" if self.samples else "not run",
            "sft": sft,
            "export": "done" if self.exported else "not run",
            "evaluate": evaluate,
        }
        if not self.begun:  # Something else was done instead.
            own = {}
        scored, wanted = self.num_swept, _num_to_sweep(self.config)
        sweep = "done" if self.sweep and scored >= wanted else f"{scored} of {wanted} cells"
        return own | ({"sweep": sweep} if scored else {})


def read(
    workdirs: Sequence[pathlib.Path], home: pathlib.Path | None = None
) -> tuple[list[RunFiles], list[str]]:
    """The runs that hold something, and the names of those that do not.

    `home` holds what is of no single run, plan and toy. If there is nothing else, the first of
    `workdirs` comes back for its config, and none of them is missed.

    Raises:
      FileNotFoundError: none of them holds anything to report, or one has no config.json.
      ValueError: a broken file, or runs that are not seeds of one experiment.
    """
    names = [path.name for path in workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in workdirs]
    found = [_read_run(name, workdir) for name, workdir in zip(names, workdirs)]
    runs = [run for run in found if not run.empty]
    absent = [run.name for run in found if run.empty]
    if not runs and home and (read_plan(home) or read_toy(home)):
        runs, absent = found[:1], []
    if not runs:
        told = ", ".join(map(str, workdirs)) or "no folder"
        raise FileNotFoundError(f"nothing to report in {told}. Run stage sample first.")
    for run in runs:
        if not run.config:
            raise FileNotFoundError(
                f"{run.workdir}/config.json is missing. Run any stage over the folder again to "
                "write it."
            )
    for run in runs[1:]:
        _check_same_experiment(runs[0], run)
    return [_in_order(run) for run in runs], absent


def read_plan(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What stage plan found for a run, or None where it has not been run."""
    return read_json(workdir / "plan" / "plan.json")


def read_toy(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What stage toy found, or None where it has not been run."""
    return read_json(workdir / "toy" / "toy.json")


def read_coloured(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Completions that stage mechanism coloured; of old ones only its page has them."""
    return read_json(workdir / "mechanism" / "coloured.json") or []


def read_json(path: pathlib.Path) -> Any:
    """A JSON file, or None if there is none. Raises ValueError naming a broken one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. Delete it and run its stage again."
        ) from None


def _read_run(name: str, workdir: pathlib.Path) -> RunFiles:
    return RunFiles(
        name=name,
        workdir=workdir,
        config=read_json(workdir / "config.json") or {},
        samples=read_json(workdir / "samples" / samples.MANIFEST),
        data=read_json(workdir / "data" / "stats.json"),
        steps=metrics.read_scalars(workdir / "train"),
        exported=places.is_whole(workdir / "export"),
        scores={
            (path.parts[-4], path.parts[-3], path.parts[-2]): read_json(path)
            for path in sorted(workdir.glob("eval/*/*/*/scores.json"))
        },
        comparisons=read_json(workdir / "eval" / "comparisons.json"),
        mechanism=read_json(workdir / "mechanism" / "summary.json"),
        sweep=read_json(workdir / "sweep" / "summary.json"),
    )


def _in_order(run: RunFiles) -> RunFiles:
    """The same with its scores in the order of the config."""
    evaluate = run.config["evaluate"]
    decodes = [law["name"] for law in evaluate["decodes"]]
    orders = (list(evaluate["benchmarks"]), decodes, MODELS)

    def rank(place: Place) -> tuple[int, ...]:
        known = zip(place, orders)
        return tuple(o.index(part) if part in o else len(o) for part, o in known)

    ordered = {place: run.scores[place] for place in sorted(run.scores, key=rank)}
    return dataclasses.replace(run, scores=ordered)


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


def _num_to_sweep(config: dict[str, Any]) -> int:
    sweep, many = config["sweep"], lambda key: max(1, len(config["sweep"][key]))
    students = len(sweep["train_temperatures"]) * many("train_truncations") * many("checkpoints")
    laws = len(sweep["eval_temperatures"]) * many("eval_truncations")
    return (sweep["base"] + students) * laws * len(config["evaluate"]["benchmarks"])
