"""What a sweep is made of: its laws, its models and their names, and where each cell lies."""

import copy
import dataclasses
import pathlib

from jssd.config import Config, TruncationConfig
from jssd.sampling.request import Sampling
from jssd.stages.context import Run


@dataclasses.dataclass(frozen=True)
class Model:
    """Who is decoded: the base, or a student at one step of its training.

    Attributes:
      trained_at: the law its samples were drawn at; None is the base.
      step: of the student's training; 0 for the base.
    """

    trained_at: Sampling | None = None
    step: int = 0

    @property
    def student(self) -> str:
        """Name of the student whatever the step, "" for the base."""
        return f"train-{label(self.trained_at)}" if self.trained_at else ""

    @property
    def name(self) -> str:
        """ "base" or e.g. "train-t1.5-k20@250": a folder's name."""
        return f"{self.student}@{self.step}" if self.trained_at else "base"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model decoded by one law on one benchmark."""

    model: Model
    benchmark: str
    law: Sampling

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.model.name} on {self.benchmark} at {label(self.law)}"

    def place(self, workdir: pathlib.Path) -> pathlib.Path:
        """The folder of its completions and scores."""
        return workdir / "sweep" / "cells" / self.benchmark / self.model.name / label(self.law)

    @property
    def teff(self) -> float | None:
        """T_train times T_eval: without truncation an ideal student at T_eval is the base at this
        temperature (paper section 3.4). None for the base."""
        trained_at = self.model.trained_at
        return trained_at.temperature * self.law.temperature if trained_at else None


def label(law: Sampling) -> str:
    """A law's name, e.g. "t0.8-k20-p0.95"; different laws have different names."""
    parts = [f"t{law.temperature!r}"]
    parts += [f"k{law.top_k}"] if law.top_k else []
    parts += [f"p{law.top_p!r}"] if law.top_p < 1 else []
    parts += [f"m{law.min_p!r}"] if law.min_p else []
    return "-".join(parts)


def cut_of(law: Sampling) -> str:
    """The name of a law's truncation alone; "" for none."""
    return label(law).partition("-")[2]


def as_wide(drawn: Sampling, target: Sampling) -> bool:
    """Whether `drawn` keeps at every token all that `target` keeps, and is as generous to its tail:
    as hot or hotter, and cut no more."""
    return (
        drawn.temperature >= target.temperature
        and (drawn.top_k == 0 or 0 < target.top_k <= drawn.top_k)
        and drawn.top_p >= target.top_p
        and drawn.min_p <= target.min_p
    )


def eval_laws(config: Config) -> list[Sampling]:
    """Every law that models are decoded at."""
    sweep = config.sweep
    return _product(sweep.eval_temperatures, sweep.eval_truncations or [TruncationConfig()])


def predicted_laws(config: Config) -> list[Sampling]:
    """Every law whose scores are estimated."""
    sweep = config.sweep
    cuts = sweep.predict_truncations or sweep.eval_truncations or [TruncationConfig()]
    return _product(sweep.predict_temperatures, cuts)


def train_laws(config: Config) -> list[Sampling]:
    """Every law that a student is sampled for."""
    own = config.sampling
    cuts = config.sweep.train_truncations or [
        TruncationConfig(own.top_k, own.top_p, own.min_p),
    ]
    return _product(config.sweep.train_temperatures, cuts)


def models(config: Config) -> list[Model]:
    """The base, if it takes part, then every student at every step."""
    steps = config.sweep.checkpoints or (config.train.num_steps,)
    students = [Model(law, step) for law in train_laws(config) for step in steps]
    return [*([Model()] if config.sweep.base else []), *students]


def cells(config: Config, model: Model) -> list[Cell]:
    """All cells of one model."""
    return [
        Cell(model, benchmark, law)
        for benchmark in config.evaluate.benchmarks
        for law in eval_laws(config)
    ]


def student_run(run: Run, law: Sampling) -> Run:
    """The run that samples at `law` and trains on it: a work directory within this one."""
    config = copy.deepcopy(run.config)
    for name in ("temperature", "top_k", "top_p", "min_p"):
        setattr(config.sampling, name, getattr(law, name))
    folder = run.workdir / "sweep" / "students" / Model(law).student
    return Run(config, folder, run.mesh, within=run.within or run.workdir)


def _product(temperatures, cuts: list[TruncationConfig]) -> list[Sampling]:
    return [
        Sampling(float(temperature), cut.top_k, cut.top_p, cut.min_p)
        for cut in cuts
        for temperature in temperatures
    ]
