"""Architecture facts of a decoder, read from a Hugging Face `config.json`.

Hugging Face names appear only here and in `weights/names.py`. Both spellings are read: transformers
4 (`rope_theta`, `rope_scaling`) and transformers 5 (`rope_parameters`). What the model does not
implement is refused by name, before any weight is read.
"""

import dataclasses

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe")


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's frequency scaling: long wavelengths by `factor`, with a smooth ramp between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_len: int


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding."""

    theta: float
    scaling: Llama3Scaling | None = None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. Frozen and hashable: it is static under `jit`."""

    family: str
    vocab_size: int
    embed_dim: int
    mlp_dim: int  # Of one expert in a mixture of experts.
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_seq_len: int
    norm_eps: float
    rope: Rope
    tied_head: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    num_experts: int = 0  # 0 is a dense MLP.
    experts_per_token: int = 0
    norm_topk_prob: bool = False  # Makes the weights of a token's experts sum to 1.

    @property
    def is_moe(self) -> bool:
        """True for a mixture of experts."""
        return self.num_experts > 0

    @property
    def num_groups(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads


# What transformers assumes where a config.json is silent.
_DEFAULTS = {
    "llama": {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "qwen2": {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6},
    "qwen3": {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "head_dim": 128},
    "qwen3_moe": {
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
}


def split_sizes(cfg: ModelConfig) -> dict[str, tuple[int, str]]:
    """The sizes that a mesh must divide, by name: (the number, the logical axis it lies on)."""
    experts = {"num_experts": (cfg.num_experts, "experts")} if cfg.is_moe else {}
    return {
        "num_heads": (cfg.num_heads, "heads"),
        "num_kv_heads": (cfg.num_kv_heads, "kv_heads"),
        "mlp_dim": (cfg.mlp_dim, "mlp"),
        "embed_dim": (cfg.embed_dim, "embed"),
        **experts,
    }


def from_hf(hf: dict) -> ModelConfig:
    """Reads a `config.json` dict.

    Raises:
      ValueError: one message that lists every feature that is not implemented and every missing
        field.
    """
    family = hf.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={family!r} is not supported. "
            f"Supported: {', '.join(FAMILIES)}."
        )
    given = hf
    hf = {**_DEFAULTS[family], **{key: value for key, value in hf.items() if value is not None}}
    width = "moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size"
    required = (
        "vocab_size",
        "hidden_size",
        width,
        "num_hidden_layers",
        "num_attention_heads",
    )
    errors = [f"{name} is missing" for name in required if name not in hf]
    if family != "llama" and "num_key_value_heads" not in given:
        # Null is one KV head per query head; but where Qwen is silent, transformers takes a fixed
        # number whatever the number of query heads.
        errors.append("num_key_value_heads is missing")
    rope, rope_errors = _rope(hf)
    errors += rope_errors + _refusals(hf, family)
    if family == "qwen3_moe":
        errors += _moe_refusals(hf)
    if errors:
        raise ValueError(f"config.json ({family}): " + "; ".join(errors) + ".")
    num_heads = hf["num_attention_heads"]
    num_kv_heads = hf.get("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise ValueError(
            f"config.json: num_attention_heads={num_heads} must be a multiple of "
            f"num_key_value_heads={num_kv_heads}."
        )
    attention_bias = bool(hf.get("attention_bias", False))
    return ModelConfig(
        family=family,
        vocab_size=hf["vocab_size"],
        embed_dim=hf["hidden_size"],
        mlp_dim=hf[width],
        num_layers=hf["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=hf.get("head_dim", hf["hidden_size"] // num_heads),
        max_seq_len=hf["max_position_embeddings"],
        norm_eps=hf["rms_norm_eps"],
        rope=rope,
        tied_head=bool(hf.get("tie_word_embeddings", False)),
        # Qwen2 always has biases on q, k, v and none on o; the others follow `attention_bias` on
        # all four.
        qkv_bias=family == "qwen2" or attention_bias,
        o_bias=family != "qwen2" and attention_bias,
        mlp_bias=family == "llama" and bool(hf.get("mlp_bias", False)),
        qk_norm=family in ("qwen3", "qwen3_moe"),
        **(_experts(hf) if family == "qwen3_moe" else {}),
    )


def _experts(hf: dict) -> dict:
    """The fields of a mixture of experts."""
    return {
        "num_experts": _num_experts(hf),
        "experts_per_token": hf["num_experts_per_tok"],
        "norm_topk_prob": bool(hf.get("norm_topk_prob", False)),
    }


def _num_experts(hf: dict) -> int:
    """Transformers 4 writes num_experts, 5 num_local_experts."""
    return hf.get("num_local_experts", hf["num_experts"])


def _rope(hf: dict) -> tuple[Rope, list[str]]:
    """The rotary embedding from either spelling, with what is wrong about it."""
    scaling = _rope_settings(hf)
    theta = scaling.get("rope_theta", hf.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if any(isinstance(value, dict) for value in scaling.values()):
        return Rope(float(theta)), ["rope settings by layer type are not supported"]
    if kind == "default":
        return Rope(float(theta)), []
    if kind != "llama3":
        return Rope(float(theta)), [f"rope type {kind!r} is not supported (default, llama3 are)"]
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [f"rope llama3 lacks {name}" for name in names if name not in scaling]
    if missing:
        return Rope(float(theta)), missing
    return Rope(float(theta), Llama3Scaling(*(scaling[name] for name in names))), []


def _rope_settings(hf: dict) -> dict:
    """The rotary settings that count: transformers 5 prefers the old spelling where both are."""
    return hf.get("rope_scaling") or hf.get("rope_parameters") or {}


def _refusals(hf: dict, family: str) -> list[str]:
    """Features that would change the numbers and are not implemented, each by its own name."""
    layer_types = set(hf.get("layer_types", ())) - {"full_attention"}
    rules = (
        ("quantization_config" in hf, "quantised weights (quantization_config) are not supported"),
        (
            hf.get("hidden_act", "silu") not in ("silu", "swish"),
            f"hidden_act={hf.get('hidden_act')!r} is not silu",
        ),
        (
            # transformers gives layers at or above max_window_layers the window: none if that is
            # all layers.
            family in ("qwen2", "qwen3")
            and bool(hf.get("use_sliding_window"))
            and "layer_types" not in hf
            and hf.get("max_window_layers", 28) < hf.get("num_hidden_layers", 0),
            "sliding window attention (use_sliding_window) is not supported",
        ),
        (
            bool(layer_types),
            f"layer_types {sorted(layer_types)} are not supported, full_attention is",
        ),
        (
            _rope_settings(hf).get("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0))
            != 1.0,
            "partial_rotary_factor other than 1 is not supported",
        ),
    )
    return [text for wrong, text in rules if wrong]


def _moe_refusals(hf: dict) -> list[str]:
    """What a mixture of experts may ask for and is not implemented, each by its own name."""
    active, num_experts = hf["num_experts_per_tok"], _num_experts(hf)
    step, dense_layers = hf.get("decoder_sparse_step", 1), hf.get("mlp_only_layers")
    rules = (
        (
            not 1 <= active <= num_experts,
            f"num_experts_per_tok={active} must lie between 1 and the {num_experts} experts",
        ),
        (step != 1, f"decoder_sparse_step={step} is not supported: every layer must have experts"),
        (
            bool(dense_layers),
            f"mlp_only_layers={dense_layers} is not supported: every layer must have experts",
        ),
        (
            # For all layers, whatever max_window_layers and layer_types say.
            bool(hf.get("use_sliding_window")),
            "sliding window attention (use_sliding_window) is not supported",
        ),
        *(
            (bool(hf.get(name)), f"shared experts ({name}={hf.get(name)}) are not supported")
            for name in ("shared_expert_intermediate_size", "n_shared_experts")
        ),
    )
    return [text for wrong, text in rules if wrong]
