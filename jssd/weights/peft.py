"""Adapters as a folder that Hugging Face's peft loads on top of the base model.

The format is peft's own: `adapter_config.json`, the fields of its `LoraConfig`, and
`adapter_model.safetensors` with `lora_A.weight` [rank, inputs] and `lora_B.weight` [outputs, rank]
for each adapted layer, under the base model's name of it.
"""

import pathlib
import shutil

import einops
import jax
import numpy as np
from safetensors.numpy import save_file

from jssd import places, processes
from jssd.config import LoraConfig
from jssd.model.config import ModelConfig
from jssd.weights import checksums, hf, names
from jssd.weights.files import write_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # Of peft's wrappers around the model.


def save(
    folder: pathlib.Path,
    adapters: dict,
    cfg: ModelConfig,
    config: LoraConfig,
    *,
    base_model: str,
    source_folder: pathlib.Path,
) -> None:
    """Writes `adapters` of `model/lora.py` as a folder that appears whole (`places.publishing`).

    On many hosts all processes call it; process 0 writes.

    Args:
      base_model: where peft finds the base: a hub id or a folder.
      source_folder: the base's, whose licence files travel along.

    Raises:
      FileExistsError: `folder` exists.
    """
    if places.is_whole(folder):
        raise FileExistsError(f"{folder} is there already. Delete it to export again.")
    tensors = peft_tensors(adapters, cfg)
    if jax.process_index() == 0:
        with places.publishing(folder) as scratch:
            save_file(tensors, scratch / WEIGHTS_FILE, metadata={"format": "pt"})
            write_json(scratch / CONFIG_FILE, _settings(adapters, cfg, config, base_model))
            for pattern in ("LICENSE*", "NOTICE*"):
                for path in source_folder.glob(pattern):
                    shutil.copy(path, scratch / path.name)
            checksums.write(scratch)
    processes.wait_for_all(f"exported {folder}")


def peft_tensors(adapters: dict, cfg: ModelConfig) -> dict[str, np.ndarray]:
    """Every tensor by peft's name, float32 on the host."""
    tensors = {}
    for row in _rows(adapters, cfg):
        pair = names.get(adapters, row.path.removeprefix("blocks."))
        # As in "(n h) d -> d n h": the axes of the HF weight, outputs first.
        outputs, inputs = (" ".join(axis) for axis in row.hf_axes)
        a_L = einops.rearrange(hf.to_host(pair["a"]), f"l {inputs} r -> l r ({inputs})")
        b_L = einops.rearrange(hf.to_host(pair["b"]), f"l r {outputs} -> l ({outputs}) r")
        for layer in range(cfg.num_layers):
            name = _PREFIX + row.hf_name((layer,)).removesuffix(".weight")
            tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a_L[layer])
            tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b_L[layer])
    return tensors


def _rows(adapters: dict, cfg: ModelConfig) -> list[names.Row]:
    adapted = {f"blocks.{module}.{name}" for module, pairs in adapters.items() for name in pairs}
    return [row for row in names.rows(cfg) if row.path in adapted]


def _settings(adapters: dict, cfg: ModelConfig, config: LoraConfig, base_model: str) -> dict:
    """adapter_config.json: what peft needs to know, and what we do not do said outright."""
    alpha = config.alpha or config.rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": [row.hf.split(".")[-2] for row in _rows(adapters, cfg)],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
    }
