"""Which mesh, how many micro-batches, how small a slice: candidates in the order in which they are
worth compiling.

Meshes that cannot work (sizes that do not divide) or cannot fit (weights, optimizer and the inputs
of layers alone are too large) are left out; the rest are ordered by an estimate of their step time.
What is compiled, and how, is the caller's.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from jssd.config import Config, MeshConfig
from jssd.model.config import ModelConfig
from jssd.plan.architectures import num_params
from jssd.plan.hardware import Hardware
from jssd.train import flops

_ALIKE = 0.05  # Estimates closer than this share are alike.


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh with so many micro-batches a step, the least memory it takes (bytes of a device) and
    an estimate of its step time."""

    mesh: MeshConfig
    grad_accum: int
    least: float
    seconds: float


# A mesh and micro-batches that were compiled, and the result.
Fitting = tuple[MeshConfig, int, dict[str, Any]]


def candidates(config: Config, cfg: ModelConfig, hardware: Hardware) -> list[Candidate]:
    """The meshes of `hardware` that may fit, the most promising first.

    With few micro-batches before those with more, from the config's own on: each gathers the
    weights again.
    """
    found = []
    meshes, batch = _meshes(hardware.num_devices), config.train.global_batch_size
    for accum in range(config.train.grad_accum, batch + 1):
        if batch % accum:
            continue
        cut = accumulating(config, accum)
        for mesh in meshes:
            if not possible(mesh, cut, cfg, hardware):
                continue
            least = least_bytes(mesh, cut, cfg)
            if least <= hardware.memory:
                seconds = estimate(mesh, cut, cfg, hardware)
                found.append(Candidate(mesh, accum, least, seconds))

    def rank(one: Candidate):
        # The estimate is rough: of those within a few percent, the one that takes least memory.
        rough = round(math.log(one.seconds) / _ALIKE)
        return one.grad_accum, rough, _axes_in_use(one.mesh), one.least

    return sorted(found, key=rank)


def accumulating(config: Config, grad_accum: int) -> Config:
    """The config with so many micro-batches a step."""
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, grad_accum=grad_accum)
    )


def smallest(
    config: Config,
    cfg: ModelConfig,
    sizes: Sequence[Hardware],
    compile_train: Callable[[Hardware, MeshConfig, int], dict[str, Any]],
) -> tuple[Hardware, list[Fitting]] | None:
    """The smallest of `sizes` on which a train step fits, and the compiled meshes that do, all with
    the fewest micro-batches that do.

    On each, up to `plan.tries` are compiled. After one that is too large only those whose lower
    bound is lower are. Returns None where nothing fits.

    Args:
      config: the run.
      cfg: its model.
      sizes: smallest first.
      compile_train: compiles the train step of a mesh with so many micro-batches; returns a result
        of `plan/worker.py`.
    """
    for hardware in sizes:
        options, ceiling = candidates(config, cfg, hardware), math.inf
        fitting: list[Fitting] = []
        for _ in range(config.plan.tries):
            options = [one for one in options if one.least < ceiling]
            if not options or (fitting and options[0].grad_accum > fitting[0][1]):
                break
            best = options.pop(0)
            result = compile_train(hardware, best.mesh, best.grad_accum)
            if "complaint" not in result:
                fitting.append((best.mesh, best.grad_accum, result))
            elif result["complaint"]["kind"] == "memory":
                ceiling = best.least
        if fitting:
            return hardware, fitting
    return None


def best(fitting: Sequence[Fitting]) -> tuple[MeshConfig, int]:
    """Of those whose least bounds are alike, mesh and micro-batches of the one that is fastest with
    no overlap.

    Args:
      fitting: of `smallest`, results with the `times` of `figures.train`.
    """
    limit = min(result["times"]["bound"] for *_, result in fitting) * (1 + _ALIKE)
    alike = [one for one in fitting if one[2]["times"]["bound"] <= limit]
    mesh, grad_accum, _ = min(alike, key=lambda one: one[2]["times"]["serial"])
    return mesh, grad_accum


def possible(mesh: MeshConfig, config: Config, cfg: ModelConfig, hardware: Hardware) -> bool:
    """Whether every size divides, and slow links carry only what may cross them."""
    batch = mesh.data * mesh.fsdp * mesh.expert
    splits = mesh.fsdp * mesh.expert * mesh.context
    local = hardware.num_devices // hardware.slices
    if hardware.chip.platform == "cuda":
        local = hardware.shape[-1]
    rules = (
        config.train.global_batch_size // config.train.grad_accum % batch == 0,
        cfg.embed_dim % splits == 0,
        all(size % mesh.tensor == 0 for size in (cfg.num_heads, cfg.num_kv_heads, cfg.mlp_dim)),
        config.train.seq_len % (128 * mesh.context) == 0 or mesh.context == 1,
        mesh.expert == 1 or (cfg.is_moe and cfg.num_experts % mesh.expert == 0),
        hardware.slices == 1 or not mesh.data % hardware.slices or not mesh.fsdp % hardware.slices,
        # Collectives of every layer stay where links are fast.
        mesh.tensor * mesh.context * mesh.expert <= local,
    )
    return all(rules)


def least_bytes(mesh: MeshConfig, config: Config, cfg: ModelConfig) -> float:
    """A lower bound of a device's memory in training.

    Weights, both moments (and the float32 master of bfloat16 weights), the float32 sum of gradients
    and, with recomputation, the input of every layer. Where adapters are trained, frozen weights
    and all that for adapters.
    """
    train = config.train
    wide = {"float32": 4, "bfloat16": 2}
    per_weight = wide[train.param_dtype] + wide[train.mu_dtype] + 4 + 4
    per_weight += 4 if train.param_dtype == "bfloat16" else 0
    held = num_params(cfg) * per_weight
    if train.lora.rank:
        adapters = cfg.num_layers * flops.adapter_weights(cfg, train.lora)
        held = num_params(cfg) * wide[train.param_dtype] + adapters * (12 + wide[train.mu_dtype])
    splits = mesh.fsdp * mesh.expert * mesh.context * mesh.tensor
    inputs = 0 if train.remat == "offload" else _layer_inputs(mesh, config, cfg)
    return held / splits + inputs


def estimate(mesh: MeshConfig, config: Config, cfg: ModelConfig, hardware: Hardware) -> float:
    """Seconds of a step: arithmetic plus collectives, from sizes alone. For ordering only."""
    train, chip = config.train, hardware.chip
    tokens = train.global_batch_size * train.seq_len
    work = flops.train_flops(
        cfg,
        tokens=tokens,
        response_tokens=tokens,
        attention_pairs=tokens * (train.seq_len + 1) / 2,
        adapters=flops.adapter_weights(cfg, train.lora),
    )
    shards = mesh.fsdp * mesh.expert * mesh.context
    weights = 2.0 * num_params(cfg) / mesh.tensor  # Bytes of bfloat16, gathered whole.
    if cfg.is_moe:
        weights /= mesh.expert
    rounds = 3 * train.grad_accum  # Gathered forward, again, backward.
    rounds += 0 if train.lora.rank else 1  # Gradients scattered: those of adapters are small.
    sent = rounds * weights * (shards - 1) / shards if shards > 1 else 0.0
    here = 2.0 * tokens / (mesh.data * shards) * cfg.embed_dim * cfg.num_layers
    sent += 8 * here * (mesh.tensor - 1) / mesh.tensor  # Two all-reduces a pass of a layer.
    heads = cfg.num_kv_heads * cfg.head_dim / cfg.embed_dim / mesh.tensor
    sent += 6 * here * (mesh.context - 1) * heads  # Keys and values of the other parts of a row.
    if cfg.is_moe:
        sent += 8 * here * cfg.experts_per_token * (mesh.expert - 1) / mesh.expert
    if mesh.data > 1 and not train.lora.rank:
        sent += 8.0 * num_params(cfg) / (shards * mesh.tensor)  # Gradients summed, in float32.
    seconds = work / hardware.num_devices / chip.peak + sent / (2 * chip.link)
    local = math.prod(hardware.shape[-1:] if chip.platform == "cuda" else hardware.shape)
    if mesh.data * shards * mesh.tensor > local * chip.devices:
        out = weights / (local * chip.devices) if mesh.data > 1 else rounds * weights / local
        seconds += out / chip.network
    return seconds


def _layer_inputs(mesh: MeshConfig, config: Config, cfg: ModelConfig) -> float:
    """Bytes of what each layer keeps of a micro-batch for the backward pass, at least."""
    tokens = config.train.global_batch_size // config.train.grad_accum * config.train.seq_len
    shards = mesh.data * mesh.fsdp * mesh.expert * mesh.context
    width = 4 if config.model.compute_dtype == "float32" else 2
    return width * tokens / shards * cfg.embed_dim * cfg.num_layers


def _axes_in_use(mesh: MeshConfig) -> int:
    return sum(size > 1 for size in dataclasses.astuple(mesh))


def _meshes(devices: int) -> list[MeshConfig]:
    """Every way to split so many devices into the five axes."""
    divisors = [size for size in range(1, devices + 1) if devices % size == 0]
    return [
        MeshConfig(data, fsdp, tensor, expert, context)
        for tensor, expert, context, data in itertools.product(divisors, repeat=4)
        for fsdp in [devices // (tensor * expert * context * data)]
        if tensor * expert * context * data * fsdp == devices
    ]
