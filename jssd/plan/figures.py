"""From compiled programs to what a user asks: how fast at best, and how many slots fit."""

import dataclasses
from typing import Any

from jssd.config import Config, MeshConfig
from jssd.model.config import ModelConfig
from jssd.plan import roofline
from jssd.plan.hardware import Hardware
from jssd.train import flops

ASSUMPTIONS = (
    "training rows are full: one sample a row, every token a response token",
    "a train step is compiled as one program: its last micro-batch and the update. A run has one "
    "for each, and the gradients wait between them beside the state, as they do inside this one",
    "gradients are float32 as large as what is trained; a micro-batch's own, until added, are rest",
    "training memory traffic: the state once in and out, weights three times a micro-batch, the "
    "input of each layer in and out, gradients summed",
    "a decode step reads all weights and a full cache once",
    *roofline.ASSUMPTIONS,
)


def train(result: dict[str, Any], config: Config, cfg: ModelConfig, hardware: Hardware) -> dict:
    """Times and rates of a compiled train step: what `times` and `rates` of the plan hold."""
    mesh, held, work = result["mesh"], result["bytes"], result["flops"]
    rows, length = config.train.global_batch_size, config.train.seq_len
    shards = mesh["data"] * mesh["fsdp"] * mesh["expert"] * mesh["context"]
    width = 4 if (config.model.compute_dtype or config.train.param_dtype) == "float32" else 2
    tokens = rows * length / config.train.grad_accum / shards
    traffic = roofline.train_traffic(
        held["params"] - result.get("frozen", 0.0) + held["optimizer"],
        width * result["params"] / mesh["tensor"] / (mesh["expert"] if cfg.is_moe else 1),
        width * tokens * cfg.embed_dim * cfg.num_layers,
        config.train.grad_accum,
    )
    times = roofline.times(
        hardware.chip,
        device_flops=work["device"],
        device_traffic=traffic,
        links=result["seconds"]["links"],
        network=result["seconds"]["network"],
    )
    peak = hardware.chip.peak * hardware.num_devices
    return {
        "times": times.as_dict(),
        "rates": {
            "tokens_per_s": rows * length / times.bound,
            "mfu_bound": work["model"] / times.bound / peak,
            "mfu_serial": work["model"] / times.serial / peak,
            "written_over_model": work["step"] / work["model"],
            "remat_overhead": work["step"] / work["without_remat"] - 1,
            "split_evenly": work["step"] / hardware.num_devices / max(work["device"], 1.0),
        },
    }


def decode(
    result: dict[str, Any], config: Config, cfg: ModelConfig, hardware: Hardware, slots: int
) -> dict:
    """Times of one decode step with `slots` full slots, and tokens a second over all hosts."""
    length = config.plan.prompt_tokens + config.sampling.max_new_tokens
    devices = result["devices"]
    weights = cfg.num_layers * flops.block_weights(cfg) + cfg.embed_dim * cfg.vocab_size
    attention = 2 * cfg.num_layers * cfg.num_heads * cfg.head_dim * length
    times = roofline.times(
        hardware.chip,
        device_flops=2 * slots * (weights + attention) / devices,
        device_traffic=result["bytes"]["params"] + slots * result["slot_bytes"],
        links=result["seconds"]["links"],
        network=result["seconds"]["network"],
    )
    hosts = hardware.num_devices // devices
    return {
        "times": times.as_dict(),
        "rates": {"tokens_per_s": hosts * slots / times.bound, "hosts": hosts, "slots": slots},
    }


def room(result: dict[str, Any], hardware: Hardware, slots: int) -> int:
    """Most slots of whole completions that fit, by arithmetic from one compile with `slots`.

    Temporaries are taken to grow with the slots, which is on the safe side.
    """
    held, needed = result["bytes"], result["memory"]["needed"]
    other = max(needed - held["params"] - held["cache"], 0.0)
    per_slot = result["slot_bytes"] + other / slots
    return roofline.slots_that_fit(hardware.memory, held["params"], per_slot, result["groups"])


def by_length(result: dict[str, Any], config: Config, hardware: Hardware, slots: int) -> dict:
    """Slots that fit at shorter lengths too, in tokens: arithmetic from a compile with `slots`."""
    longest = config.plan.prompt_tokens + config.sampling.max_new_tokens
    table = {}
    for share in (1, 2, 4, 8):
        shorter = dict(result, slot_bytes=result["slot_bytes"] / share)
        table[longest // share] = room(shorter, hardware, slots)
    return table


def mesh_of(result: dict[str, Any]) -> MeshConfig:
    """The training mesh of a result, sizes filled in."""
    names = [field.name for field in dataclasses.fields(MeshConfig)]
    return MeshConfig(**{name: result["mesh"][name] for name in names})
