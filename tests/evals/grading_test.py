"""Tests of verdicts on honest programs, right and wrong, and of grading many."""

import threading

import pytest

from jssd.evals import grading
from jssd.evals.benchmarks import CallTest, StdinTest, Task
from jssd.evals.child import OUTPUT_LIMIT
from jssd.evals.protocol import Protocol

LIMITS = {"protocol": Protocol(seconds=10.0), "memory_mb": 400}

PAIR = Task(
    id="pair",
    statement="Swap.",
    starter_code="from typing import List\n\ndef swap(a, b):\n",
    entry_point="swap",
    tests=(CallTest((1, "x"), ("x", 1)), CallTest(([2], {3}), ({3}, [2]))),
)
DOUBLE = Task(
    id="double", statement="Double.", tests=(StdinTest("2\n", "4\n"), StdinTest("5\n", "10\n"))
)
HELPED = Task(
    id="helped",
    statement="Undo.",
    starter_code="import math\n\ndef twice(x):\n    return 2 * x\n\n"
    "def undo(x):\n    '''Undo.'''\n",
    entry_point="undo",
    check_source="def check(candidate):\n    for x in range(5):\n"
    "        assert candidate(twice(x)) == x\n    assert undo(2) == 1\n",
)


def fenced(code: str) -> str:
    return f"Here:\n```python\n{code}\n```\n"


def grade(task: Task, code: str, sandbox) -> grading.Grade:
    return grading.grade_program(task, code, sandbox=sandbox, **LIMITS)


@pytest.mark.parametrize(
    "task, code",
    [
        (PAIR, "def swap(a, b): return b, a"),
        (PAIR, "def swap(a: List, b): print('noise'); return b, a"),
        (PAIR, "swap = lambda a, b: (b, a)"),
        (DOUBLE, "print(2 * int(input()))"),
        (DOUBLE, "def main(): print(2 * float(input()))\nif __name__ == '__main__': main()"),
        (HELPED, "def undo(x): return x // 2"),
        (HELPED, "def undo(x):\n    return next(y for y in range(99) if twice(y) == x)"),
        (HELPED, "def twice(x): return x / 0\ndef undo(x): return math.floor(x / 2)"),
    ],
)
def test_right_programs_pass_every_way(any_way, task, code):
    result = grade(task, code, any_way)
    assert (result.verdict, result.detail) == ("passed", "")
    assert 0 < result.seconds < 10


@pytest.mark.parametrize(
    "task, code, verdict, detail",
    [
        (PAIR, "def swap(a, b): return a, b", "wrong_answer", 'test 1 of 2: returned {"tuple": [1'),
        (PAIR, "def swap(a, b): return [b, a]", "wrong_answer", "test 1 of 2"),
        (PAIR, "def swap(a, b): return a", "wrong_answer", "test 1 of 2: returned 1"),
        (PAIR, "def swap(a, b): a + b", "runtime_error", "TypeError: unsupported"),
        (PAIR, "def swop(a, b): return b, a", "runtime_error", "NameError: the answer does not"),
        (PAIR, "def swap(a, b) return b, a", "runtime_error", "SyntaxError: "),
        (PAIR, "def swap(a, b): return (x for x in (b, a))", "bad_output", "TypeError: generator"),
        (PAIR, "def swap(a): return a", "runtime_error", "TypeError: swap()"),
        (PAIR, "raise SystemExit", "runtime_error", "SystemExit"),
        (DOUBLE, "print(4)", "wrong_answer", "test 2 of 2: printed otherwise"),
        (DOUBLE, "print(1 / 0)", "runtime_error", "ZeroDivisionError: division by zero"),
        (DOUBLE, "print(4 if input() == '2' else 10)\nexit(1)", "runtime_error", "status 1"),
        (DOUBLE, "print(undefined)", "runtime_error", "NameError: name 'undefined'"),
        (DOUBLE, "x = [0] * 10**9", "memory", "MemoryError"),
        (HELPED, "def undo(x): return x", "wrong_answer", "AssertionError"),
        (HELPED, "def undo(x): pass", "wrong_answer", "AssertionError"),
        (HELPED, "x = 1", "runtime_error", "NameError: the answer does not define undo"),
        (HELPED, "def undo(x): return [].pop()", "runtime_error", "IndexError: pop from empty"),
        (HELPED, "def undo(x): return len", "bad_output", "builtin_function_or_method"),
    ],
)
def test_wrong_programs_get_a_verdict_and_a_reason(sandbox, task, code, verdict, detail):
    result = grade(task, code, sandbox)
    assert result.verdict == verdict, result
    assert detail in result.detail
    assert "\n" not in result.detail
    assert result.verdict in grading.VERDICTS


def test_calls_do_not_see_each_others_arguments(sandbox):
    shared = [1]
    task = Task(
        id="own arguments",
        statement="",
        starter_code="def grow(xs):",
        entry_point="grow",
        tests=(CallTest((shared,), [1, 1]), CallTest((shared,), [1, 1])),
    )
    assert grade(task, "def grow(xs): xs.append(1); return xs", sandbox).passed
    assert shared == [1]


def test_time_counts_for_all_tests_together(sandbox):
    task = Task(id="slow", statement="", tests=(StdinTest("", "1"),) * 3)
    limits = {"protocol": Protocol(seconds=0.9), "memory_mb": 400, "sandbox": sandbox}
    slow = "import time\ntime.sleep(0.5)\nprint(1)"
    result = grading.grade_program(task, slow, **limits)
    assert result.verdict == "timeout"
    assert 0.9 <= result.seconds < 3


def test_time_is_given_for_each_test_too(sandbox):
    task = Task(id="naps", statement="", tests=(StdinTest("", "1"),) * 3)
    nap = "import time\ntime.sleep(0.5)\nprint(1)"
    how = {"memory_mb": 400, "sandbox": sandbox}
    assert Protocol(seconds=5.0, seconds_per_test=7.0).budget(3) == 26.0
    enough = Protocol(seconds=0.0, seconds_per_test=4.0)
    assert grading.grade_program(task, nap, protocol=enough, **how).passed
    capped = Protocol(seconds=0.0, seconds_per_test=4.0, seconds_each=0.25)
    result = grading.grade_program(task, nap, protocol=capped, **how)
    assert result.verdict == "timeout"
    assert result.seconds < 3  # Of twelve that all tests have together.


def test_time_for_each_call_starts_anew(sandbox):
    calls = (CallTest((1,), 1),) * 4
    task = Task(id="calls", statement="", starter_code="def f(x):", entry_point="f", tests=calls)
    nap = "import time\ndef f(x):\n    time.sleep({} if x == 1 else 0)\n    return x"
    how = {"memory_mb": 400, "sandbox": sandbox}
    protocol = Protocol(seconds=20.0, seconds_each=0.8)
    assert grading.grade_program(task, nap.format(0.3), protocol=protocol, **how).passed
    result = grading.grade_program(task, nap.format(1.5), protocol=protocol, **how)
    assert (result.verdict, result.detail) == ("timeout", "no answer in time")


def test_output_as_long_as_the_expected_one_is_let_through(sandbox):
    size = OUTPUT_LIMIT + 1000
    long = Task(id="long", statement="", tests=(StdinTest("", "x" * size),))
    assert grade(long, f"print('x' * {size})", sandbox).passed
    short = Task(id="short", statement="", tests=(StdinTest("", "x"),))
    assert grade(short, f"print('x' * {size})", sandbox).verdict == "output_limit"


def test_check_that_never_ends_is_stopped(sandbox):
    task = Task(
        id="endless",
        statement="",
        starter_code="def f():",
        entry_point="f",
        check_source="def check(candidate):\n    while candidate(): pass\n    while True: pass\n",
    )
    limits = {"protocol": Protocol(seconds=0.5), "memory_mb": 400, "sandbox": sandbox}
    result = grading.grade_program(task, "def f(): return 0", **limits)
    assert (result.verdict, result.detail) == ("timeout", "checking the results took too long")


def test_many_keep_their_order_and_equal_programs_run_once(sandbox, monkeypatch):
    runs = []
    original = grading.grade_program

    def counted(task, code, **limits):
        runs.append((task.id, code, threading.current_thread().name))
        return original(task, code, **limits)

    monkeypatch.setattr(grading, "grade_program", counted)
    right, wrong = fenced("print(2 * int(input()))"), fenced("print(4)")
    completions = [right, wrong, "no program", right, fenced("def swap(a, b): return b, a"), right]
    tasks = [DOUBLE, DOUBLE, DOUBLE, DOUBLE, PAIR, DOUBLE]
    done: dict[int, grading.Grade] = {}
    grades = grading.grade_many(
        tasks, completions, sandbox=sandbox, workers=2, **LIMITS,
        on_grade=lambda places, grade: done.update(dict.fromkeys(places, grade)),
    )  # fmt: skip
    verdicts = [result.verdict for result in grades]
    assert verdicts == ["passed", "wrong_answer", "no_code", "passed", "passed", "passed"]
    assert len(runs) == 4
    assert [done[place] for place in range(6)] == grades


def test_same_program_for_two_tasks_runs_for_both(sandbox):
    other = Task(id="other", statement="", tests=(StdinTest("2\n", "5\n"),))
    text = fenced("print(2 * int(input()))")
    grades = grading.grade_many([DOUBLE, other], [text] * 2, sandbox=sandbox, workers=2, **LIMITS)
    assert [result.verdict for result in grades] == ["passed", "wrong_answer"]


def test_unequal_numbers_are_refused(sandbox):
    with pytest.raises(ValueError, match="1 tasks and 2 completions"):
        grading.grade_many([PAIR], ["a", "b"], sandbox=sandbox, workers=1, **LIMITS)


def test_broken_sandbox_is_an_error_and_not_a_verdict(sandbox):
    limits = {"protocol": Protocol(seconds=5.0), "memory_mb": 8, "sandbox": sandbox, "workers": 2}
    with pytest.raises(RuntimeError, match="did not start"):
        grading.grade_many([PAIR] * 3, [fenced(f"x = {n}") for n in range(3)], **limits)
