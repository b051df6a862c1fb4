"""Schedule values, the decay mask and one AdamW update against the textbook."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jssd.config import TrainConfig
from jssd.train import optimizer

PARAMS = {
    "embed": jnp.ones((4, 2)),
    "blocks": {
        "attn_norm": jnp.ones((1, 2)),
        "attn": {
            "q": jnp.ones((1, 2, 1, 2)),
            "q_bias": jnp.ones((1, 1, 2)),
            "q_norm": jnp.ones((1, 2)),
        },
        "mlp_norm": jnp.ones((1, 2)),
        "mlp": {"down": jnp.ones((1, 2, 2)), "down_bias": jnp.ones((1, 2))},
    },
    "final_norm": jnp.ones(2),
    "head": jnp.ones((2, 4)),
}


def _rate(number, **changes):
    """Rate of update `number`, counted from 1, under the paper's schedule."""
    return np.asarray(optimizer.learning_rate_schedule(TrainConfig(**changes))(number - 1)).item()


@pytest.mark.parametrize(
    ("number", "rate"),
    [
        (1, 5e-6 / 250),
        (125, 2.5e-6),
        (250, 5e-6),
        (1375, 3e-6),  # Half way between 250 and 2500: the mean of peak and final.
        (2500, 1e-6),
    ],
)
def test_the_papers_schedule(number, rate):
    assert _rate(number) == pytest.approx(rate, rel=1e-6)


def test_without_warmup_the_first_update_has_almost_the_peak_and_the_last_the_final_rate():
    rates = [_rate(n, num_steps=100, warmup_steps=0) for n in range(1, 101)]
    assert 4.99e-6 < rates[0] < 5e-6
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-6, rel=1e-6)


def test_schedule_is_the_formula_between():
    n, warmup, steps = 700, 250, 2500
    share = (n - warmup) / (steps - warmup)
    assert _rate(n) == pytest.approx(1e-6 + 4e-6 * 0.5 * (1 + np.cos(np.pi * share)), rel=1e-5)


def test_vectors_do_not_decay_and_matrices_do():
    mask = optimizer.decays(PARAMS)
    flat = {
        "/".join(key.key for key in path): value
        for path, value in jax.tree_util.tree_flatten_with_path(mask)[0]
    }
    assert {name for name, value in flat.items() if value} == {
        "embed",
        "head",
        "blocks/attn/q",
        "blocks/mlp/down",
    }


def _update(config, grads, params=PARAMS, times=1) -> tuple[Any, Any]:
    adamw = optimizer.make_optimizer(config)
    params, state = adamw.init(params)
    for _ in range(times):
        params, state = adamw.apply(grads, state, params)
    return params, state


def test_first_update_moves_by_the_rate_and_decays_matrices_only():
    # Adam's first step is the gradient's sign; decay takes rate * 0.1 * weight more.
    config = TrainConfig(num_steps=10, warmup_steps=5, learning_rate=1e-2, final_learning_rate=0.0)
    rate = 1e-2 / 5
    new, _ = _update(config, jax.tree.map(jnp.ones_like, PARAMS))
    np.testing.assert_allclose(new["head"], 1 - rate * 1.1, rtol=1e-5)
    np.testing.assert_allclose(new["final_norm"], 1 - rate, rtol=1e-5)


def test_clip_scales_all_gradients_by_one_number():
    grads = jax.tree.map(lambda p: jnp.full_like(p, 3.0), PARAMS)
    _, clipped = _update(TrainConfig(clip_norm=1.0), grads)
    _, free = _update(TrainConfig(clip_norm=0.0), grads)
    norm = optax.tree.norm(grads)
    ratio = jax.tree.map(
        lambda a, b: a / b, optax.tree.get(clipped, "mu"), optax.tree.get(free, "mu")
    )
    np.testing.assert_allclose(ratio["head"], 1 / norm, rtol=1e-5)
    np.testing.assert_allclose(ratio["final_norm"], 1 / norm, rtol=1e-5)


@pytest.mark.parametrize("mu_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_dtypes_of_weights_moments_and_master(param_dtype, mu_dtype):
    config = TrainConfig(param_dtype=param_dtype, mu_dtype=mu_dtype)
    new, state = _update(config, jax.tree.map(jnp.ones_like, PARAMS))
    dtypes = lambda tree: {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}
    assert dtypes(new) == {param_dtype}
    assert dtypes(optax.tree.get(state, "mu")) == {mu_dtype}
    assert dtypes(optax.tree.get(state, "nu")) == {"float32"}
    if param_dtype == "bfloat16":
        assert dtypes(state.params) == {"float32"}
    else:
        assert not isinstance(state, optimizer.Master)


# Moves weights of 1 by 0.001; the bfloat16 below 1 is 1 - 1/256.
SMALL = {
    "num_steps": 10, "warmup_steps": 0, "weight_decay": 0.0,
    "learning_rate": 1e-3, "final_learning_rate": 1e-3,
}  # fmt: skip


def test_updates_too_small_for_bfloat16_add_up_in_the_master():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    config = TrainConfig(param_dtype="bfloat16", **SMALL)
    once, _ = _update(config, grads)
    assert float(once["head"][0, 0]) == 1
    often, state = _update(config, grads, times=6)
    assert float(often["head"][0, 0]) == 1 - 2 / 256
    assert float(state.params["head"][0, 0]) == pytest.approx(0.994, abs=1e-5)


def test_the_weights_are_the_rounding_of_a_master_that_is_the_float32_run():
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), PARAMS)
    plain, _ = _update(TrainConfig(**SMALL), grads, times=5)
    rounded, state = _update(TrainConfig(param_dtype="bfloat16", **SMALL), grads, times=5)
    jax.tree.map(np.testing.assert_array_equal, state.params, plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), rounded, plain
    )


def test_a_bfloat16_first_moment_moves_weights_nearly_as_a_float32_one():
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), PARAMS)
    plain, _ = _update(TrainConfig(**SMALL), grads, times=8)
    short, _ = _update(TrainConfig(mu_dtype="bfloat16", **SMALL), grads, times=8)
    # Eight moves of 0.001, each off by less than a few units of bfloat16's 8 bits.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=8e-3 / 64), short, plain)
