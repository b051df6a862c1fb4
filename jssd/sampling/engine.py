"""Slots: completions decoded side by side, each with its own law, address and limits.

`prefill` runs prompts through the model, `insert` copies them into free slots, `generate` decodes a
few steps for every slot in one device call, and a slot whose completion ended is free again
(`free_resource` gives one up early). Shapes are fixed, so whatever mix of prompts and settings
arrives, nothing compiles twice, and a completion's numbers do not depend on which slot it sits in
or on its neighbours.

A prompt's last token is not part of its prefix: it is the first token the slot decodes. So every
draw comes out of the same program, and all samples of a prompt share one prefill.

Weights arrive unstacked (`transformer.unstack`) and the cache is one pair of arrays per layer, cut
into pages. Keys are kept with time last and values with the head size last: the
layouts in which a CPU multiplies them fastest (measured: 1.4x at 32 slots).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jssd.model import layers, transformer
from jssd.model.config import ModelConfig
from jssd.sampling import truncate
from jssd.sampling.truncate import Law

# Per layer: keys [P, B, K, H, S], values [P, B, K, S, H], of P pages with S places each.
Cache = tuple[tuple[jax.Array, jax.Array], ...]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The law completions are drawn from.

    0, 1.0 and 0.0 switch top_k, top_p and min_p off; temperature 0 is greedy.

    Raises:
      ValueError: a setting outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        rules = (
            (self.temperature >= 0, "temperature", "must be 0 (greedy) or more"),
            (
                self.top_k >= 0 and self.top_k == int(self.top_k),
                "top_k",
                "must be 0 (off) or a whole number above",
            ),
            (0 < self.top_p <= 1, "top_p", "must be in (0, 1]"),
            (0 <= self.min_p <= 1, "min_p", "must be in [0, 1]"),
        )
        errors = [f"{name}={getattr(self, name)!r} {must}" for ok, name, must in rules if not ok]
        if errors:
            raise ValueError("Sampling: " + "; ".join(errors) + ".")


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion to draw. (seed, prompt, sample) is its address: it decides every draw."""

    prompt_ids: tuple[int, ...]
    seed: int
    prompt: int  # A 32-bit number that stands for the prompt, e.g. a hash of its id.
    sample: int
    sampling: Sampling
    stop_ids: tuple[int, ...]
    max_new_tokens: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """What is in the slots: leading axis B everywhere."""

    cache: Cache
    token_B: jax.Array  # int32: the token that is fed next.
    position_B: jax.Array  # int32: its position, which is also how many tokens the cache holds.
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
    draw: truncate.Draw  # [R, B], support [R, B, C]


class Engine:
    """Decodes with one set of weights.

    Args:
      params: unstacked weights (`transformer.unstack`).
      cfg: architecture.
      num_slots: completions decoded side by side.
      max_len: longest prompt plus completion, in tokens.
      page_size: places of a cache page. 64 is fastest on a CPU (measured against 32 and 128).
      decode_steps: most steps of one `generate` call.
      num_stop_ids: most stop ids a request may bring.
      dtype: of activations, matmuls and the cache; None follows the weights.
    """

    def __init__(
        self,
        params: transformer.Params,
        cfg: ModelConfig,
        *,
        num_slots: int,
        max_len: int,
        prompt_bucket: int = 64,
        page_size: int = 64,
        decode_steps: int = 16,
        num_stop_ids: int = 8,
        dtype=None,
    ):
        self.params = params
        self.cfg = cfg
        self.num_slots = num_slots
        self.max_len = -(-max_len // prompt_bucket) * prompt_bucket
        self.prompt_bucket = prompt_bucket
        self.page_size = page_size
        self.num_stop_ids = num_stop_ids
        self.dtype = dtype or params["embed"].dtype
        self._prefill = jax.jit(
            functools.partial(_prefill, cfg=cfg, dtype=self.dtype, page_size=page_size)
        )
        self._insert = jax.jit(_insert, donate_argnums=0)
        self._generate = jax.jit(
            functools.partial(_generate, cfg=cfg, dtype=self.dtype, max_steps=decode_steps),
            donate_argnums=1,
        )

    @property
    def max_concurrent_decodes(self) -> int:
        """How many completions are decoded side by side."""
        return self.num_slots

    def bucket(self, prompt_len: int) -> int:
        """The padded length a prompt is prefilled at."""
        return max(1, -(-prompt_len // self.prompt_bucket)) * self.prompt_bucket

    def init_decode_state(self) -> Slots:
        """Empty slots."""
        B, cfg = self.num_slots, self.cfg
        K, H, S = cfg.num_kv_heads, cfg.head_dim, self.page_size
        pages = -(-self.max_len // S)
        pair = lambda: (
            jnp.zeros((pages, B, K, H, S), self.dtype),
            jnp.zeros((pages, B, K, S, H), self.dtype),
        )
        numbers = lambda value=0: jnp.full(B, value, jnp.int32)
        ones = lambda value: jnp.full(B, value, jnp.float32)
        return Slots(
            cache=tuple(pair() for _ in range(cfg.num_layers)),
            token_B=numbers(),
            position_B=numbers(),
            count_B=numbers(),
            limit_B=numbers(),
            active_B=jnp.zeros(B, bool),
            key_B=truncate.row_keys(*(jnp.zeros(B, jnp.uint32),) * 3),
            law=Law(ones(1.0), numbers(), ones(1.0), ones(0.0)),
            stop_BX=jnp.full((B, self.num_stop_ids), -1, jnp.int32),
        )

    def prefill(self, prompts: Sequence[Sequence[int]], num_rows: int) -> Cache:
        """Keys and values of a few prompts of one bucket, padded to `num_rows` rows."""
        length = self.bucket(max(len(prompt) for prompt in prompts))
        tokens_BT = np.zeros((num_rows, length), np.int32)
        for row, prompt in enumerate(prompts):
            tokens_BT[row, : len(prompt)] = prompt
        return self._prefill(self.params, tokens_BT)

    def insert(
        self,
        prefix: Cache,
        rows: Sequence[int],
        requests: Sequence[Request],
        slots: Slots,
        into: Sequence[int],
    ):
        """Puts `requests` into the slots `into`; `rows` say where in `prefix` their prompts are."""
        B = self.num_slots
        source_B, target_B = np.zeros(B, np.int32), np.zeros(B, np.int32)
        source_B[: len(rows)], target_B[: len(rows)] = rows, into
        new_B = np.zeros(B, bool)
        new_B[list(into)] = True
        numbers = np.zeros((4, B), np.int32)
        address = np.zeros((3, B), np.uint32)
        law = np.zeros((3, B), np.float32)
        top_k_B = np.zeros(B, np.int32)
        stop_BX = np.full((B, self.num_stop_ids), -1, np.int32)
        for slot, request in zip(into, requests):
            last = len(request.prompt_ids) - 1
            numbers[:, slot] = request.prompt_ids[-1], last, request.max_new_tokens, 0
            address[:, slot] = request.seed, request.prompt, request.sample
            sampling = request.sampling
            law[:, slot] = sampling.temperature, sampling.top_p, sampling.min_p
            top_k_B[slot] = min(sampling.top_k, self.cfg.vocab_size)
            stop_BX[slot, : len(request.stop_ids)] = request.stop_ids
        return self._insert(
            slots, prefix, source_B, target_B, len(rows), new_B, numbers, address,
            Law(*map(jnp.asarray, (law[0], top_k_B, law[1], law[2]))), stop_BX,
        )  # fmt: skip

    def generate(self, slots: Slots, leave_below: int) -> tuple[Slots, Drawn]:
        """Decodes until `decode_steps` are done or fewer than `leave_below` slots are active."""
        return self._generate(self.params, slots, leave_below)

    def free_resource(self, slots: Slots, slot: int) -> Slots:
        """Gives up a slot before its completion ended."""
        return dataclasses.replace(slots, active_B=slots.active_B.at[slot].set(False))


def _prefill(params, tokens_BT, *, cfg: ModelConfig, dtype, page_size: int) -> Cache:
    # Prompts are padded on the right: real tokens never see padding, and what padding leaves in the
    # cache lies at positions that are overwritten before they are first looked at.
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    angles = layers.rope_angles(cfg.rope, cfg.head_dim, positions_BT)
    mask_BTS = layers.causal_mask(jnp.ones_like(tokens_BT))

    def in_pages(x_BTKH, order):
        B, T, K, H = x_BTKH.shape
        x_BTKH = jnp.pad(x_BTKH, ((0, 0), (0, -T % page_size), (0, 0), (0, 0)))
        return x_BTKH.reshape(B, -1, page_size, K, H).transpose(order)

    def attend(q, k, v):
        kept = in_pages(k, (1, 0, 3, 4, 2)), in_pages(v, (1, 0, 3, 2, 4))
        return layers.attend(q, k, v, mask_BTS), kept

    x_BTD = transformer.embed(params, tokens_BT, dtype)
    cache = []
    for weights in params["blocks"]:
        x_BTD, kept = transformer.run_block(cfg, weights, x_BTD, angles, attend)
        cache.append(kept)
    return tuple(cache)


def _insert(
    slots, prefix, source_B, target_B, count, new_B, numbers, address, law, stop_BX
) -> Slots:
    def copy(index, cache):
        def put(old, new):
            row = jax.lax.dynamic_slice_in_dim(new, source_B[index], 1, axis=1)
            return jax.lax.dynamic_update_slice(
                old, row.astype(old.dtype), (0, target_B[index], 0, 0, 0)
            )

        return jax.tree.map(put, cache, prefix)

    cache = jax.lax.fori_loop(0, count, copy, slots.cache)
    pick = lambda new, old: jnp.where(new_B.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)
    token_B, position_B, limit_B, count_B = numbers
    return Slots(
        cache=cache,
        token_B=pick(token_B, slots.token_B),
        position_B=pick(position_B, slots.position_B),
        count_B=pick(count_B, slots.count_B),
        limit_B=pick(limit_B, slots.limit_B),
        active_B=slots.active_B | new_B,
        key_B=pick(truncate.row_keys(*address), slots.key_B),
        law=jax.tree.map(pick, law, slots.law),
        stop_BX=pick(stop_BX, slots.stop_BX),
    )


def _decode_step(params, slots: Slots, *, cfg: ModelConfig, dtype) -> tuple[Slots, truncate.Draw]:
    B = slots.token_B.shape[0]
    rows_B = jnp.arange(B)
    position_B = slots.position_B
    angles = layers.rope_angles(cfg.rope, cfg.head_dim, position_B[:, None])
    page_size = slots.cache[0][0].shape[-1]
    page_B, place_B = position_B // page_size, position_B % page_size
    length_B = jnp.where(slots.active_B, position_B + 1, 0)

    def attend_to(keys_PBKHS, values_PBKSH):
        def attend(q_BTNH, k_BTKH, v_BTKH):
            keys = keys_PBKHS.at[page_B, rows_B, :, :, place_B].set(k_BTKH[:, 0])
            values = values_PBKSH.at[page_B, rows_B, :, place_B].set(v_BTKH[:, 0])
            out_BNH = layers.attend_cache(q_BTNH[:, 0], keys, values, length_B)
            return out_BNH[:, None], (keys, values)

        return attend

    x_BTD = transformer.embed(params, slots.token_B[:, None], dtype)
    cache = []
    for weights, (keys, values) in zip(params["blocks"], slots.cache):
        x_BTD, kept = transformer.run_block(cfg, weights, x_BTD, angles, attend_to(keys, values))
        cache.append(kept)
    x_BD = layers.rms_norm(x_BTD[:, 0], params["final_norm"], cfg.norm_eps)
    logits_BV = transformer.logits(params, cfg, x_BD)
    keys_B = truncate.position_keys(slots.key_B, slots.count_B)
    drawn = truncate.draw(logits_BV, slots.law, keys_B)

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


def _generate(params, slots: Slots, leave_below, *, cfg: ModelConfig, dtype, max_steps: int):
    step = functools.partial(_decode_step, params, cfg=cfg, dtype=dtype)
    shapes = jax.eval_shape(step, slots)[1]
    rooms = jax.tree.map(lambda leaf: jnp.zeros((max_steps, *leaf.shape), leaf.dtype), shapes)
    B = slots.token_B.shape[0]

    def unfinished(carry):
        index, slots, _, _ = carry
        return (index < max_steps) & (slots.active_B.sum() >= jnp.maximum(leave_below, 1))

    def turn(carry):
        index, slots, valid_RB, draws = carry
        valid_RB = valid_RB.at[index].set(slots.active_B)
        slots, drawn = step(slots)
        return (
            index + 1,
            slots,
            valid_RB,
            jax.tree.map(lambda room, x: room.at[index].set(x), draws, drawn),
        )

    start = (jnp.int32(0), slots, jnp.zeros((max_steps, B), bool), rooms)
    index, slots, valid_RB, draws = jax.lax.while_loop(unfinished, turn, start)
    return slots, Drawn(index, valid_RB, draws)
