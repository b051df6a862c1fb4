"""The law of the next token, and a draw from it that depends on its address alone.

Order: temperature, top_k, top_p, min_p. The first three are vLLM 0.11's (paper section 2): logits
are divided by the temperature; everything strictly below the k-th largest goes, ties with it stay;
top_p works on the softmax over what top_k left and keeps the smallest descending prefix whose mass
reaches p, equal logits in order of token id; min_p then keeps tokens with at least that share of
the likeliest one's probability, as transformers orders it (vLLM V1 applies min_p before top_k: the
two differ only where min_p and top_p are both on). A temperature under 1e-5 is greedy.

All settings are traced, one per row: a sweep compiles once. Nothing sorts a vocabulary. Almost
every law in use lives on its `NUM_CANDIDATES` likeliest tokens, so those are found first and a row
is certified if the law provably ends within them. The other rows, a few at a time, find their
thresholds by bisection over the float32 numbers themselves.

The draw is a Gumbel maximum whose noise for a token is a hash of (row key, position, token id): the
same draw comes out whichever path computed the law, whatever the batch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

NUM_CANDIDATES = 128
BEYOND_ROWS = 8  # Rows whose law reaches beyond the candidates are worked on so many at a time.
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
    """One token per row and what is worth keeping about it."""

    token_B: jax.Array  # int32
    logprob_B: jax.Array  # float32, under the untruncated model at temperature 1.
    support_BC: jax.Array  # int32: ids the draw could have taken, likeliest first; -1 beyond.
    support_size_B: jax.Array  # int32: how many; 0 is the whole vocabulary, -1 more than fit.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measured:
    """What a law makes of each row."""

    logprob_B: jax.Array  # float32: of the given token under the law; -inf where it is removed.
    # float32: what the law keeps of the tempered model's probability; of a greedy law, at
    # temperature 1.
    mass_B: jax.Array
    size_B: jax.Array  # int32: tokens the law keeps.


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


def untruncated(law: Law, vocab_size: int) -> jax.Array:
    """Whether each row keeps the whole vocabulary, bool [B]."""
    whole_B = (law.top_k <= 0) | (law.top_k >= vocab_size)
    return whole_B & (law.top_p >= 1) & (law.min_p <= 0) & (law.temperature >= GREEDY_BELOW)


def temper(logits_BV: jax.Array, law: Law) -> jax.Array:
    """Float32 logits over temperature; greedy rows are left at temperature 1."""
    divisor_B = jnp.where(law.temperature < GREEDY_BELOW, 1.0, law.temperature)
    return logits_BV.astype(jnp.float32) / divisor_B[:, None]


def truncate(logits_BV: jax.Array, law: Law) -> jax.Array:
    """Tempered logits [B, V], minus infinity where the law keeps no token."""
    tempered_BV = temper(logits_BV, law)
    return jnp.where(_kept(tempered_BV, law), tempered_BV, REMOVED)


def draw(
    logits_BV: jax.Array,
    law: Law,
    keys_B: jax.Array,
    num_candidates: int = NUM_CANDIDATES,
    vocab_shards: int = 1,
) -> Draw:
    """Draws one token per row.

    Args:
      logits_BV: logits of the untruncated model.
      law: settings per row.
      keys_B: one random key per row, made by `row_keys` for this position.
      num_candidates: static; how many likeliest tokens are looked at first.
      vocab_shards: static; over how many devices of the mesh axis tensor the vocabulary is split.
    """
    V = logits_BV.shape[1]
    logits_BV = logits_BV.astype(jnp.float32)
    tempered_BV = temper(logits_BV, law)
    found = _find(tempered_BV, law, num_candidates, vocab_shards)
    whole_B = untruncated(law, V)

    noise_BC = jax.vmap(_noise_at)(keys_B, found.ids_BC)
    scores_BC = jnp.where(found.kept_BC, found.sorted_BC + noise_BC, REMOVED)
    choice_B = jnp.argmax(scores_BC, axis=1)
    token_B = jnp.take_along_axis(found.ids_BC, choice_B[:, None], axis=1)[:, 0]

    def from_all(rows_R):
        tempered_RV = tempered_BV[rows_R]
        scores_RV = jax.lax.cond(
            jnp.all(whole_B[rows_R]),
            lambda: tempered_RV,
            lambda: jnp.where(_kept(tempered_RV, law.rows(rows_R)), tempered_RV, REMOVED),
        )
        scores_RV += jax.vmap(lambda key: _noise_all(key, V))(keys_B[rows_R])
        return jnp.argmax(scores_RV, axis=1).astype(jnp.int32)

    # Truncated rows first: blocks of untruncated ones alone need no thresholds.
    token_B = _in_blocks(from_all, ~found.certified_B, token_B, last_B=whole_B)

    logprob_BV = jax.nn.log_softmax(logits_BV, axis=1)
    logprob_B = jnp.take_along_axis(logprob_BV, token_B[:, None], axis=1)[:, 0]
    size_B = jnp.where(found.certified_B, found.kept_BC.sum(axis=1), jnp.where(whole_B, 0, -1))
    support_BC = jnp.where(found.kept_BC & found.certified_B[:, None], found.ids_BC, -1)
    return Draw(token_B, logprob_B, support_BC, size_B.astype(jnp.int32))


def measure(
    logits_BV: jax.Array, law: Law, token_B: jax.Array, num_candidates: int = NUM_CANDIDATES
) -> Measured:
    """What the law does to each row, and to one given token of it.

    Args:
      logits_BV: logits of the untruncated model.
      law: settings per row.
      token_B: int32, one token id per row.
      num_candidates: static; as for `draw`.
    """
    V = logits_BV.shape[1]
    tempered_BV = temper(logits_BV, law)
    found = _find(tempered_BV, law, num_candidates)
    whole_B = untruncated(law, V)
    share_BC = jnp.exp(found.sorted_BC - found.sorted_BC[:, :1]) / found.weight_B[:, None]
    few = (
        jnp.where(found.kept_BC, share_BC, 0).sum(axis=1),
        found.kept_BC.sum(axis=1).astype(jnp.int32),
        (found.kept_BC & (found.ids_BC == token_B[:, None])).any(axis=1),
    )
    all_of_it = jnp.ones_like(few[0]), jnp.full_like(few[1], V), jnp.ones_like(few[2])
    few = jax.tree.map(lambda x, y: jnp.where(whole_B, x, y), all_of_it, few)

    def of_all(rows_R):
        tempered_RV = tempered_BV[rows_R]
        kept_RV = _kept(tempered_RV, law.rows(rows_R))
        share_RV = jax.nn.softmax(tempered_RV, axis=1)
        inside_R = jnp.take_along_axis(kept_RV, token_B[rows_R, None], axis=1)[:, 0]
        mass_R = jnp.where(kept_RV, share_RV, 0).sum(axis=1)
        return mass_R, kept_RV.sum(axis=1).astype(jnp.int32), inside_R

    mass_B, size_B, inside_B = _in_blocks(of_all, ~found.certified_B & ~whole_B, few)
    tempered_B = jnp.take_along_axis(tempered_BV, token_B[:, None], axis=1)[:, 0]
    log_share_B = tempered_B - found.sorted_BC[:, 0] - jnp.log(found.weight_B)
    greedy_B = law.temperature < GREEDY_BELOW
    logprob_B = jnp.where(greedy_B, 0.0, log_share_B - jnp.log(mass_B))
    return Measured(jnp.where(inside_B, logprob_B, -jnp.inf), mass_B, size_B)


@dataclasses.dataclass(frozen=True)
class _Found:
    """The likeliest tokens of each row and how far the law is settled by them."""

    sorted_BC: jax.Array  # Tempered logits, descending.
    ids_BC: jax.Array
    weight_B: jax.Array  # Sum over the vocabulary of exp(tempered logit - the largest).
    kept_BC: jax.Array
    certified_B: jax.Array


def _find(tempered_BV: jax.Array, law: Law, num_candidates: int, vocab_shards: int = 1) -> _Found:
    V = tempered_BV.shape[1]
    sorted_BC, ids_BC = _likeliest(tempered_BV, min(num_candidates, V), vocab_shards)
    weight_B = _row_sums(jnp.exp(tempered_BV - sorted_BC[:, :1]))
    kept_BC = retained(sorted_BC, weight_B, law, V)
    return _Found(sorted_BC, ids_BC, weight_B, kept_BC, certified(sorted_BC, weight_B, law, V))


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
    return jax.lax.optimization_barrier(tuple(jax.lax.top_k(x, count)))


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


def _kept(tempered_BV: jax.Array, law: Law) -> jax.Array:
    """Which tokens the law keeps, bool [B, V], for any law: thresholds by bisection."""
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
    kept_BV = order_BV >= kth_B[:, None]

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


def row_keys(seeds_B: jax.Array, prompts_B: jax.Array, samples_B: jax.Array) -> jax.Array:
    """One key per completion from its address: seed, hash of the prompt id, sample number."""

    def one(seed, prompt, sample):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt), sample)

    return jax.vmap(one)(seeds_B, prompts_B, samples_B)


def position_keys(keys_B: jax.Array, positions_B: jax.Array) -> jax.Array:
    """The key of each row for one position of its completion."""
    return jax.vmap(jax.random.fold_in)(keys_B, positions_B)


def _mass_before(sorted_BC: jax.Array, probs_BC: jax.Array) -> jax.Array:
    """Probability mass of the tokens ranked before each one.

    Among equals it grows by rank times probability, as in `_kept`: both ways to the law then
    decide alike where a tie meets top_p exactly.
    """
    C = sorted_BC.shape[1]
    fresh_BC = jnp.diff(sorted_BC, axis=1, prepend=jnp.inf) != 0
    first_BC = jax.lax.cummax(jnp.where(fresh_BC, jnp.arange(C), 0), axis=1)
    before_BC = jnp.cumsum(probs_BC, axis=1) - probs_BC
    above_BC = jnp.take_along_axis(before_BC, first_BC, axis=1)
    return above_BC + (jnp.arange(C) - first_BC) * probs_BC


def _noise_all(key: jax.Array, size: int) -> jax.Array:
    """Gumbel noise of token ids 0..size-1, float32. Equals `_noise_at` token by token (tested)."""
    return _gumbel(jax.random.bits(key, (size,), jnp.uint32))


def _noise_at(key: jax.Array, ids_C: jax.Array) -> jax.Array:
    """Gumbel noise of some token ids, without making the noise of all of them."""

    def one(token_id):
        first, second = jax.random.key_data(jax.random.fold_in(key, token_id))
        return first ^ second

    return _gumbel(jax.vmap(one)(ids_C))


def _gumbel(bits: jax.Array) -> jax.Array:
    """Uniform bits to Gumbel noise, finite, and finest where maxima are decided.

    A maximum is decided by small exponentials E = -log(1 - u); -log1p(-u) keeps full precision
    there. u stays below 1.
    """
    uniform = (bits.astype(jnp.float32) + 0.5) * jnp.float32(2.0**-32)
    uniform = jnp.minimum(uniform, jnp.float32(1 - 2.0**-24))
    return -jnp.log(-jnp.log1p(-uniform))
