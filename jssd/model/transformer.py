"""A decoder-only transformer over a plain dict of weights.

Weights at rest are `params`, a nested dict whose `blocks` are stacked on a leading layer axis;
weights at work are the NNX modules of `blocks.py`. For decoding, `unstack` turns the stacked blocks
into a tuple of one dict per layer: a CPU then reads each weight in place instead of copying a layer
out of the stack at every step.

Where the mesh does not divide the vocabulary, embedding and head are padded with zeros to a size
that it does (`abstract_params`). No token has the padding's ids, and its logits are minus
infinity; so it gets no gradient and stays at zero. Files hold the true vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jssd.model import attention, layers, moe
from jssd.model.blocks import INIT_STD, Attend, Block
from jssd.model.config import ModelConfig, split_sizes
from jssd.sharding import (
    check_divisible,
    gather,
    on_shards,
    over,
    own,
    padded,
    parts,
    platform,
    scatter,
    sharding,
    shards,
    spec,
    total,
)

Params = dict


@functools.cache
def _block_template(cfg: ModelConfig):
    """The structure of a block without its arrays: (GraphDef, State of abstract Params)."""
    return nnx.split(jax.eval_shape(lambda: Block(cfg, rngs=nnx.Rngs(0))), graph=False)


def run_block(
    cfg: ModelConfig,
    weights: Params,
    x_BTD: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    attend: Attend,
    real_BT: jax.Array | None = None,
    adapters: dict | None = None,
):
    """Applies one layer given its weights (no layer axis) and the adapters beside them (`lora.py`).

    Returns (x_BTD, what `attend` kept, the router's `moe.Load` or None). Padding, where `real_BT`
    is False, goes to no expert.
    """
    block = nnx.merge(_block_template(cfg)[0], weights)
    return block(x_BTD, angles, attend, real_BT, adapters)


def block_params(cfg: ModelConfig) -> dict:
    """The weights of one layer: nested dict of Params with shapes and logical `axes`, no arrays."""
    return nnx.to_pure_dict(_block_template(cfg)[1], lambda param: param)


def abstract_params(cfg: ModelConfig, dtype=jnp.float32) -> Params:
    """Shapes, dtypes and (under a mesh) shardings of `params`, with no memory behind them.

    Raises:
      ValueError: the mesh in force does not divide heads, widths or experts.
    """
    check_divisible(split_sizes(cfg))

    def leaf(shape: tuple[int, ...], *axes: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(*axes))

    V = padded(cfg.vocab_size, "vocab")
    params = {
        "embed": leaf((V, cfg.embed_dim), "vocab", "embed"),
        "blocks": jax.tree.map(
            lambda param: leaf((cfg.num_layers, *param.get_value().shape), "layers", *param.axes),
            block_params(cfg),
            is_leaf=lambda node: isinstance(node, nnx.Param),
        ),
        "final_norm": leaf((cfg.embed_dim,), "act_embed"),
    }
    if not cfg.tied_head:
        params["head"] = leaf((cfg.embed_dim, V), "embed", "vocab")
    return params


def abstract_unstacked(cfg: ModelConfig, dtype=jnp.float32) -> Params:
    """`abstract_params` as `unstack` leaves them."""
    params = abstract_params(cfg, dtype)

    def layer(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        where = leaf.sharding
        if isinstance(where, jax.NamedSharding):
            where = jax.NamedSharding(where.mesh, jax.P(*where.spec[1:]))
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=where)

    return {**params, "blocks": (jax.tree.map(layer, params["blocks"]),) * cfg.num_layers}


def init_params(cfg: ModelConfig, key: jax.Array, dtype=jnp.float32) -> Params:
    """Random weights: normal with standard deviation 0.02, norms at one, biases at zero."""
    abstract = abstract_params(cfg, dtype)
    V, D = cfg.vocab_size, cfg.embed_dim

    def init(key: jax.Array) -> Params:
        embed_key, blocks_key, head_key = jax.random.split(key, 3)

        def block(key: jax.Array) -> Params:
            return nnx.to_pure_dict(nnx.split(Block(cfg, rngs=nnx.Rngs(key)), graph=False)[1])

        params = {
            "embed": INIT_STD * jax.random.normal(embed_key, (V, D)),
            "blocks": jax.vmap(block)(jax.random.split(blocks_key, cfg.num_layers)),
            "final_norm": jnp.ones(D),
        }
        if not cfg.tied_head:
            params["head"] = INIT_STD * jax.random.normal(head_key, (D, V))
        pad = lambda x, like: jnp.pad(x, [(0, to - n) for to, n in zip(like.shape, x.shape)])
        return jax.tree.map(lambda x, like: pad(x, like).astype(dtype), params, abstract)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(init, out_shardings=shardings)(key)


def embed(params: Params, tokens_BT: jax.Array, dtype=None) -> jax.Array:
    """Token embeddings [B, T, D] in `dtype`, or in that of the weights."""
    dtype = jnp.dtype(dtype or params["embed"].dtype)
    return _look_up(dtype.name, params["embed"], tokens_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _look_up(dtype: str, table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
    table_VD = gather(table_VD.astype(dtype), 1, "embed")
    if not over("vocab"):
        return table_VD[tokens_BT]
    ids_BT, mine_BT = own(tokens_BT, table_VD.shape[0], "vocab")
    return total(jnp.where(mine_BT[..., None], table_VD[ids_BT], 0), "vocab")


def _look_up_backward(dtype: str, kept, dx_BTD: jax.Array):
    # Float32: a frequent token's gradient is a sum of thousands, which bfloat16 would not add up.
    del dtype
    table_VD, tokens_BT = kept
    V, D = table_VD.shape
    # Each device has a share of the gradient of what all of them hold alike.
    dx_BTD = total(dx_BTD.astype(jnp.float32), "vocab")
    ids_BT, mine_BT = own(tokens_BT, V, "vocab")
    dtable_VD = jnp.zeros((V, D * shards("embed")), jnp.float32)
    dtable_VD = dtable_VD.at[ids_BT].add(jnp.where(mine_BT[..., None], dx_BTD, 0))
    return scatter(dtable_VD, 1, "embed").astype(table_VD.dtype), None


def _look_up_forward(dtype: str, table_VD, tokens_BT):
    return _look_up(dtype, table_VD, tokens_BT), (table_VD, tokens_BT)


_look_up.defvjp(_look_up_forward, _look_up_backward)


def head(params: Params) -> jax.Array:
    """The output matrix [D, V]: the transposed embedding when the head is tied."""
    return params["head"] if "head" in params else params["embed"].T


def logits(params: Params, cfg: ModelConfig, x: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of final hidden states `x` [..., D]; of padding minus infinity."""
    head_DV = head(params).astype(x.dtype)
    target = spec(None, "vocab")
    if target is not None:
        head_DV = jax.reshard(head_DV, target)
    axes = ("batch", "seq", None)[: x.ndim - 1]
    logits = jnp.einsum(
        "...D,DV->...V", x, head_DV,
        preferred_element_type=jnp.float32, out_sharding=spec(*axes, "vocab"),
    )  # fmt: skip
    if logits.shape[-1] == cfg.vocab_size:
        return logits
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.where(ids < cfg.vocab_size, logits, -jnp.inf)


def forward(
    params: Params,
    cfg: ModelConfig,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array | None = None,
    *,
    dtype=None,
    remat: str = "none",
    unroll: int = 1,
    attend: str = "auto",
    packed: bool = True,
    adapters: dict | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Hidden states after the final norm, causal within each segment, and the router's loss.

    Under a mesh whose axis context splits rows, they come and go in `sharding.balanced_order`.

    Args:
      params: weights; `blocks` stacked on a leading layer axis.
      tokens_BT: int32 token ids.
      positions_BT: int32 positions that the rotary embedding sees.
      segment_ids_BT: int32; tokens attend within their own segment, 0 is padding. None is one
        segment a row.
      dtype: of activations and matmuls; None follows the weights.
      remat: what the backward pass recomputes, one of `config.REMAT`.
      unroll: layers in one turn of the loop over layers.
      attend: one of `config.TRAIN_ATTENTION`.
      packed: a row may hold several segments besides padding.
      adapters: what is added to the weights of `blocks`, as `lora.scaled` gives it.

    Returns:
      [B, T, D] in `dtype`; and for a mixture of experts the float32 scalar `moe.balance_loss` over
      all tokens and layers, else None.

    Raises:
      ValueError: this attention cannot be had on these devices.
    """
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones_like(tokens_BT)
    dtype = jnp.dtype(dtype or params["embed"].dtype)
    kind = attention.choose(
        attend, platform(),
        length=tokens_BT.shape[1], head_dim=cfg.head_dim, dtype=dtype, packed=packed,
        context=parts(jax.sharding.get_abstract_mesh(), "seq"),
    )  # fmt: skip
    rows = (tokens_BT, positions_BT, segment_ids_BT)
    if spec() is not None:
        rows = tuple(jax.reshard(array, spec("batch", "seq")) for array in rows)
    run = functools.partial(_forward, cfg=cfg, dtype=dtype, remat=remat, unroll=unroll, kind=kind)
    split = ("batch", "seq")
    out = (("batch", "seq", None), () if cfg.is_moe else None)
    weights = (params, adapters or {})
    return on_shards(run, (None, split, split, split), out)(weights, *rows)


def _forward(weights, tokens_BT, positions_BT, segment_ids_BT, *, cfg, dtype, remat, unroll, kind):
    """`forward` on one device's shards."""
    params, adapters = weights
    angles = layers.rope_angles(cfg.rope, cfg.head_dim, positions_BT)
    attend = attention.rows(kind, segment_ids_BT)
    real_BT = segment_ids_BT > 0

    def body(x_BTD, layer):
        x_BTD = checkpoint_name(x_BTD, "layer_input")
        x_BTD, _, load = run_block(cfg, layer[0], x_BTD, angles, attend, real_BT, layer[1])
        return x_BTD, load

    # Where nothing is made of the stored weights, nothing has to be left out. Without a checkpoint
    # their slices are not copied either, nor is what is kept rounded once more on its way.
    if remat != "none" or spec() is not None or dtype != params["embed"].dtype:
        body = jax.checkpoint(body, prevent_cse=False, policy=_remat_policy(remat))
    x_BTD = embed(params, tokens_BT, dtype)
    x_BTD, loads = jax.lax.scan(body, x_BTD, (params["blocks"], adapters), unroll=unroll)
    x_BTD = layers.rms_norm(x_BTD, params["final_norm"], cfg.norm_eps)
    if not cfg.is_moe:
        return x_BTD, None
    tokens = cfg.num_layers * real_BT.sum(dtype=jnp.float32)
    load, tokens = total((jax.tree.map(lambda x: x.sum(0), loads), tokens), "batch", "seq")
    return x_BTD, moe.balance_loss(load, jnp.maximum(tokens, 1.0), cfg.num_experts)


def _remat_policy(remat: str):
    """What the forward pass keeps for the backward pass."""
    policies = jax.checkpoint_policies
    return {
        # Gathered weights are never kept: those of all layers together are the whole model.
        "none": policies.save_anything_except_these_names("weight"),
        "dots": policies.save_only_these_names("product"),
        "block": policies.nothing_saveable,
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[], names_which_can_be_offloaded=["layer_input"],
            offload_src="device", offload_dst="pinned_host",
        ),
    }[remat]  # fmt: skip


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
    """The hidden states [B, T, D] of `forward`."""
    return forward(params, cfg, tokens_BT, positions_BT, segment_ids_BT, dtype=dtype, remat=remat)[
        0
    ]


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
