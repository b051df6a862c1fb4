"""A GGUF file (llama.cpp) turned into an ordinary Hugging Face folder, for all else to read.

Quantised weights are expanded; nothing is computed in quantised form. Only what can be converted
without guessing is: a file with anything else in it is refused with a list of what that is.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from jssd.model import config as model_config
from jssd.weights import gguf_tokenizer, names
from jssd.weights.files import Planned, shorten, write_json, write_tensors

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_QUANTS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
# Stem of a GGUF tensor name -> stem of the HF one; the endings (.weight, .bias) are the same.
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_REQUIRED = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
_MARKER = "gguf.json"
_FORMAT = 1  # Raised when the conversion changes, so that folders made before are made again.


@dataclasses.dataclass(frozen=True)
class _File:
    """What a GGUF file holds: metadata by key, tensors by HF name."""

    path: pathlib.Path
    meta: dict[str, Any]
    tensors: dict[str, Any]  # gguf.ReaderTensor
    rope_freqs: np.ndarray | None  # Llama 3's divisors of the rotary frequencies.
    unknown: list[str]

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the architecture's own metadata, such as "block_count"."""
        return self.meta.get(f"{self.meta.get('general.architecture')}.{key}", default)


def to_hf_folder(
    path: str | os.PathLike, folder: str | os.PathLike, dtype: str | None = None
) -> pathlib.Path:
    """Converts a GGUF file to a Hugging Face folder; returns at once if `folder` was made from it.

    Args:
      path: the file. Tensor types F32, F16, BF16, Q8_0, Q4_0, Q4_1; architectures llama, qwen2,
        qwen3.
      folder: where to. Written beside and renamed; a folder made from another file or dtype is made
        again.
      dtype: "float32" or "bfloat16". None is float32: it holds every expanded value exactly, while
        bfloat16 (8 bits of mantissa) would round a product of an 11-bit scale and a 4- or 8-bit
        number a second time.

    Raises:
      FileNotFoundError: no such file.
      FileExistsError: `folder` is something else than a converted model.
      ValueError: the package gguf is not installed; the file is cut short; or it holds what cannot
        be converted, all of it listed.
    """
    path, folder = pathlib.Path(path), pathlib.Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    dtype = dtype or "float32"
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r} of a GGUF import must be one of {', '.join(_DTYPES)}.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    marker = {"format": _FORMAT, "file": path.name, "sha256": digest, "dtype": dtype}
    if folder.exists():
        if not (folder / _MARKER).is_file():
            raise FileExistsError(
                f"{folder} exists and is not a converted GGUF file. Move it away."
            )
        if json.loads((folder / _MARKER).read_text()) == marker:
            return folder
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _convert(path, scratch, dtype)
        write_json(scratch / _MARKER, marker)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def read_config(path: str | os.PathLike) -> dict:
    """What the folder's `config.json` would say, but for the dtype; no weight is read.

    Raises:
      ValueError: not a GGUF file, or one of an architecture that is not supported.
    """
    with _opened(pathlib.Path(path)) as file:
        _refuse_unknown(file)
        return _config(file)


def _convert(path: pathlib.Path, folder: pathlib.Path, dtype: str) -> None:
    """Writes every file of the folder but the marker."""
    with _opened(path) as file:
        _refuse_unknown(file)
        config = _config(file) | {"torch_dtype": dtype, "dtype": dtype}
        cfg = model_config.from_hf(config)
        _refuse_misfits(file, cfg)
        plan = [
            Planned(name, _DTYPES[dtype], names.hf_shape(row, cfg))
            for name, row, _ in names.hf_names(cfg)
        ]
        folder.mkdir(parents=True)
        write_tensors(
            folder,
            plan,
            lambda name: _values(file, name, cfg).astype(_DTYPES[dtype], copy=False),
            shard_bytes=5_000_000_000,
        )
        write_json(folder / "config.json", config)
        gguf_tokenizer.write(folder, file.meta, max_len=cfg.max_seq_len)
        if licence := file.meta.get("general.license"):
            # Read again when an export writes its model card.
            (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n", encoding="utf-8")


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[_File]:
    """The file's metadata and tensors; tensor data stays on disk until it is asked for."""
    try:
        import gguf
    except ImportError:
        raise ValueError(f"{path}: reading GGUF needs a package. Install jssd[gguf].") from None
    try:
        reader = gguf.GGUFReader(path)
        meta = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        # What the reader runs into where bytes are missing or wrong.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is cut short or not a GGUF file ({reason}). Fetch it again."
        ) from None
    tensors, unknown, rope_freqs = {}, [], None
    for tensor in reader.tensors:
        name = _hf_name(tensor.name)
        if tensor.name == "rope_freqs.weight":
            rope_freqs = np.asarray(tensor.data, np.float32)
        elif name is None:
            unknown.append(tensor.name)
        else:
            tensors[name] = tensor
    yield _File(path, meta, tensors, rope_freqs, unknown)


def _hf_name(name: str) -> str | None:
    """HF name of a GGUF tensor, or None if we know none."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    match stem.split("."):
        case ["blk", layer, part] if part in _BLOCK and layer.isdecimal():
            return f"model.layers.{layer}.{_BLOCK[part]}.{kind}"
    return None


def _refuse_unknown(file: _File) -> None:
    """Raises one ValueError that lists all in the file that cannot be converted."""
    arch = file.meta.get("general.architecture")
    if arch not in _ARCHITECTURES:
        raise ValueError(
            f"{file.path}: architecture {arch!r} cannot be converted; {', '.join(_ARCHITECTURES)} "
            "can."
        )
    errors = []
    quants = sorted({t.tensor_type.name for t in file.tensors.values()} - set(_QUANTS))
    if quants:
        errors.append(f"tensor types {', '.join(quants)} ({', '.join(_QUANTS)} can be read)")
    if file.unknown:
        errors.append(f"tensors {shorten(file.unknown)}")
    if file.get("expert_count"):
        errors.append("a mixture of experts (expert_count)")
    if (kind := file.get("rope.scaling.type", "none")) != "none":
        errors.append(f"rope scaling {kind!r}")
    if isinstance(file.get("attention.head_count_kv"), list):
        errors.append("a number of KV heads that differs between layers")
    if file.get("attention.key_length") != file.get("attention.value_length"):
        errors.append("values of another size than keys")

    if missing := [key for key in _REQUIRED if file.get(key) is None]:
        errors.append(f"no metadata {', '.join(missing)}")
    if "model.embed_tokens.weight" not in file.tensors:
        errors.append("no token_embd.weight")
    errors += gguf_tokenizer.refusals(file.meta)

    if errors:
        raise ValueError(f"{file.path} cannot be converted, because of: {'; '.join(errors)}.")


def _refuse_misfits(file: _File, cfg: model_config.ModelConfig) -> None:
    """Raises one ValueError that lists tensors that are missing, left over or of another shape."""
    wanted = {name: names.hf_shape(row, cfg) for name, row, _ in names.hf_names(cfg)}
    found = {name: _shape(tensor) for name, tensor in file.tensors.items()}
    errors = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    errors += [f"{name} is not part of the model" for name in found.keys() - wanted.keys()]
    errors += [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if errors:
        raise ValueError(
            f"{file.path} does not fit its own metadata: {shorten(sorted(errors), 20)}."
        )


def _shape(tensor) -> tuple[int, ...]:
    """Shape as NumPy says it; ggml counts axes from the innermost."""
    return tuple(int(size) for size in reversed(tensor.shape))


def _values(file: _File, name: str, cfg: model_config.ModelConfig) -> np.ndarray:
    """A tensor in float32, as Hugging Face lays it out."""
    import gguf

    tensor = file.tensors[name]
    values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    values = values.reshape(_shape(tensor))
    heads = {"q_proj": cfg.num_heads, "k_proj": cfg.num_kv_heads}.get(name.split(".")[-2])
    if cfg.family == "llama" and heads:
        # llama.cpp turns neighbouring pairs of rows together, Hugging Face turns the two halves of
        # a head. qwen files are stored as Hugging Face has them.
        pairs = values.reshape(heads, cfg.head_dim // 2, 2, *values.shape[1:])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return values


def _config(file: _File) -> dict:
    """config.json without the dtype."""
    arch = file.meta["general.architecture"]
    num_heads, width = file.get("attention.head_count"), file.get("embedding_length")
    vocab_size = _shape(file.tensors["model.embed_tokens.weight"])[0]
    head_dim = file.get("attention.key_length") or file.get("rope.dimension_count")
    head_dim = head_dim or width // num_heads
    theta = float(file.get("rope.freq_base", 10000.0))
    config = {
        "architectures": [_ARCHITECTURES[arch]],
        "model_type": arch,
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": file.get("feed_forward_length"),
        "num_hidden_layers": file.get("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": file.get("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": file.get("context_length"),
        # Stored as float32; six digits give back the decimal number it was made from.
        "rms_norm_eps": float(f"{file.get('attention.layer_norm_rms_epsilon'):.6g}"),
        "hidden_act": "silu",
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in file.tensors,
        "mlp_bias": "model.layers.0.mlp.gate_proj.bias" in file.tensors,
        "tie_word_embeddings": "lm_head.weight" not in file.tensors,
        "rope_theta": theta,
        "rope_scaling": _rope_scaling(file, head_dim, theta),
        **gguf_tokenizer.special_ids(file.meta),
        "use_cache": True,
    }
    scaling = config["rope_scaling"] or {"rope_type": "default"}
    return config | {"rope_parameters": {"rope_theta": theta, **scaling}}


def _rope_scaling(file: _File, head_dim: int, theta: float) -> dict | None:
    """Llama 3's scaling, found again from the frequency divisors it was turned into."""
    if file.rope_freqs is None:
        return None
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    for factor in (8.0, 32.0):  # Llama 3.1 and 3.3; Llama 3.2.
        low, high, original = 1.0, 4.0, 8192
        ramp = np.clip((original / wavelengths - low) / (high - low), 0, 1)
        if np.allclose(1 / ((1 - ramp) / factor + ramp), file.rope_freqs, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    raise ValueError(f"{file.path}: rope_freqs.weight is not the scaling of Llama 3.1, 3.2 or 3.3.")
