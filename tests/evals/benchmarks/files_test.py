"""Tests of benchmarks in JSON lines: each form, its right and wrong answers, its mistakes."""

import json
import re

import pytest

from jssd.config import EvalConfig
from jssd.evals import grading
from jssd.evals.benchmarks import catalogue, files
from jssd.evals.protocol import Protocol

F = "```"
ROWS = {
    "own": {
        "id": 7, "statement": "Add.", "starter_code": "def add(a, b):\n", "entry_point": "add",
        "tests": [{"args": [1, 2], "expected": 3}], "group": "easy",
    },
    "own_stdin": {"id": "d", "statement": "Double.", "tests": [{"stdin": "2", "stdout": "4"}]},
    "mbpp": {
        "task_id": 2, "text": "Write a function to find shared members.",
        "code": "def h(a):\n    return set(a)\ndef shared(a, b=()):\n    return h(a) & set(b)",
        "test_list": ["assert shared([1, 2], [2, 3]) == {2}", "assert sorted(shared([1])) == []"],
        "test_setup_code": "",
    },
    "mbpp_sanitized": {
        "task_id": 3, "prompt": "Round.", "code": "def near(x):\n    return x + 1e-12",
        "test_imports": ["import math"], "test_list": ["assert math.isclose(near(1.0), 1.0)"],
    },
    "humaneval_more": {
        "task_id": "h/1", "prompt": "def two():\n    '''Two.'''\n", "entry_point": "two",
        "test": "def check(candidate):\n    assert candidate() == 2\n",
    },
    "crux_output": {"id": "s1", "code": "def f(x):\n    return x + [1]", "input": "[2]",
                    "output": "[2, 1]"},
    "crux_input": {"id": "s1", "code": "def f(x):\n    return sorted(x)", "input": "[2, 1]",
                   "output": "[1, 2]"},
    "aime": {"problem": "What is 6 times 7?", "answer": "042"},
}  # fmt: skip
ANSWERS = {  # name: (right ones, (wrong one, verdict) ...)
    "own": ([f"{F}python\ndef add(a, b): return a + b\n{F}"],
            [(f"{F}\ndef add(a, b): return a\n{F}", "wrong_answer")]),
    "own_stdin": ([f"{F}\nprint(int(input()) * 2)\n{F}"], [("4", "no_code")]),
    "mbpp": ([f"{F}\ndef shared(a, b=()): return set(a) & set(b)\n{F}"],
             [(f"{F}\ndef shared(a, b=()): return set(a)\n{F}", "wrong_answer")]),
    "mbpp_sanitized": ([f"{F}\ndef near(x): return x\n{F}"],
                       [(f"{F}\ndef near(x): return x + 1\n{F}", "wrong_answer")]),
    "humaneval_more": ([f"{F}\ndef two(): return 2\n{F}"],
                  [(f"{F}\ndef two(): return 1\n{F}", "wrong_answer")]),
    "crux_output": (
        ["[ANSWER][2, 1][/ANSWER]", "[ANSWER]\nassert f([2]) == [2, 1]\n[/ANSWER] Done.",
         "[ANSWER][][/ANSWER] no: [ANSWER] [2,1] [/ANSWER]"],
        [("[ANSWER][1, 2][/ANSWER]", "wrong_answer"),
         ("[ANSWER](2, 1)[/ANSWER]", "wrong_answer"),  # A tuple is another value.
         ("[ANSWER]f([2])[/ANSWER]", "wrong_answer"),  # That is the question.
         ("[ANSWER][2] + [1][/ANSWER]", "wrong_answer"),  # Not worked out.
         ("[ANSWER][2, 1[/ANSWER]", "no_code"), ("[2, 1]", "no_code")],
    ),
    "crux_input": (
        ["[ANSWER]f([2, 1])[/ANSWER]", "[ANSWER]f(x=[1, 2])[/ANSWER]",
         "[ANSWER]assert f((2, 1)) == [1, 2][/ANSWER]"],
        [("[ANSWER]f([2])[/ANSWER]", "wrong_answer"),
         ("[ANSWER][1, 2][/ANSWER]", "no_code"),  # The result is given, a call is asked for.
         ("[ANSWER]f(f([2, 1]))[/ANSWER]", "no_code"),  # Its arguments must be literals.
         ("[ANSWER]f(5)[/ANSWER]", "runtime_error")],
    ),
    "aime": (
        ["So \\boxed{42}.", "\\boxed{042}", "\\boxed{1} or rather \\boxed{ 42 }", "It is 42.",
         "$\\boxed{42}$", "6 * 7 = 42"],
        [("\\boxed{41}", "wrong_answer"), ("42, so \\boxed{41}", "wrong_answer"),
         ("\\boxed{x}", "no_code"), ("It is 42.5", "no_code"), ("none", "no_code")],
    ),
}  # fmt: skip


def write(folder, stem: str, *rows) -> EvalConfig:
    (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return EvalConfig(data=str(folder))


@pytest.mark.parametrize("name", ROWS)
def test_each_form_is_graded(tmp_path, sandbox, name):
    stem = name.removesuffix("_input").removesuffix("_output")
    bench = catalogue.find(name, write(tmp_path, stem, ROWS[name]))
    (task,) = bench.tasks
    right, wrong = ANSWERS[name]
    answers = right + [answer for answer, _ in wrong]
    grades = grading.grade_many(
        [task] * len(answers), answers, protocol=Protocol(), sandbox=sandbox, workers=2,
        memory_mb=400,
    )  # fmt: skip
    verdicts = ["passed"] * len(right) + [verdict for _, verdict in wrong]
    assert dict(zip(answers, (grade.verdict for grade in grades))) == dict(zip(answers, verdicts))


def test_mbpp_shows_the_tests_and_a_signature(tmp_path):
    (task,) = catalogue.find("mbpp", write(tmp_path, "mbpp", ROWS["mbpp"])).tasks
    assert task.starter_code == "def shared(a, b=()):\n"
    assert "assert shared([1, 2], [2, 3]) == {2}" in task.statement


def test_one_cruxeval_file_asks_two_things(tmp_path):
    config = write(tmp_path, "crux", ROWS["crux_output"])
    (output,) = catalogue.find("crux_output", config).tasks
    (given,) = catalogue.find("crux_input", config).tasks
    assert "[2, 1]" not in output.statement and "f([2])" in output.statement
    assert "[2, 1]" in given.statement and "f([2])" not in given.statement
    with pytest.raises(ValueError, match="call it crux_input or crux_output"):
        catalogue.find("crux", config)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"a": 1, "b": 2}], "columns a, b fit no known form. They are: statement, tests; "),
        ([ROWS["own"], ROWS["own"]], "at least one task, and no id twice"),
        ([], "at least one task"),
        ([{"statement": "x", "tests": []}], "no field 'id'"),
        ([ROWS["mbpp"] | {"test_list": ["assert True"]}], "no test calls a function"),
        ([ROWS["aime"] | {"answer": "1/2"}], "answer='1/2' must be a whole number"),
    ],
)
def test_broken_files_are_named(tmp_path, rows, reason):
    config = write(tmp_path, "x", *rows)
    with pytest.raises(ValueError, match=re.escape(reason)):
        catalogue.find("x", config)


def test_missing_file_is_one_line(tmp_path):
    for folder in ("", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"'mbpp' comes neither .* mbpp\.jsonl"):
            files.find(folder, "mbpp")
        with pytest.raises(FileNotFoundError):
            catalogue.check(EvalConfig(benchmarks=("mbpp",), data=folder))


def test_a_folder_that_nothing_is_read_from_is_refused(tmp_path):
    config = EvalConfig(benchmarks=("functions", "livecodebench"), data=str(tmp_path))
    with pytest.raises(ValueError, match=r"data=.* is read by no benchmark .*'functions'"):
        catalogue.check(config)
