"""What is read from a config.json, in either spelling, and what is refused by name."""

import dataclasses
import json

import jax
import pytest

from jssd.model import transformer
from jssd.model.config import Llama3Scaling, ModelConfig, Rope, from_hf

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


MOE = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "head_dim": 8,
    "norm_topk_prob": True,
}


def _config(family="llama", /, **changes):
    return {**LLAMA, "model_type": family, **changes}


def _moe(**changes):
    return _config("qwen3_moe", **{**MOE, **changes})


def test_every_field_of_a_plain_llama():
    assert from_hf(LLAMA) == ModelConfig(
        family="llama",
        vocab_size=64,
        embed_dim=24,
        mlp_dim=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        max_seq_len=512,
        norm_eps=1e-5,
        rope=Rope(10000.0),
        tied_head=False,
    )
    assert from_hf(LLAMA).num_groups == 2
    hash(from_hf(LLAMA))  # Static under jit.


def test_both_spellings_say_the_same():
    four = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **SCALING}}
    five = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **SCALING}}
    wanted = Rope(5e5, Llama3Scaling(8.0, 1.0, 4.0, 128))
    assert from_hf(_config(**four, torch_dtype="bfloat16")).rope == wanted
    assert from_hf(_config(**five, dtype="bfloat16")).rope == wanted
    assert from_hf(_config(**four, **five)).rope == wanted
    old_name = {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **SCALING}}
    assert from_hf(_config(**old_name)).rope == wanted
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    assert from_hf(_config(**plain)).rope == Rope(7.0)
    assert from_hf(_config(rope_theta=7.0, rope_scaling=None)).rope == Rope(7.0)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 3.0, "rope_scaling": {"rope_theta": 5.0, "rope_type": "default"}},
        {
            "rope_theta": 3.0,
            "rope_scaling": {"rope_type": "llama3", **SCALING},
            "rope_parameters": {"rope_type": "default", "rope_theta": 5.0},
        },
        {"rope_theta": 3.0, "rope_parameters": {"rope_type": "default"}},
    ],
)
def test_mixed_spellings_are_read_as_transformers_reads_them(rope):
    import transformers

    theirs = dict(transformers.LlamaConfig(**_config(**rope)).rope_parameters or {})
    ours = from_hf(_config(**rope)).rope
    assert ours.theta == theirs["rope_theta"]
    assert (ours.scaling is not None) == (theirs["rope_type"] == "llama3")


def test_null_is_the_same_as_silence():
    silent = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
    nulls = dict.fromkeys(("head_dim", "num_key_value_heads", "rope_scaling"))
    assert from_hf({**silent, **nulls}) == from_hf(silent)
    assert from_hf(silent).num_kv_heads == 4


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "qwen3_moe"])
def test_silence_means_what_it_means_to_transformers(family):
    import transformers

    named = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    named += ("num_attention_heads", "num_key_value_heads")
    sizes = {name: LLAMA[name] for name in named}
    theirs = transformers.AutoConfig.for_model(family, **sizes)
    ours = from_hf({"model_type": family, **sizes})
    assert ours.max_seq_len == theirs.max_position_embeddings
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.tied_head == theirs.tie_word_embeddings
    assert ours.head_dim == getattr(theirs, "head_dim", 6)
    if family == "qwen3_moe":
        assert ours.mlp_dim == theirs.moe_intermediate_size == 768
        assert ours.num_experts == theirs.num_experts == 128
        assert ours.experts_per_token == theirs.num_experts_per_tok == 8
        assert ours.norm_topk_prob == theirs.norm_topk_prob is False
    else:
        assert (ours.is_moe, ours.num_experts, ours.experts_per_token) == (False, 0, 0)


@pytest.mark.parametrize(
    "names", [("num_experts",), ("num_local_experts",), ("num_experts", "num_local_experts")]
)
def test_the_number_of_experts_in_every_spelling(names, tmp_path):
    import transformers

    config = _moe(**dict(zip(names, (6, 4))))
    if "num_experts" not in names:
        del config["num_experts"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert from_hf(config).num_experts == theirs.num_experts


def test_every_field_of_a_mixture_of_experts():
    cfg = from_hf(_moe())
    assert (cfg.num_experts, cfg.experts_per_token, cfg.norm_topk_prob) == (8, 2, True)
    assert (cfg.mlp_dim, cfg.qk_norm, cfg.is_moe) == (12, True, True)
    assert from_hf(_moe(norm_topk_prob=None)).norm_topk_prob is False
    # No layer has the width of a dense MLP, so it need not be there.
    config = _moe()
    del config["intermediate_size"]
    assert from_hf(config) == cfg
    nothing_on = {"mlp_only_layers": [], "decoder_sparse_step": 1, "use_sliding_window": False}
    assert from_hf(_moe(**nothing_on, shared_expert_intermediate_size=0)) == cfg
    assert from_hf(_moe(mlp_only_layers=None, sliding_window=None)) == cfg


def test_head_dim():
    assert from_hf(_config("qwen3")).head_dim == 128  # Not hidden_size / num_attention_heads.
    assert from_hf(_config("qwen3", head_dim=8)).head_dim == 8
    assert from_hf(_config("qwen2")).head_dim == 6
    assert from_hf(_config(head_dim=10)).head_dim == 10


@pytest.mark.parametrize(
    ("family", "changes", "wanted"),
    [  # qkv_bias, o_bias, mlp_bias, qk_norm
        ("llama", {}, (False, False, False, False)),
        ("llama", {"attention_bias": True}, (True, True, False, False)),
        ("llama", {"mlp_bias": True}, (False, False, True, False)),
        ("qwen2", {}, (True, False, False, False)),
        ("qwen3", {}, (False, False, False, True)),
        ("qwen3", {"attention_bias": True}, (True, True, False, True)),
    ],
)
def test_biases_and_norms_of_each_family(family, changes, wanted):
    cfg = from_hf(_config(family, **changes))
    assert (cfg.qkv_bias, cfg.o_bias, cfg.mlp_bias, cfg.qk_norm) == wanted


def _rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, **more}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type='mistral' is not supported. Supported: llama, "),
        ({"model_type": None}, "model_type=None is not supported"),
        (_rope("yarn"), "rope type 'yarn' is not supported"),
        (_rope("linear"), "rope type 'linear' is not supported"),
        (_rope("dynamic"), "rope type 'dynamic' is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope type 'yarn' is not supported"),
        (_rope("llama3"), "rope llama3 lacks low_freq_factor; rope llama3 lacks high_freq_factor"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
            "rope settings by layer type are not supported",
        ),
        (_rope("default", partial_rotary_factor=0.5), "partial_rotary_factor other than 1"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor other than 1"),
        (
            {"rope_scaling": {"type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor other than 1",
        ),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1},
            "sliding window attention (use_sliding_window) is not supported",
        ),
        (
            {"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types ['sliding_attention'] are not supported, full_attention is",
        ),
        ({"quantization_config": {"bits": 4}}, "quantised weights (quantization_config)"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not silu"),
        (_moe(mlp_only_layers=[0, 1]), "mlp_only_layers=[0, 1] is not supported"),
        (_moe(decoder_sparse_step=2), "decoder_sparse_step=2 is not supported"),
        (
            _moe(shared_expert_intermediate_size=16),
            "shared experts (shared_expert_intermediate_size=16) are not supported",
        ),
        (_moe(n_shared_experts=1), "shared experts (n_shared_experts=1) are not supported"),
        (
            _moe(num_experts_per_tok=9),
            "num_experts_per_tok=9 must lie between 1 and the 8 experts",
        ),
        (_moe(num_experts_per_tok=0), "num_experts_per_tok=0 must lie between 1"),
        (_moe(num_local_experts=0), "must lie between 1 and the 0 experts"),
        (
            # transformers has one window for all layers here.
            _moe(use_sliding_window=True, max_window_layers=2),
            "sliding window attention (use_sliding_window) is not supported",
        ),
        (
            {"num_key_value_heads": 3},
            "num_attention_heads=4 must be a multiple of num_key_value_heads=3",
        ),
    ],
)
def test_refused_by_name(changes, message):
    with pytest.raises(ValueError) as caught:
        from_hf(_config() | changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_comes_in_one_message():
    config = _config("qwen2", hidden_act="relu", rope_scaling={"type": "yarn"})
    for name in ("vocab_size", "num_hidden_layers", "num_key_value_heads"):
        del config[name]
    with pytest.raises(ValueError) as caught:
        from_hf(config)
    for part in ("vocab_size is missing", "num_hidden_layers is missing", "'yarn'", "'relu'"):
        assert part in str(caught.value)
    assert "num_key_value_heads is missing" in str(caught.value)


def test_settings_that_switch_nothing_on_are_accepted():
    window_not_in_use = {"use_sliding_window": False, "sliding_window": 4096}
    assert from_hf(_config("qwen2", **window_not_in_use)) == from_hf(_config("qwen2"))
    # transformers gives the window to layers from max_window_layers on: to none of these two.
    none_in_use = {"use_sliding_window": True, "max_window_layers": 2}
    assert from_hf(_config("qwen2", **none_in_use)) == from_hf(_config("qwen2"))
    full = {"layer_types": ["full_attention"] * 2, "use_sliding_window": True}
    assert from_hf(_config("qwen3", **full)) == from_hf(_config("qwen3"))
    assert from_hf(_config(hidden_act="swish", partial_rotary_factor=1.0)) == from_hf(LLAMA)


def test_a_mixture_of_experts_is_read_but_not_built():
    cfg = from_hf(_moe())
    assert (cfg.family, cfg.qk_norm) == ("qwen3_moe", True)
    with pytest.raises(ValueError, match="'qwen3_moe': the mixture-of-experts block is not impl"):
        transformer.init_params(cfg, jax.random.key(0))
    with pytest.raises(ValueError, match="mixture-of-experts"):
        transformer.abstract_params(cfg)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_hf(LLAMA).vocab_size = 1  # pyright: ignore[reportAttributeAccessIssue]
