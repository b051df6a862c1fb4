"""What a training step of Qwen3-4B takes on a TPU slice that is not there: a peer's and ours.

    python -m venv tunix && tunix/bin/pip install 'jax[tpu]==0.10.2' google-tunix
    PYTHONPATH=. tunix/bin/python tests/benchmarks/peers_memory.py --mesh=fsdp=16 --length=8192 \
        --batch=32
    python3.12 -m venv maxtext && maxtext/bin/pip install 'maxtext[tpu]==0.2.5'
    PYTHONPATH=. maxtext/bin/python tests/benchmarks/peers_memory.py --peer=maxtext \
        --mesh=fsdp=16 --length=65536 --batch=16 --set=num_vocab_tiling=64
    PYTHONPATH=. python tests/benchmarks/peers_memory.py --peer=jssd --mesh=fsdp=16 ...

Compiles the step ahead of time and prints one line of JSON; each setting is a process of its own.
No accelerator is needed. All figures are per device and per step, and counted by the same functions
for all, those of stage plan:

- `peak_gib`, `argument_gib`, `temp_gib`: the compiler's own account of memory. A program that does
  not fit prints `error`, with what it would have needed.
- `flops`: matmuls of the traced step (`jssd/plan/jaxpr.py`), loops times their length,
  recomputation included, as a mean over devices.
- `collective_gib`: by kind, what a device sends by the ring algorithm (`jssd/plan/hlo.py`), times
  the turns of the loops around it. `--read` counts a text written by `--dump` before.

Tunix's step is its trainer's own (`PeftTrainer._train_step`, its default loss and donation) under
AdamW: every weight is trained, float32 weights, bfloat16 activations, splash attention, each
decoder layer recomputed (`--remat` picks others). Mesh axes are fsdp, tp (tensor) and sp (the
sequence, which splits weights too).

MaxText's is the step of its own ahead-of-time compiler (`train_compile`), with splash attention,
layers scanned and recomputed (`remat_policy=full`), float32 weights and bfloat16 activations. Mesh
axes are its `ici_*_parallelism`, e.g. fsdp=4,context=4; `--set` gives it any other setting. It
needs a newer JAX, so its compiler is a newer one too.

Ours is the one of stage plan, with `train.loss_chunk=1024`; every token is a response token.
"""

import collections
import contextlib
import json
import os
import tempfile
import time

from absl import app, flags

from jssd.plan import hlo

_PEER = flags.DEFINE_enum("peer", "tunix", ["tunix", "maxtext", "jssd"], "whose step")
_TOPOLOGY = flags.DEFINE_string("topology", "v5p:2x2x4", "TPU slice")
_MESH = flags.DEFINE_string("mesh", "fsdp=16", "axes and sizes, e.g. fsdp=4,tp=2,sp=2")
_LENGTH = flags.DEFINE_integer("length", 8192, "tokens a row")
_BATCH = flags.DEFINE_integer("batch", 32, "rows a step")
_SET = flags.DEFINE_multi_string("set", [], "MaxText's settings, name=value")
_REMAT = flags.DEFINE_enum("remat", "DECODER", ["NONE", "BLOCK", "DECODER"], "Tunix's remat_config")
_BLOCK = flags.DEFINE_integer("block", 1024, "side of splash attention's blocks")
_PARAM_DTYPE = flags.DEFINE_string("param_dtype", "float32", "of weights and Adam's moments")
_DONATE = flags.DEFINE_bool("donate", False, "donate the weights too; Tunix's trainer does not")
_LAYERS = flags.DEFINE_integer("layers", 0, "0 is all of the model's")
_TRACE = flags.DEFINE_bool("trace", False, "only count FLOPs, which takes no compilation")
_DUMP = flags.DEFINE_string("dump", "", "write the compiled HLO here")
_READ = flags.DEFINE_string("read", "", "only count the collectives of such a text")

GIB = 2**30


def _jssd(sizes: dict[str, int], devices: list):
    """Our train step of Qwen3-4B as stage plan compiles it."""
    from jssd.config import Config, MeshConfig, ModelSource, TrainConfig
    from jssd.plan import architectures, programs

    config = Config(
        model=ModelSource("Qwen/Qwen3-4B-Instruct-2507", compute_dtype="bfloat16"),
        train=TrainConfig(
            seq_len=_LENGTH.value, global_batch_size=_BATCH.value, param_dtype=_PARAM_DTYPE.value,
            loss_chunk=1024,
        ),
        mesh=MeshConfig(**sizes),
    )  # fmt: skip
    cfg, _ = architectures.read(config.model, _LAYERS.value)
    return programs.train(config, cfg, devices)


def _tunix(mesh, batch: int):
    """Tunix's own train step of Qwen3-4B and its abstract arguments: (jitted, arguments)."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from tunix.models.qwen3 import model as qwen3  # pyright: ignore[reportMissingImports]
    from tunix.sft import peft_trainer, utils  # pyright: ignore[reportMissingImports]

    # Its constraints are off where the process's own device is a CPU, as here; on a TPU they hold.
    qwen3.shard = lambda x, axes: jax.lax.with_sharding_constraint(
        x, jax.NamedSharding(mesh, jax.P(*axes))
    )
    config = qwen3.ModelConfig.qwen3_4b()
    config.shd_config = qwen3.ShardingConfig.get_default_sharding(enable_sp="sp" in mesh.shape)
    config.remat_config = qwen3.RematConfig[_REMAT.value]
    config.dtype, config.param_dtype = jnp.bfloat16, jnp.dtype(_PARAM_DTYPE.value)
    config.use_flash_attention = True
    config.flash_attention_block_size = _BLOCK.value
    config.num_layers = _LAYERS.value or config.num_layers

    made = {}

    def make():
        settings = peft_trainer.TrainingConfig(eval_every_n_steps=1 << 30)
        made["trainer"] = peft_trainer.PeftTrainer(
            qwen3.Qwen3(config, rngs=nnx.Rngs(0)), optax.adamw(5e-6, b2=0.95), settings
        )
        return made["trainer"].model, made["trainer"].optimizer

    model, optimizer = nnx.eval_shape(make)
    trainer = made["trainer"].with_gen_model_input_fn(
        lambda x: {
            "input_tokens": x.input_tokens,
            "input_mask": x.input_mask,
            "positions": utils.build_positions_from_mask(x.input_mask),
            "attention_mask": utils.make_causal_attn_mask(x.input_mask),
        }
    )

    def place(state):
        def leaf(leaf, spec):
            axes = (tuple(x for x in _tuple(entry) if x in mesh.shape) for entry in spec)
            axes = (entry[0] if len(entry) == 1 else entry or None for entry in axes)
            where = jax.NamedSharding(mesh, jax.P(*axes))
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

        return jax.tree.map(leaf, state, nnx.get_partition_spec(state))

    model_def, model_state = nnx.split(model)
    optimizer_def, optimizer_state = nnx.split(optimizer)
    rows = jax.NamedSharding(mesh, jax.P("fsdp"))
    tokens = jax.ShapeDtypeStruct((batch, _LENGTH.value), jnp.int32, sharding=rows)
    mask = jax.ShapeDtypeStruct((batch, _LENGTH.value), jnp.bool_, sharding=rows)

    def step(model_state, optimizer_state, inputs):
        model = nnx.merge(model_def, model_state)
        optimizer = nnx.merge(optimizer_def, optimizer_state)
        loss, _, norm = trainer._train_step(model, optimizer, inputs)
        return nnx.state(model), nnx.state(optimizer), loss, norm

    arguments = (
        place(model_state), place(optimizer_state), peft_trainer.TrainingInput(tokens, mask)
    )  # fmt: skip
    return jax.jit(step, donate_argnums=(0, 1) if _DONATE.value else 1), arguments


def _maxtext(sizes: dict[str, int], num_devices: int):
    """MaxText's step of Qwen3-4B by its own parts: (mesh, jitted, arguments, axis rules)."""
    import jax
    from flax.core.spmd import logical_axis_rules  # pyright: ignore[reportMissingImports]
    from maxtext.configs import pyconfig  # pyright: ignore[reportMissingImports]
    from maxtext.trainers.pre_train import train, train_compile  # pyright: ignore
    from maxtext.utils import maxtext_utils, sharding  # pyright: ignore[reportMissingImports]

    jax.config.update("jax_default_prng_impl", "unsafe_rbg")
    settings = {
        "model_name": "qwen3-4b",
        "internal_compile": True,
        "compile_topology": _TOPOLOGY.value,
        "compile_topology_num_slices": 1,
        "internal_compile_num_devices": num_devices,
        "max_target_length": _LENGTH.value,
        "per_device_batch_size": _BATCH.value / num_devices,
        "attention": "flash",
        "remat_policy": "full",
        "scan_layers": True,
        "weight_dtype": _PARAM_DTYPE.value,
        "dtype": "bfloat16",
        "enable_checkpointing": False,
        "dataset_type": "synthetic",
        "run_name": "peers",
        "base_output_directory": tempfile.gettempdir(),
        "log_config": False,
    }
    for name in ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq"):
        settings[f"sa_block_{name}"] = _BLOCK.value
    if _LAYERS.value:
        settings["base_num_decoder_layers"] = _LAYERS.value
        settings["override_model_config"] = True
    settings |= {f"ici_{axis}_parallelism": size for axis, size in sizes.items()}
    settings |= dict(x.split("=", 1) for x in _SET.value)
    base = os.path.join(os.path.dirname(pyconfig.__file__), "base.yml")
    config = pyconfig.initialize(["", base, *(f"{key}={x}" for key, x in settings.items())])
    mesh = train_compile.get_topology_mesh(config)
    arguments, _, shardings, _, model = train_compile.get_shaped_inputs(mesh, config)
    params, shardings = sharding.maybe_update_params_sharding_with_opt(config, shardings)
    step, given, made, static, donated = maxtext_utils.get_functional_train_with_signature(
        train.train_step, sharding.get_input_data_sharding(config, mesh),
        sharding.build_zero1_input_state_mesh_shardings(config, shardings, params),
        model, config, params,
    )  # fmt: skip
    jitted = jax.jit(
        step, in_shardings=given, out_shardings=made, static_argnums=static, donate_argnums=donated
    )
    return mesh, jitted, arguments, logical_axis_rules(config.logical_axis_rules)


def _collective_gib(text: str, num_devices: int, turns: dict[str, int]) -> dict:
    """GiB that a device sends, by kind and in all, and loops whose turns were assumed."""
    program = hlo.Program(text, num_devices, turns)
    sent: dict[str, float] = collections.defaultdict(float)
    for one in program.collectives():
        sent[one.kind] += one.bytes * one.times / GIB
    return {
        "collective_gib": {kind: round(size, 3) for kind, size in sent.items()},
        "collective_gib_sum": round(sum(sent.values()), 2),
        "loops_assumed": sorted(set(program.untold)),
    }


def _tuple(entry) -> tuple:
    return entry if isinstance(entry, tuple) else (entry,)


def main(_) -> None:
    # Before JAX loads: no look for a real TPU. O1 compiles in a fraction of the time.
    for name, value in (
        ("JAX_PLATFORMS", "cpu"), ("TPU_SKIP_MDS_QUERY", "1"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("JAX_OPTIMIZATION_LEVEL", "O1"),
    ):  # fmt: skip
        os.environ.setdefault(name, value)
    import jax
    import numpy as np
    from jax.experimental import topologies

    from jssd.plan import jaxpr

    sizes = {key: int(size) for key, size in (x.split("=") for x in _MESH.value.split(","))}
    devices = topologies.get_topology_desc(_TOPOLOGY.value, platform="tpu").devices
    figures = {
        "peer": _PEER.value, "topology": _TOPOLOGY.value, "device": devices[0].device_kind,
        "devices": len(devices), "mesh": sizes, "length": _LENGTH.value, "batch": _BATCH.value,
        "param_dtype": _PARAM_DTYPE.value, "jax": jax.__version__, "set": _SET.value,
    }  # fmt: skip
    started, turns, lowered = time.perf_counter(), {}, None
    if _READ.value:
        with open(_READ.value) as file:
            print(json.dumps(figures | _collective_gib(file.read(), len(devices), turns)))
        return
    with contextlib.ExitStack() as stack:
        if _PEER.value == "tunix":
            sizes = {"fsdp": 1, "tp": 1} | sizes
            mesh = jax.sharding.Mesh(np.reshape(devices, tuple(sizes.values())), tuple(sizes))
            stack.enter_context(mesh)  # The deprecated way: it is where Tunix looks.
            step, arguments = _tunix(mesh, _BATCH.value)
            figures |= {"remat": _REMAT.value, "donate": _DONATE.value}
            traced = step.trace(*arguments)
        elif _PEER.value == "maxtext":
            mesh, step, arguments, rules = _maxtext(sizes, len(devices))
            stack.enter_context(jax.set_mesh(mesh))
            stack.enter_context(rules)
            traced = step.trace(*arguments)
        else:
            program = _jssd(sizes, devices)
            traced, turns, lowered = program.traced, program.turns, program.lowered
        work = jaxpr.count(traced, turns)
        figures["flops"] = work.flops / len(devices)
        figures["kernel_flops"] = sum(work.kernels.values()) / len(devices)
        assert not work.unread, work.unread
        if _TRACE.value:
            print(json.dumps(figures))
            return
        lowered = lowered or traced.lower(lowering_platforms=("tpu",))
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            figures["error"] = str(error)[:600]
            print(json.dumps(figures))
            return
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None
    figures |= {
        "peak_gib": round(memory.peak_memory_in_bytes / GIB, 2),
        "argument_gib": round(memory.argument_size_in_bytes / GIB, 2),
        "temp_gib": round(memory.temp_size_in_bytes / GIB, 2),
        **_collective_gib(text, len(devices), turns),
        "seconds": round(time.perf_counter() - started),
    }
    if _DUMP.value:
        with open(_DUMP.value, "w") as file:
            file.write(text)
    print(json.dumps(figures))


if __name__ == "__main__":
    app.run(main)
