"""The cache's layouts: each attends like plain attention, and gives the engine the same tokens."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import literals
from jax.experimental import pallas

from jssd.model import layers, transformer
from jssd.sampling import cache, generate
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from tests.sampling import conftest

B, N, K, H, S, M = 3, 4, 2, 128, 16, 4
POSITIONS = (5, 63, 16)  # Within a page, in the last place of all, in the first of a page.
# The ragged kernel takes heads of 128 only.
WIDE = dataclasses.replace(conftest.TINY, head_dim=H)
PLACE: Any = {"rows": 256, "max_len": 65536, "on_mesh": False}
FLOAT = [cache.Gather, cache.Triton, cache.Ragged]
INT8 = [cache.Gather, cache.Triton]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Runs the GPU's and the TPU's kernels on a CPU."""
    # JAX 0.10.2 asks a masked store's index, which is a plain number in the ragged kernel, for its
    # shape when it interprets; compiled for a TPU it does not.
    monkeypatch.setattr(literals.TypedInt, "shape", (), raising=False)
    call = pallas.pallas_call
    monkeypatch.setattr(
        pallas, "pallas_call", lambda *args, **rest: call(*args, **rest | {"interpret": True})
    )


def _layout(kind, dtype="float32"):
    return kind(K, H, S, jnp.dtype(dtype))


def _filled(layout, keys_BTKH, values_BTKH, table_BM):
    """Pools with the first half packed as whole pages and the rest appended token by token."""
    pools = [jnp.zeros((1 + B * M, *shape), dtype) for shape, dtype in layout.shapes()]
    half = M // 2
    pages = lambda x: x[:, : half * S].reshape(B * half, S, K, H)
    whole = layout.pack(
        pages(keys_BTKH).transpose(0, 2, 3, 1), pages(values_BTKH).transpose(0, 2, 1, 3)
    )
    pools = [pool.at[table_BM[:, :half].reshape(-1)].set(new) for pool, new in zip(pools, whole)]
    for time in range(half * S, M * S):
        pools = layout.append(
            tuple(pools), table_BM[:, time // S], jnp.full(B, time % S),
            keys_BTKH[:, time], values_BTKH[:, time],
        )  # fmt: skip
    return tuple(pools)


def _case():
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    table_BM = jnp.asarray(1 + rng.permutation(B * M).reshape(B, M), jnp.int32)
    return normal(B, N, H), normal(B, M * S, K, H), normal(B, M * S, K, H), table_BM


def _plain(q_BNH, keys_BTKH, values_BTKH):
    mask_BTS = jnp.arange(M * S)[None, None] <= jnp.asarray(POSITIONS)[:, None, None]
    return layers.attend(q_BNH[:, None], keys_BTKH, values_BTKH, mask_BTS)[:, 0]


@pytest.mark.parametrize("kind", FLOAT)
def test_every_layout_attends_like_plain_attention(kind):
    q_BNH, keys_BTKH, values_BTKH, table_BM = _case()
    layout = _layout(kind)
    pools = _filled(layout, keys_BTKH, values_BTKH, table_BM)
    found_BNH = layout.attend(pools, q_BNH, table_BM, jnp.asarray(POSITIONS))
    np.testing.assert_allclose(found_BNH, _plain(q_BNH, keys_BTKH, values_BTKH), atol=2e-6)


@pytest.mark.parametrize("kind", FLOAT)
def test_an_idle_row_is_finite_and_disturbs_nobody(kind):
    q_BNH, keys_BTKH, values_BTKH, table_BM = _case()
    layout = _layout(kind)
    pools = _filled(layout, keys_BTKH, values_BTKH, table_BM)
    wanted_BNH = layout.attend(pools, q_BNH, table_BM, jnp.asarray(POSITIONS))
    idle_BM = table_BM.at[1].set(0)
    found_BNH = layout.attend(pools, q_BNH, idle_BM, jnp.asarray(POSITIONS).at[1].set(-1))
    assert np.isfinite(found_BNH).all()
    np.testing.assert_array_equal(found_BNH[::2], wanted_BNH[::2])


@pytest.mark.parametrize("kind", INT8)
def test_int8_attends_to_the_rounded_numbers_and_they_are_near(kind):
    q_BNH, keys_BTKH, values_BTKH, table_BM = _case()
    # Tokens of very different size: each has a scale of its own.
    size_T = jnp.asarray(np.random.default_rng(1).lognormal(0, 2, M * S), jnp.float32)
    keys_BTKH, values_BTKH = (x * size_T[:, None, None] for x in (keys_BTKH, values_BTKH))
    layout = _layout(kind, "int8")
    pools = _filled(layout, keys_BTKH, values_BTKH, table_BM)
    assert [pool.dtype for pool in pools] == [jnp.int8, jnp.int8, jnp.float32, jnp.float32]

    def rounded(x):
        scale = jnp.abs(x).max(axis=-1, keepdims=True) / 127
        whole = jnp.round(x / scale)
        assert jnp.abs(whole).max() == 127
        return whole * scale

    near_BTKH = rounded(keys_BTKH), rounded(values_BTKH)
    assert jnp.abs((near_BTKH[0] - keys_BTKH) / size_T[:, None, None]).max() < 5 / 127 / 2
    found_BNH = layout.attend(pools, q_BNH, table_BM, jnp.asarray(POSITIONS))
    np.testing.assert_allclose(found_BNH, _plain(q_BNH, *near_BTKH), rtol=1e-4, atol=1e-4)


def _run(attention, cache_dtype="", num_slots=4, cache_tokens=0):
    params = conftest.loud_params(WIDE, seed=0, factor=4)
    sizes: dict[str, Any] = {"prompt_bucket": 8, "prefill_chunk": 16, "page_size": 8}
    engine = Engine(
        transformer.unstack(params), WIDE, num_slots=num_slots, max_len=32, decode_steps=4,
        attention=attention, cache_dtype=cache_dtype, cache_tokens=cache_tokens, **sizes,
    )  # fmt: skip
    laws = (Sampling(1.5, 20, 0.8), Sampling(0.0), Sampling())
    requests = [
        Request(tuple(range(1, size)), 0, size, 0, laws[size % 3], (7,), 12)
        for size in (2, 3, 9, 12, 18)
    ]
    done = dict(generate.run(engine, requests))
    return engine, [done[index] for index in range(len(requests))]


def test_every_layout_gives_the_engine_the_same_tokens():
    engine, wanted = _run("auto")
    assert type(engine.layout) is cache.Gather  # On a CPU.
    for kind in ("triton", "ragged"):
        engine, found = _run(kind)
        assert type(engine.layout).__name__.lower() == kind
        for one, other in zip(found, wanted):
            assert one.token_ids == other.token_ids
            assert one.support_ids == other.support_ids
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_an_int8_cache_is_as_repeatable_and_near_to_float32():
    engine, found = _run("gather", "int8")
    assert engine.init_decode_state().cache[0][0].dtype == jnp.int8
    # Another number of slots, and completions set back for want of pages: the same tokens.
    for settings in ({"num_slots": 2}, {"cache_tokens": 40}):
        other = _run("gather", "int8", **settings)[1]
        assert [c.token_ids for c in other] == [c.token_ids for c in found]
    exact = _run("gather")[1]
    for one, other in zip(found, exact):
        same = [a == b for a, b in zip(one.token_ids, other.token_ids)]
        until = same.index(False) if False in same else len(same)
        assert until > 0
        gap = np.abs(np.subtract(one.logprobs[:until], other.logprobs[:until]))
        assert gap.max() < 0.1 and (until == 1 or gap.max() > 0)


def test_a_mesh_splits_every_layout_by_heads():
    mesh = jax.make_mesh(
        (2, 1, 2), ("data", "expert", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3,
        devices=jax.devices()[:4],
    )  # fmt: skip
    for kind, spec in ((cache.Gather, 1), (cache.Triton, 1), (cache.Ragged, 2)):
        layout = _layout(kind)
        for (shape, _), axes in zip(layout.shapes(), layout.specs()):
            assert axes[0] == ("data", "expert") and axes[spec] == "tensor"
            heads = jax.NamedSharding(mesh, axes).shard_shape((6, *shape))
            assert heads[spec] * 2 == (1, *shape)[spec]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("raged", ""), "attention='raged' must be one of 'auto', 'gather', 'ragged', 'triton'"),
        (("auto", "int4"), "cache_dtype='int4' must be one of '', 'float32', 'bfloat16', 'int8'"),
        (("ragged", "int8"), "cache_dtype='int8' is not available with attention='ragged'"),
    ],
)
def test_what_a_layout_cannot_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        cache.layout(WIDE, settings[0], settings[1], dtype=jnp.float32, platform="cpu", **PLACE)


def test_the_kernel_follows_the_platform():
    def pick(cfg, attention, cache_dtype, platform):
        return cache.layout(
            cfg, attention, cache_dtype, **PLACE, dtype=jnp.bfloat16, platform=platform
        )

    assert type(pick(WIDE, "auto", "", "tpu")) is cache.Ragged
    assert type(pick(WIDE, "auto", "int8", "tpu")) is cache.Gather
    assert type(pick(conftest.TINY, "auto", "", "tpu")) is cache.Gather
    assert type(pick(WIDE, "auto", "int8", "gpu")) is cache.Triton
    # 256 rows of 65,536 tokens: the ragged kernel's table of pages of 64 would be 1 MiB.
    assert pick(WIDE, "auto", "", "tpu").page_size == 128
    assert pick(WIDE, "gather", "", "tpu").page_size == 64
    with pytest.raises(ValueError, match="needs a head size that is a multiple of 128"):
        pick(conftest.TINY, "ragged", "", "tpu")
