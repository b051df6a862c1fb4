"""Tests of what is said about the best of many: where there is nothing, nothing is found."""

import numpy as np
import pytest
from scipy import stats

from jssd.evals import passk, selection

HOW = {"resamples": 400, "seed": 0}
NO_VERDICT = "not distinguishable"


def null_grid(seed: int, cells: int = 20, problems: int = 60, n: int = 4) -> np.ndarray:
    """Cells that are all alike: each problem has one pass rate, and each cell its own luck."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.5, 0.5, problems)
    return rng.binomial(n, rates, size=(cells, problems)) / n


def test_the_better_cell_is_found_and_keeps_its_score():
    grid = np.array([[0.1, 0.2] * 20, [0.6, 0.7] * 20, [0.3, 0.4] * 20])
    found = selection.best(grid, grid[0], **HOW)
    assert (found.cell, found.choices) == (1, (1, 1))
    assert found.bare == pytest.approx(0.65)
    assert found.held_out.value == pytest.approx(0.65)
    assert found.held_out_difference is not None
    assert found.held_out_difference.value == pytest.approx(0.5)
    assert found.held_out_difference.verdict == "better"
    assert found.p_value == pytest.approx(1 / 401)


def test_each_half_is_scored_where_the_other_half_looked():
    # Cell 0 is right on every problem of one half and cell 1 on the other: each half chooses the
    # cell that is wrong everywhere else.
    order = np.random.default_rng(7).permutation(10)
    grid = np.zeros((2, 10))
    grid[0, order[:5]], grid[1, order[5:]] = 1, 1
    fit = selection.cross_fit(grid, seed=7)
    assert fit.choices == (0, 1)
    assert fit.values.tolist() == [0] * 10
    assert grid[0].mean() == 0.5  # Bare.


def test_best_of_twenty_alike_is_too_high_bare_and_right_held_out():
    bare, held_out = [], []
    for seed in range(150):
        rates = np.random.default_rng(seed).beta(0.5, 0.5, 60).mean()
        found = selection.best(null_grid(seed), resamples=20, seed=seed)
        bare.append(found.bare - rates)
        held_out.append(found.held_out.value - rates)
    error = np.std(held_out) / np.sqrt(len(held_out))
    assert np.mean(bare) > 0.03
    assert abs(np.mean(held_out)) < 3 * error < 0.01


def test_best_of_twenty_alike_does_not_look_significant():
    alarms, naive = 0, 0
    for seed in range(150):
        grid = null_grid(seed, cells=21)
        found = selection.best(grid[1:], grid[0], resamples=200, seed=seed)
        assert found.p_value is not None
        alarms += found.p_value < 0.05
        chosen = grid[1 + found.cell]
        naive += passk.paired_difference(chosen, grid[0], resamples=200, seed=seed).p_value < 0.05
    assert alarms / 150 < 0.09
    assert naive / 150 > 0.15  # What a table without this module would say.


def test_held_out_gain_of_alike_cells_is_rarely_significant():
    found = [
        selection.best(grid[1:], grid[0], resamples=200, seed=seed).held_out_difference
        for seed in range(150)
        for grid in [null_grid(seed, cells=21)]
    ]
    assert np.mean([gap is not None and gap.verdict != NO_VERDICT for gap in found]) < 0.09


def test_simultaneous_intervals_hold_all_at_once():
    all_hold, best_bare_holds = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = 0.5
        grid = np.clip(rng.normal(truth, 0.2, (12, 80)), 0, 1)
        found = selection.simultaneous(grid, resamples=300, seed=seed)
        all_hold += all(e.low <= truth <= e.high for e in found)
        top = grid[np.argmax(grid.mean(axis=1))]
        bare = passk.mean_interval(top, resamples=300, seed=seed)
        best_bare_holds += bare.low <= truth <= bare.high
    assert 0.91 <= all_hold / 200 <= 0.99
    assert best_bare_holds / 200 < 0.85  # An ordinary interval of the best cell is too narrow.


def test_one_cell_needs_no_adjustment():
    rng = np.random.default_rng(1)
    gaps = rng.normal(0.05, 0.2, 60)
    ours = selection.adjusted_p(gaps[None], resamples=20_000, seed=0)[0]
    reference = stats.permutation_test(
        (gaps,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert 0.01 < reference < 0.5
    assert ours == pytest.approx(reference, abs=0.01)
    interval = selection.simultaneous(gaps[None], resamples=20_000, seed=0)[0]
    half = stats.norm.ppf(0.975) * stats.sem(gaps)
    assert interval.high - interval.value == pytest.approx(half, rel=0.05)


def test_independent_cells_are_adjusted_as_sidak_says():
    rng = np.random.default_rng(3)
    gaps = rng.normal(0, 1, (10, 400))
    gaps[0] += 0.13
    single = selection.adjusted_p(gaps[:1], resamples=20_000, seed=0)[0]
    adjusted = selection.adjusted_p(gaps, resamples=20_000, seed=0)[0]
    assert adjusted == pytest.approx(1 - (1 - single) ** 10, abs=0.02)
    # Ten copies of one cell are one cell.
    copies = np.repeat(gaps[:1], 10, axis=0)
    assert selection.adjusted_p(copies, resamples=20_000, seed=0)[0] == pytest.approx(single)


def test_cells_without_any_spread_are_no_trouble():
    grid = np.array([[0.0] * 8, [1.0] * 8])
    assert selection.simultaneous(grid, **HOW) == [
        passk.Estimate(0, 0, 0),
        passk.Estimate(1, 1, 1),
    ]
    assert selection.adjusted_p(np.zeros((2, 8)), **HOW).tolist() == [1, 1]


def test_same_seed_same_result_and_chunks_do_not_show(monkeypatch):
    grid = null_grid(0)
    first = selection.best(grid, grid[3], resamples=200, seed=5)
    monkeypatch.setattr(selection, "_CHUNK", 600)
    again = selection.best(grid, grid[3], resamples=200, seed=5)
    assert (again.held_out, again.p_value) == (first.held_out, first.p_value)
    assert again.simultaneous.low == pytest.approx(first.simultaneous.low)  # Sums in other order.


@pytest.mark.parametrize("grid", [[0.1, 0.2], [[0.1], [0.2]], np.zeros((0, 4))])
def test_what_is_no_grid_is_refused(grid):
    with pytest.raises(ValueError, match="must be cells by problems"):
        selection.best(grid, resamples=10, seed=0)


def test_baseline_of_other_problems_is_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        selection.best(np.zeros((2, 4)), np.zeros(3), resamples=10, seed=0)
