"""The loop: what it logs and saves, how it stops, and that a resumed run is the same run."""

import dataclasses
import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.metrics import EVENTS_FILE, Writer, read_scalars
from jssd.model import transformer
from jssd.train import loop, optimizer, step

FIRST = step.TrainState({}, (), jnp.zeros((), jnp.int32))


class Memory:
    """A checkpointer that keeps host copies."""

    def __init__(self):
        self.saved = {}

    def save(self, step, state, data_state, metrics):
        self.saved[step] = (jax.tree.map(np.array, state), data_state, metrics)


def _fake_step(losses):
    """A step whose losses are given; nothing is learned."""

    def train_step(state, batch):
        number = int(state.step) + 1
        loss = losses.get(number, 1.0)
        names = ("kept_mass", "compression", "grad_norm", "learning_rate", "unsupported_tokens")
        metrics = {name: jnp.float32(1) for name in names}
        metrics |= {"loss": jnp.float32(loss), "tokens": jnp.float32(100)}
        metrics |= {"response_tokens": jnp.float32(10), "attention_pairs": jnp.float32(1000)}
        return step.TrainState({}, (), jnp.int32(number)), metrics

    return train_step


def _train(toy, folder, *, losses=None, state=FIRST, batches=None, **changes):
    memory = Memory()
    settings = {"num_steps": 7, "log_every": 1, "save_every": 3, **changes}
    with Writer(folder) as writer:
        state = loop.train(
            state,
            batches or toy.Batches(),
            settings.pop("train_step", _fake_step(losses or {})),
            cfg=toy.cfg,
            writer=writer,
            checkpointer=memory,
            **settings,
        )
    return state, memory.saved


def test_saves_every_third_and_the_last_step_with_the_place_in_the_data(toy, tmp_path):
    _, saved = _train(toy, tmp_path, losses={6: 0.5})
    assert {number: data for number, (_, data, _) in saved.items()} == {
        3: {"index": 3},
        6: {"index": 6},
        7: {"index": 7},
    }
    assert saved[6][2]["loss"] == 0.5
    events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert [(event["kind"], event["step"]) for event in events] == [
        ("first_step", 1),
        ("saved", 3),
        ("saved", 6),
        ("saved", 7),
    ]


def test_logs_every_other_and_the_last_step_with_the_same_keys(toy, tmp_path, capsys):
    _train(toy, tmp_path, log_every=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step: ")]
    entries = read_scalars(tmp_path)
    assert [entry["step"] for entry in entries] == [2, 4, 6, 7]
    assert len(lines) == 4
    assert len({tuple(entry) for entry in entries}) == 1
    wanted = {"loss", "kept_mass", "grad_norm", "learning_rate", "tokens_per_s", "data_wait"}
    assert wanted <= set(entries[0])
    # A CPU has no peak on file: its speed, and no share of a peak.
    assert "gflops_per_device" in entries[0] and "mfu" not in entries[0]


def test_a_mixture_logs_the_loss_of_its_router(toy, tmp_path):
    experts = {"family": "qwen3_moe", "num_experts": 4, "experts_per_token": 2, "mlp_dim": 8}
    config = toy.train_config(num_steps=2)  # router_aux_loss is 0: not trained on, but logged.
    for name, changes in (("dense", {}), ("moe", experts)):
        cfg = dataclasses.replace(toy.cfg, **changes)
        params = transformer.init_params(cfg, jax.random.key(0))
        chain = optimizer.make_optimizer(config)
        state, train_step = (
            step.init_state(params, chain), step.make_train_step(cfg, chain, config),
        )  # fmt: skip
        types_toy = types.SimpleNamespace(cfg=cfg, Batches=toy.Batches)
        _train(types_toy, tmp_path / name, state=state, train_step=train_step, num_steps=2)
    assert all("router_aux_loss" not in entry for entry in read_scalars(tmp_path / "dense"))
    logged = [entry["router_aux_loss"] for entry in read_scalars(tmp_path / "moe")]
    # Two of four experts a token: 2 where they are chosen evenly, 4 where always the same.
    assert len(logged) == 2 and all(1.9 < value < 4 for value in logged)


def test_speeds_leave_out_the_step_that_compiles(toy, tmp_path):
    slow_once = _fake_step({})

    def train_step(state, batch):
        time.sleep(0.5 if int(state.step) == 0 else 0.01)
        return slow_once(state, batch)

    _train(toy, tmp_path, train_step=train_step)
    entries = read_scalars(tmp_path)
    assert entries[0]["tokens_per_s"] is None
    assert all(entry["seconds_per_step"] < 0.4 for entry in entries[1:])
    assert entries[1]["tokens_per_s"] == pytest.approx(100 / entries[1]["seconds_per_step"])


def test_a_step_with_a_new_shape_compiles_and_is_left_out_of_speeds(toy, tmp_path):
    class Grows(toy.Batches):
        def __next__(self):
            (micro,) = super().__next__()
            length = 16 if self.index < 3 else 24
            return [{name: array[:, :length] for name, array in micro.items()}]

    _train(toy, tmp_path, batches=Grows())
    speeds = [entry["tokens_per_s"] for entry in read_scalars(tmp_path)]
    assert [speed is None for speed in speeds] == [True, False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("kind", "share"),
    # A TPU7x chip of 2,307 TFLOP/s is two devices, of which each does half of the chip's work: the
    # share of a device's peak is that of the chip's.
    [("NVIDIA H100 80GB HBM3", 989e12), ("TPU7x", 2307e12 / 2), ("unknown", None)],
)
def test_mfu_is_a_share_of_the_vendors_peak(toy, monkeypatch, kind, share):
    class Device:
        device_kind = kind

        def memory_stats(self):
            return {"peak_bytes_in_use": 2**31}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    meter = loop._Meter(toy.cfg)
    meter.add({"tokens": 100.0, "response_tokens": 10.0, "attention_pairs": 1e3}, 0.5, 0.1)
    counted = meter.work / 0.5 / jax.device_count()
    taken = meter.take()
    assert taken["device_peak_gib"] == 2
    assert taken["data_wait"] == pytest.approx(0.2)
    assert taken["tokens_per_s"] == pytest.approx(200)
    if share is None:
        assert "mfu" not in taken
    else:
        assert taken["mfu"] == pytest.approx(counted / share)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_stops_the_run_before_it_is_saved(toy, tmp_path, bad):
    with pytest.raises(FloatingPointError, match=r"step 6: loss=.* checkpoint is step 3"):
        _train(toy, tmp_path, losses={6: bad})
    assert read_scalars(tmp_path)[-1]["step"] == 5
    assert json.loads((tmp_path / EVENTS_FILE).read_text().splitlines()[-1])["kind"] == "not_finite"


def test_a_bad_first_loss_says_that_there_is_no_checkpoint(toy, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step 1: .* no checkpoint yet"):
        _train(toy, tmp_path, losses={1: float("nan")})


def test_data_that_ends_is_an_error_with_a_way_out(toy, tmp_path):
    class Short(toy.Batches):
        def __next__(self):
            if self.index == 4:
                raise StopIteration
            return super().__next__()

    with pytest.raises(ValueError, match=r"ended before step 5 of train.num_steps=7"):
        _train(toy, tmp_path, batches=Short())


def test_a_wish_to_stop_saves_and_returns(toy, tmp_path):
    state, saved = _train(toy, tmp_path, should_stop=lambda step: step == 4)
    assert int(state.step) == 4
    assert sorted(saved) == [3, 4]


def test_a_finished_state_runs_no_step(toy, tmp_path):
    done = step.TrainState({}, (), jnp.int32(7))
    state, saved = _train(toy, tmp_path, state=done)
    assert state is done and not saved


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(toy, tmp_path):
    config = toy.train_config(grad_accum=2, num_steps=6)
    chain = optimizer.make_optimizer(config)
    train_step = step.make_train_step(toy.cfg, chain, config)

    def run(folder, state, start):
        return _train(
            toy,
            tmp_path / folder,
            state=state,
            batches=toy.Batches(start, grad_accum=2),
            train_step=train_step,
            num_steps=6,
        )

    fresh = step.init_state(transformer.init_params(toy.cfg, jax.random.key(0)), chain)
    whole, saved = run("whole", fresh, 0)
    middle, data_state, _ = saved[3]
    resumed, _ = run("resumed", jax.tree.map(jnp.asarray, middle), data_state["index"])
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert not np.array_equal(middle.params["embed"], np.asarray(whole.params["embed"]))
