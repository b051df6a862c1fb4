"""A tiny model for the tests of this room, with weights that make its next token worth drawing."""

import dataclasses

import jax
import jax.numpy as jnp

from jssd.model import transformer
from jssd.model.config import ModelConfig
from tests.model import conftest

TINY = dataclasses.replace(conftest.TINY, vocab_size=48, mlp_dim=24)


def loud_params(cfg: ModelConfig, seed: int, factor: int) -> transformer.Params:
    """Weights so large that the next token is neither sure nor a toss. Norms stay at one."""
    tree = transformer.init_params(cfg, jax.random.key(seed))
    return jax.tree.map(lambda leaf: jnp.where(leaf == 1, leaf, leaf * factor), tree)
