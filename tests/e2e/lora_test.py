"""A run that trains adapters: resumed it gives the same bytes, exported and swept it is merged."""

import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from jssd import main, sharding
from jssd.config import LoraConfig
from jssd.stages import export, grids, sweep
from jssd.stages.context import Run
from jssd.weights import hf
from jssd.weights.fingerprint import fingerprint
from tests.e2e import conftest

STAGES = ["sample", "sft", "export"]


pytestmark = pytest.mark.usefixtures("one_device")


def load(root: pathlib.Path):
    config = conftest.load_config(root)
    config.prompts.limit, config.train.num_steps, config.train.keep_last = 6, 4, 9
    config.train.lora = LoraConfig(rank=2, alpha=4.0)
    config.train.param_dtype, config.model.compute_dtype = "bfloat16", "float32"
    config.export.adapter = True
    return config


@pytest.fixture(scope="module")
def straight(tiny, one_device, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("lora") / "run"
    main.run_stages(load(tiny), workdir, STAGES)
    return workdir


def _bytes(workdir: pathlib.Path) -> dict[str, bytes]:
    paths = [path for name in ("export", "adapter") for path in sorted((workdir / name).iterdir())]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def test_the_export_is_the_base_plus_the_adapters(straight, tiny):
    base = load_file(tiny / "model" / "model.safetensors")
    merged = load_file(straight / "export" / "model.safetensors")
    tensors = load_file(straight / "adapter" / "adapter_model.safetensors")
    for name, weight in base.items():
        weight = weight.astype(ml_dtypes.bfloat16).astype(np.float32)  # As training saw it.
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in tensors:
            a, b = (tensors[f"{module}.lora_{part}.weight"] for part in "AB")
            assert np.abs(b).max() > 0
            weight = weight + 2.0 * b @ a
        np.testing.assert_allclose(merged[name], weight, rtol=1e-5, atol=1e-6)
    card = (straight / "export" / "README.md").read_text()
    assert "(LoRA) of rank 2, alpha 4, on q, k, v, o, gate, up, down" in card and "merged" in card
    assert not (straight / "export" / "adapter_config.json").exists()


def test_a_checkpoint_holds_adapters_and_not_the_base(straight, tiny):
    stored = sum(
        p.stat().st_size for p in (straight / "checkpoints" / "4").rglob("*") if p.is_file()
    )
    model = (tiny / "model" / "model.safetensors").stat().st_size
    meta = next((straight / "checkpoints" / "4" / "meta").glob("metadata"))
    leaves = json.loads(meta.read_text())["leaves"]
    assert len(leaves) == 14 and all("['a']" in name or "['b']" in name for name in leaves)
    assert stored < 3 * model  # Beside the files' own size: the full state is over three models.


def test_resumed_it_ends_with_the_same_bytes(straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    for name in ("export", "adapter", "checkpoints/4"):
        shutil.rmtree(workdir / name)
    main.run_stages(load(tiny), workdir, STAGES)
    assert _bytes(workdir) == _bytes(straight)


def test_an_adapter_asked_for_later_is_written_beside_the_export(straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    shutil.rmtree(workdir / "adapter")
    main.run_stages(load(tiny), workdir, STAGES)
    assert _bytes(workdir) == _bytes(straight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 4}, "begun with other settings: train was .*'rank': 2"),
        ({"rank": 0}, "alpha=4.0 needs train.lora.rank above 0"),
        ({"rank": -1}, r"train.lora.rank=-1 must be 0 \(all weights are trained\) or more"),
        ({"alpha": -1.0}, r"train.lora.alpha=-1.0 must be 0 \(as the rank\) or more"),
        (
            {"projections": ("q", "query")},
            "must name some of q, k, v, o, gate, up, down, each once",
        ),
        ({"projections": ("q", "q")}, "each once"),
        ({"projections": ()}, "train.lora.projections=.* must name some"),
    ],
)
def test_what_cannot_be_honoured_is_refused(straight, tiny, change, message):
    config = load(tiny)
    for name, value in change.items():
        setattr(config.train.lora, name, value)
    with pytest.raises(ValueError, match=message):
        main.run_stages(config, straight, ["sft"])


def test_adapters_of_another_base_are_not_merged(straight, tiny, tmp_path):
    workdir, config = tmp_path / "run", load(tiny)
    shutil.copytree(straight, workdir)
    shutil.rmtree(workdir / "export")
    other = tmp_path / "other"
    shutil.copytree(tiny / "model", other)
    weights = load_file(other / "model.safetensors")
    cfg, params = hf.load(other)
    params["final_norm"] = params["final_norm"] * 2
    shutil.rmtree(tmp_path / "other")
    hf.save(other, params, cfg, source_folder=tiny / "model")
    assert weights.keys() == load_file(other / "model.safetensors").keys()
    config.model.path = str(other)
    with pytest.raises(ValueError, match=r"holds adapters of the weights .*do not belong to"):
        export.run(Run(config, workdir, sharding.make_mesh(config.mesh)))


def test_a_sweep_decodes_merged_weights(tiny, tmp_path):
    config = load(tiny)
    config.sweep.base = False
    config.sweep.train_temperatures, config.sweep.eval_temperatures = (0.9,), (1.0,)
    config.sweep.checkpoints = (2, 4)
    run = Run(config, tmp_path / "run", sharding.make_mesh(config.mesh))
    sweep.run(run)
    (law,) = grids.train_laws(config)
    student = grids.student_run(run, law)
    export.run(student)
    with jax.set_mesh(run.mesh):
        merged = fingerprint(hf.load(student.workdir / "export")[1])
    prints = {
        path.parts[-3]: json.loads(path.read_text())["fingerprint"]
        for path in (run.workdir / "sweep").glob("cells/tasks/*/t1.0/scores.json")
    }
    assert len(prints) == len(set(prints.values())) == 2
    assert prints[next(name for name in prints if name.endswith("@4"))] == merged
