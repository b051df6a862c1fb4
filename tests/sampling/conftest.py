"""A tiny model for the tests of this room, with weights that make its next token worth drawing."""

import jax
import jax.numpy as jnp

from jssd.model import transformer
from jssd.model.config import ModelConfig, Rope

TINY = ModelConfig(
    family="qwen3",
    vocab_size=48,
    embed_dim=16,
    mlp_dim=24,
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


def loud_params(cfg: ModelConfig, seed: int, factor: int) -> transformer.Params:
    """Weights so large that the next token is neither sure nor a toss. Norms stay at one."""
    tree = transformer.init_params(cfg, jax.random.key(seed))
    return jax.tree.map(lambda leaf: jnp.where(leaf == 1, leaf, leaf * factor), tree)
