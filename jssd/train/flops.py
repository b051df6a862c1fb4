"""Model FLOPs of a training step, exactly as the batch needs them, and the peak of a device.

Counted: two FLOPs for each multiply-add of the matmuls with weights and of attention, forward once
and backward twice. Attention counts the keys a query sees: earlier ones of its own sample. The
output head counts response tokens only, for only they meet it. Not counted: padding, recomputation
(remat), masked-out scores, norms, softmax, rotary embedding, the optimizer. So MFU here is lower
than one that counts whole squares of attention or the head on every token.
"""

from jssd.config import LoraConfig
from jssd.model.config import ModelConfig

# Dense bfloat16 peak in FLOP/s per JAX device, vendor figures, by `device.device_kind`.
PEAK = {
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # A chip shows as two devices.
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM. PCIe and NVL boards have other names and peaks.
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def block_weights(cfg: ModelConfig) -> int:
    """Weights of one block that a token is multiplied with: q, k, v, o and the gated MLP, or the
    router and the MLPs of the token's experts.
    """
    heads = 2 * cfg.num_heads + 2 * cfg.num_kv_heads
    mlp = 3 * cfg.mlp_dim
    if cfg.is_moe:
        mlp = cfg.num_experts + cfg.experts_per_token * mlp
    return cfg.embed_dim * (heads * cfg.head_dim + mlp)


def adapter_weights(cfg: ModelConfig, config: LoraConfig) -> int:
    """Numbers in the adapters of one block, as many as a token is multiplied with; 0 where lora is
    off."""
    D, F = cfg.embed_dim, cfg.mlp_dim
    heads, kv_heads = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    other = {"q": heads, "k": kv_heads, "v": kv_heads, "o": heads, "gate": F, "up": F, "down": F}
    return config.rank * sum(D + other[name] for name in config.projections)


def train_flops(
    cfg: ModelConfig,
    *,
    tokens: float,
    response_tokens: float,
    attention_pairs: float,
    adapters: int = 0,
) -> float:
    """FLOPs of forward and backward.

    Args:
      cfg: the architecture.
      tokens: tokens that are not padding.
      response_tokens: those that meet the output head.
      attention_pairs: query-key pairs that the causal, per-sample mask leaves, in one layer.
      adapters: `adapter_weights`. Where there are some, all weights are frozen: backward goes
        through them once, for the gradient of what they are multiplied with.
    """
    blocks = cfg.num_layers * block_weights(cfg) * tokens
    attention = cfg.num_layers * 2 * cfg.num_heads * cfg.head_dim * attention_pairs
    head = cfg.embed_dim * cfg.vocab_size * response_tokens
    if adapters:
        trained = cfg.num_layers * adapters * tokens
        return 2 * (2 * (blocks + head) + 3 * (attention + trained))
    return 3 * 2 * (blocks + attention + head)


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device, or None where no vendor figure is on file (every CPU)."""
    return PEAK.get(device_kind)
