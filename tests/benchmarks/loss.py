"""What the loss costs beside the two usual ways: peak memory, FLOPs, and seconds on this machine.

    python tests/benchmarks/loss.py
    python tests/benchmarks/loss.py --hardware=cpu --hardware=v5p-8 --tokens=4096
    python tests/benchmarks/loss.py --hardware= --timed_tokens=4096 --timed_tokens=65536

All three give the value and the gradients by the hidden states (bfloat16) and the float32 output
matrix, from the same cast matrix and with float32 results:

- naive: logits of all positions, log-softmax of all, the mask last. As Tunix and Simply do.
- chunked: all positions, `--chunk` of them at a time, each chunk's logits computed again in the
  backward pass. As TRL's chunked loss and MaxText's tiled vocabulary do.
- ours: `jssd.train.loss`, response positions alone, logits computed once.

GiB are what the compiled program needs on one device besides its arguments: gradients and
temporaries, by the compiler's own account (`+` marks what it refuses as too large for the device).
TFLOP are the matmuls of the traced program, loops with their turns. Hardware as for stage `plan`,
whose compilers it needs (`pip install 'jssd[plan]'`), and `cpu`; none needs to be attached.

Seconds are medians on this machine's CPU, the three taking turns (one turn above `--few` positions:
it takes minutes), in float32 (a CPU emulates bfloat16 matmuls) and at a smaller width. The narrower
the matrix, the less matmuls weigh beside the softmax, so the ratios say less than the TFLOP do.
What the compiler says needs more than `--timed_gib` is left out.
"""

import json
import statistics
import subprocess
import sys
import time

from absl import app, flags

_HARDWARE = flags.DEFINE_multi_string("hardware", ["cpu", "v5p-8", "b200x1"], "to compile for")
_TOKENS = flags.DEFINE_multi_integer(
    "tokens", [4096, 8192, 16384, 32768, 65536], "positions of the batch, prompt included"
)
_TIMED = flags.DEFINE_multi_integer(
    "timed_tokens", [1024, 2048], "the same, to be run here; 0 for none"
)
_FEW = flags.DEFINE_integer("few", 4096, "positions up to which all rounds are timed")
_TIMED_GIB = flags.DEFINE_float("timed_gib", 12, "memory here, arguments included")
_WIDTH = flags.DEFINE_integer("width", 2048, "of the hidden states (Qwen3-30B-A3B's)")
_TIMED_WIDTH = flags.DEFINE_integer("timed_width", 256, "the same, to be run here")
_VOCAB = flags.DEFINE_integer("vocab", 151936, "ids (Qwen3's)")
_CHUNK = flags.DEFINE_integer("chunk", 1024, "positions whose logits exist at once")
_RESPONSE = flags.DEFINE_float("response", 0.5, "share of the positions that are response")
_SUPPORT = flags.DEFINE_integer("support_ids", 20, "recorded ids of each draw, which ours reports")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "timed runs of each")
_ONLY = flags.DEFINE_string("only", "", "the hardware of a process of its own; prints JSON")

GIB = 2**30


def losses() -> dict:
    """The three ways: name -> function of (x_MD, head_DV, targets_M, mask_M, support_MU)."""
    import jax
    import jax.numpy as jnp

    from jssd.train import loss

    def logits(x_MD, head_DV):
        return jnp.einsum("MD,DV->MV", x_MD, head_DV, preferred_element_type=jnp.float32)

    def naive(x_MD, head_DV, targets_M, mask_M, support_MU):
        del support_MU
        log_probs_MV = jax.nn.log_softmax(logits(x_MD, head_DV.astype(x_MD.dtype)))
        picked_M = jnp.take_along_axis(log_probs_MV, targets_M[:, None], axis=-1)[:, 0]
        return -(picked_M * mask_M).sum()

    def chunked(x_MD, head_DV, targets_M, mask_M, support_MU):
        del support_MU
        head_DV = head_DV.astype(x_MD.dtype)

        @jax.checkpoint
        def part(sum_, chunk):
            x_CD, targets_C, mask_C = chunk
            nll_C = loss.token_nll(logits(x_CD, head_DV), targets_C)
            return sum_ + (nll_C * mask_C).sum(), None

        cut = lambda array: array.reshape(-1, _CHUNK.value, *array.shape[1:])
        chunks = (cut(x_MD), cut(targets_M), cut(mask_M))
        return jax.lax.scan(part, jnp.float32(0), chunks)[0]

    def ours(x_MD, head_DV, targets_M, mask_M, support_MU):
        rows = (x[None] for x in (targets_M, mask_M, support_MU))
        return loss.response_loss(x_MD[None], head_DV, *rows, chunk=_CHUNK.value).nll

    return {"naive": naive, "chunked": chunked, "ours": ours}


def _shapes(tokens: int, width: int, dtype: str) -> list[tuple[tuple[int, ...], str]]:
    return [
        ((tokens, width), dtype), ((width, _VOCAB.value), "float32"), ((tokens,), "int32"),
        ((tokens,), "float32"), ((tokens, _SUPPORT.value), "int32"),
    ]  # fmt: skip


def compile_for(name: str) -> list[dict]:
    """Memory and FLOPs of each way and number of tokens on one device of `name`."""
    import jax

    from jssd.plan import absent, complaints, hardware, jaxpr

    device = jax.devices("cpu")[0] if name == "cpu" else absent.devices(hardware.parse(name))[0]
    place = jax.sharding.SingleDeviceSharding(device)
    platform = "cuda" if device.platform == "gpu" else device.platform
    found = []
    for tokens in _TOKENS.value:
        shapes = _shapes(tokens, _WIDTH.value, "bfloat16")
        arguments = [jax.ShapeDtypeStruct(*shape, sharding=place) for shape in shapes]
        held = sum(argument.size * argument.dtype.itemsize for argument in arguments)
        turns = {"loss": -(-round(tokens * _RESPONSE.value) // _CHUNK.value)}
        for way, function in losses().items():
            traced = jax.jit(jax.value_and_grad(function, (0, 1))).trace(*arguments)
            row = {"tokens": tokens, "way": way, "hardware": name, "refused": False}
            row["flops"] = jaxpr.count(traced, turns).flops
            try:
                memory = traced.lower(lowering_platforms=(platform,)).compile().memory_analysis()
                assert memory is not None
                row["bytes"] = memory.temp_size_in_bytes + memory.output_size_in_bytes
            except jax.errors.JaxRuntimeError as error:
                wanted = complaints.read(error).wanted
                if not wanted:
                    raise
                row |= {"bytes": wanted - held, "refused": True}
            found.append(row)
    return found


def compiled() -> list[dict]:
    """`compile_for` of each hardware, each compiler in a process of its own."""
    found = []
    for name in filter(None, _HARDWARE.value):
        done = subprocess.run(
            [sys.executable, *sys.argv, f"--only={name}"], stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise SystemExit(f"{name}: the compiler's process left with code {done.returncode}")
        found += json.loads(done.stdout.splitlines()[-1])
    return found


def timed() -> list[tuple[int, str, float]]:
    """Seconds of each way here, at the smaller width: (tokens, way, median)."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    found = []
    for tokens in filter(None, _TIMED.value):
        draw = {
            "float32": lambda shape: 0.1 * rng.normal(size=shape),
            "int32": lambda shape: rng.integers(0, _VOCAB.value, shape),
        }
        shapes = _shapes(tokens, _TIMED_WIDTH.value, "float32")
        arrays = [jax.numpy.asarray(draw[dtype](shape), dtype) for shape, dtype in shapes]
        arrays[3] = jax.numpy.asarray(rng.permutation(tokens) < tokens * _RESPONSE.value, "float32")
        programs = {}
        for way, function in losses().items():
            run = jax.jit(jax.value_and_grad(function, (0, 1))).lower(*arrays).compile()
            memory = run.memory_analysis()
            assert memory is not None
            needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
            if needed + memory.argument_size_in_bytes <= _TIMED_GIB.value * GIB:
                programs[way] = run
        seconds, values = {way: [] for way in programs}, {}
        for _ in range(_ROUNDS.value if tokens <= _FEW.value else 1):
            for way, run in programs.items():
                started = time.perf_counter()
                # The gradients go at once: two ways' together would not fit.
                values[way] = float(jax.block_until_ready(run(*arrays))[0])
                seconds[way].append(time.perf_counter() - started)
        np.testing.assert_allclose(list(values.values()), values["ours"], rtol=1e-4)
        found += [(tokens, way, statistics.median(times)) for way, times in seconds.items()]
    return found


def main(_) -> None:
    from jssd.plan import absent

    absent.set_environment()  # Before JAX loads. What runs here runs on the CPU.
    if _ONLY.value:
        print(json.dumps(compile_for(_ONLY.value)))
        return
    from rich.console import Console
    from rich.table import Table

    prompt = f"{1 - _RESPONSE.value:.0%} of the positions are prompt"
    names = list(filter(None, _HARDWARE.value))
    heads = ("tokens", "loss", "TFLOP", *(f"{name} GiB" for name in names))
    table = Table(*heads, title=f"width {_WIDTH.value}, vocabulary {_VOCAB.value}, {prompt}")
    rows: dict[tuple[int, str], list[dict]] = {}
    for row in compiled():
        rows.setdefault((row["tokens"], row["way"]), []).append(row)
    for (tokens, way), each in rows.items():
        sizes = [f"{row['bytes'] / GIB:.2f}{'+' * row['refused']}" for row in each]
        table.add_row(f"{tokens:,}", way, f"{each[0]['flops'] / 1e12:.1f}", *sizes)
    Console().print(table if rows else "")
    if any(_TIMED.value):
        table = Table("tokens", "loss", "seconds", title=f"CPU, width {_TIMED_WIDTH.value}")
        for tokens, way, seconds in timed():
            table.add_row(f"{tokens:,}", way, f"{seconds:.2f}")
        Console().print(table)


if __name__ == "__main__":
    app.run(main)
