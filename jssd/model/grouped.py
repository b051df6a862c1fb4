"""The experts' matmuls: rows sorted by expert, each through the gated MLP of its own.

| devices  | few rows (at most `visit_cost`)       | more rows                                    |
|----------|---------------------------------------|----------------------------------------------|
| TPU      | `jax.lax.ragged_dot`, a grouped kernel of XLA; gradients of the weights by `tgmm`,   |
|          | a grouped kernel that ships in JAX: XLA multiplies all rows with every expert there  |
| GPU, CPU | `jax.lax.ragged_dot`: XLA multiplies  | a loop over tiles of rows of one expert, with |
|          | all rows with every expert            | gradients by hand                             |

The loop is MegaBlocks' idea (Gale et al., arXiv 2211.15841) in plain XLA. A visit takes a tile of
rows and the weights of one expert, and keeps what belongs to that expert. Tiles begin where an
expert's rows begin, so an expert of c rows takes ceil(c / tile) visits, and one without rows none.
No group is padded, and nothing between the projections is kept: the backward pass makes the MLP's
widths again, tile by tile.

Axis letters besides the house's: M rows, I experts of this device, R rows of a tile, W visits.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jssd.model.layers import swiglu
from jssd.sharding import platform


def experts(rows_MD, counts_I, gate_IDF, up_IDF, down_IFD) -> jax.Array:
    """The gated MLP of each row's expert, [M, D] in the dtype of the rows, as the weights are too.

    Products are accumulated in float32.

    Args:
      rows_MD: sorted by expert. Those beyond the counts come out unspecified, but finite if they
        and their cotangents are; so must they be for the gradients of the weights.
      counts_I: int32 rows of each expert.
    """
    tile = tile_rows(rows_MD.shape[0], counts_I.size, platform())
    run = functools.partial(_tiled, tile) if tile else _ragged
    return run(rows_MD, counts_I, gate_IDF, up_IDF, down_IFD)


def gradients(dout_MD, rows_MD, counts_I, *weights) -> tuple[jax.Array, ...]:
    """Those of `experts` by the rows, in their dtype, and by the three weights, in float32."""
    tile = tile_rows(rows_MD.shape[0], counts_I.size, platform())
    if tile:
        return _tiled_gradients(tile, dout_MD, rows_MD, counts_I, *weights)
    _, vjp = jax.vjp(lambda rows, *w: _ragged(rows, counts_I, *w), rows_MD, *weights)
    drows_MD, *dweights = vjp(dout_MD)
    return drows_MD, *(dweight.astype(jnp.float32) for dweight in dweights)


def visit_cost(platform: str) -> int:
    """What a visit costs besides its rows, in rows.

    GPU: a turn of a loop that data end launches several kernels and waits for the host to read the
    counter, some 10 microseconds, in which a B200 takes about 1,000 rows through an expert of
    2,048 x 768: an estimate, no GPU has run it. CPU: on the safe side; with 2 to 4 rows an expert
    tests/benchmarks/experts.py found `ragged_dot` slowest, and tiles of 4 to 8 faster than 16.
    """
    return 32 if platform == "cpu" else 1024


def tile_rows(num_rows: int, num_experts: int, platform: str) -> int:
    """Rows of a tile, or 0 for `ragged_dot`.

    The last tile of an expert is half empty on average. With a cost v of a visit, m rows an expert
    cost about (m / R + 1 / 2)(v + R), least at R = sqrt(2 v m); a power of two near it is taken. Up
    to v rows in all, visits would cost as much as all rows with every expert.
    """
    cost = visit_cost(platform)
    if platform == "tpu" or num_rows <= cost:
        return 0
    best = math.sqrt(2 * cost * num_rows / num_experts)
    return min(2 ** round(math.log2(best)), num_rows)


def turns(num_rows: float, window: int, num_experts: int, platform: str) -> int:
    """Visits to expect of `num_rows` spread over the experts, in a room of `window` rows."""
    tile = tile_rows(window, num_experts, platform)
    return round(num_rows / tile + num_experts / 2) if tile else 0


def _ragged(rows_MD, counts_I, gate_IDF, up_IDF, down_IFD):
    dot = _grouped_dot if platform() == "tpu" else jax.lax.ragged_dot
    gate_MF, up_MF = dot(rows_MD, gate_IDF, counts_I), dot(rows_MD, up_IDF, counts_I)
    return dot(swiglu(gate_MF, up_MF), down_IFD, counts_I)


@jax.custom_vjp
def _grouped_dot(rows_MX, weights_IXY, counts_I):
    """`jax.lax.ragged_dot` with the gradients of the weights by a kernel: [M, Y].

    libtpu 0.0.42 has a grouped kernel for this and for the gradients of the rows. Those of the
    weights it makes a product of all rows with every expert: 16 experts, 16 times the work."""
    return jax.lax.ragged_dot(rows_MX, weights_IXY, counts_I)


def _grouped_dot_backward(args, dout_MY):
    rows_MX, weights_IXY, counts_I = args
    back = jax.linear_transpose(lambda x: jax.lax.ragged_dot(x, weights_IXY, counts_I), rows_MX)
    return *back(dout_MY), outer_products(rows_MX, dout_MY, counts_I, weights_IXY.dtype), None


_grouped_dot.defvjp(lambda *args: (_grouped_dot(*args), args), _grouped_dot_backward)


def outer_products(rows_MX, dout_MY, counts_I, dtype) -> jax.Array:
    """Of each expert, the sum over its rows of their outer products: [I, X, Y], added in float32.

    JAX's Pallas kernel for TPUs; elsewhere it is interpreted, for tests."""
    # Not before it is needed: it loads what only TPUs have.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    M, X = rows_MX.shape
    tile = min(512, -(-M // 16) * 16)
    pad = ((0, -M % tile), (0, 0))
    # Tiles that leave room in 16 MiB of vector memory for two of each side and three of the result.
    wide = 1024 if rows_MX.dtype.itemsize < 4 else 512
    tiling = tile, _side(X, 512), _side(dout_MY.shape[1], wide)
    return tgmm(
        jnp.pad(rows_MX, pad).T, jnp.pad(dout_MY, pad), counts_I, dtype, tiling,
        interpret=platform() != "tpu",
    )  # fmt: skip


def _side(size: int, most: int) -> int:
    """The largest multiple of 128 up to `most` that divides `size`; `most` where there is none."""
    if size <= most:
        return size
    return next((side for side in range(most, 0, -128) if size % side == 0), most)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled(tile: int, rows_MD, counts_I, gate_IDF, up_IDF, down_IFD):
    def visit(out_MD, expert, rows: "_Tile"):
        rows_RD, gate_DF, up_DF = rows.of(rows_MD), gate_IDF[expert], up_IDF[expert]
        hidden_RF = swiglu(rows_RD @ gate_DF, rows_RD @ up_DF)
        return rows.put(out_MD, hidden_RF @ down_IFD[expert])

    return _visits(tile, rows_MD.shape[0], counts_I, visit, jnp.zeros_like(rows_MD))


def _tiled_gradients(tile: int, dout_MD, rows_MD, counts_I, gate_IDF, up_IDF, down_IFD):
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def visit(carry, expert, rows: "_Tile"):
        drows_MD, dgate_IDF, dup_IDF, ddown_IFD = carry
        rows_RD, dout_RD = rows.of(rows_MD), rows.of(dout_MD)
        gate_DF, up_DF = gate_IDF[expert], up_IDF[expert]
        hidden_RF, swiglu_vjp = jax.vjp(swiglu, rows_RD @ gate_DF, rows_RD @ up_DF)
        dgate_RF, dup_RF = swiglu_vjp(dout_RD @ down_IFD[expert].T)
        # Zeros keep the rows of others out of the weights' sums.
        hidden_RF, dgate_RF, dup_RF = map(rows.own, (hidden_RF, dgate_RF, dup_RF))
        drows_RD = product("RF,DF->RD", dgate_RF, gate_DF) + product("RF,DF->RD", dup_RF, up_DF)
        return (
            rows.put(drows_MD, drows_RD.astype(drows_MD.dtype)),
            _add(dgate_IDF, expert, product("RD,RF->DF", rows_RD, dgate_RF)),
            _add(dup_IDF, expert, product("RD,RF->DF", rows_RD, dup_RF)),
            _add(ddown_IFD, expert, product("RF,RD->FD", hidden_RF, dout_RD)),
        )

    zeros = (jnp.zeros(w.shape, jnp.float32) for w in (gate_IDF, up_IDF, down_IFD))
    start = (jnp.zeros_like(rows_MD), *zeros)
    return _visits(tile, rows_MD.shape[0], counts_I, visit, start)


def _backward(tile: int, args, dout_MD):
    drows_MD, *dweights = _tiled_gradients(tile, dout_MD, *args)
    return drows_MD, None, *(d.astype(w.dtype) for d, w in zip(dweights, args[2:]))


_tiled.defvjp(lambda tile, *args: (_tiled(tile, *args), args), _backward)


def _add(total_IXY, expert, part_XY):
    put = jax.lax.dynamic_update_index_in_dim
    return put(total_IXY, total_IXY[expert] + part_XY, expert, 0)


class _Tile:
    """Rows [R] from `begin` on, of which a visit's expert has those of `own_R1`."""

    def __init__(self, begin, own_R1):
        self.begin, self.own_R1 = begin, own_R1

    def of(self, x_MD):
        return jax.lax.dynamic_slice_in_dim(x_MD, self.begin, self.own_R1.size)

    def own(self, x_RX):
        return jnp.where(self.own_R1, x_RX, 0)

    def put(self, x_MD, new_RD):
        new_RD = jnp.where(self.own_R1, new_RD, self.of(x_MD))
        return jax.lax.dynamic_update_slice_in_dim(x_MD, new_RD, self.begin, 0)


def _visits(tile: int, num_rows: int, counts_I, visit: Callable, start: Any) -> Any:
    """Runs `visit(carry, expert, tile)` for each tile of each expert's rows, as many as there are.

    They are at most W: all rows' tiles, and one begun for each expert."""
    tiles_I = -(-counts_I // tile)
    first_I = jnp.cumsum(counts_I) - counts_I
    W = num_rows // tile + counts_I.size
    expert_W = jnp.repeat(jnp.arange(counts_I.size), tiles_I, total_repeat_length=W)
    before_I = jnp.cumsum(tiles_I) - tiles_I
    row_W = first_I[expert_W] + (jnp.arange(W) - before_I[expert_W]) * tile
    end_W = (first_I + counts_I)[expert_W]
    # The last tiles may reach over the end of the rows: they begin earlier, and skip what is done.
    begin_W = jnp.minimum(row_W, num_rows - tile)

    def turn(index, carry):
        place_R1 = begin_W[index] + jnp.arange(tile)[:, None]
        own_R1 = (place_R1 >= row_W[index]) & (place_R1 < end_W[index])
        return visit(carry, expert_W[index], _Tile(begin_W[index], own_R1))

    with jax.named_scope("visits"):
        return jax.lax.fori_loop(0, tiles_I.sum(), turn, start)
