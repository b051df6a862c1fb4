"""The table between our parameter tree and Hugging Face tensors, read in both directions.

A row says: our path, the HF name (`{}` is the layer number), and how the axes of the HF tensor
become ours. The letters are those of the house, in lower case: v vocab, d model width, f MLP width,
n query heads, k KV heads, h head size. Rows with `{}` are stacked: our array has one more axis in
front, the layer. A tied head has no row.
"""

import dataclasses
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
    needs: str = (
        ""  # The flag of `ModelConfig` that brings the row in; "untied" means no tied head.
    )

    @property
    def is_stacked(self) -> bool:
        """True if our array has a leading layer axis."""
        return "{}" in self.hf

    @property
    def hf_axes(self) -> tuple[tuple[str, ...], ...]:
        """Axes of the HF tensor as tuples of letters: "(n h) d" is (("n", "h"), ("d",))."""
        parts = re.findall(r"\([^)]*\)|\w", self.pattern.split(" -> ")[0])
        return tuple(tuple(part.strip("()").split()) for part in parts)

    @property
    def our_axes(self) -> tuple[str, ...]:
        """Axes of our array, without the layer axis."""
        return tuple(self.pattern.split(" -> ")[1].split())


_ATTN = "model.layers.{}.self_attn."
_MLP = "model.layers.{}.mlp."

ROWS = (
    Row("embed", "model.embed_tokens.weight", "v d -> v d"),
    Row("blocks.attn_norm", "model.layers.{}.input_layernorm.weight", "d -> d"),
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
    Row("blocks.mlp_norm", "model.layers.{}.post_attention_layernorm.weight", "d -> d"),
    Row("blocks.mlp.gate", _MLP + "gate_proj.weight", "f d -> d f"),
    Row("blocks.mlp.gate_bias", _MLP + "gate_proj.bias", "f -> f", "mlp_bias"),
    Row("blocks.mlp.up", _MLP + "up_proj.weight", "f d -> d f"),
    Row("blocks.mlp.up_bias", _MLP + "up_proj.bias", "f -> f", "mlp_bias"),
    Row("blocks.mlp.down", _MLP + "down_proj.weight", "d f -> f d"),
    Row("blocks.mlp.down_bias", _MLP + "down_proj.bias", "d -> d", "mlp_bias"),
    Row("final_norm", "model.norm.weight", "d -> d"),
    Row("head", "lm_head.weight", "v d -> d v", "untied"),
)


def rows(cfg: ModelConfig) -> tuple[Row, ...]:
    """The rows a model with this configuration has."""
    if cfg.family not in ("llama", "qwen2", "qwen3"):
        raise ValueError(
            f"weights of family {cfg.family!r} have no name table. Families with one: llama, "
            "qwen2, qwen3."
        )
    present = {
        "": True,
        "untied": not cfg.tied_head,
        "qkv_bias": cfg.qkv_bias,
        "o_bias": cfg.o_bias,
        "mlp_bias": cfg.mlp_bias,
        "qk_norm": cfg.qk_norm,
    }
    return tuple(row for row in ROWS if present[row.needs])


def hf_names(cfg: ModelConfig) -> Iterator[tuple[str, Row, int | None]]:
    """Every HF tensor as (name, row, layer or None), in the order of a forward pass."""
    table = rows(cfg)
    stacked = [row for row in table if row.is_stacked]
    yield from ((row.hf, row, None) for row in table if row.path == "embed")
    for layer in range(cfg.num_layers):
        yield from ((row.hf.format(layer), row, layer) for row in stacked)
    for row in table:
        if not row.is_stacked and row.path != "embed":
            yield row.hf, row, None


def axis_sizes(cfg: ModelConfig) -> dict[str, int]:
    """Length of every axis letter used in the table."""
    return {
        "v": cfg.vocab_size,
        "d": cfg.embed_dim,
        "f": cfg.mlp_dim,
        "n": cfg.num_heads,
        "k": cfg.num_kv_heads,
        "h": cfg.head_dim,
    }


def hf_shape(row: Row, cfg: ModelConfig) -> tuple[int, ...]:
    """Shape of the HF tensor (of one layer)."""
    sizes = axis_sizes(cfg)
    return tuple(int(np.prod([sizes[letter] for letter in axis])) for axis in row.hf_axes)


def our_shape(row: Row, cfg: ModelConfig) -> tuple[int, ...]:
    """Shape of our array, with the layer axis if stacked."""
    sizes = axis_sizes(cfg)
    layers = (cfg.num_layers,) if row.is_stacked else ()
    return layers + tuple(sizes[letter] for letter in row.our_axes)


def to_hf(row: Row, ours: np.ndarray) -> np.ndarray:
    """The HF tensor of one layer's array of ours. Contiguous; values and dtype untouched."""
    left, right = row.pattern.split(" -> ")
    return np.ascontiguousarray(einops.rearrange(ours, f"{right} -> {left}"))


def from_hf_slice(
    row: Row,
    index: tuple[slice, ...],
    cfg: ModelConfig,
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> np.ndarray:
    """The part `index` of our array of one layer, reading only the HF elements it needs.

    Args:
      index: one slice per axis of ours, without the layer axis, step 1.
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
