"""Attention of training rows: causal, each token within its own segment, chosen by device.

| kind        | where it is the choice of "auto"                     | needs                       |
|-------------|------------------------------------------------------|-----------------------------|
| `dense`     | rows of up to 512 tokens; of up to 128 on a CPU      | room for all scores at once |
| `blockwise` | longer rows on a CPU; on a GPU packed or split rows  | nothing                     |
| `splash`    | longer rows on a TPU, heads of 128 (kernel of JAX)   | rows a multiple of 128      |
| `cudnn`     | longer rows on a GPU, one sample on each             | bfloat16, cuDNN 9, no split |

None but `dense` makes a mask or scores of the whole square, so memory grows with the length of a
row, not with its square. Where the mesh splits rows by time (axis context), each device holds two
pieces of them (`sharding.balanced_order`), gathers the keys and values of the whole row, and lets
its own queries look at them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jssd.model import blockwise, layers
from jssd.sharding import balanced_order, gather, over, shards

DENSE_LEN = 512
DENSE_LEN_CPU = 128  # One block of `blockwise`, which has none to pass over.
_LANES = 128  # The splash kernel works on blocks of multiples of this.
_SPLASH_BLOCK = 1024


def choose(
    kind: str, platform: str, *, length: int, head_dim: int, dtype, packed: bool, context: int
) -> str:
    """The kind of attention for rows of `length` tokens.

    Args:
      kind: one of `config.TRAIN_ATTENTION`.
      platform: "cpu", "tpu" or "gpu".
      length: tokens of a whole row.
      head_dim: size of a head.
      dtype: of queries.
      packed: rows hold several samples.
      context: devices that share a row.

    Raises:
      ValueError: `kind` cannot be had here; says what it needs.
    """
    needs = {
        "dense": [],
        "blockwise": [],
        "splash": [
            (platform == "tpu", f"a TPU, not a {platform}"),
            (head_dim % _LANES == 0, f"heads of a multiple of {_LANES}, not {head_dim}"),
            (
                length // context % (2 * _LANES if context > 1 else _LANES) == 0,
                f"rows of a multiple of {_LANES * (2 * context if context > 1 else 1)} tokens, "
                f"not {length}",
            ),
        ],
        "cudnn": [
            (platform in ("gpu", "cuda"), f"a GPU, not a {platform}"),
            (not packed, "one sample on a row (train.packing none or bucketed)"),
            (context == 1, f"mesh.context=1, not {context}"),
            (dtype == jnp.bfloat16, f"bfloat16, not {jnp.dtype(dtype).name}"),
        ],
    }
    if kind == "auto":
        if length <= (DENSE_LEN_CPU if platform == "cpu" else DENSE_LEN):
            return "dense"
        able = [name for name in ("splash", "cudnn") if all(ok for ok, _ in needs[name])]
        return able[0] if able else "blockwise"
    lacking = [need for ok, need in needs[kind] if not ok]
    if lacking:
        raise ValueError(
            f"train.attention={kind!r} needs {'; '.join(lacking)}. 'auto' takes what can be had."
        )
    return kind


@dataclasses.dataclass(frozen=True)
class Rows:
    """Attention over one batch of training rows, on the shards of the mesh in force.

    `kind` is one of `choose`. `segment_ids_BT` and `row_T` are those of this device's queries: the
    segment of each, and its place in the whole row; `segment_ids_BS` those of the whole row, in
    order.
    """

    kind: str
    segment_ids_BT: jax.Array
    segment_ids_BS: jax.Array
    row_T: jax.Array

    def __call__(self, q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array):
        """The attention of one layer: (out_BTNH, None)."""
        k_BSKH, v_BSKH = whole_row(k_BTKH), whole_row(v_BTKH)
        function = {
            "dense": self._dense, "blockwise": self._blockwise,
            "splash": self._splash, "cudnn": self._cudnn,
        }[self.kind]  # fmt: skip
        return function(q_BTNH, k_BSKH, v_BSKH), None

    def _dense(self, q_BTNH, k_BSKH, v_BSKH):
        S = k_BSKH.shape[1]
        seen_BTS = self.segment_ids_BT[:, :, None] == self.segment_ids_BS[:, None, :]
        seen_BTS &= (self.row_T[:, None] >= jnp.arange(S))[None]
        seen_BTS &= (self.segment_ids_BT > 0)[:, :, None]
        return layers.attend(q_BTNH, k_BSKH, v_BSKH, seen_BTS)

    def _blockwise(self, q_BTNH, k_BSKH, v_BSKH):
        return blockwise.attend(
            q_BTNH, k_BSKH, v_BSKH, self.segment_ids_BT, self.segment_ids_BS, self.row_T
        )

    def _splash(self, q_BTNH, k_BSKH, v_BSKH):
        from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

        kernel = _splash_kernel(q_BTNH.shape[2], k_BSKH.shape[1], shards("seq"))
        if over("seq"):
            kernel = _own_part(kernel, shards("seq"), jax.lax.axis_index(over("seq")))
        q_BNTH, k_BKSH, v_BKSH = (x.swapaxes(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
        q_BNTH = q_BNTH * jnp.asarray(q_BTNH.shape[-1] ** -0.5, q_BTNH.dtype)
        out_BNTH: Any = jax.vmap(
            lambda q, k, v, mine, all_: kernel(q, k, v, segment_ids=SegmentIds(mine, all_))
        )(q_BNTH, k_BKSH, v_BKSH, self.segment_ids_BT, self.segment_ids_BS)
        return out_BNTH.swapaxes(1, 2).astype(q_BTNH.dtype)

    def _cudnn(self, q_BTNH, k_BSKH, v_BSKH):
        lengths_B = (self.segment_ids_BT > 0).sum(axis=1, dtype=jnp.int32)
        return jax.nn.dot_product_attention(
            q_BTNH, k_BSKH, v_BSKH,
            is_causal=True, query_seq_lengths=lengths_B, key_value_seq_lengths=lengths_B,
            implementation="cudnn",
        )  # fmt: skip


def rows(kind: str, segment_ids_BT: jax.Array) -> Rows:
    """Attention of `kind` for rows with these segments, int32; 0 is padding, which sees nothing."""
    T, count = segment_ids_BT.shape[1], shards("seq")
    row_T = jnp.arange(T, dtype=jnp.int32)
    if count > 1:
        order_CT = balanced_order(T * count, count).reshape(count, T).astype(np.int32)
        row_T = jnp.asarray(order_CT)[jax.lax.axis_index(over("seq"))]
    return Rows(kind, segment_ids_BT, whole_row(segment_ids_BT), row_T)


def whole_row(x_BT: jax.Array) -> jax.Array:
    """All of each row [B, S, ...] in order, from the pieces [B, T, ...] this device holds."""
    count = shards("seq")
    if count == 1:
        return x_BT
    x_BS = gather(x_BT, 1, "seq")
    B, S, *rest = x_BS.shape
    places = np.argsort(balanced_order(2 * count, count))
    pieces = x_BS.reshape(B, 2 * count, S // (2 * count), *rest)
    return pieces[:, places].reshape(x_BS.shape)


def _splash_kernel(num_heads: int, length: int, count: int):
    """The kernel for whole rows of `length` with the places of queries in `balanced_order`, to be
    cut by `_own_part`."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as info

    block = _block(length // count // 2 if count > 1 else length)
    # Which blocks are masked, wholly or in part, is found on a row in which two tokens stand for a
    # block: JAX looks at every pair of tokens, which takes minutes at 65,536.
    tokens = 2 * length // block
    small = splash.CausalMask((tokens, tokens))
    small.q_sequence = balanced_order(tokens, count).astype(np.int32)
    heads = splash.MultiHeadMask([small] * num_heads)
    places = balanced_order(length, count).astype(np.int32)
    forward, function = info.process_mask(heads, (2, 2), q_seq_shards=count)
    backward, _ = info.process_mask_dkv(heads, (2, 2), q_seq_shards=count)
    tables = (x._replace(q_sequence=places) for x in (forward, forward, backward))
    # The backward pass in two kernels: the fused one keeps a part of the queries' gradient for each
    # block of keys, which at 65,536 tokens is 64 times the queries.
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block,
        block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block,
        block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    return splash_attention_kernel.SplashAttentionKernel(
        *(jax.tree.map(jnp.asarray, table) for table in tables),
        block_sizes=sizes, is_mqa=False, save_residuals=False,
        mask_value=splash_attention_kernel.DEFAULT_MASK_VALUE, attn_logits_soft_cap=None,
        residual_checkpoint_name="product", mask_function=function, interpret=False,
    )  # fmt: skip


def _block(length: int) -> int:
    """The largest multiple of the lanes, up to `_SPLASH_BLOCK`, that divides `length`."""
    return next(
        size for size in range(min(_SPLASH_BLOCK, length), 0, -_LANES) if length % size == 0
    )


def _own_part(kernel, count: int, index: jax.Array):
    """The kernel of one of the devices that share a row: the same rows of all tables of its mask.
    Tables lie [heads, queries, keys] in blocks; the places of queries lie on their own."""

    def cut(info):
        take = lambda table, axis: jax.lax.dynamic_slice_in_dim(
            table, index * (table.shape[axis] // count), table.shape[axis] // count, axis
        )
        tables = {
            name: None if (table := getattr(info, name)) is None else take(table, 1)
            for name in ("data_next", "mask_next", "block_mask")
        }
        return info._replace(**tables, q_sequence=take(info.q_sequence, 0))

    return type(kernel)(
        *(cut(info) for info in (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)),
        **kernel.kwargs,
    )
