"""A mixture of experts on any mesh of eight devices, with an even router and with a skewed one.

That it is the mixture transformers computes is in moe_parity_test.py.
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import grouped, moe, transformer
from tests.model.conftest import QUICK, TINY

CFG = dataclasses.replace(
    TINY, family="qwen3_moe", mlp_dim=8, tied_head=False, num_experts=8, experts_per_token=2,
    norm_topk_prob=True,
)  # fmt: skip
ROWS, LENGTH = 8, 16
MESHES = (
    (1, 1, 1, 8, 1),
    (1, 2, 1, 4, 1),
    (1, 2, 2, 2, 1),
    (1, 2, 1, 2, 2),
    (2, 1, 2, 2, 1),
    (1, 8, 1, 1, 1),
    (1, 1, 1, 1, 8),
)


def _mesh(sizes):
    return sharding.make_mesh(MeshConfig(*sizes))


def _assert_close(ours, wanted, tolerance=1e-4):
    """Each array within `tolerance` of the largest number of the wanted one."""

    def close(a, b):
        b = np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())

    jax.tree.map(close, ours, wanted)


def _params(skewed):
    """Weights large enough to be felt. A skewed router likes experts 0 and 1, whatever the token:
    all tokens have one number in common, and it looks at that one."""
    params = transformer.init_params(CFG, jax.random.key(0))
    larger = lambda path, leaf: np.array(leaf if "norm" in path[-1].key else leaf * 5)
    params = jax.tree_util.tree_map_with_path(larger, params)
    if skewed:
        params["embed"][:, 0] = 2.0
        params["blocks"]["moe"]["router"][:, 0, :2] += 5.0
    return params


def _batch():
    """Tokens, positions and segments of rows with two samples and padding."""
    tokens_BT = np.random.default_rng(0).integers(0, CFG.vocab_size, (ROWS, LENGTH))
    segment_ids_BT = np.repeat([1, 2, 0], (6, 7, 3))[None].repeat(ROWS, axis=0)
    positions_BT = np.r_[:6, :7, :3][None].repeat(ROWS, axis=0)
    return tuple(x.astype(np.int32) for x in (tokens_BT, positions_BT, segment_ids_BT))


@functools.partial(jax.jit, compiler_options=QUICK)
def _loss_and_gradients(params, batch):
    """((sum, (router's loss, hidden states)), gradients of all weights)."""

    def value(params):
        x_BTD, aux = transformer.forward(params, CFG, *batch)
        x_BTD *= (batch[2] > 0)[..., None]
        assert aux is not None
        return jnp.sin(x_BTD).sum() + aux, (aux, x_BTD)

    return jax.value_and_grad(value, has_aux=True)(params)


@functools.cache
def _on_one_device(skewed):
    return jax.tree.map(np.asarray, _loss_and_gradients(_params(skewed), _batch()))


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_forward_router_loss_and_gradients_do_not_depend_on_the_mesh(sizes):
    found = {skewed: _on_one_device(skewed) for skewed in (False, True)}
    with jax.set_mesh(_mesh(sizes)):
        context = sharding.parts(jax.sharding.get_abstract_mesh(), "seq")
        order = sharding.balanced_order(LENGTH, context)
        place = lambda x: jax.device_put(x[:, order], sharding.sharding("batch", "seq"))
        batch = tuple(place(x) for x in _batch())
        for skewed, wanted in found.items():
            (wanted_sum, (wanted_aux, wanted_x)), wanted_grads = wanted
            params = jax.tree.map(
                lambda x, like: jax.device_put(x, like.sharding),
                _params(skewed),
                transformer.abstract_params(CFG),
            )
            (value, (aux, x_BTD)), grads = _loss_and_gradients(params, batch)
            # All tokens at two of the eight experts, with half their probability each: 8 * 1.
            assert (aux > 7.5) == skewed
            _assert_close((value, aux, x_BTD), (wanted_sum, wanted_aux, wanted_x[:, order]))
            _assert_close(grads, wanted_grads)


def _layer(seed=0, rows=ROWS, length=LENGTH):
    """Arguments of `moe.moe`: tokens, router, experts, which tokens are real."""
    rng = np.random.default_rng(seed)
    D, F, E = CFG.embed_dim, CFG.mlp_dim, CFG.num_experts
    shapes = ((rows, length, D), (D, E), (E, D, F), (E, D, F), (E, F, D))
    arrays = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return *arrays, rng.random((rows, length)) < 0.8


AXES = (
    ("batch", "seq", None),
    (None, None),
    ("experts", None, "mlp"),
    ("experts", None, "mlp"),
    ("experts", "mlp", None),
    ("batch", "seq"),
)


def _program(args):
    """Jitted output, load, and gradients of one layer by all but the last argument; placed
    arguments."""

    def whole(*args):
        y_BTD, load = moe.moe(*args, cfg=CFG)
        return y_BTD, *sharding.total(load, "batch", "seq")

    run = sharding.on_shards(whole, AXES, (AXES[0], (), ()))

    def value(*args):
        y_BTD, *sums = run(*args)
        load = moe.Load(*sums)
        return jnp.sin(y_BTD).sum() + jnp.sin(load.prob_E).sum(), (y_BTD, load)

    if sharding.spec() is not None:
        args = tuple(jax.device_put(x, sharding.sharding(*axes)) for x, axes in zip(args, AXES))
    return jax.jit(jax.grad(value, range(5), has_aux=True), compiler_options=QUICK), args


def _results(args):
    program, args = _program(args)
    grads, (y_BTD, load) = program(*args)
    return y_BTD, load, grads


@pytest.mark.parametrize("sizes", [(1, 1, 1, 8, 1), (1, 2, 1, 4, 1), (1, 1, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("window", [0.25, 1.25])
def test_nothing_is_dropped_however_small_the_window(monkeypatch, sizes, window):
    # A quarter of the rows that a device gets on average: four rounds and more.
    monkeypatch.setattr(moe, "WINDOW", window)
    wanted = _results(_layer())
    with jax.set_mesh(_mesh(sizes)):
        _assert_close(_results(_layer()), wanted)


def _num_rounds(counts):
    """Rounds that a plan takes when device p has `counts[p]` rows for each expert."""
    num_rows = int(np.sum(counts[0]))
    with jax.set_mesh(_mesh((1, 1, 1, 8, 1))):
        counts = jax.device_put(np.asarray(counts, np.int32), sharding.sharding("batch", None))
        plan = lambda counts_1E: moe._plan(counts_1E[0], num_rows).num_rounds
        return int(jax.jit(sharding.on_shards(plan, (("batch", None),), ()))(counts))


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ([[4] * 8] * 8, 1),  # Each device gets 32 rows, and has room for 40.
        ([[5] * 8] * 7 + [[12, 4, 4, 4, 4, 4, 4, 4]], 1),  # 47 into 50, rounded up to 56.
        ([[32, *[0] * 7]] * 8, 7),  # All 256 rows to one device.
        ([[16, 16, *[0] * 6]] * 8, 4),  # 128 rows to each of two.
    ],
)
def test_a_skewed_router_takes_more_rounds(counts, wanted):
    assert _num_rounds(counts) == wanted


def test_padding_goes_to_no_expert_and_comes_out_as_zero():
    *args, real_BT = _layer()
    y_BTD, load, (dx_BTD, *_) = _results((*args, real_BT))
    assert load.rows_E.sum() == real_BT.sum() * CFG.experts_per_token
    np.testing.assert_allclose(load.prob_E.sum(), real_BT.sum(), rtol=1e-6)
    for array in (y_BTD, dx_BTD):
        assert not array[~real_BT].any() and np.abs(array[real_BT]).sum(axis=-1).all()
    # What stands in the padding has no part in anything.
    args[0] = np.where(real_BT[..., None], args[0], 1e3).astype(np.float32)
    _assert_close(_results((*args, real_BT)), (y_BTD, load, (dx_BTD, *_)), 1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_arrive_by_sender_are_put_in_order_of_experts(seed):
    rng = np.random.default_rng(seed)
    sizes_IP = rng.integers(0, 4, (3, 5)) * (rng.random((3, 5)) < 0.7)
    rows, window = int(sizes_IP.sum()), 64
    order = np.asarray(moe._by_expert(jnp.asarray(sizes_IP, jnp.int32), window))
    assert sorted(order) == list(range(window))
    assert order[rows:].tolist() == list(range(rows, window))
    arrived = [(i, p) for p in range(5) for i in range(3) for _ in range(sizes_IP[i, p])]
    assert [arrived[place] for place in order[:rows]] == sorted(arrived)


def _ragged_all_to_all(rows, into, send_from, send, put_at, get, *, axis_name):
    """`jax.lax.ragged_all_to_all` as its documentation defines it, by gathering everything: sender
    s puts rows [send_from[r], + send[r]) at `put_at[r]` of receiver r. NaN if it breaks a rule."""
    me = jax.lax.axis_index(axis_name)
    all_rows, *rest = (jax.lax.all_gather(x, axis_name) for x in (rows, send_from, send, put_at))
    start_P, size_P, put_P = (x[:, me] for x in rest)
    place = jnp.arange(rows.shape[0])
    for sender in range(get.size):
        start, size, put = start_P[sender], size_P[sender], put_P[sender]
        moved = jnp.take(all_rows[sender], start + place, axis=0, mode="clip")
        target = jnp.where(place < size, put + place, into.shape[0])
        into = into.at[target].set(moved, mode="drop")
    kept = (size_P == get) & (start_P + size_P <= rows.shape[0]) & (put_P + size_P <= into.shape[0])
    return jnp.where(kept.all(), into, jnp.nan)


@pytest.fixture
def as_if_of_tpus(monkeypatch):
    """The mesh in force says that its devices are TPUs."""
    current = jax.sharding.get_abstract_mesh

    class Mesh:
        def __init__(self):
            self.mesh = current()
            self.abstract_device = types.SimpleNamespace(platform="tpu", device_kind="TPU v5")

        def __getattr__(self, name):
            return getattr(self.mesh, name)

    return lambda: monkeypatch.setattr(jax.sharding, "get_abstract_mesh", Mesh)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 8, 1), (1, 2, 2, 2, 1)], ids=str)
def test_the_exchange_of_accelerators_is_that_of_cpus(monkeypatch, as_if_of_tpus, sizes):
    monkeypatch.setattr(moe, "WINDOW", 0.5)
    with jax.set_mesh(_mesh(sizes)):
        wanted = _results(_layer())
        as_if_of_tpus()
        program, args = _program(_layer())
        text = program.trace(*args).lower(lowering_platforms=("tpu",)).as_text()
        # There and back, and for the gradient twice there and once back.
        assert text.count("ragged_all_to_all") == 5
        monkeypatch.setattr(jax.lax, "ragged_all_to_all", _ragged_all_to_all)
        monkeypatch.setattr(grouped, "platform", lambda: "cpu")  # Has none of a TPU's kernels.
        ours = _results(_layer())
    _assert_close(ours, wanted, 1e-6)


@pytest.mark.parametrize(("num_experts", "active"), [(8, 2), (128, 8), (4, 4)])
def test_the_router_loss_of_an_even_load_is_the_experts_of_a_token(num_experts, active):
    tokens = 96.0
    even = jnp.ones(num_experts) / num_experts
    load = moe.Load(tokens * active * even, tokens * even)
    found = moe.balance_loss(load, jnp.float32(tokens), num_experts)
    np.testing.assert_allclose(found, active, rtol=1e-6)
