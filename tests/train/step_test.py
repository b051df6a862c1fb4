"""One step: blind to how the batch is cut, normalised over all of it, safe on a bad loss."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jssd.config import LoraConfig, TrainConfig
from jssd.model import transformer
from jssd.train import optimizer, step


def _state(toy, config):
    params = transformer.init_params(toy.cfg, jax.random.key(0))
    return step.init_state(params, optimizer.make_optimizer(config))


@functools.cache
def _compiled(cfg, settings, compute_dtype):
    values, cut = settings
    fields: dict[str, Any] = dict(values)
    config = TrainConfig(**fields, lora=LoraConfig(*cut))
    return step.make_train_step(cfg, optimizer.make_optimizer(config), config, compute_dtype)


def _train_step(toy, config, compute_dtype=None):
    """The step for a config, compiled once for all tests of this file."""
    values = tuple((name, value) for name, value in vars(config).items() if name != "lora")
    return _compiled(toy.cfg, (values, dataclasses.astuple(config.lora)), compute_dtype)


def _run(toy, config, batches, compute_dtype=None):
    train_step = _train_step(toy, config, compute_dtype)
    state, seen = _state(toy, config), []
    for batch in batches:
        state, metrics = train_step(state, step.place_batch(toy.split(batch, config.grad_accum)))
        seen.append({name: float(value) for name, value in metrics.items()})
    return state, seen


def _assert_close(ours, wanted, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, wanted)


def test_loss_and_gradient_norm_are_those_of_the_plain_mean_over_all_response_tokens(toy):
    batch = toy.make_batch()
    config = toy.train_config(grad_accum=4)
    _, (metrics,) = _run(toy, config, [batch])

    def plain(params):
        logits = transformer.apply(
            params, toy.cfg, batch["inputs"], batch["positions"], batch["segment_ids"]
        )
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(logits), batch["targets"][..., None], axis=-1
        )[..., 0]
        return -(picked * batch["loss_mask"]).sum() / batch["loss_mask"].sum()

    params = transformer.init_params(toy.cfg, jax.random.key(0))
    loss, grads = jax.jit(jax.value_and_grad(plain))(params)
    norm = np.sqrt(sum(float((grad**2).sum()) for grad in jax.tree.leaves(grads)))
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["response_tokens"] == batch["loss_mask"].sum()
    assert metrics["tokens"] == (batch["segment_ids"] > 0).sum()


@pytest.mark.parametrize(("grad_accum", "remat"), [(2, "block"), (4, "none")])
def test_cutting_the_batch_changes_nothing(toy, grad_accum, remat):
    batches = [toy.make_batch(seed) for seed in range(3)]
    wanted, wanted_metrics = _run(toy, toy.train_config(), batches)
    state, metrics = _run(toy, toy.train_config(grad_accum=grad_accum, remat=remat), batches)
    _assert_close(state.params, wanted.params, rtol=1e-4, atol=2e-6)
    _assert_close(metrics, wanted_metrics, rtol=1e-4)


def test_the_loss_falls_and_the_rate_is_the_schedules(toy):
    config = toy.train_config()
    state, metrics = _run(toy, config, [toy.make_batch()] * 8)
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.3
    assert metrics[1]["learning_rate"] == pytest.approx(1e-2)
    assert metrics[-1]["learning_rate"] == pytest.approx(1e-3)
    assert int(state.step) == 8


def test_kept_mass_leaves_out_unknown_supports(toy):
    batch = toy.make_batch()
    _, (metrics,) = _run(toy, toy.train_config(), [batch])
    unknown = batch["loss_mask"][batch["support_ids"][..., 0] == -2].sum()
    assert metrics["unsupported_tokens"] == unknown > 0
    # Two ids of 64 under an untrained model.
    assert metrics["kept_mass"] == pytest.approx(2 / 64, rel=0.2)
    assert metrics["compression"] >= -np.log(metrics["kept_mass"])  # Jensen


def test_attention_pairs_are_those_of_the_mask(toy):
    batch = toy.make_batch()
    _, (metrics,) = _run(toy, toy.train_config(), [batch])
    sizes = [
        (row == segment).sum()
        for row in batch["segment_ids"]
        for segment in np.unique(row[row > 0])
    ]
    assert metrics["attention_pairs"] == sum(n * (n + 1) // 2 for n in sizes)


def test_bfloat16_activations_train_float32_weights(toy):
    batches = [toy.make_batch(seed) for seed in range(2)]
    _, wanted = _run(toy, toy.train_config(), batches)
    state, metrics = _run(toy, toy.train_config(), batches, jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    for ours, plain in zip(metrics, wanted):
        assert ours["loss"] == pytest.approx(plain["loss"], rel=1e-2)


def test_bfloat16_weights_with_a_master_train_as_float32_weights_computed_in_bfloat16(toy):
    batches = [toy.make_batch(seed) for seed in range(4)]
    plain, wanted = _run(toy, toy.train_config(), batches, jnp.bfloat16)
    config = toy.train_config(param_dtype="bfloat16")
    state, metrics = _run(toy, config, batches, jnp.bfloat16)
    for ours, theirs in zip(metrics, wanted):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=2e-2)
    # They went the same way, but for the few weights whose gradients are mostly rounding.
    start = transformer.init_params(toy.cfg, jax.random.key(0))
    apart, way = (
        optax.tree.norm(optax.tree.sub(plain.params, other))
        for other in (state.opt_state.params, start)
    )
    assert apart < 0.1 * way
    rounded = jax.tree.map(lambda p: p.astype(jnp.bfloat16), state.opt_state.params)
    jax.tree.map(np.testing.assert_array_equal, state.params, rounded)


def test_a_loss_that_is_not_finite_changes_nothing(toy):
    config = toy.train_config()
    train_step = _train_step(toy, config)
    state = _state(toy, config)
    state, _ = train_step(state, step.place_batch([toy.make_batch()]))
    broken = step.TrainState(
        {**state.params, "final_norm": state.params["final_norm"].at[0].set(jnp.nan)},
        state.opt_state,
        state.step,
    )
    before = jax.tree.map(np.array, broken)
    after, metrics = train_step(broken, step.place_batch([toy.make_batch(1)]))
    assert np.isnan(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_micro_batches_of_different_lengths_are_one_step(toy):
    # The rows of a step, each micro-batch cut to what its longest row needs.
    config = toy.train_config(grad_accum=4)
    train_step = _train_step(toy, config)
    whole, cut = _state(toy, config), _state(toy, config)
    lengths = set()
    for seed in range(3):
        batch = toy.make_batch(seed)
        used = (batch["segment_ids"] > 0).sum(axis=1)
        order = np.argsort(-used, kind="stable")
        micros = toy.split({name: array[order] for name, array in batch.items()}, 4)
        needs = [24 if (micro["segment_ids"][:, 16:] > 0).any() else 16 for micro in micros]
        lengths.update(needs)
        cut, metrics = train_step(
            cut,
            step.place_batch(
                [
                    {name: array[:, :length] for name, array in micro.items()}
                    for micro, length in zip(micros, needs)
                ]
            ),
        )
        whole, wanted = train_step(whole, step.place_batch(toy.split(batch, 4)))
        _assert_close(metrics, wanted, rtol=1e-5)
    assert lengths == {16, 24}
    _assert_close(cut.params, whole.params, rtol=1e-4, atol=2e-6)


def _overwritten(program, *args):
    """Bytes of the arguments that the compiled program writes its results over."""
    memory = program.lower(*args).compile().memory_analysis()
    return 0 if memory is None else memory.alias_size_in_bytes


def test_a_step_overwrites_its_state(toy):
    config = toy.train_config(param_dtype="bfloat16", grad_accum=2)
    train_step, state = _train_step(toy, config), _state(toy, config)
    batch = step.place_batch(toy.split(toy.make_batch(), 2))
    totals = train_step.zeros(state.params)
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert _overwritten(train_step.add, totals, state.params, batch[0]) >= size(totals)
    assert _overwritten(train_step.update, state, totals) >= size(state)
    train_step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_abstract_state_has_the_shapes_of_a_real_one(toy, param_dtype):
    config = toy.train_config(param_dtype=param_dtype, mu_dtype="bfloat16")
    abstract = step.abstract_state(
        transformer.abstract_params(toy.cfg), optimizer.make_optimizer(config)
    )
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(abstract) == shapes(_state(toy, config))
