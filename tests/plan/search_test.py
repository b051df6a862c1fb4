"""Which meshes are worth compiling, in which order, and when a search stops."""

import dataclasses
import math

import pytest

from jssd.config import Config, MeshConfig, ModelSource, TrainConfig
from jssd.model import transformer
from jssd.plan import architectures, hardware, search

QWEN = "Qwen/Qwen3-4B-Instruct-2507"


@pytest.fixture
def config():
    return Config(
        model=ModelSource(QWEN, compute_dtype="bfloat16"), train=TrainConfig(seq_len=8192)
    )


@pytest.fixture
def cfg(config):
    return architectures.read(config.model)[0]


@pytest.mark.parametrize("name", [QWEN, "meta-llama/Llama-3.1-8B-Instruct"])
def test_weights_are_counted_as_the_model_has_them(name):
    import jax

    cfg, dtype = architectures.read(ModelSource(name))
    params = transformer.abstract_params(cfg)
    assert architectures.num_params(cfg) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert dtype == "bfloat16"


def test_the_mixture_has_thirty_billion_weights():
    cfg, _ = architectures.read(ModelSource("Qwen/Qwen3-30B-A3B-Instruct-2507"))
    assert round(architectures.num_params(cfg) / 1e9, 1) == 30.5


def test_a_model_that_is_not_known_says_what_is():
    with pytest.raises(FileNotFoundError, match="a plan fetches nothing"):
        architectures.read(ModelSource("nobody/nothing"))
    with pytest.raises(ValueError, match=r"plan\.layers=99 must be at most 36"):
        architectures.read(ModelSource(QWEN), layers=99)


def test_every_candidate_fills_the_hardware_and_may_fit(config, cfg):
    for name in ("v5e-64", "2xv5e-16", "b200x16"):
        target = hardware.parse(name)
        found = search.candidates(config, cfg, target)
        assert found
        for one in found:
            sizes = dataclasses.asdict(one.mesh)
            assert target.num_devices == math.prod(sizes.values())
            assert one.least <= target.memory
            assert sizes["expert"] == 1 and 8 % sizes["tensor"] == 0
            assert 32 % (sizes["data"] * sizes["fsdp"]) == 0
    # Layers' collectives do not cross from host to host.
    assert all(
        one.mesh.tensor * one.mesh.context <= 8
        for one in search.candidates(config, cfg, hardware.parse("b200x64"))
    )


def test_what_cannot_hold_the_optimizer_is_not_a_candidate(config, cfg):
    # 4 billion weights at 16 bytes are 60 GiB: more than one v5p's share of a copy, less than 4's.
    found = search.candidates(config, cfg, hardware.parse("v5p-8"))
    assert found and all(one.mesh.data < 4 or one.least > 60 * 2**30 for one in found)
    assert not search.candidates(config, cfg, hardware.parse("v5e-1"))


def test_the_search_stops_at_the_smallest_and_skips_what_is_larger_than_what_failed(config, cfg):
    asked = []

    def compile_train(target, mesh, grad_accum):
        asked.append((target.name, mesh, grad_accum))
        if target.num_devices < 8:
            return {"complaint": {"kind": "memory", "text": ""}}
        return {}

    sizes = hardware.up_to(hardware.parse("v5p-32"))
    found = search.smallest(config, cfg, sizes, compile_train)
    assert found is not None
    target, fitting = found
    assert target.name == "v5p-16" and len(fitting) <= config.plan.tries
    assert {accum for name, _, accum in asked if name == "v5p-16"} == {1}
    failed = [(mesh, accum) for name, mesh, accum in asked if name == "v5p-8"]
    least = [
        search.least_bytes(mesh, search.accumulating(config, accum), cfg) for mesh, accum in failed
    ]
    assert least == sorted(least, reverse=True) and len(set(least)) == len(least)


def test_of_meshes_alike_in_their_bound_the_best_needs_no_overlap():
    times = lambda bound, serial: {"times": {"bound": bound, "serial": serial}}
    fitting = [
        (MeshConfig(tensor=4), 2, times(1.00, 1.30)),
        (MeshConfig(fsdp=4), 2, times(1.02, 1.10)),
        (MeshConfig(data=4), 2, times(1.20, 1.00)),  # Bound by something else, and slower for it.
    ]
    assert search.best(fitting) == (MeshConfig(fsdp=4), 2)


def test_nothing_fits(config, cfg):
    refuse = lambda target, mesh, accum: {"complaint": {"kind": "memory", "text": ""}}
    assert search.smallest(config, cfg, [hardware.parse("v5p-8")], refuse) is None


def test_bfloat16_weights_keep_a_float32_master(config, cfg):
    mesh = MeshConfig(fsdp=8)
    wide = search.least_bytes(mesh, config, cfg)
    config.train.param_dtype = "bfloat16"
    narrow = search.least_bytes(mesh, config, cfg)
    assert narrow - wide == architectures.num_params(cfg) * 2 / 8  # 2 + 4 bytes instead of 4.


def test_a_search_cuts_the_batch_until_a_slice_holds_it():
    """The 30B with its preset's 32 rows of 65,536 tokens, which v5p-16 holds in eight parts."""
    source = ModelSource("Qwen/Qwen3-30B-A3B-Instruct-2507", compute_dtype="bfloat16")
    config = Config(model=source, train=TrainConfig(packing="none"), mesh=MeshConfig(expert=8))
    cfg, asked = architectures.read(source)[0], []

    def compile_train(target, mesh, grad_accum):
        asked.append((target.name, grad_accum))
        tokens = 32 * 65536 / grad_accum / target.num_devices
        # As compiled: 90.5 GiB with 32,768 tokens on a device.
        return {} if tokens <= 32768 else {"complaint": {"kind": "memory", "text": ""}}

    sizes = hardware.up_to(hardware.parse("v5p-64"))
    found = search.smallest(config, cfg, sizes, compile_train)
    assert found is not None
    target, fitting = found
    assert target.name == "v5p-16" and {accum for _, accum, _ in fitting} == {8}
    # Fewest first, and none of those that were found too large by arithmetic.
    assert [accum for _, accum in asked] == sorted(accum for _, accum in asked)
    assert len(asked) <= config.plan.tries and ("v5p-16", 1) not in asked
    config.train.grad_accum = 16  # What the config says is the least.
    found = search.smallest(config, cfg, sizes, compile_train)
    assert found is not None and {accum for _, accum, _ in found[1]} == {16}
