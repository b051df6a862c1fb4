"""pass@1 under a law that nothing was drawn from, from graded completions drawn under other laws.

Importance sampling with the balance heuristic (Veach and Guibas, 1995): completions of one problem,
drawn from several laws, are taken as drawn from the mixture of them. A completion's weight is its
probability under the target over that under the mixture; a problem's score is the weighted share of
right ones. Weights are products over a completion's tokens, so this reaches as far as the target is
near to a law that was drawn, and less far the longer completions are. How far is measured: see
`Prediction`.

One thing no measure on drawn completions shows: if the target is wider than every drawn law
(hotter, or cut less), the weights of what was drawn look even, while what would weigh most is
missing. Such a prediction leans to the drawn laws. Whoever calls this knows the laws and has to say
so.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

from jssd.evals.passk import Estimate, mean_interval

# Below so many effective completions a problem the share of right ones is mostly that of the laws
# drawn from, whatever the target; the interval does not show this bias. A rule of thumb.
MIN_EFFECTIVE = 4.0
_LOG_LIMIT = 600.0  # Of a weight, for `covered`: its sum over completions must stay finite.


@dataclasses.dataclass(frozen=True)
class Prediction:
    """pass@1 estimated for a target law.

    Attributes:
      pass_at_1: mean over the problems reached, with the bootstrap interval over them, which also
        holds the noise of the weights but no bias.
      effective: completions a problem that would tell as much if drawn from the target itself,
        (sum w)^2 / sum w^2, averaged over problems; 0 where none could have come from it.
      drawn: completions a problem that there are.
      reached: share of problems with a completion that the target could have drawn.
      covered: mean weight. In expectation the probability that the target gives to completions
        which the drawn laws could draw: 1, or less where they are truncated more tightly. Far off
        1: too few completions for so far a target.
    """

    pass_at_1: Estimate
    effective: float
    drawn: float
    reached: float
    covered: float

    @property
    def enough(self) -> bool:
        """Whether the measures give no reason for doubt; a drawn law must be as wide as the
        target besides."""
        return self.effective >= MIN_EFFECTIVE and self.reached == 1 and abs(self.covered - 1) < 0.5


def predict(
    problems_S: Sequence | np.ndarray,
    right_S: Sequence | np.ndarray,
    target_S: Sequence | np.ndarray,
    drawn_JS: Sequence | np.ndarray,
    law_S: Sequence | np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> Prediction:
    """Estimates pass@1 of a target law from S completions drawn under J laws.

    Args:
      problems_S: which problem each answers; anything that compares.
      right_S: whether it passed.
      target_S: natural logarithm of its probability under the target; -inf where that is 0.
      drawn_JS: the same under each law that completions were drawn from.
      law_S: the law, 0 to J-1, that it was drawn from.

    Raises:
      ValueError: shapes that do not fit, or no problem that the target reaches.
    """
    right_S, target_S = np.asarray(right_S, np.float64), np.asarray(target_S, np.float64)
    drawn_JS, law_S = np.asarray(drawn_JS, np.float64), np.asarray(law_S)
    names_P, at_S = np.unique(np.asarray(problems_S), return_inverse=True)
    size, num_laws = right_S.size, len(drawn_JS)
    shapes = {x.shape for x in (right_S, target_S, law_S, at_S, *drawn_JS)}
    if not size or not num_laws or shapes != {(size,)}:
        raise ValueError(f"shapes {shapes} must all be ({size},), one number per completion.")
    count_JP = np.zeros((num_laws, names_P.size))
    np.add.at(count_JP, (law_S, at_S), 1)
    share_JP = count_JP / count_JP.sum(axis=0)
    mixture_S = np.asarray(special.logsumexp(drawn_JS, axis=0, b=share_JP[:, at_S]))
    # A completion that rounding puts outside every law it was drawn from tells nothing.
    known_S = mixture_S > -np.inf
    log_S = np.where(known_S, target_S - np.where(known_S, mixture_S, 0), -np.inf)
    weight_S = np.exp(np.minimum(log_S, _LOG_LIMIT))

    def summed(values_S):
        return np.bincount(at_S, values_S, minlength=names_P.size)

    reached_P = summed(weight_S) > 0
    if not reached_P.any():
        raise ValueError("no stored completion could have been drawn by the target law.")
    # Scaled by each problem's largest weight, so that sums of squares stay within float64.
    top_P = np.full(names_P.size, -np.inf)
    np.maximum.at(top_P, at_S, log_S)
    scaled_S = np.exp(log_S - np.where(reached_P, top_P, 0)[at_S])
    with np.errstate(invalid="ignore"):
        value_P = summed(scaled_S * right_S) / summed(scaled_S)
        effective_P = np.where(reached_P, summed(scaled_S) ** 2 / summed(scaled_S**2), 0)
    return Prediction(
        pass_at_1=mean_interval(value_P[reached_P], resamples=resamples, seed=seed),
        effective=float(effective_P.mean()),
        drawn=size / names_P.size,
        reached=float(reached_P.mean()),
        covered=float((summed(weight_S) / count_JP.sum(axis=0)).mean()),
    )
