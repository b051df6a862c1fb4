"""Verdicts that outlive the process that was asked for them."""

import json

import pytest

from jssd import survival
from jssd.evals.benchmarks import StdinTest, Task
from jssd.stages import verdicts
from tests.data.filters_test import sample

TASK = Task(id="double", statement="", tests=(StdinTest("2\n", "4\n"),))
PROGRAMS = [f"print({n})" for n in (4, 5, 6, 7, 8, 9)]
DRAWN = [sample(text, n=n) for n, text in enumerate(PROGRAMS)]
NAMES = ["passed", *["wrong_answer"] * 5]


@pytest.fixture
def graded(monkeypatch):
    """The programs that were run, in the order of grading; a grade is made without a sandbox."""
    ran: list[str] = []

    def grade_program(task, code, **limits):
        ran.append(code)
        passed = code == "print(4)"
        return verdicts.Grade("passed" if passed else "wrong_answer", "" if passed else code, 0.1)

    monkeypatch.setattr(verdicts.grading, "grade_program", grade_program)
    return ran


def kept_in(folder, drawn=DRAWN, **rules) -> verdicts.Kept:
    return verdicts.Kept(folder / "eval" / "verdicts.jsonl", drawn, rules)


def grade(kept, programs=PROGRAMS, advance=lambda count: None) -> list[str]:
    found = kept.grade(
        [TASK] * len(programs), programs, advance=advance, sandbox=None, workers=1, memory_mb=1
    )
    return [one.verdict for one in found]


def stop_after(count):
    """Like SIGTERM, which is answered after `count` programs."""
    seen = [0]

    def advance(_):
        seen[0] += 1
        if seen[0] == count:
            raise survival.Stopped

    return advance


def test_what_was_graded_before_sigterm_is_not_graded_again(tmp_path, graded):
    with pytest.raises(survival.Stopped):
        grade(kept_in(tmp_path), advance=stop_after(3))
    first = set(graded)
    path = tmp_path / "eval/verdicts.jsonl.partial"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["index"] for line in lines[1:]] == [PROGRAMS.index(p) for p in graded[:3]]
    told: list[int] = []
    graded.clear()
    kept = kept_in(tmp_path)
    assert grade(kept, advance=told.append) == NAMES
    assert told[0] == 3 and sum(told) == 6
    assert len(graded) == 3 and len(first & set(graded)) <= len(first) - 3
    kept.drop()
    assert not path.exists()


@pytest.mark.parametrize("cut", [1, 20], ids=["newline", "half a line"])
def test_a_line_cut_short_is_graded_again(tmp_path, graded, cut):
    grade(kept_in(tmp_path))
    path = tmp_path / "eval/verdicts.jsonl.partial"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    graded.clear()
    assert grade(kept_in(tmp_path)) == NAMES
    assert len(graded) == 1
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize("other", [{"drawn": DRAWN[::-1]}, {"seconds": 9}])
def test_verdicts_on_others_are_not_taken(tmp_path, graded, other):
    grade(kept_in(tmp_path))
    graded.clear()
    grade(kept_in(tmp_path, **other))
    assert len(graded) == 6
