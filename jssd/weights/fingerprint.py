"""A short name for the values of a parameter tree."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from jssd.weights import names

_LANES = 4  # Times 32 bits.


def fingerprint(params: dict, vocab_size: int | None = None) -> str:
    """32 hex digits that change when any weight changes.

    The same values give the same digits on any mesh, and in any dtype that holds them exactly
    (bfloat16 weights stored as float32, say). Integer sums do not depend on their order, so each
    device adds up its own part and no weight travels. On many hosts all processes must call it. It
    guards against mix-ups, not against forgery: the mixing is not cryptographic.

    What a mesh padded beyond `vocab_size` does not count; None is no padding.
    """
    leaves = {
        ".".join(str(key.key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    shapes = {name: names.unpadded(name, leaf.shape, vocab_size) for name, leaf in leaves.items()}
    sums = {name: np.asarray(_sums(leaf, shapes[name])) for name, leaf in leaves.items()}
    digest = hashlib.sha256()
    for name in sorted(leaves):
        digest.update(f"{name} {shapes[name]}".encode())
        digest.update(sums[name].astype("<u4").tobytes())
    return digest.hexdigest()[:32]


def _sums(leaf: jax.Array | np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """uint32 [_LANES]: the lanes of an array's part that is within `shape`."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    if isinstance(sharding, jax.NamedSharding):
        return _sharded_lanes(leaf, sharding.mesh, sharding.spec, shape)
    return _lanes(leaf[tuple(map(slice, shape))], [0] * leaf.ndim)


@functools.partial(jax.jit, static_argnames=("mesh", "spec", "shape"))
def _sharded_lanes(
    x: jax.Array, mesh: jax.sharding.Mesh, spec: jax.P, shape: tuple[int, ...]
) -> jax.Array:
    """The lanes of a sharded array: those of the parts, added up."""
    axes, whole = [axis for axis in spec if axis], x.shape
    used = tuple(name for axis in axes for name in (axis if isinstance(axis, tuple) else (axis,)))

    def part(x: jax.Array) -> jax.Array:
        start: list = [0] * x.ndim
        for dim, axis in enumerate(spec):
            if axis:
                start[dim] = jax.lax.axis_index(axis).astype(jnp.uint32) * x.shape[dim]
        lanes = _lanes(x, start, shape if shape != whole else None)
        return jax.lax.psum(lanes, used) if used else lanes

    # Unchecked: the check does not know that a sum over all parts is the same everywhere.
    return jax.shard_map(part, mesh=mesh, in_specs=spec, out_specs=jax.P(), check_vma=False)(x)


@functools.partial(jax.jit, static_argnames="shape")
def _lanes(x: jax.Array, start: list, shape: tuple[int, ...] | None = None) -> jax.Array:
    """uint32 [_LANES]: sums, modulo 2^32, of each value's bits mixed with its position.

    Args:
      x: a part of an array.
      start: where in the array the part begins, along each axis.
      shape: what lies beyond it does not count.
    """
    position = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(x.shape):  # By axis: a flat number would not fit in 32 bits.
        along = jnp.arange(size, dtype=jnp.uint32) + jnp.uint32(start[axis])
        along = along.reshape([size if other == axis else 1 for other in range(x.ndim)])
        position = _mix(position + along + jnp.uint32(0x9E3779B9 * (axis + 1) % 2**32))
    bits = _float32_bits(x)
    salts = [jnp.uint32(0x85EBCA6B * lane % 2**32) for lane in range(1, _LANES + 1)]
    mixed = [_mix(bits ^ _mix(position + salt)) for salt in salts]
    if shape is not None:
        inside = jnp.ones((), bool)
        for axis, size in enumerate(shape):
            along = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) + jnp.uint32(start[axis])
            inside &= along < size
        mixed = [jnp.where(inside, lane, 0) for lane in mixed]
    # One reduction of all lanes: XLA then mixes while it adds, and needs no memory for what is
    # mixed.
    zeros = [jnp.uint32(0)] * _LANES
    axes = tuple(range(x.ndim))
    return jnp.stack(jax.lax.reduce(mixed, zeros, _add_each, axes))


def _add_each(left: list[jax.Array], right: list[jax.Array]) -> list[jax.Array]:
    return [a + b for a, b in zip(left, right)]


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
