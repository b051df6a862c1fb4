"""The learning-rate schedule, gradient clipping and AdamW.

The paper does not publish Adam's epsilon or the gradient clip (see `TrainConfig`), nor which
weights decay. Here, as in Megatron-LM, the framework the paper names, vectors do not: the scales of
norms and the biases. Matrices, the embedding among them, do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jssd.config import TrainConfig


def learning_rate_schedule(config: TrainConfig) -> optax.Schedule:
    """Learning rate of an update, counted from 0: a linear warm-up, then half a cosine.

    Update number n (from 1) runs at `learning_rate * n / warmup_steps` up to `warmup_steps`, where
    it reaches `learning_rate`; the last one, `num_steps`, runs at exactly `final_learning_rate`.
    No update has rate 0, so none is spent on nothing.
    """
    peak, final = config.learning_rate, config.final_learning_rate
    warmup, steps = config.warmup_steps, config.num_steps

    def schedule(count):
        number = jnp.asarray(count, jnp.float32) + 1.0
        share = jnp.clip((number - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        cosine = final + (peak - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * share))
        return jnp.where(number < warmup, peak * number / max(warmup, 1), cosine)

    return schedule


def decays(params: dict) -> dict:
    """Tree of bools like `params`: which weights decay. Norm scales and biases, by name, do not."""

    def leaf(path: tuple, _) -> bool:
        name = path[-1].key
        return not name.endswith(("norm", "bias"))

    return jax.tree_util.tree_map_with_path(leaf, params)


class Optimizer(NamedTuple):
    """Two pure functions that own the float32 values of the weights."""

    # Float32 params -> (the weights to compute with, optimizer state).
    init: Callable[[dict], tuple[dict, Any]]
    # (float32 gradients, optimizer state, weights) -> (weights, optimizer state) after the update.
    apply: Callable[[dict, Any, dict], tuple[dict, Any]]


class Master(NamedTuple):
    """Optimizer state where the weights to compute with are rounded."""

    params: dict  # Float32. An update too small for the rounded weights is not lost here.
    moments: optax.OptState


def make_optimizer(config: TrainConfig) -> Optimizer:
    """AdamW with a clipped global norm, in float32.

    With `param_dtype` "bfloat16" the state is a `Master`, and the weights are always its rounding.
    Adapters (`lora`) are float32 themselves.
    The second moment is float32; the first is stored in `mu_dtype`.
    """
    chain = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(
            b1=config.beta1, b2=config.beta2, eps=config.eps, mu_dtype=config.mu_dtype
        ),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        optax.scale_by_learning_rate(learning_rate_schedule(config)),
    )
    dtype = "float32" if config.lora.rank else config.param_dtype
    rounded = dtype != "float32"

    def weights(params: dict) -> dict:
        return jax.tree.map(lambda p: p.astype(dtype), params)

    def init(params: dict) -> tuple[dict, Any]:
        moments = chain.init(params)
        return weights(params), Master(params, moments) if rounded else moments

    def apply(grads: dict, state: Any, params: dict) -> tuple[dict, Any]:
        exact, moments = state if rounded else (params, state)
        updates, moments = chain.update(grads, moments, exact)
        new: Any = optax.apply_updates(exact, updates)
        return weights(new), Master(new, moments) if rounded else moments

    return Optimizer(init, apply)
