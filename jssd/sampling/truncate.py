"""The law of the next token, and a draw from it that depends on its address alone.

Order: temperature, top_k, top_p, min_p. The first three are vLLM 0.11's (paper section 2): logits
are divided by the temperature; everything strictly below the k-th largest goes, ties with it stay;
top_p works on the softmax over what top_k left and keeps the smallest descending prefix whose mass
reaches p, equal logits in order of token id; min_p then keeps tokens with at least that share of
the likeliest one's probability, as transformers orders it (vLLM V1 applies min_p before top_k: the
two differ only where min_p and top_p are both on). A temperature under 1e-5 is greedy.

All settings are traced, one per row: a sweep compiles once. Almost every law in use lives on its
`NUM_CANDIDATES` likeliest tokens, so those are found first and a row is certified if the law
provably ends within them. Rows without any truncation need no order at all. Only when a row is
neither is the whole vocabulary sorted.

The draw is a Gumbel maximum whose noise for a token is a hash of (row key, position, token id): the
same draw comes out whichever path computed the law, whatever the batch.
"""

import dataclasses

import jax
import jax.numpy as jnp

NUM_CANDIDATES = 128
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


def retained(sorted_BC: jax.Array, total_B: jax.Array, law: Law, vocab_size: int) -> jax.Array:
    """Which of the likeliest tokens the law keeps, bool [B, C].

    Args:
      sorted_BC: float32 logits after temperature, the C largest in descending order (C may be the
        whole vocabulary).
      total_B: logsumexp of all tempered logits of the row.
      law: settings; `temperature` is not used again.
      vocab_size: V.

    Correct where `certified` says so: elsewhere the law may reach beyond the C tokens.
    """
    C = sorted_BC.shape[1]
    limited_B = (law.top_k > 0) & (law.top_k < vocab_size)
    rank_B = jnp.clip(law.top_k, 1, C) - 1
    kth_B = jnp.take_along_axis(sorted_BC, rank_B[:, None], axis=1)[:, 0]
    kept_BC = ~limited_B[:, None] | (sorted_BC >= kth_B[:, None])
    survivors_BC = jnp.where(kept_BC, sorted_BC, REMOVED)
    norm_B = jnp.where(limited_B, jax.nn.logsumexp(survivors_BC, axis=1), total_B)
    before_BC = _mass_before(survivors_BC, norm_B)
    kept_BC &= (law.top_p >= 1)[:, None] | (before_BC < law.top_p[:, None])
    floor_B = sorted_BC[:, 0] + jnp.log(law.min_p)  # log 0 = -inf keeps all.
    kept_BC &= sorted_BC >= floor_B[:, None]
    first_C = jnp.arange(C) == 0
    greedy_B = law.temperature < GREEDY_BELOW
    return jnp.where(greedy_B[:, None], first_C, kept_BC | first_C)


def certified(sorted_BC: jax.Array, total_B: jax.Array, law: Law, vocab_size: int) -> jax.Array:
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
    mass_before_last_B = _mass_before(sorted_BC, total_B)[:, -1]
    by_top_p_B = ~limited_B & (law.top_p < 1) & (mass_before_last_B >= law.top_p)
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
    """Tempered logits [B, V], minus infinity where the law keeps no token; by a full sort."""
    V = logits_BV.shape[1]
    tempered_BV = temper(logits_BV, law)
    sorted_BV, ids_BV = jax.lax.top_k(tempered_BV, V)
    kept_BV = retained(sorted_BV, jax.nn.logsumexp(tempered_BV, axis=1), law, V)
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    kept_by_id_BV = jnp.zeros_like(kept_BV).at[rows_B1, ids_BV].set(kept_BV)
    return jnp.where(kept_by_id_BV | untruncated(law, V)[:, None], tempered_BV, REMOVED)


def draw(
    logits_BV: jax.Array, law: Law, keys_B: jax.Array, num_candidates: int = NUM_CANDIDATES
) -> Draw:
    """Draws one token per row.

    Args:
      logits_BV: logits of the untruncated model.
      law: settings per row.
      keys_B: one random key per row, made by `row_keys` for this position.
      num_candidates: static; how many likeliest tokens are looked at first.
    """
    V = logits_BV.shape[1]
    C = min(num_candidates, V)
    logits_BV = logits_BV.astype(jnp.float32)
    tempered_BV = temper(logits_BV, law)
    total_B = jax.nn.logsumexp(tempered_BV, axis=1)
    # The barrier keeps XLA from folding later slices into the top_k, which turns it into a full
    # sort (measured on CPU: 330 ms instead of 4 at 32 x 49,152).
    sorted_BC, ids_BC = jax.lax.optimization_barrier(jax.lax.top_k(tempered_BV, C))
    kept_BC = retained(sorted_BC, total_B, law, V)
    certified_B = certified(sorted_BC, total_B, law, V)
    whole_B = untruncated(law, V)

    noise_BC = jax.vmap(_noise_at)(keys_B, ids_BC)
    choice_B = jnp.argmax(jnp.where(kept_BC, sorted_BC + noise_BC, REMOVED), axis=1)
    token_B = jnp.take_along_axis(ids_BC, choice_B[:, None], axis=1)[:, 0]

    def noisy_argmax(scores_BV):
        noise_BV = jax.vmap(lambda key: _noise_all(key, V))(keys_B)
        return jnp.argmax(scores_BV + noise_BV, axis=1).astype(jnp.int32)

    branch = jnp.where(jnp.all(certified_B), 0, jnp.where(jnp.all(certified_B | whole_B), 1, 2))
    beyond_B = jax.lax.switch(
        branch,
        (
            lambda: token_B,
            lambda: noisy_argmax(tempered_BV),
            lambda: noisy_argmax(truncate(logits_BV, law)),
        ),
    )
    token_B = jnp.where(certified_B, token_B, beyond_B)

    logprob_BV = jax.nn.log_softmax(logits_BV, axis=1)
    logprob_B = jnp.take_along_axis(logprob_BV, token_B[:, None], axis=1)[:, 0]
    size_B = jnp.where(certified_B, kept_BC.sum(axis=1), jnp.where(whole_B, 0, -1))
    support_BC = jnp.where(kept_BC & certified_B[:, None], ids_BC, -1)
    return Draw(token_B, logprob_B, support_BC, size_B.astype(jnp.int32))


def row_keys(seeds_B: jax.Array, prompts_B: jax.Array, samples_B: jax.Array) -> jax.Array:
    """One key per completion from its address: seed, hash of the prompt id, sample number."""

    def one(seed, prompt, sample):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt), sample)

    return jax.vmap(one)(seeds_B, prompts_B, samples_B)


def position_keys(keys_B: jax.Array, positions_B: jax.Array) -> jax.Array:
    """The key of each row for one position of its completion."""
    return jax.vmap(jax.random.fold_in)(keys_B, positions_B)


def _mass_before(sorted_BC: jax.Array, norm_B: jax.Array) -> jax.Array:
    """Probability mass of the tokens ranked before each one."""
    probs_BC = jnp.exp(sorted_BC - norm_B[:, None])
    return jnp.cumsum(probs_BC, axis=1) - probs_BC


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
