"""The experts' matmuls on this machine: `jax.lax.ragged_dot` beside the tiled loop of `grouped.py`.

    python tests/benchmarks/experts.py
    python tests/benchmarks/experts.py --shape=2048,1024,768,64 --tile=16 --tile=64 --dtype=bfloat16

Milliseconds of the gated MLP of rows spread over experts by a router that is a little uneven,
forward, and forward with all gradients; both sides in turns, medians. A shape is rows, D, F,
experts. `chosen` marks the tile that `grouped.tile_rows` takes, which is 0 for `ragged_dot`.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jssd.model import grouped

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


def main(_) -> None:
    """Prints a line for each shape and side."""
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
    app.run(main)
