"""Stage evaluate with benchmarks from files, as a user runs it, on a tiny model."""

import json

import pytest

from tests.e2e import conftest
from tests.evals.benchmarks import lcb_problems

CONFIG = conftest.CONFIG.replace(
    "            n=2, ks=(1, 2), limit=4, max_new_tokens=16, bootstrap=200,\n",
    "            n=2, ks=(1, 2), max_new_tokens=16, bootstrap=200, data={data!r},\n"
    '            benchmarks=("livecodebench", "aime"),\n'
    "            livecodebench=c.LiveCodeBenchConfig(\n"
    '                path={data!r} + "/lcb", window="2025-02-01:2025-05-31"\n'
    "            ),\n",
).replace(
    'decodes=[c.DecodeConfig("greedy"), c.DecodeConfig("t1.0", 1.0)],\n'
    '            base_decode="greedy", student_decode="t1.0",',
    'decodes=[c.DecodeConfig("t1.0", 1.0, models=("base",))],',
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    conftest.make_model(folder / "model")
    data = folder / "data"
    data.mkdir()
    lcb_problems.write(data / "lcb")
    (data / "aime.jsonl").write_text(json.dumps({"problem": "1 + 1?", "answer": "2"}) + "\n")
    text = CONFIG.format(model=str(folder / "model"), data=str(data))
    assert "LiveCodeBenchConfig" in text and 'models=("base",)' in text
    (folder / "config.py").write_text(text)
    return folder


def test_scores_say_what_was_asked_and_by_which_rules(root, tmp_path):
    done = conftest.cli(root, tmp_path / "run", "--stages=evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    told = "livecodebench: 4 problems of contests from 2025-02-01 to 2025-05-31"
    assert told in " ".join(done.stdout.split())
    place = tmp_path / "run/eval/livecodebench/t1.0/base"
    scores = json.loads((place / "scores.json").read_text())
    assert scores["told"].startswith(told)
    assert scores["protocol"]["extraction"] == "release_fence"
    assert scores["protocol"]["seconds_per_test"] == 7.0
    assert {name: part["problems"] for name, part in scores["by_group"].items()} == {
        "easy": 2, "medium": 1, "hard": 1,
    }  # fmt: skip
    rows = conftest.read_lines(place / "completions.jsonl")
    assert {row["task_id"]: row["group"] for row in rows}["words"] == "hard"
    outputs = json.loads((place / "custom_outputs.json").read_text())
    assert [(row["question_id"], len(row["code_list"])) for row in outputs] == [
        ("half", 2), ("pair", 2), ("sum", 2), ("words", 2),
    ]  # fmt: skip
    assert len(conftest.read_lines(place / "samples.jsonl")) == 8
    aime = json.loads((tmp_path / "run/eval/aime/t1.0/base/scores.json").read_text())
    assert aime["problems"] == 1 and aime["by_group"] == {}


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--config.evaluate.livecodebench.path=/nowhere", "/nowhere is no .jsonl file"),
        ("--config.evaluate.data=", "'aime' comes neither with jssd nor as aime.jsonl"),
        ("--config.evaluate.packages=/nowhere", "evaluate.packages=/nowhere holds no numpy"),
        ("--config.evaluate.livecodebench.strict=('exits',)", "must hold some of extraction"),
        ("--config.evaluate.livecodebench.window=v7", "must be '', 'v5', 'v6' or two days"),
    ],
)
def test_missing_data_are_told_before_anything_is_sampled(root, tmp_path, flag, reason):
    done = conftest.cli(root, tmp_path / "run", "--stages=sample,evaluate", flag)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "samples").exists()
