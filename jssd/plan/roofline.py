"""How fast a compiled program can be at best: arithmetic, memory and links, each at its full speed.

Assumed, and printed with every figure (`ASSUMPTIONS`): nothing else takes time. So the bound holds
however well a run overlaps; a run that overlaps nothing takes the sum.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jssd.plan.hardware import Chip, Hardware
from jssd.plan.hlo import Collective

ASSUMPTIONS = (
    "matmuls run at the chip's bfloat16 peak",
    "collectives are rings: a device sends (n-1)/n of the result, twice that for an all-reduce",
    "between TPU slices, or hosts of GPUs, members of a group share the way out evenly",
    "a group that lies along several dimensions of the ICI torus uses the links of all, both ways "
    "where a dimension closes to a ring",
    "the least bound is the slowest of arithmetic, memory and links, fully overlapped; the sum is "
    "with no overlap",
)


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one run of a program, each resource by itself."""

    compute: float
    memory: float
    links: float  # ICI or NVLink.
    network: float  # Between slices or hosts.

    @property
    def bound(self) -> float:
        """No run is faster."""
        return max(dataclasses.astuple(self))

    @property
    def serial(self) -> float:
        """With no overlap at all."""
        return sum(dataclasses.astuple(self))

    @property
    def limit(self) -> str:
        """Which resource the bound is of."""
        seconds = dataclasses.asdict(self)
        return max(seconds, key=lambda name: seconds[name])

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        extra = {"bound": self.bound, "serial": self.serial, "limit": self.limit}
        return dataclasses.asdict(self) | extra


def times(
    chip: Chip, *, device_flops: float, device_traffic: float, links: float, network: float
) -> Times:
    """The times of one run.

    Args:
      chip: the device.
      device_flops: matmul FLOPs of a device.
      device_traffic: bytes it reads from and writes to its memory.
      links: seconds in collectives over ICI or NVLink (`collective_times`).
      network: seconds in collectives between slices or hosts.
    """
    return Times(device_flops / chip.peak, device_traffic / chip.hbm_bandwidth, links, network)


def collective_times(
    found: Sequence[Collective], hardware: Hardware, devices: list
) -> tuple[float, float]:
    """Seconds in collectives inside a slice or host, and between them.

    Args:
      found: the collectives of a program.
      hardware: for the bandwidths.
      devices: of the program, in its order.
    """
    domain = [
        getattr(device, "slice_index", 0) or 0
        if hardware.chip.platform == "tpu"
        else device.process_index
        for device in devices
    ]
    inside = between = 0.0
    for one in found:
        group = one.groups[0]
        members = [domain[device] for device in group]
        crossed, share = len(set(members)), max(map(members.count, members))
        sent = one.bytes * one.times
        if one.kind == "collective-permute":
            crossings = sum(domain[a] != domain[b] for a, b in one.groups) / len(one.groups)
            between += crossings * sent / hardware.chip.network
            inside += sent / _bandwidth(hardware, [devices[device] for device in group])
            continue
        if share > 1:
            local = [device for device in group if domain[device] == members[0]]
            inside += sent / _bandwidth(hardware, [devices[device] for device in local])
        if crossed > 1:
            # Reduced or gathered inside first: what goes out is cut into as many parts as members.
            whole = sent * len(group) / (len(group) - 1)
            between += whole * (crossed - 1) / crossed / share / hardware.chip.network
    return inside, between


def _bandwidth(hardware: Hardware, group: list) -> float:
    """Bytes a second that a member of a group can send inside its slice or host."""
    if hardware.chip.platform != "tpu":
        return hardware.chip.link
    coords = np.array([device.coords[: len(hardware.shape)] for device in group])
    lying = np.flatnonzero((coords != coords[0]).any(axis=0))
    ways = sum(2 if hardware.shape[axis] >= hardware.chip.ring else 1 for axis in lying)
    return hardware.chip.link * max(ways, 1)


def train_traffic(state: float, gathered: float, layer_inputs: float, micro_batches: int) -> float:
    """Bytes of memory traffic of a step on one device, at least.

    The state is read and written once. In each micro-batch weights are read three times as a device
    multiplies with them (forward, recomputed, backward; `gathered` bytes), the input of each layer
    is written and read (`layer_inputs` bytes), and the sum of gradients, as large as a third of the
    state, is read and written.
    """
    return 2 * state + micro_batches * (3 * gathered + 2 * layer_inputs + 2 * state / 3)


# Slots a share beyond which a step takes in proportion longer, on every chip here: arithmetic, not
# reading the weights, is then what it waits for.
MOST_SLOTS = 512


def slots_that_fit(memory: float, fixed: float, per_slot: float, multiple: int) -> int:
    """Most slots, a multiple of `multiple`, whose bytes fit beside the `fixed` ones.

    At most `MOST_SLOTS` in each of the `multiple` parts.
    """
    if fixed >= memory:
        return 0
    return min(math.floor((memory - fixed) / per_slot / multiple), MOST_SLOTS) * multiple
