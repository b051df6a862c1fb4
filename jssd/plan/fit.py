"""Whether config, model and mesh go together: all that must divide, before anything is allocated.

Runs ask when they have a mesh and know the architecture, plans before they trace.
"""

import contextlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jssd import hosts, sharding
from jssd.config import Config
from jssd.data import packing
from jssd.model import attention
from jssd.model.config import ModelConfig, split_sizes
from jssd.sampling.engine import STRICT_ROWS

TRAIN = ("sft", "sweep")  # Stages that train.
DRAW = ("sample", "evaluate", "sweep")  # Stages that decode.


def check(config: Config, cfg: ModelConfig, mesh: jax.sharding.Mesh, stages: Sequence[str]) -> None:
    """Raises one ValueError with all that does not go together: field, value, rule and way out.

    Args:
      config: the run.
      cfg: its model.
      mesh: of training (`sharding.make_mesh`), whose devices need not be there.
      stages: those to run.
    """
    sizes: list[str] = []
    rest: list[str] = []
    if set(stages) & set(TRAIN):
        with jax.set_mesh(mesh):
            sizes += sharding.indivisible(split_sizes(cfg))
            rest += _train(config, cfg, mesh)
    if set(stages) & set(DRAW):
        if problem := hosts.problem(mesh):
            rest.append(problem)
        else:
            decode = hosts.decode_mesh(mesh, mesh.devices.flat[0].process_index)
            with jax.set_mesh(decode):
                sizes += sharding.indivisible(split_sizes(cfg))
            rest += _draw(config, decode, stages)
    if sizes:
        rest.insert(0, sharding.told(list(dict.fromkeys(sizes))))
    if rest:
        raise ValueError(" ".join(rest))


def _train(config: Config, cfg: ModelConfig, mesh: jax.sharding.Mesh) -> list[str]:
    """What of section `train` the mesh in force can't split, or its devices not compute."""
    train, errors = config.train, _Errors()
    rows, context = sharding.parts(mesh, "batch"), sharding.parts(mesh, "seq")
    with errors:
        packing.check_cut(train.global_batch_size, train.grad_accum, rows)
    bucketed = train.packing == "bucketed"
    lengths = packing.ladder(train.seq_len) if bucketed else (train.seq_len,)
    for length in lengths:
        with errors:
            sharding.check_length(length, context)
            attention.choose(
                train.attention, sharding.platform(),
                length=length, head_dim=cfg.head_dim,
                dtype=jnp.dtype(config.model.compute_dtype or train.param_dtype),
                packed=train.packing == "packed", context=context,
            )  # fmt: skip
    return errors.told


def _draw(config: Config, mesh: jax.sharding.Mesh, stages: Sequence[str]) -> list[str]:
    """What of section `engine` a host's decode mesh can't split."""
    engine, errors = config.engine, []
    groups = sharding.parts(mesh, "batch")
    unit = groups * (STRICT_ROWS if engine.strict else 1)
    if engine.slots % unit:
        strict = f", {STRICT_ROWS} at a time in each, for engine.strict" if engine.strict else ""
        errors.append(
            f"engine.slots={engine.slots} must be a multiple of {unit}: a host splits them over "
            f"{groups} of its devices{strict}. Set engine.slots={-(-engine.slots // unit) * unit}."
        )
    longest = max(
        config.sampling.max_new_tokens if {"sample", "sweep"} & set(stages) else 0,
        config.evaluate.max_new_tokens if {"evaluate", "sweep"} & set(stages) else 0,
    )
    least = (longest + 1) * groups  # Of a prompt is known here that it is not empty.
    if engine.cache_tokens and engine.cache_tokens < least:
        errors.append(
            f"engine.cache_tokens={engine.cache_tokens} must be 0 or at least {least}, a prompt "
            f"and max_new_tokens={longest} in each of the {groups} parts that a host has. Set it "
            "to 0, or higher."
        )
    return errors


class _Errors(contextlib.AbstractContextManager):
    """Keeps the text of a ValueError, each once, and goes on behind the block."""

    def __init__(self):
        self.told: list[str] = []

    def __exit__(self, kind, error, trace) -> bool:
        if isinstance(error, ValueError) and str(error) not in self.told:
            self.told.append(str(error))
        return isinstance(error, ValueError)
