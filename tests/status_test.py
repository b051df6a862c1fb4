"""What the command says of work directories in every state."""

import json
import os
import subprocess
import sys
import time

import pytest

from jssd import heartbeats, status
from jssd.config import Config, to_dict


def _write(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def run(tmp_path):
    """A run of which half is done."""
    _write(tmp_path / "config.json", json.dumps(to_dict(Config())))
    _write(tmp_path / "samples/manifest.json")
    (tmp_path / "checkpoints/500").mkdir(parents=True)
    (tmp_path / "checkpoints/750.orbax-checkpoint-tmp").mkdir()  # Under way: does not count.
    return tmp_path


def _heartbeat(folder, **changes):
    entry = {
        "rank": 0, "count": 2, "host": "h", "pid": 7, "began": 0.0, "time": time.time(),
        "phase": "step", "step": 510, "seconds_since_progress": 1.0, "ended": None,
    } | changes  # fmt: skip
    _write(heartbeats.path(folder, entry["rank"]), json.dumps(entry))


def test_stages_and_what_comes_next(run):
    lines = status.describe(run)
    assert lines == [
        f"{run}: nobody is at work",
        "  sample: done",
        "  sft: step 500 of 2500 saved",
        "  export: not begun",
        "  evaluate: not begun",
        "  report: not begun",
        "next: sft",
    ]


def test_a_report_older_than_its_run_is_stale(run):
    _write(run / "report/index.html")
    os.utime(run / "report/index.html", (1, 1))
    assert status.describe(run)[5] == "  report: stale: older than what it reports"


def test_cells_and_completions_are_counted(run):
    _write(run / "eval/tasks/greedy/base/scores.json")
    _write(run / "eval/tasks/greedy/base/part-00000.jsonl")
    _write(run / "eval/tasks/greedy/student/part-00000.jsonl.partial")
    (run / "samples/manifest.json").unlink()
    _write(run / "samples/part-00000.jsonl.partial", "{}\n{}\n")
    lines = status.describe(run)
    assert "  evaluate: 1 cells graded, 1 drawn or begun" in lines
    assert "  sample: 2 completions drawn" in lines and lines[-1] == "next: sample"


def test_who_runs_and_who_is_silent(run):
    _heartbeat(run)
    _heartbeat(run, rank=1, time=time.time() - 100)
    line = status.describe(run)[0]
    assert "process 0/2 (pid 7 on h) in step, step 510" in line
    assert line.endswith("stale: process 1")


@pytest.mark.parametrize(("ended", "told"), [(None, "killed or frozen"), (42, "exit code 42")])
def test_nobody_left(run, ended, told):
    _heartbeat(run, time=time.time() - 1000, ended=ended)
    line = status.describe(run)[0]
    assert "stale" in line and told in line and "in step, step 510" in line


def test_seeds_one_by_one(tmp_path):
    for index in (0, 10, 2):
        _write(tmp_path / f"seed-{index}/config.json", json.dumps(to_dict(Config())))
    _write(tmp_path / "seed-0/export/config.json")  # A model's, not a run's.
    lines = [line for line in status.describe(tmp_path) if "sample" in line]
    assert lines == [f"  seed-{i}/sample: not begun" for i in (0, 2, 10)] + ["next: seed-0/sample"]


def test_the_command_loads_nothing_heavy_and_names_a_mistake(tmp_path):
    code = (
        "import sys; from jssd import status; code = status.main(sys.argv[1:]); "
        "assert not {'jax', 'numpy', 'orbax'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2 and "holds no run" in done.stderr
