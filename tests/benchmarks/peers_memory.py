"""What a peer's training step of Qwen3-4B takes on a TPU slice that is not there.

    python -m venv tunix && tunix/bin/pip install 'jax[tpu]==0.10.2' google-tunix
    tunix/bin/python tests/benchmarks/peers_memory.py --mesh=fsdp=16 --length=8192 --batch=32
    python3.12 -m venv maxtext && maxtext/bin/pip install 'maxtext[tpu]==0.2.5'
    maxtext/bin/python tests/benchmarks/peers_memory.py --peer=maxtext --mesh=fsdp=16 \
        --length=65536 --batch=16 --set=num_vocab_tiling=64

Compiles the step ahead of time and prints one line of JSON; each setting is a process of its own.
No accelerator is needed. All figures are per device and per step:

- `peak_gib`, `argument_gib`, `temp_gib`: the compiler's own account of memory. A program that does
  not fit prints `error`, with what it would have needed.
- `flops`: matmuls of the traced step, loops times their length, recomputation included, as a mean
  over devices. Splash attention counts the blocks that its causal mask leaves.
- `collective_gib`: by kind, result or operand of each collective (whichever is larger), times the
  trips of the loops around it; an all-reduce counts twice. Close to what a device sends.

Tunix's step is its trainer's own (`PeftTrainer._train_step`, its default loss and donation) under
AdamW: every weight is trained, float32 weights, bfloat16 activations, splash attention, each
decoder layer recomputed (`--remat` picks others). Mesh axes are fsdp, tp (tensor) and sp (the
sequence, which splits weights too).

MaxText's is the step of its own ahead-of-time compiler (`train_compile`), with splash attention,
layers scanned and recomputed (`remat_policy=full`), float32 weights and bfloat16 activations. Mesh
axes are its `ici_*_parallelism`, e.g. fsdp=4,context=4; `--set` gives it any other setting. It
needs a newer JAX, so its compiler is a newer one too.
"""

import collections
import contextlib
import json
import math
import os
import re
import tempfile
import time

from absl import app, flags

_PEER = flags.DEFINE_enum("peer", "tunix", ["tunix", "maxtext"], "whose step")
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

GIB = 2**30
_SIZES = {
    "pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "s16": 2,
    "u16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
_SHAPE = re.compile(rf"\b({'|'.join(_SIZES)})\[([\d,]*)\]")
_KINDS = (
    "all-gather|all-reduce|reduce-scatter|ragged-all-to-all|all-to-all|collective-permute"
    "|collective-broadcast"
)


def matmul_flops(jaxpr, block: int = 1024) -> float:
    """FLOPs of a jaxpr's matmuls over all devices, loops and recomputation included.

    Splash attention's kernels are counted by what they multiply: two products forward, four in the
    pass for keys and values (five when that gives the queries' gradient too), three in the one for
    queries, each over the blocks of the causal triangle.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = 0.0
    for eqn in jaxpr.eqns:
        params, name = eqn.params, eqn.primitive.name
        if name == "dot_general":
            (contract, _), _ = params["dimension_numbers"]
            left, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contract)
        elif name == "pallas_call":
            total += _splash_flops(eqn, block)
        elif name == "scan":
            total += params["length"] * matmul_flops(params["jaxpr"], block)
        elif name == "cond":
            total += max(matmul_flops(branch, block) for branch in params["branches"])
        elif name == "shard_map":
            axes = params.get("manual_axes") or params["mesh"].axis_names
            shards = math.prod(params["mesh"].shape[axis] for axis in axes)
            total += shards * matmul_flops(params["jaxpr"], block)
        else:
            # A custom derivative's rules are code, not jaxprs; only the call itself is one.
            for key in ("call_jaxpr", "jaxpr", "body_jaxpr"):
                inner = params.get(key)
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    total += matmul_flops(inner, block)
                    break
    return total


def _splash_flops(eqn, block: int) -> float:
    name = str(eqn.params.get("name") or eqn.params["name_and_src_info"])
    # Queries, keys and values come first among the arrays of numbers; those of a mask are integers.
    avals = [var.aval for var in eqn.invars]
    wide = [x.shape for x in avals if x.ndim >= 3 and "float" in x.dtype.name]
    queries, keys = wide[0], wide[1]
    made = sum(x.aval.ndim >= 3 and "float" in x.aval.dtype.name for x in eqn.outvars)
    if "dkv" in name:
        products = 5 if made > 2 else 4  # With the queries' gradient beside the two.
    elif "dq" in name:
        products = 3
    elif "fwd" in name:
        products = 2
    else:
        raise ValueError(f"unknown kernel {name}")
    # A query meets half of the keys, plus half a block of the diagonal.
    return products * 2 * math.prod(queries) * (keys[-2] + block) / 2


class _Module:
    """A compiled HLO module's text by computation: lines, and the shape text of each name."""

    def __init__(self, text: str):
        self.lines: dict[str, list[str]] = {}
        self.shapes: dict[str, str] = {}
        self.entry = name = ""
        for line in text.splitlines():
            head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if head:
                name = head.group(2)
                self.lines[name] = []
                self.entry = name if head.group(1) else self.entry
            elif line == "}":  # Kernels' own text has lines that only begin with one.
                name = ""
            elif name:
                self.lines[name].append(line)
                made = re.match(r"\s*(?:ROOT )?%([\w.\-]+) = (.*?) [\w\-]+\(", line)
                if made:
                    self.shapes[made.group(1)] = made.group(2)

    def find(self, computation: str, name: str) -> str:
        """The line that makes a value."""
        pattern = re.compile(rf"\s*(?:ROOT )?%{re.escape(name)} = ")
        return next((x for x in self.lines.get(computation, ()) if pattern.match(x)), "")

    def constant(self, computation: str, name: str) -> int | None:
        found = re.search(r" constant\((\d+)\)", self.find(computation, name))
        return int(found.group(1)) if found else None

    def trips(self, computation: str, line: str) -> int:
        """How often a while loop runs: as XLA says, or from its counter, bound and step."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        if known:
            return int(known.group(1))
        condition = re.search(r"condition=%?([\w.\-]+)", line)[1]  # pyright: ignore
        body = re.search(r"body=%?([\w.\-]+)", line)[1]  # pyright: ignore
        root = next(x for x in self.lines[condition] if "ROOT" in x)
        compared = re.search(r"compare\(%([\w.\-]+), %([\w.\-]+)\), direction=LT", root)
        if not compared:
            return 1
        bound = self.constant(condition, compared.group(2))
        place = re.search(r"index=(\d+)", self.find(condition, compared.group(1)))
        if bound is None or not place:
            return 1
        index = int(place.group(1))
        started = self._operand(self.find(computation, _operands(line)[0]), index)
        start = self.constant(computation, started) or 0
        out = next(x for x in self.lines[body] if "ROOT" in x)
        added = _operands(self.find(body, self._operand(out, index)))
        steps = [self.constant(body, name) for name in added]
        step = next((x for x in steps if x), 1)
        return max(-(-(bound - start) // step), 0)

    def _operand(self, line: str, index: int) -> str:
        names = _operands(line)
        return names[index] if index < len(names) else ""


def _operands(line: str) -> list[str]:
    inside = re.search(r" [\w\-]+\((%[^)]*)\)", line)
    return re.findall(r"%([\w.\-]+)", inside.group(1)) if inside else []


def _bytes(shapes: str) -> int:
    return sum(
        _SIZES[dtype] * math.prod(int(x) for x in dims.split(",") if x)
        for dtype, dims in _SHAPE.findall(shapes)
    )


def collective_bytes(text: str) -> dict[str, int]:
    """Bytes that one device sends for each kind of collective, in a compiled HLO module's text.

    A collective counts its operands or results, whichever are larger; an all-reduce twice, for it
    is a reduce-scatter and an all-gather. Loops multiply.
    """
    module = _Module(text)
    total: collections.Counter[str] = collections.Counter()

    def walk(name: str, times: int, scattered: bool = False) -> None:
        for line in module.lines.get(name, ()):
            found = re.search(rf"= (.*?) ({_KINDS})(-start)?\(", line)
            if found:
                kind = found.group(2)
                given = sum(_bytes(module.shapes.get(x, "")) for x in _operands(line))
                made = _bytes(found.group(1)) - (given if found.group(3) else 0)
                if kind == "all-reduce":
                    kind, twice = ("reduce-scatter", 1) if scattered else (kind, 2)
                    total[kind] += times * twice * max(given, made)
                else:
                    total[kind] += times * max(given, made)
                continue
            if re.search(r" async-(done|update)\(", line):
                continue
            loop = re.search(r" while\(.*body=%?([\w.\-]+)", line)
            if loop:
                walk(loop.group(1), times * module.trips(name, line))
                continue
            for called in re.findall(r"(?:calls|(?:true|false)_computation)=%?([\w.\-]+)", line):
                # A TPU's reduce-scatter is a fusion around an all-reduce.
                walk(called, times, scattered or called.startswith("all-reduce-scatter"))
            branches = re.search(r"branch_computations=\{([^}]*)\}", line)
            for called in branches.group(1).split(",") if branches else ():
                walk(called.strip().lstrip("%"), times)

    walk(module.entry, 1)
    return dict(total)


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

    sizes = {key: int(size) for key, size in (x.split("=") for x in _MESH.value.split(","))}
    devices = topologies.get_topology_desc(_TOPOLOGY.value, platform="tpu").devices
    figures = {
        "peer": _PEER.value, "topology": _TOPOLOGY.value, "device": devices[0].device_kind,
        "devices": len(devices), "mesh": sizes, "length": _LENGTH.value, "batch": _BATCH.value,
        "param_dtype": _PARAM_DTYPE.value, "jax": jax.__version__, "set": _SET.value,
    }  # fmt: skip
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if _PEER.value == "tunix":
            sizes = {"fsdp": 1, "tp": 1} | sizes
            mesh = jax.sharding.Mesh(np.reshape(devices, tuple(sizes.values())), tuple(sizes))
            stack.enter_context(mesh)  # The deprecated way: it is where Tunix looks.
            step, arguments = _tunix(mesh, _BATCH.value)
            figures |= {"remat": _REMAT.value, "donate": _DONATE.value}
        else:
            mesh, step, arguments, rules = _maxtext(sizes, len(devices))
            stack.enter_context(jax.set_mesh(mesh))
            stack.enter_context(rules)
        traced = step.trace(*arguments)
        figures["flops"] = matmul_flops(traced.jaxpr, _BLOCK.value) / len(devices)
        if _TRACE.value:
            print(json.dumps(figures))
            return
        lowered = traced.lower(lowering_platforms=("tpu",))
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            figures["error"] = str(error)[:600]
            print(json.dumps(figures))
            return
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None
    moved = collective_bytes(text)
    figures |= {
        "peak_gib": round(memory.peak_memory_in_bytes / GIB, 2),
        "argument_gib": round(memory.argument_size_in_bytes / GIB, 2),
        "temp_gib": round(memory.temp_size_in_bytes / GIB, 2),
        "collective_gib": {kind: round(size / GIB, 3) for kind, size in moved.items()},
        "collective_gib_sum": round(sum(moved.values()) / GIB, 2),
        "seconds": round(time.perf_counter() - started),
    }
    if _DUMP.value:
        with open(_DUMP.value, "w") as file:
            file.write(text)
    print(json.dumps(figures))


if __name__ == "__main__":
    app.run(main)
