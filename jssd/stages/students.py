"""What a run has trained: the weights of one of its checkpoints, adapters merged into the base."""

import jax
import jax.numpy as jnp

from jssd.model import lora, transformer
from jssd.model.config import ModelConfig
from jssd.stages.context import Run, as_dtype
from jssd.weights import hf
from jssd.weights.checkpoint import Checkpointer
from jssd.weights.fingerprint import fingerprint


def load(run: Run, cfg: ModelConfig, saved: Checkpointer, step: int | str, dtype=None):
    """The student after `step`, on the mesh in force.

    Args:
      step: as `Checkpointer.restore_params` takes it.
      dtype: of weights that an adapter was merged into; None is that of the base's file, as all
        others are. Without adapters the weights are those that training computed with, in
        `train.param_dtype`.

    Raises:
      FileNotFoundError, ValueError: as `Checkpointer.restore_params`; or the adapters were trained
        beside other weights than those of model.path.
    """
    config = run.config.train
    if not config.lora.rank:
        like = transformer.abstract_params(cfg, as_dtype(config.param_dtype))
        return saved.restore_params(step, like)
    name = fingerprint(run.load(run.base_folder())[1], cfg.vocab_size)
    if (trained := saved.meta(step)["fingerprint"]) != name:
        raise ValueError(
            f"{run.workdir}/checkpoints holds adapters of the weights {trained}, and model.path "
            f"gives {name}, which they do not belong to. Name the model they were trained with."
        )
    seen = jnp.dtype(config.param_dtype)

    def as_seen(weight: jax.Array) -> jax.Array:
        """Rounded if training computed with fewer bits."""
        if seen.itemsize >= weight.dtype.itemsize:
            return weight
        return weight.astype(seen).astype(weight.dtype)

    base = jax.tree.map(as_seen, hf.load(run.base_folder())[1])
    return lora.merge(base, adapters(run, cfg, saved, step), config.lora, dtype)


def adapters(run: Run, cfg: ModelConfig, saved: Checkpointer, step: int | str) -> lora.Adapters:
    """The adapters after `step`, float32, on the mesh in force."""
    return saved.restore_params(step, lora.abstract_adapters(cfg, run.config.train.lora))
