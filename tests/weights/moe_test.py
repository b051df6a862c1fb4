"""A mixture of experts from a Hugging Face folder and back: each expert is a tensor there, and all
of them are one array here.
"""

import dataclasses
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.weights import hf
from jssd.weights.checkpoint import Checkpointer
from jssd.weights.files import TensorFiles
from jssd.weights.fingerprint import fingerprint

LAYERS, EXPERTS, WIDTH, MLP = 3, 8, 16, 24
SIZES = {
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": 40,  # Of dense layers. There are none.
    "moe_intermediate_size": MLP,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
MESHES = [  # data, fsdp, tensor, expert, context
    (1, 2, 1, 4, 1),
    (1, 1, 2, 4, 1),
    (1, 2, 2, 2, 1),
    (2, 1, 1, 2, 2),
    (1, 1, 1, 8, 1),
    (1, 4, 2, 1, 1),
]


@dataclasses.dataclass(frozen=True)
class _State:
    params: Any
    opt_state: Any
    step: Any


def _model():
    """A tiny random bfloat16 model of transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("qwen3_moe", **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
            parameter.flatten()[::7] = -0.0  # An export must keep the sign of zero.
    return model.to(torch.bfloat16)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What transformers writes: `one` file, and `many` with the tensors of an expert apart."""
    folder = tmp_path_factory.mktemp("moe")
    model = _model()
    model.save_pretrained(folder / "one")
    model.save_pretrained(folder / "many", max_shard_size="4KB")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """Tensors and config.json of `one`, to be changed and written by the function given."""
    tensors = load_file(saved / "one" / "model.safetensors")
    config = json.loads((saved / "one" / "config.json").read_text())

    def write():
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
        return tmp_path / "copy"

    return tensors, config, write


def _mesh(shape):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices")
    return jax.set_mesh(sharding.make_mesh(MeshConfig(*shape)))


def _bits(value) -> bytes:
    return np.ascontiguousarray(value).tobytes()


def _assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert (one.dtype, _bits(one)) == (other.dtype, _bits(other))


def test_each_expert_of_each_layer_is_where_it_belongs(saved):
    theirs = load_file(saved / "one" / "model.safetensors")
    _, params = hf.load(saved / "one")
    moe = params["blocks"]["moe"]
    assert "mlp" not in params["blocks"]
    assert moe.keys() == {"router", "gate", "up", "down"}
    assert moe["router"].shape == (LAYERS, WIDTH, EXPERTS)
    assert moe["gate"].shape == moe["up"].shape == (LAYERS, EXPERTS, WIDTH, MLP)
    assert moe["down"].shape == (LAYERS, EXPERTS, MLP, WIDTH)
    for layer in range(LAYERS):
        mlp = f"model.layers.{layer}.mlp"
        assert _bits(moe["router"][layer]) == _bits(theirs[f"{mlp}.gate.weight"].T)
        for expert in range(EXPERTS):
            for part in ("gate", "up", "down"):
                weight = theirs[f"{mlp}.experts.{expert}.{part}_proj.weight"]
                assert _bits(moe[part][layer, expert]) == _bits(weight.T)


def test_untouched_weights_come_back_byte_for_byte(saved, tmp_path):
    import torch
    import transformers

    cfg, params = hf.load(saved / "one")
    hf.save(tmp_path / "out", params, cfg, source_folder=saved / "one", base_model="a/moe")
    source, export = (f / "model.safetensors" for f in (saved / "one", tmp_path / "out"))
    assert export.read_bytes() == source.read_bytes()
    assert 'base_model: "a/moe"' in (tmp_path / "out" / "README.md").read_text()
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(folder)
        for folder in (saved / "one", tmp_path / "out")
    )
    tokens = torch.arange(12)[None]
    assert torch.equal(before(tokens).logits, after(tokens).logits)


def test_an_expert_may_lie_in_several_files(saved, tmp_path):
    index = json.loads((saved / "many" / "model.safetensors.index.json").read_text())
    first = {file for name, file in index["weight_map"].items() if ".0.mlp.experts.0." in name}
    assert len(first) > 1
    cfg, params = hf.load(saved / "many")
    _assert_same(params, hf.load(saved / "one")[1])
    out = tmp_path / "out"
    hf.save(out, params, cfg, source_folder=saved / "many", shard_bytes=3000)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 10
    assert all(sum(v.nbytes for v in load_file(file).values()) <= 3000 for file in files)
    merged = {name: value for file in files for name, value in load_file(file).items()}
    save_file(merged, tmp_path / "merged.safetensors", metadata={"format": "pt"})
    one = (saved / "one" / "model.safetensors").read_bytes()
    assert (tmp_path / "merged.safetensors").read_bytes() == one


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_loads_the_same_and_each_device_reads_its_own_part(saved, shape, monkeypatch):
    _, whole = hf.load(saved / "many")
    read, parts = TensorFiles.read, []

    def recorded(files, name, index=None):
        value = read(files, name, index)
        parts.append((name, value.shape, value.nbytes))
        return value

    monkeypatch.setattr(TensorFiles, "read", recorded)
    with _mesh(shape):
        _, params = hf.load(saved / "many")
    _assert_same(params, whole)
    _, fsdp, tensor, expert, context = shape
    gate = params["blocks"]["moe"]["gate"].addressable_shards[0].data
    assert gate.shape == (LAYERS, EXPERTS // expert, WIDTH // (fsdp * context), MLP // tensor)
    # A part of one expert at a time, and every byte exactly once: a part that several devices hold
    # is read once.
    gates = {part for name, part, _ in parts if re.search(r"experts.*gate_proj", name)}
    assert gates == {(MLP // tensor, WIDTH // (fsdp * context))}
    assert sum(size for _, _, size in parts) == sum(leaf.nbytes for leaf in jax.tree.leaves(whole))


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_writes_the_same_bytes_one_tensor_at_a_time(saved, shape, tmp_path, monkeypatch):
    gathered, to_host = [], hf.to_host
    monkeypatch.setattr(hf, "to_host", lambda leaf: gathered.append(leaf.shape) or to_host(leaf))
    with _mesh(shape):
        cfg, params = hf.load(saved / "one")
        hf.save(tmp_path / "out", params, cfg, source_folder=saved / "one")
    source, export = (f / "model.safetensors" for f in (saved / "one", tmp_path / "out"))
    assert export.read_bytes() == source.read_bytes()
    assert gathered.count((WIDTH, MLP)) == 2 * LAYERS * EXPERTS
    assert max(len(shape) for shape in gathered) == 3  # Heads of attention; no stack of experts.


def test_only_one_expert_travels_between_devices(saved):
    with _mesh((1, 2, 1, 4, 1)):
        _, params = hf.load(saved / "one")
    gate = params["blocks"]["moe"]["gate"]
    program = hf._take_sharded.lower(gate, (1, 5), gate.sharding).compile().as_text()
    assert program
    moved = re.findall(r"= (\S+) (all-\w+|collective-\w+)\(", program)
    assert [kind for _, kind in moved] == ["all-reduce"]
    assert re.match(rf"u\d+\[{WIDTH // 2},{MLP}\]", moved[0][0])


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts"])  # transformers 4 and 5.
def test_both_spellings_of_the_number_of_experts_are_read_and_written(copy, tmp_path, name):
    _, config, write = copy
    config[name] = config.pop("num_local_experts")
    folder = write()
    cfg, params = hf.load(folder)
    hf.save(tmp_path / "out", params, cfg, source_folder=folder)
    written = hf.read_config(tmp_path / "out")
    assert cfg.num_experts == written["num_experts"] == written["num_local_experts"] == EXPERTS


def test_missing_extra_and_misshapen_experts_are_one_error(copy):
    tensors, _, write = copy
    experts = "model.layers.1.mlp.experts"
    del tensors[f"{experts}.3.up_proj.weight"]
    tensors[f"{experts}.0.gate_proj.weight"] = np.zeros((WIDTH, MLP), jnp.bfloat16)
    tensors[f"{experts}.8.up_proj.weight"] = np.zeros((MLP, WIDTH), jnp.bfloat16)
    tensors["model.layers.0.mlp.shared_expert.up_proj.weight"] = np.zeros(3, jnp.bfloat16)
    with pytest.raises(ValueError) as error:
        hf.load(write())
    text = str(error.value)
    assert f"missing: {experts}.3.up_proj.weight" in text
    assert f"{experts}.0.gate_proj.weight has shape (16, 24), config.json asks (24, 16)" in text
    assert "not part of a qwen3_moe model: " in text
    assert f"{experts}.8.up_proj.weight" in text
    assert "model.layers.0.mlp.shared_expert.up_proj.weight" in text
    assert "\n" not in text


def test_a_wrong_number_or_width_of_experts_is_told_in_a_line_that_can_be_read(copy):
    _, config, write = copy
    config["num_local_experts"] = 4
    with pytest.raises(ValueError, match=r"not part of a qwen3_moe model: .* and 24 more") as error:
        hf.load(write())
    assert "model.layers.0.mlp.gate.weight has shape (8, 16), config.json asks (4, 16)" in str(
        error.value
    )
    config["num_local_experts"], config["moe_intermediate_size"] = EXPERTS, 6
    with pytest.raises(ValueError, match=r"config\.json asks \(16, 6\).* and 60 more") as error:
        hf.load(write())
    assert len(str(error.value)) < 2000


def test_experts_of_different_dtypes_need_a_dtype(copy):
    tensors, _, write = copy
    name = "model.layers.2.mlp.experts.7.down_proj.weight"
    tensors[name] = tensors[name].astype(np.float32)
    with pytest.raises(ValueError, match=r"down_proj.weight is BF16 and F32.*model.dtype"):
        hf.load(write())


def test_params_without_their_experts_are_refused(saved, tmp_path):
    cfg, params = hf.load(saved / "one")
    moe = params["blocks"]["moe"]
    wrong = {"router": moe["router"], "gate": moe["gate"][:, :4], "up": moe["up"]}
    params = {**params, "blocks": {**params["blocks"], "moe": wrong}}
    with pytest.raises(ValueError) as error:
        hf.save(tmp_path / "out", params, cfg, source_folder=saved / "one")
    assert "blocks.moe.down is missing" in str(error.value)
    assert "blocks.moe.gate has shape (3, 4, 16, 24), expected (3, 8, 16, 24)" in str(error.value)


def test_a_checkpoint_of_experts_comes_back_on_another_mesh(saved, tmp_path):
    _, whole = hf.load(saved / "one")
    with _mesh((1, 2, 1, 4, 1)), Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
        cfg, params = hf.load(saved / "one")
        checkpointer.save(1, _State(params, {}, jnp.int32(1)), None, {"loss": 1.0})
        checkpointer.wait()
    with _mesh((1, 1, 2, 2, 2)), Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
        like = transformer.abstract_params(cfg, jnp.bfloat16)
        found = checkpointer.restore_params("latest", like)
        gate = found["blocks"]["moe"]["gate"].addressable_shards[0].data
        assert gate.shape == (LAYERS, EXPERTS // 2, WIDTH // 2, MLP // 2)
        assert fingerprint(found) == fingerprint(whole)
    _assert_same(found, whole)


def test_the_fingerprint_does_not_depend_on_where_the_experts_are(saved):
    _, params = hf.load(saved / "one")
    whole = fingerprint(params)
    for shape in MESHES[:3]:
        with _mesh(shape):
            assert fingerprint(hf.load(saved / "one")[1]) == whole
    moe = params["blocks"]["moe"]
    swapped = {**moe, "gate": moe["gate"][:, ::-1]}
    assert fingerprint({**params, "blocks": {**params["blocks"], "moe": swapped}}) != whole
