"""A tiny model, and pairs of a model of transformers and what the loader makes of it."""

import jax
import jax.numpy as jnp
import numpy as np

from jssd.model.config import ModelConfig, Rope
from jssd.weights import hf

TINY = ModelConfig(
    family="qwen3",
    vocab_size=64,
    embed_dim=16,
    mlp_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_seq_len=64,
    norm_eps=1e-6,
    rope=Rope(10000.0),
    tied_head=True,
    qk_norm=True,
)
# A fourth of the time to compile; what a tiny program then takes to run does not show.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}

# Mixtures of experts for transformers: sizes, and what differs by kind.
EXPERT_SIZES = {
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
EXPERT_KINDS = {
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


def place(params, like):
    """`params` of one device as the mesh of the abstract `like` holds them, padding included."""

    def pad(leaf, to):
        wider = np.pad(leaf, [(0, wanted - size) for size, wanted in zip(leaf.shape, to.shape)])
        return jax.device_put(wider, to.sharding)

    return jax.tree.map(pad, params, like)


def cut(tree, like):
    """The arrays of `tree` without what they have beyond those of `like`, which must be zero."""

    def one(leaf, to):
        leaf = np.array(leaf)
        real = leaf[tuple(map(slice, np.shape(to)))].copy()
        leaf[tuple(map(slice, np.shape(to)))] = 0
        assert not leaf.any()
        return real

    return jax.tree.map(one, tree, like)


def make_pair(family: str, settings: dict, folder):
    """A random model of transformers saved in `folder`, and what `hf.load` makes of it."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **settings)
    experts = {"experts_implementation": "eager"} if family == "qwen3_moe" else {}
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", **experts
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms and biases are constants at first, which would hide a wrong one.
            around = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(around + 0.3 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    return model, *hf.load(folder)


def to_torch(array):
    """An int64 tensor."""
    import torch

    return torch.from_numpy(np.asarray(array, np.int64))


def logits_of(model, tokens_BT) -> np.ndarray:
    """What transformers computes."""
    import torch

    with torch.no_grad():
        return model(to_torch(tokens_BT)).logits.numpy()


def random_tokens(vocab_size: int, rows: int, length: int, seed: int = 0):
    """Token ids, int32 [rows, length]."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, vocab_size, (rows, length)), jnp.int32)


def assert_close(ours, theirs):
    """Within 1e-4 of the largest logit of each position."""
    scale = np.abs(theirs).max(axis=-1, keepdims=True)
    np.testing.assert_array_less(np.abs(np.asarray(ours) - theirs) / scale, 1e-4)
