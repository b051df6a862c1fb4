"""Random numbers by address: (seed, prompt, sample, position, token id) decides each of them.

The draw of a token is a Gumbel maximum. The noise of a token is a hash of its address, so the same
draw comes out whatever part of the vocabulary was looked at, and whatever the batch.
"""

import jax
import jax.numpy as jnp


def row_keys(seeds_B: jax.Array, prompts_B: jax.Array, samples_B: jax.Array) -> jax.Array:
    """One key per completion from its address: seed, hash of the prompt id, sample number."""

    def one(seed, prompt, sample):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt), sample)

    return jax.vmap(one)(seeds_B, prompts_B, samples_B)


def position_keys(keys_B: jax.Array, positions_B: jax.Array) -> jax.Array:
    """The key of each row for one position of its completion."""
    return jax.vmap(jax.random.fold_in)(keys_B, positions_B)


def noise_all(key: jax.Array, size: int) -> jax.Array:
    """Gumbel noise of token ids 0..size-1, float32. Equals `noise_at` token by token (tested)."""
    return _gumbel(jax.random.bits(key, (size,), jnp.uint32))


def noise_at(key: jax.Array, ids_C: jax.Array) -> jax.Array:
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
