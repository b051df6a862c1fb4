"""Tests of the task record and of loading by name."""

import pytest

from jssd.evals import benchmarks
from jssd.evals.benchmarks import CallTest, StdinTest, Task


def test_unknown_names_and_splits_are_refused():
    with pytest.raises(
        ValueError,
        match=r"benchmark='mbpp' is unknown\. Choose from tasks, functions, programs, humaneval",
    ):
        benchmarks.load("mbpp", "test")
    with pytest.raises(ValueError, match="split='train' is not in benchmark 'humaneval'"):
        benchmarks.load("humaneval", "train")


@pytest.mark.parametrize(
    "name, split", [(n, s) for n in benchmarks.SPLITS for s in benchmarks.SPLITS[n]]
)
def test_every_split_loads_with_ids_of_its_own(name, split):
    tasks = benchmarks.load(name, split)
    assert len({task.id for task in tasks}) == len(tasks) > 0


@pytest.mark.parametrize(
    "fields, rule",
    [
        ({}, "exactly one of tests and check_source"),
        ({"tests": (CallTest((), 1),)}, "every test must be a StdinTest"),
        ({"tests": (StdinTest("", ""),), "entry_point": "f"}, "every test must be a CallTest"),
        ({"tests": (StdinTest("", ""),), "starter_code": "x"}, "a stdin task has no starter_code"),
        ({"check_source": "x"}, "a stdin task has no starter_code"),
        ({"tests": (CallTest((), 1),), "check_source": "x", "entry_point": "f"}, "exactly one of"),
    ],
)
def test_badly_formed_tasks_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        Task(id="bad", statement="", **fields)
