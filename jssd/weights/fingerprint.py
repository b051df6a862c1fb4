"""A short name for the values of a parameter tree."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

_LANES = 4  # Times 32 bits.


def fingerprint(params: dict) -> str:
    """32 hex digits that change when any weight changes.

    The same values give the same digits on any mesh, and in any dtype that holds them exactly
    (bfloat16 weights stored as float32, say). Integer sums do not depend on their order, so each
    device adds up its own part and no weight travels. It guards against mix-ups, not against
    forgery: the mixing is not cryptographic.
    """
    sums = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = ".".join(str(key.key) for key in path)
        sums[name] = (leaf.shape, _lanes(leaf))  # Dispatched without waiting.
    digest = hashlib.sha256()
    for name in sorted(sums):
        shape, lanes = sums[name]
        digest.update(f"{name} {shape}".encode())
        digest.update(np.asarray(lanes).astype("<u4").tobytes())
    return digest.hexdigest()[:32]


@jax.jit
def _lanes(x: jax.Array) -> jax.Array:
    """uint32 [_LANES]: sums, modulo 2^32, of each value's bits mixed with its position."""
    bits = _float32_bits(x)
    position = jnp.zeros((), jnp.uint32)
    for axis in range(
        x.ndim
    ):  # Per axis: the flat position of a large tensor would not fit in 32 bits.
        shape = tuple(x.shape[axis] if other == axis else 1 for other in range(x.ndim))
        along = jnp.arange(x.shape[axis], dtype=jnp.uint32).reshape(shape)
        position = _mix(position + along + jnp.uint32(0x9E3779B9 * (axis + 1) % 2**32))
    lanes = []
    for lane in range(_LANES):
        salt = jnp.uint32(0x85EBCA6B * (lane + 1) % 2**32)
        lanes.append(jnp.sum(_mix(bits ^ _mix(position + salt)), dtype=jnp.uint32))
    return jnp.stack(lanes)


def _float32_bits(x: jax.Array) -> jax.Array:
    """The bit pattern of each value as a float32. Shifted, as conversion may flush subnormals."""
    if x.dtype == jnp.bfloat16:
        return jax.lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """MurmurHash3's last step: a bijection in which every bit moves about half of the others."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
