"""Attention block by block in plain JAX: memory grows with the length of a row, not its square.

Queries are taken a block at a time, and for each the blocks of keys up to its last query; pairs of
blocks without a common segment are passed over. The forward pass keeps the log of each query's sum
of exponentials, from which the backward pass makes the weights again (Dao et al., arXiv 2307.08691,
algorithm 2, with the loops the other way round).

Axis letters besides the house's: Q queries of a block times query heads per KV head, C keys of a
block.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jssd.model.layers import MASKED

QUERIES = 128
KEYS = 512


def key_block(length: int) -> int:
    """Keys of a block in rows of `length`: fewer in short ones, where one block skips nothing."""
    return KEYS if length > KEYS else min(QUERIES, length)


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segment_ids_BT: jax.Array,
    segment_ids_BS: jax.Array,
    row_T: jax.Array,
) -> jax.Array:
    """Grouped-query attention, [B, T, N, H], in the dtype of the queries; softmax in float32.

    Args:
      q_BTNH: queries, which stand at the places `row_T` of their row.
      k_BSKH: keys of the whole row.
      v_BSKH: values.
      segment_ids_BT: int32 segments of the queries; 0 is padding, whose result is unspecified.
      segment_ids_BS: int32 segments of the keys.
      row_T: int32. A query sees the keys at places up to its own.
    """
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    queries, keys = min(QUERIES, T), key_block(S)
    pad = lambda x, size, axis: jnp.pad(
        x, [(0, -x.shape[axis] % size if number == axis else 0) for number in range(x.ndim)]
    )
    out_BTNH: Any = _attend(
        queries, keys, pad(q_BTNH, queries, 1), pad(k_BSKH, keys, 1), pad(v_BSKH, keys, 1),
        pad(segment_ids_BT, queries, 1), pad(segment_ids_BS, keys, 1), pad(row_T, queries, 0),
    )  # fmt: skip
    return out_BTNH[:, :T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(queries: int, keys: int, *args: jax.Array) -> jax.Array:
    out_BTNH, _ = _forward(queries, keys, *args)
    return out_BTNH


def _forward(queries: int, keys: int, q_BTNH, k_BSKH, v_BSKH, *where):
    blocks = _Blocks(queries, keys, q_BTNH.shape, k_BSKH.shape, where)
    k_BKSH, v_BKSH = k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2)

    def of_queries(_, index):
        q_BKQH = blocks.queries_of(q_BTNH, index)

        def of_keys(number, carry):
            top_BKQ, sum_BKQ, out_BKQH = carry
            k_BKCH, v_BKCH = blocks.keys_of(k_BKSH, number), blocks.keys_of(v_BKSH, number)
            scores_BKQC = blocks.scores(q_BKQH, k_BKCH, index, number)
            new_top_BKQ = jnp.maximum(top_BKQ, scores_BKQC.max(axis=-1))
            weights_BKQC = jnp.exp(scores_BKQC - new_top_BKQ[..., None])
            shrink_BKQ = jnp.exp(top_BKQ - new_top_BKQ)
            mixed_BKQH = _product("BKQC,BKCH->BKQH", weights_BKQC.astype(q_BKQH.dtype), v_BKCH)
            return (
                new_top_BKQ,
                sum_BKQ * shrink_BKQ + weights_BKQC.sum(axis=-1),
                out_BKQH * shrink_BKQ[..., None] + mixed_BKQH,
            )

        zeros_BKQ = jnp.zeros(q_BKQH.shape[:3], jnp.float32)
        start = (zeros_BKQ + MASKED, zeros_BKQ, jnp.zeros(q_BKQH.shape, jnp.float32))
        top_BKQ, sum_BKQ, out_BKQH = blocks.loop(index, of_keys, start)
        sum_BKQ = jnp.maximum(sum_BKQ, 1e-30)
        out_BKQH = (out_BKQH / sum_BKQ[..., None]).astype(q_BTNH.dtype)
        return None, (out_BKQH, top_BKQ + jnp.log(sum_BKQ))

    _, (out_IBKQH, log_sum_IBKQ) = jax.lax.scan(of_queries, None, jnp.arange(blocks.num_queries))
    residuals = (q_BTNH, k_BSKH, v_BSKH, *where, out_IBKQH, log_sum_IBKQ)
    return blocks.rows_of(out_IBKQH), residuals


def _backward(queries: int, keys: int, residuals, dout_BTNH):
    q_BTNH, k_BSKH, v_BSKH, *where, out_IBKQH, log_sum_IBKQ = residuals
    blocks = _Blocks(queries, keys, q_BTNH.shape, k_BSKH.shape, where)
    k_BKSH, v_BKSH = k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2)
    scale = q_BTNH.shape[-1] ** -0.5
    dtype = q_BTNH.dtype

    def of_queries(carry, step):
        index, out_BKQH, log_sum_BKQ = step
        q_BKQH = blocks.queries_of(q_BTNH, index)
        dout_BKQH = blocks.queries_of(dout_BTNH, index)
        # What softmax's normalisation takes back: the sum over keys of weight times its gradient.
        mean_BKQ = (dout_BKQH.astype(jnp.float32) * out_BKQH).sum(axis=-1)

        def of_keys(number, carry):
            dq_BKQH, dk_BKSH, dv_BKSH = carry
            k_BKCH, v_BKCH = blocks.keys_of(k_BKSH, number), blocks.keys_of(v_BKSH, number)
            scores_BKQC = blocks.scores(q_BKQH, k_BKCH, index, number)
            weights_BKQC = jnp.exp(scores_BKQC - log_sum_BKQ[..., None])
            # A row that sees nothing has masked scores and a masked sum, whose difference is not.
            weights_BKQC = jnp.where(scores_BKQC > MASKED / 2, weights_BKQC, 0.0)
            dweights_BKQC = _product("BKQH,BKCH->BKQC", dout_BKQH, v_BKCH)
            dscores_BKQC = (weights_BKQC * (dweights_BKQC - mean_BKQ[..., None]) * scale).astype(
                dtype
            )
            dq_BKQH += _product("BKQC,BKCH->BKQH", dscores_BKQC, k_BKCH)
            dk_BKCH = _product("BKQC,BKQH->BKCH", dscores_BKQC, q_BKQH)
            dv_BKCH = _product("BKQC,BKQH->BKCH", weights_BKQC.astype(dtype), dout_BKQH)
            return (
                dq_BKQH,
                blocks.add_keys(dk_BKSH, dk_BKCH, number),
                blocks.add_keys(dv_BKSH, dv_BKCH, number),
            )

        start = (jnp.zeros(q_BKQH.shape, jnp.float32), *carry)
        dq_BKQH, *carry = blocks.loop(index, of_keys, start)
        return tuple(carry), dq_BKQH.astype(dtype)

    zeros = jnp.zeros(k_BKSH.shape, jnp.float32)
    steps = (jnp.arange(blocks.num_queries), out_IBKQH, log_sum_IBKQ)
    (dk_BKSH, dv_BKSH), dq_IBKQH = jax.lax.scan(of_queries, (zeros, zeros), steps)
    there = lambda x_BKSH, like: x_BKSH.swapaxes(1, 2).astype(like.dtype)
    dk_BSKH, dv_BSKH = there(dk_BKSH, k_BSKH), there(dv_BKSH, v_BSKH)
    return blocks.rows_of(dq_IBKQH), dk_BSKH, dv_BSKH, None, None, None


_attend.defvjp(_forward, _backward)


def _product(einsum: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(einsum, a, b, preferred_element_type=jnp.float32)


class _Blocks:
    """How rows are cut: I blocks of queries and J of keys."""

    def __init__(self, queries: int, keys: int, q_shape, k_shape, where):
        B, T, self.N, _ = q_shape
        S, self.K = k_shape[1], k_shape[2]
        self.G = self.N // self.K
        self.queries, self.keys = queries, keys
        self.num_queries, self.num_keys = T // queries, S // keys
        segment_ids_BT, segment_ids_BS, row_T = where
        self.segments_IBQ = segment_ids_BT.reshape(B, -1, queries).swapaxes(0, 1)
        self.segments_JBC = segment_ids_BS.reshape(B, -1, keys).swapaxes(0, 1)
        self.rows_IQ = row_T.reshape(-1, queries)
        # The blocks of keys with a query after them, and those with a segment in common.
        self.reach_I = self.rows_IQ.max(axis=1) // keys + 1
        first, last = jnp.asarray(np.iinfo(np.int32).max), jnp.asarray(0)

        def span(segments):  # Of the real tokens of each block.
            return jnp.where(segments > 0, segments, first).min(-1), segments.max(-1)

        (low_IB, high_IB), (low_JB, high_JB) = span(self.segments_IBQ), span(self.segments_JBC)
        meet_IJB = (low_IB[:, None] <= high_JB[None]) & (low_JB[None] <= high_IB[:, None])
        self.meet_IJ = (meet_IJB & (high_IB > last)[:, None]).any(axis=-1)

    def loop(self, index, body, start):
        """Runs `body(number, carry)` over the blocks of keys that block `index` of queries sees."""

        def step(number, carry):
            return jax.lax.cond(
                self.meet_IJ[index, number], lambda c: body(number, c), lambda c: c, carry
            )

        with jax.named_scope("blocks"):
            return jax.lax.fori_loop(0, self.reach_I[index], step, start)

    def queries_of(self, x_BTNH, index):
        """Block `index` of queries or their like: [B, K, G * queries, H]."""
        B, _, _, H = x_BTNH.shape
        block = jax.lax.dynamic_slice_in_dim(x_BTNH, index * self.queries, self.queries, axis=1)
        block = block.reshape(B, self.queries, self.K, self.G, H).transpose(0, 2, 3, 1, 4)
        return block.reshape(B, self.K, self.G * self.queries, H)

    def rows_of(self, x_IBKQH):
        """The blocks of queries end to end: [B, T, N, H]."""
        I, B, K, _, H = x_IBKQH.shape  # noqa: E741
        x = x_IBKQH.reshape(I, B, K, self.G, self.queries, H).transpose(1, 0, 4, 2, 3, 5)
        return x.reshape(B, I * self.queries, self.N, H)

    def keys_of(self, x_BKSH, number):
        """Block `number` of keys or values: [B, K, keys, H]."""
        return jax.lax.dynamic_slice_in_dim(x_BKSH, number * self.keys, self.keys, axis=2)

    def add_keys(self, x_BKSH, part_BKCH, number):
        """`x_BKSH` with `part_BKCH` added to its block `number`."""
        old = self.keys_of(x_BKSH, number)
        return jax.lax.dynamic_update_slice_in_dim(x_BKSH, old + part_BKCH, number * self.keys, 2)

    def scores(self, q_BKQH, k_BKCH, index, number):
        """Scaled float32 scores of a pair of blocks, masked."""
        rows_Q, segments_BQ = self.rows_IQ[index], self.segments_IBQ[index]
        segments_BC = self.segments_JBC[number]
        seen_BQC = segments_BQ[:, :, None] == segments_BC[:, None, :]
        seen_BQC &= rows_Q[:, None] >= number * self.keys + jnp.arange(self.keys)
        seen_BQC &= (segments_BQ > 0)[:, :, None]
        B, K, Q, H = q_BKQH.shape
        scores_BKQC = _product("BKQH,BKCH->BKQC", q_BKQH, k_BKCH) * H**-0.5
        scores_BKGQC = scores_BKQC.reshape(B, K, self.G, self.queries, self.keys)
        scores_BKGQC = jnp.where(seen_BQC[:, None, None], scores_BKGQC, MASKED)
        return scores_BKGQC.reshape(B, K, Q, self.keys)
