"""Stage plan: what is compiled, what is kept, what is told. And real compilers, where installed."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest

from jssd.config import Config, ModelSource, PromptsConfig, TrainConfig
from jssd.main import run_stages
from jssd.plan import compiles
from jssd.stages import plan, report, run_files
from tests import formats

GIB = 2**30
TINY = {
    "model_type": "qwen3", "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(TINY))
    made = Config(
        name="tiny",
        model=ModelSource(str(tmp_path / "model"), compute_dtype="bfloat16"),
        prompts=PromptsConfig(source="tasks:train"),
        train=TrainConfig(global_batch_size=8, seq_len=256, loss_chunk=64),
        hardware="v5e-8",
    )
    made.engine.slots = 16
    made.sampling.max_new_tokens = 192
    made.plan.prompt_tokens = 64
    made.plan.optimization = "O1"
    return made


class Fake:
    """Stands in for the worker: figures by arithmetic, and a count of what was asked for."""

    def __init__(self, needed=1 * GIB):
        self.needed, self.asked = needed, []

    def __call__(self, request, config):
        program, slots = request["program"], request["slots"] or config.engine.slots
        self.asked.append((program, request["hardware"], slots))
        held = {"params": 1e9, "cache": slots * 1e8} if program != "train" else {
            "params": 1e9, "optimizer": 2e9, "batch": 1e6
        }  # fmt: skip
        needed = self.needed if program == "train" else sum(held.values()) + slots * 1e6
        result = {
            "program": program, "devices": 8, "bytes": held, "params": 1e6, "groups": 8,
            "mesh": {**request["mesh"], "fsdp": 8}, "slots": slots, "slot_bytes": 1e8,
            "memory": {"needed": needed, "available": 15.75 * GIB, "fits": needed <= 15.75 * GIB},
            "collectives": {"fsdp": {"all-gather": 3e9}},
            "seconds": {"links": 0.5, "network": 0.0},
        }  # fmt: skip
        if program == "train":
            result["flops"] = {
                "step": 4e15, "device": 5e14, "without_remat": 3e15, "model": 2e15
            }  # fmt: skip
        if needed > 15.75 * GIB:
            result["complaint"] = {"kind": "memory", "text": "needs too much", "wanted": needed}
        return result


@pytest.fixture
def fake(monkeypatch):
    worker = Fake()
    monkeypatch.setattr(compiles, "_run", worker)
    monkeypatch.setattr(plan.absent, "check_compiler", lambda hardware: None)
    return worker


def test_what_was_compiled_is_not_compiled_again(config, tmp_path, fake, capsys):
    first = plan.run(config, tmp_path / "run")
    asked = list(fake.asked)
    assert [program for program, _, _ in asked] == ["train", "prefill", "decode", "decode"]
    assert plan.run(config, tmp_path / "run") == first
    assert fake.asked == asked
    config.train.seq_len = 512  # Of the train step only.
    plan.run(config, tmp_path / "run")
    assert fake.asked[len(asked) :] == [("train", "v5e-8", 16)]
    told = capsys.readouterr().out
    assert "tiny fits on v5e-8: 8 x TPU v5 lite, 15.75 GiB each, mesh fsdp 8" in told
    assert "all-gather" in told and "assumed:" in told
    assert json.loads((tmp_path / "run" / "plan" / "plan.json").read_text())["fits"] is True
    assert formats.compare(tmp_path / "run") == ({"config.json", "plan/plan.json"}, [])


def test_figures_follow_from_the_compile(config, tmp_path, fake):
    made = plan.run(config, tmp_path)["programs"]["train"]
    assert made["times"]["compute"] == 5e14 / 197e12 == made["times"]["bound"]
    assert made["rates"]["remat_overhead"] == pytest.approx(1 / 3)
    assert made["rates"]["written_over_model"] == 2.0
    assert made["rates"]["mfu_bound"] == pytest.approx(0.5)  # Twice the model's own FLOPs.


def test_slots_are_found_by_arithmetic_and_confirmed(config, tmp_path, fake):
    slots = plan.run(config, tmp_path)["slots"]
    # 15.75 GiB less 1 GB of weights, 0.101 GB a slot, in whole groups of eight.
    expected = int((15.75 * GIB - 1e9) / 1.01e8 / 8) * 8
    assert slots["most"] == expected and ("decode", "v5e-8", expected) in fake.asked
    assert slots["by_length"][256] == expected < slots["by_length"][128]


def test_a_step_that_does_not_fit_is_told_and_the_rest_goes_on(config, tmp_path, fake, capsys):
    fake.needed = 20 * GIB
    made = plan.run(config, tmp_path)
    assert made["fits"] is False and made["slots"]["most"] > 0
    told = capsys.readouterr().out
    assert "tiny does not fit on v5e-8" in told and "train: needs too much" in told


def test_a_search_takes_the_smallest_that_fits(config, tmp_path, fake):
    config.hardware, config.plan.search = "v5e-16", True
    made = plan.run(config, tmp_path)
    assert made["hardware"] == "v5e-1" == made["search"][0]["hardware"]
    fake.needed = 20 * GIB
    config.train.seq_len = 512
    with pytest.raises(ValueError, match=r"no mesh of v5e-1 up to v5e-16 fits.*needs too much"):
        plan.run(config, tmp_path)


def test_the_report_shows_the_plan(config, tmp_path, fake):
    run_stages(config, tmp_path, ["plan"])
    found = run_files.read_plan(tmp_path)
    assert found is not None and found["hardware"] == "v5e-8"
    report.run([tmp_path], tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Plan for v5e-8" in page and "needs" in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hardware": ""}, "hardware='' must say what the plan is for"),
        ({"hardware": "v5e-9"}, r"v5e-\{1, 4, 8"),
        ({"model": ModelSource("nobody/nothing")}, "a plan fetches nothing"),
    ],
)
def test_mistakes_are_told_before_anything_is_compiled(config, tmp_path, fake, changes, words):
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        plan.run(config, tmp_path)
    assert not fake.asked


def test_a_compiler_that_is_not_installed_says_how_to_get_it(config, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"libtpu, is not installed. Run: pip install"):
        plan.run(config, tmp_path)


def test_a_plan_asks_jax_for_no_device():
    code = "import sys, jssd.stages.plan; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_worker_that_dies_is_a_complaint_and_is_tried_again(config, tmp_path, monkeypatch):
    monkeypatch.setattr(plan.absent, "check_compiler", lambda hardware: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    config.plan.programs = ("train",)
    made = plan.run(config, tmp_path)
    assert made["programs"]["train"]["complaint"]["kind"] == "crash"
    assert not list((tmp_path / "plan").glob("compiles/*"))


def test_a_compile_is_no_hang_and_ends_at_its_own_limit(config, tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    beats = []
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(compiles, "_BEAT", 0.1)
    monkeypatch.setattr(compiles.phases, "beat", lambda: beats.append(0))
    config.plan.timeout = 1.0
    started = time.monotonic()
    result = compiles._run({}, config)
    assert result["complaint"]["kind"] == "timeout" and len(beats) > 2
    assert time.monotonic() - started < 30


def _installed(module):
    """Or expected: a CI without compilers is to fail, not to pass over the half of this."""
    if os.environ.get("CI") == "true":
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


needs_tpu = pytest.mark.skipif(not _installed("libtpu"), reason="libtpu is not installed")
needs_gpu = pytest.mark.skipif(
    not _installed("jax_plugins.xla_cuda13"), reason="the CUDA plugin is not installed"
)


@needs_tpu
def test_a_tpu_plan(config, tmp_path):
    config.mesh.tensor = 2
    made = plan.run(config, tmp_path)
    assert made["fits"], made
    train = made["programs"]["train"]
    # Float32 weights split over eight, norms whole on each; two moments are twice that.
    assert train["bytes"]["params"] == pytest.approx(4 * train["params"] / 8, rel=0.02)
    assert train["bytes"]["optimizer"] == pytest.approx(2 * train["bytes"]["params"], rel=0.001)
    assert train["memory"]["arguments"] >= train["bytes"]["params"] * 3
    assert any("fsdp" in axes for axes in train["collectives"])
    assert train["flops"]["step"] >= train["flops"]["without_remat"] >= train["flops"]["model"]
    assert made["programs"]["decode"]["mesh"] == {"data": 4, "expert": 1, "tensor": 2}
    assert made["slots"]["most"] > 0


@needs_tpu
def test_a_tpu_plan_that_does_not_fit_is_readable(config, tmp_path):
    config.plan.programs = ("train",)
    config.train.global_batch_size, config.train.seq_len, config.train.remat = 8192, 4096, "none"
    made = plan.run(config, tmp_path)
    complaint = made["programs"]["train"]["complaint"]
    assert complaint["kind"] == "memory" and "of a device's 15.75 GiB" in complaint["text"]
    assert made["programs"]["train"]["largest"]


@needs_tpu
def test_a_search_with_a_real_compiler(config, tmp_path, capsys):
    config.plan.programs, config.plan.search, config.plan.tries = ("train",), True, 1
    config.train.remat, config.train.seq_len = "none", 1024
    config.train.global_batch_size = 512  # 26 GiB of activations in all.
    config.hardware = "v5e-8"
    made = plan.run(config, tmp_path)
    assert made["hardware"] == "v5e-4" and made["fits"]
    assert [one["hardware"] for one in made["search"]] == ["v5e-1", "v5e-4"]
    assert made["search"][0]["complaint"]["kind"] == "memory"
    assert made["mesh"] == made["search"][1]["mesh"]
    assert capsys.readouterr().err.count("compiling") == 2
    assert plan.run(config, tmp_path) == made  # Kept, as after a kill.
    config.hardware = "v5e-1"
    with pytest.raises(ValueError, match=r"no mesh of v5e-1 up to v5e-1 fits; on v5e-1 .*needs"):
        plan.run(config, tmp_path)
    assert "compiling" not in capsys.readouterr().err


@needs_tpu
def test_a_mesh_that_does_not_divide_is_a_complaint(config, tmp_path):
    config.plan.programs = ("train",)
    config.mesh.tensor = 4
    made = plan.run(config, tmp_path)
    assert (
        "num_kv_heads=2 must be a multiple of mesh tensor=4"
        in (made["programs"]["train"]["complaint"]["text"])
    )


@needs_tpu
def test_two_slices_meet_in_data_only(config, tmp_path):
    config.hardware, config.plan.programs = "2xv5e-4", ("train",)
    config.mesh.data = 2
    train = plan.run(config, tmp_path)["programs"]["train"]
    assert train["mesh"]["data"] == 2 and train["seconds"]["network"] > 0
    # Gradients are summed over the slices, each device its share of them, in bfloat16 at least.
    assert train["collectives"]["data"]["all-reduce"] > 2 * train["params"] / 4 * 0.5


@needs_gpu
def test_a_gpu_plan(config, tmp_path):
    config.hardware, config.plan.programs = "b200x8", ("train",)
    made = plan.run(config, tmp_path)
    assert made["fits"] and made["kind"] == "NVIDIA B200"
    assert made["programs"]["train"]["collectives"]["fsdp"]["all-gather"] > 0
    assert os.environ.get("JAX_PLATFORMS") == "cpu"


@needs_gpu
def test_a_gpu_plan_of_unpacked_rows_has_cudnns_attention(config, tmp_path):
    config.hardware, config.plan.programs = "b200x8", ("train",)
    config.train.packing, config.train.seq_len = "none", 1024  # As the presets' rows, but shorter.
    train = plan.run(config, tmp_path)["programs"]["train"]
    assert "complaint" not in train
    # Forward, recomputed and backward: a name for each direction.
    assert [name for name in train["custom_calls"] if "cudnn$fmha" in name] == [
        "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"
    ]  # fmt: skip
    assert any("dot_product_attention" in name for name in train["flops"]["kernels"])
