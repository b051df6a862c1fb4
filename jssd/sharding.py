"""The mesh, and the one table from logical axes to mesh axes.

Arrays are described in logical words; `spec` turns them into a `PartitionSpec` for the mesh in
force. Without a mesh `spec` is None, which every `out_sharding=` argument of JAX reads as "no
constraint", so the same model code runs on one device with no mesh at all.
"""

from collections.abc import Sequence

import jax
import numpy as np

from jssd.config import MeshConfig

MESH_AXES = ("data", "fsdp", "tensor", "expert", "context")

# Weights are split by their embed axis over every axis that holds other data, and over tensor by
# the other one; activations by batch and time. One table serves dense models and mixtures of
# experts: only the latter have "experts", whose weights the expert axis splits whole.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "seq": ("context",),
    "act_embed": (),  # The width of activations stays whole; "embed" is the width of weights.
    "embed": ("fsdp", "expert", "context"),
    "expert_embed": ("fsdp", "context"),  # Of a weight that has "experts" too.
    "experts": ("expert",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
}


def make_mesh(config: MeshConfig, devices: Sequence | None = None) -> jax.sharding.Mesh:
    """Builds the mesh with explicit axes; one size may be -1 and takes what is left.

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
    types = (jax.sharding.AxisType.Explicit,) * len(MESH_AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1 and devices[0].platform == "tpu":
        return jax.sharding.Mesh(_over_slices(sizes, slices, devices), MESH_AXES, types)
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=types, devices=devices)


def _over_slices(sizes: list[int], slices: int, devices: list) -> np.ndarray:
    """Devices of several TPU slices, an axis that crosses them laid along whole slices."""
    from jax.experimental import mesh_utils

    across = [1] * len(sizes)
    for index in (MESH_AXES.index("data"), MESH_AXES.index("fsdp")):
        if sizes[index] % slices == 0:
            across[index] = slices
            within = [size // part for size, part in zip(sizes, across)]
            return mesh_utils.create_hybrid_device_mesh(within, across, devices)
    raise ValueError(
        f"mesh data={sizes[0]}, fsdp={sizes[1]}: one of them must be a multiple of the {slices} "
        "TPU slices, which no other axis may cross. Set config.mesh.data or fsdp so."
    )


def decode_mesh(mesh: jax.sharding.Mesh, host: int | None = None) -> jax.sharding.Mesh:
    """The same devices for sampling: axes data and tensor, filled in by the compiler.

    Weights are not split over fsdp there: a decode step would gather all of them for one token.

    Args:
      mesh: of training.
      host: only the devices of this process index.

    Raises:
      ValueError: tensor reaches over several hosts, which sample each for themselves.
    """
    types = (jax.sharding.AxisType.Auto,) * 2
    tensor_last = np.moveaxis(mesh.devices, MESH_AXES.index("tensor"), -1)
    devices = tensor_last.reshape(-1, mesh.shape["tensor"])
    hosts = np.vectorize(lambda device: device.process_index, otypes=[int])(devices)
    if (hosts != hosts[:, :1]).any():
        raise ValueError(
            f"mesh.tensor={mesh.shape['tensor']} reaches over several hosts as it lies on these "
            f"{devices.size} devices, {(hosts == hosts[0, 0]).sum()} a host, and each host samples "
            "for itself. Lower it."
        )
    if host is not None:
        devices = devices[hosts[:, 0] == host]
    return jax.sharding.Mesh(devices, ("data", "tensor"), axis_types=types)


def decode_spec(spec: jax.sharding.PartitionSpec) -> jax.sharding.PartitionSpec:
    """A weight's place on the decode mesh, given its place in training: only tensor stays."""
    return jax.sharding.PartitionSpec(*(axis if axis == "tensor" else None for axis in spec))


def spec(*axes: str | None) -> jax.sharding.PartitionSpec | None:
    """PartitionSpec of logical axes on the mesh in force, or None without an explicit one.

    A misspelt axis is a KeyError.
    """
    rules = [() if axis is None else RULES[axis] for axis in axes]
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return None
    return jax.sharding.PartitionSpec(
        *(rule[0] if len(rule) == 1 else rule or None for rule in rules)
    )


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
        names = RULES[axis]
        parts = int(np.prod([mesh.shape[axis_name] for axis_name in names], dtype=int))
        if size % parts:
            errors.append(f"{name}={size} must be a multiple of mesh {'*'.join(names)}={parts}")
    if errors:
        raise ValueError("; ".join(errors) + ". Choose a mesh whose axes divide these sizes.")
