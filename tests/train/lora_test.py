"""Adapters beside frozen weights: what they compute, what is trained, on any mesh."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import sharding
from jssd.config import LoraConfig, MeshConfig
from jssd.model import layers, lora, transformer
from jssd.train import flops, loss, optimizer, step
from tests.model.conftest import QUICK

LORA = LoraConfig(rank=3, alpha=6.0)
ATTENTION = LoraConfig(rank=3, alpha=6.0, projections=("q", "k", "v", "o"))


def _kind(toy, name):
    experts = {"family": "qwen3_moe", "num_experts": 8, "experts_per_token": 2, "mlp_dim": 8}
    changes = {
        "dense": {},
        "biased": {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "tied_head": False},
        "moe": {**experts, "tied_head": False, "norm_topk_prob": True},
    }
    return dataclasses.replace(toy.cfg, **changes[name])


def _config(toy, **settings):
    cut = settings.pop("lora", LORA)
    return toy.train_config(lora=cut, **settings)


def _moved(adapters, seed=1):
    """Adapters that change something: B is not zero."""
    leaves, tree = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    return jax.tree.unflatten(tree, moved)


def _materialised(params, adapters, factor):
    """W + factor A B for each adapted weight, written out by hand for `value_and_grad`."""
    letters = {"o": "LNHR,LRD->LNHD", "down": "LFR,LRD->LFD"}
    letters |= dict.fromkeys(("gate", "up"), "LDR,LRF->LDF")
    blocks = dict(params["blocks"])
    for module, pairs in adapters.items():
        blocks[module] = dict(blocks[module])
        for name, pair in pairs.items():
            product = jnp.einsum(letters.get(name, "LDR,LRNH->LDNH"), pair["a"], pair["b"])
            blocks[module][name] = blocks[module][name] + factor * product
    return {**params, "blocks": blocks}


def _loss(cfg, batch, weights, adapters=None, **settings):
    x_BTD, balance = transformer.forward(
        weights, cfg, batch["inputs"], batch["positions"], batch["segment_ids"],
        adapters=adapters, **settings,
    )  # fmt: skip
    args = (batch["targets"], batch["loss_mask"], batch["support_ids"], batch.get("support_probs"))
    sums = loss.response_loss(x_BTD, transformer.head(weights), *args, chunk=8)
    return sums.nll if balance is None else sums.nll + balance


@pytest.mark.parametrize(("kind", "cut"), [("biased", LORA), ("moe", ATTENTION)])
def test_gradients_are_those_of_the_materialised_weights(toy, kind, cut):
    cfg = _kind(toy, kind)
    params = transformer.init_params(cfg, jax.random.key(0))
    adapters = _moved(lora.init_adapters(cfg, cut, seed=0))
    batch = {name: jnp.asarray(array) for name, array in toy.make_batch().items()}
    ours = lambda adapters: _loss(cfg, batch, params, lora.scaled(adapters, cut))
    reference = lambda adapters: _loss(cfg, batch, _materialised(params, adapters, 2.0))
    run = lambda f: jax.jit(jax.value_and_grad(f), compiler_options=QUICK)(adapters)
    (value, grads), (wanted, wanted_grads) = run(ours), run(reference)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, wanted_grads
    )
    assert all(float(jnp.abs(grad).max()) > 1e-3 for grad in jax.tree.leaves(grads))


def test_new_adapters_change_no_bit(toy):
    """Of a projection, and of weights they are merged into."""
    params = transformer.init_params(toy.cfg, jax.random.key(0), jnp.bfloat16)
    adapters = lora.init_adapters(toy.cfg, LORA, seed=0)
    merged = lora.merge(params, adapters, LORA)
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    x_BTD = jax.random.normal(jax.random.key(1), (2, 5, toy.cfg.embed_dim), jnp.bfloat16)
    weight, pair = params["blocks"]["mlp"]["up"][0], adapters["mlp"]["up"]
    pair = pair["a"][0].astype(jnp.bfloat16), pair["b"][0].astype(jnp.bfloat16)
    plain, adapted = (
        layers.project(x_BTD, weight, "BTD,DF->BTF", None, adapter) for adapter in (None, pair)
    )
    np.testing.assert_array_equal(adapted, plain)


def test_adapters_start_as_the_seed_says(toy):
    first, same, other = (lora.init_adapters(toy.cfg, LORA, seed) for seed in (3, 3, 4))
    for path, leaf in jax.tree_util.tree_leaves_with_path(first):
        twin, stranger = (
            np.asarray(jax.tree.leaves(tree)[[p for p, _ in _paths(first)].index(path)])
            for tree in (same, other)
        )
        assert leaf.dtype == jnp.float32 and (np.asarray(leaf) == twin).all()
        if path[-1].key == "b":
            assert not np.asarray(leaf).any()
        else:
            bound = math.prod(leaf.shape[1:-1]) ** -0.5
            assert (
                0.8 * bound < np.abs(leaf).max() <= bound and (np.asarray(leaf) != stranger).any()
            )


def test_merging_adds_the_product_and_touches_nothing_else(toy):
    params = transformer.init_params(toy.cfg, jax.random.key(0), jnp.bfloat16)
    cut = LoraConfig(rank=2, projections=("o", "gate"))
    adapters = _moved(lora.init_adapters(toy.cfg, cut, seed=0))
    merged = lora.merge(params, adapters, cut)
    exact = _materialised(jax.tree.map(lambda w: w.astype(jnp.float32), params), adapters, 1.0)
    changed = {("blocks", "attn", "o"), ("blocks", "mlp", "gate")}
    for (path, leaf), (_, before), (_, wanted) in zip(*map(_paths, (merged, params, exact))):
        if tuple(key.key for key in path) in changed:
            # Rounded once: half a unit in the last of eight bits.
            np.testing.assert_allclose(leaf.astype(jnp.float32), wanted, rtol=2**-8)
            assert leaf.dtype == jnp.bfloat16
        else:
            assert leaf is before
    wide = lora.merge(params, adapters, cut, jnp.float32)["blocks"]["attn"]["o"]
    np.testing.assert_allclose(wide, exact["blocks"]["attn"]["o"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("sizes", "kind", "settings"),
    [
        ((1, 1, 1), "dense", {"grad_accum": 2, "remat": "dots"}),
        ((1, 4, 2), "biased", {"grad_accum": 2, "targets": "law"}),
        ((1, 2, 1, 2, 2), "dense", {"grad_accum": 2, "remat": "none"}),
        ((2, 2, 2), "dense", {"param_dtype": "bfloat16", "mu_dtype": "bfloat16"}),
        ((1, 2, 2, 2), "moe", {"lora": ATTENTION, "router_aux_loss": 0.1}),
    ],
)
def test_two_steps_do_not_depend_on_the_mesh(toy, sizes, kind, settings):
    cfg, config = _kind(toy, kind), _config(toy, **settings)
    adamw = optimizer.make_optimizer(config)
    dtype = jnp.dtype(config.param_dtype)
    host = jax.tree.map(np.asarray, transformer.init_params(cfg, jax.random.key(0), dtype))
    # Few bits need adapters that are worth their rounding.
    start = jax.tree.map(np.asarray, _moved(lora.init_adapters(cfg, config.lora, config.seed)))

    def put(tree, like):
        return jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), tree, like)

    def run():
        base = put(host, transformer.abstract_params(cfg, dtype))
        state = step.init_state(put(start, lora.abstract_adapters(cfg, config.lora)), adamw)
        train_step = step.make_train_step(cfg, adamw, config, "float32", base)
        metrics = {}
        for seed in range(2):
            batch = toy.make_batch(seed, length=32)
            if config.targets == "law":
                shares = np.array([0.75, 0.25, 0.0], np.float32)
                batch["support_probs"] = np.tile(shares, (*batch["targets"].shape, 1))
            before = jax.tree.map(lambda leaf: leaf.sharding, state)
            state, metrics = train_step(
                state, step.place_batch(toy.split(batch, config.grad_accum))
            )
            assert before == jax.tree.map(lambda leaf: leaf.sharding, state)
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
        return jax.tree.map(np.asarray, (state, metrics))

    wanted = run()
    devices = jax.devices()[: math.prod(sizes)]
    with jax.set_mesh(sharding.make_mesh(MeshConfig(*sizes), devices)):
        ours = run()
    # Where a gradient is nearly 0 its rounding decides the way of a move, which is of up to 0.01.
    atol = 2e-2 if config.mu_dtype == "bfloat16" else 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol), ours, wanted)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), wanted[0].params, start)
    assert min(jax.tree.leaves(moved)) > 1e-3


def test_a_run_begins_alike_on_every_mesh(toy):
    wanted = jax.tree.map(np.asarray, lora.init_adapters(toy.cfg, LORA, seed=1))
    with jax.set_mesh(sharding.make_mesh(MeshConfig(1, 4, 2), jax.devices()[:8])):
        ours = lora.init_adapters(toy.cfg, LORA, seed=1)
        like = lora.abstract_adapters(toy.cfg, LORA)
        jax.tree.map(lambda a, b: _same(a, b), ours, like)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, ours), wanted)


def _same(a, b):
    assert a.sharding.is_equivalent_to(b.sharding, a.ndim) and a.shape == b.shape


def test_no_gradient_of_a_frozen_weight_is_made(toy):
    """Neither as a result nor on the way: no product in the program has a weight's shape."""
    cfg = dataclasses.replace(toy.cfg, tied_head=False)
    batch = {name: jnp.asarray(array) for name, array in toy.make_batch().items()}
    D, F, V = cfg.embed_dim, cfg.mlp_dim, cfg.vocab_size
    shapes = "|".join(f"{a},{b}" for a, b in ((D, F), (F, D), (D, V), (V, D)))
    pattern = rf"= f32\[({shapes})\]\S* (dot|scatter)\("

    def program(config, trained, base):
        adamw = optimizer.make_optimizer(config)
        parts = step.make_train_step(cfg, adamw, config, base=base)
        lowered = parts.add.lower(None, trained, batch, base)
        return lowered.compile(compiler_options=QUICK).as_text() or ""

    weights = transformer.init_params(cfg, jax.random.key(0))
    assert re.search(pattern, program(toy.train_config(), weights, None))
    adapters = lora.init_adapters(cfg, LORA, 0)
    assert not re.search(pattern, program(_config(toy), adapters, weights))


def test_only_adapters_are_in_the_state(toy):
    config = _config(toy, param_dtype="bfloat16")
    adapters = lora.init_adapters(toy.cfg, LORA, 0)
    size = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert size == toy.cfg.num_layers * flops.adapter_weights(toy.cfg, LORA)
    state = step.init_state(adapters, optimizer.make_optimizer(config))
    held = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in held) == 2 * size  # Two moments, no master.
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_flops_leave_out_gradients_of_frozen_weights(toy):
    counts = {"tokens": 10, "response_tokens": 4, "attention_pairs": 55}
    adapters = flops.adapter_weights(toy.cfg, LORA)
    full = flops.train_flops(toy.cfg, **counts)
    ours = flops.train_flops(toy.cfg, **counts, adapters=adapters)
    blocks = toy.cfg.num_layers * flops.block_weights(toy.cfg) * 10
    head = toy.cfg.embed_dim * toy.cfg.vocab_size * 4
    assert full - ours == 2 * (blocks + head) - 6 * toy.cfg.num_layers * adapters * 10


def test_adapters_of_experts_are_refused_by_name(toy):
    with pytest.raises(ValueError, match=r"gate, up of this model .* of 8 experts is not built"):
        cut = LoraConfig(rank=2, projections=("q", "gate", "up"))
        lora.abstract_adapters(_kind(toy, "moe"), cut)


def _paths(tree):
    return jax.tree_util.tree_leaves_with_path(tree)
