"""The filters of section `filter` that need more than a sample's own record.

  format     what grading would read from the text (`evaluate.extraction`): "fence" keeps texts with
             such a program, "python" those whose program also parses. Nothing is run. Ours; the
             paper's own rule for form is the filter "stubs".
  correct    the control arm that self-distillation is compared with: keeps completions that pass
             their task's tests, or with "failed" those that do not. Graded in the sandbox as
             stage evaluate would. The paper trains on raw samples, right or wrong.

Verdicts are kept in `data/`: a program near its time limit may pass once and not again, and
training that goes on after a kill must see the same samples.
"""

import ast
import dataclasses
import functools
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jssd.config import Config
from jssd.data.filters import Rule
from jssd.data.samples import Sample
from jssd.evals import benchmarks, extract, grading, sandbox, ways
from jssd.evals.benchmarks import Task
from jssd.evals.protocol import Protocol
from jssd.metrics import Writer
from jssd.stages import context
from jssd.stages.context import Run

CORRECT = "correct.json"


def check(config: Config) -> None:
    """Raises ValueError when `filter.correct` has no tests to ask: before the hours of sampling."""
    if config.filter.correct:
        _tests(config)
        ways.this_interpreter(config.evaluate.packages)


def rules(run: Run, writer: Writer) -> dict[str, Rule]:
    """The rules by the field of `FilterConfig` that asks for them; `filters.apply` takes them."""
    return {
        "format": functools.partial(_well_formed, run.config),
        "correct": functools.partial(_correct, run, writer),
    }


def _well_formed(config: Config, kept: Sequence[Sample]) -> list[Sample]:
    # A prompt's function is not known here, so "defining_fence" takes the last block.
    programs = [extract.extract_code(s.text, rule=config.evaluate.extraction) for s in kept]
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


def _correct(run: Run, writer: Writer, kept: Sequence[Sample]) -> list[Sample]:
    wanted = run.config.filter.correct == "passed"
    config = run.config.evaluate
    protocol = Protocol(extraction=config.extraction, seconds=config.timeout)
    settings = {
        "protocol": dataclasses.asdict(protocol),
        "memory_mb": config.memory_mb,
        "packages": config.packages,
    }

    def grade() -> list[str]:
        box = sandbox.open_sandbox(config.sandbox, ways.this_interpreter(config.packages))
        writer.line(f"filter.correct grades in: {box.describe()}")
        grades = grading.grade_many(
            _asked(_tests(run.config), kept),
            [sample.text for sample in kept],
            protocol=protocol,
            sandbox=box,
            workers=config.workers,
            memory_mb=config.memory_mb,
        )
        return [grade.verdict for grade in grades]

    verdicts = _once(run, CORRECT, settings, kept, grade)
    return [sample for sample, said in zip(kept, verdicts) if (said == "passed") == wanted]


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
    about = {"settings": settings, "samples": _digest(kept)}
    if not path.exists() and jax.process_index() == 0:
        context.write_json(path, about | {"said": judge()})
    context.wait_for_all(f"{name} is written")
    found = context.read_json(path)
    for part, now in about.items():
        if found[part] != now:
            raise ValueError(
                f"{path} was written for other {part}: {found[part]}, now {now}. Restore them, or "
                "use a fresh --workdir."
            )
    return found["said"]


def _digest(kept: Sequence[Sample]) -> str:
    lines = (json.dumps([s.prompt_id, s.sample, s.token_ids, s.text]) for s in kept)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
