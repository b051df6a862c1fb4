"""What of a config, a model and a mesh does not go together: all of it in one error."""

import dataclasses

import jax
import pytest

from jssd import sharding
from jssd.config import Config, EngineConfig, MeshConfig, TrainConfig
from jssd.plan import fit
from tests.model.conftest import TINY

EVERY = ("sample", "sft", "export", "evaluate")


def _config(**sections):
    return Config(train=TrainConfig(global_batch_size=8, seq_len=256), **sections)


def _check(config, cfg=TINY, stages=EVERY):
    fit.check(config, cfg, sharding.make_mesh(config.mesh), stages)


@pytest.mark.parametrize(
    "mesh", [MeshConfig(), MeshConfig(data=8, fsdp=1), MeshConfig(tensor=2, context=2)]
)
def test_what_goes_together_passes(mesh):
    _check(_config(mesh=mesh))


def test_every_complaint_comes_in_one_error_and_names_the_fix():
    config = _config(
        mesh=MeshConfig(fsdp=1, tensor=4, context=2), engine=EngineConfig(slots=3, cache_tokens=5)
    )
    config.train.seq_len, config.train.attention, config.train.global_batch_size = 258, "cudnn", 3
    config.train.grad_accum = 3
    cfg = dataclasses.replace(TINY, mlp_dim=30)
    with pytest.raises(ValueError) as caught:
        _check(config, cfg)
    told = str(caught.value)
    for part in (
        "num_kv_heads=2 must be a multiple of mesh tensor=4",
        "mlp_dim=30 must be a multiple of mesh tensor=4",
        "Choose a mesh whose axes divide these sizes.",
        "258: must be a multiple of 4, twice mesh context=2",
        "engine.slots=3 must be a multiple of 2",
        "Set engine.slots=4",
        "engine.cache_tokens=5 must be 0 or at least",
    ):
        assert told.count(part) == 1, (part, told)


def test_a_batch_too_small_for_the_mesh_names_micro_batches_and_axes():
    config = _config()
    config.train.global_batch_size = 4
    with pytest.raises(ValueError) as caught:
        _check(config)
    assert str(caught.value) == (
        "train.global_batch_size=4 must be a multiple of 8: train.grad_accum=1 micro-batches, each "
        "split 8 ways over mesh data*fsdp*expert. Set train.global_batch_size=8, or a mesh that "
        "splits rows 4 ways and has 2 times as much on context or tensor (the notes in configs/ "
        "have tables of meshes)."
    )
    config.train.grad_accum = 2
    with pytest.raises(ValueError, match=r"of 16: .*, a smaller train\.grad_accum, or a mesh"):
        _check(config)
    _check(config, stages=("sample",))  # Says nothing of what will not be done.


def test_every_bucket_must_be_cut_in_time():
    config = _config(mesh=MeshConfig(context=8))
    config.train.packing, config.train.global_batch_size, config.train.seq_len = "bucketed", 1, 264
    with pytest.raises(ValueError, match=r"it, is 264: must be a multiple of 16"):
        _check(config)
    config.train.seq_len = 4096
    _check(config)


def test_attention_that_cannot_be_had_is_told_before_a_step():
    config = _config()
    config.train.attention = "splash"
    with pytest.raises(ValueError, match=r"train.attention='splash' needs a TPU, not a cpu"):
        _check(config)


def test_slots_follow_the_decode_mesh_of_a_host():
    assert len(jax.devices()) == 8
    config = _config(mesh=MeshConfig(tensor=2), engine=EngineConfig(slots=6))
    with pytest.raises(ValueError, match=r"engine\.slots=6 must be a multiple of 4"):
        _check(config, stages=("evaluate",))
    config.engine = EngineConfig(slots=4, strict=True)
    with pytest.raises(ValueError, match=r"multiple of 32: .*8 at a time in each, for engine"):
        _check(config, stages=("sample",))
