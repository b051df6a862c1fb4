"""The paper's toy: one temperature has to serve a root, a fork and three locks (section 5.4).

A vocabulary of 16. At the root, token 0 and token 1 open one of two equal paths and all else fails;
a path is one fork and then three locks, at each of which token 0 alone is right. Teacher and
student decode with one temperature and one top_p everywhere. The student is the target of training
itself: the teacher's law at the training temperature and top_p. So nothing is trained or drawn
here, and every number is exact but for float32.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jssd.sampling import score, truncate
from jssd.sampling.request import Sampling

VOCAB_SIZE = 16
STATES = ("root", "fork", "lock")
NUM_LOCKS = 3
_OPENING = 2  # Tokens that open a path at the root.
# Per state the likeliest tokens' probabilities; what is left goes to the other twelve as a
# geometric row. The paper's tails are recovered from the entropies it states, 1.61 bits of a lock
# and 2.81 of a fork. That of the root is not known, and no published number depends on it.
HEADS = {
    "root": (0.200, 0.190, 0.329, 0.126),
    "fork": (0.148, 0.280, 0.140, 0.144),
    "lock": (0.750, 0.055, 0.050, 0.037),
}
TAIL_RATIOS = {"root": 0.65, "fork": 0.5, "lock": 0.75}


@dataclasses.dataclass(frozen=True)
class Curve:
    """Chance to pass at each temperature, [N] float64, and the best of them."""

    temperatures: np.ndarray
    success: np.ndarray

    @property
    def best(self) -> tuple[float, float]:
        """Temperature and chance where the chance is greatest."""
        at = int(self.success.argmax())
        return float(self.temperatures[at]), float(self.success[at])


def teacher() -> dict[str, np.ndarray]:
    """The teacher's law of each state, float64 [16]."""
    return {state: _with_tail(HEADS[state], TAIL_RATIOS[state]) for state in STATES}


def distil(probs: dict[str, np.ndarray], law: Sampling) -> dict[str, np.ndarray]:
    """What `law` makes of each state, float64 [16]: the student, had training fitted it exactly."""
    return {state: at(probs_V, [law])[0] for state, probs_V in probs.items()}


def at(probs_V: np.ndarray, laws: Sequence[Sampling]) -> np.ndarray:
    """What each of the N laws makes of `probs_V`, as the sampler does it; float64 [N, V]."""
    with np.errstate(divide="ignore"):
        logits_V = jnp.asarray(np.log(probs_V), jnp.float32)
    logits_NV = jnp.broadcast_to(logits_V, (len(laws), len(probs_V)))
    return np.asarray(_cut(logits_NV, score.stack(laws, len(probs_V))), np.float64)


_cut = jax.jit(lambda logits, law: jax.nn.softmax(truncate.truncate(logits, law), axis=1))


def curve(probs: dict[str, np.ndarray], temperatures: Sequence[float], top_p: float) -> Curve:
    """The chance to pass at each temperature, all states cut by `top_p`."""
    laws = [Sampling(temperature, top_p=top_p) for temperature in temperatures]
    law = {state: at(probs[state], laws) for state in STATES}
    opened = law["root"][:, :_OPENING].sum(axis=1)
    success = opened * law["fork"][:, 0] * law["lock"][:, 0] ** NUM_LOCKS
    return Curve(np.asarray(temperatures), success)


def entropy_bits(law_V: np.ndarray) -> float:
    """Shannon entropy of a law, bits."""
    kept = law_V[law_V > 0]
    return float(-(kept * np.log2(kept)).sum())


def _with_tail(head: tuple[float, ...], ratio: float) -> np.ndarray:
    tail = ratio ** np.arange(VOCAB_SIZE - len(head))
    return np.concatenate([head, (1 - sum(head)) * tail / tail.sum()])
