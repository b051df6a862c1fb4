"""Bounds that follow from one multiplication."""

import types

import pytest

from jssd.plan import hardware, roofline
from jssd.plan.hlo import Collective


def _device(process=0, slice_index=0, coords=(0, 0, 0)):
    return types.SimpleNamespace(process_index=process, slice_index=slice_index, coords=coords)


def _gather(groups, sent, times=1):
    return Collective("all-gather", sent, times, groups, "", ("bf16",))


def test_the_slowest_resource_is_the_bound():
    chip = hardware.CHIPS["v5p"]
    times = roofline.times(
        chip, device_flops=459e12 * 2, device_traffic=2765e9, links=0.5, network=0.0
    )
    assert (times.compute, times.memory, times.bound) == (2.0, 1.0, 2.0)
    assert times.serial == 3.5 and times.limit == "compute"


def test_all_of_a_host_shares_nvlink():
    target = hardware.parse("b200x8")
    found = [_gather((tuple(range(8)),), 900e9, times=3)]
    devices = [_device() for _ in range(8)]
    assert roofline.collective_times(found, target, devices) == (3.0, 0.0)


def test_what_leaves_a_host_is_cut_by_its_members():
    target = hardware.parse("b200x16")
    devices = [_device(process=index // 8) for index in range(16)]
    whole = 16 / 15 * 750e9  # Of the gathered array; a device sends 15/16 of it.
    inside, between = roofline.collective_times(
        [_gather((tuple(range(16)),), 750e9)], target, devices
    )
    assert inside == pytest.approx(750e9 / 900e9)
    assert between == pytest.approx(whole / 2 / 8 / 50e9)
    # One member a host: nothing stays inside.
    pairs = tuple((index, index + 8) for index in range(8))
    inside, between = roofline.collective_times([_gather(pairs, 50e9)], target, devices)
    assert (inside, between) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("name", "shape", "ways"),
    [("v5p-4x4x4", (4, 1, 1), 2), ("v5p-4x4x4", (4, 4, 1), 4), ("v5p-2x2x1", (2, 2, 1), 2)],
)
def test_a_tpu_group_uses_the_links_of_the_dimensions_it_lies_along(name, shape, ways):
    places = [(x, y, 0) for x in range(shape[0]) for y in range(shape[1])]
    devices = [_device(coords=place) for place in places]
    found = [_gather((tuple(range(len(devices))),), 100e9)]
    inside, between = roofline.collective_times(found, hardware.parse(name), devices)
    assert (inside, between) == (1 / ways, 0.0)


def test_slots_fill_what_is_left_in_whole_groups():
    assert roofline.slots_that_fit(100, 20, 10, 1) == 8
    assert roofline.slots_that_fit(100, 20, 10, 3) == 6
    assert roofline.slots_that_fit(100, 100, 10, 1) == 0
    assert roofline.slots_that_fit(1e9, 0, 1, 2) == 2 * roofline.MOST_SLOTS
