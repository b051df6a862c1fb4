"""The SFT loss: float32 cross-entropy of the response tokens, without a whole batch's logits.

Prompt and padding positions never reach the output head: on each batch shard the response tokens
are moved to the front, and a loop with as many turns as they need takes `chunk` of them at a time.
The gradient is written by hand. The cotangent of a sum is one number, so the pass that finds the
loss also finds the gradients up to that number: logits are computed once, live for one chunk, and
are neither stored for the backward pass nor computed again in it.

Axis letters besides the house's: R batch shards (1 without a mesh), M tokens of one shard, C tokens
of a chunk, U ids of a support, P ids looked up in a row of logits.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

UNKNOWN_SUPPORT = -2  # First entry of `support_ids` where the draw's support was not recorded.


class LossSums(NamedTuple):
    """Float32 sums over response tokens: micro-batches add up and are divided once."""

    nll: jax.Array  # Negative log-likelihood, nats. The only entry that carries a gradient.
    tokens: jax.Array  # Response tokens.
    kept_mass: (
        jax.Array
    )  # Student's probability of the recorded support S (KeptMass), where recorded.
    log_kept_mass: jax.Array  # log KeptMass, nats: nll = -log KeptMass + the loss within S.
    supported_tokens: jax.Array  # Response tokens with a recorded support.
    unsupported_tokens: jax.Array  # Response tokens without one.


def token_nll(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Next-token loss by its definition, float32 nats [...], of logits [..., V], targets [...].

    Compares instead of gathering, so the vocabulary axis may be sharded.
    """
    logits = logits.astype(jnp.float32)
    hits = _is_target(logits.shape, targets)
    return jax.nn.logsumexp(logits, axis=-1) - jnp.where(hits, logits, 0.0).sum(axis=-1)


def response_loss(
    x_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    loss_mask_BT: jax.Array,
    support_ids_BTU: jax.Array,
    *,
    chunk: int,
) -> LossSums:
    """Sums of the loss and of KeptMass over the response tokens of a batch.

    Args:
      x_BTD: final hidden states. Matmuls run in their dtype, with float32 results.
      head_DV: output matrix. Its gradient is accumulated in float32, returned in its own dtype.
      targets_BT: int32 next tokens.
      loss_mask_BT: non-zero where the target is a response token.
      support_ids_BTU: int32 ids that each draw could have taken, distinct, padded with -1;
        `UNKNOWN_SUPPORT` in the first entry if they are unknown.
      chunk: response tokens, per batch shard, whose logits exist at once.

    Raises:
      ValueError: the mesh in force splits the hidden states by time or width.
    """
    axes = _axes(x_BTD)
    if axes is not None and (axes[1] is not None or axes[2] is not None):
        raise ValueError(
            f"hidden states lie on {axes}; the loss takes them split by batch only. "
            "Map the logical axes seq and act_embed to None."
        )
    sums: Any = _sums(chunk, x_BTD, head_DV, targets_BT, loss_mask_BT != 0, support_ids_BTU)
    return LossSums(sums[0], *jax.lax.stop_gradient(sums[1:]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(chunk: int, *args: jax.Array) -> tuple[jax.Array, ...]:
    return _walk(chunk, *args, with_grads=False)[0]


def _sums_forward(chunk: int, *args: jax.Array):
    return _walk(chunk, *args, with_grads=True)


def _sums_backward(chunk: int, grads: tuple[jax.Array, jax.Array], cotangents):
    del chunk
    scale = cotangents[0]
    # Exact when the caller differentiates the sum itself, as the train step does: `scale` is 1.
    scaled = ((grad.astype(jnp.float32) * scale).astype(grad.dtype) for grad in grads)
    return *scaled, None, None, None


_sums.defvjp(_sums_forward, _sums_backward)


def _walk(chunk: int, x_BTD, head_DV, targets_BT, mask_BT, support_ids_BTU, *, with_grads: bool):
    """The sums, and the gradients of their first entry by `x_BTD` and `head_DV` (or None)."""
    axes = _axes(x_BTD)
    head_axes = _axes(head_DV)
    batch = None if axes is None else axes[0]
    vocab = None if head_axes is None else head_axes[1]
    num_shards = 1 if batch is None else _size(batch)
    place = functools.partial(_place, mesh=axes is not None)
    # Cast, then gathered from its fsdp shards: once, not in every chunk, and in the narrower dtype.
    # Not before the hidden states are there: until then the copy would only take up memory.
    x_BTD, head_there_DV = jax.lax.optimization_barrier((x_BTD, head_DV))
    whole_DV = place(head_there_DV.astype(x_BTD.dtype), None, vocab)

    x_RMD, targets_RM, mask_RM, support_ids_RMU = (
        _by_shard(array, num_shards, batch)
        for array in (x_BTD, targets_BT, mask_BT, support_ids_BTU)
    )
    R, M, D = x_RMD.shape
    C = min(chunk, M)
    count_R = mask_RM.sum(axis=1, dtype=jnp.int32)
    order_RM = jnp.argsort(~mask_RM, axis=1, stable=True)
    padding = -M % C
    order_RM = jnp.pad(order_RM, ((0, 0), (0, padding)))

    # Every shard takes the turns of the fullest one: a sharded vocabulary meets in collectives. The
    # maximum is taken inside the loop, so that it cannot run beside the collectives of the model:
    # on simulated CPU devices, collectives that do not depend on each other can deadlock.
    def more(carry):
        index, _, _ = carry
        return (count_R - index * C).max() > 0

    def turn(carry):
        index, sums, grads = carry
        rows_RC = jax.lax.dynamic_slice_in_dim(order_RM, index * C, C, axis=1)
        place_C = index * C + jnp.arange(C, dtype=jnp.int32)
        valid_RC = place_C[None] < count_R[:, None]
        take = lambda array: jnp.take_along_axis(array, rows_RC, axis=1)
        take_wide = lambda array: jnp.take_along_axis(array, rows_RC[..., None], axis=1)
        x_RCD, target_RC, support_RCU = (
            take_wide(x_RMD),
            take(targets_RM),
            take_wide(support_ids_RMU),
        )
        logits_RCV = jnp.einsum("RCD,DV->RCV", x_RCD, whole_DV, preferred_element_type=jnp.float32)
        log_total_RC = jax.nn.logsumexp(logits_RCV, axis=-1)
        terms = _statistics(logits_RCV, log_total_RC, target_RC, support_RCU)
        sums = tuple(
            total + jnp.where(valid_RC, term, 0.0).sum() for total, term in zip(sums, terms)
        )
        if not with_grads:
            return index + 1, sums, grads
        dx_RMD, dhead_RDV = grads
        hits_RCV = _is_target(logits_RCV.shape, target_RC)
        errors_RCV = jnp.exp(logits_RCV - log_total_RC[..., None]) - hits_RCV.astype(jnp.float32)
        errors_RCV = jnp.where(valid_RC[..., None], errors_RCV, 0.0).astype(x_RCD.dtype)
        dx_RCD = jnp.einsum(
            "RCV,DV->RCD",
            errors_RCV,
            whole_DV,
            preferred_element_type=jnp.float32,
            out_sharding=None if axes is None else jax.P(batch, None, None),
        )
        dx_RMD = jax.lax.dynamic_update_slice_in_dim(
            dx_RMD, dx_RCD.astype(dx_RMD.dtype), index * C, axis=1
        )
        dhead_RDV += jnp.einsum(
            "RCD,RCV->RDV", x_RCD, errors_RCV, preferred_element_type=jnp.float32
        )
        return index + 1, sums, (dx_RMD, dhead_RDV)

    grads = None
    if with_grads:
        V = head_DV.shape[1]
        grads = (
            place(jnp.zeros((R, M + padding, D), x_BTD.dtype), batch, None, None),
            place(jnp.zeros((R, D, V), jnp.float32), batch, None, vocab),
        )
    zeros = tuple(jnp.zeros((), jnp.float32) for _ in LossSums._fields)
    _, sums, grads = jax.lax.while_loop(more, turn, (jnp.int32(0), zeros, grads))
    if grads is None:
        return sums, None
    dx_RMD, dhead_RDV = grads
    # Response tokens go back to their places; the others never met the head.
    front_RM = jnp.where(mask_RM, jnp.cumsum(mask_RM, axis=1, dtype=jnp.int32) - 1, 0)
    dx_RMD = jnp.take_along_axis(dx_RMD, front_RM[..., None], axis=1)
    dx_RMD = jnp.where(mask_RM[..., None], dx_RMD, jnp.zeros((), dx_RMD.dtype))
    split_shape = (R, x_BTD.shape[0] // R, *x_BTD.shape[1:])
    dx_BTD = _reshape(_reshape(dx_RMD, split_shape, batch), x_BTD.shape, batch)
    dhead_DV = dhead_RDV.sum(axis=0).astype(head_DV.dtype)
    if axes is not None and head_axes is not None:
        dx_BTD, dhead_DV = place(dx_BTD, *axes), place(dhead_DV, *head_axes)
    return sums, (dx_BTD, dhead_DV)


def _statistics(logits_RCV, log_total_RC, target_RC, support_RCU) -> tuple[jax.Array, ...]:
    """The terms of `LossSums` per token, each [R, C]."""
    ids_RCP = jnp.concatenate([target_RC[..., None], support_RCU], axis=-1)
    picked_RCP = _pick(logits_RCV, jnp.maximum(ids_RCP, 0))
    nll_RC = log_total_RC - picked_RCP[..., 0]
    support_RCU_logits = jnp.where(support_RCU >= 0, picked_RCP[..., 1:], -jnp.inf)
    known_RC = support_RCU[..., 0] >= 0
    log_kept_RC = jax.nn.logsumexp(support_RCU_logits, axis=-1) - log_total_RC
    log_kept_RC = jnp.where(known_RC, log_kept_RC, 0.0)
    known = known_RC.astype(jnp.float32)
    ones = jnp.ones_like(known)
    return nll_RC, ones, jnp.exp(log_kept_RC) * known, log_kept_RC, known, ones - known


def _pick(logits_RCV: jax.Array, ids_RCP: jax.Array) -> jax.Array:
    """Logits of the ids, [R, C, P]. Each shard of the vocabulary looks up its own; a sum joins."""
    axes = _axes(logits_RCV)
    if axes is None or axes[2] is None:
        return jnp.take_along_axis(logits_RCV, ids_RCP, axis=-1)
    batch, _, vocab = axes

    def look_up(logits_RCV, ids_RCP):
        local_RCP = ids_RCP - jax.lax.axis_index(vocab) * logits_RCV.shape[-1]
        mine_RCP = (local_RCP >= 0) & (local_RCP < logits_RCV.shape[-1])
        picked_RCP = jnp.take_along_axis(logits_RCV, jnp.where(mine_RCP, local_RCP, 0), axis=-1)
        return jax.lax.psum(jnp.where(mine_RCP, picked_RCP, 0.0), vocab)

    whole = jax.P(batch, None, None)
    return jax.shard_map(look_up, in_specs=(jax.P(batch, None, vocab), whole), out_specs=whole)(
        logits_RCV, ids_RCP
    )


def _is_target(shape: tuple[int, ...], targets: jax.Array) -> jax.Array:
    """Bool array of `shape` [..., V]: true at each row's target."""
    ids = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    return ids == targets[..., None]


def _axes(array: jax.Array) -> tuple[Any, ...] | None:
    """Mesh axes that each axis of an array is split over, or None without a mesh."""
    sharding = jax.typeof(array).sharding
    if sharding.mesh.empty:
        return None
    return (*sharding.spec, *(None,) * (array.ndim - len(sharding.spec)))


def _size(axes: str | tuple[str, ...]) -> int:
    """Number of shards that one or several mesh axes make."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def _place(array: jax.Array, *axes, mesh: bool) -> jax.Array:
    return jax.reshard(array, jax.P(*axes)) if mesh else array


def _by_shard(array: jax.Array, num_shards: int, batch) -> jax.Array:
    """[B, T, ...] to [R, M, ...]: rows of one batch shard end to end. Moves nothing."""
    B, T, *rest = array.shape
    shape = (num_shards, B // num_shards, T, *rest)
    return _reshape(_reshape(array, shape, batch), (num_shards, B // num_shards * T, *rest), batch)


def _reshape(array: jax.Array, shape: tuple[int, ...], batch) -> jax.Array:
    """Reshapes with the first axis on mesh axes `batch`: ambiguous, unsaid, on one device."""
    target = None if batch is None else jax.P(batch, *(None,) * (len(shape) - 1))
    return jax.lax.reshape(array, shape, out_sharding=target)
