"""What users get wrong: one clear line, an exit code that is not 0, and earlier work intact."""

import json
import shlex
import shutil
import subprocess

import pytest

from tests.e2e import conftest


def _one_line(done, *parts: str) -> None:
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--config.model.path=no/such/model/here"], ["no/such/model/here"]),
        (["--config.sampling.top_p=1.5"], ["sampling.top_p=1.5", "(0, 1]"]),
        (["--config.sampling.max_new_tokens=1020"], ["context", "1024", "max_new_tokens"]),
        (["--config.prompts.source=missing.jsonl"], ["missing.jsonl"]),
        (["--config.prompts.template=nope"], ["nope", "task"]),
        (["--config.mesh.tensor=3"], ["mesh", "3"]),
        (["--stages=smaple"], ["smaple", "sample"]),
        (["--stages=sft"], ["samples"]),
        (["--stages=report"], ["nothing to report", "sample"]),
        (["--config.train.num_steps=1.5"], ["1.5"]),
        (["--config.sampling.temprature=1.0"], ["temprature"]),
        (["extra"], ["extra"]),
        (["--config.engine.prefill_chunk=100"], ["engine.prefill_chunk=100", "multiple", "64"]),
        (["--config.engine.cache_tokens=10"], ["cache_tokens=10", "at least"]),
        (["--config.engine.cache_dtype=int4"], ["engine.cache_dtype='int4'", "int8"]),
        (["--config.engine.attention=ragged"], ["attention='ragged'", "128", "gather"]),
        (["--config.train.targets=law"], ["train.targets='law'", "engine.keep_law=True"]),
        (["--config.evaluate.livecodebench.difficulty=hard"], ["difficulty='hard'", "leave it ''"]),
        (["--num_processes=2"], ["--coordinator", "--process_id"]),
    ],
)
def test_bad_settings(tiny, tmp_path, flags, parts):
    _one_line(conftest.cli(tiny, tmp_path / "run", *flags), *parts)


def test_a_model_that_is_not_implemented(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "root")
    config = tmp_path / "root" / "model" / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"gpt_oss"'))
    flag = f"--config.model.path={tmp_path / 'root' / 'model'}"
    _one_line(conftest.cli(tiny, tmp_path / "run", flag), "gpt_oss", "llama")


def test_a_cut_weight_file(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "root")
    weights = tmp_path / "root" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    flag = f"--config.model.path={tmp_path / 'root' / 'model'}"
    _one_line(conftest.cli(tiny, tmp_path / "run", flag), "model.safetensors")


def test_a_corrupt_sample_line_is_named_and_kept(tiny, tmp_path):
    workdir = tmp_path / "run"
    assert conftest.cli(tiny, workdir, "--stages=sample").returncode == 0
    part = workdir / "samples" / "part-00000.jsonl"
    lines = part.read_text().splitlines()
    lines[3] = lines[3][:40]
    part.write_text("\n".join(lines) + "\n")
    before = part.read_bytes()
    _one_line(conftest.cli(tiny, workdir, "--stages=sft"), "part-00000.jsonl:4")
    assert part.read_bytes() == before


def test_samples_of_other_weights_are_refused_unless_allowed(tiny, tmp_path):
    workdir = tmp_path / "run"
    assert conftest.cli(tiny, workdir, "--stages=sample").returncode == 0
    part = workdir / "samples" / "part-00000.jsonl"
    rows = [json.loads(line) | {"fingerprint": "other"} for line in part.read_text().splitlines()]
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _one_line(conftest.cli(tiny, workdir, "--stages=sft"), "other", "allow_foreign_samples")


def test_nothing_left_after_filters(tiny, tmp_path):
    workdir = tmp_path / "run"
    flags = ["--stages=sample,sft", "--config.filter.drop_shortest_percent=99.9"]
    flags += ["--config.filter.truncated=drop", "--config.filter.drop_stubs=True"]
    flags += ["--config.sampling.max_new_tokens=1"]
    _one_line(conftest.cli(tiny, workdir, *flags), "filter leaves none")
    assert (workdir / "samples" / "part-00000.jsonl").exists()


@pytest.mark.parametrize("stage", ["sample", "export"])
def test_no_room_for_a_file_leaves_what_was_there(tiny, tmp_path, stage):
    workdir = tmp_path / "run"
    before = {"sample": [], "export": ["--stages=sample,sft"]}[stage]
    if before:
        assert conftest.cli(tiny, workdir, *before).returncode == 0
    found = conftest.outputs(workdir)
    # A limit on file size fails a write as a full disk does.
    line = "ulimit -f 4; exec " + shlex.join(conftest.command(tiny, workdir, f"--stages={stage}"))
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=conftest.cpu_devices()
    )
    assert done.returncode == 1
    _one_line(done, "too large", "run the same command again")
    assert conftest.outputs(workdir).items() >= found.items()
    assert not (workdir / "export").exists()
    assert conftest.cli(tiny, workdir, f"--stages={stage}").returncode == 0
