"""The whole pipeline on a tiny model, as a user runs it: once straight, and killed all along."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest
from safetensors.numpy import load_file

from tests import formats
from tests.e2e import conftest


def test_each_stage_leaves_its_folder(straight):
    samples = conftest.read_lines(straight / "samples" / "part-00000.jsonl")
    assert len(samples) == 12
    for sample in samples:
        assert 1 <= len(sample["token_ids"]) <= 24
        assert len(sample["logprobs"]) == len(sample["token_ids"])
        assert (sample["finish_reason"] == "stop") == (sample["token_ids"][-1] == 257)
    steps = conftest.read_lines(straight / "train" / "metrics.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert all(0 < line["kept_mass"] <= 1.0001 for line in steps)
    assert (straight / "export" / "config.json").exists()
    comparisons = json.loads((straight / "eval" / "comparisons.json").read_text())
    assert {row["kind"] for row in comparisons} == {"same", "own"}
    assert (straight / "report" / "index.html").exists()


def test_files_are_as_the_page_of_formats_says(straight):
    seen, wrong = formats.compare(straight)
    assert wrong == []
    # Of stages that run when they are named, and of models from the hub.
    by_name = ("mechanism", "sweep", "toy", "plan", "model.json")
    assert seen == {p for p in formats.promised() if p.split("/")[0] not in by_name}


def test_training_moved_the_weights(straight, tiny):
    before = load_file(tiny / "model" / "model.safetensors")
    after = load_file(straight / "export" / "model.safetensors")
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_finished_run_is_left_alone(straight, tiny):
    before = conftest.outputs(straight)
    assert conftest.cli(tiny, straight).returncode == 0
    assert conftest.outputs(straight) == before


@pytest.mark.parametrize("stage", ["sft", "mechanism"])
def test_a_flipped_byte_of_the_samples_is_named(straight, tiny, tmp_path, stage):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    part = workdir / "samples" / "part-00000.jsonl"
    data = part.read_bytes()
    at = data.index(b'"text":"') + len(b'"text":"')
    part.write_bytes(data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at:])
    done = conftest.cli(tiny, workdir, f"--stages={stage}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "part-00000.jsonl changed since sampling ended" in done.stderr


def test_a_flipped_byte_of_an_export_is_named(straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    shutil.rmtree(workdir / "eval")
    weights = workdir / "export" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    done = conftest.cli(tiny, workdir, "--stages=evaluate")
    assert done.returncode == 2
    assert "model.safetensors has other bytes" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_other_settings_in_the_same_workdir_are_refused(straight, tiny):
    done = conftest.cli(tiny, straight, "--config.sampling.temperature=0.5")
    assert done.returncode == 2
    assert "begun with other settings" in done.stderr and "0.5" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_killed_anywhere_it_ends_with_the_same_bytes(straight, tiny, tmp_path):
    workdir = tmp_path / "run"
    partial = workdir / "samples/part-00000.jsonl.partial"
    moments = {
        "a first sample": lambda: conftest.count_lines(partial) >= 1,
        "half the samples": lambda: conftest.count_lines(partial) >= 7,
        "samples done": lambda: (workdir / "samples/part-00000.jsonl").exists(),
        "a first checkpoint": lambda: (workdir / "checkpoints/2").exists(),
        "a later checkpoint": lambda: (workdir / "checkpoints/4").exists(),
        "export begun": lambda: any(workdir.glob(".export*")) or (workdir / "export").exists(),
        "evaluation begun": lambda: any(workdir.glob("eval/tasks/*/*/part*")),
        "the student's turn": lambda: any(workdir.glob("eval/tasks/*/student/part*")),
        "grading": lambda: any(workdir.glob("eval/tasks/*/*/scores.json")),
    }
    rng = random.Random(0)
    killed = 0
    for name, came in moments.items():
        with subprocess.Popen(
            conftest.command(tiny, workdir),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=conftest.cpu_devices(),
        ) as run:
            while run.poll() is None and not came():
                time.sleep(0.01)
            time.sleep(rng.random() * 0.2)
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                killed += 1
            output = run.stdout.read() if run.stdout else ""
        assert run.returncode in (0, -signal.SIGKILL), f"{name}: {output}"
    assert killed >= 6
    done = conftest.cli(tiny, workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    expected, found = conftest.outputs(straight), conftest.outputs(workdir)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
