"""A run of which everything lies in a bucket: killed, gone on with, refused, and as on a disk."""

import json
import subprocess
import sys
import time

import pytest

from jssd import bucket as store
from jssd import heartbeats, places
from jssd.evals import arms
from tests.e2e import conftest

# Five runs come before the first test.
pytestmark = pytest.mark.timeout(1800)
# Each line of a file under way goes to the bucket at once, and takes a while: time to kill it.
SLOW = """
import runpy, time
from jssd import growing
growing.PUT_SECONDS = growing._SHARE = 0.0
put = growing.Log._put
growing.Log._put = lambda log: (put(log), time.sleep(0.3))
runpy.run_module("jssd.main", run_name="__main__", alter_sys=True)
"""
FLAGS = (
    "--config.prompts.template=user", "--config.prompts.limit=6", "--config.evaluate.n=1",
    "--config.evaluate.ks=(1,)", "--config.evaluate.benchmarks=('sums',)",
    "--config.evaluate.base_decode=", "--config.evaluate.student_decode=",
    "--config.train.num_steps=4",
)  # fmt: skip


def _flags(root) -> list[str]:
    inputs = {"model.path": "model", "prompts.source": "prompts.jsonl", "evaluate.data": "data"}
    return [*FLAGS, *(f"--config.{field}={root / name}" for field, name in inputs.items())]


@pytest.fixture(scope="module")
def inputs(tiny):
    """A folder with a model, prompts and a benchmark."""
    rows = [{"question": f"Add {i} to a number from standard input."} for i in range(8)]
    (tiny / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [
        {"id": f"sum/{i}", "statement": f"Print {i}.", "tests": [{"stdin": "", "stdout": str(i)}]}
        for i in range(2)
    ]
    (tiny / "data").mkdir()
    (tiny / "data" / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    return tiny


def _started(line: list[str]) -> subprocess.Popen:
    environment, pipe = conftest.cpu_devices(), subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)


def _kill_when(came, line: list[str]) -> None:
    with _started(line) as run:
        while run.poll() is None and not came():
            time.sleep(0.02)
        ended = run.poll()
        run.kill()
        output = run.communicate()[0]
        assert ended is None, output


@pytest.fixture(scope="module")
def runs(bucket, inputs, tmp_path_factory):
    """The same run twice: in a folder, left alone; in a bucket, killed in sampling and training."""
    local, remote = tmp_path_factory.mktemp("local") / "run", bucket / "run"
    for file in sorted(inputs.rglob("*")):
        if file.is_file():
            store.upload(file, bucket / str(file.relative_to(inputs)))
    slow = conftest.command(inputs, remote, *_flags(bucket), start=[sys.executable, "-c", SLOW])
    with _started(conftest.command(inputs, local, *_flags(inputs))) as alone:
        try:
            _kill_when((remote / "samples/part-00000.jsonl.partial").exists, slow)
            drawn = (remote / "samples/part-00000.jsonl.partial").read_bytes().splitlines()
            assert 1 <= len(drawn) < 6
            _kill_when((remote / "checkpoints/2/commit_success.txt").exists, slow)
            assert not (remote / "checkpoints/4").exists()
            done = conftest.cli(inputs, remote, *_flags(bucket))
            assert done.returncode == 0, done.stdout + done.stderr
            assert "step: 3" in done.stdout and "step: 2" not in done.stdout
            output = alone.communicate()[0]
            assert alone.returncode == 0, output
        finally:
            alone.kill()
    return local, remote


def _files(workdir, *patterns: str) -> dict[str, bytes]:
    found = [path for pattern in patterns for path in workdir.glob(pattern)]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in found}


def test_killed_and_gone_on_with_a_bucket_holds_the_bytes_of_a_folder(runs):
    kinds = ("samples/part-*", "export/*.safetensors", "eval/sums/*/*/part-*")
    local, remote = (_files(workdir, *kinds) for workdir in runs)
    assert len(local) == 6  # One of samples, one of weights, two decodings of two models.
    assert remote == local


def test_it_holds_the_files_of_a_folder_and_the_log_of_every_step_once(runs):
    kinds = ("*", "samples/*", "export/*", "eval/*", "eval/sums/*/*/*", "report/*", "checkpoints/*")
    local, remote = (
        {str(path.relative_to(workdir)) for kind in kinds for path in workdir.glob(kind)}
        for workdir in runs
    )
    assert remote == {name for name in local if not name.startswith(".")}
    assert (runs[1] / "report/index.html").read_bytes().rstrip().endswith(b"</html>")
    rows = (runs[1] / "train/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]
    assert any(b"loss" in path.read_bytes() for path in runs[1].glob("train/tensorboard/*"))


def test_status_reads_the_bucket(runs, bucket):
    line = [sys.executable, "-m", "jssd.status"]
    said = subprocess.run([*line, str(runs[1])], capture_output=True, text=True)
    assert said.stdout.splitlines()[:7] == [
        f"{runs[1]}: nobody is at work",
        "  sample: done", "  sft: done", "  export: done", "  evaluate: done", "  report: done",
        "next: nothing, all is done",
    ]  # fmt: skip
    assert "3 starts" in said.stdout
    said = subprocess.run([*line, f"{bucket}/none"], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (
        2, f"jssd: error: {bucket}/none holds no run: there is no config.json.\n",
    )  # fmt: skip


def test_arms_are_set_side_by_side_from_a_bucket(runs, capsys):
    assert arms.main([str(runs[1])]) == 0
    assert "sums at greedy" in capsys.readouterr().out


def test_a_half_written_export_is_written_again(runs, bucket, inputs):
    export = runs[1] / "export"
    whole = (export / "model.safetensors").read_bytes()
    (runs[1] / ".export.partial").write_text("As a process leaves it that is killed in between.")
    (export / "model.safetensors").unlink()
    assert not places.is_whole(export)
    done = conftest.cli(inputs, runs[1], *_flags(bucket), "--stages=export")
    assert done.returncode == 0, done.stderr
    assert places.is_whole(export)
    assert (export / "model.safetensors").read_bytes() == whole


def test_a_job_that_beats_on_another_host_is_in_the_way(bucket, inputs):
    workdir = bucket / "taken"
    entry = {"rank": 0, "host": "another", "pid": 7, "ended": None}
    with subprocess.Popen(
        conftest.command(inputs, workdir, *_flags(bucket)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=conftest.cpu_devices(),
    ) as second:  # fmt: skip
        while second.poll() is None:
            beat = json.dumps(entry | {"time": time.time()})
            heartbeats.path(workdir, 0).write_text(beat)
            time.sleep(0.2)
        assert second.stderr is not None
        said = second.stderr.read()
    assert second.returncode == 2
    assert said == (
        f"jssd: error: {workdir} is in use by process 7 on another. Wait for it or end it, or give "
        "this run another --workdir.\n"
    )


@pytest.mark.parametrize(
    ("workdir", "flags", "said"),
    [
        ("s3://bucket/run", (), "s3://bucket/run must be a local path or gs://bucket/folder"),
        ("gs://", (), "gs:// must name a bucket"),
        ("gs://no-such-bucket/run", (), "there is no bucket 'no-such-bucket'"),
        ("", ("--config.model.path=az://b/m",), "model.path='az://b/m' must be a local path"),
    ],
    ids=["scheme", "no bucket named", "no such bucket", "scheme of a field"],
)
def test_a_mistake_is_one_line(bucket, tiny, tmp_path, workdir, flags, said):
    done = conftest.cli(tiny, workdir or tmp_path / "run", *flags)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and said in done.stderr


def test_a_server_out_of_reach_is_one_line(bucket, tiny):
    unheard = conftest.cpu_devices() | {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
    done = subprocess.run(
        conftest.command(tiny, bucket / "run"), capture_output=True, text=True, env=unheard
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "is out of reach" in done.stderr and "run the same command again" in done.stderr
