"""The maths of a decoder block: functions of arrays, no weights by name.

Axis letters: B sequences, T query time, S key time, D model width, F MLP width, N query heads, K KV
heads, G query heads per KV head, H head size, V vocab, L layers.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from jssd.model.config import Rope

# A masked score. Finite, so that a row with no visible key (padding) gives a uniform mix rather
# than NaN.
MASKED = -1e30


def rms_norm(x: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, computed in float32, in the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    # Scaled after rounding to the compute dtype, as transformers does: matters in bfloat16.
    return x32.astype(x.dtype) * scale_D.astype(x.dtype)


def rope_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Angular frequency of each pair, float32 [H/2]; with Llama 3's scaling where asked for."""
    freqs = 1.0 / rope.theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    freqs = freqs.astype(np.float32)
    scaling = rope.scaling
    if scaling is None:
        return freqs
    wavelengths = 2 * np.pi / freqs
    low = scaling.original_max_len / scaling.low_freq_factor
    high = scaling.original_max_len / scaling.high_freq_factor
    smooth = (scaling.original_max_len / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    ramp = (1 - smooth) * freqs / scaling.factor + smooth * freqs
    scaled = np.where(
        wavelengths > low, freqs / scaling.factor, np.where(wavelengths < high, freqs, ramp)
    )
    return scaled.astype(np.float32)


def rope_angles(rope: Rope, head_dim: int, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of each position's angles, float32 [B, T, H/2]."""
    angles_BTH = positions_BT[..., None].astype(jnp.float32) * rope_frequencies(rope, head_dim)
    return jnp.cos(angles_BTH), jnp.sin(angles_BTH)


def apply_rope(x_BTNH: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of each head, in float32, in the dtype of `x`."""
    cos_BT1H, sin_BT1H = (angle[:, :, None, :] for angle in angles)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos_BT1H - second * sin_BT1H, second * cos_BT1H + first * sin_BT1H)
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)


def attend(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """Grouped-query attention, [B, T, N, H]. Softmax in float32, result in the dtype of `v`."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = jnp.einsum(
        "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
    )
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS * H**-0.5, MASKED)
    probs_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", probs_BKGTS, v_BSKH)
    return out_BTKGH.reshape(B, T, N, H)


def attend_pages(
    q_BTNH: jax.Array,
    k_PKHS: jax.Array,
    v_PKSH: jax.Array,
    table_BM: jax.Array,
    positions_BT: jax.Array,
    k_scale_PKS: jax.Array | None = None,
    v_scale_PKS: jax.Array | None = None,
) -> jax.Array:
    """`attend` over a cache in pages, causal, [B, T, N, H].

    Args:
      q_BTNH: queries.
      k_PKHS: keys of P pages with S places each, time last.
      v_PKSH: values.
      table_BM: int32; the pages of each row in order.
      positions_BT: int32; a query sees the places up to its own position. -1 sees nothing and gets
        an unspecified finite result.
      k_scale_PKS: what each key is to be multiplied with, for keys that are stored as int8.
      v_scale_PKS: the same for values.

    Goes on page by page as far as the farthest query looks: time follows what is used, and a row's
    result depends on nothing but its own pages, to the last bit.
    """
    B, T, N, H = q_BTNH.shape
    K, S = k_PKHS.shape[1], k_PKHS.shape[3]
    G = N // K
    # Queries of one key head side by side: one matrix product per row and key head.
    q_BKQH = q_BTNH.reshape(B, T, K, G, H).transpose(0, 2, 1, 3, 4).reshape(B, K, T * G, H)
    position_BQ = jnp.repeat(positions_BT, G, axis=1)

    def page(index, carry):
        top_BKQ, sum_BKQ, out_BKQH = carry
        pages_B = jax.lax.dynamic_index_in_dim(table_BM, index, axis=1, keepdims=False)
        scores_BKQS = jnp.einsum(
            "BKQH,BKHS->BKQS", q_BKQH, k_PKHS[pages_B].astype(q_BKQH.dtype),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        if k_scale_PKS is not None:
            scores_BKQS *= k_scale_PKS[pages_B][:, :, None]
        seen_BQS = index * S + jnp.arange(S) <= position_BQ[:, :, None]
        scores_BKQS = jnp.where(seen_BQS[:, None], scores_BKQS * H**-0.5, MASKED)
        new_top_BKQ = jnp.maximum(top_BKQ, scores_BKQS.max(axis=-1))
        # A page beyond a query adds exact zeros: its first page has set the top.
        weights_BKQS = jnp.exp(scores_BKQS - new_top_BKQ[..., None])
        shrink_BKQ = jnp.exp(top_BKQ - new_top_BKQ)
        scaled_BKQS = weights_BKQS
        if v_scale_PKS is not None:
            scaled_BKQS = weights_BKQS * v_scale_PKS[pages_B][:, :, None]
        mixed_BKQH = jnp.einsum(
            "BKQS,BKSH->BKQH", scaled_BKQS.astype(q_BKQH.dtype),
            v_PKSH[pages_B].astype(q_BKQH.dtype), preferred_element_type=jnp.float32,
        )  # fmt: skip
        sum_BKQ = sum_BKQ * shrink_BKQ + weights_BKQS.sum(axis=-1)
        return new_top_BKQ, sum_BKQ, out_BKQH * shrink_BKQ[..., None] + mixed_BKQH

    zeros_BKQ = jnp.zeros((B, K, T * G), jnp.float32)
    start = (zeros_BKQ + MASKED, zeros_BKQ, jnp.zeros(q_BKQH.shape, jnp.float32))
    num_pages = jnp.max(positions_BT) // S + 1
    _, sum_BKQ, out_BKQH = jax.lax.fori_loop(0, num_pages, page, start)
    out_BKQH /= jnp.maximum(sum_BKQ, 1e-30)[..., None]
    out_BTNH = out_BKQH.reshape(B, K, T, G, H).transpose(0, 2, 1, 3, 4).reshape(B, T, N, H)
    return out_BTNH.astype(q_BTNH.dtype)


Adapter = tuple[jax.Array, jax.Array]


def project(
    x: jax.Array,
    weight: jax.Array,
    einsum: str,
    bias: jax.Array | None,
    adapter: Adapter | None = None,
) -> jax.Array:
    """`x` times `weight` in the dtype of `x`, plus `bias`. Remat policies know it as "product".

    An `adapter` (A, with the weight's input axes and the rank R; B, with the rank and the weight's
    output axes) adds `x` A B.

    The tokens BT of `einsum` are one axis M here: the gradient of the weight then sums over one
    axis, for which XLA:CPU makes no transposed copy of `y`'s.
    """
    x_M = x.reshape(-1, *x.shape[2:])
    einsum = einsum.replace("BT", "M")
    y = jnp.einsum(einsum, x_M, weight)
    if adapter is not None:
        inputs, axes, outputs = re.split(",|->", einsum)
        axes_in = "".join(axis for axis in axes if axis in inputs)
        axes_out = "".join(axis for axis in axes if axis in outputs)
        x_MR = jnp.einsum(f"{inputs},{axes_in}R->MR", x_M, adapter[0])
        x_MR = checkpoint_name(x_MR, "product")
        y += jnp.einsum(f"MR,R{axes_out}->{outputs}", x_MR, adapter[1])
    y = y.reshape(*x.shape[:2], *y.shape[1:])
    return checkpoint_name(y if bias is None else y + bias.astype(x.dtype), "product")


def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) * up."""
    return jax.nn.silu(gate) * up
