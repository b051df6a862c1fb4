"""Every kind of attention equals the dense one, and those for long rows hold no square of a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import attention, blockwise, layers

AUTO = {
    "kind": "auto", "platform": "cpu", "length": 4096, "head_dim": 128,
    "dtype": jnp.bfloat16, "packed": True, "context": 1,
}  # fmt: skip


def _choose(**changes):
    settings = {**AUTO, **changes}
    return attention.choose(settings.pop("kind"), settings.pop("platform"), **settings)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "blockwise"),
        ({"length": 128}, "dense"),
        ({"length": 129}, "blockwise"),
        ({"length": 512, "platform": "tpu"}, "dense"),
        ({"length": 513, "platform": "gpu"}, "blockwise"),
        ({"platform": "tpu"}, "splash"),
        ({"platform": "tpu", "dtype": jnp.float32}, "splash"),
        ({"platform": "tpu", "context": 8}, "splash"),
        ({"platform": "tpu", "context": 32}, "blockwise"),  # Pieces of 64 tokens.
        ({"platform": "tpu", "head_dim": 64}, "blockwise"),
        ({"platform": "tpu", "length": 4000}, "blockwise"),
        ({"platform": "gpu"}, "blockwise"),
        ({"platform": "gpu", "packed": False}, "cudnn"),
        ({"platform": "cuda", "packed": False}, "cudnn"),
        ({"platform": "gpu", "packed": False, "dtype": jnp.float32}, "blockwise"),
        ({"platform": "gpu", "packed": False, "context": 2}, "blockwise"),
        ({"kind": "dense"}, "dense"),
        ({"kind": "blockwise", "length": 16}, "blockwise"),
        ({"kind": "splash", "platform": "tpu", "length": 128}, "splash"),
        ({"kind": "cudnn", "platform": "gpu", "packed": False, "length": 16}, "cudnn"),
    ],
)
def test_the_kind_of_attention_follows_device_and_rows(changes, wanted):
    assert _choose(**changes) == wanted


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"kind": "splash"}, "a TPU, not a cpu"),
        (
            {"kind": "splash", "platform": "tpu", "head_dim": 96},
            "heads of a multiple of 128, not 96",
        ),
        (
            {"kind": "splash", "platform": "tpu", "length": 200},
            "rows of a multiple of 128 tokens, not 200",
        ),
        (
            {"kind": "splash", "platform": "tpu", "length": 640, "context": 2},
            "rows of a multiple of 512 tokens, not 640",
        ),
        (
            {"kind": "cudnn", "packed": False},
            "a GPU, not a cpu",
        ),
        (
            {"kind": "cudnn", "platform": "gpu"},
            "one sample on a row (train.packing none or bucketed)",
        ),
        (
            {"kind": "cudnn", "platform": "gpu", "packed": False, "context": 4},
            "mesh.context=1, not 4",
        ),
        (
            {"kind": "cudnn", "platform": "tpu", "packed": False, "dtype": jnp.float32},
            "a GPU, not a tpu; bfloat16, not float32",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_it_needs(changes, lacking):
    with pytest.raises(ValueError) as caught:
        _choose(**changes)
    kind = changes["kind"]
    assert str(caught.value) == (
        f"train.attention={kind!r} needs {lacking}. 'auto' takes what can be had."
    )


def _segments(*lens):
    """One row: segments 1, 2, ... of these lengths; the last length is padding."""
    ids = [*range(1, len(lens)), 0]
    return np.repeat(ids, lens).astype(np.int32)


# Rows in which segments begin and end within blocks, fill them, and are absent.
ROWS = np.stack([_segments(10, 1, 19, 7), _segments(37, 0), _segments(3, 16, 18), _segments(37)])


def _qkv(segment_ids, groups=2, kv_heads=2, head_dim=8, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    heads = (groups * kv_heads, kv_heads, kv_heads)
    return tuple(
        jnp.asarray(rng.normal(size=(*segment_ids.shape, n, head_dim)), dtype) for n in heads
    )


def _results(attend, segment_ids, q, k, v):
    """Output, zero on padding, and the gradients of a function of it by queries, keys, values."""

    def value(q, k, v):
        out = attend(q, k, v)
        # What padding gets is unspecified, but must be finite: 0 * NaN is NaN.
        out = out * (segment_ids > 0)[..., None, None].astype(out.dtype)
        return jnp.sin(out.astype(jnp.float32)).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(value, (0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


def _rows(kind, segment_ids):
    return lambda q, k, v: attention.rows(kind, jnp.asarray(segment_ids))(q, k, v)[0]


def _assert_close(ours, wanted, tolerance):
    """Each array within `tolerance` of the largest number of the wanted one."""
    for a, b in zip(ours, wanted, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(
    ("queries", "keys", "groups"), [(8, 8, 2), (8, 16, 4), (16, 4, 1), (64, 64, 2), (8, 512, 2)]
)
def test_block_by_block_is_the_dense_attention(monkeypatch, queries, keys, groups):
    monkeypatch.setattr(blockwise, "QUERIES", queries)
    monkeypatch.setattr(blockwise, "KEYS", keys)
    qkv = _qkv(ROWS, groups)
    seen_BTS = ROWS[:, :, None] == ROWS[:, None, :]
    seen_BTS &= (ROWS > 0)[:, :, None] & np.tri(ROWS.shape[1], dtype=bool)
    wanted = _results(lambda q, k, v: layers.attend(q, k, v, jnp.asarray(seen_BTS)), ROWS, *qkv)
    _assert_close(_results(_rows("dense", ROWS), ROWS, *qkv), wanted, 1e-6)
    _assert_close(_results(_rows("blockwise", ROWS), ROWS, *qkv), wanted, 1e-5)


def test_queries_that_are_pieces_of_a_row_get_what_they_get_in_the_whole(monkeypatch):
    monkeypatch.setattr(blockwise, "QUERIES", 8)
    monkeypatch.setattr(blockwise, "KEYS", 8)
    rows = np.stack([_segments(10, 12, 7, 3), _segments(32, 0)])
    q, k, v = _qkv(rows)
    whole = _rows("dense", rows)(q, k, v)
    piece_T = np.r_[5:12, 27:32]  # Neither whole blocks nor next to each other.
    ours = attention.Rows(
        "blockwise", jnp.asarray(rows[:, piece_T]), jnp.asarray(rows), jnp.asarray(piece_T)
    )(q[:, piece_T], k, v)[0]
    real = (rows > 0)[:, piece_T]
    np.testing.assert_allclose(ours[real], whole[:, piece_T][real], atol=1e-5)


def test_bfloat16_stays_near_float32(monkeypatch):
    monkeypatch.setattr(blockwise, "QUERIES", 8)
    monkeypatch.setattr(blockwise, "KEYS", 16)
    narrow = _qkv(ROWS, dtype=jnp.bfloat16)
    ours = _results(_rows("blockwise", ROWS), ROWS, *narrow)
    assert {array.dtype for array in ours} == {jnp.dtype("bfloat16")}
    wide = (array.astype(jnp.float32) for array in narrow)
    _assert_close(ours, _results(_rows("dense", ROWS), ROWS, *wide), 2e-2)


def _temporary_bytes(kind, length):
    """Of the compiled value and gradients."""

    def value(q, k, v, segment_ids):
        return attention.rows(kind, segment_ids)(q, k, v)[0].sum()

    heads = [jax.ShapeDtypeStruct((1, length, n, 16), jnp.float32) for n in (2, 1, 1)]
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
    program = jax.jit(jax.value_and_grad(value, (0, 1, 2)))
    memory = program.lower(*heads, segments).compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


@pytest.mark.parametrize(("kind", "times"), [("dense", 16), ("blockwise", 4)])
def test_four_times_the_tokens_take_sixteen_times_the_memory_or_four(monkeypatch, kind, times):
    # What one pair of blocks takes does not grow: here it is little.
    monkeypatch.setattr(blockwise, "QUERIES", 16)
    monkeypatch.setattr(blockwise, "KEYS", 32)
    small, large = (_temporary_bytes(kind, length) for length in (2048, 8192))
    assert 0.7 * times < large / small < 1.3 * times


def test_no_array_of_the_program_has_queries_by_keys():
    rows = np.ones((1, 2048), np.int32)
    q, k, v = _qkv(rows, groups=2, kv_heads=1)
    value = lambda q, k, v: _rows("blockwise", rows)(q, k, v).sum()
    jaxpr = jax.make_jaxpr(jax.grad(value, (0, 1, 2)))(q, k, v)
    sizes = [var.aval.size for eqn in _all_equations(jaxpr.jaxpr) for var in eqn.outvars]
    assert max(sizes) == 2 * blockwise.QUERIES * blockwise.KEYS  # The scores of a pair of blocks.


def _all_equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in jex.jaxprs_in_params(eqn.params):
            yield from _all_equations(sub)


@pytest.fixture
def simulated_kernel(monkeypatch):
    """The TPU's kernel, with blocks of 128, run by JAX's simulation of it."""
    build = attention._splash_kernel

    def simulated(*args):
        kernel = build(*args)
        kernel.kwargs["interpret"] = True
        return kernel

    monkeypatch.setattr(attention, "_SPLASH_BLOCK", 128)
    monkeypatch.setattr(attention, "_splash_kernel", simulated)


@pytest.mark.usefixtures("simulated_kernel")
def test_the_kernel_of_tpus_is_the_dense_attention():
    rows = np.stack([_segments(100, 1, 119, 36), _segments(256, 0)])
    qkv = _qkv(rows, head_dim=128)
    wanted = _results(_rows("dense", rows), rows, *qkv)
    _assert_close(_results(_rows("splash", rows), rows, *qkv), wanted, 1e-5)


@pytest.mark.parametrize(
    ("kind", "length", "context"),
    [("dense", 64, 2), ("blockwise", 64, 2), ("blockwise", 64, 4), ("splash", 512, 2)],
)
@pytest.mark.usefixtures("simulated_kernel")
def test_devices_that_share_a_row_find_what_one_finds(monkeypatch, kind, length, context):
    monkeypatch.setattr(blockwise, "QUERIES", 8)
    monkeypatch.setattr(blockwise, "KEYS", 8)
    rows = np.stack([_segments(length - 40, 27, 13), _segments(5, length - 5, 0)])
    qkv = _qkv(rows, head_dim=128 if kind == "splash" else 8)
    wanted = _results(_rows("dense", rows), rows, *qkv)
    order = sharding.balanced_order(length, context)
    mesh = sharding.make_mesh(
        MeshConfig(data=2, fsdp=1, context=context), jax.devices()[: 2 * context]
    )
    with jax.set_mesh(mesh):
        place = lambda x: jax.device_put(x[:, order], sharding.sharding("batch", "seq"))
        segment_ids_BT, *qkv = (place(np.asarray(x)) for x in (rows, *qkv))
        run = sharding.on_shards(
            lambda segment_ids, *qkv: attention.rows(kind, segment_ids)(*qkv)[0],
            (("batch", "seq"),) * 4,
            ("batch", "seq", None, None),
        )
        ours = _results(lambda *qkv: run(segment_ids_BT, *qkv), segment_ids_BT, *qkv)
    _assert_close(ours, [np.asarray(array)[:, order] for array in wanted], 1e-5)


@pytest.mark.parametrize(
    ("length", "count", "block"), [(1024, 1, 256), (1536, 1, 128), (1024, 2, 256), (2048, 2, 128)]
)
def test_the_kernel_skips_the_blocks_that_jax_would_skip(monkeypatch, length, count, block):
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    monkeypatch.setattr(attention, "_SPLASH_BLOCK", block)
    ours = attention._splash_kernel(2, length, count)
    mask = splash.CausalMask((length, length))
    mask.q_sequence = sharding.balanced_order(length, count).astype(np.int32)
    wanted = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * 2), block_sizes=ours.kwargs["block_sizes"],
        head_shards=1, q_seq_shards=count,
    )  # fmt: skip
    assert ours.kwargs["block_sizes"].block_q == block
    for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
        jax.tree.map(np.testing.assert_array_equal, getattr(ours, name), getattr(wanted, name))


def test_the_kernel_of_gpus_is_told_how_long_each_row_is(monkeypatch):
    # It cannot run here: XLA's own attention stands in and takes the same arguments.
    of_jax = jax.nn.dot_product_attention

    def stand_in(*args, implementation, **settings):
        assert implementation == "cudnn"
        return of_jax(*args, implementation="xla", **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    rows = np.stack([_segments(20, 12), _segments(32, 0), _segments(1, 31)])
    qkv = _qkv(rows)
    wanted = _results(_rows("dense", rows), rows, *qkv)
    _assert_close(_results(_rows("cudnn", rows), rows, *qkv), wanted, 1e-5)
