"""A mixture of experts: each token goes through the few experts its router likes best.

Rows (a token for one of its experts) are sorted by expert and multiplied group by group
(`grouped.py`). No token is ever dropped. Where the mesh splits the experts (axis expert),
rows go to the device that holds their expert and come back. How many a device gets is not known
beforehand, so its room is a window a quarter larger than the mean, and what does not fit goes in
another round: a skewed router costs time, never memory or tokens. The router and its softmax are
float32.

Axis letters besides the house's: E experts, A experts of a token, M rows of this device, C rows of
a window, X tokens of this device, P devices that share the experts, I experts of one of them.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jssd.model import grouped
from jssd.model.config import ModelConfig
from jssd.sharding import largest, over, shards, total

WINDOW = 1.25  # Of the mean number of rows.
# Kinds of devices whose compiler has no ragged all-to-all (TPU v5e: "limited ICI routing").
_NO_RAGGED = ("TPU v5 lite", "TPU v5e")


class Load(NamedTuple):
    """What the router of one layer did on this device's tokens, float32 [E] each."""

    rows_E: jax.Array  # Rows that each expert got.
    prob_E: jax.Array  # Sum over tokens of the router's probability.


def moe(
    x_BTD: jax.Array,
    router_DE: jax.Array,
    gate_EDF: jax.Array,
    up_EDF: jax.Array,
    down_EFD: jax.Array,
    real_BT: jax.Array | None,
    cfg: ModelConfig,
) -> tuple[jax.Array, Load]:
    """The layer's output [B, T, D] in the dtype of `x`, and the router's load.

    Args:
      x_BTD: this device's tokens.
      router_DE: whole on every device.
      gate_EDF: of this device's experts and its part of their width, in the dtype of `x`; so are
        the other two.
      real_BT: False for padding, which goes to no expert and comes out as zero; None is all real.
    """
    B, T, D = x_BTD.shape
    x_XD = x_BTD.reshape(B * T, D)
    real_X = jnp.ones(B * T, bool) if real_BT is None else real_BT.reshape(-1)
    weights_XA, experts_XA, probs_XE = route(x_XD, router_DE, cfg)
    # Padding goes past the last expert, to the end of the sorted rows.
    experts_XA = jnp.where(real_X[:, None], experts_XA, cfg.num_experts)
    order_M = jnp.argsort(experts_XA.reshape(-1), stable=True)
    place_XA = (
        jnp.zeros_like(order_M).at[order_M].set(jnp.arange(order_M.size), unique_indices=True)
    )
    place_XA = place_XA.reshape(experts_XA.shape)
    counts_E = jnp.bincount(experts_XA.reshape(-1), length=cfg.num_experts)
    is_row_M1 = (jnp.arange(order_M.size) < counts_E.sum())[:, None]

    with jax.named_scope("experts"):
        # What the groups leave out is unspecified: zeros both ways.
        rows_MD = jnp.where(is_row_M1, _spread(x_XD, order_M, place_XA), 0)
        run = _on_their_devices if over("experts") else grouped.experts
        out_MD = run(rows_MD, counts_E, gate_EDF, up_EDF, down_EFD)
        out_MD = jnp.where(is_row_M1, out_MD, 0)
    weights_XA = jnp.where(real_X[:, None], weights_XA, 0.0)
    y_XD = _collect(out_MD, weights_XA, order_M, place_XA)
    # Each device has the part of the sum that its part of the experts' width gives.
    y_XD = total(y_XD, "mlp")
    load = Load(counts_E.astype(jnp.float32), jnp.where(real_X[:, None], probs_XE, 0.0).sum(axis=0))
    return y_XD.reshape(B, T, D), load


def route(x_XD: jax.Array, router_DE: jax.Array, cfg: ModelConfig):
    """The experts of each token: (weights float32 [X, A], expert ids int32 [X, A], probabilities
    float32 [X, E]). Float32 throughout, on a TPU too, whose default would round the products."""
    logits_XE = jnp.einsum(
        "XD,DE->XE", x_XD.astype(jnp.float32), router_DE.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    probs_XE = jax.nn.softmax(logits_XE, axis=-1)
    weights_XA, experts_XA = jax.lax.top_k(probs_XE, cfg.experts_per_token)
    if cfg.norm_topk_prob:
        weights_XA = weights_XA / weights_XA.sum(axis=-1, keepdims=True)
    return weights_XA, experts_XA, probs_XE


def balance_loss(load: Load, tokens: jax.Array, num_experts: int) -> jax.Array:
    """The load-balancing loss, float32 scalar: E times the sum over experts of the share of tokens
    that chose it times the mean probability it was given; A for an even load.

    As transformers' `load_balancing_loss_func`, which takes the tokens of all layers together.

    Args:
      load: over all devices' tokens and all layers.
      tokens: how many those are, over layers.
    """
    return num_experts * jnp.sum((load.rows_E / tokens) * (load.prob_E / tokens))


# Tokens to rows and back, with gathers both ways: left to itself JAX would make the transpose of a
# gather a scatter with additions, which accelerators are slow at. No array has X * A * D elements.
@jax.custom_vjp
def _spread(x_XD, order_M, place_XA):
    """The token of each row, [M, D]."""
    return x_XD[order_M // place_XA.shape[1]]


def _spread_backward(place_XA, drows_MD):
    dx_XD = jnp.zeros((place_XA.shape[0], drows_MD.shape[1]), jnp.float32)
    for place_X in place_XA.T:
        dx_XD += drows_MD[place_X]
    return dx_XD.astype(drows_MD.dtype), None, None


_spread.defvjp(
    lambda x_XD, order_M, place_XA: (_spread(x_XD, order_M, place_XA), place_XA), _spread_backward
)


@jax.custom_vjp
def _collect(rows_MD, weights_XA, order_M, place_XA):
    """The weighted sum of each token's rows, [X, D], summed in float32."""
    y_XD = jnp.zeros((place_XA.shape[0], rows_MD.shape[1]), jnp.float32)
    for place_X, weight_X in zip(place_XA.T, weights_XA.T):
        y_XD += rows_MD[place_X] * weight_X[:, None]
    return y_XD.astype(rows_MD.dtype)


def _collect_forward(*args):
    return _collect(*args), args


def _collect_backward(args, dy_XD):
    rows_MD, weights_XA, order_M, place_XA = args
    weights_M = weights_XA.reshape(-1)[order_M]
    drows_MD = dy_XD[order_M // place_XA.shape[1]] * weights_M[:, None]
    dy_XD = dy_XD.astype(jnp.float32)
    dweights = [(rows_MD[place_X] * dy_XD).sum(axis=1) for place_X in place_XA.T]
    return drows_MD.astype(rows_MD.dtype), jnp.stack(dweights, axis=1), None, None


_collect.defvjp(_collect_forward, _collect_backward)


class _Rounds(NamedTuple):
    """Which rows go where in each round. A device takes its rows by expert, then sender; a round
    moves a window of that order. A run is the rows of one sender for one expert."""

    counts_PIP: jax.Array  # Rows of each run: by receiver, its expert, and sender.
    first_PIP: jax.Array  # Where the run starts in its receiver's order.
    sent_first_P: jax.Array  # Where this device's rows for each receiver start.
    num_rounds: jax.Array
    window: int

    def run_sizes(self, index, receiver: Any = slice(None), sender: Any = slice(None)):
        """Rows of each run that lie in the window of round `index`."""
        first = self.first_PIP[receiver, :, sender]
        inside = lambda place: jnp.clip(place - index * self.window, 0, self.window)
        return inside(first + self.counts_PIP[receiver, :, sender]) - inside(first)

    def before(self, index, sender):
        """Rows [P] that `sender` has sent to each receiver before round `index`."""
        first_PI = self.first_PIP[:, :, sender]
        done_PI = jnp.clip(index * self.window - first_PI, 0, self.counts_PIP[:, :, sender])
        return done_PI.sum(axis=1)


def window_rows(num_rows: int, num_devices: int) -> int:
    """Rows that a device takes in one round, where each of `num_devices` sends `num_rows`."""
    return min(-(-int(num_rows * WINDOW) // 8) * 8, num_devices * num_rows)


def _plan(counts_E: jax.Array, num_rows: int) -> _Rounds:
    P, me = shards("experts"), jax.lax.axis_index(over("experts"))
    all_PE = jax.lax.all_gather(counts_E, over("experts"))
    counts_PIP = all_PE.reshape(P, P, -1).transpose(1, 2, 0)
    ends_PIP = jnp.cumsum(counts_PIP.reshape(P, -1), axis=1).reshape(counts_PIP.shape)
    sent_P = counts_PIP[:, :, me].sum(axis=1)
    window = window_rows(num_rows, P)
    # Alike on all devices of the mesh, so that all meet in the same collectives.
    most = largest(ends_PIP[:, -1, -1].max(), "batch", "seq")
    return _Rounds(
        counts_PIP, ends_PIP - counts_PIP, jnp.cumsum(sent_P) - sent_P,
        -(-most // window), window,
    )  # fmt: skip


@jax.custom_vjp
def _on_their_devices(rows_MD, counts_E, gate_IDF, up_IDF, down_IFD):
    """`grouped.experts` where each device holds some of them: [M, D], a row where it came from."""
    plan = _plan(counts_E, rows_MD.shape[0])

    def turn(index, out_MD):
        rows_CD, counts_I = _there(plan, rows_MD, index)
        out_CD = grouped.experts(rows_CD, counts_I, gate_IDF, up_IDF, down_IFD)
        return _back(plan, out_CD, out_MD, index)

    with jax.named_scope("rounds"):
        return jax.lax.fori_loop(0, plan.num_rounds, turn, jnp.zeros_like(rows_MD))


def _on_their_devices_forward(*args):
    return _on_their_devices(*args), args


def _on_their_devices_backward(args, dout_MD):
    rows_MD, counts_E, *weights = args
    plan = _plan(counts_E, rows_MD.shape[0])

    def turn(index, carry):
        drows_MD, *dweights = carry
        rows_CD, counts_I = _there(plan, rows_MD, index)
        dout_CD, _ = _there(plan, dout_MD, index)
        is_row_C1 = (jnp.arange(plan.window) < counts_I.sum())[:, None]
        dout_CD = jnp.where(is_row_C1, dout_CD, 0)
        drows_CD, *new = grouped.gradients(dout_CD, rows_CD, counts_I, *weights)
        drows_MD = _back(plan, drows_CD, drows_MD, index)
        return (drows_MD, *(old + part for old, part in zip(dweights, new)))

    zeros = (jnp.zeros(weight.shape, jnp.float32) for weight in weights)
    with jax.named_scope("rounds"):
        drows_MD, *dweights = jax.lax.fori_loop(
            0, plan.num_rounds, turn, (jnp.zeros_like(rows_MD), *zeros)
        )
    return drows_MD, None, *(d.astype(w.dtype) for d, w in zip(dweights, weights))


_on_their_devices.defvjp(_on_their_devices_forward, _on_their_devices_backward)


def _there(plan: _Rounds, rows_MD: jax.Array, index) -> tuple[jax.Array, jax.Array]:
    """The rows [C, D] that this device's experts get in a round, by expert, and how many [I]."""
    me = jax.lax.axis_index(over("experts"))
    send_P = plan.run_sizes(index, sender=me).sum(axis=1)
    sizes_IP = plan.run_sizes(index, receiver=me)
    get_P = sizes_IP.sum(axis=0)
    window_CD = jnp.zeros((plan.window, rows_MD.shape[1]), rows_MD.dtype)
    window_CD = _exchange(
        rows_MD, window_CD, plan.sent_first_P + plan.before(index, me), send_P,
        jnp.cumsum(get_P) - get_P, get_P, plan.window,
    )  # fmt: skip
    return window_CD[_by_expert(sizes_IP, plan.window)], sizes_IP.sum(axis=1)


def _back(plan: _Rounds, out_CD: jax.Array, into_MD: jax.Array, index) -> jax.Array:
    """`into_MD` with a round's rows of the experts put back where they came from."""
    me = jax.lax.axis_index(over("experts"))
    sizes_IP = plan.run_sizes(index, receiver=me)
    order_C = _by_expert(sizes_IP, plan.window)
    by_sender_CD = jnp.zeros_like(out_CD).at[order_C].set(out_CD, unique_indices=True)
    send_P, get_P = sizes_IP.sum(axis=0), plan.run_sizes(index, sender=me).sum(axis=1)
    return _exchange(
        by_sender_CD, into_MD, jnp.cumsum(send_P) - send_P, send_P,
        plan.sent_first_P + plan.before(index, me), get_P, plan.window,
    )  # fmt: skip


def _by_expert(sizes_IP: jax.Array, window: int) -> jax.Array:
    """Where in the order of arrival (by sender, then expert) the rows by expert, then sender lie,
    int32 [C]: a permutation, which leaves the unused end of the window where it is."""
    sizes_PI = sizes_IP.T
    arrival_IP = (jnp.cumsum(sizes_PI.ravel()) - sizes_PI.ravel()).reshape(sizes_PI.shape).T
    ends = jnp.cumsum(sizes_IP.ravel())
    place_C = jnp.arange(window, dtype=jnp.int32)
    run_C = jnp.minimum(jnp.searchsorted(ends, place_C, side="right"), ends.size - 1)
    moved_C = arrival_IP.ravel()[run_C] + place_C - (ends - sizes_IP.ravel())[run_C]
    return jnp.where(place_C < ends[-1], moved_C, place_C).astype(jnp.int32)


def _exchange(rows_MD, into_MD, send_from_P, send_P, put_at_P, get_P, limit: int) -> jax.Array:
    """`into_MD` with the rows that all devices sent to this one put in: `get_P` from each, at
    `put_at_P`. This device sends each receiver `send_P` rows from `send_from_P` on."""
    names = over("experts")
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    if device is not None and device.platform != "cpu" and device.device_kind not in _NO_RAGGED:
        there_P = jax.lax.all_to_all(put_at_P, names, 0, 0, tiled=True)
        return jax.lax.ragged_all_to_all(
            rows_MD, into_MD, send_from_P, send_P, there_P, get_P, axis_name=names
        )
    # Where XLA has no ragged all-to-all, each pair of devices exchanges blocks of one size, a
    # quarter larger than the mean, as many as the fullest pair needs.
    size = -(-limit // send_P.size)
    padded_MD = jnp.pad(rows_MD, ((0, size), (0, 0)))

    def turn(index, into_MD):
        take = functools.partial(jax.lax.dynamic_slice_in_dim, padded_MD, slice_size=size)
        blocks_PCD = jax.vmap(take)(send_from_P + index * size)
        blocks_PCD = jax.lax.all_to_all(blocks_PCD, names, 0, 0, tiled=True)
        place_C = index * size + jnp.arange(size)
        target_PC = jnp.where(
            get_P[:, None] > place_C, put_at_P[:, None] + place_C, into_MD.shape[0]
        )
        return into_MD.at[target_PC].set(blocks_PCD, mode="drop")

    turns = -(-largest(send_P.max(), "batch", "seq") // size)
    with jax.named_scope("pairs"):
        return jax.lax.fori_loop(0, turns, turn, into_MD)
