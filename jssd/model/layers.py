"""The maths of a decoder block: functions of arrays, no weights by name.

Axis letters: B sequences, T query time, S key time, D model width, F MLP width, N query heads, K KV
heads, G query heads per KV head, H head size, V vocab, L layers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jssd.model.config import Rope
from jssd.sharding import spec

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


def attend_one(
    q_BNH: jax.Array, k_BKHS: jax.Array, v_BKSH: jax.Array, mask_BS: jax.Array
) -> jax.Array:
    """`attend` for one query a row over a cache whose keys have time last, [B, N, H]."""
    B, N, H = q_BNH.shape
    K = k_BKHS.shape[1]
    q_BKGH = q_BNH.reshape(B, K, N // K, H)
    scores_BKGS = jnp.einsum("BKGH,BKHS->BKGS", q_BKGH, k_BKHS, preferred_element_type=jnp.float32)
    scores_BKGS = jnp.where(mask_BS[:, None, None], scores_BKGS * H**-0.5, MASKED)
    probs_BKGS = jax.nn.softmax(scores_BKGS, axis=-1).astype(v_BKSH.dtype)
    out_BKGH = jnp.einsum("BKGS,BKSH->BKGH", probs_BKGS, v_BKSH)
    return out_BKGH.reshape(B, N, H)


def causal_mask(segment_ids_BT: jax.Array) -> jax.Array:
    """Bool [B, T, T]: a query sees itself and earlier keys of its own segment; 0 is padding."""
    T = segment_ids_BT.shape[1]
    earlier_TS = np.tril(np.ones((T, T), bool))
    same_BTS = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    return same_BTS & earlier_TS & (segment_ids_BT > 0)[:, :, None]


def project(
    x: jax.Array, weight: jax.Array, einsum: str, out_axes: tuple, bias: jax.Array | None
) -> jax.Array:
    """`x` times `weight` in the dtype of `x`, plus `bias`; the result is laid out on `out_axes`."""
    y = jnp.einsum(einsum, x, weight.astype(x.dtype), out_sharding=spec(*out_axes))
    return y if bias is None else y + bias.astype(x.dtype)


def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) * up."""
    return jax.nn.silu(gate) * up
