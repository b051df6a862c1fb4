"""The experts' grouped matmuls against one row at a time, and the choice of how they are done."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.model import grouped
from tests.model.conftest import QUICK

D, F = 8, 6
# Rows of each expert, of 40 rows in all.
COUNTS = {
    "even": (10, 10, 10, 10),
    "skewed": (1, 36, 2, 1),
    "empty": (0, 17, 0, 0),
    "last_alone": (0, 0, 0, 40),
    "spare_rows": (5, 3, 0, 11),
    "nothing": (0, 0, 0, 0),
}


def _inputs(counts, dtype=np.float32):
    """Rows [40, D], counts and weights; rows that are nobody's are not zero."""
    rng = np.random.default_rng(0)
    E = len(counts)
    rows_MD, *weights = (
        jnp.asarray(rng.normal(size=shape) / 2, dtype)
        for shape in ((40, D), (E, D, F), (E, D, F), (E, F, D))
    )
    return rows_MD, jnp.asarray(counts, jnp.int32), *weights


def _is_row(counts_I):
    return (jnp.arange(40) < counts_I.sum())[:, None]


def _row_by_row(rows_MD, counts_I, gate_IDF, up_IDF, down_IFD):
    """The MLP of each row with its own copy of its expert's weights; zeros for nobody's rows."""
    expert_M = jnp.searchsorted(jnp.cumsum(counts_I), jnp.arange(40), side="right")
    expert_M = jnp.minimum(expert_M, counts_I.size - 1)
    gate_MF = jnp.einsum("MD,MDF->MF", rows_MD, gate_IDF[expert_M])
    up_MF = jnp.einsum("MD,MDF->MF", rows_MD, up_IDF[expert_M])
    hidden_MF = gate_MF / (1 + jnp.exp(-gate_MF)) * up_MF
    return jnp.where(_is_row(counts_I), jnp.einsum("MF,MFD->MD", hidden_MF, down_IFD[expert_M]), 0)


@functools.cache
def _gradients(tile):
    """Jitted gradients of a sum over the rows that are somebody's, and these rows; 0 is row by
    row."""
    run = functools.partial(grouped._tiled, tile) if tile else _row_by_row

    def value(rows_MD, counts_I, *weights):
        out_MD = jnp.where(_is_row(counts_I), run(rows_MD, counts_I, *weights), 0)
        return jnp.sin(out_MD.astype(jnp.float32)).sum(), out_MD

    return jax.jit(jax.grad(value, (0, 2, 3, 4), has_aux=True), compiler_options=QUICK)


def _results(tile, args):
    grads, out_MD = _gradients(tile)(*args)
    return out_MD, *grads


def _assert_close(ours, wanted, tolerance):
    for a, b in zip(ours, wanted, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=0))


@pytest.mark.parametrize("tile", [1, 7, 16, 40])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_tiles_give_what_one_row_at_a_time_gives(counts, tile):
    args = _inputs(counts)
    _assert_close(_results(tile, args), _results(0, args), 1e-5)


@pytest.mark.parametrize("counts", [COUNTS["skewed"], COUNTS["spare_rows"]], ids=str)
def test_the_result_has_the_dtype_of_the_rows(counts):
    args = _inputs(counts, jnp.bfloat16)
    ours = _results(7, args)
    assert {x.dtype for x in ours} == {jnp.dtype("bfloat16")}
    exact = [x if x.dtype == jnp.int32 else x.astype(jnp.float32) for x in args]
    _assert_close(ours, _results(0, exact), 0.03)


def test_gradients_of_weights_are_summed_in_float32():
    # One row a visit: a sum in bfloat16 would stop at 256 times what it adds.
    _, counts_I, *weights = _inputs((1000, 0, 0, 0), jnp.bfloat16)
    ones = [jnp.ones_like(weight) for weight in weights]
    many_MD = jnp.full((1000, D), 1 / D, jnp.bfloat16)
    dout_MD = jnp.ones_like(many_MD)
    drows_MD, *dweights = grouped._tiled_gradients(1, dout_MD, many_MD, counts_I, *ones)
    assert {x.dtype for x in dweights} == {jnp.dtype("float32")}
    assert drows_MD.dtype == jnp.bfloat16
    silu = jax.nn.silu(jnp.bfloat16(1))
    np.testing.assert_array_equal(dweights[2][0], np.full((F, D), 1000 * np.float32(silu)))


@pytest.mark.parametrize("tile", [0, 7])
def test_gradients_by_hand_are_those_of_jax(monkeypatch, tile):
    monkeypatch.setattr(grouped, "tile_rows", lambda *_: tile)
    args = _inputs(COUNTS["skewed"])
    dout_MD = jnp.cos(jnp.arange(40.0 * D).reshape(40, D))
    _, vjp = jax.vjp(lambda rows, *w: _row_by_row(rows, args[1], *w), args[0], *args[2:])
    _assert_close(grouped.gradients(dout_MD, *args), vjp(dout_MD), 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_gradients_of_a_product_on_tpus_are_those_of_ragged_dot(counts, dtype):
    rows_MD, counts_I, gate_IDF, *_ = _inputs(counts, dtype)
    dout_MF = jnp.cos(jnp.arange(40.0 * F)).reshape(40, F).astype(dtype)
    ours, vjp = jax.vjp(lambda *args: grouped._grouped_dot(*args, counts_I), rows_MD, gate_IDF)
    plain = lambda rows, weights: jax.lax.ragged_dot(rows, weights, counts_I)
    wanted, wanted_vjp = jax.vjp(plain, rows_MD, gate_IDF)
    np.testing.assert_array_equal(ours, wanted)
    exact = 1e-6 if dtype == np.float32 else 0.01
    drows, dweights = vjp(dout_MF)
    wanted_drows, wanted_dweights = wanted_vjp(dout_MF)
    assert (drows.dtype, dweights.dtype) == (dtype, dtype)
    here = _is_row(counts_I)
    _assert_close(
        (jnp.where(here, drows, 0), dweights), (jnp.where(here, wanted_drows, 0), wanted_dweights),
        exact,
    )  # fmt: skip


def test_groups_of_several_tiles_on_tpus():
    # Three tiles of 512 rows; the last is padded, and groups end within tiles.
    rng = np.random.default_rng(0)
    rows_MD, dout_MF = (jnp.asarray(rng.normal(size=(1100, n)), jnp.float32) for n in (D, F))
    counts = (700, 0, 324, 50)
    ours = grouped.outer_products(rows_MD, dout_MF, jnp.asarray(counts, jnp.int32), jnp.float32)
    ends = np.cumsum(counts)
    wanted = [
        rows_MD[end - count : end].T @ dout_MF[end - count : end]
        for end, count in zip(ends, counts, strict=True)
    ]
    np.testing.assert_allclose(ours, wanted, atol=1e-3)


def test_rows_of_nobody_may_be_anything_on_tpus():
    rows_MD, counts_I, *_ = _inputs(COUNTS["spare_rows"])
    dout_MF = jnp.ones((40, F))
    clean = grouped.outer_products(rows_MD, dout_MF, counts_I, jnp.float32)
    rows_MD = jnp.where(_is_row(counts_I), rows_MD, jnp.nan)
    dirty = grouped.outer_products(rows_MD, dout_MF, counts_I, jnp.float32)
    np.testing.assert_array_equal(clean, dirty)


@pytest.mark.parametrize(
    ("size", "most", "wanted"),
    [(768, 512, 384), (2048, 512, 512), (768, 1024, 768), (1000, 512, 512)],
)
def test_sides_of_tiles_divide_where_they_can(size, most, wanted):
    assert grouped._side(size, most) == wanted


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_an_expert_is_visited_once_a_tile_and_not_at_all_without_rows(counts):
    def visit(carry, expert, tile):
        number, own_MI = carry
        places = tile.begin + jnp.arange(7)
        return number + 1, own_MI.at[places, expert].add(tile.own_R1[:, 0].astype(jnp.int32))

    start = (jnp.int32(0), jnp.zeros((40, 4), jnp.int32))
    number, own_MI = grouped._visits(7, 40, jnp.asarray(counts, jnp.int32), visit, start)
    assert number == sum(-(-count // 7) for count in counts)
    wanted = np.zeros((40, 4), int)
    wanted[np.arange(sum(counts)), np.repeat(np.arange(4), counts)] = 1
    np.testing.assert_array_equal(own_MI, wanted)


@pytest.mark.parametrize(
    ("rows", "num_experts", "platform", "wanted"),
    [
        (655_360, 16, "tpu", 0),
        (655_360, 16, "gpu", 8192),  # A row of 65,536 tokens, 8 of 128 experts, 8 devices.
        (8 * 512, 128, "gpu", 256),
        (8 * 64, 128, "gpu", 0),  # 64 slots decode: each expert's weights are read once.
        (100, 2, "cpu", 64),
        (33, 1, "cpu", 33),  # Never more than there are.
        (8, 128, "cpu", 0),
    ],
)
def test_tiles_follow_the_rows_of_an_expert(rows, num_experts, platform, wanted):
    assert grouped.tile_rows(rows, num_experts, platform) == wanted


def test_turns_are_tiles_of_the_real_rows_and_a_half_one_of_each_expert():
    assert grouped.turns(524_288, 655_360, 16, "gpu") == 64 + 8
    assert grouped.turns(524_288, 655_360, 16, "tpu") == 0


@pytest.mark.parametrize(("platform", "tiled"), [("tpu", False), ("gpu", True), ("cpu", True)])
def test_the_devices_of_the_mesh_decide(monkeypatch, platform, tiled):
    monkeypatch.setattr(grouped, "platform", lambda: platform)
    rows_MD = jax.ShapeDtypeStruct((4096, D), jnp.float32)
    rest = _inputs((1, 1, 1, 1))[1:]
    text = str(jax.make_jaxpr(lambda *args: grouped.experts(*args))(rows_MD, *rest))
    assert ("ragged_dot" in text) == (not tiled) and ("while" in text) == tiled
