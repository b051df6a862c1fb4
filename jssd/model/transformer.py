"""A decoder-only transformer over a plain dict of weights.

Weights at rest are `params`, a nested dict whose `blocks` are stacked on a leading layer axis;
weights at work are the NNX modules below. This is the only file that crosses that line. For
decoding, `unstack` turns the stacked blocks into a tuple of one dict per layer: a CPU then reads
each weight in place instead of copying a layer out of the stack at every step.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jssd.model import layers
from jssd.model.config import ModelConfig
from jssd.sharding import check_divisible, sharding, spec

Params = dict
# Attention of one layer as the caller wants it: (q_BTNH, k_BTKH, v_BTKH) -> (out_BTNH, what to
# keep, e.g. the cache).
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, object]]

INIT_STD = 0.02


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], *axes: str) -> nnx.Param:
    return nnx.Param(INIT_STD * jax.random.normal(rngs.params(), shape), axes=axes)


def _constant(value: float, shape: tuple[int, ...], *axes: str) -> nnx.Param:
    return nnx.Param(jnp.full(shape, value), axes=axes)


def _gathered(weight: nnx.Param, *axes: str | None) -> jax.Array:
    """The weight with its embed axis gathered from the fsdp shards; other axes keep their place."""
    value = weight[...]
    target = spec(*axes)
    return value if target is None else jax.reshard(value, target)


class Attention(nnx.Module):
    """Weights of grouped-query attention."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        D, N, K, H = cfg.embed_dim, cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
        self.cfg = cfg
        self.q = _weight(rngs, (D, N, H), "embed", "heads", "head_dim")
        self.k = _weight(rngs, (D, K, H), "embed", "kv_heads", "head_dim")
        self.v = _weight(rngs, (D, K, H), "embed", "kv_heads", "head_dim")
        self.o = _weight(rngs, (N, H, D), "heads", "head_dim", "embed")
        if cfg.qkv_bias:
            self.q_bias = _constant(0.0, (N, H), "heads", "head_dim")
            self.k_bias = _constant(0.0, (K, H), "kv_heads", "head_dim")
            self.v_bias = _constant(0.0, (K, H), "kv_heads", "head_dim")
        if cfg.o_bias:
            self.o_bias = _constant(0.0, (D,), "act_embed")
        if cfg.qk_norm:
            self.q_norm = _constant(1.0, (H,), "head_dim")
            self.k_norm = _constant(1.0, (H,), "head_dim")

    def __call__(self, x_BTD: jax.Array, angles: tuple[jax.Array, jax.Array], attend: Attend):
        cfg = self.cfg

        def into_heads(name: str, axis: str, letter: str) -> jax.Array:
            weight = _gathered(getattr(self, name), None, axis, None)
            bias = getattr(self, f"{name}_bias")[...] if cfg.qkv_bias else None
            return layers.project(
                x_BTD, weight, f"BTD,D{letter}H->BT{letter}H", ("batch", None, axis, None), bias
            )

        q_BTNH = into_heads("q", "heads", "N")
        k_BTKH = into_heads("k", "kv_heads", "K")
        v_BTKH = into_heads("v", "kv_heads", "K")
        if cfg.qk_norm:
            q_BTNH = layers.rms_norm(q_BTNH, self.q_norm[...], cfg.norm_eps)
            k_BTKH = layers.rms_norm(k_BTKH, self.k_norm[...], cfg.norm_eps)
        q_BTNH = layers.apply_rope(q_BTNH, angles)
        k_BTKH = layers.apply_rope(k_BTKH, angles)
        out_BTNH, kept = attend(q_BTNH, k_BTKH, v_BTKH)
        bias = self.o_bias[...] if cfg.o_bias else None
        o_NHD = _gathered(self.o, "heads", None, None)
        return layers.project(out_BTNH, o_NHD, "BTNH,NHD->BTD", ("batch", None, None), bias), kept


class Mlp(nnx.Module):
    """Weights of the gated MLP."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        D, F = cfg.embed_dim, cfg.mlp_dim
        self.cfg = cfg
        self.gate = _weight(rngs, (D, F), "embed", "mlp")
        self.up = _weight(rngs, (D, F), "embed", "mlp")
        self.down = _weight(rngs, (F, D), "mlp", "embed")
        if cfg.mlp_bias:
            self.gate_bias = _constant(0.0, (F,), "mlp")
            self.up_bias = _constant(0.0, (F,), "mlp")
            self.down_bias = _constant(0.0, (D,), "act_embed")

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        def dense(name: str, x: jax.Array, einsum: str, axes: tuple, out_axes: tuple) -> jax.Array:
            bias = getattr(self, f"{name}_bias")[...] if self.cfg.mlp_bias else None
            return layers.project(x, _gathered(getattr(self, name), *axes), einsum, out_axes, bias)

        wide = ((None, "mlp"), ("batch", None, "mlp"))
        gate_BTF = dense("gate", x_BTD, "BTD,DF->BTF", *wide)
        up_BTF = dense("up", x_BTD, "BTD,DF->BTF", *wide)
        hidden_BTF = layers.swiglu(gate_BTF, up_BTF)
        return dense("down", hidden_BTF, "BTF,FD->BTD", ("mlp", None), ("batch", None, None))


class Block(nnx.Module):
    """One layer: attention and MLP, each after a norm and around a residual."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.attn_norm = _constant(1.0, (cfg.embed_dim,), "act_embed")
        self.attn = Attention(cfg, rngs=rngs)
        self.mlp_norm = _constant(1.0, (cfg.embed_dim,), "act_embed")
        self.mlp = Mlp(cfg, rngs=rngs)

    def __call__(self, x_BTD: jax.Array, angles: tuple[jax.Array, jax.Array], attend: Attend):
        with jax.named_scope("attention"):
            normed_BTD = layers.rms_norm(x_BTD, self.attn_norm[...], self.cfg.norm_eps)
            out_BTD, kept = self.attn(normed_BTD, angles, attend)
            x_BTD = x_BTD + out_BTD
        with jax.named_scope("mlp"):
            normed_BTD = layers.rms_norm(x_BTD, self.mlp_norm[...], self.cfg.norm_eps)
            return x_BTD + self.mlp(normed_BTD), kept


@functools.cache
def _block_template(cfg: ModelConfig):
    """The structure of a block without its arrays: (GraphDef, State of abstract Params)."""
    if cfg.family == "qwen3_moe":
        raise ValueError(
            "model_type 'qwen3_moe': the mixture-of-experts block is not implemented yet. "
            "Its presets load and validate; running one needs the MoE block."
        )
    return nnx.split(jax.eval_shape(lambda: Block(cfg, rngs=nnx.Rngs(0))), graph=False)


def run_block(cfg: ModelConfig, weights: Params, x_BTD, angles, attend: Attend):
    """Applies one layer given its weights (no layer axis). Returns (x_BTD, what `attend` kept)."""
    block = nnx.merge(_block_template(cfg)[0], weights)
    return block(x_BTD, angles, attend)


def abstract_params(cfg: ModelConfig, dtype=jnp.float32) -> Params:
    """Shapes, dtypes and (under a mesh) shardings of `params`, with no memory behind them.

    Raises:
      ValueError: the mesh in force does not divide heads, widths or vocabulary.
    """
    check_divisible(
        {
            "num_heads": (cfg.num_heads, "heads"),
            "num_kv_heads": (cfg.num_kv_heads, "kv_heads"),
            "mlp_dim": (cfg.mlp_dim, "mlp"),
            "vocab_size": (cfg.vocab_size, "vocab"),
            "embed_dim": (cfg.embed_dim, "embed"),
        }
    )

    def leaf(shape: tuple[int, ...], *axes: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(*axes))

    state = _block_template(cfg)[1]
    params = {
        "embed": leaf((cfg.vocab_size, cfg.embed_dim), "vocab", "embed"),
        "blocks": jax.tree.map(
            lambda param: leaf((cfg.num_layers, *param.get_value().shape), "layers", *param.axes),
            nnx.to_pure_dict(state, lambda param: param),
            is_leaf=lambda node: isinstance(node, nnx.Param),
        ),
        "final_norm": leaf((cfg.embed_dim,), "act_embed"),
    }
    if not cfg.tied_head:
        params["head"] = leaf((cfg.embed_dim, cfg.vocab_size), "embed", "vocab")
    return params


def init_params(cfg: ModelConfig, key: jax.Array, dtype=jnp.float32) -> Params:
    """Random weights: normal with standard deviation 0.02, norms at one, biases at zero."""
    abstract = abstract_params(cfg, dtype)

    def init(key: jax.Array) -> Params:
        embed_key, blocks_key, head_key = jax.random.split(key, 3)

        def block(key: jax.Array) -> Params:
            return nnx.to_pure_dict(nnx.split(Block(cfg, rngs=nnx.Rngs(key)), graph=False)[1])

        params = {
            "embed": INIT_STD * jax.random.normal(embed_key, abstract["embed"].shape),
            "blocks": jax.vmap(block)(jax.random.split(blocks_key, cfg.num_layers)),
            "final_norm": jnp.ones(cfg.embed_dim),
        }
        if not cfg.tied_head:
            params["head"] = INIT_STD * jax.random.normal(head_key, abstract["head"].shape)
        return jax.tree.map(lambda x: x.astype(dtype), params)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(init, out_shardings=shardings)(key)


def embed(params: Params, tokens_BT: jax.Array, dtype=None) -> jax.Array:
    """Token embeddings [B, T, D] in `dtype`, or in that of the weights."""
    table_VD = params["embed"]
    target = spec(None, None)
    if target is not None:
        table_VD = jax.reshard(table_VD, target)
    x_BTD = table_VD.at[tokens_BT].get(out_sharding=spec("batch", None, None))
    return x_BTD.astype(dtype or table_VD.dtype)


def head(params: Params) -> jax.Array:
    """The output matrix [D, V]: the transposed embedding when the head is tied."""
    return params["head"] if "head" in params else params["embed"].T


def logits(params: Params, cfg: ModelConfig, x: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of final hidden states `x` [..., D]."""
    del cfg
    head_DV = head(params).astype(x.dtype)
    axes = ("batch",) + (None,) * (x.ndim - 2)
    target = spec(None, "vocab")
    if target is not None:
        head_DV = jax.reshard(head_DV, target)
    return jnp.einsum(
        "...D,DV->...V",
        x,
        head_DV,
        preferred_element_type=jnp.float32,
        out_sharding=spec(*axes, "vocab"),
    )


def hidden(
    params: Params,
    cfg: ModelConfig,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array | None = None,
    *,
    dtype=None,
    remat: str = "none",
) -> jax.Array:
    """Hidden states [B, T, D] after the final norm, causal within each segment.

    Args:
      params: weights; `blocks` stacked on a leading layer axis.
      tokens_BT: int32 token ids.
      positions_BT: int32 positions that the rotary embedding sees.
      segment_ids_BT: int32; tokens attend within their own segment, 0 is padding. None is one
        segment a row.
      dtype: of activations and matmuls; None follows the weights.
      remat: "none" keeps activations for the backward pass, "block" recomputes each layer.
    """
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones_like(tokens_BT)
    angles = layers.rope_angles(cfg.rope, cfg.head_dim, positions_BT)
    mask_BTS = layers.causal_mask(segment_ids_BT)

    def body(x_BTD, weights):
        return run_block(
            cfg, weights, x_BTD, angles, lambda q, k, v: (layers.attend(q, k, v, mask_BTS), None)
        )

    if remat == "block":
        body = jax.checkpoint(body, prevent_cse=False)
    x_BTD, _ = jax.lax.scan(body, embed(params, tokens_BT, dtype), params["blocks"])
    return layers.rms_norm(x_BTD, params["final_norm"], cfg.norm_eps)


def apply(
    params: Params,
    cfg: ModelConfig,
    tokens_BT: jax.Array,
    positions_BT: jax.Array | None = None,
    segment_ids_BT: jax.Array | None = None,
    *,
    dtype=None,
) -> jax.Array:
    """Float32 logits [B, T, V] of every position. Positions default to 0..T-1."""
    if positions_BT is None:
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    x_BTD = hidden(params, cfg, tokens_BT, positions_BT, segment_ids_BT, dtype=dtype)
    return logits(params, cfg, x_BTD)


def unstack(params: Params) -> Params:
    """The same weights with `blocks` as a tuple of one dict per layer. Copies each leaf once."""
    blocks = params["blocks"]
    num_layers = jax.tree.leaves(blocks)[0].shape[0]
    split = jax.tree.map(lambda leaf: tuple(leaf[layer] for layer in range(num_layers)), blocks)
    per_layer = tuple(
        jax.tree.map(lambda leaf, i=i: leaf[i], split, is_leaf=lambda node: isinstance(node, tuple))
        for i in range(num_layers)
    )
    return {**params, "blocks": per_layer}
