"""Each host samples by itself: how its devices lie then, whatever the mesh of training.

So no device waits for another host's at every token, and hosts may draw at their own pace.
"""

import math

import jax
import numpy as np


def decode_mesh(mesh: jax.sharding.Mesh, host: int | None = None) -> jax.sharding.Mesh:
    """The same devices for sampling: axes data, expert and tensor, filled in by the compiler.

    Expert and tensor lie within hosts, also where in training they do not; data has the rest. Of
    expert it takes what divides the devices that tensor leaves of a host: a host holds all experts
    in any case, and its devices then hold more of them each.

    Args:
      mesh: of training; of the same tensor.
      host: only the devices of this process.

    Raises:
      ValueError: tensor does not divide the devices of a host, which sample by themselves.
    """
    if told := problem(mesh):
        raise ValueError(told)
    of_host = _by_host(mesh)
    sizes = (expert_size(mesh), mesh.shape.get("tensor", 1))
    kept = of_host.values() if host is None else [of_host[host]]
    devices = np.concatenate([np.array(own, object).reshape(-1, *sizes) for own in kept])
    types = (jax.sharding.AxisType.Auto,) * 3
    return jax.sharding.Mesh(devices, ("data", "expert", "tensor"), axis_types=types)


def problem(mesh: jax.sharding.Mesh) -> str:
    """Why hosts of this training mesh cannot sample; "" where they can."""
    tensor = mesh.shape.get("tensor", 1)
    least = min(map(len, _by_host(mesh).values()))
    if all(len(own) % tensor == 0 for own in _by_host(mesh).values()):
        return ""
    return (
        f"mesh.tensor={tensor} must divide the {least} devices of a host, for each host samples by "
        f"itself. Set mesh.tensor={math.gcd(tensor, least)} for the stages that sample."
    )


def expert_size(mesh: jax.sharding.Mesh) -> int:
    """Size of the axis expert of `decode_mesh`."""
    tensor = mesh.shape.get("tensor", 1)
    left = [len(own) // tensor for own in _by_host(mesh).values()]
    return math.gcd(mesh.shape.get("expert", 1), *left)


def note(mesh: jax.sharding.Mesh) -> str:
    """One line where sampling splits experts less than training does; else ""."""
    trained, expert = mesh.shape.get("expert", 1), expert_size(mesh)
    if expert == trained:
        return ""
    own = min(map(len, _by_host(mesh).values()))
    return (
        f"sampling splits experts over {expert} devices, not over mesh.expert={trained}: each of "
        f"the hosts has {own} devices and samples by itself"
    )


def _by_host(mesh: jax.sharding.Mesh) -> dict[int, list]:
    """The devices of each process, those of expert and tensor next to one another."""
    inner = [name for name in ("expert", "tensor") if name in mesh.shape]
    outer = [name for name in mesh.axis_names if name not in inner]
    order = [mesh.axis_names.index(name) for name in (*outer, *inner)]
    of_host: dict[int, list] = {}
    for device in mesh.devices.transpose(order).flat:
        of_host.setdefault(device.process_index, []).append(device)
    return of_host
