"""What moves between devices in a training program: weight gradients leave reduced and scattered,
and only what is small is reduced whole."""

import collections
import dataclasses
import math
import re

import jax
import pytest
from jax.extend import core as jex

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.train import optimizer, step
from tests.model.conftest import QUICK

SHAPE = re.compile(r"\b(?:f32|bf16|s32|pred)\[([\d,]*)\]")


def _collectives(text, kind):
    """How often arrays of each shape come out of a collective of an optimised program."""
    found = collections.Counter()
    for line in text.splitlines():
        result, operation, _ = line.partition(f" {kind}(")
        if operation:
            shapes = SHAPE.findall(result.partition(" = ")[2])
            assert shapes, line
            found.update(tuple(int(n) for n in shape.split(",") if n) for shape in shapes)
    return found


def _programs(toy, cfg, sizes):
    """Optimised text of the two halves of a step: gradients, and update."""
    config = toy.train_config(param_dtype="bfloat16")
    adamw = optimizer.make_optimizer(config)
    with jax.set_mesh(sharding.make_mesh(MeshConfig(*sizes))):
        train_step = step.make_train_step(cfg, adamw, config)
        state = step.abstract_state(transformer.abstract_params(cfg), adamw)
        (micro,) = step.place_batch([toy.make_batch()])
        add = train_step.add.lower(None, state.params, micro)
        totals = jax.eval_shape(train_step.add, None, state.params, micro)
        totals = totals._replace(
            grads=jax.tree.map(
                lambda grad, p: grad.update(sharding=p.sharding), totals.grads, state.params
            )
        )
        update = train_step.update.lower(state, totals)
        return tuple(half.compile(compiler_options=QUICK).as_text() for half in (add, update))


def _model(toy, **changes):
    """Widths that tell weights, vectors and activations apart by their shapes."""
    return dataclasses.replace(toy.cfg, embed_dim=32, vocab_size=96, tied_head=False, **changes)


def _shards(params, whole_on_its_device=()):
    """How many matrices of a layer, or outside of layers, have each shape on a device."""
    found = collections.Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        shape = leaf.sharding.shard_shape(leaf.shape)[names[0] == "blocks" :]
        if len(shape) > 1 and tuple(names[1:]) not in whole_on_its_device:
            found[shape] += 1
    return found


def _by_sizes(shapes):
    """Counts of shapes whatever the order of their axes."""
    found = collections.Counter()
    for shape, count in shapes.items():
        found[tuple(sorted(shape))] += count
    return found


@pytest.mark.parametrize(
    ("sizes", "changes", "whole_on_its_device"),
    [
        ((1, 8), {}, ()),
        (
            (1, 1, 1, 8),
            {"family": "qwen3_moe", "num_experts": 8, "experts_per_token": 2, "mlp_dim": 24},
            # An expert's rows come to its device: nobody else has a part of its gradient.
            [("moe", name) for name in ("gate", "up", "down")],
        ),
    ],
    ids=["dense", "experts"],
)
def test_weight_gradients_are_scattered_and_never_reduced_whole(
    toy, sizes, changes, whole_on_its_device
):
    cfg = _model(toy, **changes)
    gradients, update = _programs(toy, cfg, sizes)
    with jax.set_mesh(sharding.make_mesh(MeshConfig(*sizes))):
        wanted = _shards(transformer.abstract_params(cfg), whole_on_its_device)
    # Weights are gathered along their first axis: what the mesh splits is moved there.
    assert _by_sizes(_collectives(gradients, "reduce-scatter")) == _by_sizes(wanted)
    assert not _collectives(gradients, "all-reduce-start")  # All are found by the plain name.
    # Norms of all layers, rows and probabilities of experts, scalars.
    assert max(map(math.prod, _collectives(gradients, "all-reduce"))) == cfg.num_layers * 32
    # The update moves nothing but the numbers that make the norm.
    assert set(_collectives(update, "all-reduce")) == {()}
    for kind in ("all-gather", "reduce-scatter", "all-to-all", "collective-permute"):
        assert not _collectives(update, kind)


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jex.jaxprs_in_params(eqn.params):
            yield from _equations(inner)


def test_the_head_gradient_is_scattered_before_the_layers_are_gone_back_through(toy):
    # Else all of it lies beside their activations: 1.4 GiB of Qwen3-4B, and as much to reduce it.
    cfg, config = _model(toy), toy.train_config()
    adamw = optimizer.make_optimizer(config)
    with jax.set_mesh(sharding.make_mesh(MeshConfig(1, 8))):
        train_step = step.make_train_step(cfg, adamw, config)
        params = step.abstract_state(transformer.abstract_params(cfg), adamw).params
        (micro,) = step.place_batch([toy.make_batch()])
        traced = train_step.add.trace(None, params, micro)
    equations = list(_equations(traced.jaxpr.jaxpr))
    made_by = {out: eqn.primitive.name for eqn in equations for out in eqn.outvars}
    waits = [
        eqn
        for eqn in equations
        if eqn.primitive.name == "optimization_barrier"
        and "reduce_scatter" in [made_by.get(x) for x in eqn.invars if isinstance(x, jex.Var)]
    ]
    tokens = micro["inputs"].size // 8
    assert [[out.aval.shape for out in eqn.outvars] for eqn in waits] == [
        [(tokens, cfg.embed_dim), (cfg.embed_dim // 8, cfg.vocab_size)]
    ]
