"""Names of hardware, and what they stand for."""

import math

import pytest

from jssd.plan import hardware


@pytest.mark.parametrize(
    ("name", "topology", "devices"),
    [
        ("v5e-1", "v5e:1x1", 1),
        ("v5e-8", "v5e:2x4", 8),
        ("v5e-256", "v5e:16x16", 256),
        ("v6e-64", "v6e:8x8", 64),
        ("v5p-8", "v5p:2x2x1", 4),  # Counts cores, two a chip.
        ("v5p-64", "v5p:2x4x4", 32),
        ("v5p-4x4x8", "v5p:4x4x8", 128),
        ("tpu7x-128", "tpu7x:4x4x4", 128),  # 64 chips, two devices a chip.
        ("tpu7x-4x4x4", "tpu7x:4x4x4", 128),
        ("2xv5e-256", "v5e:16x16", 512),
        ("b200x8", "1x1x8", 8),
        ("b200x64", "1x8x8", 64),
        ("h100x4", "1x1x4", 4),
    ],
)
def test_a_name_says_the_shape_and_the_devices(name, topology, devices):
    found = hardware.parse(name)
    assert (found.topology, found.num_devices) == (topology, devices)
    assert found.slices == (2 if name.startswith("2x") else 1)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("v9-8", "v5p-N and tpu7x-N"),
        ("v5p-63", "v5p-{8, 16, 32"),
        ("v5e-4x4x4", "2 dimensions"),
        ("b200x12", "multiple of 8"),
        ("0xv5e-8", "several slices"),
        ("", "GPUs"),
    ],
)
def test_an_unknown_name_says_what_there_is(name, way_out):
    with pytest.raises(ValueError, match="hardware=") as error:
        hardware.parse(name)
    assert way_out in str(error.value)


def test_every_chip_has_a_peak_and_memory():
    for chip in hardware.CHIPS.values():
        assert chip.peak > 1e14 and chip.hbm > 15 * hardware.GIB
        assert chip.hbm_bandwidth > chip.link > chip.network


@pytest.mark.parametrize(
    ("model", "chip_tflops", "chip_gib"),
    [  # Of a whole chip, as its vendor tells them: cloud.google.com/tpu/docs, NVIDIA's data sheets.
        ("v5e", 197, 16), ("v6e", 918, 32), ("v5p", 459, 95.74), ("tpu7x", 2307, 192),
        ("h100", 989, 80), ("h200", 989, 141), ("b200", 2250, 180),
    ],
)  # fmt: skip
def test_a_chips_devices_share_its_peak_and_memory(model, chip_tflops, chip_gib):
    chip = hardware.CHIPS[model]
    assert chip.peak * chip.devices == pytest.approx(chip_tflops * 1e12)
    assert chip.hbm * chip.devices / hardware.GIB == pytest.approx(chip_gib, rel=0.08)


def test_smaller_hardware_comes_smallest_first_and_ends_with_the_largest():
    names = [one.name for one in hardware.up_to(hardware.parse("v5p-64"))]
    assert names == ["v5p-8", "v5p-16", "v5p-32", "v5p-64"]
    assert [one.name for one in hardware.up_to(hardware.parse("b200x64"))] == [
        "b200x1", "b200x2", "b200x4", "b200x8", "b200x16", "b200x32", "b200x64",
    ]  # fmt: skip
    joined = hardware.up_to(hardware.parse("2xv5e-4x4"))
    assert [one.num_devices for one in joined] == [2, 8, 16, 32]
    assert all(one.slices == 2 for one in joined)


def test_a_gpu_program_gets_a_share_of_the_memory():
    gpu = hardware.parse("b200x8")
    assert gpu.memory == math.floor(gpu.chip.hbm * hardware.GPU_FRACTION)
    assert hardware.parse("v5e-8").memory == hardware.CHIPS["v5e"].hbm
