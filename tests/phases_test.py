"""Phases, signs of life and the ledger, by a clock that a test turns."""

import json

import pytest

from jssd import phases


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be added to; the module starts anew with it."""
    now = [100.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(phases, "_clock", phases._Clock())

    def turn(seconds):
        now[0] += seconds

    return turn


def _spent(folder):
    found = [json.loads(line) for line in (folder / phases.LEDGER).read_text().splitlines()]
    spent: dict[str, float] = {}
    for entry in found:
        if "event" not in entry:
            spent[entry["phase"]] = spent.get(entry["phase"], 0.0) + entry["seconds"]
    return spent


def test_a_phase_is_left_and_entered_and_compiles_first(clock):
    assert phases.current().name == "init"
    with phases.phase("sample", first="compile"):
        assert phases.current().name == "compile"
        phases.beat()
        assert phases.current().name == "sample"
        with phases.phase("wait"):
            assert phases.current().name == "wait"
        assert phases.current().name == "sample"
    with pytest.raises(KeyError), phases.phase("grade"):
        raise KeyError
    assert phases.current().name == "init"


def test_a_beat_is_when_it_came_and_at_which_step(clock):
    clock(5)
    with phases.phase("step"):
        clock(2)
        phases.beat(7)
        clock(3)
        view = phases.current()
        assert (view.beat, view.step) == (107.0, 7)
        phases.beat()
        assert (phases.current().beat, phases.current().step) == (110.0, 7)
    assert phases.total("step") == 5.0


def test_what_is_held_is_told(clock):
    assert not phases.current().holds
    phases.hold(True)
    assert phases.current().holds


def test_the_ledger_has_the_seconds_of_each_phase_once(clock, tmp_path):
    clock(4)  # Before there was a folder.
    with phases.ledger(tmp_path):
        with phases.phase("sample"):
            clock(11)
            phases.beat()  # After ten seconds: written down while it goes on.
            assert _spent(tmp_path) == {"init": 4.0, "sample": 11.0}
        clock(1)
        phases.mark("kept", phase="step")
    assert _spent(tmp_path) == {"init": 5.0, "sample": 11.0}
    lines = [json.loads(line) for line in (tmp_path / phases.LEDGER).read_text().splitlines()]
    assert [line["event"] for line in lines if "event" in line] == ["started", "kept"]


def test_steps_are_counted_and_other_processes_keep_no_ledger(clock, tmp_path):
    with phases.ledger(None), phases.phase("step"):
        phases.beat(1)
    assert not list(tmp_path.iterdir())
    with phases.ledger(tmp_path), phases.phase("step"):
        for step in (2, 3):
            clock(1)
            phases.beat(step)
    last = json.loads((tmp_path / phases.LEDGER).read_text().splitlines()[-1])
    assert (last["phase"], last["step"]) == ("step", 3)
