"""The SFT loss: float32 cross-entropy of the response tokens, without a whole batch's logits.

Prompt and padding positions never reach the output head: on each device the response tokens are
listed, and a loop with as many turns as they need takes `chunk` of them at a time. The gradient is
written by hand. The cotangent of a sum is one number, so the pass that finds the loss also finds
the gradients up to that number: logits are computed once, live for one chunk, and are neither
stored for the backward pass nor computed again in it. Where the mesh splits the vocabulary, each
device computes its part of the logits; the largest one, the sum of exponentials and the looked-up
logits are joined.

Axis letters besides the house's: M tokens of this device, C tokens of a chunk, U ids of a support,
P ids looked up in a row of logits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jssd.sharding import first, gather, largest, on_shards, over, own, scatter, shards, total

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
    support_probs_BTU: jax.Array | None = None,
    *,
    chunk: int,
    vocab_size: int | None = None,
    frozen_head: bool = False,
) -> LossSums:
    """Sums of the loss and of KeptMass over the response tokens of a batch.

    Args:
      x_BTD: final hidden states. Matmuls run in their dtype, with float32 results.
      head_DV: output matrix. Its gradient is accumulated in float32, returned in its own dtype.
      targets_BT: int32 next tokens.
      loss_mask_BT: non-zero where the target is a response token.
      support_ids_BTU: int32 ids that each draw could have taken, distinct, padded with -1;
        `UNKNOWN_SUPPORT` in the first entry if they are unknown.
      support_probs_BTU: float32 probabilities of these ids, 0 where there is none: where they are
        known, the loss is the cross-entropy of this law (soft targets, ours, not the paper's), the
        expectation of the loss of a draw from it. Without them it is that of `targets_BT`.
      chunk: response tokens, per batch shard, whose logits exist at once.
      vocab_size: columns of `head_DV` from here on are padding, of probability 0; None is all V.
      frozen_head: makes no gradient of `head_DV`: it comes out as zero.
    """
    vocab_size = vocab_size or head_DV.shape[1]
    split = ("batch", "seq")
    laws = () if support_probs_BTU is None else (support_probs_BTU,)
    run = on_shards(
        functools.partial(_total_sums, chunk, vocab_size, len(laws), frozen_head),
        ((*split, None), None, split, split, *((*split, None) for _ in (0, *laws))),
        ((),) * len(LossSums._fields),
    )
    sums = run(x_BTD, head_DV, targets_BT, loss_mask_BT != 0, support_ids_BTU, *laws)
    return LossSums(sums[0], *jax.lax.stop_gradient(sums[1:]))


def _total_sums(chunk: int, vocab_size: int, num_laws: int, frozen: bool, *args: jax.Array):
    return total(_sums(chunk, vocab_size, num_laws, frozen, *args), "batch", "seq")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _sums(
    chunk: int, vocab_size: int, num_laws: int, frozen: bool, *args: jax.Array
) -> tuple[jax.Array, ...]:
    del num_laws, frozen
    return _walk(chunk, vocab_size, *args, with_grads=False)[0]


def _sums_forward(chunk: int, vocab_size: int, num_laws: int, frozen: bool, *args: jax.Array):
    del num_laws
    return _walk(chunk, vocab_size, *args, with_grads=True, frozen=frozen)


def _sums_backward(
    chunk: int, vocab_size: int, num_laws: int, frozen: bool, grads: tuple, cotangents
):
    del chunk, vocab_size, frozen
    # Each device that holds a part of the vocabulary has a share of the sum's cotangent. Exact when
    # the caller differentiates the sum itself, as the train step does: `scale` is 1.
    scale = total(cotangents[0], "vocab")
    scaled = jax.tree.map(lambda grad: (grad.astype(jnp.float32) * scale).astype(grad.dtype), grads)
    return *scaled, None, None, None, *[None] * num_laws


_sums.defvjp(_sums_forward, _sums_backward)


def _walk(
    chunk: int, vocab_size: int, x_BTD, head_DV, targets_BT, mask_BT, support_ids_BTU,
    probs_BTU=None, *, with_grads: bool, frozen: bool = False,
):  # fmt: skip
    """The sums, and the gradients of their first entry by `x_BTD` and `head_DV` (or None): the
    second one is None for a `frozen` head."""
    # Cast, then gathered from its shards: once, not in every chunk, and in the narrower dtype. Not
    # before the hidden states are there: until then the copy would only take up memory.
    x_BTD, head_there_DV = jax.lax.optimization_barrier((x_BTD, head_DV))
    whole_DV = gather(head_there_DV.astype(x_BTD.dtype), 0, "embed")
    D, V = whole_DV.shape
    flat = lambda array: array.reshape(-1, array.shape[-1])
    x_MD, support_ids_MU = flat(x_BTD), flat(support_ids_BTU)
    probs_MU = None if probs_BTU is None else flat(probs_BTU)
    targets_M, mask_M = targets_BT.reshape(-1), mask_BT.reshape(-1)
    M = mask_M.size
    C = min(chunk, M)
    count = mask_M.sum(dtype=jnp.int32)
    # Places of the response tokens; beyond them M, which is no token's.
    place_M = jnp.nonzero(mask_M, size=M + -M % C, fill_value=M)[0].astype(jnp.int32)
    # All devices take the turns of the fullest one, for a split vocabulary meets in collectives.
    # The count waits for the hidden states, and this maximum with it: on simulated CPU devices,
    # collectives that do not depend on each other can deadlock.
    count, x_MD = jax.lax.optimization_barrier((count, x_MD))
    turns = -(-largest(count, "batch", "seq") // C)

    def turn(index, carry):
        sums, grads = carry
        place_C = jax.lax.dynamic_slice_in_dim(place_M, index * C, C)
        valid_C = place_C < M
        take = lambda array: jnp.take(array, place_C, axis=0, mode="clip")
        x_CD = take(x_MD)
        logits_CV = jnp.einsum("CD,DV->CV", x_CD, whole_DV, preferred_element_type=jnp.float32)
        if V * shards("vocab") > vocab_size:
            real_V = first(V, "vocab") + jnp.arange(V) < vocab_size
            logits_CV = jnp.where(real_V, logits_CV, -jnp.inf)
        log_total_C = _log_total(logits_CV)
        target_C, support_CU = take(targets_M), take(support_ids_MU)
        probs_CU = None if probs_MU is None else take(probs_MU)
        terms = _statistics(logits_CV, log_total_C, target_C, support_CU, probs_CU)
        sums = tuple(old + jnp.where(valid_C, term, 0.0).sum() for old, term in zip(sums, terms))
        if grads is None:
            return sums, None
        dx_MD, dhead_DV = grads
        wanted_CV = _wanted(logits_CV.shape, target_C, support_CU, probs_CU)
        errors_CV = jnp.exp(logits_CV - log_total_C[:, None]) - wanted_CV
        errors_CV = jnp.where(valid_C[:, None], errors_CV, 0.0).astype(x_CD.dtype)
        product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        # Of a split vocabulary, each device's part of the sum. It is joined further back.
        dx_CD = product("CV,DV->CD", errors_CV, whole_DV).astype(dx_MD.dtype)
        if dhead_DV is not None:
            dhead_DV += product("CD,CV->DV", x_CD, errors_CV)
        return sums, (dx_MD.at[place_C].set(dx_CD, mode="drop"), dhead_DV)

    grads = None
    if with_grads:
        grads = (jnp.zeros_like(x_MD), None if frozen else jnp.zeros((D, V), jnp.float32))
    zeros = tuple(jnp.zeros((), jnp.float32) for _ in LossSums._fields)
    with jax.named_scope("loss"):
        sums, grads = jax.lax.fori_loop(0, turns, turn, (zeros, grads))
    if grads is None:
        return sums, None
    dx_MD, dhead_DV = grads
    if dhead_DV is not None:
        dhead_DV = scatter(dhead_DV.astype(head_DV.dtype), 0, "embed")
    # Before the backward pass of the layers begins: the whole gradient would lie through all of it.
    dx_MD, dhead_DV = jax.lax.optimization_barrier((dx_MD, dhead_DV))
    return sums, (dx_MD.reshape(x_BTD.shape), dhead_DV)


def _log_total(logits_CV: jax.Array) -> jax.Array:
    """Log of the sum of exponentials over the whole vocabulary, [C]."""
    top_C = largest(logits_CV.max(axis=-1), "vocab")
    return top_C + jnp.log(total(jnp.exp(logits_CV - top_C[:, None]).sum(axis=-1), "vocab"))


def _wanted(shape: tuple[int, ...], target_C, support_CU, probs_CU) -> jax.Array:
    """What the student's probabilities should be, float32 [C, V], of this device's vocabulary."""
    C, V = shape
    drawn_CV = _is_target(shape, target_C - first(V, "vocab")).astype(jnp.float32)
    if probs_CU is None:
        return drawn_CV
    ids_CU, mine_CU = own(support_CU, V, "vocab")
    probs_CU = jnp.where(mine_CU & (support_CU >= 0), probs_CU, 0.0)
    law_CV = jnp.zeros(shape, jnp.float32).at[jnp.arange(C)[:, None], ids_CU].add(probs_CU)
    return jnp.where(support_CU[:, :1] >= 0, law_CV, drawn_CV)


def _statistics(logits_CV, log_total_C, target_C, support_CU, probs_CU) -> tuple[jax.Array, ...]:
    """The terms of `LossSums` per token, each [C]."""
    ids_CP = jnp.concatenate([target_C[:, None], support_CU], axis=-1)
    ids_CP, mine_CP = own(ids_CP, logits_CV.shape[-1], "vocab")
    picked_CP = jnp.take_along_axis(logits_CV, ids_CP, axis=-1)
    if over("vocab"):  # Each shard looks up its own.
        picked_CP = total(jnp.where(mine_CP, picked_CP, 0.0), "vocab")
    nll_C = log_total_C - picked_CP[:, 0]
    support_CU_logits = jnp.where(support_CU >= 0, picked_CP[:, 1:], -jnp.inf)
    known_C = support_CU[:, 0] >= 0
    if probs_CU is not None:
        gaps_CU = jnp.where(support_CU >= 0, log_total_C[:, None] - picked_CP[:, 1:], 0.0)
        nll_C = jnp.where(known_C, (probs_CU * gaps_CU).sum(axis=-1), nll_C)
    log_kept_C = jax.nn.logsumexp(support_CU_logits, axis=-1) - log_total_C
    log_kept_C = jnp.where(known_C, log_kept_C, 0.0)
    known = known_C.astype(jnp.float32)
    ones = jnp.ones_like(known)
    return nll_C, ones, jnp.exp(log_kept_C) * known, log_kept_C, known, ones - known


def _is_target(shape: tuple[int, ...], targets: jax.Array) -> jax.Array:
    """Bool array of `shape` [..., V]: true at each row's target."""
    ids = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    return ids == targets[..., None]
