"""The ledger of a run: seconds by phase, what was lost, and a line that a kill cut short."""

import json

import pytest

from jssd import goodput, phases


def _ledger(folder, *entries):
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / phases.LEDGER).write_text(lines)
    found = goodput.read([folder])
    assert found is not None
    return found


def _step(seconds, last, count):
    return {"phase": "step", "seconds": seconds, "step": last, "steps": count}


STARTED = {"event": "started"}


def test_steps_after_the_checkpoint_gone_on_from_are_lost(tmp_path):
    found = _ledger(
        tmp_path,
        STARTED, {"event": "restored", "step": 0}, _step(40.0, 4, 4), _step(40.0, 8, 4),
        STARTED, {"event": "restored", "step": 6}, _step(20.0, 8, 2),
        {"event": "kept", "phase": "step"},
        STARTED, {"event": "restored", "step": 0},  # Another student of a sweep: nothing is lost.
    )  # fmt: skip
    assert found.starts == 3
    assert found.seconds == {"step": 80.0, "lost": 20.0}  # Steps 7 and 8 of the first start.
    assert found.share == 0.8
    assert found.rows() == [("training steps", 80.0, 0.8), ("lost to interruptions", 20.0, 0.2)]


def test_measuring_counts_once_its_numbers_are_written(tmp_path):
    kept = {"event": "kept", "phase": "measure"}
    measure = {"phase": "measure", "seconds": 5.0}
    found = _ledger(tmp_path, STARTED, measure, kept, measure, STARTED, measure, kept)
    assert found.seconds == {"measure": 10.0, "lost": 5.0}


def test_what_a_kill_cut_short_is_passed_over(tmp_path):
    _ledger(tmp_path, STARTED, {"phase": "sample", "seconds": 5.0})
    with (tmp_path / phases.LEDGER).open("a") as file:
        file.write('{"phase": "sam')
    with phases.ledger(tmp_path):
        pass
    found = goodput.read([tmp_path])
    assert found is not None and found.starts == 2 and found.seconds["sample"] == 5.0


def test_no_ledger_is_none(tmp_path):
    assert goodput.read([tmp_path]) is None


def test_a_phase_owns_its_time_and_compiles_until_the_first_sign_of_life(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])
    phases.beat()  # Whatever other tests left has ended here.
    before = {name: phases.total(name) for name in ("compile", "sample", "save")}

    def work(seconds):
        now[0] += seconds

    with phases.ledger(tmp_path), phases.phase("sample", first="compile"):
        work(7)
        assert phases.current().name == "compile"
        phases.beat()
        work(2)
        with phases.phase("save"):
            work(1)
        work(3)
        assert phases.current().name == "sample" and phases.current().beat == 110.0
    spent = {name: phases.total(name) - before[name] for name in before}
    assert spent == {"compile": 7.0, "sample": 5.0, "save": 1.0}
    found = goodput.read([tmp_path])
    assert found is not None and found.seconds["sample"] == 5.0


def test_a_long_phase_is_written_down_on_the_way(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])
    phases.flush()
    with phases.ledger(tmp_path), phases.phase("step"):
        for step in range(1, 5):
            now[0] += 4.0
            phases.beat(step)
        found = goodput.read([tmp_path])  # As after a kill here.
        assert found is not None and found.seconds["step"] == pytest.approx(12.0)
