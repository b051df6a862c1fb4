"""What the backward pass recomputes costs memory or time, and changes no gradient."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import sharding
from jssd.config import REMAT, MeshConfig
from jssd.model import transformer
from tests.model.conftest import QUICK, TINY

DENSE = dataclasses.replace(TINY, vocab_size=32)
EXPERTS = dataclasses.replace(
    DENSE, family="qwen3_moe", mlp_dim=8, num_experts=4, experts_per_token=2, norm_topk_prob=True
)
PLACES = {"one_device": None, "mesh": (1, 2, 1, 2, 2)}


def _on(place):
    """Puts the mesh of a place in force."""
    sizes = PLACES[place]
    if sizes is None:
        return contextlib.nullcontext()
    return jax.set_mesh(sharding.make_mesh(MeshConfig(*sizes)))


def _program(cfg, rows, length, remat, unroll=1):
    """Jitted gradients of a function of the hidden states and the router's loss, by the weights."""
    rng = np.random.default_rng(0)
    tokens_BT = jnp.asarray(rng.integers(0, cfg.vocab_size, (rows, length)), jnp.int32)
    positions_BT = jnp.arange(length)[None].repeat(rows, axis=0)
    segment_ids_BT = (positions_BT < length - 2).astype(jnp.int32)

    def value(params):
        x_BTD, aux = transformer.forward(
            params, cfg, tokens_BT, positions_BT, segment_ids_BT, remat=remat, unroll=unroll
        )
        return jnp.sin(x_BTD).sum() + (0.0 if aux is None else aux)

    return jax.jit(jax.grad(value), compiler_options=QUICK)


@functools.cache
def _gradients(cfg, place, remat, unroll):
    params = transformer.init_params(cfg, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) * 2, params)
    with _on(place):
        like = transformer.abstract_params(cfg)
        params = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), params, like)
        return jax.tree.map(np.asarray, _program(cfg, 8, 16, remat, unroll)(params))


@pytest.mark.parametrize(
    ("remat", "unroll"), [("none", 2), ("block", 1), ("dots", 2), ("offload", 1)]
)
@pytest.mark.parametrize(
    ("cfg", "place"),
    [(DENSE, "mesh"), (EXPERTS, "one_device"), (EXPERTS, "mesh")],
    ids=["dense_mesh", "experts_one_device", "experts_mesh"],
)
def test_gradients_do_not_depend_on_what_is_recomputed(cfg, place, remat, unroll):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())

    wanted = _gradients(cfg, place, "none", 1)
    jax.tree.map(close, _gradients(cfg, place, remat, unroll), wanted)


def test_the_more_is_recomputed_the_less_is_kept():
    cfg = dataclasses.replace(DENSE, num_layers=8)
    kept = {}
    for remat in REMAT:
        program = _program(cfg, 4, 64, remat)
        memory = program.lower(transformer.abstract_params(cfg)).compile().memory_analysis()
        assert memory is not None
        kept[remat] = memory.temp_size_in_bytes
    assert kept["none"] > 1.5 * kept["dots"]
    assert kept["dots"] > 1.5 * kept["block"]
    # On a CPU JAX leaves out the moves to the host: "offload" keeps what "block" keeps.
    assert kept["offload"] == kept["block"]


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_offload_keeps_the_inputs_of_layers_on_the_host_of_accelerators(platform):
    def text(remat):
        traced = _program(DENSE, 4, 16, remat).trace(transformer.abstract_params(DENSE))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert ("pinned_host" in text("offload")) == (platform != "cpu")
    assert "pinned_host" not in text("block")
