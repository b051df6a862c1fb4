"""One draw per row from its law, and what a law makes of a given token.

Rows whose law the likeliest tokens settle need nothing else; the others look at the whole
vocabulary, `BEYOND_ROWS` at a time.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jssd.sampling import noise, truncate
from jssd.sampling.truncate import GREEDY_BELOW, NUM_CANDIDATES, REMOVED, Law

BEYOND_ROWS = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
    """One token per row and what is worth keeping about it."""

    token_B: jax.Array  # int32
    logprob_B: jax.Array  # float32, under the untruncated model at temperature 1.
    support_BC: jax.Array  # int32: ids the draw could have taken, likeliest first; -1 beyond.
    support_size_B: jax.Array  # int32: how many; 0 is the whole vocabulary, -1 more than fit.
    support_prob_BC: jax.Array  # float32: the law of the draw on them; 0 beyond.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measured:
    """What a law makes of each row."""

    logprob_B: jax.Array  # float32: of the given token under the law; -inf where it is removed.
    # float32: what the law keeps of the tempered model's probability; of a greedy law, at
    # temperature 1.
    mass_B: jax.Array
    size_B: jax.Array  # int32: tokens the law keeps.
    entropy_B: jax.Array  # float32 nats, of the law.


def draw(
    logits_BV: jax.Array,
    law: Law,
    keys_B: jax.Array,
    num_candidates: int = NUM_CANDIDATES,
    vocab_shards: int = 1,
    vocab_size: int | None = None,
) -> Draw:
    """Draws one token per row.

    Args:
      logits_BV: logits of the untruncated model.
      law: settings per row.
      keys_B: one random key per row, made by `noise.position_keys` for this position.
      num_candidates: static; how many likeliest tokens are looked at first.
      vocab_shards: static; over how many devices of the mesh axis tensor the vocabulary is split.
      vocab_size: static; columns from here on are padding, at minus infinity; None is all V.
    """
    V = vocab_size or logits_BV.shape[1]
    logits_BV = logits_BV.astype(jnp.float32)
    tempered_BV = truncate.temper(logits_BV, law)
    found = truncate.find(tempered_BV, law, num_candidates, vocab_shards, V)
    whole_B = truncate.untruncated(law, V)

    noise_BC = jax.vmap(noise.noise_at)(keys_B, found.ids_BC)
    scores_BC = jnp.where(found.kept_BC, found.sorted_BC + noise_BC, REMOVED)
    choice_B = jnp.argmax(scores_BC, axis=1)
    token_B = jnp.take_along_axis(found.ids_BC, choice_B[:, None], axis=1)[:, 0]

    def from_all(rows_R):
        tempered_RV = tempered_BV[rows_R]
        scores_RV = jax.lax.cond(
            jnp.all(whole_B[rows_R]),
            lambda: tempered_RV,
            lambda: truncate.truncate(logits_BV[rows_R], law.rows(rows_R)),
        )
        noise_of = lambda key: noise.noise_all(key, scores_RV.shape[1])
        scores_RV += jax.vmap(noise_of)(keys_B[rows_R])
        return jnp.argmax(scores_RV, axis=1).astype(jnp.int32)

    # Truncated rows first: blocks of untruncated ones alone need no thresholds.
    token_B = _in_blocks(from_all, ~found.certified_B, token_B, last_B=whole_B)

    logprob_BV = jax.nn.log_softmax(logits_BV, axis=1)
    logprob_B = jnp.take_along_axis(logprob_BV, token_B[:, None], axis=1)[:, 0]
    size_B = jnp.where(found.certified_B, found.kept_BC.sum(axis=1), jnp.where(whole_B, 0, -1))
    support_BC = jnp.where(found.kept_BC & found.certified_B[:, None], found.ids_BC, -1)
    law_BC = jax.nn.softmax(jnp.where(found.kept_BC, found.sorted_BC, REMOVED), axis=1)
    prob_BC = jnp.where(support_BC >= 0, law_BC, 0.0)
    return Draw(token_B, logprob_B, support_BC, size_B.astype(jnp.int32), prob_BC)


def measure(
    logits_BV: jax.Array, laws_L: Law, token_B: jax.Array, num_candidates: int = NUM_CANDIDATES
) -> Measured:
    """What each law does to each row, and to one given token of it: arrays [L, B].

    Args:
      logits_BV: logits of the untruncated model.
      laws_L: settings, one law an entry, for all rows.
      token_B: int32, one token id per row.
      num_candidates: static; as for `draw`.
    """
    # No temperature changes which tokens are the likeliest: looked for once.
    likeliest = truncate.likeliest(logits_BV, num_candidates)

    def under(law: Law) -> Measured:
        law_B = jax.tree.map(lambda x: jnp.broadcast_to(x, token_B.shape), law)
        return _under_one(logits_BV, law_B, token_B, likeliest)

    return jax.lax.map(under, laws_L)


def _under_one(logits_BV, law: Law, token_B, likeliest: tuple[jax.Array, jax.Array]) -> Measured:
    V = logits_BV.shape[1]
    tempered_BV = truncate.temper(logits_BV, law)
    found = truncate.settle(tempered_BV, *truncate.temper_likeliest(*likeliest, law), law, V)
    whole_B = truncate.untruncated(law, V)
    share_BC = jnp.exp(found.sorted_BC - found.sorted_BC[:, :1]) / found.weight_B[:, None]
    few = (
        jnp.where(found.kept_BC, share_BC, 0).sum(axis=1),
        found.kept_BC.sum(axis=1).astype(jnp.int32),
        (found.kept_BC & (found.ids_BC == token_B[:, None])).any(axis=1),
        _entropy(found.sorted_BC, found.kept_BC),
    )
    entropy_B = jax.lax.cond(  # Passes over the vocabulary that truncated laws have no use for.
        jnp.any(whole_B),
        lambda: _entropy(tempered_BV, jnp.ones(V, bool)),
        lambda: jnp.zeros(len(tempered_BV), tempered_BV.dtype),
    )
    all_of_it = jnp.ones_like(few[0]), jnp.full_like(few[1], V), jnp.ones_like(few[2]), entropy_B
    few = jax.tree.map(lambda x, y: jnp.where(whole_B, x, y), all_of_it, few)

    def of_all(rows_R):
        tempered_RV = tempered_BV[rows_R]
        kept_RV = truncate.kept(tempered_RV, law.rows(rows_R))
        share_RV = jax.nn.softmax(tempered_RV, axis=1)
        inside_R = jnp.take_along_axis(kept_RV, token_B[rows_R, None], axis=1)[:, 0]
        mass_R = jnp.where(kept_RV, share_RV, 0).sum(axis=1)
        size_R = kept_RV.sum(axis=1).astype(jnp.int32)
        return mass_R, size_R, inside_R, _entropy(tempered_RV, kept_RV)

    found_B = _in_blocks(of_all, ~found.certified_B & ~whole_B, few)
    mass_B, size_B, inside_B, entropy_B = found_B
    tempered_B = jnp.take_along_axis(tempered_BV, token_B[:, None], axis=1)[:, 0]
    log_share_B = tempered_B - found.sorted_BC[:, 0] - jnp.log(found.weight_B)
    greedy_B = law.temperature < GREEDY_BELOW
    logprob_B = jnp.where(greedy_B, 0.0, log_share_B - jnp.log(mass_B))
    logprob_B = jnp.where(inside_B, logprob_B, -jnp.inf)
    return Measured(logprob_B, mass_B, size_B, jnp.where(greedy_B, 0.0, entropy_B))


def _entropy(logits_BX: jax.Array, kept_BX: jax.Array) -> jax.Array:
    """Nats of the softmax over the kept ones, [B]."""
    logprob_BX = jax.nn.log_softmax(jnp.where(kept_BX, logits_BX, REMOVED), axis=1)
    # A token of probability 0 adds nothing: 0 * log 0 = 0.
    return -jnp.where(logprob_BX > REMOVED, jnp.exp(logprob_BX) * logprob_BX, 0).sum(axis=1)


def _in_blocks(work, wanted_B: jax.Array, tree, last_B: jax.Array | None = None):
    """`tree` of [B] arrays with the rows in `wanted_B` replaced by `work(rows_R)`, R at a time.

    Rows that are also in `last_B` come last.
    """
    B = wanted_B.shape[0]
    R = min(BEYOND_ROWS, B)
    rank_B = jnp.zeros(B, jnp.int32) if last_B is None else last_B.astype(jnp.int32)
    order_B = jnp.argsort(jnp.where(wanted_B, rank_B, 2))

    def block(carry):
        start, tree = carry
        # At the end the slice is moved back and some rows are worked on twice, to the same result.
        rows_R = jax.lax.dynamic_slice_in_dim(order_B, start, R)
        put = lambda old, new: old.at[rows_R].set(jnp.where(wanted_B[rows_R], new, old[rows_R]))
        return start + R, jax.tree.map(put, tree, work(rows_R))

    if R == B:  # XLA would hoist the work of a single block out of a loop that never turns.
        return jax.lax.cond(jnp.any(wanted_B), lambda: block((0, tree))[1], lambda: tree)
    count = wanted_B.sum()
    return jax.lax.while_loop(lambda carry: carry[0] < count, block, (0, tree))[1]
