"""The presets' architectures, one layer deep, compiled for the kinds of chip that their notes have
a mesh for: with that mesh, that chip's attention, and gradients that are never summed whole.

Rows are cut to 4,096 tokens: a compile's time follows the program, not its sizes, and so each is
seconds. The notes' own figures are of full depth and 65,536 tokens.
"""

import dataclasses
import os
import pathlib

import pytest

from jssd.config import MeshConfig
from jssd.plan import absent, architectures, compiles, hardware
from launch import plans
from tests.configs_test import load

ROOT = pathlib.Path(__file__).parents[2]
PRESETS = ("qwen3_4b_instruct", "llama31_8b_instruct", "qwen3_30b_a3b_instruct")
MODELS = ("v5e", "v5p", "v6e", "tpu7x", "b200")
# Seconds of one core: 11 to 22 for B200, on TPUs 47 a dense layer, 68 one of experts, 34 to decode.
# So all architectures on B200, and each TPU with something; all fifteen steps, of some eleven
# minutes, with JSSD_TEST_PRESETS=all.
CASES = [(preset, model) for preset in PRESETS for model in MODELS]
if os.environ.get("JSSD_TEST_PRESETS") != "all":
    CASES = [
        *((preset, "b200") for preset in PRESETS),
        ("qwen3_4b_instruct", "v5e"),
        ("qwen3_30b_a3b_instruct", "v5p"),
        ("llama31_8b_instruct", "tpu7x"),
    ]


def _case(preset, model):
    """The preset cut short, with the mesh of its note for the smallest slice of a kind of chip."""
    plan = plans.smallest(preset, model)
    assert plan is not None, f"results/plans has none of {preset} for {model}."
    config, _ = load(ROOT / "configs" / f"{preset}.py")
    config.mesh = MeshConfig(**plan["mesh"])
    config.train = dataclasses.replace(config.train, grad_accum=plan["grad_accum"], seq_len=4096)
    config.sampling.max_new_tokens, config.plan.prompt_tokens = 3072, 1024
    config.plan.layers, config.plan.optimization = 1, "O1"
    return config, hardware.parse(plan["hardware"])


def _compile(config, target, program, folder):
    try:
        absent.check_compiler(target)
    except ValueError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    cfg, _ = architectures.read(config.model, config.plan.layers)
    return compiles.compile_program(folder, config, cfg, target, program)


@pytest.mark.parametrize(("preset", "model"), CASES)
def test_a_step_of_one_layer(preset, model, tmp_path):
    config, target = _case(preset, model)
    result = _compile(config, target, "train", tmp_path)
    assert "complaint" not in result, result["complaint"]["text"]
    assert result["memory"]["fits"] and result["devices"] == target.num_devices
    kernels, calls = " ".join(result["flops"]["kernels"]), " ".join(result["custom_calls"])
    if target.chip.platform == "tpu":
        assert "splash" in kernels and "tpu_custom_call" in calls
        # A grouped product without a kernel would be one with every expert.
        written = result["flops"]["device"] / config.train.grad_accum
        assert 0 < result["compiler_flops"] < written and "note" not in result
        return
    assert "dot_product_attention" in kernels and "fmhaSoftmaxBackward" in calls
    # Weights' gradients leave as reduce-scatters. Summed whole are those of norms, kilobytes.
    cfg, _ = architectures.read(config.model, 1)
    smallest = 4 * cfg.embed_dim * (cfg.num_experts or cfg.num_kv_heads * cfg.head_dim)
    sent = {
        kind: sum(kinds.get(kind, 0) for kinds in result["collectives"].values())
        for kind in ("all-reduce", "reduce-scatter")
    }
    assert sent["all-reduce"] < smallest < sent["reduce-scatter"], sent


@pytest.mark.parametrize(
    ("preset", "model", "call"),
    [("qwen3_30b_a3b_instruct", "v6e", "tpu_custom_call"), ("qwen3_4b_instruct", "b200", "triton")],
)
def test_decoding_of_one_layer(preset, model, call, tmp_path):
    config, target = _case(preset, model)
    result = _compile(config, target, "decode", tmp_path)
    assert "complaint" not in result, result["complaint"]["text"]
    assert result["memory"]["fits"]
    assert any(call in name for name in result["custom_calls"]), result["custom_calls"]
    if model == "v6e":  # Four devices on a host, and expert 8 in training.
        assert result["mesh"] == {"data": 1, "expert": 4, "tensor": 1}
        assert "over 4 devices, not over mesh.expert=8" in result["note"]
