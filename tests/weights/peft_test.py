"""Adapters in peft's format: its names and shapes, and that they mean what we merge."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jssd.config import LoraConfig
from jssd.model import lora, transformer
from jssd.weights import names, peft
from tests.model.conftest import TINY

LORA = LoraConfig(rank=3, alpha=1.5)


def _adapters(cfg, config):
    abstract = lora.abstract_adapters(cfg, config)
    leaves, tree = jax.tree.flatten(abstract)
    rng = np.random.default_rng(0)
    values = [jax.numpy.asarray(rng.normal(size=leaf.shape), "float32") for leaf in leaves]
    return jax.tree.unflatten(tree, values)


def _save(folder, adapters, cfg, config):
    source = folder.parent / "source"
    source.mkdir()
    (source / "LICENSE").write_text("terms")
    peft.save(folder, adapters, cfg, config, base_model="owner/base", source_folder=source)
    return load_file(folder / "adapter_model.safetensors")


def test_names_and_shapes_are_pefts(tmp_path):
    tensors = _save(tmp_path / "adapter", _adapters(TINY, LORA), TINY, LORA)
    D, F, N, K = 16, 32, 4 * 8, 2 * 8
    sizes = {
        "self_attn.q_proj": (D, N),
        "self_attn.k_proj": (D, K),
        "self_attn.v_proj": (D, K),
        "self_attn.o_proj": (N, D),
        "mlp.gate_proj": (D, F),
        "mlp.up_proj": (D, F),
        "mlp.down_proj": (F, D),
    }
    wanted = {}
    for layer in range(2):
        for name, (inputs, outputs) in sizes.items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            wanted[f"{place}.lora_A.weight"] = (3, inputs)
            wanted[f"{place}.lora_B.weight"] = (outputs, 3)
    assert {name: tensor.shape for name, tensor in tensors.items()} == wanted
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}


def test_the_settings_are_pefts(tmp_path):
    config = LoraConfig(rank=4, projections=("v", "q"))
    _save(tmp_path / "adapter", _adapters(TINY, config), TINY, config)
    found = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert found["peft_type"] == "LORA" and found["task_type"] == "CAUSAL_LM"
    assert (found["r"], found["lora_alpha"]) == (4, 4)
    assert found["target_modules"] == ["q_proj", "v_proj"]
    assert found["base_model_name_or_path"] == "owner/base"
    assert not any(found[name] for name in ("use_rslora", "use_dora", "fan_in_fan_out"))
    assert (tmp_path / "adapter" / "LICENSE").read_text() == "terms"


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_its_product_is_what_is_merged(tmp_path, kind):
    config, cfg = LORA, TINY
    if kind == "moe":
        config = dataclasses.replace(LORA, projections=("q", "k", "v", "o"))
        experts = {"family": "qwen3_moe", "num_experts": 4, "experts_per_token": 2, "mlp_dim": 8}
        cfg = dataclasses.replace(cfg, **experts)
    adapters = _adapters(cfg, config)
    tensors = _save(tmp_path / "adapter", adapters, cfg, config)
    params = transformer.init_params(cfg, jax.random.key(0))
    merged = lora.merge(params, adapters, config)
    adapted = 0
    for name, row, place in names.hf_names(cfg):
        before, after = (
            names.to_hf(row, np.asarray(names.get(tree, row.path))[place])
            for tree in (params, merged)
        )
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if (a := tensors.get(f"{module}.lora_A.weight")) is None:
            np.testing.assert_array_equal(before, after)
            continue
        adapted += 1
        product = tensors[f"{module}.lora_B.weight"] @ a
        np.testing.assert_allclose(after, before + 0.5 * product, rtol=1e-5, atol=1e-6)
    assert adapted == len(tensors) / 2 == 2 * len(config.projections)


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / "adapter").mkdir()
    with pytest.raises(FileExistsError, match="adapter is there already"):
        _save(tmp_path / "adapter", {}, TINY, LORA)
