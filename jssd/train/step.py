"""One optimizer step: gradients over micro-batches, one division, one update."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jssd.config import TrainConfig
from jssd.model import transformer
from jssd.model.config import ModelConfig
from jssd.sharding import RULES, balanced_order, parts, sharding
from jssd.train.loss import LossSums, response_loss
from jssd.train.optimizer import learning_rate_schedule


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "opt_state", "step"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that an update reads and writes."""

    params: dict
    opt_state: Any  # Of `make_optimizer`: moments like `params`, and counters.
    step: jax.Array  # int32 scalar: updates applied so far.


Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(params: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """State before the first update. It holds `params` themselves: the first step donates them."""
    opt_state, step = jax.jit(lambda p: (optimizer.init(p), jnp.zeros((), jnp.int32)))(params)
    return TrainState(params, opt_state, step)


def abstract_state(params: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """The state's shapes, dtypes and (under a mesh) shardings, from those of `params`."""
    state = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    if sharding() is None:
        return state

    def concrete(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # Counters come without a sharding; they live on every device.
        axes = jax.P() if leaf.sharding is None else leaf.sharding.spec
        return leaf.update(sharding=jax.NamedSharding(jax.sharding.get_mesh(), axes))

    return jax.tree.map(concrete, state)


def place_batch(batch: dict[str, np.ndarray], grad_accum: int) -> Batch:
    """Host rows [rows, ...] as device arrays [grad_accum, rows / grad_accum, ...].

    With a mesh, rows of each micro-batch are split over its batch axes; each process gives its own.

    Raises:
      ValueError: the rows cannot be split into `grad_accum` parts, or a part over the mesh.
    """
    rows = len(batch["inputs"])
    if rows % grad_accum:
        raise ValueError(
            f"a batch of {rows} rows must be a multiple of train.grad_accum={grad_accum}."
        )
    mesh = jax.sharding.get_abstract_mesh()
    shards = parts(mesh, "batch")
    per_micro = rows * jax.process_count() // grad_accum
    if per_micro % shards:
        raise ValueError(
            f"train.global_batch_size={rows * jax.process_count()} gives {per_micro} rows to each "
            f"of train.grad_accum={grad_accum} micro-batches: must be a multiple of mesh "
            f"{'*'.join(RULES['batch'])}={shards}. Change the batch, grad_accum, or the mesh."
        )

    length, pieces = batch["inputs"].shape[1], parts(mesh, "seq")
    if length % (2 * pieces) and pieces > 1:
        raise ValueError(
            f"train.seq_len={length} must be a multiple of {2 * pieces}, twice mesh "
            f"context={pieces}. Change one of them."
        )
    order = balanced_order(length, pieces) if pieces > 1 else slice(None)

    def place(array: np.ndarray) -> jax.Array:
        micros = array[:, order].reshape(grad_accum, rows // grad_accum, *array.shape[1:])
        target = sharding(None, "batch", "seq", *(None,) * (array.ndim - 2))
        if target is None:
            return jnp.asarray(micros)
        return jax.make_array_from_process_local_data(target, micros)

    return {name: place(array) for name, array in batch.items()}


def make_train_step(
    cfg: ModelConfig,
    optimizer: optax.GradientTransformation,
    train_config: TrainConfig,
    compute_dtype=None,
) -> TrainStep:
    """The jitted step: (state, batch of `place_batch`) to (state, metrics). The state is donated.

    The loss is the mean over the response tokens of all micro-batches together, so it does not
    depend on how they were cut. A step whose loss or gradient norm is not finite changes nothing.

    Metrics, float32 scalars: `loss` (nats a response token), `kept_mass` (mean probability of the
    recorded supports; NaN if the batch has none), `compression` (mean -log KeptMass, nats: what the
    supports cost of the loss), `router_aux_loss` (`moe.balance_loss`, whether it is trained on or
    not; 0 without experts), `grad_norm` (before clipping), `learning_rate`, `response_tokens`,
    `unsupported_tokens` (response tokens without a recorded support), `tokens` (without padding)
    and `attention_pairs` (for `flops.train_flops`).
    """
    schedule = learning_rate_schedule(train_config)

    def micro_loss(params: dict, micro: Batch) -> tuple[jax.Array, tuple[LossSums, jax.Array]]:
        x_BTD, balance = transformer.forward(
            params, cfg, micro["inputs"], micro["positions"], micro["segment_ids"],
            dtype=compute_dtype, remat=train_config.remat, unroll=train_config.unroll,
            attend=train_config.attention, packed=train_config.packing == "packed",
        )  # fmt: skip
        sums = response_loss(
            x_BTD, transformer.head(params),
            micro["targets"], micro["loss_mask"], micro["support_ids"],
            chunk=train_config.loss_chunk,
        )  # fmt: skip
        # Weighed by response tokens, so that the division by all of them leaves the mean.
        balance = jnp.float32(0) if balance is None else balance * sums.tokens
        return sums.nll + train_config.router_aux_loss * balance, (sums, balance)

    def gradients(params: dict, batch: Batch) -> tuple[dict, tuple[LossSums, jax.Array]]:
        def add(carry, micro):
            (_, sums), grads = jax.value_and_grad(micro_loss, has_aux=True)(params, micro)
            grads = jax.tree.map(lambda grad: grad.astype(jnp.float32), grads)
            return jax.tree.map(jnp.add, carry, (grads, sums)), None

        zero_grads = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
        zero_sums = LossSums(*(jnp.zeros((), jnp.float32) for _ in LossSums._fields))
        zeros = (zero_grads, (zero_sums, jnp.zeros((), jnp.float32)))
        return jax.lax.scan(add, zeros, batch)[0]

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, (sums, balance) = gradients(state.params, batch)
        tokens = jnp.maximum(sums.tokens, 1.0)
        grads = jax.tree.map(lambda grad: grad / tokens, grads)
        loss, grad_norm = sums.nll / tokens, optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        new = TrainState(params, opt_state, state.step + 1)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        real = batch["segment_ids"] > 0
        return new, {
            "loss": loss,
            "kept_mass": sums.kept_mass / sums.supported_tokens,
            "compression": -sums.log_kept_mass / sums.supported_tokens,
            "router_aux_loss": balance / tokens,
            "grad_norm": grad_norm,
            "learning_rate": jnp.asarray(schedule(state.step)),
            "response_tokens": sums.tokens,
            "unsupported_tokens": sums.unsupported_tokens,
            "tokens": real.sum(dtype=jnp.float32),
            # Positions restart with each sample, so position p sees p + 1 keys.
            "attention_pairs": jnp.where(real, batch["positions"] + 1, 0).sum(dtype=jnp.float32),
        }

    return train_step
