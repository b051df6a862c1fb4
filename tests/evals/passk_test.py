"""Tests of the estimator and of its uncertainty."""

import itertools

import numpy as np
import pytest

from jssd.evals import passk


def test_pass_at_1_is_the_share_of_right_samples():
    assert passk.pass_at_k([10, 10, 10], [0, 3, 10], 1).tolist() == pytest.approx([0, 0.3, 1])


def test_pass_at_k_counts_the_draws_that_hold_a_right_one():
    samples = [True, True, False, False, False, False]
    for k in range(1, 7):
        draws = list(itertools.combinations(samples, k))
        share = sum(map(any, draws)) / len(draws)
        assert passk.pass_at_k(6, 2, k) == pytest.approx(share)


def test_too_few_wrong_samples_for_k_wrong_draws_is_a_sure_pass():
    assert passk.pass_at_k(10, 6, 5) == 1.0


@pytest.mark.parametrize("n, c, k", [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), ([9, 4], 1, 5)])
def test_impossible_counts_are_refused(n, c, k):
    with pytest.raises(ValueError, match="must be between"):
        passk.pass_at_k(n, c, k)


def test_interval_of_a_constant_has_no_width():
    estimate = passk.mean_interval([0.25] * 8, resamples=100, seed=0)
    assert estimate == passk.Estimate(0.25, 0.25, 0.25)


def test_interval_is_as_wide_as_theory_says():
    values = np.repeat([0.0, 1.0], 200)  # Standard error 0.5 / sqrt(400) = 0.025.
    estimate = passk.mean_interval(values, resamples=10000, seed=1)
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_same_seed_same_interval_and_chunks_do_not_show(monkeypatch):
    values = np.random.default_rng(0).random(30)
    first = passk.mean_interval(values, resamples=500, seed=7)
    assert passk.mean_interval(values, resamples=500, seed=7) == first
    assert passk.mean_interval(values, resamples=500, seed=8) != first
    monkeypatch.setattr(passk, "_CHUNK", 100)
    assert passk.mean_interval(values, resamples=500, seed=7) == first


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(300):
        estimate = passk.mean_interval(rng.random(60), resamples=400, seed=seed)
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.90 <= hits / 300 <= 0.985


def test_sign_flip_p_value_of_few_problems_is_exact():
    # Five problems, all better by the same: 2 of 32 sign patterns are as far from 0.
    difference = passk.paired_difference([0.6] * 5, [0.4] * 5, resamples=1000, seed=0)
    assert difference.p_value == pytest.approx(2 / 32)
    assert difference.value == pytest.approx(0.2)
    assert difference.verdict == "not distinguishable"


def test_problems_without_a_difference_do_not_change_the_p_value():
    padded = passk.paired_difference([0.6] * 5 + [0.5] * 50, [0.4] * 5 + [0.5] * 50,
                                     resamples=1000, seed=0)  # fmt: skip
    assert padded.p_value == pytest.approx(2 / 32)


def test_random_and_exact_p_values_agree():
    rng = np.random.default_rng(5)
    student, base = rng.random(12) + 0.15, rng.random(12)
    exact = passk.paired_difference(student, base, resamples=2**12, seed=0).p_value
    drawn = passk.paired_difference(student, base, resamples=2**12 - 1, seed=0).p_value
    assert 0 < exact < 1
    assert drawn == pytest.approx(exact, abs=0.03)


def test_verdicts_name_the_better_side():
    rng = np.random.default_rng(2)
    base = rng.random(100)
    higher = base + rng.normal(0.2, 0.1, 100)
    noisy = base + rng.normal(0.0, 0.1, 100)
    compare = lambda a, b: passk.paired_difference(a, b, resamples=2000, seed=0)
    assert compare(higher, base).verdict == "better"
    assert compare(base, higher).verdict == "worse"
    assert compare(noisy, base).verdict == "not distinguishable"
    assert compare(base, base) == passk.Difference(0.0, 0.0, 0.0, 1.0)
    assert compare(higher, base).p_value == pytest.approx(2 / 2001)  # Both tails hold the data.


def test_false_alarms_are_rare():
    rng = np.random.default_rng(4)
    verdicts = [
        passk.paired_difference(rng.random(40), rng.random(40), resamples=300, seed=seed).verdict
        for seed in range(200)
    ]
    assert np.mean([verdict != "not distinguishable" for verdict in verdicts]) < 0.09


def test_one_problem_has_an_interval_without_width():
    found = passk.mean_interval([0.4], resamples=10, seed=0)
    assert found == passk.Estimate(0.4, 0.4, 0.4)


@pytest.mark.parametrize("values", [np.array([]), np.array([[0.5]]), 0.5])
def test_anything_but_one_value_per_problem_is_refused(values):
    with pytest.raises(ValueError, match="one value per problem"):
        passk.mean_interval(values, resamples=10, seed=0)


def test_unpaired_problems_are_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        passk.paired_difference([0.5, 0.5], [0.5], resamples=10, seed=0)


def test_one_problem_that_differs_says_nothing():
    for student, base in (([1.0], [0.0]), ([1.0, 0.5, 0.0], [0.0, 0.5, 0.0])):
        gap = passk.paired_difference(student, base, resamples=200, seed=0)
        assert gap.p_value == 1.0 and gap.verdict == "not distinguishable"
