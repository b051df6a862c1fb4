"""How a layer's keys and values lie in pages, and how a decode step attends to them: one layout per
way to compute attention.

- `Gather`: plain XLA, on any device. Keys are kept with time last and values with the head size
  last: the layouts in which a CPU multiplies them fastest (measured: 1.4x at 32 slots).
- `Ragged`: the ragged paged attention kernel for TPUs that ships in JAX.
- `Triton`: the paged attention kernel for GPUs that ships in JAX.

All give the same result up to rounding. A layer's pools are a tuple of arrays whose leading axis is
pages. Axis letters as in `model/layers.py`; P pages of S places, M pages of a row.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jssd.config import ATTENTION, CACHE_DTYPES
from jssd.model import layers
from jssd.model.config import ModelConfig
from jssd.sharding import GROUPS

Pools = tuple[jax.Array, ...]
TRITON_BYTES = 1 << 15  # Of keys in one block of the GPU's kernel.
PAGE_SIZE = 64  # The fastest on a CPU, against 32 and 128.
# Bytes of a TPU's scalar memory that the table of pages may take: the ragged kernel reads it there,
# padded to 128 pages a row, and a v5p has 1 MiB.
RAGGED_TABLE = 1 << 19
# Rows and places of one block of the ragged kernel. Its own table of sizes asks for a TPU that is
# present, so nothing could be compiled ahead of time with it.
RAGGED_ROWS, RAGGED_PLACES = 32, 512


@dataclasses.dataclass(frozen=True)
class Layout(abc.ABC):
    """The cache of one model.

    Attributes:
      dtype: of what is stored; int8 comes with one float32 scale per token and head, so that the
        largest of a token's numbers is 127.
      page_size: places of a page.
      on_mesh: whether heads are split over the mesh axis tensor.
    """

    num_kv_heads: int
    head_dim: int
    page_size: int
    dtype: jnp.dtype
    on_mesh: bool = False

    @property
    def scaled(self) -> bool:
        """Whether numbers are stored as int8 with scales."""
        return self.dtype == jnp.int8

    @abc.abstractmethod
    def shapes(self) -> list[tuple[tuple[int, ...], jnp.dtype]]:
        """Shape of one page and dtype of each pool."""

    @abc.abstractmethod
    def specs(self) -> tuple[PartitionSpec, ...]:
        """How each pool is split on a decode mesh: heads over tensor."""

    @abc.abstractmethod
    def pack(self, keys_PKHS: jax.Array, values_PKSH: jax.Array) -> Pools:
        """Whole pages of keys and values as they are stored."""

    @abc.abstractmethod
    def append(self, pools: Pools, page_B, place_B, k_BKH, v_BKH) -> Pools:
        """Stores one token of each row at its place."""

    @abc.abstractmethod
    def attend(self, pools: Pools, q_BNH, table_BM, position_B) -> jax.Array:
        """Attention of one query per row to all places up to its position, [B, N, H]; a row at
        position -1 is idle and gets an unspecified finite result."""


class ByHead(Layout):
    """A pool of keys, one of values and, for int8, scales [P, K, S] of each."""

    def specs(self):
        return (PartitionSpec(GROUPS, "tensor"),) * len(self.shapes())

    def _with_scales(self, keys: tuple[int, ...], values: tuple[int, ...]):
        scales = ((self.num_kv_heads, self.page_size), jnp.dtype(jnp.float32))
        return [(keys, self.dtype), (values, self.dtype), *[scales] * (2 * self.scaled)]

    def _store(self, keys: jax.Array, values: jax.Array) -> Pools:
        """Keys and values, head size last, as they are stored."""
        if not self.scaled:
            return keys.astype(self.dtype), values.astype(self.dtype)
        (keys, key_scales), (values, value_scales) = _quantize(keys), _quantize(values)
        return keys, values, key_scales, value_scales


class Gather(ByHead):
    """Keys [P, K, H, S], values [P, K, S, H], scales [P, K, S]."""

    def shapes(self):
        K, H, S = self.num_kv_heads, self.head_dim, self.page_size
        return self._with_scales((K, H, S), (K, S, H))

    def pack(self, keys_PKHS, values_PKSH):
        keys_PKSH, *rest = self._store(keys_PKHS.swapaxes(2, 3), values_PKSH)
        return keys_PKSH.swapaxes(2, 3), *rest

    def append(self, pools, page_B, place_B, k_BKH, v_BKH):
        new = self._store(k_BKH, v_BKH)
        keys = pools[0].at[page_B, :, :, place_B].set(new[0])
        rest = [pool.at[page_B, :, place_B].set(x) for pool, x in zip(pools[1:], new[1:])]
        return keys, *rest

    def attend(self, pools, q_BNH, table_BM, position_B):
        keys, values, *scales = pools
        out_BTNH = layers.attend_pages(
            q_BNH[:, None], keys, values, table_BM, position_B[:, None], *scales
        )
        return out_BTNH[:, 0]


class Triton(ByHead):
    """Keys and values [P, K, S, H], scales [P, K, S]."""

    def shapes(self):
        shape = self.num_kv_heads, self.page_size, self.head_dim
        return self._with_scales(shape, shape)

    def pack(self, keys_PKHS, values_PKSH):
        return self._store(keys_PKHS.swapaxes(2, 3), values_PKSH)

    def append(self, pools, page_B, place_B, k_BKH, v_BKH):
        new = self._store(k_BKH, v_BKH)
        return tuple(pool.at[page_B, :, place_B].set(x) for pool, x in zip(pools, new))

    def attend(self, pools, q_BNH, table_BM, position_B):
        from jax.experimental.pallas.ops.gpu import paged_attention

        B, _, H = q_BNH.shape
        # A block of keys and one of values lie twice in a GPU's shared memory.
        pages = max(1, TRITON_BYTES // (self.page_size * H * self.dtype.itemsize))
        splits = 16 if table_BM.shape[1] >= 64 else 1  # Long rows keep a GPU busy when few.
        M = -(-table_BM.shape[1] // (pages * splits)) * pages * splits
        table_BM = jnp.pad(table_BM, ((0, 0), (0, M - table_BM.shape[1])))

        def attend(q_BNH, table_BM, length_B, *pools):
            # One key head is one row to the kernel: its pages are then where ours are, unmoved.
            K = pools[0].shape[1]
            head_K = jnp.arange(K, dtype=jnp.int32)
            table_RM = (table_BM[:, None] * K + head_K[:, None]).reshape(B * K, M)
            merged = [pool.reshape(1, -1, *pool.shape[2:]) for pool in pools]
            q_RGH = q_BNH.reshape(B * K, -1, H) * jnp.asarray(H**-0.5, q_BNH.dtype)
            out_RGH = paged_attention.paged_attention(
                q_RGH, *merged[:2], table_RM, jnp.repeat(length_B, K), *merged[2:],
                k_splits=splits, pages_per_compute_block=pages,
            )  # fmt: skip
            return out_RGH.reshape(q_BNH.shape)

        heads, whole = PartitionSpec(None, "tensor"), PartitionSpec()
        length_B = jnp.maximum(position_B, 0) + 1
        in_specs = (heads, whole, whole, *(heads,) * len(pools))
        return _per_shard(self, attend, in_specs, heads)(q_BNH, table_BM, length_B, *pools)


class Ragged(Layout):
    """Keys and values of a head beside one another: [P, S, 2 K, H]."""

    def shapes(self):
        return [((self.page_size, 2 * self.num_kv_heads, self.head_dim), self.dtype)]

    def specs(self):
        return (PartitionSpec(GROUPS, None, "tensor"),)

    def pack(self, keys_PKHS, values_PKSH):
        keys_PSKH, values_PSKH = keys_PKHS.transpose(0, 3, 1, 2), values_PKSH.swapaxes(1, 2)
        return (_side_by_side(keys_PSKH, values_PSKH).astype(self.dtype),)

    def append(self, pools, page_B, place_B, k_BKH, v_BKH):
        new = _side_by_side(k_BKH, v_BKH).astype(self.dtype)
        return (pools[0].at[page_B, place_B].set(new),)

    def attend(self, pools, q_BNH, table_BM, position_B):
        from jax.experimental.pallas.ops.tpu import ragged_paged_attention as kernel

        B, _, H = q_BNH.shape
        S = self.page_size

        def attend(q_BNH, pool, length_B, table_BM):
            starts = jnp.arange(B + 1, dtype=jnp.int32)
            return kernel.ragged_paged_attention(
                q_BNH, pool, length_B, table_BM, starts, jnp.full(1, B, jnp.int32),
                sm_scale=H**-0.5, num_queries_per_block=min(B, RAGGED_ROWS),
                num_kv_pages_per_block=min(table_BM.shape[1], max(1, RAGGED_PLACES // S)),
            )  # fmt: skip

        length_B = jnp.maximum(position_B, 0) + 1
        heads = PartitionSpec(None, "tensor")
        in_specs = (heads, PartitionSpec(None, None, "tensor"), PartitionSpec(), PartitionSpec())
        return _per_shard(self, attend, in_specs, heads)(q_BNH, pools[0], length_B, table_BM)


def layout(
    cfg: ModelConfig, attention: str, cache_dtype: str, page_size: int = 0, *, rows: int,
    max_len: int, dtype, platform: str, on_mesh: bool,
) -> Layout:  # fmt: skip
    """The cache's layout.

    Args:
      attention: one of `config.ATTENTION`. "auto" is "ragged" on a TPU where the kernel can (a head
        size that is a multiple of 128, no int8 cache), "triton" on a GPU, "gather" elsewhere.
      cache_dtype: one of `config.CACHE_DTYPES`; "" follows `dtype`, that of activations.
      page_size: places of a page; 0 is `PAGE_SIZE`, doubled until the table of pages of `rows` rows
        of `max_len` tokens fits where the ragged kernel reads it.
      platform: of the devices.
      on_mesh: whether the model is on a decode mesh.

    Raises:
      ValueError: an unknown name, or a kernel that can't do what is asked.
    """
    for name, value, known in (
        ("attention", attention, ATTENTION),
        ("cache_dtype", cache_dtype, CACHE_DTYPES),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, known))}.")
    stored = jnp.dtype(cache_dtype or dtype)
    if attention == "auto":
        can = cfg.head_dim % 128 == 0 and stored != jnp.int8
        kernels = {"tpu": "ragged" if can else "gather", "gpu": "triton", "cuda": "triton"}
        attention = kernels.get(platform, "gather")
    if attention == "ragged" and cfg.head_dim % 128:
        raise ValueError(
            "attention='ragged' needs a head size that is a multiple of 128, and this model's is "
            f"{cfg.head_dim}. Use attention='gather'."
        )
    if attention == "ragged" and stored == jnp.int8:
        raise ValueError(
            "cache_dtype='int8' is not available with attention='ragged', whose kernel knows one "
            "scale for all tokens. Use attention='gather' or another cache_dtype."
        )
    size = page_size or PAGE_SIZE
    if attention == "ragged":
        table = lambda size: 4 * rows * -(-max_len // (128 * size)) * 128
        while not page_size and table(size) > RAGGED_TABLE:
            size *= 2
    kind = {"gather": Gather, "ragged": Ragged, "triton": Triton}[attention]
    return kind(cfg.num_kv_heads, cfg.head_dim, size, stored, on_mesh)


def _quantize(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` as int8 and the float32 scales over its last axis that give it back."""
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(x).max(axis=-1, keepdims=True), 1e-20) / 127
    return jnp.round(x / scale).astype(jnp.int8), scale.squeeze(-1)


def _side_by_side(keys: jax.Array, values: jax.Array) -> jax.Array:
    """[..., K, H] twice to [..., 2 K, H]: key and value of a head in turn."""
    both = jnp.stack([keys, values], axis=-2)
    return both.reshape(*keys.shape[:-2], -1, keys.shape[-1])


def _per_shard(layout: Layout, function, in_specs, out_specs):
    """`function` on each device's heads; the compiler can't split a kernel by itself."""
    if not layout.on_mesh:
        return function
    return jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, axis_names={"tensor"}, check_vma=False
    )
