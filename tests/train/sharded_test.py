"""The same loss, gradients and step on any mesh of eight devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.train import loss, optimizer, step
from tests.model import conftest
from tests.model.conftest import QUICK


def _mesh(sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    if len(devices) < np.prod(sizes):
        pytest.skip("needs eight devices: jax_num_cpu_devices=8")
    return sharding.make_mesh(MeshConfig(*sizes), devices)


def _params(cfg):
    """The same weights on every mesh."""
    params = jax.tree.map(np.asarray, transformer.init_params(cfg, jax.random.key(0)))
    return lambda: conftest.place(params, transformer.abstract_params(cfg))


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [
        ((1, 1, 1), "tied"),
        ((8, 1, 1), "untied"),  # Data alone,
        ((1, 1, 2), "tied"),  # and tensor alone: as many as there are heads of keys.
        ((1, 8, 1), "untied"),
        ((1, 4, 2), "tied"),
        ((2, 2, 2), "untied"),
        ((1, 2, 1, 2, 2), "tied"),
        ((1, 1, 2, 2, 2), "untied"),
        ((1, 1, 1, 1, 8), "tied"),
        ((1, 1, 1), "moe"),
        ((1, 2, 1, 2, 2), "moe"),
        ((1, 2, 2, 1, 2), "soft"),  # Vocabulary and time both split.
        ((1, 2, 4), "odd"),  # A vocabulary that tensor does not divide, of a tied head.
        ((1, 2, 2), "odd untied"),
        ((1, 2, 4), "odd soft"),
    ],
)
def test_loss_and_gradients_do_not_depend_on_the_mesh(toy, sizes, kind):
    cfg = _kinds(toy.cfg)[kind]
    # A row must be a multiple of twice the devices that share it.
    batch = toy.make_batch(length=32)
    if kind.endswith("soft"):
        shares = np.array([0.75, 0.25, 0.0], np.float32)
        batch["support_probs"] = np.tile(shares, (*batch["targets"].shape, 1))
    place = _params(cfg)

    def value(params, batch):
        x_BTD, aux = transformer.forward(
            params, cfg, batch["inputs"], batch["positions"], batch["segment_ids"]
        )
        head_DV = transformer.head(params)
        args = (batch["targets"], batch["loss_mask"], batch["support_ids"])
        sums = loss.response_loss(
            x_BTD, head_DV, *args, batch.get("support_probs"), chunk=8,
            vocab_size=cfg.vocab_size,
        )  # fmt: skip
        return sums.nll if aux is None else sums.nll + aux, (*sums, aux)

    gradients = jax.jit(jax.value_and_grad(value, has_aux=True), compiler_options=QUICK)
    one = {name: jnp.asarray(array) for name, array in batch.items()}
    (_, wanted), wanted_grads = gradients(place(), one)
    with jax.set_mesh(_mesh(sizes)):
        (many,) = step.place_batch([batch])
        params = place()
        (_, sums), grads = gradients(params, many)
        jax.tree.map(lambda grad, leaf: _same_sharding(grad, leaf), grads, params)
        grads = conftest.cut(grads, wanted_grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sums, wanted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, wanted_grads
    )


@pytest.mark.parametrize(
    ("sizes", "kind", "settings"),
    [
        ((1, 1, 1), "tied", {"grad_accum": 2}),
        ((1, 8, 1), "tied", {}),
        ((1, 4, 2), "tied", {"grad_accum": 2}),
        ((1, 2, 1, 2, 2), "tied", {"grad_accum": 2}),  # A row's time split in two.
        (
            (1, 2, 2, 2),
            "tied",
            {"grad_accum": 2, "param_dtype": "bfloat16", "mu_dtype": "bfloat16"},
        ),
        ((1, 2, 1, 4), "moe", {"router_aux_loss": 0.1}),
        ((2, 2, 2), "odd untied", {"weight_decay": 0.1, "grad_accum": 2}),
    ],
)
def test_two_steps_do_not_depend_on_the_mesh(toy, sizes, kind, settings):
    config = toy.train_config(**settings)
    cfg = _kinds(toy.cfg)[kind]
    place = _params(cfg)

    def run():
        state = step.init_state(place(), optimizer.make_optimizer(config))
        train_step = step.make_train_step(cfg, optimizer.make_optimizer(config), config)
        metrics = {}
        for seed in range(2):
            batch = step.place_batch(toy.split(toy.make_batch(seed), config.grad_accum))
            before = jax.tree.map(lambda leaf: leaf.sharding, state)
            state, metrics = train_step(state, batch)
            # A layout that drifts from step to step would compile the step again.
            assert before == jax.tree.map(lambda leaf: leaf.sharding, state)
        return jax.tree.map(np.asarray, (state, metrics))

    wanted = run()
    with jax.set_mesh(_mesh(sizes)):
        ours = conftest.cut(run(), wanted)
    # Where a gradient is nearly 0 its rounding decides the way of a move, which is of up to 0.01.
    atol = 2e-2 if config.param_dtype == "bfloat16" else 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol), ours, wanted)


def test_moments_and_master_lie_where_their_weights_lie(toy):
    adamw = optimizer.make_optimizer(toy.train_config(param_dtype="bfloat16", mu_dtype="bfloat16"))
    place = _params(toy.cfg)
    with jax.set_mesh(_mesh((1, 4, 2))):
        state = step.init_state(place(), adamw)
        abstract = step.abstract_state(transformer.abstract_params(toy.cfg), adamw)
        moments = [optax.tree.get(state.opt_state, name) for name in ("mu", "nu")]
        for tree in (*moments, state.opt_state.params):
            jax.tree.map(_same_sharding, tree, state.params)
        jax.tree.map(_same_sharding, abstract, state)


@pytest.mark.parametrize(
    ("sizes", "count"), [((1, 8, 1), 8), ((2, 2, 2), 4), ((1, 2, 1, 2, 2), 4), ((1, 1, 8), 1)]
)
def test_one_process_holds_all_shards_of_the_batch(sizes, count):
    assert sharding.batch_shards() == ([0], 1)
    with jax.set_mesh(_mesh(sizes)):
        assert sharding.batch_shards() == (list(range(count)), count)


def test_rows_that_the_mesh_cannot_split_are_refused(toy):
    with (
        jax.set_mesh(_mesh((1, 8, 1))),
        pytest.raises(ValueError, match=r"grad_accum\)=4 must be a multiple of mesh fsdp=8"),
    ):
        step.place_batch(toy.split(toy.make_batch(), 2))


def _same_sharding(a, b):
    assert a.sharding.is_equivalent_to(b.sharding, a.ndim), (a.sharding, b.sharding)


def _kinds(tied):
    """Models of every kind."""
    experts = {"family": "qwen3_moe", "num_experts": 8, "experts_per_token": 2, "mlp_dim": 8}
    odd = dataclasses.replace(tied, vocab_size=97, num_kv_heads=4)
    return {
        "tied": tied,
        "soft": tied,
        "odd": odd,
        "odd soft": odd,
        "odd untied": dataclasses.replace(odd, tied_head=False),
        "untied": dataclasses.replace(tied, tied_head=False),
        "moe": dataclasses.replace(tied, **experts, tied_head=False, norm_topk_prob=True),
    }
