"""The best cell of a grid, honestly: what is left of it when it was chosen by its own score.

The largest of many noisy scores is too large. So a best cell comes with two figures: one of
problems that had no say in the choice (`cross_fit`), and an interval that holds for all cells at
once, whichever is picked (`simultaneous`). Against a baseline its p-value is that of the best of so
many cells (`adjusted_p`). A grid is float64 [C, P]: cells by problems, the same problems in each.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from jssd.evals.passk import Difference, Estimate, mean_interval, paired_difference

# Numbers made at once in resampling; bounds memory.
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class CrossFit:
    """Scores of a choice on problems that did not take part in it.

    Attributes:
      values: float64 [P], of each problem the score of the cell that the other half chose.
      choices: the two cells chosen, by the first and by the second half.
    """

    values: np.ndarray
    choices: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Best:
    """The best cell of a grid and what the choice does to its score.

    Attributes:
      cell: its place in the grid; of several as good, the first.
      bare: its mean, too high by the luck that made it the best.
      held_out: mean and interval of `cross_fit`: what choosing like this is worth.
      choices: the cells that the two halves chose.
      simultaneous: `bare` with an interval that allows for the choice.
      p_value: of "no cell differs from the baseline", two-sided, for this cell as the best of all;
        None without a baseline.
      held_out_difference: of `cross_fit` minus the baseline; None without one.
    """

    cell: int
    bare: float
    held_out: Estimate
    choices: tuple[int, int]
    simultaneous: Estimate
    p_value: float | None = None
    held_out_difference: Difference | None = None


def best(
    grid_CP: Sequence | np.ndarray,
    baseline_P: Sequence | np.ndarray | None = None,
    *,
    resamples: int,
    seed: int,
) -> Best:
    """The best cell by its mean over problems, never bare.

    `baseline_P` is a score per problem that was not chosen from the grid. Raises ValueError for
    fewer than two problems, or a baseline of other problems.
    """
    grid_CP = _grid(grid_CP)
    at = int(np.argmax(grid_CP.mean(axis=1)))
    fit = cross_fit(grid_CP, seed=seed)
    how = {"resamples": resamples, "seed": seed}
    found = Best(
        cell=at,
        bare=float(grid_CP[at].mean()),
        held_out=mean_interval(fit.values, **how),
        choices=fit.choices,
        simultaneous=simultaneous(grid_CP, **how)[at],
    )
    if baseline_P is None:
        return found
    difference = paired_difference(fit.values, baseline_P, **how)  # Checks that they pair up.
    return dataclasses.replace(
        found,
        p_value=float(adjusted_p(grid_CP - np.asarray(baseline_P, np.float64), **how)[at]),
        held_out_difference=difference,
    )


def cross_fit(grid_CP: Sequence | np.ndarray, *, seed: int) -> CrossFit:
    """Splits the problems in two by chance; each half is scored at the cell the other half chose.

    The mean of `values` is an honest estimate of what choosing among these cells gives on new
    problems, with half as many to choose by.
    """
    grid_CP = _grid(grid_CP)
    num_problems = grid_CP.shape[1]
    order = np.random.default_rng(seed).permutation(num_problems)
    first, second = order[: num_problems // 2], order[num_problems // 2 :]
    chosen = [int(np.argmax(grid_CP[:, half].mean(axis=1))) for half in (first, second)]
    values = np.empty(num_problems)
    values[second], values[first] = grid_CP[chosen[0], second], grid_CP[chosen[1], first]
    return CrossFit(values, (chosen[0], chosen[1]))


def simultaneous(grid_CP: Sequence | np.ndarray, *, resamples: int, seed: int) -> list[Estimate]:
    """Each cell's mean with an interval; 95 times in 100 they all hold at once, the best one too.

    Mean +- q standard errors, where q is the 95th percentile of the largest studentised deviation
    of any cell when problems are resampled (the max-t bootstrap; Romano and Wolf, 2005). A cell
    whose problems all agree has no width. Never beyond the smallest and largest score.
    """
    grid_CP = _grid(grid_CP)
    mean_C = grid_CP.mean(axis=1)
    error_C = grid_CP.std(axis=1, ddof=1) / np.sqrt(grid_CP.shape[1])
    varies_C = error_C > 1e-12
    rng = np.random.default_rng(seed)
    size = grid_CP.shape[1]
    largest = [np.zeros(1)]
    for count in _chunks(resamples, size):
        weights_RP = rng.multinomial(size, np.full(size, 1 / size), size=count) / size
        off_RC = np.abs(weights_RP @ grid_CP[varies_C].T - mean_C[varies_C]) / error_C[varies_C]
        largest.append(off_RC.max(axis=1, initial=0))
    q = float(np.percentile(np.concatenate(largest[1:]), 95))
    low_C = np.maximum(mean_C - q * error_C, grid_CP.min())
    high_C = np.minimum(mean_C + q * error_C, grid_CP.max())
    return [Estimate(*map(float, row)) for row in zip(mean_C, low_C, high_C)]


def adjusted_p(gaps_CP: Sequence | np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Two-sided p-value of each cell's mean gap, allowing for the number of cells; float64 [C].

    Gaps are cell minus baseline by problem. If no cell differed from the baseline, a problem's gaps
    could as well all have had the other sign: p is the share of such sign patterns in which any
    cell is as far from 0, in its own units, as this one (single-step max-t; Westfall and Young,
    1993). Below 0.05 for any cell in no more than 5 of 100 grids without an effect.
    """
    gaps_CP = _grid(gaps_CP)
    scale_C = np.sqrt((gaps_CP**2).sum(axis=1))  # The same for every sign pattern.
    unit_CP = gaps_CP / np.where(scale_C > 0, scale_C, 1)[:, None]
    seen_C = np.abs(unit_CP.sum(axis=1)) - 1e-9  # Equal sums in another order count as equal.
    rng = np.random.default_rng(seed)
    num_as_far_C = np.zeros(len(gaps_CP))
    for count in _chunks(resamples, gaps_CP.shape[1]):
        signs_RP = rng.integers(2, size=(count, gaps_CP.shape[1])) * 2.0 - 1
        largest_R = np.abs(signs_RP @ unit_CP.T).max(axis=1)
        num_as_far_C += (largest_R[:, None] >= seen_C).sum(axis=0)
    # The observed pattern counts as one of them, so that p is never 0.
    return (num_as_far_C + 1) / (resamples + 1)


def _grid(grid_CP) -> np.ndarray:
    grid_CP = np.asarray(grid_CP, np.float64)
    if grid_CP.ndim != 2 or grid_CP.shape[0] < 1 or grid_CP.shape[1] < 2:
        raise ValueError(
            f"shape {grid_CP.shape} must be cells by problems, at least one cell and two problems."
        )
    return grid_CP


def _chunks(resamples: int, size: int) -> Iterator[int]:
    step = max(1, _CHUNK // size)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
