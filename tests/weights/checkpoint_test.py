"""Tests of checkpoints: exact on any mesh, never half there, and their errors are heard."""

import dataclasses
import resource
import shutil
import signal
import subprocess
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jssd import sharding
from jssd.config import MeshConfig
from jssd.weights.checkpoint import Checkpointer


@dataclasses.dataclass(frozen=True)
class _State:
    params: Any
    opt_state: Any
    step: Any


def _state(step: int, *, width: int = 8, dtype=jnp.float32) -> _State:
    """A state whose values follow from `step`."""
    rng = np.random.default_rng(step)
    params = {
        "embed": sharding_put(rng.normal(size=(16, width)).astype(dtype), "vocab", "embed"),
        "blocks": {"q": sharding_put(rng.normal(size=(2, width, 4)).astype(np.float32))},
    }
    return _State(params, optax.adamw(1e-3).init(params), jnp.int32(step))


def sharding_put(value, *axes):
    """The array on the mesh in force, or on the default device."""
    return jax.device_put(value, sharding.sharding(*(axes or (None,) * value.ndim)))


def _abstract(state: _State) -> _State:
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        (state.params, state.opt_state, state.step),
    )
    return _State(*shapes)


def _assert_equal(found: _State, expected: _State) -> None:
    trees = [(s.params, s.opt_state, s.step) for s in (found, expected)]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    for a, b in zip(*(jax.tree.leaves(tree) for tree in trees)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_the_latest_state_comes_back_exactly_with_its_data_position_and_meta(tmp_path):
    state = _state(5, dtype=jnp.bfloat16)
    with Checkpointer(tmp_path / "c", keep_last=2, meta={"base": "abc"}) as checkpointer:
        assert checkpointer.latest_step() is None
        assert checkpointer.restore_latest(_abstract(state)) is None
        checkpointer.save(5, state, {"next": 17, "nested": [1, None]}, {"loss": 1.5})
    with Checkpointer(tmp_path / "c", keep_last=2) as checkpointer:
        restored = checkpointer.restore_latest(_abstract(state))
    assert restored is not None
    found, data_state, meta = restored
    _assert_equal(found, state)
    assert (data_state, meta) == ({"next": 17, "nested": [1, None]}, {"base": "abc"})


def test_the_newest_and_the_best_stay_also_after_a_restart(tmp_path):
    losses = {1: 3.0, 2: 0.5, 3: 2.0, 4: 1.0, 5: 4.0}
    for step, loss in losses.items():  # A restart before every save.
        with Checkpointer(tmp_path / "c", keep_last=2) as checkpointer:
            checkpointer.save(step, _state(step), step, {"loss": loss})
    with Checkpointer(tmp_path / "c", keep_last=2) as checkpointer:
        assert sorted(int(p.name) for p in (tmp_path / "c").iterdir()) == [2, 4, 5]
        assert (checkpointer.latest_step(), checkpointer.best_step()) == (5, 2)
        for step, name in ((2, "best"), (5, "latest"), (4, 4)):
            expected = _state(step).params
            found = checkpointer.restore_params(name, _abstract(_state(step)).params)
            np.testing.assert_array_equal(found["embed"], expected["embed"])
        with pytest.raises(FileNotFoundError, match=r"no checkpoint 3; there: 2, 4, 5"):
            checkpointer.restore_params(3, _abstract(_state(3)).params)
        with pytest.raises(ValueError, match=r"step 5 must be above the latest checkpoint 5"):
            checkpointer.save(5, _state(5), 0, {"loss": 1.0})


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_state_saved_on_one_mesh_is_restored_on_another(tmp_path):
    with jax.set_mesh(sharding.make_mesh(MeshConfig(1, 8, 1))):
        state = _state(1)
        with Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
            checkpointer.save(1, state, 0, {"loss": 1.0})
    with (
        jax.set_mesh(sharding.make_mesh(MeshConfig(2, 2, 2))),
        Checkpointer(tmp_path / "c", keep_last=1) as checkpointer,
    ):
        restored = checkpointer.restore_latest(_abstract(_state(0)))
        assert restored is not None
        assert restored[0].params["embed"].sharding == sharding.sharding("vocab", "embed")
    _assert_equal(restored[0], state)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_padded_vocabulary_is_restored_on_any_mesh(tmp_path):
    def state(tensor: int, rows: int = 97) -> _State:
        """As a mesh pads it: rows of zeros up to a multiple of `tensor`."""
        values = np.random.default_rng(0).normal(size=(97, 8)).astype(np.float32)
        embed = np.pad(values[:rows], ((0, -rows % tensor), (0, 0)))
        params = {"embed": sharding_put(embed, "vocab", "embed")}
        return _State(params, optax.adamw(1e-3).init(params), jnp.int32(1))

    for step, tensor in enumerate((2, 8, 4, 1, 4), 1):
        mesh = sharding.make_mesh(MeshConfig(1, 8 // tensor, tensor))
        with jax.set_mesh(mesh), Checkpointer(tmp_path, keep_last=1, vocab_size=97) as checkpoints:
            expected = state(tensor)
            if step > 1:  # Saved on the mesh before.
                restored = checkpoints.restore_latest(_abstract(expected))
                assert restored is not None
                _assert_equal(restored[0], expected)
                params = checkpoints.restore_params("latest", _abstract(expected).params)
                np.testing.assert_array_equal(params["embed"], expected.params["embed"])
            checkpoints.save(step, expected, 0, {"loss": 1.0})
    with (
        Checkpointer(tmp_path, keep_last=1, vocab_size=96) as checkpoints,
        pytest.raises(ValueError, match=r"embed'\] is float32\[97,8\], expected float32\[96,8\]"),
    ):
        checkpoints.restore_latest(_abstract(state(1, rows=96)))


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    values = np.arange(4_000_000, dtype=np.float32)
    state = _State({"w": jnp.array(values)}, {"m": jnp.array(values) + 1}, jnp.int32(1))
    abstract = _abstract(state)
    with Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
        checkpointer.save(1, state, 0, {"loss": 1.0})
        after = jax.block_until_ready(overwrite(state.params["w"]))
        assert float(after[5]) == -1
        checkpointer.wait()
        restored = checkpointer.restore_latest(abstract)
    assert restored is not None
    np.testing.assert_array_equal(restored[0].params["w"], values)


def test_a_save_that_fails_in_the_background_is_heard(tmp_path):
    state = _State({"w": jnp.arange(1_000_000.0)}, {}, jnp.int32(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    checkpointer = Checkpointer(tmp_path / "c", keep_last=1)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # As good as a full disk.
        with pytest.raises(OSError, match=r"(?i)file too large"):
            checkpointer.save(1, state, 0, {"loss": 1.0})
            checkpointer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    with Checkpointer(tmp_path / "c", keep_last=1) as fresh:
        assert fresh.latest_step() is None
        fresh.save(1, state, 0, {"loss": 1.0})
        fresh.wait()
        assert fresh.latest_step() == 1


KILLED = """
import sys, time, jax.numpy as jnp
from jssd.weights.checkpoint import Checkpointer
import dataclasses, typing
State = dataclasses.make_dataclass("State", ["params", "opt_state", "step"])
checkpointer = Checkpointer(sys.argv[1], keep_last=3)
make = lambda step: State({"w": jnp.full(8_000_000, float(step))}, {}, jnp.int32(step))
checkpointer.save(1, make(1), 1, {"loss": 1.0})
checkpointer.wait()
checkpointer.save(2, make(2), 2, {"loss": 1.0})
print("saving", flush=True)
time.sleep(60)
"""


def test_a_save_that_is_killed_leaves_the_checkpoint_before_it(tmp_path):
    folder = tmp_path / "c"
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "saving\n"
        child.kill()
    # Whether the kill came in time depends on the disk; what a kill leaves is made certain here.
    leftover = folder / "3.orbax-checkpoint-tmp"
    (leftover / "params").mkdir(parents=True)
    with Checkpointer(folder, keep_last=3) as checkpointer:
        latest = checkpointer.latest_step()
        assert latest in (1, 2)
        abstract = {"w": jax.ShapeDtypeStruct((8_000_000,), jnp.float32)}
        found = checkpointer.restore_params("latest", abstract)
        assert float(found["w"][0]) == float(found["w"][-1]) == latest
        checkpointer.save(4, _state(4), 4, {"loss": 1.0})
        checkpointer.wait()
        assert not list(folder.glob("*tmp*"))


@pytest.mark.parametrize("item", ["params", "opt_state", "data", "meta"])
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_damaged_item_is_named(tmp_path, item, damage):
    state = _state(1)
    with Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
        checkpointer.save(1, state, 0, {"loss": 1.0})
    folder = tmp_path / "c" / "1" / item
    if damage == "missing":
        shutil.rmtree(folder)
    else:
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(b"\0garbage")
    with Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
        with pytest.raises(ValueError, match=rf"c/1: its {item} cannot be read") as error:
            checkpointer.restore_latest(_abstract(state))
        assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_shape_dtype_or_optimizer_is_refused(tmp_path):
    with Checkpointer(tmp_path / "c", keep_last=1) as checkpointer:
        checkpointer.save(1, _state(1), 0, {"loss": 1.0})
        checkpointer.wait()
        with pytest.raises(
            ValueError, match=r"\['embed'\] is float32\[16,8\], expected float32\[16,4\]"
        ):
            checkpointer.restore_latest(_abstract(_state(1, width=4)))
        half = _abstract(_state(1, dtype=jnp.bfloat16)).params
        with pytest.raises(ValueError, match=r"is float32\[16,8\], expected bfloat16\[16,8\]"):
            checkpointer.restore_params("latest", half)
        plain = _abstract(_state(1))
        sgd = dataclasses.replace(plain, opt_state=optax.sgd(1e-3).init(plain.params))
        with pytest.raises(ValueError, match="another model or optimizer"):
            checkpointer.restore_latest(sgd)


def test_a_save_without_room_is_refused_before_it_writes(tmp_path, monkeypatch):
    state = _state(1)
    with Checkpointer(tmp_path / "c", keep_last=2) as checkpointer:
        checkpointer.save(1, state, 0, {"loss": 1.0})
        checkpointer.wait()
        monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=9))
        with pytest.raises(OSError, match=r"c/2 needs up to .* GiB left"):
            checkpointer.save(2, state, 0, {"loss": 1.0})
        assert checkpointer.latest_step() == 1
    assert not list((tmp_path / "c").glob("*2*"))
