"""The programs of a run, lowered for devices that are not attached, and what their arguments take.

They are the run's own: the train step of `train/step.py`, prefill and decode of
`sampling/engine.py`, with the settings of the config.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jssd import hosts, sharding
from jssd.config import Config
from jssd.data import examples
from jssd.model import blockwise, grouped, lora, moe, transformer
from jssd.model.config import ModelConfig
from jssd.plan import absent, fit
from jssd.sampling.engine import Engine
from jssd.train import step
from jssd.train.optimizer import make_optimizer


@dataclasses.dataclass(frozen=True)
class Program:
    """A lowered program.

    Attributes:
      lowered: ready to compile.
      mesh: size of each axis of its mesh, in the order of its devices.
      devices: its devices, in that order.
      bytes: of its arguments on one device, by what they are.
      inside: likewise of what it makes and holds at its peak, where that is known.
      repeat: how often a step runs it; its FLOPs and bytes are to be multiplied.
      turns: by named scope, bound of the loops whose number of turns depends on data.
      traced: for counting FLOPs; None where it is not known.
      plain: the same without recomputation in the backward pass.
      note: a line to tell, or nothing.
      extra: of training with adapters: `frozen`, bytes of the weights beside them. Of decode:
        `slots`, `groups`, the parts they are split into, and `slot_bytes`, the cache of one slot at
        full length, averaged over the groups.
    """

    lowered: jax.stages.Lowered
    mesh: dict[str, int]
    devices: list
    bytes: dict[str, float]
    inside: dict[str, float] = dataclasses.field(default_factory=dict)
    repeat: int = 1
    turns: dict[str, int] = dataclasses.field(default_factory=dict)
    traced: Any = None
    plain: Any = None
    extra: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""


def train(config: Config, cfg: ModelConfig, devices: list) -> Program:
    """One optimizer step on `train.global_batch_size` rows of `train.seq_len` tokens.

    Raises:
      ValueError: a mesh that divides neither the devices, the model nor the batch.
    """
    mesh = sharding.make_mesh(config.mesh, devices)
    fit.check(config, cfg, mesh, ["sft"])
    optimizer = make_optimizer(config.train)
    compute = jnp.dtype(config.model.compute_dtype) if config.model.compute_dtype else None
    with jax.set_mesh(mesh):
        if config.train.lora.rank:
            base = transformer.abstract_params(cfg, jnp.dtype(config.train.param_dtype))
            trained = lora.abstract_adapters(cfg, config.train.lora)
        else:
            base, trained = None, transformer.abstract_params(cfg)
        state = step.abstract_state(trained, optimizer)
        micro = abstract_micro_batch(config, mesh)

        def trace(train_config):
            parts = step.make_train_step(cfg, optimizer, train_config, compute)
            totals = None
            if config.train.grad_accum > 1:
                totals = jax.eval_shape(parts.zeros, state.params)

            def last_micro_batch(state, totals, micro, base):
                return parts.update(state, parts.add(totals, state.params, micro, base))

            run = jax.jit(last_micro_batch, donate_argnums=(0, 1))
            return run.trace(state, totals, micro, base)

        traced = trace(config.train)
        lowered = traced.lower(lowering_platforms=(_platform(devices),))
        plain = traced
        if config.train.remat != "none":
            plain = trace(dataclasses.replace(config.train, remat="none"))
    shards = sharding.parts(mesh, "batch", "seq")
    tokens = config.train.global_batch_size // config.train.grad_accum * config.train.seq_len
    # The float32 sum of gradients comes with a micro-batch that others went before, or is made.
    sums = {"gradients": device_bytes(state.params, itemsize=4)}
    several = config.train.grad_accum > 1
    return Program(
        lowered,
        {axis: mesh.shape.get(axis, 1) for axis in sharding.MESH_AXES},
        list(mesh.devices.flat),
        {
            "params": device_bytes((state.params, base)),
            "optimizer": device_bytes((state.opt_state, state.step)),
            **(sums if several else {}),
            "batch": device_bytes(micro),
        },
        inside={} if several else sums,
        repeat=config.train.grad_accum,
        # The loss takes `loss_chunk` response tokens at a time: at most all of a shard's. Experts
        # take one round, and pairs of devices one block, unless the router is very uneven;
        # attention takes half of its keys. Visits come first: they lie in rounds.
        turns={
            "loss": -(-tokens // shards // config.train.loss_chunk),
            "visits": _visits(cfg, mesh, tokens // shards, devices[0].platform),
            "rounds": 1,
            "pairs": 1,
            "blocks": -(-config.train.seq_len // blockwise.key_block(config.train.seq_len) // 2),
        },
        traced=traced,
        plain=plain,
        extra={} if base is None else {"frozen": device_bytes(base)},
    )


def _visits(cfg: ModelConfig, mesh: jax.sharding.Mesh, tokens: int, platform: str) -> int:
    """Turns of the loop over experts' tiles with `tokens` on a device and an even router."""
    if not cfg.is_moe:
        return 0
    rows, count = tokens * cfg.experts_per_token, sharding.parts(mesh, "experts")
    window = moe.window_rows(rows, count) if count > 1 else rows
    return grouped.turns(rows, window, cfg.num_experts // count, platform)


def abstract_micro_batch(
    config: Config, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """What a step adds up at once, on the mesh in force, as `examples.build_row` makes rows."""
    rows, accum = config.train.global_batch_size, config.train.grad_accum
    none = np.zeros(0, np.int64)
    empty = examples.Examples(
        none, none, none, none, none, none, config.plan.support_ids,
        support_probs=none if config.train.targets == "law" else None,
    )  # fmt: skip
    row = examples.build_row(empty, (), config.train.seq_len)

    def place(array: np.ndarray) -> jax.ShapeDtypeStruct:
        target = sharding.sharding("batch", "seq", *(None,) * (array.ndim - 1))
        return jax.ShapeDtypeStruct((rows // accum, *array.shape), array.dtype, sharding=target)

    return {name: place(array) for name, array in row.items()}


def prefill(config: Config, cfg: ModelConfig, dtype: str, devices: list) -> Program:
    """Keys and values of as many prompts of `plan.prompt_tokens` as the engine takes at once."""
    settings = config.engine
    engine = _engine(config, cfg, dtype, devices, settings.slots, settings.cache_tokens)
    with jax.set_mesh(_decode_mesh(config, devices)):  # Says what the absent devices are.
        lowered = engine.lower_prefill(config.plan.prompt_tokens)
    # Two programs overlap: the cache stays where it is while a prompt is read.
    held = {"params": device_bytes(engine.params), "cache": cache_bytes(engine)}
    return Program(lowered, *_place(engine, devices), held)


def decode(config: Config, cfg: ModelConfig, dtype: str, devices: list, slots: int) -> Program:
    """Decode steps of one host with `slots` slots; 0 takes slots and cache as the config says.

    Otherwise the cache has room for whole completions in all slots.
    """
    cache_tokens = 0 if slots else config.engine.cache_tokens
    engine = _engine(config, cfg, dtype, devices, slots or config.engine.slots, cache_tokens)
    held = {"params": device_bytes(engine.params), "cache": cache_bytes(engine)}
    page = held["cache"] / engine.num_pages
    extra = {
        "groups": engine.num_groups,
        "slots": engine.num_slots,
        "slot_bytes": engine.pages_per_slot * page / engine.num_groups,
    }
    with jax.set_mesh(_decode_mesh(config, devices)):  # Says what the absent devices are.
        lowered = engine.lower_generate()
    # The outer loop is the steps: counted once, so that what is counted is one step.
    note = hosts.note(sharding.make_mesh(config.mesh, devices))
    return Program(lowered, *_place(engine, devices), held, extra=extra, note=note)


def cache_bytes(engine: Engine) -> float:
    """Bytes of the engine's cache on one device."""
    page = sum(math.prod(shape) * dtype.itemsize for shape, dtype in engine.layout.shapes())
    tensor = engine.mesh.shape["tensor"] if engine.mesh else 1
    return engine.num_pages * page * engine.cfg.num_layers / tensor


def device_bytes(tree: Any, itemsize: int = 0) -> float:
    """Bytes of abstract arrays on one device, without what the layout pads; `itemsize` bytes a
    number, or what the dtype takes."""
    return float(
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape)
            * (itemsize or leaf.dtype.itemsize)
            for leaf in jax.tree.leaves(tree)
        )
    )


def _platform(devices: list) -> str:
    return "cuda" if devices[0].platform == "gpu" else devices[0].platform


def _decode_mesh(config: Config, devices: list) -> jax.sharding.Mesh:
    """Of the first host: each samples by itself."""
    training = sharding.make_mesh(config.mesh, devices)
    mesh = hosts.decode_mesh(training, host=devices[0].process_index)
    own = absent.alone(mesh.devices)
    return jax.sharding.Mesh(own, mesh.axis_names, axis_types=mesh.axis_types)


def _place(engine: Engine, devices: list) -> tuple[dict[str, int], list]:
    if not isinstance(engine.mesh, jax.sharding.Mesh):  # One device.
        return {"data": 1, "expert": 1, "tensor": 1}, devices[:1]
    return dict(engine.mesh.shape), list(engine.mesh.devices.flat)


def _engine(
    config: Config, cfg: ModelConfig, dtype: str, devices: list, slots: int, cache_tokens: int
) -> Engine:
    """The engine as `stages/drawing.py` makes it, over abstract weights."""
    settings = dataclasses.replace(config.engine, slots=slots, cache_tokens=cache_tokens)
    config = dataclasses.replace(config, engine=settings)
    fit.check(config, cfg, sharding.make_mesh(config.mesh, devices), ["sample"])
    with jax.set_mesh(_decode_mesh(config, devices)):
        params = transformer.abstract_unstacked(cfg, jnp.dtype(dtype))
    compute = jnp.dtype(config.model.compute_dtype) if config.model.compute_dtype else None
    return Engine(
        params,
        cfg,
        num_slots=slots,
        max_len=config.plan.prompt_tokens + config.sampling.max_new_tokens,
        cache_tokens=cache_tokens,
        prompt_bucket=config.engine.prompt_bucket,
        prefill_chunk=config.engine.prefill_chunk,
        attention=config.engine.attention,
        cache_dtype=config.engine.cache_dtype,
        decode_steps=config.engine.decode_steps,
        strict=config.engine.strict,
        dtype=compute,
    )
