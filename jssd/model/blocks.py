"""The NNX modules of a layer: which weights there are, on which logical axes, and what they do.

A module works on what one device sees. On a mesh (`sharding.on_shards`) that is its share of heads,
of the MLP's width, of experts and of tokens; its weights lie split by width over further devices
and are gathered, in the dtype of the activations, when they are used.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jssd.model import layers, moe
from jssd.model.config import ModelConfig
from jssd.sharding import gather, total

# Attention of one layer as the caller wants it: (q_BTNH, k_BTKH, v_BTKH) -> (out_BTNH, what to
# keep, e.g. the cache).
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, object]]

INIT_STD = 0.02


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], *axes: str) -> nnx.Param:
    return nnx.Param(INIT_STD * jax.random.normal(rngs.params(), shape), axes=axes)


def _constant(value: float, shape: tuple[int, ...], *axes: str) -> nnx.Param:
    return nnx.Param(jnp.full(shape, value), axes=axes)


def _gathered(weight: nnx.Param, dtype) -> jax.Array:
    """The weight in `dtype`, whole along its embed axis.

    Remat policies know it as "weight" unless it is the stored array itself.
    """
    return _whole(weight[...], weight.axes, dtype)


def _whole(stored: jax.Array, axes: tuple[str, ...], dtype) -> jax.Array:
    value = stored.astype(dtype)
    for axis in ("embed", "expert_embed"):
        if axis in axes:
            value = gather(value, axes.index(axis), axis)
    return value if value is stored else checkpoint_name(value, "weight")


def adapter_axes(axes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Logical axes of the adapter of a weight with `axes`: A ("a") has those of the inputs and the
    rank, B ("b") the rank and those of the outputs. A weight's embed axis is all of one of them."""
    inputs = 1 if axes[0] == "embed" else len(axes) - 1
    return {"a": (*axes[:inputs], "rank"), "b": ("rank", *axes[inputs:])}


def _adapter(adapters: dict, name: str, weight: nnx.Param, dtype) -> layers.Adapter | None:
    """A and B of one weight in `dtype`, whole along embed; None if it has no adapter."""
    if name not in adapters:
        return None
    axes = adapter_axes(weight.axes)
    pair = adapters[name]
    return _whole(pair["a"], axes["a"], dtype), _whole(pair["b"], axes["b"], dtype)


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

    def __call__(
        self,
        x_BTD: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        attend: Attend,
        adapters: dict,
    ):
        cfg = self.cfg

        def into_heads(name: str, letter: str) -> jax.Array:
            weight = _gathered(getattr(self, name), x_BTD.dtype)
            bias = getattr(self, f"{name}_bias")[...] if cfg.qkv_bias else None
            adapter = _adapter(adapters, name, getattr(self, name), x_BTD.dtype)
            return layers.project(x_BTD, weight, f"BTD,D{letter}H->BT{letter}H", bias, adapter)

        q_BTNH, k_BTKH, v_BTKH = into_heads("q", "N"), into_heads("k", "K"), into_heads("v", "K")
        if cfg.qk_norm:
            q_BTNH = layers.rms_norm(q_BTNH, self.q_norm[...], cfg.norm_eps)
            k_BTKH = layers.rms_norm(k_BTKH, self.k_norm[...], cfg.norm_eps)
        q_BTNH = layers.apply_rope(q_BTNH, angles)
        k_BTKH = layers.apply_rope(k_BTKH, angles)
        out_BTNH, kept = attend(q_BTNH, k_BTKH, v_BTKH)
        o_NHD = _gathered(self.o, x_BTD.dtype)
        adapter = _adapter(adapters, "o", self.o, x_BTD.dtype)
        out_BTD = layers.project(out_BTNH, o_NHD, "BTNH,NHD->BTD", None, adapter)
        out_BTD = total(out_BTD, "heads")
        return out_BTD + self.o_bias[...].astype(x_BTD.dtype) if cfg.o_bias else out_BTD, kept


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

    def __call__(self, x_BTD: jax.Array, adapters: dict) -> jax.Array:
        def dense(name: str, x: jax.Array, einsum: str) -> jax.Array:
            bias = getattr(self, f"{name}_bias")[...] if self.cfg.mlp_bias else None
            # Of the part of a sum that each device has, only the whole gets the bias.
            own = None if name == "down" else bias
            weight = getattr(self, name)
            adapter = _adapter(adapters, name, weight, x.dtype)
            return layers.project(x, _gathered(weight, x.dtype), einsum, own, adapter)

        gate_BTF = dense("gate", x_BTD, "BTD,DF->BTF")
        up_BTF = dense("up", x_BTD, "BTD,DF->BTF")
        out_BTD = total(dense("down", layers.swiglu(gate_BTF, up_BTF), "BTF,FD->BTD"), "mlp")
        return out_BTD + self.down_bias[...].astype(x_BTD.dtype) if self.cfg.mlp_bias else out_BTD


class Moe(nnx.Module):
    """Weights of a mixture of experts: `moe.moe`."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        D, F, E = cfg.embed_dim, cfg.mlp_dim, cfg.num_experts
        self.cfg = cfg
        self.router = _weight(rngs, (D, E), "embed", "act_experts")
        self.gate = _weight(rngs, (E, D, F), "experts", "expert_embed", "mlp")
        self.up = _weight(rngs, (E, D, F), "experts", "expert_embed", "mlp")
        self.down = _weight(rngs, (E, F, D), "experts", "mlp", "expert_embed")

    def __call__(self, x_BTD: jax.Array, real_BT: jax.Array | None):
        router_DE = _gathered(self.router, jnp.float32)
        gate_EDF, up_EDF, down_EFD = (
            _gathered(weight, x_BTD.dtype) for weight in (self.gate, self.up, self.down)
        )
        y_BTD, load = self._run(x_BTD, router_DE, gate_EDF, up_EDF, down_EFD, real_BT)
        return checkpoint_name(y_BTD, "product"), load

    def _run(self, *args):
        run = functools.partial(moe.moe, cfg=self.cfg)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.shape.get("tensor", 1) == 1 or "tensor" in mesh.manual_axes:
            return run(*args)
        # On a decode mesh, where the compiler fills in tensor, it would not split grouped products.
        wide, narrow = jax.P(None, None, "tensor"), jax.P(None, "tensor")
        return jax.shard_map(
            run, in_specs=(jax.P(), jax.P(), wide, wide, narrow, jax.P()), out_specs=jax.P(),
            axis_names={"tensor"}, check_vma=False,
        )(*args)  # fmt: skip


class Block(nnx.Module):
    """One layer: attention and MLP or experts, each after a norm and around a residual."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.attn_norm = _constant(1.0, (cfg.embed_dim,), "act_embed")
        self.attn = Attention(cfg, rngs=rngs)
        self.mlp_norm = _constant(1.0, (cfg.embed_dim,), "act_embed")
        if cfg.is_moe:
            self.moe = Moe(cfg, rngs=rngs)
        else:
            self.mlp = Mlp(cfg, rngs=rngs)

    def __call__(
        self,
        x_BTD: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        attend: Attend,
        real_BT: jax.Array | None = None,
        adapters: dict | None = None,
    ) -> tuple[jax.Array, object, moe.Load | None]:
        adapters = adapters or {}
        with jax.named_scope("attention"):
            normed_BTD = layers.rms_norm(x_BTD, self.attn_norm[...], self.cfg.norm_eps)
            out_BTD, kept = self.attn(normed_BTD, angles, attend, adapters.get("attn", {}))
            x_BTD = x_BTD + out_BTD
        normed_BTD = layers.rms_norm(x_BTD, self.mlp_norm[...], self.cfg.norm_eps)
        if self.cfg.is_moe:
            with jax.named_scope("moe"):
                out_BTD, load = self.moe(normed_BTD, real_BT)
            return x_BTD + out_BTD, kept, load
        with jax.named_scope("mlp"):
            out_BTD = self.mlp(normed_BTD, adapters.get("mlp", {}))
            return x_BTD + out_BTD, kept, None
