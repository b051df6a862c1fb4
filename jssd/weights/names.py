"""The table between our parameter tree and Hugging Face tensors, read in both directions.

A row says: our path, the HF name, and how the axes of the HF tensor become ours. The letters are
those of the house, in lower case: v vocab, d model width, f MLP width, n query heads, k KV heads,
h head size, l layers, e experts. A letter in the HF name, such as `{l}`, is a number that counts
tensors, and our array stacks these: it has that axis in front. The numbers of one tensor are its
place, such as (layer, expert). A tied head has no row.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import einops
import numpy as np

from jssd.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter of ours and the HF tensor, or tensors, that hold it."""

    path: str
    hf: str
    pattern: str
    needs: str = ""  # What brings the row in, a key of `rows`; "" is in every model.

    @property
    def stacked(self) -> tuple[str, ...]:
        """Letters of the leading axes of our array that count HF tensors: () is one tensor."""
        return tuple(re.findall(r"{(\w)}", self.hf))

    @property
    def hf_axes(self) -> tuple[tuple[str, ...], ...]:
        """Axes of the HF tensor as tuples of letters: "(n h) d" is (("n", "h"), ("d",))."""
        parts = re.findall(r"\([^)]*\)|\w", self.pattern.split(" -> ")[0])
        return tuple(tuple(part.strip("()").split()) for part in parts)

    @property
    def our_axes(self) -> tuple[str, ...]:
        """Axes of our array, without the stacked ones."""
        return tuple(self.pattern.split(" -> ")[1].split())

    def hf_name(self, place: tuple[int, ...]) -> str:
        """Name of the HF tensor at a place, which has one number for each stacked axis."""
        return self.hf.format(**dict(zip(self.stacked, place)))


_ATTN = "model.layers.{l}.self_attn."
_MLP = "model.layers.{l}.mlp."
_EXPERT = "model.layers.{l}.mlp.experts.{e}."

ROWS = (
    Row("embed", "model.embed_tokens.weight", "v d -> v d"),
    Row("blocks.attn_norm", "model.layers.{l}.input_layernorm.weight", "d -> d"),
    Row("blocks.attn.q", _ATTN + "q_proj.weight", "(n h) d -> d n h"),
    Row("blocks.attn.q_bias", _ATTN + "q_proj.bias", "(n h) -> n h", "qkv_bias"),
    Row("blocks.attn.q_norm", _ATTN + "q_norm.weight", "h -> h", "qk_norm"),
    Row("blocks.attn.k", _ATTN + "k_proj.weight", "(k h) d -> d k h"),
    Row("blocks.attn.k_bias", _ATTN + "k_proj.bias", "(k h) -> k h", "qkv_bias"),
    Row("blocks.attn.k_norm", _ATTN + "k_norm.weight", "h -> h", "qk_norm"),
    Row("blocks.attn.v", _ATTN + "v_proj.weight", "(k h) d -> d k h"),
    Row("blocks.attn.v_bias", _ATTN + "v_proj.bias", "(k h) -> k h", "qkv_bias"),
    Row("blocks.attn.o", _ATTN + "o_proj.weight", "d (n h) -> n h d"),
    Row("blocks.attn.o_bias", _ATTN + "o_proj.bias", "d -> d", "o_bias"),
    Row("blocks.mlp_norm", "model.layers.{l}.post_attention_layernorm.weight", "d -> d"),
    Row("blocks.mlp.gate", _MLP + "gate_proj.weight", "f d -> d f", "dense"),
    Row("blocks.mlp.gate_bias", _MLP + "gate_proj.bias", "f -> f", "mlp_bias"),
    Row("blocks.mlp.up", _MLP + "up_proj.weight", "f d -> d f", "dense"),
    Row("blocks.mlp.up_bias", _MLP + "up_proj.bias", "f -> f", "mlp_bias"),
    Row("blocks.mlp.down", _MLP + "down_proj.weight", "d f -> f d", "dense"),
    Row("blocks.mlp.down_bias", _MLP + "down_proj.bias", "d -> d", "mlp_bias"),
    Row("blocks.moe.router", _MLP + "gate.weight", "e d -> d e", "moe"),
    Row("blocks.moe.gate", _EXPERT + "gate_proj.weight", "f d -> d f", "moe"),
    Row("blocks.moe.up", _EXPERT + "up_proj.weight", "f d -> d f", "moe"),
    Row("blocks.moe.down", _EXPERT + "down_proj.weight", "d f -> f d", "moe"),
    Row("final_norm", "model.norm.weight", "d -> d"),
    Row("head", "lm_head.weight", "v d -> d v", "untied"),
)


def rows(cfg: ModelConfig) -> tuple[Row, ...]:
    """The rows a model with this configuration has."""
    present = {
        "": True,
        "untied": not cfg.tied_head,
        "qkv_bias": cfg.qkv_bias,
        "o_bias": cfg.o_bias,
        "mlp_bias": cfg.mlp_bias,
        "qk_norm": cfg.qk_norm,
        "dense": not cfg.is_moe,
        "moe": cfg.is_moe,
    }
    return tuple(row for row in ROWS if present[row.needs])


def hf_names(cfg: ModelConfig) -> Iterator[tuple[str, Row, tuple[int, ...]]]:
    """Every HF tensor as (name, row, place), in the order of a forward pass."""
    return _count_through(rows(cfg), axis_sizes(cfg), ())


def _count_through(
    table: tuple[Row, ...], sizes: dict[str, int], place: tuple[int, ...]
) -> Iterator[tuple[str, Row, tuple[int, ...]]]:
    """The tensors of rows that stand together, from `place` on.

    Neighbours that go on to count the same letter are counted through together: all of layer 0
    before layer 1, and within it all of expert 0 before expert 1.
    """
    depth = len(place)
    for letter, group in itertools.groupby(table, lambda row: row.stacked[depth : depth + 1]):
        members = tuple(group)
        if not letter:
            yield from ((row.hf_name(place), row, place) for row in members)
            continue
        for number in range(sizes[letter[0]]):
            yield from _count_through(members, sizes, (*place, number))


def axis_sizes(cfg: ModelConfig) -> dict[str, int]:
    """Length of every axis letter used in the table."""
    return {
        "v": cfg.vocab_size,
        "d": cfg.embed_dim,
        "f": cfg.mlp_dim,
        "n": cfg.num_heads,
        "k": cfg.num_kv_heads,
        "h": cfg.head_dim,
        "l": cfg.num_layers,
        "e": cfg.num_experts,
    }


def hf_shape(row: Row, cfg: ModelConfig) -> tuple[int, ...]:
    """Shape of each of the row's HF tensors."""
    sizes = axis_sizes(cfg)
    return tuple(int(np.prod([sizes[letter] for letter in axis])) for axis in row.hf_axes)


def our_shape(row: Row, cfg: ModelConfig) -> tuple[int, ...]:
    """Shape of our array, with the stacked axes in front."""
    sizes = axis_sizes(cfg)
    return tuple(sizes[letter] for letter in row.stacked + row.our_axes)


def unpadded(name: str, shape: tuple[int, ...], vocab_size: int | None) -> tuple[int, ...]:
    """`shape` of our array of this name without padding of the vocabulary (`transformer`).

    With `vocab_size` None there is none.
    """
    axis = {"embed": 0, "head": 1}.get(name)
    if vocab_size is None or axis is None:
        return shape
    return (*shape[:axis], min(shape[axis], vocab_size), *shape[axis + 1 :])


def to_hf(row: Row, ours: np.ndarray) -> np.ndarray:
    """The HF tensor of the array at one place of ours. Contiguous; values and dtype untouched."""
    left, right = row.pattern.split(" -> ")
    return np.ascontiguousarray(einops.rearrange(ours, f"{right} -> {left}"))


def from_hf_slice(
    row: Row,
    index: tuple[slice, ...],
    cfg: ModelConfig,
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> np.ndarray:
    """The part `index` of our array at one place, reading only the HF elements it needs.

    Args:
      index: one slice per axis of ours, without the stacked ones, step 1.
      read: gets one slice per HF axis and returns that part of the HF tensor.

    Only the outer letter of a merged axis narrows what is read; the inner one is cut afterwards,
    because its elements do not lie together on disk.
    """
    sizes = axis_sizes(cfg)
    wanted = {letter: part.indices(sizes[letter])[:2] for letter, part in zip(row.our_axes, index)}
    hf_index = []
    for axis in row.hf_axes:
        start, stop = wanted[axis[0]]
        inner = int(np.prod([sizes[letter] for letter in axis[1:]]))
        hf_index.append(slice(start * inner, stop * inner))
    inner_sizes = {axis[1]: sizes[axis[1]] for axis in row.hf_axes if len(axis) > 1}
    ours = einops.rearrange(read(tuple(hf_index)), row.pattern, **inner_sizes)
    cut = tuple(
        slice(*wanted[letter]) if letter in inner_sizes else slice(None) for letter in row.our_axes
    )
    return ours[cut]


def get(params: Any, path: str) -> Any:
    """The leaf of a nested dict at a dotted path."""
    for part in path.split("."):
        params = params[part]
    return params


def nest(leaves: dict[str, Any]) -> dict:
    """Nested dict of dotted paths."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *parents, last = path.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree
