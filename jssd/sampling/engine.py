"""Slots: completions decoded side by side, each with its own law, address and limits.

`prefill` runs prompts through the model, `insert` copies them into free slots, `generate` decodes a
few steps for every slot in one device call, and a slot whose completion ended is free again
(`free_resource` gives one up early). Shapes are fixed, so whatever mix of prompts and settings
arrives, nothing compiles twice, and a completion's numbers do not depend on which slot it sits in
or on its neighbours.

A prompt's last token is not part of its prefix: it is the first token the slot decodes. So every
draw comes out of the same program, and all samples of a prompt share one prefill.

Weights arrive unstacked (`transformer.unstack`). The cache is a pool of pages per layer
(`sampling/pages.py`), lent to slots by the caller.

On a mesh (`hosts.decode_mesh`) slots and pages are split over data and expert, each share of the
slots with a pool of its own; experts are split over expert, heads, widths and vocabulary over
tensor.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jssd.model import transformer
from jssd.model.config import ModelConfig
from jssd.sampling import cache, noise, programs
from jssd.sampling.pages import NOBODYS, Pages
from jssd.sampling.programs import Cache, Drawn, Slots
from jssd.sampling.request import Request
from jssd.sampling.truncate import Law
from jssd.sharding import GROUPS

# Prompts prefilled together; their keys and values wait on the device until all their samples have
# a slot.
PREFILL_ROWS = 8
STRICT_ROWS = 8


class Engine:
    """Decodes with one set of weights.

    Args:
      params: unstacked weights (`transformer.unstack`), on one device or on a
        `hosts.decode_mesh`.
      cfg: architecture.
      num_slots: completions decoded side by side.
      max_len: longest prompt plus completion, in tokens.
      cache_tokens: tokens the cache has room for, over all slots; 0 is room for every slot at
        `max_len`. On a mesh each share of the slots gets an equal part.
      prompt_bucket: prompts are padded to a multiple of this, up to `prefill_chunk`; beyond, to
        `prefill_chunk` times a power of two.
      prefill_chunk: tokens of a prompt that go through the model at once.
      page_size: places of a cache page; 0 leaves it to `cache.layout`.
      decode_steps: most steps of one `generate` call.
      num_stop_ids: most stop ids a request may bring.
      attention: how a decode step attends, one of `config.ATTENTION`; "auto" follows the devices.
      cache_dtype: of keys and values, one of `config.CACHE_DTYPES`; "" follows `dtype`.
      strict: runs slots through the model `STRICT_ROWS` at a time, whatever their number. The size
        of a matrix product may change its last bits and, rarely, a draw; so fixed, the same tokens
        and log-probabilities come out bit by bit for any number of slots. Slower.
      dtype: of activations and matmuls; None follows the weights.
    """

    def __init__(
        self,
        params: transformer.Params,
        cfg: ModelConfig,
        *,
        num_slots: int,
        max_len: int,
        cache_tokens: int = 0,
        prompt_bucket: int = 64,
        prefill_chunk: int = 512,
        page_size: int = 0,
        decode_steps: int = 16,
        num_stop_ids: int = 8,
        attention: str = "auto",
        cache_dtype: str = "",
        strict: bool = False,
        dtype=None,
    ):
        where = params["embed"].sharding
        on_mesh = isinstance(where, NamedSharding) and where.mesh.size > 1
        self.mesh = where.mesh if on_mesh else None
        self.num_groups = math.prod(self.mesh.shape[axis] for axis in GROUPS) if self.mesh else 1
        vocab_shards = self.mesh.shape["tensor"] if self.mesh else 1
        if num_slots % self.num_groups:
            raise ValueError(
                f"slots={num_slots} must be a multiple of the {self.num_groups} parts into which "
                "the mesh splits them (all its axes but tensor)."
            )
        if strict and num_slots // self.num_groups % STRICT_ROWS:
            raise ValueError(
                f"slots={num_slots} must be a multiple of {STRICT_ROWS * self.num_groups} in "
                f"strict mode, which decodes {STRICT_ROWS} at a time."
            )
        if cache_tokens and cache_tokens < max_len * self.num_groups:
            raise ValueError(
                f"cache_tokens={cache_tokens} must be 0 or at least {max_len * self.num_groups}, "
                f"the longest prompt plus completion in each of {self.num_groups} parts."
            )
        self.dtype = dtype or params["embed"].dtype
        self.platform = next(iter(where.device_set)).platform
        self.layout = cache.layout(
            cfg, attention, cache_dtype, page_size,
            rows=num_slots // self.num_groups, max_len=max_len, dtype=self.dtype,
            platform=self.platform, on_mesh=on_mesh,
        )  # fmt: skip
        page_size = self.layout.page_size
        if prefill_chunk % page_size or prefill_chunk % prompt_bucket:
            raise ValueError(
                f"prefill_chunk={prefill_chunk} must be a multiple of page_size={page_size} and of "
                f"prompt_bucket={prompt_bucket}."
            )
        self.params = params
        self.cfg = cfg
        self.num_slots = num_slots
        self.max_len = max_len
        self.prompt_bucket = prompt_bucket
        self.prefill_chunk = prefill_chunk
        self.page_size = page_size
        self.decode_steps = decode_steps
        self.pages_per_slot = -(-max_len // page_size)
        lent = -(-cache_tokens // page_size) or num_slots * self.pages_per_slot
        self.num_pages = 1 + -(-lent // self.num_groups)  # Of each group; one more is nobody's.
        self.num_stop_ids = num_stop_ids
        prefill = functools.partial(
            programs.prefill, cfg=cfg, dtype=self.dtype, layout=self.layout, chunk=prefill_chunk
        )
        weights = self._weight_specs()
        self._prefill = self._program(
            prefill,
            in_specs=(weights, P(GROUPS)),
            out_specs=P(GROUPS),
            # Rows are computed where they are split to, and every share of the slots gets them all.
            out_shardings=(tuple(self._on_mesh(None, *spec[1:]) for spec in self.layout.specs()),)
            * cfg.num_layers,
        )
        per_slot, lists = P(GROUPS), P(None, GROUPS)
        self._insert = self._program(
            programs.insert,
            donate=0,
            in_specs=(per_slot, P(), *(per_slot,) * 4, lists, lists, per_slot, per_slot),
            out_specs=per_slot,
        )
        self._generate = self._program(
            functools.partial(
                programs.generate,
                cfg=cfg,
                dtype=self.dtype,
                layout=self.layout,
                max_steps=decode_steps,
                vocab_shards=vocab_shards,
                groups=GROUPS if self.mesh else None,
                rows=STRICT_ROWS if strict else 0,
            ),
            donate=1,
            in_specs=(weights, per_slot, per_slot, P()),
            out_specs=(per_slot, Drawn(P(), lists, lists)),  # pyright: ignore[reportArgumentType]
        )

    def _on_mesh(self, *axes: str | tuple[str, ...] | None) -> NamedSharding | None:
        return self.mesh and NamedSharding(self.mesh, P(*axes))

    def _weight_specs(self):
        """Where weights are split by hand: by experts."""
        only = lambda axis: axis if axis in GROUPS else None
        return self.mesh and jax.tree.map(
            lambda leaf: P(*(only(axis) for axis in leaf.sharding.spec)), self.params
        )

    def _program(self, function, *, in_specs, out_specs, donate=(), out_shardings=None):
        """Compiles `function`, which sees one share of the slots; tensor is the compiler's."""
        if self.mesh is None:
            return jax.jit(function, donate_argnums=donate)
        function = jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs,
            axis_names=set(GROUPS), check_vma=False,
        )  # fmt: skip
        return jax.jit(function, donate_argnums=donate, out_shardings=out_shardings)

    @property
    def prefill_rows(self) -> int:
        """How many prompts `prefill` takes at most."""
        return -(-PREFILL_ROWS // self.num_groups) * self.num_groups

    @property
    def max_concurrent_decodes(self) -> int:
        """How many completions are decoded side by side."""
        return self.num_slots

    def bucket(self, prompt_len: int) -> int:
        """The padded length a prompt is prefilled at."""
        step = self.prompt_bucket if prompt_len <= self.prefill_chunk else self.prefill_chunk
        steps = max(1, -(-prompt_len // step))
        if step == self.prefill_chunk:
            steps = 1 << (steps - 1).bit_length()
        return steps * step

    def pages(self) -> Pages:
        """A fresh book of the cache's pages, all free."""
        return Pages(
            self.num_pages, self.page_size, self.num_slots, self.pages_per_slot, self.num_groups
        )

    def init_decode_state(self) -> Slots:
        """Empty slots."""
        B = self.num_slots
        pages = self.num_pages * self.num_groups
        pools = list(zip(self.layout.shapes(), self.layout.specs()))

        def empty() -> cache.Pools:
            return tuple(
                jnp.zeros((pages, *shape), dtype, device=self._on_mesh(*spec))
                for (shape, dtype), spec in pools
            )

        numbers = lambda value=0: jnp.full(B, value, jnp.int32)
        ones = lambda value: jnp.full(B, value, jnp.float32)
        return Slots(
            cache=tuple(empty() for _ in range(self.cfg.num_layers)),
            token_B=numbers(),
            position_B=numbers(),
            count_B=numbers(),
            limit_B=numbers(),
            active_B=jnp.zeros(B, bool),
            key_B=noise.row_keys(*(jnp.zeros(B, jnp.uint32),) * 3),
            law=Law(ones(1.0), numbers(), ones(1.0), ones(0.0)),
            stop_BX=jnp.full((B, self.num_stop_ids), -1, jnp.int32),
        )

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Cache:
        """Keys and values of up to `prefill_rows` prompts of one bucket, always of so many rows.

        Each row fills as many pages as the bucket needs; they lie row by row.
        """
        length = self.bucket(max(len(prompt) for prompt in prompts))
        tokens_BT = np.zeros((self.prefill_rows, length), np.int32)
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
        table_BM: np.ndarray,
    ) -> Slots:
        """Puts `requests` into the slots `into`.

        Args:
          prefix: what `prefill` returned.
          rows: where in it the prompts of the requests are.
          table_BM: the pages of each slot; those in `into` must have room for their prompts.
        """
        B = self.num_slots
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
        num_pages = prefix[0][0].shape[0] // self.prefill_rows
        # A bucket may be longer than any slot: what lies beyond a slot's pages is padding.
        width = min(num_pages, self.pages_per_slot)
        # Each group's copies come first in its share of these.
        source_B, count_G = np.zeros(B, np.int32), np.zeros(self.num_groups, np.int32)
        pages_BM = np.full((B, num_pages), NOBODYS, np.int32)
        group_size = B // self.num_groups
        for row, slot in zip(rows, into):
            group = slot // group_size
            place = group * group_size + count_G[group]
            source_B[place], pages_BM[place, :width] = row, table_BM[slot, :width]
            count_G[group] += 1
        return self._insert(
            slots, prefix, source_B, pages_BM, count_G, new_B, numbers, address,
            Law(*map(jnp.asarray, (law[0], top_k_B, law[1], law[2]))), stop_BX,
        )  # fmt: skip

    def generate(self, slots: Slots, table_BM: np.ndarray, leave_below: int) -> tuple[Slots, Drawn]:
        """Decodes until `decode_steps` are done or fewer than `leave_below` slots are active.

        `table_BM` must hold pages for every token that an active slot may draw meanwhile.
        """
        return self._generate(self.params, slots, table_BM, leave_below)

    def lower_generate(self) -> jax.stages.Lowered:
        """The decode program, lowered for the devices of `params` with no memory behind it; these
        may be abstract, on devices that are not there (`jax.experimental.topologies`)."""
        slots, abstract = jax.eval_shape(self.init_decode_state), self._abstract
        pools = [
            tuple(abstract(pool, *spec) for pool, spec in zip(layer, self.layout.specs()))
            for layer in slots.cache
        ]
        rest = dataclasses.replace(slots, cache=())
        rest = jax.tree.map(lambda leaf: abstract(leaf, GROUPS), rest)
        slots = dataclasses.replace(rest, cache=tuple(pools))
        table = jax.ShapeDtypeStruct((self.num_slots, self.pages_per_slot), jnp.int32)
        table_BM = abstract(table, GROUPS)
        return self._lower(self._generate, slots, table_BM, 1)

    def lower_prefill(self, prompt_len: int) -> jax.stages.Lowered:
        """The prefill program of prompts of `prompt_len` tokens, lowered as `lower_generate` is."""
        shape = (self.prefill_rows, self.bucket(prompt_len))
        tokens_BT = self._abstract(jax.ShapeDtypeStruct(shape, jnp.int32), GROUPS)
        return self._lower(self._prefill, tokens_BT)

    def _abstract(self, leaf, *axes: str | tuple[str, ...] | None) -> jax.ShapeDtypeStruct:
        device = next(iter(self.params["embed"].sharding.device_set))
        place = self._on_mesh(*axes) or jax.sharding.SingleDeviceSharding(device)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    def _lower(self, program, *args) -> jax.stages.Lowered:
        platform = "cuda" if self.platform == "gpu" else self.platform
        return program.trace(self.params, *args).lower(lowering_platforms=(platform,))

    def free_resource(self, slots: Slots, slot: int) -> Slots:
        """Gives up a slot before its completion ended. Its pages are the caller's to release."""
        return dataclasses.replace(slots, active_B=slots.active_B.at[slot].set(False))
