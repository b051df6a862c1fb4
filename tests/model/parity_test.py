"""Logits against transformers in float32, on tiny random models of every family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.model import transformer
from tests.model import conftest

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
# Each of the three branches of Llama 3's scaling is taken by some frequency of a head of 8.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS = {
    "llama": ("llama", {}),
    "llama_mha_tied": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama_llama3_rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_head_dim": ("llama", {"head_dim": 12, "num_key_value_heads": 1}),
    "llama_eps_theta": (
        "llama",
        {"rms_norm_eps": 1e-2, "rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen2_tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3_biases_tied": (
        "qwen3",
        {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True},
    ),
    **{
        f"qwen3_moe_{name}": ("qwen3_moe", {**conftest.EXPERT_SIZES, **extra})
        for name, extra in conftest.EXPERT_KINDS.items()
    },
}


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request, tmp_path_factory):
    """A model of transformers, and what our loader makes of the folder it saved."""
    family, extra = KINDS[request.param]
    return conftest.make_pair(family, {**SIZES, **extra}, tmp_path_factory.mktemp(request.param))


def _tokens(rows, length, seed=0):
    return conftest.random_tokens(SIZES["vocab_size"], rows, length, seed)


def test_logits_equal_transformers(pair):
    model, cfg, params = pair
    tokens_BT = _tokens(2, 150)  # Past the original 64 positions of the llama3 case.
    conftest.assert_close(
        transformer.apply(params, cfg, tokens_BT), conftest.logits_of(model, tokens_BT)
    )


@pytest.mark.parametrize("pair", ["qwen3"], indirect=True)
def test_remat_changes_nothing(pair):
    _, cfg, params = pair
    tokens_BT = _tokens(2, 8)
    positions_BT = jnp.broadcast_to(jnp.arange(8), (2, 8))
    plain, remat = (
        transformer.hidden(params, cfg, tokens_BT, positions_BT, remat=remat)
        for remat in ("none", "block")
    )
    np.testing.assert_allclose(plain, remat, rtol=1e-5, atol=1e-6)


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
        conftest.assert_close(ours[:, start:stop], conftest.logits_of(model, piece))
        start = stop


def test_unstacked_blocks_hold_the_layers_in_order():
    tree = {"embed": jnp.zeros(1), "blocks": {"a": {"b": jnp.arange(6).reshape(3, 2)}}}
    blocks = transformer.unstack(tree)["blocks"]
    assert [block["a"]["b"].tolist() for block in blocks] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("pair", ["qwen3"], indirect=True)
def test_bfloat16_activations_stay_near_float32(pair):
    _, cfg, params = pair
    tokens_BT = _tokens(2, 16)
    exact = jax.nn.softmax(transformer.apply(params, cfg, tokens_BT))
    logits = transformer.apply(params, cfg, tokens_BT, dtype=jnp.bfloat16)
    assert logits.dtype == jnp.float32
    # Total variation; a broken cast is of order 1.
    assert np.abs(jax.nn.softmax(logits) - exact).sum(-1).mean() / 2 < 0.05
