"""The loss of self-distillation taken apart, exactly, one token at a time (paper section 5.3).

With S what the law of training keeps of the base, q its probabilities, T its temperature and c the
student's probabilities within S, the cross-entropy of q and the student is

    -log KeptMass  +  (1 - T) H_{1/T}(c)  +  T KL(q || c tempered by T)  +  T H(q)

support compression, within-support reshaping, alignment, and a constant that no training changes.
H_a is the Renyi entropy. All in nats and float32.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jssd.sampling import truncate
from jssd.sampling.truncate import NUM_CANDIDATES, REMOVED, Law


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of each row and its four parts, nats [B]."""

    cross_entropy: jax.Array  # Of q and the student over the whole vocabulary.
    compression: jax.Array  # -log KeptMass: what the student still gives to tokens outside S.
    reshaping: jax.Array  # Least where c is flat for T above 1, sharp for T below; 0 at T 1.
    alignment: jax.Array  # 0 where c tempered by T is q.
    constant: jax.Array


def decompose(
    base_logits_BV: jax.Array, student_logits_BV: jax.Array, kept_BV: jax.Array, law: Law
) -> Loss:
    """The loss of each row and its parts.

    Args:
      base_logits_BV: float32 logits of the base, as the law finds them.
      student_logits_BV: float32 logits of the student.
      kept_BV: bool; S, which the law keeps of the base (`support`).
      law: of training. Its temperature must be above 0.
    """
    T_B1 = law.temperature[:, None]
    inside = lambda x_BV: jnp.where(kept_BV, x_BV, REMOVED)
    # Outside S the probability is 0, and 0 times anything adds nothing.
    expected = lambda probs_BV, x_BV: jnp.where(probs_BV > 0, probs_BV * x_BV, 0).sum(axis=1)
    log_q_BV = jax.nn.log_softmax(inside(base_logits_BV / T_B1), axis=1)
    log_student_BV = jax.nn.log_softmax(student_logits_BV, axis=1)
    log_kept_B = jax.nn.logsumexp(inside(log_student_BV), axis=1)
    log_c_BV = inside(log_student_BV) - log_kept_B[:, None]
    log_tempered_BV = jax.nn.log_softmax(log_c_BV / T_B1, axis=1)
    q_BV, T_B = jnp.exp(log_q_BV), law.temperature
    return Loss(
        cross_entropy=-expected(q_BV, log_student_BV),
        compression=-log_kept_B,
        # The free energy of c, which stands for its Renyi entropy also at T 1.
        reshaping=-T_B * jax.nn.logsumexp(log_c_BV / T_B1, axis=1),
        alignment=T_B * expected(q_BV, log_q_BV - log_tempered_BV),
        constant=-T_B * expected(q_BV, log_q_BV),
    )


def support(logits_BV: jax.Array, law: Law) -> jax.Array:
    """S: what the law keeps of each row, bool [B, V]."""
    tempered_BV = truncate.temper(logits_BV, law)
    found = truncate.find(tempered_BV, law, NUM_CANDIDATES)
    rows_B1 = jnp.arange(len(logits_BV))[:, None]

    def few():
        empty_BV = jnp.zeros(logits_BV.shape, bool)
        return empty_BV.at[rows_B1, found.ids_BC].set(found.kept_BC)

    return jax.lax.cond(jnp.all(found.certified_B), few, lambda: truncate.kept(tempered_BV, law))
