"""The small tasks are right, cannot be passed by accident, and the two splits share nothing."""

import ast
import contextlib
import hashlib
import io
import json
import sys

import pytest

from jssd.evals import grading
from jssd.evals.benchmarks import CallTest, StdinTest, Task, load, tasks
from jssd.evals.protocol import Protocol

TRAIN = load("tasks", "train")
HELDOUT = load("tasks", "heldout")
FUNCTIONS = [task for task in TRAIN + HELDOUT if task.entry_point]
PROGRAMS = [task for task in TRAIN + HELDOUT if not task.entry_point]


def test_there_are_enough_tasks_of_both_forms_in_both_splits():
    assert len(TRAIN) >= 240
    assert 90 <= len(HELDOUT) <= 120
    for split in (TRAIN, HELDOUT):
        share = sum(not task.entry_point for task in split) / len(split)
        assert 0.1 < share < 0.3


def test_unknown_split_is_refused_with_the_names_to_choose_from():
    with pytest.raises(ValueError, match="Choose train or heldout"):
        tasks.load("test")


@pytest.mark.parametrize(
    "split, digest",
    [(TRAIN, "5b604b5c01264ba7"), (HELDOUT, "40a9d5b0a72d003d")],
    ids=["train", "heldout"],
)
def test_ids_are_unique_sorted_and_never_change_sides(split, digest):
    ids = [task.id for task in split]
    assert ids == sorted(set(ids))
    assert hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16] == digest


def test_ids_are_unique_over_both_splits_and_name_the_form():
    assert len({task.id for task in TRAIN + HELDOUT}) == len(TRAIN) + len(HELDOUT)
    assert all(task.id == f"tasks/fn/{task.entry_point}" for task in FUNCTIONS)
    assert all(task.id.startswith("tasks/io/") for task in PROGRAMS)


def test_every_held_out_family_exists():
    assert {family for family, _ in tasks._families()} >= tasks.HELDOUT_FAMILIES


def test_families_are_small():
    families = [family for family, _ in tasks._families()]
    assert max(families.count(family) for family in families) <= 4


@pytest.mark.parametrize(
    "feature",
    [
        lambda task: task.entry_point or task.id,
        lambda task: task.id.rpartition("/")[2],
        lambda task: _normal(task.statement.partition("`. ")[2] or task.statement),
        lambda task: task.reference,
        lambda task: _skeleton(task.reference),
    ],
    ids=["entry_point", "name", "statement", "reference", "reference_without_names_and_constants"],
)
def test_splits_share_nothing(feature):
    assert {feature(task) for task in TRAIN} & {feature(task) for task in HELDOUT} == set()


def test_skeleton_sees_through_names_and_constants():
    assert _skeleton("def f(a):\n    return a * 60\n") == _skeleton("def g(b):\n    return b * 7\n")
    assert _skeleton("def f(a):\n    return len(a)\n") != _skeleton(
        "def f(a):\n    return sum(a)\n"
    )


@pytest.mark.parametrize("task", FUNCTIONS, ids=lambda task: task.id)
def test_function_references_pass_and_leave_their_arguments_alone(task):
    assert 4 <= len(task.tests) <= 8
    scope = {}
    exec(task.reference, scope)
    for test in _calls(task):
        before = json.dumps(test.args)
        got = scope[task.entry_point](*test.args)
        assert got == test.expected
        assert json.dumps(test.args) == before
        # Plain in the sense of JSON: a round trip changes neither value nor type.
        assert repr(json.loads(json.dumps(test.expected))) == repr(test.expected)
        assert repr(json.loads(json.dumps(list(test.args)))) == repr(list(test.args))


@pytest.mark.parametrize("task", PROGRAMS, ids=lambda task: task.id)
def test_program_references_pass(task, monkeypatch):
    assert 4 <= len(task.tests) <= 8
    for test in _runs(task):
        monkeypatch.setattr(sys, "stdin", io.StringIO(test.stdin))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(task.reference, {"__name__": "__main__"})
        assert printed.getvalue() == test.stdout
        assert test.stdout.strip()


def test_the_grader_passes_references_and_fails_the_reference_of_another_task(sandbox):
    sample = FUNCTIONS[::60] + PROGRAMS[::20]
    right = [f"```python\n{task.reference}```" for task in sample]
    limits = {
        "sandbox": sandbox,
        "workers": 2,
        "protocol": Protocol(seconds=10.0),
        "memory_mb": 256,
    }
    grades = grading.grade_many(sample, right, **limits)
    assert [grade.verdict for grade in grades] == ["passed"] * len(sample)
    swapped = grading.grade_many(sample, right[1:] + right[:1], **limits)
    assert not any(grade.passed for grade in swapped)


CONSTANTS = (None, 0, 1, -1, "", [], {}, True, False)
TRIVIAL = [
    *((f"constant {value!r}", lambda args, value=value: value) for value in CONSTANTS),
    ("first argument", lambda args: args[0]),
    ("last argument", lambda args: args[-1]),
    ("length of the first", lambda args: len(args[0]) if hasattr(args[0], "__len__") else None),
]


@pytest.mark.parametrize("name, wrong", TRIVIAL, ids=[name for name, _ in TRIVIAL])
def test_trivial_functions_fail(name, wrong):
    honest = {"length of the first": {"count_keys", "string_length", "number_of_elements"}}.get(
        name, set()
    )
    passing = {
        task.entry_point
        for task in FUNCTIONS
        if all(wrong(test.args) == test.expected for test in _calls(task))
    }
    assert passing == honest


def test_trivial_programs_fail():
    for task in PROGRAMS:
        assert len({test.stdout for test in _runs(task)}) > 1, task.id
        assert any(test.stdout != test.stdin for test in _runs(task)), task.id


def test_a_slip_in_a_boundary_is_caught():
    """Each slip is a small edit of the reference. In the harmless ones it changes no answer."""
    slips = [
        ("<=", "<"),
        (">=", ">"),
        (" < ", " <= "),
        (" > ", " >= "),
        ("(1, n + 1)", "(1, n)"),
    ]
    harmless = {"fibonacci_sequence", "sum_of_negative_numbers"}
    missed = set()
    for task in FUNCTIONS:
        for old, new in slips:
            if old in task.reference:
                wrong = task.reference.replace(old, new)
                if all(
                    _call(wrong, task.entry_point, test.args) == test.expected
                    for test in _calls(task)
                ):
                    missed.add(task.entry_point)
    assert missed == harmless


def test_starter_code_is_the_head_with_the_statement_as_docstring():
    for task in FUNCTIONS:
        (function,) = ast.parse(task.starter_code).body
        assert isinstance(function, ast.FunctionDef) and function.name == task.entry_point
        head = task.starter_code.partition(":\n")[0].removeprefix("def ")
        words = " ".join((ast.get_docstring(function) or "").split())
        assert task.statement == words
        assert task.reference.startswith(f"def {head}:\n")


def test_statements_are_short_sentences_without_markup_left_over():
    for task in TRAIN + HELDOUT:
        assert task.statement.endswith("."), task.id
        assert len(task.statement) < 420, task.id
        assert "  " not in task.statement and " | " not in task.statement, task.id
        assert not any(
            f"<{column}>" in task.statement for column in ("big", "small", "factor", "one")
        )


def _calls(task: Task) -> list[CallTest]:
    return [test for test in task.tests if isinstance(test, CallTest)]


def _runs(task: Task) -> list[StdinTest]:
    return [test for test in task.tests if isinstance(test, StdinTest)]


def _normal(statement: str) -> str:
    return "".join(char for char in statement.lower() if char.isalpha())


def _skeleton(source: str) -> str:
    """The shape of a program: names it binds are numbered, and a constant is only its type."""
    tree = ast.parse(source)
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    numbered: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.name = "function"
        elif isinstance(node, ast.arg):
            node.arg = numbered.setdefault(node.arg, f"name{len(numbered)}")
        elif isinstance(node, ast.Name) and node.id in bound:
            node.id = numbered.setdefault(node.id, f"name{len(numbered)}")
        elif isinstance(node, ast.Constant):
            node.value = type(node.value).__name__
    return ast.dump(tree)


def _call(source: str, name: str, args):
    scope = {}
    exec(source, scope)
    try:
        return scope[name](*args)
    except Exception as error:
        return error
