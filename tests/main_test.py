"""The command's own decisions, before any stage."""

import importlib.util

import pytest

from jssd import main
from jssd.config import Config, MeshConfig, ModelSource, PromptsConfig


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


def test_a_report_needs_no_mesh(tmp_path):
    config = Config(model=ModelSource("model"), prompts=PromptsConfig(source="tasks:train"))
    config.mesh = MeshConfig(expert=7)  # As for a plan of other hardware: there are eight here.
    config.compile_cache = False
    with pytest.raises(FileNotFoundError, match="nothing to report"):
        main.run_stages(config, tmp_path, ["report"])
    with pytest.raises(ValueError, match="expert=7, context=1 must multiply to the 8 devices"):
        main.run_stages(config, tmp_path, ["sample"])
