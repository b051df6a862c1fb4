"""The architecture of a config's model, without its weights and without a network.

In this order: `config.json` of a local folder, or the metadata of a .gguf file; that of a hub model
in the hub's cache; the facts of the presets' models below.
"""

import dataclasses
import json
import pathlib

from jssd import places
from jssd.config import ModelSource
from jssd.model.config import ModelConfig, from_hf

# What the published config.json files say, in their own words.
_QWEN3_4B = {
    "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "rope_theta": 5e6,
    "tie_word_embeddings": True,
}  # fmt: skip
_QWEN3_30B_A3B = {
    "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "rope_theta": 1e7,
    "tie_word_embeddings": False,
}  # fmt: skip
_LLAMA31_8B = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
}  # fmt: skip
KNOWN = {
    "Qwen/Qwen3-4B-Instruct-2507": _QWEN3_4B,
    "Qwen/Qwen3-4B-Thinking-2507": _QWEN3_4B,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": _QWEN3_30B_A3B,
    "Qwen/Qwen3-30B-A3B-Thinking-2507": _QWEN3_30B_A3B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA31_8B,
}


def read(source: ModelSource, layers: int = 0) -> tuple[ModelConfig, str]:
    """The architecture of `source`, and the dtype its weights are stored in.

    Args:
      source: section `model` of a config.
      layers: keeps so many layers; 0 keeps all.

    Raises:
      FileNotFoundError: a model that is neither here nor known.
      ValueError: a `config.json` that is broken or asks for what is not implemented, or fewer
        layers than `layers`.
    """
    hf = _config_json(source)
    cfg = from_hf(hf)
    if layers > cfg.num_layers:
        raise ValueError(f"plan.layers={layers} must be at most {cfg.num_layers}, the model's.")
    dtype = source.dtype or hf.get("dtype") or hf.get("torch_dtype") or "bfloat16"
    return dataclasses.replace(cfg, num_layers=layers or cfg.num_layers), dtype


def num_params(cfg: ModelConfig) -> int:
    """Weights of the model, all experts included; biases and norms too."""
    D, H = cfg.embed_dim, cfg.head_dim
    heads = 2 * cfg.num_heads + 2 * cfg.num_kv_heads
    mlp = 3 * D * cfg.mlp_dim * max(cfg.num_experts, 1) + D * cfg.num_experts
    norms = 2 * D + 2 * H * cfg.qk_norm
    biases = (heads - cfg.num_heads) * H * cfg.qkv_bias + D * cfg.o_bias
    biases += (2 * cfg.mlp_dim + D) * cfg.mlp_bias
    embeddings = cfg.vocab_size * D * (1 if cfg.tied_head else 2)
    return cfg.num_layers * (D * heads * H + mlp + norms + biases) + embeddings + D


def _config_json(source: ModelSource) -> dict:
    local = places.path(source.path)
    if local.is_dir():
        path = local / "config.json"
    elif local.suffix == ".gguf" and local.exists():
        from jssd.weights import gguf  # Late: needs an extra.

        # As it is converted by default.
        return gguf.read_config(places.fetch(local)) | {"dtype": "float32"}
    else:
        path = _cached(source)
    if path is not None:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing: no model folder.") from None
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}. Fetch it again.") from None
    if source.path in KNOWN:
        return KNOWN[source.path]
    raise FileNotFoundError(
        f"model.path={source.path!r}: its config.json is neither on disk nor in the hub's cache, "
        f"and a plan fetches nothing. Name a folder that holds config.json, or one of "
        f"{', '.join(KNOWN)}."
    )


def _cached(source: ModelSource) -> pathlib.Path | None:
    """`config.json` of a hub model in the hub's cache, if it is there."""
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(
            source.path, "config.json", revision=source.revision
        )
    except ValueError:  # Not of the form owner/name.
        return None
    return pathlib.Path(found) if isinstance(found, str) else None
