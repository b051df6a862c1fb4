"""Compiles one program in a process of its own, since a compiler may take the process with it.

    python -m jssd.plan.worker REQUEST.json RESULT.json

A request holds `config` (of `config.to_dict`), `hardware`, `mesh` (of `MeshConfig`), `program`, and
for decode `slots`. The result is a plain dict: `compile_program` says what it holds.
"""

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

from jssd.config import Config, DecodeConfig, LoraConfig, MeshConfig
from jssd.plan import absent

if __name__ == "__main__":
    absent.set_environment()  # Before JAX is imported.

from jssd.plan import architectures, compiles, complaints, hardware, hlo, jaxpr, programs, roofline
from jssd.train import flops


def main(request_path: str, result_path: str) -> None:
    """Reads the request and writes the result; a compiler's complaint is a result."""
    request = json.loads(pathlib.Path(request_path).read_text(encoding="utf-8"))
    try:
        result = compile_program(request)
    except Exception as error:  # A compiler's errors have no common type.
        result = {"complaint": complaints.read(error).as_dict()}
    compiles.write_json(pathlib.Path(result_path), result)


def compile_program(request: dict[str, Any]) -> dict[str, Any]:
    """The figures of one compiled program.

    Bytes are of one device, FLOPs over all devices unless they say otherwise; a decode program is
    counted for one step of one host. Where it does not compile, `complaint` says why, and memory,
    collectives and times are missing.
    """
    config = config_of(request)
    target = hardware.parse(request["hardware"])
    cfg, dtype = architectures.read(config.model, config.plan.layers)
    devices = absent.devices(target)
    name = request["program"]
    started = time.perf_counter()
    with absent.libraries(target):
        if name == "train":
            program = programs.train(config, cfg, devices)
        elif name == "prefill":
            program = programs.prefill(config, cfg, dtype, devices)
        else:
            program = programs.decode(config, cfg, dtype, devices, request["slots"])
    result: dict[str, Any] = {
        "program": name,
        "mesh": program.mesh,
        "devices": len(program.devices),
        "bytes": {**program.bytes, **program.inside},
        "params": architectures.num_params(cfg),
    }
    if program.traced is not None:
        result["flops"] = _train_flops(config, cfg, program)
        result["largest"] = jaxpr.largest(program.traced)
    result |= program.extra
    if program.note:
        result["note"] = program.note
    result["lower_seconds"] = round(time.perf_counter() - started, 1)
    started = time.perf_counter()
    try:
        compiled = program.lowered.compile()
    except Exception as error:  # A compiler's errors have no common type.
        complaint = complaints.read(error)
        return result | {
            "complaint": complaint.as_dict(),
            "memory": {"needed": complaint.wanted, "available": target.memory, "fits": False},
        }
    result["compile_seconds"] = round(time.perf_counter() - started, 1)
    result["compiler_flops"] = float((compiled.cost_analysis() or {}).get("flops", 0.0))
    if "flops" in result:
        result |= _expanded(result, program.repeat)
    result["memory"] = _memory(compiled, target, program.bytes, program.inside)
    if not result["memory"]["fits"]:
        too_much = complaints.over(result["memory"]["needed"], target.memory)
        result["complaint"] = too_much.as_dict()
    return result | _collectives(compiled, program, target)


def _expanded(result: dict[str, Any], repeat: int) -> dict[str, Any]:
    """A note where the compiler does more than what is written, as where it has no kernel for a
    product of few rows and takes all. Its own account, which counts a loop's turn once, shows it
    in a program of few layers at least."""
    written = result["flops"]["device"] / repeat
    if result["compiler_flops"] < 1.1 * written:
        return {}
    times = result["compiler_flops"] / written
    told = f"the compiled program does {times:.1f} times the FLOPs that are written, or more"
    return {"note": f"{result['note']}. {told}" if "note" in result else told}


def config_of(request: dict[str, Any]) -> Config:
    """The config of a request, with the request's mesh."""
    tree = dict(request["config"], mesh=request["mesh"])
    config = Config()
    for field in dataclasses.fields(Config):
        value, default = tree[field.name], getattr(config, field.name)
        if dataclasses.is_dataclass(default):
            value = type(default)(**value)  # pyright: ignore[reportCallIssue]
        setattr(config, field.name, value)
    config.train.lora = LoraConfig(**tree["train"]["lora"])
    config.mesh = MeshConfig(**tree["mesh"])
    config.evaluate.decodes = [
        DecodeConfig(**decode)  # pyright: ignore[reportCallIssue]
        for decode in tree["evaluate"]["decodes"]
    ]
    return config


def _train_flops(config: Config, cfg, program: programs.Program) -> dict[str, Any]:
    """FLOPs of a step as it is written, without recomputation, and as the model needs them."""
    work = jaxpr.count(program.traced, program.turns)
    plain = jaxpr.count(program.plain, program.turns)
    rows, length = config.train.global_batch_size, config.train.seq_len
    needed = flops.train_flops(
        cfg,
        tokens=rows * length,
        response_tokens=rows * length,
        attention_pairs=rows * length * (length + 1) / 2,
        adapters=flops.adapter_weights(cfg, config.train.lora),
    )
    return {
        "step": work.flops * program.repeat,
        "device": work.device_flops * program.repeat,
        "without_remat": plain.flops * program.repeat,
        "model": needed,
        "kernels": work.kernels,
        "uncounted_kernels": sorted(work.unread),
        "loops_by_data": work.loops,
        "turns_assumed": program.turns,
    }


def _memory(
    compiled, target: hardware.Hardware, held: dict[str, float], inside: dict[str, float]
) -> dict[str, Any]:
    """The compiler's figures, and what is left of them for activations and temporaries beside what
    is held as arguments and what is made inside."""
    stats = compiled.memory_analysis()
    size = lambda name: float(getattr(stats, f"{name}_in_bytes", 0) or 0)
    # What a program does not read (the cache, during a prefill) lies beside it all the same.
    unread = max(sum(held.values()) - size("argument_size"), 0.0)
    if target.chip.platform == "tpu":
        # The account by which libtpu refuses. It gives temporaries a size that their sharing of
        # memory in time is not taken off: a program may be accepted though they alone exceed a chip
        # (Qwen3-4B, 16 layers at 65,536 on v5e: 20.1 of 15.75 GiB, accepted; 15.1 live at once).
        needed = unread + size("peak_memory") + size("generated_code_size")
    else:
        kept = size("argument_size") + size("output_size") - size("alias_size")
        needed = unread + kept + size("temp_size") + size("generated_code_size")
    return {
        "needed": needed,
        "available": target.memory,
        "fits": needed <= target.memory,
        "arguments": size("argument_size"),
        "outputs": size("output_size"),
        "in_place": size("alias_size"),
        "temporaries": size("temp_size"),
        "code": size("generated_code_size"),
        "live_at_peak": size("peak_memory"),
        "activations": max(needed - sum(held.values()) - sum(inside.values()), 0.0),
        "host": size("host_temp_size") + size("host_argument_size"),
    }


def _collectives(compiled, program: programs.Program, target) -> dict[str, Any]:
    """Bytes by mesh axes and kind, the largest single ones, and their time on the links."""
    slices = len({getattr(device, "slice_index", 0) for device in program.devices})
    text = hlo.Program(compiled.as_text(), len(program.devices), program.turns, slices)
    # A step of several micro-batches runs the program for each, and updates once: a little less.
    found = [
        dataclasses.replace(one, times=one.times * program.repeat) for one in text.collectives()
    ]
    inside, between = roofline.collective_times(found, target, program.devices)
    ranked = sorted(found, key=lambda one: -one.bytes * one.times)[:12]
    return {
        "collectives": hlo.by_axes(found, program.mesh),
        "largest_collectives": [
            {
                "kind": one.kind,
                "axes": "*".join(hlo.varying_axes(one.groups, program.mesh)),
                "bytes": one.bytes,
                "times": one.times,
                "dtypes": list(one.dtypes),
                "where": one.where,
            }
            for one in ranked
        ],
        "loops_assumed": sorted(set(text.untold)),
        "custom_calls": text.custom_calls(),
        "seconds": {"links": inside, "network": between},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
