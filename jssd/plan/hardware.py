"""The accelerators a plan can be for, as data, and their names: v5p-64, 2xv5e-256, b200x8.

Names of TPU slices are Google's: `v5p-N` and `tpu7x-N` count TensorCores, two a chip; `v5e-N` and
`v6e-N` count chips. A topology says the shape itself, in chips: `tpu7x-4x4x4`. `2x` before a name
is two such slices. GPUs are counted: `b200x64` is eight hosts of eight.
"""

import dataclasses
import math
import re

from jssd.train import flops

GIB = 2**30
# Of a GPU's memory that programs get: XLA_PYTHON_CLIENT_MEM_FRACTION, whose default is 0.75. NVIDIA
# and Google name 0.9 and more for large runs.
GPU_FRACTION = 0.92
GPUS_PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator. All numbers are per JAX device; a TPU7x chip shows as two.

    Attributes:
      platform: "tpu" or "cuda".
      kind: JAX's `device_kind`.
      devices: JAX devices of a chip.
      hbm: bytes a program may use.
      hbm_bandwidth: bytes a second.
      link: bytes a second one way: of one ICI link of a TPU, of all of a GPU's NVLinks.
      network: bytes a second one way between slices (TPU) or hosts (GPU).
      ring: chips from which a dimension of the ICI torus is closed to a ring.
      multiprocessors: of a GPU.
    """

    platform: str
    kind: str
    devices: int
    hbm: int
    hbm_bandwidth: float
    link: float
    network: float
    ring: int = 0
    multiprocessors: int = 0

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        peak = flops.peak_flops(self.kind)
        assert peak is not None, self.kind
        return peak


# Bandwidths of TPUs: docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e,tpu7x}. ICI is given there
# per chip: v5e 1,600 and v6e 3,200 Gb/s over 4 ports, v5p and TPU7x 1,200 GB/s both ways over 6.
# DCN per chip: v5e 6.4 Tb/s and v6e 25.6 Tb/s a pod of 256, v5p 50 Gb/s, TPU7x 100 Gb/s. HBM: what
# the compiler of libtpu 0.0.42 says is available, a little less than on the data sheet.
# GPUs: memory and its bandwidth as the driver reports them; NVLink 4 and 5 are 900 and 1,800 GB/s
# both ways; the network is 400 Gb/s a GPU (Google's A3 Ultra and A4, NVIDIA's DGX).
CHIPS = {
    "v5e": Chip("tpu", "TPU v5 lite", 1, int(15.75 * GIB), 819e9, 50e9, 3.125e9, ring=16),
    "v6e": Chip("tpu", "TPU v6 lite", 1, int(31.25 * GIB), 1638e9, 100e9, 12.5e9, ring=16),
    "v5p": Chip("tpu", "TPU v5", 1, int(95.74 * GIB), 2765e9, 100e9, 6.25e9, ring=4),
    # The two devices of a chip share its links.
    "tpu7x": Chip("tpu", "TPU7x", 2, int(94.75 * GIB), 3690e9, 50e9, 6.25e9, ring=4),
    "h100": Chip(
        "cuda", "NVIDIA H100 80GB HBM3", 1, 84942979072, 3352e9, 450e9, 50e9, multiprocessors=132
    ),
    "h200": Chip("cuda", "NVIDIA H200", 1, 150754820096, 4804e9, 450e9, 50e9, multiprocessors=132),
    "b200": Chip("cuda", "NVIDIA B200", 1, 191514411008, 7672e9, 900e9, 50e9, multiprocessors=148),
}
# Shapes in chips of the slices on sale, by the number of chips.
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBIC = (
    (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8),
    (8, 8, 16), (8, 16, 16), (16, 16, 16),
)  # fmt: skip
_SHAPES = {"v5e": _FLAT, "v6e": _FLAT, "v5p": _CUBIC, "tpu7x": _CUBIC}
_CORES = ("v5p", "tpu7x")  # Names that count TensorCores, two a chip.


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Accelerators of one kind.

    Attributes:
      name: as the user writes it.
      model: a key of `CHIPS`.
      shape: chips of a slice along each dimension; for GPUs (hosts, GPUs of a host).
      slices: TPU slices joined by the data-center network.
    """

    name: str
    model: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """What is known about one device."""
        return CHIPS[self.model]

    @property
    def num_devices(self) -> int:
        """JAX devices, over all slices."""
        return math.prod(self.shape) * self.slices * self.chip.devices

    @property
    def memory(self) -> int:
        """Bytes of a device that a program may use."""
        return int(self.chip.hbm * (GPU_FRACTION if self.chip.platform == "cuda" else 1))

    @property
    def topology(self) -> str:
        """The shape as JAX's compile-only topologies take it."""
        if self.chip.platform == "cuda":
            return "1x" + "x".join(map(str, self.shape))
        return f"{self.model}:" + "x".join(map(str, self.shape))

    @property
    def host_bounds(self) -> tuple[int, ...] | None:
        """Chips of a host along x, y and z where that is not the usual 2x2x1."""
        if self.model in ("v5e", "v6e") and self.shape in ((1, 1), (2, 4)):
            return (*self.shape, 1)  # One host has one, or eight, chips.
        return None


def parse(name: str) -> Hardware:
    """The hardware of a name.

    Raises:
      ValueError: an unknown name; says which exist.
    """
    if match := re.fullmatch(r"(b200|h100|h200)x(\d+)", name):
        model, count = match[1], int(match[2])
        if 1 <= count <= GPUS_PER_HOST:
            return Hardware(name, model, (1, count))
        if count and count % GPUS_PER_HOST == 0:
            return Hardware(name, model, (count // GPUS_PER_HOST, GPUS_PER_HOST))
        raise ValueError(f"hardware={name!r} must be up to 8 GPUs, or hosts of 8: a multiple of 8.")
    match = re.fullmatch(r"(?:(\d+)x)?(v5e|v6e|v5p|tpu7x)-(\d+(?:x\d+)*)", name)
    if not match or match[1] == "0":
        raise ValueError(f"hardware={name!r} is unknown. There are {known()}.")
    slices, model = int(match[1] or 1), match[2]
    shape = tuple(map(int, match[3].split("x")))
    if len(shape) == 1:
        per_chip = 2 if model in _CORES else 1
        shapes = {per_chip * math.prod(chips): chips for chips in _SHAPES[model]}
        if shape[0] not in shapes:
            sizes = ", ".join(map(str, shapes))
            raise ValueError(
                f"hardware={name!r} must be one of {model}-{{{sizes}}}, or say its shape in chips, "
                f"e.g. {model}-{'x'.join(map(str, _SHAPES[model][4]))}."
            )
        return Hardware(name, model, shapes[shape[0]], slices)
    if len(shape) != len(_SHAPES[model][0]) or 0 in shape:
        raise ValueError(
            f"hardware={name!r} must have {len(_SHAPES[model][0])} dimensions of chips, e.g. "
            f"{model}-{'x'.join(map(str, _SHAPES[model][4]))}."
        )
    return Hardware(name, model, shape, slices)


def known() -> str:
    """The names that `parse` takes, in words."""
    return (
        "TPU slices v5e-N and v6e-N (chips), v5p-N and tpu7x-N (cores, two a chip), shapes like "
        "v5p-4x4x8, several slices like 2xv5e-256, and GPUs h100xN, h200xN and b200xN"
    )


def up_to(largest: Hardware) -> list[Hardware]:
    """`largest` and the smaller hardware of its kind on sale, smallest first.

    The number of slices stays.
    """
    if largest.chip.platform == "cuda":
        hosts, gpus = largest.shape
        counts = [1 << i for i in range(gpus.bit_length()) if 1 << i <= gpus]
        counts += [GPUS_PER_HOST << i for i in range(1, hosts.bit_length()) if 1 << i < hosts]
        smaller = [parse(f"{largest.model}x{count}") for count in counts]
    else:
        prefix = f"{largest.slices}x" if largest.slices > 1 else ""
        smaller = [
            parse(f"{prefix}{largest.model}-{math.prod(shape) * (1 + (largest.model in _CORES))}")
            for shape in _SHAPES[largest.model]
        ]
    return [one for one in smaller if one.num_devices < largest.num_devices] + [largest]
