"""The law of the next token: which tokens it keeps of the model's logits.

Order: temperature, top_k, top_p, min_p. The first three are vLLM 0.11's (paper section 2): logits
are divided by the temperature; everything strictly below the k-th largest goes, ties with it stay;
top_p works on the softmax over what top_k left and keeps the smallest descending prefix whose mass
reaches p, equal logits in order of token id; min_p then keeps tokens with at least that share of
the likeliest one's probability, as transformers orders it (vLLM V1 applies min_p before top_k: the
two differ only where min_p and top_p are both on). A temperature under 1e-5 is greedy.

All settings are traced, one per row: a sweep compiles once. Nothing sorts a vocabulary. Almost
every law in use lives on its `NUM_CANDIDATES` likeliest tokens: `find` looks at those, and a row is
certified if the law provably ends within them. For any other row `kept` finds the thresholds by
bisection over the float32 numbers themselves.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jssd.config import MAX_SUPPORT

NUM_CANDIDATES = MAX_SUPPORT
GREEDY_BELOW = 1e-5  # vLLM's threshold.
REMOVED = -jnp.inf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Law:
    """Sampling settings of each row: float32 [B], `top_k` int32 [B].

    0, 1.0 and 0.0 switch top_k, top_p and min_p off.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array

    def rows(self, index) -> "Law":
        """The settings of some rows."""
        return jax.tree.map(lambda x: x[index], self)


def temper(logits_BV: jax.Array, law: Law) -> jax.Array:
    """Float32 logits over temperature; greedy rows are left at temperature 1."""
    divisor_B = jnp.where(law.temperature < GREEDY_BELOW, 1.0, law.temperature)
    return logits_BV.astype(jnp.float32) / divisor_B[:, None]


def untruncated(law: Law, vocab_size: int) -> jax.Array:
    """Whether each row keeps the whole vocabulary, bool [B]."""
    whole_B = (law.top_k <= 0) | (law.top_k >= vocab_size)
    return whole_B & (law.top_p >= 1) & (law.min_p <= 0) & (law.temperature >= GREEDY_BELOW)


def truncate(logits_BV: jax.Array, law: Law) -> jax.Array:
    """Tempered logits [B, V], minus infinity where the law keeps no token."""
    tempered_BV = temper(logits_BV, law)
    return jnp.where(kept(tempered_BV, law), tempered_BV, REMOVED)


def kept(tempered_BV: jax.Array, law: Law) -> jax.Array:
    """Which tokens the law keeps, bool [B, V], for any law: thresholds by bisection.

    None at minus infinity: such columns are padding.
    """
    B, V = tempered_BV.shape
    order_BV = _ordered_bits(tempered_BV)
    top_B = tempered_BV.max(axis=1)

    limited_B = (law.top_k > 0) & (law.top_k < V)
    top_k_B = jnp.where(limited_B, law.top_k, V).astype(jnp.float32)
    kth_B = jax.lax.cond(
        jnp.any(limited_B),
        lambda: _threshold(order_BV, jnp.ones_like(tempered_BV), top_k_B),
        lambda: jnp.zeros(B, jnp.uint32),
    )
    kept_BV = (order_BV >= kth_B[:, None]) & (tempered_BV > REMOVED)

    probs_BV = jax.nn.softmax(jnp.where(kept_BV, tempered_BV, REMOVED), axis=1)
    cut_B = jax.lax.cond(
        jnp.any(law.top_p < 1),
        lambda: _threshold(order_BV, probs_BV, law.top_p),
        lambda: jnp.zeros(B, jnp.uint32),
    )
    tied_BV = order_BV == cut_B[:, None]
    above_B = jnp.where(order_BV > cut_B[:, None], probs_BV, 0).sum(axis=1)
    tied_prob_B = jnp.where(tied_BV, probs_BV, 0).max(axis=1)
    # The tie ranked j stays while the mass before it, above + j * prob, is short of top_p.
    num_tied_B = tied_BV.sum(axis=1)
    room_B = jnp.ceil((law.top_p - above_B) / jnp.maximum(tied_prob_B, 1e-37))
    room_B = jnp.clip(room_B, 1, jnp.maximum(num_tied_B, 1))
    id_order_BV = jnp.broadcast_to(V - jnp.arange(V, dtype=jnp.uint32), (B, V))
    last_tied_B = jax.lax.cond(
        jnp.any(room_B < num_tied_B),
        lambda: _threshold(id_order_BV, tied_BV.astype(jnp.float32), room_B),
        lambda: jnp.zeros(B, jnp.uint32),
    )
    prefix_BV = (order_BV > cut_B[:, None]) | (tied_BV & (id_order_BV >= last_tied_B[:, None]))
    kept_BV &= (law.top_p >= 1)[:, None] | prefix_BV

    kept_BV &= tempered_BV >= (top_B + jnp.log(law.min_p))[:, None]  # log 0 = -inf keeps all.
    first_BV = jnp.arange(V) == jnp.argmax(tempered_BV, axis=1)[:, None]
    greedy_B = law.temperature < GREEDY_BELOW
    return jnp.where(greedy_B[:, None], first_BV, kept_BV | first_BV)


@dataclasses.dataclass(frozen=True)
class Found:
    """The likeliest tokens of each row and how far the law is settled by them."""

    sorted_BC: jax.Array  # Tempered logits, descending.
    ids_BC: jax.Array
    weight_B: jax.Array  # Sum over the vocabulary of exp(tempered logit - the largest).
    kept_BC: jax.Array
    certified_B: jax.Array


def find(
    tempered_BV: jax.Array,
    law: Law,
    num_candidates: int,
    vocab_shards: int = 1,
    vocab_size: int | None = None,
) -> Found:
    """Looks at the likeliest tokens of each row.

    Args:
      tempered_BV: from `temper`.
      law: settings per row.
      num_candidates: how many to look at, at most.
      vocab_shards: over how many devices of the mesh axis tensor the vocabulary is split.
      vocab_size: columns from here on are padding, at minus infinity; None is all V.
    """
    V = vocab_size or tempered_BV.shape[1]
    sorted_BC, ids_BC = _likeliest(tempered_BV, min(num_candidates, V), vocab_shards)
    return settle(tempered_BV, sorted_BC, ids_BC, law, V)


def settle(tempered_BV, sorted_BC, ids_BC, law: Law, vocab_size: int) -> Found:
    """`find` with the likeliest tokens of the tempered logits known."""
    weight_B = _row_sums(jnp.exp(tempered_BV - sorted_BC[:, :1]))
    kept_BC = retained(sorted_BC, weight_B, law, vocab_size)
    certified_B = certified(sorted_BC, weight_B, law, vocab_size)
    return Found(sorted_BC, ids_BC, weight_B, kept_BC, certified_B)


def likeliest(logits_BV: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest logits of each row, float32, descending, and their ids."""
    return _likeliest(logits_BV.astype(jnp.float32), min(count, logits_BV.shape[1]), 1)


def temper_likeliest(sorted_BC: jax.Array, ids_BC: jax.Array, law: Law):
    """`likeliest` of the tempered logits, from that of the logits."""
    # Two numbers may be one after the division, and equals come in order of id.
    order_BC, ids_BC = jax.lax.sort((-temper(sorted_BC, law), ids_BC), num_keys=2)
    return -order_BC, ids_BC


def retained(sorted_BC: jax.Array, weight_B: jax.Array, law: Law, vocab_size: int) -> jax.Array:
    """Which of the likeliest tokens the law keeps, bool [B, C].

    Args:
      sorted_BC: float32 logits after temperature, the C largest in descending order (C may be the
        whole vocabulary).
      weight_B: sum over the vocabulary of exp(tempered logit - the row's largest).
      law: settings; `temperature` is not used again.
      vocab_size: V.

    Correct where `certified` says so: elsewhere the law may reach beyond the C tokens.
    """
    C = sorted_BC.shape[1]
    limited_B = (law.top_k > 0) & (law.top_k < vocab_size)
    rank_B = jnp.clip(law.top_k, 1, C) - 1
    kth_B = jnp.take_along_axis(sorted_BC, rank_B[:, None], axis=1)[:, 0]
    kept_BC = ~limited_B[:, None] | (sorted_BC >= kth_B[:, None])
    weight_BC = jnp.exp(sorted_BC - sorted_BC[:, :1]) * kept_BC
    weight_B = jnp.where(limited_B, weight_BC.sum(axis=1), weight_B)
    before_BC = _mass_before(sorted_BC, weight_BC / weight_B[:, None])
    kept_BC &= (law.top_p >= 1)[:, None] | (before_BC < law.top_p[:, None])
    floor_B = sorted_BC[:, 0] + jnp.log(law.min_p)  # log 0 = -inf keeps all.
    kept_BC &= sorted_BC >= floor_B[:, None]
    first_C = jnp.arange(C) == 0
    greedy_B = law.temperature < GREEDY_BELOW
    return jnp.where(greedy_B[:, None], first_C, kept_BC | first_C)


def certified(sorted_BC: jax.Array, weight_B: jax.Array, law: Law, vocab_size: int) -> jax.Array:
    """Whether the law of each row provably ends within its C likeliest tokens, bool [B]."""
    C = sorted_BC.shape[1]
    if vocab_size == C:
        return jnp.ones(sorted_BC.shape[0], bool)
    last_B = sorted_BC[:, -1]
    limited_B = (law.top_k > 0) & (law.top_k < vocab_size)
    rank_B = jnp.clip(law.top_k, 1, C) - 1
    kth_B = jnp.take_along_axis(sorted_BC, rank_B[:, None], axis=1)[:, 0]
    # A tie at the edge could go on outside, hence strictly below the k-th.
    by_top_k_B = limited_B & (law.top_k <= C) & (last_B < kth_B)
    # Likewise mass strictly above the last: of its equals outside, some may have lower ids.
    weight_BC = jnp.exp(sorted_BC - sorted_BC[:, :1]) * (sorted_BC > last_B[:, None])
    by_top_p_B = ~limited_B & (law.top_p < 1) & (weight_BC.sum(axis=1) >= law.top_p * weight_B)
    by_min_p_B = ~limited_B & (last_B < sorted_BC[:, 0] + jnp.log(law.min_p))
    return (law.temperature < GREEDY_BELOW) | by_top_k_B | by_top_p_B | by_min_p_B


def _mass_before(sorted_BC: jax.Array, probs_BC: jax.Array) -> jax.Array:
    """Probability mass of the tokens ranked before each one.

    Among equals it grows by rank times probability, as in `kept`: both ways to the law then
    decide alike where a tie meets top_p exactly.
    """
    C = sorted_BC.shape[1]
    fresh_BC = jnp.diff(sorted_BC, axis=1, prepend=jnp.inf) != 0
    first_BC = jax.lax.cummax(jnp.where(fresh_BC, jnp.arange(C), 0), axis=1)
    before_BC = jnp.cumsum(probs_BC, axis=1) - probs_BC
    above_BC = jnp.take_along_axis(before_BC, first_BC, axis=1)
    return above_BC + (jnp.arange(C) - first_BC) * probs_BC


def _likeliest(x_BV: jax.Array, count: int, vocab_shards: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest of each row and their ids; equals in order of id.

    Each shard of the vocabulary finds its own, and only those travel. Equals of the last one may be
    left out in favour of higher ids, which `certified` allows for.
    """
    if vocab_shards == 1:
        return _top_k(x_BV, count)
    B, V = x_BV.shape
    width = V // vocab_shards
    x_BGW = jax.lax.with_sharding_constraint(
        x_BV.reshape(B, vocab_shards, width), jax.sharding.PartitionSpec(None, "tensor", None)
    )
    own_BGC, index_BGC = _top_k(x_BGW, min(count, width))
    ids_BGC = index_BGC + width * jnp.arange(vocab_shards)[:, None]
    sorted_BC, index_BC = _top_k(own_BGC.reshape(B, -1), count)
    return sorted_BC, jnp.take_along_axis(ids_BGC.reshape(B, -1), index_BC, axis=1)


def _top_k(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` over the last axis, in two small steps where that axis is long.

    The largest numbers lie in the runs with the largest maxima. XLA:GPU sorts the whole axis for a
    count above 16; this way it sorts thousands of numbers, not a vocabulary.
    """
    V = x.shape[-1]
    run = math.gcd(V, 32)
    if V // run < 4 * count:
        return _barred_top_k(x, count)
    runs = x.reshape(*x.shape[:-1], V // run, run)
    _, chosen = _barred_top_k(runs.max(axis=-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # In order of id, so that equals come out in it.
    few = jnp.take_along_axis(runs, chosen[..., None], axis=-2)
    found, index = _barred_top_k(few.reshape(*x.shape[:-1], count * run), count)
    ids = jnp.take_along_axis(chosen, index // run, axis=-1) * run + index % run
    return found, ids


def _barred_top_k(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    # The barrier keeps XLA from folding later slices into the top_k, which turns it into a full
    # sort (measured on CPU: 330 ms instead of 4 at 32 x 49,152).
    # One barrier for each result: behind both together, programs for several devices abort in the
    # compiler (TopkDecomposer of jaxlib 0.10.2).
    values, ids = jax.lax.top_k(x, count)
    return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(ids)


def _threshold(order_BV: jax.Array, weight_BV: jax.Array, target_B: jax.Array) -> jax.Array:
    """The largest t with `sum(weight where order >= t) >= target`, uint32 [B]; 0 if there is none.

    At most 32 rounds, as `order_BV` holds whole numbers: exact, and no sort.
    """

    def unsettled(bounds):
        low_B, high_B = bounds
        return jnp.any(high_B - low_B > 1)

    def halve(bounds):
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        sum_B = _row_sums(jnp.where(order_BV >= middle_B[:, None], weight_BV, 0))
        reached_B = sum_B >= target_B
        return jnp.where(reached_B, middle_B, low_B), jnp.where(reached_B, high_B, middle_B)

    start = (jnp.zeros(len(order_BV), jnp.uint32), order_BV.max(axis=1) + 1)
    return jax.lax.while_loop(unsettled, halve, start)[0]


def _row_sums(x_BV: jax.Array) -> jax.Array:
    """Sums over V, lane by lane first: XLA:CPU leaves a plain sum of floats unvectorised."""
    B, V = x_BV.shape
    return x_BV.reshape(B, -1, math.gcd(V, 128)).sum(axis=1).sum(axis=1)


def _ordered_bits(x: jax.Array) -> jax.Array:
    """Float32 to uint32, order kept; both zeros are one number."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
