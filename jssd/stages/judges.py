"""The filters of section `filter` that need more than a sample's own record.

  format     what grading would read from the text (`evaluate.extraction`): "fence" keeps texts with
             such a program, "python" those whose program also parses. Nothing is run. Ours; the
             paper's own rule for form is the filter "stubs".
  correct    the control arm that self-distillation is compared with: keeps completions that pass
             their task's tests, or with "failed" those that do not. Graded in the sandbox as
             stage evaluate would. The paper trains on raw samples, right or wrong.
  proxy      keeps the `proxy_keep_percent` of completions with the highest mean log-probability of
             a token under another, as a rule smaller model. Users speak of such a filter without a
             definition of the score; the mean log-probability is our choice.

Verdicts are kept in `data/`: a program near its time limit may pass once and not again, and
training that goes on after a kill must see the same samples.
"""

import ast
import dataclasses
import functools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jssd import hosts, phases, processes
from jssd.config import Config
from jssd.data import filters
from jssd.data.answers import Answers
from jssd.data.filters import Rule, Text
from jssd.data.samples import Sample
from jssd.data.tokenizer import Tokenizer
from jssd.evals import benchmarks, extract, grading, sandbox, ways
from jssd.evals.benchmarks import Task, catalogue
from jssd.evals.protocol import Protocol
from jssd.metrics import Writer
from jssd.sampling.score import Scorer
from jssd.stages import context, verdicts
from jssd.stages.context import Run
from jssd.weights import hub

CORRECT, PROXY = "correct.json", "proxy.json"


def check(run: Run) -> None:
    """Raises ValueError when `filter.correct` has no tests to ask or the tokenizer no
    `train.think_end`, and FileNotFoundError when the proxy is not there: before the hours of
    sampling."""
    config = run.config
    run.answers()
    if config.filter.correct:
        _tests(config)
        ways.this_interpreter(config.evaluate.packages, catalogue.private(config.evaluate))
    if path := config.filter.proxy_model:
        hub.resolve(path)


def rules(run: Run, writer: Writer, answers: Answers | None = None) -> dict[str, Rule]:
    """The rules by the field of `FilterConfig` that asks for them; `filters.apply` takes them. With
    `answers`, format and tests are asked of the answer alone."""
    text = filters.whole_text if answers is None else answers.text
    return {
        "format": functools.partial(_well_formed, run.config, text),
        "correct": functools.partial(_correct, run, writer, text),
        "proxy_model": functools.partial(_likeliest, run, writer),
    }


def _well_formed(config: Config, text: Text, kept: Sequence[Sample]) -> list[Sample]:
    # A prompt's function is not known here, so "defining_fence" takes the last block.
    programs = [extract.extract_code(text(s), rule=config.evaluate.extraction) for s in kept]
    good = _parses if config.filter.format == "python" else bool
    return [sample for sample, program in zip(kept, programs) if program and good(program)]


def _parses(program: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of odd escapes, which run all the same.
        try:
            ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # Zero bytes, deep nesting.
            return False
    return True


def _correct(run: Run, writer: Writer, text: Text, kept: Sequence[Sample]) -> list[Sample]:
    wanted = run.config.filter.correct == "passed"
    config = run.config.evaluate
    protocol = Protocol(extraction=config.extraction, seconds=config.timeout)
    settings = {
        "protocol": dataclasses.asdict(protocol),
        "memory_mb": config.memory_mb,
        "packages": config.packages,
    }
    if text is not filters.whole_text:
        settings["read"] = run.config.train.loss_on

    def grade() -> list[str]:
        python = ways.this_interpreter(config.packages, catalogue.private(config))
        box = sandbox.open_sandbox(config.sandbox, python)
        writer.line(f"filter.correct grades in: {box.describe()}")
        tasks = _asked(_tests(run.config), kept)
        graded = verdicts.Kept(run.workdir / "data" / CORRECT, kept, settings)
        with phases.phase("grade"):
            grades = graded.grade(
                tasks,
                [grading.read_answer(task, text(s), protocol) for task, s in zip(tasks, kept)],
                protocol=protocol,
                sandbox=box,
                workers=config.workers,
                memory_mb=config.memory_mb,
            )
        return [grade.verdict for grade in grades]

    said = _once(run, CORRECT, settings, kept, grade)
    return [sample for sample, verdict in zip(kept, said) if (verdict == "passed") == wanted]


def _tests(config: Config) -> dict[str, Task]:
    """The tasks that were asked, by id. Raises ValueError where prompts come without tests."""
    name, _, split = config.prompts.source.partition(":")
    if name not in benchmarks.SPLITS:
        raise ValueError(
            f"filter.correct={config.filter.correct!r} needs prompts with tests, but "
            f"prompts.source={config.prompts.source!r} has none. Use one of "
            f"{', '.join(f'{known}:SPLIT' for known in benchmarks.SPLITS)}, or leave it ''."
        )
    return {task.id: task for task in benchmarks.load(name, split)}


def _asked(tasks: dict[str, Task], kept: Sequence[Sample]) -> list[Task]:
    """The task of each sample, whose prompt may be a second wording, "id#1"."""
    found = []
    for sample in kept:
        name = sample.prompt_id
        task = tasks.get(name) or tasks.get(re.sub(r"#\d+$", "", name))
        if task is None:
            raise ValueError(
                f"filter.correct has no tests for the sample of prompt {name!r}: it is no task of "
                "prompts.source. Leave filter.correct '', or restore prompts.source."
            )
        found.append(task)
    return found


def _likeliest(run: Run, writer: Writer, kept: Sequence[Sample]) -> list[Sample]:
    config = run.config.filter
    if not kept:
        return []
    # All processes refuse: one that did so by itself would leave the others waiting.
    if jax.process_count() > 1 and not (run.workdir / "data" / PROXY).exists():
        raise ValueError(
            "filter.proxy_model scores on the devices of one process: start stage sft alone, and "
            f"once data/{PROXY} is written on several. Or leave it ''."
        )
    settings = {
        "proxy_model": config.proxy_model,
        "dtypes": [run.config.model.dtype, run.config.model.compute_dtype],
    }
    means = _once(run, PROXY, settings, kept, lambda: _mean_logprobs(run, writer, kept))
    count = math.ceil(len(kept) * config.proxy_keep_percent / 100)
    best = sorted(range(len(kept)), key=lambda i: -means[i])[:count]  # Of equals the first stay.
    return [kept[i] for i in sorted(best)]


def _mean_logprobs(run: Run, writer: Writer, kept: Sequence[Sample]) -> list[float]:
    """Mean log-probability of a token (nats) of each completion under the proxy, at temperature 1.

    Raises ValueError for a proxy that reads the tokens as other text.
    """
    path = run.config.filter.proxy_model
    folder = run.folder_of(path, "proxy")
    tokenizer = Tokenizer(folder)
    with jax.set_mesh(run.mesh):
        cfg, params = run.load(folder)
    for sample in kept:
        ids = [*sample.prompt_token_ids, *sample.token_ids]
        if (
            max(ids) >= cfg.vocab_size
            or tokenizer.encode(sample.prompt) != sample.prompt_token_ids
            or tokenizer.decode(sample.token_ids) != sample.text
        ):
            raise ValueError(
                f"filter.proxy_model={path!r} reads the tokens of sample {sample.prompt_id!r} "
                f"number {sample.sample} as another text. Use a model with the base's tokenizer."
            )
    writer.line(f"filter.proxy_model scores {len(kept)} completions by {path}")
    mesh = hosts.decode_mesh(run.mesh)
    params = context.for_scoring(params, cfg, run.mesh)
    with jax.set_mesh(mesh):
        scores = Scorer(params, cfg, dtype=context.as_dtype(run.config.model.compute_dtype)).score(
            [s.prompt_token_ids for s in kept], [s.token_ids for s in kept]
        )
    means = [float(np.mean(score.logprobs, dtype=np.float64)) for score in scores]
    if not np.isfinite(means).all():
        raise ValueError(f"filter.proxy_model={path!r} gives log-probabilities that are no number.")
    return means


def _once(
    run: Run,
    name: str,
    settings: dict[str, Any],
    kept: Sequence[Sample],
    judge: Callable[[], list],
) -> list:
    """What `judge` says of each sample, from `data/name` where it was asked before. The first
    process asks, the others read.

    Raises ValueError when the file was written for other samples or settings.
    """
    path = run.workdir / "data" / name
    about = {"settings": settings, "samples": verdicts.digest(kept)}
    if not path.exists() and jax.process_index() == 0:
        context.write_json(path, about | {"said": judge()})
        path.with_name(path.name + ".partial").unlink(missing_ok=True)
    processes.wait_for_all(f"{name} is written")
    found = context.read_json(path)
    for part, now in about.items():
        if found[part] != now:
            raise ValueError(
                f"{path} was written for other {part}: {found[part]}, now {now}. Restore them, or "
                "use a fresh --workdir."
            )
    return found["said"]
