"""The experts' matmuls on this machine: `jax.lax.ragged_dot` beside the tiled loop of `grouped.py`.

    python tests/benchmarks/experts.py
    python tests/benchmarks/experts.py --shape=2048,1024,768,64 --tile=16 --tile=64 --dtype=bfloat16
    python tests/benchmarks/experts.py --hardware=v5p-8 --shape=8192,2048,768,16 --dtype=bfloat16

Milliseconds of the gated MLP of rows spread over experts by a router that is a little uneven,
forward, and forward with all gradients; both sides in turns, medians. A shape is rows, D, F,
experts. `chosen` marks the tile that `grouped.tile_rows` takes, which is 0 for `ragged_dot`.

With --hardware, compiled for one device of a TPU slice that is not attached: what the program needs
beside arguments and results, and the FLOPs of the compiler's account over those that there are.
`ours` is what `grouped.experts` takes there, `gmm` JAX's kernel for all products. Needs the extra
`plan`.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jssd.model import grouped, layers
from jssd.plan import absent, hardware

_SHAPES = flags.DEFINE_multi_string(
    "shape",
    ["32,512,768,128", "256,512,768,128", "2048,256,768,16", "2048,1024,768,16",
     "2048,512,768,128"],
    "rows,D,F,experts",
)  # fmt: skip
_TILES = flags.DEFINE_multi_integer("tile", [], "rows of a tile; none takes powers of two about it")
_DTYPE = flags.DEFINE_string("dtype", "float32", "of rows and weights")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "timed rounds")
_DENSE = flags.DEFINE_integer("ragged", 1 << 35, "times ragged_dot up to so many multiply-adds")
_HARDWARE = flags.DEFINE_string("hardware", "", "a TPU to compile for, as stage plan names it")


def _inputs(M: int, D: int, F: int, E: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    counts_E = rng.multinomial(M, rng.dirichlet([4.0] * E))
    arrays = (rng.normal(size=s) for s in ((M, D), (E, D, F), (E, D, F), (E, F, D)))
    rows_MD, *weights = (jnp.asarray(x, _DTYPE.value) for x in arrays)
    return rows_MD, jnp.asarray(counts_E, jnp.int32), *weights


def _programs(run):
    def loss(rows_MD, counts_E, *weights):
        return run(rows_MD, counts_E, *weights).astype(jnp.float32).sum()

    return jax.jit(run), jax.jit(jax.value_and_grad(loss, (0, 2, 3, 4)))


def _time(program, args) -> float:
    started = time.perf_counter()
    jax.block_until_ready(program(*args))
    return (time.perf_counter() - started) * 1e3


def _compare(target: hardware.Hardware) -> None:
    """Prints a line for each shape and way, compiled for a device of `target`."""
    mesh = jax.sharding.Mesh(np.array(absent.devices(target)[:1]), ("one",))
    place = jax.sharding.NamedSharding(mesh, jax.P())
    print(f"{target.name}, {_DTYPE.value}; MiB of temporaries, FLOPs over those there are")
    for shape in _SHAPES.value:
        M, D, F, E = map(int, shape.split(","))
        sizes = ((M, D), (E,), (E, D, F), (E, D, F), (E, F, D))
        args = [jax.ShapeDtypeStruct(size, _DTYPE.value, sharding=place) for size in sizes]
        args[1] = args[1].update(dtype=jnp.int32)
        ways = {
            "ours": grouped.experts,
            "ragged_dot": _mlp(jax.lax.ragged_dot),
            "gmm": _mlp(_gmm),
        }
        for name, way in ways.items():
            told = []
            for program, products in zip(_programs(way), (3, 9), strict=True):
                with jax.set_mesh(mesh):
                    compiled = program.trace(*args).lower().compile()
                memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
                assert memory is not None
                told.append(
                    f"{memory.temp_size_in_bytes / 2**20:>8.0f} MiB"
                    f"{cost.get('flops', 0.0) / (2 * products * M * D * F):>7.2f}"
                )
            print(f"{shape:<24}{name:<12}{told[0]}, with gradients{told[1]}", flush=True)


def _mlp(dot):
    def run(rows_MD, counts_E, gate_EDF, up_EDF, down_EFD):
        gate_MF, up_MF = dot(rows_MD, gate_EDF, counts_E), dot(rows_MD, up_EDF, counts_E)
        return dot(layers.swiglu(gate_MF, up_MF), down_EFD, counts_E)

    return run


def _gmm(rows, weights, counts):
    from jax.experimental.pallas.ops.tpu import megablox

    sides = [grouped._side(size, most) for size, most in zip(weights.shape[1:], (512, 1024))]
    return megablox.gmm(rows, weights, counts, rows.dtype, (512, *sides))


def main(_) -> None:
    """Prints a line for each shape and side."""
    if _HARDWARE.value:
        return _compare(hardware.parse(_HARDWARE.value))
    print(f"{jax.default_backend()}, {_DTYPE.value}")
    print(f"{'rows,D,F,experts':<24}{'side':<12}{'forward ms':>12}{'with gradients ms':>20}")
    for shape in _SHAPES.value:
        M, D, F, E = map(int, shape.split(","))
        args = _inputs(M, D, F, E)
        chosen = grouped.tile_rows(M, E, jax.default_backend())
        near = (chosen // 2, chosen, chosen * 2) if chosen else (4, 16)
        tiles = sorted({min(tile, M) for tile in _TILES.value or near if tile})
        sides = {f"tile {tile}": functools.partial(grouped._tiled, tile) for tile in tiles}
        work = M * D * F * E
        if work <= _DENSE.value:
            sides = {"ragged_dot": grouped._ragged, **sides}
        sides = {name: _programs(run) for name, run in sides.items()}
        times = {name: ([], []) for name in sides}
        for turn in range(_ROUNDS.value + 1):  # The first compiles.
            for name, programs in sides.items():
                for program, found in zip(programs, times[name]):
                    took = _time(program, args)
                    found.extend([took] * (turn > 0))
        for name, (forward, both) in times.items():
            mark = " chosen" if name == (f"tile {chosen}" if chosen else "ragged_dot") else ""
            numbers = f"{statistics.median(forward):>12.1f}{statistics.median(both):>20.1f}"
            print(f"{shape:<24}{name:<12}{numbers}{mark}", flush=True)


if __name__ == "__main__":
    absent.set_environment()
    app.run(main)
