"""The mesh, the one table from logical axes to mesh axes, and the collectives that follow from it.

Arrays are described in logical words; `spec` turns them into a `PartitionSpec` for the mesh in
force, or None without one. A training program runs on shards (`on_shards`): each device sees its
own part of every array, and what moves between devices stands in the code as `gather` and `total`.
So a gradient leaves as a reduce-scatter wherever a weight came in by an all-gather, by the
transpose of the one being the other. Without a mesh both do nothing, and the same model code runs
on one device.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jssd.config import MeshConfig

MESH_AXES = ("data", "fsdp", "tensor", "expert", "context")

# In training, weights are split by their embed axis over every axis that holds other data, and over
# tensor by the other one; activations by batch and time. One table serves dense models and mixtures
# of experts: only the latter have "experts", whose weights the expert axis splits whole.
TRAIN: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "seq": ("context",),
    "act_embed": (),  # The width of activations stays whole; "embed" is the width of weights.
    "embed": ("fsdp", "expert", "context"),
    "expert_embed": ("fsdp", "context"),  # Of a weight that has "experts" too.
    "experts": ("expert",),
    "act_experts": (),  # The router's choices; "experts" is the axis of weights.
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
    "rank": (),  # Of an adapter, which is split by the other axis as its weight is.
}
# For sampling, only by heads, widths, vocabulary and experts: a decode step would gather all the
# rest for one token. Slots are split over data and expert.
SAMPLE = {**TRAIN, "seq": (), "embed": (), "expert_embed": ()}
GROUPS = ("data", "expert")  # Axes of the decode mesh that split slots.


def rules() -> dict[str, tuple[str, ...]]:
    """The table for the mesh in force: `SAMPLE` on a decode mesh, whose tensor axis the compiler
    fills in, else `TRAIN`."""
    is_decode = jax.sharding.AxisType.Auto in jax.sharding.get_abstract_mesh().axis_types
    return SAMPLE if is_decode else TRAIN


def make_mesh(config: MeshConfig, devices: Sequence | None = None) -> jax.sharding.Mesh:
    """Builds the mesh with explicit axes; one size may be -1 and takes what is left.

    Only axes of size 2 or more are in it (data alone if there is none): over an axis of size 1
    compilers would still emit collectives, which copy.
    TPU slices lie along data or, where that is no multiple of them, fsdp: only these two axes cross
    the slow network between slices.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or slices would lie along
        another axis.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    known = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if int(np.prod(sizes)) != len(devices):
        asked = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes))
        raise ValueError(
            f"mesh {asked} must multiply to the {len(devices)} devices present. "
            f"Set one of config.mesh.{', '.join(MESH_AXES)} to -1."
        )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    kept = {axis: size for axis, size in zip(MESH_AXES, sizes) if size > 1} or {"data": 1}
    types = (jax.sharding.AxisType.Explicit,) * len(kept)
    if devices[0].platform == "tpu":
        return jax.sharding.Mesh(_on_torus(kept, slices, devices), tuple(kept), types)
    return jax.make_mesh(tuple(kept.values()), tuple(kept), axis_types=types, devices=devices)


def _on_torus(sizes: dict[str, int], slices: int, devices: list) -> np.ndarray:
    """TPUs laid so that each axis lies along links, one that crosses slices along whole slices."""
    from jax.experimental import mesh_utils

    if slices == 1:
        # Two axes may share a dimension of the torus: 8 experts on 2 x 4 x 4 chips.
        return mesh_utils.create_device_mesh(
            tuple(sizes.values()), devices, allow_split_physical_axes=True
        )
    for axis in ("data", "fsdp"):
        if sizes.get(axis, 1) % slices == 0:
            across = [slices if name == axis else 1 for name in sizes]
            within = [size // part for size, part in zip(sizes.values(), across)]
            return mesh_utils.create_hybrid_device_mesh(
                within, across, devices, allow_split_physical_axes=True
            )
    raise ValueError(
        f"mesh data={sizes.get('data', 1)}, fsdp={sizes.get('fsdp', 1)}: one of them must be a "
        f"multiple of the {slices} TPU slices, which no other axis may cross. Set config.mesh.data "
        "or fsdp so."
    )


def platform() -> str:
    """ "cpu", "gpu" or "tpu": of the devices of the mesh in force, which need not be attached;
    without a mesh of those JAX takes by itself."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def parts(mesh: Any, *axes: str) -> int:
    """Into how many parts a training mesh, abstract or not, splits the logical axes."""
    names = {name for axis in axes for name in TRAIN[axis]}
    return math.prod(mesh.shape.get(name, 1) for name in names)


def padded(size: int, axis: str) -> int:
    """The next multiple of the parts into which the mesh in force splits the logical axis."""
    shape = jax.sharding.get_abstract_mesh().shape
    count = math.prod(shape.get(name, 1) for name in rules()[axis])
    return -(-size // count) * count


def batch_shards() -> tuple[list[int], int]:
    """Which shards of the batch axis this process's devices hold, rising, and how many there are.

    ([0], 1) without a mesh. Processes that share rows, and split weights, heads or time among them,
    hold the same shards.
    """
    rows = sharding("batch")
    if rows is None:
        return [0], 1
    count = parts(jax.sharding.get_abstract_mesh(), "batch")
    held = rows.addressable_devices_indices_map((count,)).values()
    return sorted({index[0].indices(count)[0] for index in held if index is not None}), count


def spec(*axes: str | None) -> jax.sharding.PartitionSpec | None:
    """PartitionSpec of logical axes on the mesh in force, or None without an explicit one of
    several devices: what JAX takes for no constraint.

    Raises:
      KeyError: a misspelt axis.
      ValueError: two of the axes lie on one mesh axis.
    """
    entries = _entries(axes)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return None
    return entries


def sharding(*axes: str | None) -> jax.sharding.NamedSharding | None:
    """NamedSharding of logical axes on the mesh in force, or None without one."""
    if jax.sharding.get_abstract_mesh().empty:
        return None
    return jax.sharding.NamedSharding(jax.sharding.get_mesh(), _entries(axes))


def _entries(axes: Sequence[str | None]) -> jax.sharding.PartitionSpec:
    table, sizes = rules(), jax.sharding.get_abstract_mesh().shape
    split = [() if axis is None else table[axis] for axis in axes]
    split = [tuple(name for name in names if sizes.get(name, 1) > 1) for names in split]
    used = [name for names in split for name in names]
    if twice := [name for name in dict.fromkeys(used) if used.count(name) > 1]:
        raise ValueError(
            f"an array of axes {axes} lies twice on mesh axis {', '.join(twice)}. "
            "Give its axes rules in jssd/sharding.py that do not overlap."
        )
    return jax.sharding.PartitionSpec(
        *(names[0] if len(names) == 1 else names or None for names in split)
    )


def on_shards(function: Callable, in_axes: tuple, out_axes: Any) -> Callable:
    """`function` run on each device's shards of its arguments, or as it is without a mesh.

    Args:
      function: of arrays, or trees of them, as one device sees them.
      in_axes: per argument a tuple of logical axes for all its leaves, or None for "as it lies".
      out_axes: tree like the result with tuples of logical axes for leaves; a result that is the
        same on several devices must be computed alike on them.

    Gradients of what several devices share are summed over them.
    """
    # A mesh of one device too is left by this way: JAX knows no grouped products on explicit axes.
    if jax.sharding.AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
        return function

    def call(*args):
        is_axes = lambda node: (
            isinstance(node, tuple) and all(axis is None or isinstance(axis, str) for axis in node)
        )
        where = tuple(
            jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, arg)
            if axes is None
            else _entries(axes)
            for arg, axes in zip(args, in_axes)
        )
        out = jax.tree.map(_entries, out_axes, is_leaf=is_axes)
        # The checks of `check_vma` refuse the attention kernels that ship in JAX.
        return jax.shard_map(function, in_specs=where, out_specs=out, check_vma=False)(*args)

    return call


def over(*axes: str) -> tuple[str, ...]:
    """Mesh axes that split the logical axes on the shards of `on_shards`; none elsewhere."""
    mesh = jax.sharding.get_abstract_mesh()
    names = dict.fromkeys(name for axis in axes for name in rules()[axis])
    return tuple(name for name in names if name in mesh.manual_axes and mesh.shape[name] > 1)


def shards(*axes: str) -> int:
    """Into how many parts the logical axes are split on the shards of `on_shards`."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[name] for name in over(*axes))


# Axis by axis, and along the first axis of the array: compilers make a reduce-scatter over several
# axes of a mesh an all-reduce of the whole, libtpu also one along an array's later axes, and the
# transpose of a gather is such a one.
def gather(x: jax.Array, number: int, axis: str) -> jax.Array:
    """All of `x` along its axis `number`, which lies on logical `axis`."""
    if not over(axis):
        return x
    x = jax.numpy.moveaxis(x, number, 0)
    for name in reversed(over(axis)):
        x = jax.lax.all_gather(x, name, axis=0, tiled=True)
    return jax.numpy.moveaxis(x, 0, number)


def scatter(x: jax.Array, number: int, axis: str) -> jax.Array:
    """This shard's part, along axis `number`, of the sum of `x` over the shards of `axis`."""
    for name in over(axis):
        x = jax.lax.psum_scatter(x, name, scatter_dimension=number, tiled=True)
    return x


def total(x: Any, *axes: str) -> Any:
    """Sum of each leaf over the shards that split the logical axes."""
    names = over(*axes)
    return jax.lax.psum(x, names) if names else x


def largest(x: jax.Array, *axes: str) -> jax.Array:
    """Maximum over the shards that split the logical axes. It has no gradient."""
    names = over(*axes)
    x = jax.lax.stop_gradient(x)
    return jax.lax.pmax(x, names) if names else x


def first(size: int, axis: str) -> jax.Array | int:
    """Where this shard's `size` places begin on an axis that lies on logical `axis`."""
    return jax.lax.axis_index(names) * size if (names := over(axis)) else 0


def own(ids: jax.Array, size: int, axis: str) -> tuple[jax.Array, jax.Array]:
    """Ids among this shard's `size` places, 0 for those of others, and a mask of its own."""
    ids = ids - first(size, axis)
    mine = (ids >= 0) & (ids < size)
    return jax.numpy.where(mine, ids, 0), mine


def balanced_order(length: int, count: int) -> np.ndarray:
    """Which token of a row lies at each place when `count` devices share the row, [length] int.

    Causal attention costs more for later tokens; so the row is cut into twice as many pieces and
    device i holds pieces i and 2 * count - 1 - i.
    """
    pieces = np.arange(length).reshape(2 * count, -1)
    first = np.arange(count)
    pairs = np.stack([first, 2 * count - 1 - first], axis=1).ravel()
    return pieces[pairs if count > 1 else [0, 1]].ravel()


def check_divisible(sizes: dict[str, tuple[int, str]]) -> None:
    """Refuses sizes that the mesh in force cannot split.

    Args:
      sizes: name of a number -> (the number, the logical axis it lies on).

    Raises:
      ValueError: one message with every size that does not divide.
    """
    if errors := indivisible(sizes):
        raise ValueError(told(errors))


def indivisible(sizes: dict[str, tuple[int, str]]) -> list[str]:
    """Of the sizes of `check_divisible` those that the mesh in force cannot split, in words."""
    mesh = jax.sharding.get_abstract_mesh()
    errors = []
    for name, (size, axis) in sizes.items():
        names = [name for name in rules()[axis] if name in mesh.shape]
        count = math.prod(mesh.shape[name] for name in names)
        if size % count:
            words = "*".join(names)
            errors.append(f"{name}={size} must be a multiple of mesh {words}={count}")
    return errors


def told(errors: Sequence[str]) -> str:
    """What `indivisible` found as one message with the way out."""
    return "; ".join(errors) + ". Choose a mesh whose axes divide these sizes."


def check_length(length: int, count: int) -> None:
    """Raises ValueError for rows that `balanced_order` can't cut for `count` devices."""
    if count > 1 and length % (2 * count):
        raise ValueError(
            f"train.seq_len, or a bucket below it, is {length}: must be a multiple of "
            f"{2 * count}, twice mesh context={count}. Change one of them."
        )
