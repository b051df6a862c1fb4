"""Logits, router loss and gradients of a mixture of experts against transformers in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.model import transformer
from jssd.weights import hf, names

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 56,  # Of dense layers. There are none.
    "moe_intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 8,
    "max_position_embeddings": 256,
}
KINDS = {
    "one_of_eight": {"num_experts_per_tok": 1, "norm_topk_prob": False},
    "two_of_eight": {"num_experts_per_tok": 2, "norm_topk_prob": True},
    "three_of_eight_as_they_are": {"num_experts_per_tok": 3, "norm_topk_prob": False},
    "all_of_four": {"num_experts": 4, "num_experts_per_tok": 4, "norm_topk_prob": True},
    "biases_tied": {
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "attention_bias": True,
        "tie_word_embeddings": True,
    },
}
FEW = ["two_of_eight", "three_of_eight_as_they_are"]


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request, tmp_path_factory):
    """A model of transformers, and what our loader makes of the folder it saved."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("qwen3_moe", **{**SIZES, **KINDS[request.param]})
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms and biases are constants at first, which would hide a wrong one.
            around = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(around + 0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(folder)
    return model, *hf.load(folder)


def _torch(array):
    import torch

    return torch.from_numpy(np.asarray(array, np.int64))


def _theirs(model, tokens_BT) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(_torch(tokens_BT)).logits.numpy()


def _tokens(rows, length, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, SIZES["vocab_size"], (rows, length)), jnp.int32)


def _positions(tokens_BT):
    return jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)


def _assert_close(ours, theirs, tolerance=1e-4):
    """Within `tolerance` of the largest of the last axis."""
    scale = np.abs(theirs).max(axis=-1, keepdims=True)
    np.testing.assert_array_less(np.abs(np.asarray(ours) - theirs) / scale, tolerance)


def test_logits_equal_transformers(pair):
    model, cfg, params = pair
    tokens_BT = _tokens(2, 70)
    _assert_close(transformer.apply(params, cfg, tokens_BT), _theirs(model, tokens_BT))


def test_a_packed_row_equals_its_segments_alone(pair):
    model, cfg, params = pair
    lens, padding = (5, 1, 9), 4
    pieces = [_tokens(1, size, seed=size) for size in lens]
    tokens_BT = jnp.concatenate([*pieces, jnp.zeros((1, padding), jnp.int32)], axis=1)
    segment_ids_BT = jnp.asarray(np.repeat([1, 2, 3, 0], (*lens, padding))[None], jnp.int32)
    positions_BT = jnp.concatenate([jnp.arange(size) for size in (*lens, padding)])[None]
    ours = transformer.apply(params, cfg, tokens_BT, positions_BT, segment_ids_BT)
    assert np.isfinite(ours).all()  # Padding sees nothing, and must not be NaN: 0 * NaN is NaN.
    start = 0
    for piece in pieces:
        stop = start + piece.shape[1]
        _assert_close(ours[:, start:stop], _theirs(model, piece))
        start = stop


def test_the_router_loss_equals_transformers(pair):
    import torch
    from transformers.models.qwen3_moe import modeling_qwen3_moe

    model, cfg, params = pair
    tokens_BT = _tokens(2, 33)
    with torch.no_grad():
        found = model(_torch(tokens_BT), output_router_logits=True)
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
        found = model(_torch(tokens_BT), attention_mask=_torch(real_BT), output_router_logits=True)
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
    found = model(_torch(tokens_BT), labels=_torch(tokens_BT), output_router_logits=True)
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
