"""The mesh, and the one table from logical axes to mesh axes.

Arrays are described in logical words; `spec` turns them into a `PartitionSpec` for the mesh in
force. Without a mesh `spec` is None, which every `out_sharding=` argument of JAX reads as "no
constraint", so the same model code runs on one device with no mesh at all.
"""

from collections.abc import Sequence

import jax
import numpy as np

from jssd.config import MeshConfig

MESH_AXES = ("data", "fsdp", "tensor")

# Weights are split over fsdp by their embed axis and over tensor by the other one; activations are
# split by batch.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "seq": None,
    "act_embed": None,  # The width of activations stays whole; "embed" is the width of weights.
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
}


def make_mesh(config: MeshConfig, devices: Sequence | None = None) -> jax.sharding.Mesh:
    """Builds the mesh with explicit axes; one size may be -1 and takes what is left.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [config.data, config.fsdp, config.tensor]
    known = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if int(np.prod(sizes)) != len(devices):
        asked = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes))
        raise ValueError(
            f"mesh {asked} must multiply to the {len(devices)} devices present. "
            "Set one of config.mesh.data, fsdp, tensor to -1."
        )
    types = (jax.sharding.AxisType.Explicit,) * 3
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=types, devices=devices)


def decode_mesh(mesh: jax.sharding.Mesh, local: bool = False) -> jax.sharding.Mesh:
    """The same devices for sampling: axes data and tensor, filled in by the compiler.

    Weights are not split over fsdp there: a decode step would gather all of them for one token.

    Args:
      mesh: of training.
      local: only the devices of this host.

    Raises:
      ValueError: tensor reaches over several hosts, which sample each for themselves.
    """
    types = (jax.sharding.AxisType.Auto,) * 2
    devices = mesh.devices.reshape(-1, mesh.shape["tensor"])
    hosts = np.vectorize(lambda device: device.process_index, otypes=[int])(devices)
    if (hosts != hosts[:, :1]).any():
        raise ValueError(
            f"mesh.tensor={mesh.shape['tensor']} reaches over several hosts, and each host samples "
            f"for itself. Lower it to at most {jax.local_device_count()}, the devices of a host."
        )
    if local:
        devices = devices[hosts[:, 0] == jax.process_index()]
    return jax.sharding.Mesh(devices, ("data", "tensor"), axis_types=types)


def decode_spec(spec: jax.sharding.PartitionSpec) -> jax.sharding.PartitionSpec:
    """A weight's place on the decode mesh, given its place in training: only tensor stays."""
    return jax.sharding.PartitionSpec(*(axis if axis == "tensor" else None for axis in spec))


def spec(*axes: str | None) -> jax.sharding.PartitionSpec | None:
    """PartitionSpec of logical axes on the mesh in force, or None without an explicit one.

    A misspelt axis is a KeyError.
    """
    entries = [None if axis is None else RULES[axis] for axis in axes]
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return None
    return jax.sharding.PartitionSpec(*entries)


def sharding(*axes: str | None) -> jax.sharding.Sharding | None:
    """NamedSharding of logical axes on the mesh in force, or None without one."""
    entries = spec(*axes)
    if entries is None:
        return None
    return jax.sharding.NamedSharding(jax.sharding.get_mesh(), entries)


def check_divisible(sizes: dict[str, tuple[int, str]]) -> None:
    """Refuses sizes that the mesh in force cannot split.

    Args:
      sizes: name of a number -> (the number, the logical axis it lies on).

    Raises:
      ValueError: one message with every size that does not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return
    errors = []
    for name, (size, axis) in sizes.items():
        rule = RULES[axis]
        names = (rule,) if isinstance(rule, str) else rule or ()
        parts = int(np.prod([mesh.shape[axis_name] for axis_name in names], dtype=int))
        if size % parts:
            errors.append(f"{name}={size} must be a multiple of mesh {'*'.join(names)}={parts}")
    if errors:
        raise ValueError("; ".join(errors) + ". Choose a mesh whose axes divide these sizes.")
