"""What is asked before anything is loaded: a config.json, and no weights, is enough."""

import json

import jax
import pytest

from jssd import hosts, sharding
from jssd.config import Config, MeshConfig, ModelSource, TrainConfig
from jssd.stages import context

MODEL = {
    "model_type": "qwen3_moe", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64,
    "moe_intermediate_size": 16, "num_experts": 8, "num_experts_per_tok": 2,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MODEL))
    config = Config(
        model=ModelSource(str(tmp_path / "model")),
        mesh=MeshConfig(expert=8),
        train=TrainConfig(global_batch_size=8, seq_len=256),
    )
    return context.Run(config, tmp_path / "run", sharding.make_mesh(config.mesh))


def test_rows_and_slots_are_asked_about_before_any_weight_is_read(run):
    run.config.train.global_batch_size, run.config.engine.slots = 12, 12
    with pytest.raises(ValueError, match=r"global_batch_size=12 must.*engine\.slots=12 must"):
        context.check(run, ["sample", "sft"])
    with pytest.raises(ValueError, match=r"^engine\.slots=12 must"):
        context.check(run, ["sample"])
    context.check(run, ["export", "report"])


def test_a_host_that_samples_with_fewer_experts_a_device_says_so(run, monkeypatch, capsys):
    context.check(run, ["sample"])
    assert capsys.readouterr().out == ""
    devices = jax.devices()
    monkeypatch.setattr(hosts, "_by_host", lambda mesh: {0: devices[:4], 1: devices[4:]})
    context.check(run, ["sample"])
    assert capsys.readouterr().out == (
        "sampling splits experts over 4 devices, not over mesh.expert=8: each of the hosts has 4 "
        "devices and samples by itself\n"
    )
    context.check(run, ["sft"])
    assert capsys.readouterr().out == ""


def test_a_model_that_is_nowhere_is_named(run):
    run.config.model.path = "no/such/model/here"
    with pytest.raises(FileNotFoundError, match="no/such/model/here"):
        context.check(run, ["sample"])
