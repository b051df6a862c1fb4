"""Means over rows that can be checked in the head."""

import pytest

from jssd.analysis import panels


def view(tail, top_mass, entropies, entropy=0.5):
    return {
        "entropy": entropy, "logprob": -0.1, "tail_mass": tail, "head_entropy": 0.25, "support": 2,
        "top_mass": top_mass, "eval_supports": [1, 2], "eval_entropies": entropies,
        "candidates": [[1, 0.5]],
        "loss": {"cross_entropy": 1.0, "compression": tail, "reshaping": 0.0, "alignment": 0.0,
                 "constant": 1.0},
    }  # fmt: skip


def token(kind, base, student):
    return {"token": 1, "kind": kind, "base": base, "student": student}


@pytest.fixture
def completions():
    lock = token("lock", view(0.2, 0.9995, [0.0, 0.2]), view(0.1, 0.9999, [0.0, 0.4]))
    fork = token("fork", view(0.6, 0.96, [1.0, 2.0]), view(0.2, 0.985, [1.5, 3.0]))
    curve = lambda x: {"base": [x, 1.0], "student": [0.9, 1.0]}
    return [
        {"tokens": [lock, lock, fork], "mass_by_rank": curve(0.4)},
        {"tokens": [lock], "mass_by_rank": curve(0.8)},
    ]


@pytest.fixture
def summary(completions):
    return panels.summarise(completions, temperatures=(0.4, 1.4), resamples=100)


def test_means_are_over_tokens_of_a_kind(summary):
    assert (summary["completions"], summary["tokens"]) == (2, 4)
    kinds = summary["kinds"]
    assert {kind: row["tokens"] for kind, row in kinds.items()} == {"all": 4, "lock": 3, "fork": 1}
    assert kinds["lock"]["base"]["tail_mass"] == pytest.approx(0.2)
    assert kinds["all"]["base"]["tail_mass"] == pytest.approx((3 * 0.2 + 0.6) / 4)
    assert kinds["fork"]["kept_mass"] == pytest.approx(0.8)
    assert kinds["all"]["student"]["loss"]["compression"] == pytest.approx((3 * 0.1 + 0.2) / 4)


def test_differences_are_over_completions(summary):
    gaps = summary["differences"]
    # The first completion's mean moves from 1/3 to 0.4/3, the second's from 0.2 to 0.1.
    assert gaps["all"]["tail_mass"]["value"] == pytest.approx((-0.2 - 0.1) / 2)
    assert gaps["fork"]["tail_mass"]["value"] == pytest.approx(-0.4)  # One completion has forks.
    low, high = gaps["all"]["tail_mass"]["low"], gaps["all"]["tail_mass"]["high"]
    assert low == pytest.approx(-0.2) and high == pytest.approx(-0.1)


def test_panels(summary):
    found = summary["panels"]
    assert found["temperatures"] == [0.4, 1.4]
    assert found["mass_by_rank"]["base"] == pytest.approx([(3 * 0.4 + 0.8) / 4, 1.0])
    assert found["supports"]["base"] == [1, 2]
    assert found["entropies"]["student"] == pytest.approx([1.5 / 4, (3 * 0.4 + 3) / 4])
    base, student = (found["by_top_mass"][model] for model in ("base", "student"))
    assert [row["tokens"] for row in base] == [3, 0, 0, 0, 1, 0]
    assert [row["tokens"] for row in student] == [3, 0, 0, 1, 0, 0]
    assert base[4]["entropies"] == [1.0, 2.0] and base[1]["entropies"] is None


def test_a_kind_that_does_not_occur_is_left_out(completions):
    summary = panels.summarise(completions[1:], temperatures=(0.4, 1.4), resamples=100)
    assert list(summary["kinds"]) == list(summary["differences"]) == ["all", "lock"]
