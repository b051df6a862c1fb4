"""One layer of Qwen3-30B-A3B's widths, trained for a step on eight devices as on one.

As published but for vocabulary and depth, and for 16 of the 128 experts, whose weights, gradients
and copies would take 20 GB. For those who have them, one mesh at a time:

    JSSD_TEST_EXPERTS=128 python -m pytest tests/train/moe_widths_test.py -k "8-1"
"""

import os

import jax
import numpy as np
import pytest

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.model.config import ModelConfig, Rope
from jssd.train import optimizer, step

CFG = ModelConfig(
    family="qwen3_moe",
    vocab_size=64,  # That of the batches of `toy`.
    embed_dim=2048,
    mlp_dim=768,
    num_layers=1,
    num_heads=32,
    num_kv_heads=4,
    head_dim=128,
    max_seq_len=64,
    norm_eps=1e-6,
    rope=Rope(1e6),
    tied_head=False,
    qk_norm=True,
    num_experts=int(os.environ.get("JSSD_TEST_EXPERTS", "16")),
    experts_per_token=8,
    norm_topk_prob=True,
)
# Gradient descent at rate 1. Adam's moments would be two more copies of the weights.
DESCENT = optimizer.Optimizer(
    lambda params: (params, ()),
    lambda grads, state, params: (jax.tree.map(lambda p, grad: p - grad, params, grads), state),
)


def _one_step(toy, start, *sizes):
    """(weights, metrics) after a step on a mesh of these sizes."""
    config = toy.train_config(router_aux_loss=0.01)
    batch = {name: array[:, :8] for name, array in toy.make_batch().items()}
    mesh = sharding.make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        params = jax.tree.map(
            lambda leaf, like: jax.device_put(leaf, like.sharding),
            start,
            transformer.abstract_params(CFG),
        )
        state = step.init_state(params, DESCENT)
        train_step = step.make_train_step(CFG, DESCENT, config)
        state, metrics = train_step(state, step.place_batch([batch]))
        return jax.tree.map(np.asarray, (state.params, metrics))


@pytest.fixture(scope="module")
def one_device(toy):
    """Weights, and what a step on one device makes of them."""
    start = jax.tree.map(np.asarray, transformer.init_params(CFG, jax.random.key(0)))
    return start, *_one_step(toy, start, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 8, 1), (1, 2, 1, 4, 1)], ids=["8-1", "4-2"])
def test_a_step_at_true_widths_does_not_depend_on_the_mesh(toy, one_device, sizes):
    start, wanted, wanted_metrics = one_device
    params, metrics = _one_step(toy, start, *sizes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, wanted_metrics)

    def same_move(a, b, before):
        largest = np.abs(b - before).max()
        assert largest > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * largest)

    jax.tree.map(same_move, params, wanted, start)
