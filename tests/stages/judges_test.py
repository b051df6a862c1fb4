"""Filters that parse or grade: which completions stay, and that they stay the same."""

import dataclasses
import json

import jax
import pytest

from jssd.config import Config, EvalConfig, FilterConfig, ModelSource, PromptsConfig
from jssd.data import filters
from jssd.evals import benchmarks
from jssd.main import run_stages
from jssd.metrics import Writer
from jssd.rules import validate
from jssd.stages import judges
from jssd.stages.context import Run
from tests.data.filters_test import OFF, sample, texts

FENCED = "Here:\n```python\nx = 1\n```"
OPEN = "```python\nx = 1\n"  # Grading reads a block that is never closed.
BROKEN = "```python\nx = = 1\n```"
ZERO = "```python\nx = '\0'\n```"
PROSE = "x = 1"


def run_with(workdir, **settings) -> Run:
    config = Config(
        model=ModelSource("m"),
        prompts=PromptsConfig(source="tasks:train"),
        filter=FilterConfig(drop_empty=False, drop_stubs=False, **settings),
        evaluate=EvalConfig(timeout=5.0),
    )
    return Run(config, workdir, jax.make_mesh((1,), ("data",)))


def apply(run: Run, drawn):
    with Writer(run.workdir / "train") as writer:
        return filters.apply(drawn, run.config.filter, judges.rules(run, writer))


@pytest.fixture(scope="module")
def answers():
    """Two tasks, each answered by its reference and by a program of another kind."""
    found = benchmarks.load("tasks", "train")
    function = next(task for task in found if task.entry_point)
    program = next(task for task in found if not task.entry_point)
    drawn = []
    for name, task in ((function.id, function), (f"{program.id}#1", program)):
        for n, code in enumerate((task.reference, "raise SystemExit(1)")):
            one = sample(f"```python\n{code}\n```", n=n)
            drawn.append(dataclasses.replace(one, prompt_id=name))
    return drawn


def test_a_format_is_what_grading_would_read(tmp_path):
    drawn = [sample(text) for text in (FENCED, OPEN, BROKEN, ZERO, PROSE, "")]
    kept, counts = apply(run_with(tmp_path, format="fence"), drawn)
    assert texts(kept) == [FENCED, OPEN, BROKEN, ZERO]
    assert counts["format"] == {"dropped": 2, "left": 4}
    assert texts(apply(run_with(tmp_path, format="python"), drawn)[0]) == [FENCED, OPEN]


@pytest.mark.parametrize(("wanted", "number"), [("passed", 0), ("failed", 1)])
def test_the_control_arm_keeps_what_the_tests_say(tmp_path, answers, wanted, number):
    kept, counts = apply(run_with(tmp_path, correct=wanted), answers)
    assert [one.sample for one in kept] == [number, number]
    assert counts["correct"] == {"dropped": 2, "left": 2}


def test_verdicts_are_asked_once(tmp_path, answers):
    run = run_with(tmp_path, correct="passed")
    apply(run, answers)
    path = tmp_path / "data" / judges.CORRECT
    tree = json.loads(path.read_text())
    assert tree["said"] == ["passed", "runtime_error", "passed", "runtime_error"]
    path.write_text(json.dumps(tree | {"said": ["timeout", "timeout", "passed", "timeout"]}))
    assert [one.prompt_id for one in apply(run, answers)[0]] == [answers[2].prompt_id]
    with pytest.raises(ValueError, match="for other samples"):
        apply(run, answers[:2])
    run.config.evaluate.timeout = 6.0
    with pytest.raises(ValueError, match=r"for other settings.*5\.0.*6\.0"):
        apply(run, answers)


def test_a_sample_of_no_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no tests for the sample of prompt 'p'"):
        apply(run_with(tmp_path, correct="passed"), [sample(FENCED)])


def test_prompts_without_tests_are_refused_before_sampling(tmp_path):
    config = run_with(tmp_path, correct="passed").config
    config.prompts.source = "problems.jsonl"
    with pytest.raises(ValueError, match=r"problems\.jsonl.* has none.*tasks:SPLIT"):
        run_stages(config, tmp_path, ["sample", "sft"])
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("settings", [{"format": "c"}, {"correct": "yes"}])
def test_words_are_checked(tmp_path, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"filter.{name}='{value}' must be ''"):
        validate(run_with(tmp_path, **settings).config)


def test_a_judge_that_is_not_given_is_not_left_out():
    with pytest.raises(KeyError, match="format"):
        filters.apply([sample(PROSE)], dataclasses.replace(OFF, format="fence"))
