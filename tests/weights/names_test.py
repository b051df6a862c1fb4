"""Tests of the name table: it covers the model, and each direction is the maths it claims."""

import dataclasses

import jax
import numpy as np
import pytest

from jssd.model import transformer
from jssd.model.config import ModelConfig, Rope
from jssd.weights import names

PLAIN = ModelConfig(
    family="llama",
    vocab_size=8,
    embed_dim=4,
    mlp_dim=6,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=2,
    max_seq_len=16,
    norm_eps=1e-6,
    rope=Rope(10000.0),
    tied_head=True,
)
EVERYTHING = dataclasses.replace(
    PLAIN, tied_head=False, qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm=True
)
MOE = dataclasses.replace(
    PLAIN, family="qwen3_moe", qk_norm=True, num_experts=3, experts_per_token=2
)


@pytest.mark.parametrize("cfg", [PLAIN, EVERYTHING, MOE], ids=["plain", "everything", "moe"])
def test_the_table_has_one_row_for_each_parameter_of_the_model_and_agrees_on_its_shape(cfg):
    if cfg.is_moe:
        pytest.importorskip("jssd.model.moe")
    tree = transformer.abstract_params(cfg)
    shapes = {
        ".".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    assert {row.path: names.our_shape(row, cfg) for row in names.rows(cfg)} == shapes


def test_a_query_projection_becomes_heads_that_compute_the_same():
    row = next(row for row in names.ROWS if row.path == "blocks.attn.q")
    hf = np.arange(16.0).reshape(4, 4)  # (heads * size, width): y = hf @ x
    ours = names.from_hf_slice(row, (slice(None),) * 3, PLAIN, lambda index: hf[index])
    x = np.array([1.0, -2.0, 3.0, 0.5])
    assert ours.shape == (4, 2, 2)
    np.testing.assert_array_equal(np.einsum("d,dnh->nh", x, ours).ravel(), hf @ x)
    np.testing.assert_array_equal(names.to_hf(row, ours), hf)


@pytest.mark.parametrize("row", names.ROWS, ids=lambda row: row.path)
def test_a_slice_of_ours_reads_only_the_rows_it_needs(row):
    cfg = MOE if row in names.rows(MOE) else EVERYTHING
    hf = np.random.default_rng(0).normal(size=names.hf_shape(row, cfg))
    whole = names.from_hf_slice(
        row, (slice(None),) * len(row.our_axes), cfg, lambda index: hf[index]
    )
    half = tuple(slice(size // 2, size) for size in whole.shape)
    elements_read = []

    def read(index):
        elements_read.append(hf[index].size)
        return hf[index]

    np.testing.assert_array_equal(names.from_hf_slice(row, half, cfg, read), whole[half])
    needed = whole[half].size
    # The head size is the inner axis of a merged one, so it is read whole and cut.
    inner = 2 if any(len(axis) > 1 for axis in row.hf_axes) else 1
    assert elements_read == [needed * inner]


def test_hf_tensors_are_counted_in_the_order_of_a_forward_pass():
    listed = [(name, row.path, place) for name, row, place in names.hf_names(MOE)]
    first, *layers, last = [name for name, _, _ in listed]
    assert (first, last) == ("model.embed_tokens.weight", "model.norm.weight")
    experts = [
        f"mlp.experts.{expert}.{part}_proj.weight"
        for expert in range(3)
        for part in ("gate", "up", "down")
    ]
    projections = ("q_proj", "q_norm", "k_proj", "k_norm", "v_proj", "o_proj")
    attn = [f"self_attn.{part}.weight" for part in projections]
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
    layer = [norms[0], *attn, norms[1], "mlp.gate.weight", *experts]
    assert layers == [f"model.layers.{number}.{name}" for number in (0, 1) for name in layer]
    assert ("model.norm.weight", "final_norm", ()) in listed
    assert ("model.layers.1.mlp.gate.weight", "blocks.moe.router", (1,)) in listed
    assert ("model.layers.1.mlp.experts.2.up_proj.weight", "blocks.moe.up", (1, 2)) in listed


def test_a_stack_of_experts_has_the_shape_of_layers_experts_and_one_matrix():
    shapes = {row.path: names.our_shape(row, MOE) for row in names.rows(MOE)}
    assert shapes["blocks.moe.router"] == (2, 4, 3)
    assert shapes["blocks.moe.gate"] == shapes["blocks.moe.up"] == (2, 3, 4, 6)
    assert shapes["blocks.moe.down"] == (2, 3, 6, 4)
    assert not any(path.startswith("blocks.mlp.") for path in shapes)
