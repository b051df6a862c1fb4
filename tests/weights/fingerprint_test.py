"""Tests of the fingerprint: it follows the values and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import sharding
from jssd.config import MeshConfig
from jssd.weights.fingerprint import fingerprint


def _params():
    rng = np.random.default_rng(0)
    return {
        "embed": jnp.asarray(rng.normal(size=(16, 8)), jnp.bfloat16),
        "blocks": {"q": jnp.asarray(rng.normal(size=(3, 8, 4)), jnp.bfloat16)},
    }


def test_the_same_values_have_the_same_fingerprint_in_a_wider_dtype():
    params = _params()
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    assert fingerprint(params) == fingerprint(params) == fingerprint(wide)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_the_fingerprint_does_not_depend_on_the_mesh():
    params = _params()
    for shape in ((1, 8, 1), (2, 2, 2)):
        with jax.set_mesh(sharding.make_mesh(MeshConfig(*shape))):
            split = {
                "embed": jax.device_put(params["embed"], sharding.sharding("vocab", "embed")),
                "blocks": {
                    "q": jax.device_put(
                        params["blocks"]["q"], sharding.sharding("layers", "embed", "mlp")
                    )
                },
            }
            assert fingerprint(split) == fingerprint(params)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_padding_of_the_vocabulary_does_not_count():
    values = np.random.default_rng(0).normal(size=(13, 8)).astype(np.float32)
    wanted = fingerprint({"embed": values, "head": values.T})
    for tensor in (2, 8):
        wide = np.pad(values, ((0, -13 % tensor), (0, 0)))
        with jax.set_mesh(sharding.make_mesh(MeshConfig(1, 8 // tensor, tensor))):
            split = {
                "embed": jax.device_put(wide, sharding.sharding("vocab", "embed")),
                "head": jax.device_put(wide.T, sharding.sharding("embed", "vocab")),
            }
            assert fingerprint(split, 13) == fingerprint({"embed": wide, "head": wide.T}, 13)
            assert fingerprint(split, 13) == wanted != fingerprint(split)


def test_one_bit_a_swap_and_a_rename_each_change_the_fingerprint():
    params = _params()
    embed = np.array(params["embed"])
    nudged, swapped = embed.copy(), embed.copy()
    nudged.view(np.uint16)[3, 3] ^= 1
    swapped[[0, 1]] = embed[[1, 0]]
    variants = [
        params,
        {**params, "embed": jnp.asarray(nudged)},
        {**params, "embed": jnp.asarray(swapped)},
        {"embeds": params["embed"], "blocks": params["blocks"]},
        {**params, "embed": params["embed"].reshape(8, 16)},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


def test_subnormal_values_count():
    tiny = np.array([1, 2, 3], np.uint16).view(jnp.bfloat16)
    assert fingerprint({"x": jnp.asarray(tiny)}) != fingerprint({"x": jnp.zeros(3, jnp.bfloat16)})
