"""What the engine compiles: a prompt's prefill, its insertion into slots, and decode steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jssd.model import layers, transformer
from jssd.model.config import ModelConfig
from jssd.sampling import draw, noise
from jssd.sampling.cache import Layout, Pools
from jssd.sampling.draw import Draw
from jssd.sampling.pages import NOBODYS
from jssd.sampling.truncate import Law

Cache = tuple[Pools, ...]  # Per layer.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """What is in the slots: leading axis B everywhere but in the pages."""

    cache: Cache
    token_B: jax.Array  # int32: the token that is fed next.
    position_B: jax.Array  # int32: its position, which is also how many tokens its pages hold.
    count_B: jax.Array  # int32: tokens drawn so far.
    limit_B: jax.Array  # int32: tokens to draw at most.
    active_B: jax.Array  # bool
    key_B: jax.Array  # random keys
    law: Law
    stop_BX: jax.Array  # int32, padded with -1.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """What `generate` drew, by step, then slot; steps from `num_steps` on are zeros."""

    num_steps: jax.Array  # int32
    valid_RB: jax.Array  # bool: the slot was active at that step.
    draw: Draw  # [R, B], support [R, B, C]


def prefill(params, tokens_BT, *, cfg: ModelConfig, dtype, layout: Layout, chunk: int) -> Cache:
    # Prompts are padded on the right: real tokens never see padding, and what padding leaves in the
    # pages lies at positions that are overwritten before they are first looked at.
    B, T = tokens_BT.shape
    K, H, S = cfg.num_kv_heads, cfg.head_dim, layout.page_size
    chunk = min(chunk, T)
    M, pages_of_chunk = -(-T // S), -(-chunk // S)
    table_BM = jnp.arange(B * M, dtype=jnp.int32).reshape(B, M)

    def in_pages(x_BTKH, order):
        x_BTKH = jnp.pad(x_BTKH, ((0, 0), (0, -chunk % S), (0, 0), (0, 0)))
        return x_BTKH.reshape(B, pages_of_chunk, S, K, H).transpose(order)

    def through(index, cache):
        tokens_BC = jax.lax.dynamic_slice_in_dim(tokens_BT, index * chunk, chunk, axis=1)
        positions_BC = jnp.broadcast_to(index * chunk + jnp.arange(chunk), (B, chunk))
        angles = layers.rope_angles(cfg.rope, cfg.head_dim, positions_BC)

        def attend_to(keys_BMKHS, values_BMKSH):
            def attend(q, k, v):
                start = (0, index * pages_of_chunk, 0, 0, 0)
                put = jax.lax.dynamic_update_slice
                keys = put(keys_BMKHS, in_pages(k, (0, 1, 3, 4, 2)).astype(dtype), start)
                values = put(values_BMKSH, in_pages(v, (0, 1, 3, 2, 4)).astype(dtype), start)
                pools = keys.reshape(B * M, K, H, S), values.reshape(B * M, K, S, H)
                return layers.attend_pages(q, *pools, table_BM, positions_BC), (keys, values)

            return attend

        x_BCD = transformer.embed(params, tokens_BC, dtype)
        kept = []
        for weights, pair in zip(params["blocks"], cache):
            x_BCD, pair, _ = transformer.run_block(cfg, weights, x_BCD, angles, attend_to(*pair))
            kept.append(pair)
        return tuple(kept)

    empty = (jnp.zeros((B, M, K, H, S), dtype), jnp.zeros((B, M, K, S, H), dtype))
    cache = (empty,) * cfg.num_layers
    cache = jax.lax.fori_loop(0, T // chunk, through, cache)
    whole = lambda x: x.reshape(B * M, *x.shape[2:])
    return tuple(layout.pack(whole(keys), whole(values)) for keys, values in cache)


def insert(
    slots, prefix, source_B, pages_BM, count_1, new_B, numbers, address, law, stop_BX
) -> Slots:
    M = pages_BM.shape[1]

    def copy(index, cache):
        def put(old, new):
            pages = jax.lax.dynamic_slice_in_dim(new, source_B[index] * M, M)
            return old.at[pages_BM[index]].set(pages.astype(old.dtype))

        return jax.tree.map(put, cache, prefix)

    cache = jax.lax.fori_loop(0, count_1[0], copy, slots.cache)
    pick = lambda new, old: jnp.where(new_B.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)
    token_B, position_B, limit_B, count_B = numbers
    return Slots(
        cache=cache,
        token_B=pick(token_B, slots.token_B),
        position_B=pick(position_B, slots.position_B),
        count_B=pick(count_B, slots.count_B),
        limit_B=pick(limit_B, slots.limit_B),
        active_B=slots.active_B | new_B,
        key_B=pick(noise.row_keys(*address), slots.key_B),
        law=jax.tree.map(pick, law, slots.law),
        stop_BX=pick(stop_BX, slots.stop_BX),
    )


def generate(
    params,
    slots: Slots,
    table_BM,
    leave_below,
    *,
    cfg: ModelConfig,
    dtype,
    layout: Layout,
    max_steps: int,
    vocab_shards: int,
    groups: tuple[str, ...] | None,
    rows: int,
):
    step = functools.partial(
        _decode_step, params, cfg=cfg, dtype=dtype, layout=layout, vocab_shards=vocab_shards
    )
    step = functools.partial(_in_turns, step, rows) if rows else step
    step = functools.partial(step, table_BM=table_BM)
    shapes = jax.eval_shape(step, slots)[1]
    rooms = jax.tree.map(lambda leaf: jnp.zeros((max_steps, *leaf.shape), leaf.dtype), shapes)
    B = slots.token_B.shape[0]

    def num_active(slots: Slots):
        count = slots.active_B.sum()
        return count if groups is None else jax.lax.psum(count, groups)

    def unfinished(carry):
        index, active = carry[:2]
        return (index < max_steps) & (active >= jnp.maximum(leave_below, 1))

    def turn(carry):
        index, _, slots, valid_RB, draws = carry
        valid_RB = valid_RB.at[index].set(slots.active_B)
        slots, drawn = step(slots)
        return (
            index + 1,
            num_active(slots),
            slots,
            valid_RB,
            jax.tree.map(lambda room, x: room.at[index].set(x), draws, drawn),
        )

    valid_RB = jnp.zeros((max_steps, B), bool)
    start = (jnp.int32(0), num_active(slots), slots, valid_RB, rooms)
    index, _, slots, valid_RB, draws = jax.lax.while_loop(unfinished, turn, start)
    return slots, Drawn(index, valid_RB, draws)


def _in_turns(step, rows: int, slots: Slots, table_BM) -> tuple[Slots, Draw]:
    """`step` for a fixed number of slots after another."""
    cache = slots.cache
    split = lambda x: x.reshape(-1, rows, *x.shape[1:])
    whole = lambda x: x.reshape(-1, *x.shape[2:])
    rest = dataclasses.replace(slots, cache=())

    def turn(cache, part):
        some, table_RM = part
        some, drawn = step(dataclasses.replace(some, cache=cache), table_BM=table_RM)
        return some.cache, (dataclasses.replace(some, cache=()), drawn)

    cache, (rest, drawn) = jax.lax.scan(turn, cache, jax.tree.map(split, (rest, table_BM)))
    rest, drawn = jax.tree.map(whole, (rest, drawn))
    return dataclasses.replace(rest, cache=cache), drawn


def _decode_step(
    params, slots: Slots, table_BM, *, cfg: ModelConfig, dtype, layout: Layout, vocab_shards: int
) -> tuple[Slots, Draw]:
    B, S = slots.token_B.shape[0], layout.page_size
    position_B = slots.position_B
    angles = layers.rope_angles(cfg.rope, cfg.head_dim, position_B[:, None])
    # Idle slots write to nobody's page: theirs may be another slot's by now.
    page_B = jnp.where(slots.active_B, table_BM[jnp.arange(B), position_B // S], NOBODYS)
    place_B = position_B % S
    seen_B = jnp.where(slots.active_B, position_B, -1)

    def attend_to(pools):
        def attend(q_BTNH, k_BTKH, v_BTKH):
            grown = layout.append(pools, page_B, place_B, k_BTKH[:, 0], v_BTKH[:, 0])
            out_BNH = layout.attend(grown, q_BTNH[:, 0], table_BM, seen_B)
            return out_BNH[:, None], grown

        return attend

    x_BTD = transformer.embed(params, slots.token_B[:, None], dtype)
    cache = []
    for weights, pools in zip(params["blocks"], slots.cache):
        x_BTD, kept, _ = transformer.run_block(cfg, weights, x_BTD, angles, attend_to(pools))
        cache.append(kept)
    x_BD = layers.rms_norm(x_BTD[:, 0], params["final_norm"], cfg.norm_eps)
    logits_BV = transformer.logits(params, cfg, x_BD)
    keys_B = noise.position_keys(slots.key_B, slots.count_B)
    drawn = draw.draw(
        logits_BV, slots.law, keys_B, vocab_shards=vocab_shards, vocab_size=cfg.vocab_size
    )

    moved_B = slots.active_B.astype(jnp.int32)
    count_B = slots.count_B + moved_B
    stopped_B = (drawn.token_B[:, None] == slots.stop_BX).any(axis=1)
    slots = dataclasses.replace(
        slots,
        cache=tuple(cache),
        token_B=jnp.where(slots.active_B, drawn.token_B, slots.token_B),
        position_B=position_B + moved_B,
        count_B=count_B,
        active_B=slots.active_B & ~stopped_B & (count_B < slots.limit_B),
    )
    return slots, drawn
