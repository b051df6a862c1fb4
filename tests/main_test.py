"""The command's own decisions, before any stage."""

import importlib.util

import pytest

from jssd import main
from jssd.config import Config, MeshConfig, ModelSource, PromptsConfig
from jssd.stages import report


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with libtpu and no device; returns its root."""
    found = importlib.util.find_spec
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(main, "_ROOT", tmp_path)
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name: found("json") if name == "libtpu" else None if "jax_" in name else found(name),
    )  # fmt: skip
    return tmp_path


def _platforms():
    main._leave_absent_hardware_alone()
    return main.os.environ.get("JAX_PLATFORMS")


def test_compilers_without_devices_leave_jax_to_the_cpu(machine):
    assert _platforms() == "cpu"


@pytest.mark.parametrize("device", ["dev/accel0", "dev/vfio/0", "dev/nvidia0", "dev/dxg"])
def test_a_device_is_looked_for(machine, device):
    (machine / device).parent.mkdir(parents=True)
    (machine / device).touch()
    assert _platforms() is None


def test_a_device_without_a_driver_is_looked_for(machine):
    vendor = machine / "sys/bus/pci/devices/0/vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x10de\n")
    assert _platforms() is None


def test_a_chosen_platform_stays(machine, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert _platforms() == "cuda"


def test_without_the_compilers_nothing_is_decided(machine, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _platforms() is None


@pytest.fixture
def started(monkeypatch):
    """Runs and reports that `run_stages` starts, as text and config, instead of doing them."""
    calls = []

    def run_once(config, folder, stages):
        calls.append((folder, config))
        if "export" in stages:
            (folder / "export").mkdir(parents=True)

    monkeypatch.setattr(main, "_run_once", run_once)
    monkeypatch.setattr(report, "run", lambda runs, folder: calls.append((folder, runs)))
    return calls


def test_a_round_starts_from_the_export_of_the_last_at_other_seeds(tmp_path, started):
    config = Config(
        model=ModelSource("model", revision="v1"), prompts=PromptsConfig(source="tasks:train")
    )
    config.compile_cache, config.seeds, config.rounds = False, 2, 3
    main.run_stages(config, tmp_path, ["sample", "sft", "export", "report"])
    runs = [(folder.relative_to(tmp_path), found) for folder, found in started]
    assert [str(folder) for folder, _ in runs] == [
        f"round-{r}/{part}" for r in range(3) for part in ("seed-0", "seed-1", "report")
    ]
    assert [folder.name for folder in runs[5][1]] == ["seed-0", "seed-1"]  # A report pools seeds.
    for r in (0, 1, 2):
        for i in (0, 1):
            model = runs[3 * r + i][1].model
            last = tmp_path / f"round-{r - 1}" / f"seed-{i}" / "export"
            assert model.path == (str(last) if r else "model")
            assert model.revision == ("main" if r else "v1")
    seeds = {
        (found.sampling.seed, found.train.seed, found.evaluate.seed)
        for _, found in runs
        if isinstance(found, Config)
    }
    assert len(seeds) == 6
    assert (config.model.path, config.sampling.seed) == ("model", 0)  # Nobody's config is changed.


def test_a_round_without_the_export_of_the_last_says_so(tmp_path, started):
    config = Config(model=ModelSource("model"), prompts=PromptsConfig(source="tasks:train"))
    config.compile_cache, config.rounds = False, 2
    with pytest.raises(FileNotFoundError, match=r"round-0/export does not exist.*sft and export"):
        main.run_stages(config, tmp_path, ["sample"])
    assert [folder for folder, _ in started] == [tmp_path / "round-0"]


def test_one_round_stays_in_the_work_directory(tmp_path, started):
    config = Config(model=ModelSource("model"), prompts=PromptsConfig(source="tasks:train"))
    config.compile_cache = False
    main.run_stages(config, tmp_path, ["sample"])
    assert started == [(tmp_path, config)]


def test_a_report_needs_no_mesh(tmp_path):
    config = Config(model=ModelSource("model"), prompts=PromptsConfig(source="tasks:train"))
    config.mesh = MeshConfig(expert=7)  # As for a plan of other hardware: there are eight here.
    config.compile_cache = False
    with pytest.raises(FileNotFoundError, match="nothing to report"):
        main.run_stages(config, tmp_path, ["report"])
    with pytest.raises(ValueError, match="expert=7, context=1 must multiply to the 8 devices"):
        main.run_stages(config, tmp_path, ["sample"])


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:31624", True),
        ("INTERNAL: Failed to complete all kernels launched on stream", True),
        ("train.global_batch_size=12 must be a multiple of mesh data*fsdp=8.", False),
        ("runs/a was begun with other settings: UNKNOWN: was 1", False),
    ],
)
def test_a_lost_process_is_no_mistake_of_the_user(text, lost):
    assert bool(main._OF_THE_RUNTIME.match(text)) is lost
