"""Tests of runs set side by side: pooled seeds, paired differences, and what isn't comparable."""

import json

import numpy as np
import pytest

from jssd.evals import arms, passk, selection

HOW = {"resamples": 500, "seed": 0}


def write(workdir, model, right, *, n=4, decode=None, told="ten problems", name="t0.8"):
    """A folder's scores with `right` of `n` answers passed, by problem."""
    folder = workdir / "eval" / "functions" / name / model
    folder.mkdir(parents=True)
    rows = [{"id": f"p{i}", "n": n, "c": int(c)} for i, c in enumerate(right)]
    scores = {
        "n": n,
        "told": told,
        "protocol": {"extraction": "last_fence"},
        "decode": decode or {"name": name, "temperature": 0.8, "models": [model]},
        "pass_at": {"1": {}, "2": {}},
        "per_problem": rows[::-1],  # The order of a file says nothing.
    }
    (folder / "scores.json").write_text(json.dumps(scores))


BASE = np.array([0, 1, 2, 2, 1, 0, 3, 1, 2, 0])
RAW = [np.array([4, 1, 4, 3, 1, 1, 4, 2, 2, 0]), np.array([3, 1, 4, 4, 1, 0, 4, 2, 3, 1])]
NULL = np.array([0, 2, 2, 1, 1, 0, 3, 2, 2, 0])


@pytest.fixture
def runs(tmp_path):
    for seed, right in enumerate(RAW):
        write(tmp_path / "raw" / f"seed-{seed}", "student", right)
        write(tmp_path / "raw" / f"seed-{seed}", "base", BASE)
    write(tmp_path / "null", "student", NULL)
    return tmp_path


def test_arms_are_pooled_and_paired(runs):
    one, two = arms.compare([runs / "raw", runs / "null"], **HOW)
    assert (one["k"], two["k"], one["problems"]) == (1, 2, 10)
    raw_P = np.mean([passk.pass_at_k(4, c, 1) for c in RAW], axis=0)
    null_P, base_P = NULL / 4, BASE / 4
    assert one["base"]["value"] == pytest.approx(base_P.mean())
    assert (one["base"]["seeds"], one["arms"]["null"]["seeds"]) == (2, 1)
    assert one["arms"]["raw"]["value"] == pytest.approx(raw_P.mean())
    gap = one["arms"]["raw"]["minus_base"]
    expected = passk.paired_difference(raw_P, base_P, **HOW)
    assert (gap["value"], gap["low"], gap["high"]) == (expected.value, expected.low, expected.high)
    p_values = selection.adjusted_p([raw_P - base_P, null_P - base_P], **HOW)
    assert [arm["minus_base"]["p_value"] for arm in one["arms"].values()] == list(p_values)
    assert one["arms"]["raw"]["minus_first"] is None
    other = one["arms"]["null"]["minus_first"]
    assert other["value"] == pytest.approx((null_P - raw_P).mean())
    assert two["arms"]["null"]["value"] == pytest.approx(passk.pass_at_k(4, NULL, 2).mean())


def test_the_command_prints_tables_or_json(runs, capsys):
    folders = [str(runs / "raw"), str(runs / "null")]
    assert arms.main(folders) == 0
    text = capsys.readouterr().out
    assert "| base | 2 | 30.0 [" in text and "| null | 1 | 32.5 [" in text and "+2.5 [" in text
    assert text.strip().endswith("Say before looking which one counts.") and "2 tables" in text
    assert arms.main([*folders, "--json", "--resamples=100"]) == 0
    assert [row["k"] for row in json.loads(capsys.readouterr().out)] == [1, 2]


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"n": 2, "right": NULL // 2}, "n is 4 and 2"),
        ({"told": "nine problems", "right": NULL}, "told is"),
        ({"decode": {"name": "t0.8", "temperature": 1.0}, "right": NULL}, "decode is"),
        ({"right": NULL[:9]}, "different problems"),
        ({"name": "greedy", "right": NULL}, "in common"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(runs, capsys, other, complaint):
    write(runs / "other", "student", **other)
    assert arms.main([str(runs / "raw"), str(runs / "other")]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_a_base_and_students_must_be_there(runs, capsys):
    assert arms.main([str(runs / "null")]) == 2
    assert "no folder holds scores of a base" in capsys.readouterr().err
    assert arms.main([str(runs / "raw"), str(runs / "empty")]) == 2
    assert "holds no scores of a student" in capsys.readouterr().err
