"""One optimizer step: gradients over micro-batches, one division, one update.

Micro-batches may differ in length (packing "bucketed"), so a step is not one program but a few: one
that adds a micro-batch's gradients, compiled for each length, and one that updates.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jssd.config import TrainConfig
from jssd.model import lora, transformer
from jssd.model.config import ModelConfig
from jssd.sharding import (
    balanced_order,
    batch_shards,
    check_divisible,
    check_length,
    parts,
    sharding,
)
from jssd.train.loss import LossSums, response_loss
from jssd.train.optimizer import Optimizer, learning_rate_schedule


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "opt_state", "step"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that an update reads and writes."""

    params: dict  # What is trained: the weights, or the adapters beside frozen ones.
    opt_state: Any  # Of `make_optimizer`: moments like `params`, counters, perhaps a master.
    step: jax.Array  # int32 scalar: updates applied so far.


MicroBatch = dict[str, jax.Array]
Batch = list[MicroBatch]
Metrics = dict[str, jax.Array]


class Totals(NamedTuple):
    """Float32 sums over the micro-batches of a step so far."""

    grads: dict  # Like `TrainState.params`, and sharded as they are.
    loss: LossSums
    router_aux_loss: jax.Array  # Of each micro-batch, times its response tokens.
    tokens: jax.Array  # Without padding.
    attention_pairs: jax.Array  # For `flops.train_flops`.


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One step: (state, batch of `place_batch`) to (state, metrics). The state is donated.

    The parts are jitted; they are apart to be looked at, compiled ahead, or measured.
    """

    zeros: jax.stages.Wrapped  # What is trained -> totals of nothing.
    # (totals or None, what is trained, micro-batch, `base`) -> totals with the micro-batch. The
    # totals are donated.
    add: jax.stages.Wrapped
    update: jax.stages.Wrapped  # (state, totals) -> (state, metrics). The state is donated.
    base: dict | None = None  # The frozen weights that adapters are trained beside.

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # With one micro-batch its gradients are the totals: no second copy of them is made.
        totals = self.zeros(state.params) if len(batch) > 1 else None
        for micro in batch:
            totals = self.add(totals, state.params, micro, self.base)
        return self.update(state, totals)


def init_state(params: dict, optimizer: Optimizer) -> TrainState:
    """State before the first update, of float32 `params`, which are donated."""

    @functools.partial(jax.jit, donate_argnums=0)
    def init(params: dict) -> TrainState:
        weights, opt_state = optimizer.init(params)
        return TrainState(weights, opt_state, jnp.zeros((), jnp.int32))

    return init(params)


def abstract_state(params: dict, optimizer: Optimizer) -> TrainState:
    """The state's shapes, dtypes and (under a mesh) shardings, from those of float32 `params`."""
    state = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    if sharding() is None:
        return state

    def concrete(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # Counters come without a sharding; they live on every device.
        axes = jax.P() if leaf.sharding is None else leaf.sharding.spec
        return leaf.update(sharding=jax.NamedSharding(jax.sharding.get_mesh(), axes))

    return jax.tree.map(concrete, state)


def place_batch(batch: list[dict[str, np.ndarray]]) -> Batch:
    """Micro-batches of host rows [rows, ...] as device arrays of all processes' rows.

    With a mesh, rows are split over its batch axes; each process gives those of its `batch_shards`.

    Raises:
      ValueError: the mesh cannot split the rows of a micro-batch, or their length.
    """
    shards, count = batch_shards()
    return [_place_micro(micro, count / len(shards)) for micro in batch]


def _place_micro(micro: dict[str, np.ndarray], share: float) -> MicroBatch:
    """One micro-batch on the devices; all processes together hold `share` times its rows."""
    rows = round(len(micro["inputs"]) * share)
    check_divisible({"rows of a micro-batch (global_batch_size/grad_accum)": (rows, "batch")})
    length, pieces = micro["inputs"].shape[1], parts(jax.sharding.get_abstract_mesh(), "seq")
    check_length(length, pieces)
    order = balanced_order(length, pieces) if pieces > 1 else slice(None)

    def place(array: np.ndarray) -> jax.Array:
        target = sharding("batch", "seq", *(None,) * (array.ndim - 2))
        if target is None:
            return jnp.asarray(array)
        shape = (rows, *array.shape[1:])
        return jax.make_array_from_process_local_data(target, array[:, order], shape)

    return {name: place(array) for name, array in micro.items()}


def make_train_step(
    cfg: ModelConfig,
    optimizer: Optimizer,
    train_config: TrainConfig,
    compute_dtype=None,
    base: dict | None = None,
) -> TrainStep:
    """The step of a model under an optimizer.

    With `train_config.lora` on, `base` are the frozen weights, which no gradient and no optimizer
    state is made for, and the state's params the adapters.

    The loss is the mean over the response tokens of all micro-batches together, so it does not
    depend on how they were cut. (The router's loss does, a little: it looks at a micro-batch as a
    whole.) A step whose loss or gradient norm is not finite changes nothing.

    Metrics, float32 scalars: `loss` (nats a response token), `kept_mass` (mean probability of the
    recorded supports; NaN if the batch has none), `compression` (mean -log KeptMass, nats: what the
    supports cost of the loss), `router_aux_loss` (`moe.balance_loss`, whether it is trained on or
    not; 0 without experts), `grad_norm` (before clipping), `learning_rate`, `response_tokens`,
    `unsupported_tokens` (response tokens without a recorded support), `tokens` (without padding)
    and `attention_pairs` (for `flops.train_flops`).
    """
    schedule = learning_rate_schedule(train_config)

    def micro_loss(
        params: dict, base: dict | None, micro: MicroBatch
    ) -> tuple[jax.Array, tuple[LossSums, jax.Array]]:
        weights, adapters = params, None
        if base is not None:
            weights, adapters = base, lora.scaled(params, train_config.lora)
        x_BTD, balance = transformer.forward(
            weights, cfg, micro["inputs"], micro["positions"], micro["segment_ids"],
            dtype=compute_dtype, remat=train_config.remat, unroll=train_config.unroll,
            attend=train_config.attention, packed=train_config.packing == "packed",
            adapters=adapters,
        )  # fmt: skip
        sums = response_loss(
            x_BTD, transformer.head(weights),
            micro["targets"], micro["loss_mask"], micro["support_ids"],
            micro.get("support_probs"), chunk=train_config.loss_chunk, vocab_size=cfg.vocab_size,
            frozen_head=base is not None,
        )  # fmt: skip
        # Weighed by response tokens, so that the division by all of them leaves the mean.
        balance = jnp.float32(0) if balance is None else balance * sums.tokens
        return sums.nll + train_config.router_aux_loss * balance, (sums, balance)

    @jax.jit
    def zeros(params: dict) -> Totals:
        zero = jnp.zeros((), jnp.float32)
        grads = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
        return Totals(grads, LossSums(*(zero for _ in LossSums._fields)), zero, zero, zero)

    @functools.partial(jax.jit, donate_argnums=0)
    def add(
        totals: Totals | None, params: dict, micro: MicroBatch, base: dict | None = None
    ) -> Totals:
        gradient = jax.value_and_grad(micro_loss, has_aux=True)
        (_, (sums, balance)), grads = gradient(params, base, micro)
        real = micro["segment_ids"] > 0
        new = Totals(
            jax.tree.map(lambda grad: grad.astype(jnp.float32), grads),
            sums,
            balance,
            real.sum(dtype=jnp.float32),
            # Positions restart with each sample, so position p sees p + 1 keys.
            jnp.where(real, micro["positions"] + 1, 0).sum(dtype=jnp.float32),
        )
        return new if totals is None else jax.tree.map(jnp.add, totals, new)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, totals: Totals) -> tuple[TrainState, Metrics]:
        sums = totals.loss
        tokens = jnp.maximum(sums.tokens, 1.0)
        grads = jax.tree.map(lambda grad: grad / tokens, totals.grads)
        loss, grad_norm = sums.nll / tokens, optax.tree.norm(grads)
        params, opt_state = optimizer.apply(grads, state.opt_state, state.params)
        new = TrainState(params, opt_state, state.step + 1)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        return new, {
            "loss": loss,
            "kept_mass": sums.kept_mass / sums.supported_tokens,
            "compression": -sums.log_kept_mass / sums.supported_tokens,
            "router_aux_loss": totals.router_aux_loss / tokens,
            "grad_norm": grad_norm,
            "learning_rate": jnp.asarray(schedule(state.step)),
            "response_tokens": sums.tokens,
            "unsupported_tokens": sums.unsupported_tokens,
            "tokens": totals.tokens,
            "attention_pairs": totals.attention_pairs,
        }

    return TrainStep(zeros, add, update, base)
