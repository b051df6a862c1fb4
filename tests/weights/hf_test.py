"""Tests of Hugging Face folders: what comes in goes out byte for byte, and what is wrong is refused
in one line.
"""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jssd import sharding
from jssd.config import MeshConfig
from jssd.weights import hf, names
from jssd.weights.files import TensorFiles

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
KINDS = {
    "llama_tied": ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama_biases": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 6}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 8}),
}


def _transformers_model(kind: str):
    """A tiny random bfloat16 model of transformers."""
    import torch
    import transformers

    family, extra = KINDS[kind]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SIZES, **extra)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # Norms and biases are constant at first.
            parameter.copy_(torch.randn_like(parameter))
    return model.to(torch.bfloat16)


@pytest.fixture(scope="module", params=list(KINDS))
def saved(request, tmp_path_factory):
    """A folder that transformers wrote as one file."""
    folder = tmp_path_factory.mktemp(request.param)
    _transformers_model(request.param).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tmp_path):
    """A tied float32 llama folder, written without torch."""
    return _write(tmp_path / "tiny")


def _write(folder, **changes):
    folder.mkdir()
    config = {"model_type": "llama", "tie_word_embeddings": True, "eos_token_id": 2, **SIZES}
    config |= changes | {"rope_theta": 1000.0, "torch_dtype": "float32", "custom": [1, 2]}
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    cfg = hf.model_config.from_hf(config)
    tensors = {
        name: rng.normal(size=names.hf_shape(row, cfg)).astype(np.float32)
        for name, row, _ in names.hf_names(cfg)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _values(folder) -> dict[str, tuple]:
    """Name -> (dtype, shape, bytes) of every tensor of a folder."""
    files = TensorFiles(folder)
    found = {}
    for name in files.tensors:
        value = files.read(name)
        found[name] = (value.dtype.name, value.shape, value.tobytes())
    return found


def test_untouched_weights_come_back_byte_for_byte(saved, tmp_path):
    cfg, params = hf.load(saved)
    hf.save(tmp_path / "out", params, cfg, source_folder=saved)
    assert _values(tmp_path / "out") == _values(saved)
    source, export = (f / "model.safetensors" for f in (saved, tmp_path / "out"))
    assert export.read_bytes() == source.read_bytes()
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()


def test_transformers_reads_an_export_with_the_same_config_and_logits(saved, tmp_path):
    import torch
    import transformers

    cfg, params = hf.load(saved)
    hf.save(tmp_path / "out", params, cfg, source_folder=saved)
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(folder)
        for folder in (saved, tmp_path / "out")
    )
    assert after.config.rope_parameters == before.config.rope_parameters
    assert after.dtype == torch.bfloat16
    tokens = torch.arange(12)[None]
    assert torch.equal(before(tokens).logits, after(tokens).logits)


def test_sharded_folders_are_read_and_written(tmp_path):
    model = _transformers_model("qwen3")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    model.save_pretrained(tmp_path / "single")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    cfg, params = hf.load(tmp_path / "sharded")
    _, same = hf.load(tmp_path / "single")
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), params, same)))
    out = tmp_path / "out"
    hf.save(out, params, cfg, source_folder=tmp_path / "sharded", shard_bytes=5000)
    assert _values(out) == _values(tmp_path / "single")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    sizes = {
        file.name: sum(v.nbytes for v in load_file(file).values())
        for file in out.glob("*.safetensors")
    }
    assert set(index["weight_map"].values()) == set(sizes)
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert max(sizes.values()) <= 5000
    reread = type(model).from_pretrained(out).state_dict()
    assert all((reread[name] == value).all() for name, value in model.state_dict().items())


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("tensor", "padded"), [(2, 14), (4, 16), (8, 16)])
def test_a_padded_vocabulary_is_exported_as_it_was_read(tmp_path, tensor, padded, tied):
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    source = _write(tmp_path / "odd", vocab_size=13, tie_word_embeddings=tied, **heads)
    with jax.set_mesh(sharding.make_mesh(MeshConfig(1, 8 // tensor, tensor))):
        cfg, params = hf.load(source)
        hf.save(tmp_path / "out", params, cfg, source_folder=source)
    embed = np.asarray(params["embed"])
    assert embed.shape == (padded, 16) and embed[:13].all() and not embed[13:].any()
    assert _values(tmp_path / "out") == _values(source)
    # On one device nothing asks for padding: such rows are of another model.
    whole = jax.device_put(params, jax.devices()[0])
    with pytest.raises(ValueError, match=rf"embed has shape \({padded}, 16\), expected \(13, 16\)"):
        hf.save(tmp_path / "other", whole, cfg, source_folder=source)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
def test_every_mesh_loads_the_same_values_and_each_device_reads_its_part(tiny, shape, monkeypatch):
    _, whole = hf.load(tiny)
    sizes = []
    read = TensorFiles.read
    monkeypatch.setattr(
        TensorFiles, "read", lambda *args: sizes.append((value := read(*args)).size) or value
    )
    with jax.set_mesh(sharding.make_mesh(MeshConfig(*shape))):
        cfg, params = hf.load(tiny)
        for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(whole)):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
        hf.save(tiny.with_name("out"), params, cfg, source_folder=tiny)
    gate = params["blocks"]["mlp"]["gate"]
    assert gate.addressable_shards[0].data.size == gate.size // (shape[1] * shape[2])
    # A part that several devices hold is read once: the split weights are read exactly once in all.
    total = sum(leaf.size for leaf in jax.tree.leaves(whole))
    assert sum(sizes) == total
    assert _values(tiny.with_name("out")) == _values(tiny)


def test_a_dtype_is_only_changed_when_asked(tiny, tmp_path):
    cfg, params = hf.load(tiny, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    hf.save(tmp_path / "same", params, cfg, source_folder=tiny)
    assert {stored.code for stored in TensorFiles(tmp_path / "same").tensors.values()} == {"F32"}
    hf.save(tmp_path / "half", params, cfg, source_folder=tiny, dtype="bfloat16")
    assert {stored.code for stored in TensorFiles(tmp_path / "half").tensors.values()} == {"BF16"}
    config = hf.read_config(tmp_path / "half")
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_mixed_dtypes_survive_a_round_trip(tiny, tmp_path):
    tensors = load_file(tiny / "model.safetensors")
    mixed = {
        name: value if "norm" in name else value.astype(jnp.bfloat16)
        for name, value in tensors.items()
    }
    save_file(mixed, tiny / "model.safetensors", metadata={"format": "pt"})
    cfg, params = hf.load(tiny)
    assert params["final_norm"].dtype == jnp.float32
    assert params["embed"].dtype == jnp.bfloat16
    # Trained copies are float32 throughout; the export still follows the source, tensor by tensor.
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    hf.save(tmp_path / "out", wide, cfg, source_folder=tiny)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        tiny / "model.safetensors"
    ).read_bytes()


def test_config_changes_only_in_dtype_and_gains_the_other_rope_spelling(tiny, tmp_path):
    cfg, params = hf.load(tiny)
    hf.save(tmp_path / "out", params, cfg, source_folder=tiny)
    source, export = hf.read_config(tiny), hf.read_config(tmp_path / "out")
    assert {key: export[key] for key in source} == source
    assert {key: export[key] for key in export.keys() - source.keys()} == {
        "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
        "rope_scaling": None,
        "dtype": "float32",
    }


def test_rope_scaling_is_written_in_both_spellings_whichever_the_source_has():
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    old = {"rope_theta": 500000.0, "rope_scaling": scaling}
    new = {"rope_parameters": LLAMA3}
    for source in (old, new):
        both = hf.settings.both_spellings(source, "bfloat16")
        assert both["rope_theta"] == 500000.0
        assert both["rope_scaling"] == scaling
        assert both["rope_parameters"] == LLAMA3


def test_generation_config_serves_the_tuned_decoding_and_keeps_every_stop_token(tiny, tmp_path):
    source = {"eos_token_id": [2, 5], "pad_token_id": 0, "repetition_penalty": 1.05, "top_k": 7}
    (tiny / "generation_config.json").write_text(json.dumps(source))
    cfg, params = hf.load(tiny)
    hf.save(tmp_path / "out", params, cfg, source_folder=tiny, temperature=0.9, top_k=0, top_p=0.8)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "eos_token_id": [2, 5],
        "pad_token_id": 0,
        "do_sample": True,
        "temperature": 0.9,
        "top_k": 0,
        "top_p": 0.8,
    }
    (tiny / "generation_config.json").unlink()
    hf.save(tmp_path / "greedy", params, cfg, source_folder=tiny, temperature=0.0)
    assert json.loads((tmp_path / "greedy" / "generation_config.json").read_text()) == {
        "eos_token_id": [2],
        "do_sample": False,
    }


def test_tokenizer_files_are_copied_byte_for_byte_and_nothing_else(tiny, tmp_path):
    (tiny / "tokenizer.json").write_bytes(b'{"a":\r\n 1}')
    (tiny / "chat_template.jinja").write_bytes(b"{{ messages }}  \n\n")
    (tiny / "notes.txt").write_bytes(b"mine")
    cfg, params = hf.load(tiny)
    hf.save(tmp_path / "out", params, cfg, source_folder=tiny)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_an_export_is_never_half_there_and_never_overwrites(tiny, tmp_path, monkeypatch):
    cfg, params = hf.load(tiny)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(hf.settings, "copy_unchanged", _disk_full)
        hf.save(tmp_path / "out", params, cfg, source_folder=tiny)
    assert not (tmp_path / "out").exists()
    hf.save(tmp_path / "out", params, cfg, source_folder=tiny)  # Clears what the first left.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]
    with pytest.raises(FileExistsError, match=r"out is there already"):
        hf.save(tmp_path / "out", params, cfg, source_folder=tiny)


def _disk_full(*_):
    raise OSError("disk full")


def test_missing_extra_and_misshapen_tensors_are_one_error_that_lists_all(tiny):
    tensors = load_file(tiny / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.gate_proj.weight"] = np.zeros((3, 5), np.float32)
    tensors["model.layers.1.mlp.up_proj.bias"] = np.zeros(24, np.float32)
    tensors["model.layers.2.input_layernorm.weight"] = np.zeros(16, np.int64)
    save_file(tensors, tiny / "model.safetensors")
    with pytest.raises(ValueError) as error:
        hf.load(tiny)
    text = str(error.value)
    assert "missing: model.norm.weight" in text
    assert "model.layers.0.mlp.gate_proj.weight has shape (3, 5), config.json asks (24, 16)" in text
    assert "not part of a llama model: model.layers.1.mlp.up_proj.bias" in text
    assert "model.layers.2.input_layernorm.weight is I64" in text
    assert "\n" not in text


def test_a_stored_copy_of_a_tied_head_is_accepted_only_if_it_is_the_embedding(tiny):
    tensors = load_file(tiny / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
    save_file(tensors, tiny / "model.safetensors")
    _, params = hf.load(tiny)
    assert "head" not in params
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tiny / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from the embedding"):
        hf.load(tiny)


def test_layers_of_different_dtypes_need_a_dtype(tiny):
    tensors = load_file(tiny / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].astype(np.float16)
    save_file(tensors, tiny / "model.safetensors")
    with pytest.raises(ValueError, match=r"up_proj.weight is F16 and F32.*model.dtype"):
        hf.load(tiny)
    _, params = hf.load(tiny, dtype="float32")
    assert params["blocks"]["mlp"]["up"].dtype == jnp.float32


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_broken_file_is_named_in_one_line(tiny, damage):
    path = tiny / "model.safetensors"
    content = {"cut": path.read_bytes()[:-7], "garbage": b"<html>not found</html>", "empty": b""}
    path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut short or not a safe") as error:
        hf.load(tiny)
    assert "\n" not in str(error.value)


def test_a_missing_shard_and_an_index_that_disagrees_are_named(tiny, tmp_path):
    cfg, params = hf.load(tiny)
    sharded = tmp_path / "sharded"
    hf.save(sharded, params, cfg, source_folder=tiny, shard_bytes=4000)
    files = sorted(sharded.glob("*.safetensors"))
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    shutil.move(files[1], tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=files[1].name):
        hf.load(sharded)
    shutil.move(tmp_path / "away", files[1])
    index["weight_map"]["model.norm.weight"] = files[0].name
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"disagree about 1 tensors: model\.norm\.weight"):
        hf.load(sharded)
    index["weight_map"]["model.norm.weight"] = "../tiny/model.safetensors"
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside its folder"):
        hf.load(sharded)


def test_pickled_weights_a_missing_config_and_an_empty_folder_are_refused(tiny):
    (tiny / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights to read"):
        hf.load(tiny)
    (tiny / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin but no safetensors"):
        hf.load(tiny)
    (tiny / "config.json").write_text("{oops")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        hf.load(tiny)
    (tiny / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        hf.load(tiny)


def test_params_of_another_model_are_refused_before_anything_is_written(tiny, tmp_path):
    cfg, params = hf.load(tiny)
    wrong = {**params, "final_norm": jnp.ones(3), "head": jnp.ones((16, 64))}
    with pytest.raises(ValueError) as error:
        hf.save(tmp_path / "out", wrong, cfg, source_folder=tiny)
    assert "final_norm has shape (3,), expected (16,)" in str(error.value)
    assert "head is not in the name table" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
