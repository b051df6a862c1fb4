"""Router loss and gradients of a mixture of experts against transformers in float32.

Its logits are compared in parity_test.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.model import transformer
from jssd.weights import names
from tests.model import conftest

FEW = ["two_of_eight", "three_of_eight_as_they_are"]


@pytest.fixture(scope="module", params=list(conftest.EXPERT_KINDS))
def pair(request, tmp_path_factory):
    """A model of transformers, and what our loader makes of the folder it saved."""
    settings = {**conftest.EXPERT_SIZES, **conftest.EXPERT_KINDS[request.param]}
    return conftest.make_pair("qwen3_moe", settings, tmp_path_factory.mktemp(request.param))


def _tokens(rows, length):
    return conftest.random_tokens(conftest.EXPERT_SIZES["vocab_size"], rows, length)


def _positions(tokens_BT):
    return jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)


def test_the_router_loss_equals_transformers(pair):
    import torch
    from transformers.models.qwen3_moe import modeling_qwen3_moe

    model, cfg, params = pair
    tokens_BT = _tokens(2, 33)
    with torch.no_grad():
        found = model(conftest.to_torch(tokens_BT), output_router_logits=True)
    theirs = modeling_qwen3_moe.load_balancing_loss_func(
        found.router_logits, cfg.num_experts, cfg.experts_per_token
    )
    _, ours = transformer.forward(params, cfg, tokens_BT, _positions(tokens_BT))
    assert ours is not None
    assert (ours.shape, ours.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    if cfg.experts_per_token == cfg.num_experts:  # Every token counts once for every expert.
        np.testing.assert_allclose(ours, cfg.experts_per_token, rtol=1e-5)


@pytest.mark.parametrize("pair", FEW, indirect=True)
def test_padding_has_no_part_in_the_router_loss(pair):
    import torch

    model, cfg, params = pair
    tokens_BT = _tokens(2, 20)
    real_BT = jnp.arange(20) < jnp.array([[13], [20]])
    with torch.no_grad():
        found = model(
            conftest.to_torch(tokens_BT),
            attention_mask=conftest.to_torch(real_BT),
            output_router_logits=True,
        )
    segment_ids_BT = real_BT.astype(jnp.int32)
    positions_BT = _positions(tokens_BT)
    _, ours = transformer.forward(params, cfg, tokens_BT, positions_BT, segment_ids_BT)
    assert ours is not None
    np.testing.assert_allclose(ours, found.aux_loss, rtol=1e-5)
    _, all_of_them = transformer.forward(params, cfg, tokens_BT, positions_BT)
    assert all_of_them is not None
    assert abs(all_of_them - ours) > 1e-3


def test_gradients_of_every_parameter_equal_transformers(pair):
    model, cfg, params = pair
    tokens_BT = _tokens(2, 24)
    theirs = _their_gradients(model, tokens_BT, router_weight=0.0)
    ours = _our_gradients(params, cfg, tokens_BT, router_weight=0.0)
    _assert_same_gradients(ours, theirs, cfg)


@pytest.mark.parametrize("pair", FEW, indirect=True)
@pytest.mark.parametrize("remat", ["none", "block"])
def test_gradients_with_the_router_loss_equal_transformers(pair, remat):
    model, cfg, params = pair
    tokens_BT = _tokens(2, 24)
    theirs = _their_gradients(model, tokens_BT, router_weight=0.5)
    ours = _our_gradients(params, cfg, tokens_BT, router_weight=0.5, remat=remat)
    _assert_same_gradients(ours, theirs, cfg)


@functools.partial(jax.jit, static_argnames=("cfg", "remat"))
@jax.grad
def _our_gradients(params, cfg, tokens_BT, *, router_weight, remat="none"):
    """Gradients of the mean NLL of every next token, plus the router loss."""
    x_BTD, aux = transformer.forward(params, cfg, tokens_BT, _positions(tokens_BT), remat=remat)
    log_probs_BTV = jax.nn.log_softmax(transformer.logits(params, cfg, x_BTD)[:, :-1])
    return (
        -jnp.take_along_axis(log_probs_BTV, tokens_BT[:, 1:, None], axis=-1).mean()
        + router_weight * aux
    )


def _their_gradients(model, tokens_BT, *, router_weight) -> dict[str, np.ndarray]:
    """HF tensor name, as on disk -> gradient of the same loss. None of them is missing."""
    model.zero_grad()
    found = model(
        conftest.to_torch(tokens_BT), labels=conftest.to_torch(tokens_BT), output_router_logits=True
    )
    # transformers has added its own share of the router loss.
    loss = found.loss + (router_weight - model.config.router_aux_loss_coef) * found.aux_loss
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    for name in list(gradients):
        stem, _, kind = name.rpartition(".experts.")
        if kind not in ("gate_up_proj", "down_proj"):
            continue
        # In memory all experts are one tensor, gate and up above each other.
        for expert, matrix in enumerate(gradients.pop(name)):
            parts = zip(("gate_proj", "up_proj"), np.split(matrix, 2))
            for part, value in parts if kind == "gate_up_proj" else [("down_proj", matrix)]:
                gradients[f"{stem}.experts.{expert}.{part}.weight"] = value
    return gradients


def _assert_same_gradients(ours, theirs, cfg):
    """Every tensor within 1e-4 of its own norm."""
    assert {name for name, _, _ in names.hf_names(cfg)} == theirs.keys()
    for name, row, place in names.hf_names(cfg):
        gradient = names.to_hf(row, np.asarray(names.get(ours, row.path)[place]))
        wrong = np.linalg.norm(gradient - theirs[name])
        assert wrong <= 1e-4 * np.linalg.norm(theirs[name]), name
