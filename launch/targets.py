"""What runs where: GKE's names of hardware, and the jobs whose manifests are committed."""

import dataclasses
import math

from jssd.plan import hardware
from jssd.plan.hardware import Hardware

CHIPS_PER_HOST = 4  # Of GKE's TPU machines named here.


@dataclasses.dataclass(frozen=True)
class Pool:
    """A kind of node pool.

    Attributes:
      accelerator: label cloud.google.com/gke-tpu-accelerator, or gke-accelerator for GPUs.
      machine: Compute Engine's machine type.
      host: the hardware of one host, by a name that stage plan knows.
    """

    accelerator: str
    machine: str
    host: str


# AI-Hypercomputer/xpk's table of systems (2026-06) and, for GPUs, its A4 charts.
POOLS = {
    "v5e": Pool("tpu-v5-lite-podslice", "ct5lp-hightpu-4t", "v5e-4"),
    "v5p": Pool("tpu-v5p-slice", "ct5p-hightpu-4t", "v5p-8"),
    "v6e": Pool("tpu-v6e-slice", "ct6e-standard-4t", "v6e-4"),
    "tpu7x": Pool("tpu7x", "tpu7x-standard-4t", "tpu7x-2x2x1"),
    "b200": Pool("nvidia-b200", "a4-highgpu-8g", "b200x8"),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One manifest.

    Attributes:
      name: of the Kubernetes object; with its work directory the only thing that must be unique.
      kind: "gang": processes that work together, a JobSet that starts again as a whole.
        "indexed": `shards` processes that know nothing of each other, a Job whose pods start again
        alone; each has one host.
      hardware: a name that stage plan knows; of an indexed job, of each of its hosts.
      flags: of jssd.main, after --config, --workdir and --stages.
    """

    name: str
    kind: str
    hardware: str
    config: str
    workdir: str
    stages: tuple[str, ...]
    flags: tuple[str, ...] = ()
    shards: int = 1
    image: str = ""
    queue: str = "jssd"
    spot: bool = False
    reservation: str = ""

    def __post_init__(self):
        target = self.target
        if self.kind not in ("gang", "indexed"):
            raise ValueError(f"kind={self.kind!r} must be gang or indexed.")
        if target.model not in POOLS:
            raise ValueError(f"hardware={self.hardware!r} must be of {', '.join(POOLS)} on GKE.")
        if not self.stages:
            raise ValueError("stages=() must name what runs, e.g. sft,export.")
        if self.kind == "indexed":
            if hosts(target) != 1 or target.slices != 1:
                raise ValueError(
                    f"hardware={self.hardware!r} must be one host for indexed work, e.g. "
                    f"{POOLS[target.model].host}: its pods know nothing of each other."
                )
            if self.shards > 1 and not set(self.stages) <= {"sample", "evaluate"}:
                raise ValueError(
                    f"stages={','.join(self.stages)} can't be split into shards={self.shards}; "
                    "sample and evaluate can."
                )
        elif self.shards != 1:
            raise ValueError(f"shards={self.shards} is for indexed work; a gang shares its work.")
        if self.spot and self.reservation:
            raise ValueError("spot and reservation exclude one another.")

    @property
    def target(self) -> Hardware:
        """The hardware, parsed."""
        return hardware.parse(self.hardware)


def hosts(target: Hardware) -> int:
    """Hosts of a slice, or of all GPUs.

    Raises:
      ValueError: a slice that is not made of whole hosts.
    """
    if target.chip.platform == "cuda":
        if target.shape[1] != hardware.GPUS_PER_HOST:
            raise ValueError(
                f"hardware={target.name!r} must have whole hosts of {hardware.GPUS_PER_HOST} GPUs."
            )
        return target.shape[0]
    chips = math.prod(target.shape)
    if chips % CHIPS_PER_HOST:
        raise ValueError(f"hardware={target.name!r} must have whole hosts of 4 chips.")
    if target.model in ("v5e", "v6e") and target.shape == (2, 4):
        raise ValueError(
            f"hardware={target.name!r} is a host of 8 chips in some pools and 2 of 4 in others. "
            f"Use {target.model}-4 or {target.model}-16."
        )
    return chips // CHIPS_PER_HOST


_CONFIG, _WORKDIR = "configs/qwen3_4b_instruct.py", "/runs/qwen3_4b_instruct"
_TRAIN = ("sample", "sft", "export")  # Sample takes up what shards have drawn.


def _gang(name: str, hardware: str, *mesh: str) -> Job:
    flags = tuple(f"--config.{one}" for one in mesh)
    return Job(f"jssd-{name}", "gang", hardware, _CONFIG, _WORKDIR, _TRAIN, flags)


def _shards(name: str, hardware: str, *flags: str) -> Job:
    flags = tuple(f"--config.{one}" for one in flags)
    return Job(f"jssd-{name}", "indexed", hardware, _CONFIG, _WORKDIR, ("sample",), flags, shards=8)


# Meshes are those of the presets' plan tables; a test compares.
COMMITTED = (
    _gang("v5e-sft", "v5e-256", "mesh.fsdp=32", "mesh.context=8"),
    _gang("v5p-sft", "v5p-64", "mesh.fsdp=32"),
    _gang("v6e-sft", "v6e-64", "mesh.fsdp=32", "mesh.context=2"),
    _gang("tpu7x-sft", "tpu7x-4x4x4", "mesh.fsdp=32", "mesh.context=4"),
    _gang("b200-sft", "b200x8", "mesh.fsdp=8", "train.grad_accum=4"),
    _gang("v6e-slices-sft", "2xv6e-64", "mesh.data=2", "mesh.fsdp=16", "mesh.context=4"),
    _gang("b200-hosts-sft", "b200x16", "mesh.fsdp=16", "train.grad_accum=2"),
    _shards("v5e-sample", "v5e-4", "mesh.tensor=4", "engine.slots=6"),
    _shards("v5p-sample", "v5p-8", "engine.slots=40"),
    _shards("v6e-sample", "v6e-4", "engine.slots=8"),
    _shards("tpu7x-sample", "tpu7x-2x2x1", "engine.slots=64"),
    _shards("b200-sample", "b200x8"),
)
