"""pass@k with its uncertainty: the unbiased estimator, intervals over problems, paired comparisons.

The problems are the sample: intervals say how far the mean could move with other problems of the
same kind, given the completions drawn. Everything random is seeded.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Numbers = np.ndarray | np.number | Sequence[float | int] | float | int

# Draws made at once in resampling; bounds memory for thousands of problems.
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over problems and its 95 percent interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of student minus base by problem, its 95 percent interval and a two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "not distinguishable".

        One of the first two only when the interval leaves out 0 and the p-value is below 0.05.
        """
        if self.p_value >= 0.05 or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "better" if self.value > 0 else "worse"


def pass_at_k(n: Numbers, c: Numbers, k: int) -> np.ndarray:
    """Chance that `k` of `n` samples, drawn without replacement, hold one of the `c` right ones.

    1 - C(n-c, k) / C(n, k), for each pair of `n` and `c` (broadcast); float64. Unbiased for pass@k
    of the law the samples came from (Chen et al., 2021). Raises ValueError unless 1 <= k <= n and
    0 <= c <= n.
    """
    n, c = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    if k < 1 or np.any(n < k):
        raise ValueError(f"k={k} must be between 1 and the samples per problem. Draw more samples.")
    if np.any(c < 0) or np.any(c > n):
        raise ValueError("c, the right samples of a problem, must be between 0 and n.")
    misses = (n - c)[..., None] - np.arange(k)
    shares = np.maximum(misses, 0) / (n[..., None] - np.arange(k))
    return np.asarray(1.0 - np.prod(shares, axis=-1))


def by_problem(rows: Sequence[Mapping[str, Any]], k: int) -> np.ndarray:
    """pass@k of each of `rows` with its `id`, `n` drawn and `c` right, by id; float64 [P]."""
    n, c = np.array([[row["n"], row["c"]] for row in sorted(rows, key=lambda row: row["id"])]).T
    return pass_at_k(n, c, k)


def mean_interval(values: Numbers, *, resamples: int, seed: int) -> Estimate:
    """Mean of one value per problem, with the percentile bootstrap interval over problems."""
    values = _one_per_problem(values)
    low, high = _interval(values, resamples, np.random.default_rng(seed))
    return Estimate(float(values.mean()), low, high)


def paired_difference(student: Numbers, base: Numbers, *, resamples: int, seed: int) -> Difference:
    """Student minus base, one value per problem each, in the same order of problems.

    The interval is a percentile bootstrap over problems. The p-value is the paired sign-flip
    permutation test: if neither were better, each problem's difference could as well have had the
    other sign. All sign patterns are tried when they are no more than `resamples`, else as many
    random ones. Raises ValueError for sequences of unequal length.
    """
    student, base = _one_per_problem(student), _one_per_problem(base)
    if student.shape != base.shape:
        raise ValueError(
            f"{student.size} problems of the student and {base.size} of the base cannot be paired. "
            "Score both on the same problems."
        )
    gaps = student - base
    rng = np.random.default_rng(seed)
    low, high = _interval(gaps, resamples, rng)
    return Difference(float(gaps.mean()), low, high, _sign_flip_p(gaps, resamples, rng))


def _one_per_problem(values: Numbers) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"shape {array.shape} must be one value per problem, at least one.")
    return array


def _interval(values: np.ndarray, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    if values.size == 1:  # No other problem could have been drawn.
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _CHUNK // values.size),
        method="percentile",
        rng=rng,
    ).confidence_interval
    return float(found.low), float(found.high)


def _sign_flip_p(gaps: np.ndarray, resamples: int, rng: np.random.Generator) -> float:
    gaps = gaps[gaps != 0]  # Flipping a zero changes nothing.
    if gaps.size < 2:  # A single one is as far either way; SciPy would refuse it.
        return 1.0
    found = stats.permutation_test(
        (gaps,),
        np.sum,
        permutation_type="samples",
        n_resamples=resamples,
        batch=max(1, _CHUNK // gaps.size),
        rng=rng,
    )
    return float(found.pvalue)
