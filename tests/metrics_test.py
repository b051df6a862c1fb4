"""The writer's files and lines: what is in them, and what a restart does to them."""

import json
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from jssd import metrics


def test_one_step_in_three_places(tmp_path, capsys):
    with metrics.Writer(tmp_path) as writer:
        writer.scalars(3, {"loss": 1.25, "tokens": 4096, "kept_mass": float("nan"), "mfu": None})
    assert capsys.readouterr().out == (
        "step: 3, loss: 1.25, tokens: 4096, kept_mass: nan, mfu: -\n"
    )
    wanted = {"step": 3, "loss": 1.25, "tokens": 4096.0, "kept_mass": None, "mfu": None}
    assert metrics.read_scalars(tmp_path) == [wanted]
    assert _board(tmp_path) == {("loss", 3): 1.25, ("tokens", 3): 4096.0}


def test_resume_forgets_later_steps_and_a_cut_line(tmp_path):
    with metrics.Writer(tmp_path) as writer:
        for step in range(1, 8):
            writer.scalars(step, {"loss": float(step)})
    with (tmp_path / metrics.METRICS_FILE).open("a") as file:
        file.write('{"step": 8, "lo')
    with metrics.Writer(tmp_path) as writer:
        writer.resume(5)
        writer.scalars(6, {"loss": 60.0})
    logged = [(entry["step"], entry["loss"]) for entry in metrics.read_scalars(tmp_path)]
    assert logged == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0), (6, 60.0)]
    assert not list(tmp_path.glob("*.tmp"))
    assert _purges(tmp_path) == [6]


def test_resume_at_the_start_forgets_everything(tmp_path):
    with metrics.Writer(tmp_path) as writer:
        writer.scalars(1, {"loss": 1.0})
    metrics.Writer(tmp_path).resume(0)
    assert metrics.read_scalars(tmp_path) == []


def test_events_keep_everything_with_its_time(tmp_path):
    writer = metrics.Writer(tmp_path)
    writer.event("started", step=0)
    writer.resume(0)
    writer.event("saved", step=250, seconds=1.5)
    lines = (tmp_path / metrics.EVENTS_FILE).read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["kind"] for entry in entries] == ["started", "saved"]
    assert entries[1]["step"] == 250
    assert entries[0]["time"].endswith("+00:00") and entries[0]["time"] <= entries[1]["time"]


def test_disabled_writes_and_prints_nothing(tmp_path, capsys):
    writer = metrics.Writer(tmp_path / "run", enabled=False)
    writer.resume(3)
    writer.scalars(1, {"loss": 1.0})
    writer.event("started")
    writer.line("hello")
    with writer.progress(3, "work") as advance:
        advance(3)
    writer.close()
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "run").exists()


def test_progress_without_a_terminal_is_a_line_now_and_then(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 1.0, 31.0, 32.0, 40.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    with metrics.Writer(tmp_path).progress(10, "sft", done=6) as advance:
        for _ in range(4):
            advance(1)
    assert capsys.readouterr().out.splitlines() == [
        "sft: 8/10, 31 s, about 31 s left",
        "sft: 10/10, 40 s, about 0 s left",
    ]


def test_lines_on_a_terminal_stay_whole_above_the_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    text = "step: 1, " + "loss: [1.0], " * 30 + "end"
    writer = metrics.Writer(tmp_path)
    with pytest.raises(KeyError), writer.progress(10, "sft") as advance:
        advance(1)
        writer.line(text)
        raise KeyError
    writer.line("after")
    out = capsys.readouterr().out
    assert text + "\n" in out and "1/10" in out and "after\n" in out


def test_no_jax_and_no_tensorflow_is_imported(tmp_path):
    # A None entry makes any import of the name an error.
    code = (
        "import sys; sys.modules.update(tensorflow=None, jax=None)\n"
        "from jssd import metrics\n"
        "assert 'tensorboardX' not in sys.modules and 'rich' not in sys.modules\n"
        f"metrics.Writer({str(tmp_path)!r}).scalars(1, {{'loss': 1.0}})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _events(folder):
    """Events of the TensorBoard files: records of length (8), checksum (4), bytes, checksum (4)."""
    for path in sorted((folder / metrics.TENSORBOARD_FOLDER).iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            yield Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16


def _board(folder):
    return {
        (value.tag, event.step): value.simple_value
        for event in _events(folder)
        for value in event.summary.value
    }


def _purges(folder):
    """Steps from which a file hides the points of older files."""
    return [event.step for event in _events(folder) if event.session_log.status and event.step > 1]
