"""Long sampling jobs: ended at random, and spread over hosts."""

import json
import random
import signal
import subprocess
import time

import pytest

from jssd import heartbeats
from tests.e2e import conftest

# Most requests are more than the slots, and the cache is short: completions are set back too.
JOB = (
    "--stages=sample", "--config.prompts.limit=200", "--config.engine.cache_tokens=1200",
    "--config.compile_cache=true",
)  # fmt: skip
PART = "samples/part-00000.jsonl"


@pytest.fixture(scope="module")
def straight(tiny, tmp_path_factory):
    """The job, left alone."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    done = conftest.cli(tiny, workdir, *JOB)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


def _beating(workdir):
    return [entry["pid"] for entry in heartbeats.read(workdir)]


def test_a_job_of_200_prompts_ended_ten_times_at_random_gives_the_same_file(
    straight, tiny, tmp_path
):
    workdir, rng = tmp_path / "run", random.Random(time.time_ns())
    partial = workdir / (PART + ".partial")
    counts = []
    for ends, drawn in enumerate(sorted(rng.sample(range(1, 190), 10))):
        # A host's shutdown begins with SIGTERM; what is in the slots then is drawn again.
        how = signal.SIGTERM if ends % 3 == 2 else signal.SIGKILL
        with subprocess.Popen(
            conftest.command(tiny, workdir, *JOB),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=conftest.cpu_devices(),
        ) as run:  # fmt: skip
            while run.poll() is None and conftest.count_lines(partial) < drawn:
                time.sleep(0.001)
            if how == signal.SIGTERM:  # Before it listens, it would just end.
                while run.poll() is None and run.pid not in _beating(workdir):
                    time.sleep(0.001)
            time.sleep(rng.random() * 0.05)
            run.send_signal(how)
        assert run.returncode == (42 if how == signal.SIGTERM else -how)  # Saved, or killed.
        counts.append(conftest.count_lines(partial))
    assert counts == sorted(counts) and counts[-1] < 200 and len(set(counts)) > 5
    done = conftest.cli(tiny, workdir, *JOB)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{200 - counts[-1]} completions" in done.stdout
    assert (workdir / PART).read_bytes() == (straight / PART).read_bytes()
    name = "samples/manifest.json"
    assert (workdir / name).read_bytes() == (straight / name).read_bytes()


def test_hosts_draw_their_own_prompts_and_together_the_same_samples(straight, tiny, tmp_path):
    conftest.finish_hosts(conftest.start_hosts(tiny, tmp_path, *JOB, count=2))
    parts = [(tmp_path / f"samples/part-0000{i}.jsonl").read_bytes() for i in range(2)]
    assert [part.count(b"\n") for part in parts] == [100, 100]
    both = sorted(b"".join(parts).splitlines())
    assert both == sorted((straight / PART).read_bytes().splitlines())
    # Alone, the job can't be taken over: the other host's file would never be finished.
    (tmp_path / "samples/manifest.json").unlink()
    last = tmp_path / "samples/part-00001.jsonl"
    last.rename(tmp_path / "samples/part-00001.jsonl.partial")
    alone = conftest.cli(tiny, tmp_path, *JOB)
    assert alone.returncode == 2 and "was begun on 2 hosts" in alone.stderr
    assert len(alone.stderr.strip().splitlines()) == 1


def test_shards_that_know_nothing_of_each_other_draw_the_same_samples(straight, tiny, tmp_path):
    shard = lambda text: conftest.cli(tiny, tmp_path, *JOB, f"--config.shard={text}")
    for text in ("1/2", "1/2", "0/2"):  # In any order, and again.
        done = shard(text)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not (tmp_path / "samples/manifest.json").exists()
        if text == "1/2":
            early = conftest.cli(tiny, tmp_path, *JOB)
            assert early.returncode == 2 and "begun on 2 hosts or shards" in early.stderr
    parts = [(tmp_path / f"samples/part-0000{i}.jsonl").read_bytes() for i in range(2)]
    both = sorted(b"".join(parts).splitlines())
    assert both == sorted((straight / PART).read_bytes().splitlines())
    other = shard("0/3")
    assert other.returncode == 2 and "can only go on with as many, not 3" in other.stderr
    done = conftest.cli(tiny, tmp_path, *JOB)
    assert done.returncode == 0 and "drawn in 2 shares, all there" in done.stdout
    manifests = [
        json.loads((folder / "samples/manifest.json").read_text())
        for folder in (tmp_path, straight)
    ]
    for manifest in manifests:
        assert sum(part["records"] for part in manifest.pop("parts")) == 200
    assert manifests[0] == manifests[1]


def test_evaluation_is_drawn_in_shards_and_graded_whole(tiny, tmp_path):
    whole, split = tmp_path / "whole", tmp_path / "split"
    done = conftest.cli(tiny, whole, "--stages=sample,sft,export,evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    split.mkdir()
    (split / "export").symlink_to(whole / "export")
    shards = [
        subprocess.Popen(
            conftest.command(tiny, split, "--stages=evaluate", f"--config.shard={i}/2"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=conftest.cpu_devices(),
        )
        for i in range(2)
    ]  # fmt: skip
    conftest.finish_hosts(shards)  # At the same time: neither is in the other's way.
    assert not list((split / "eval").rglob("scores.json"))
    done = conftest.cli(tiny, split, "--stages=evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    name = "eval/comparisons.json"
    assert (split / name).read_bytes() == (whole / name).read_bytes()


def test_a_shard_of_what_is_not_independent_is_refused(tiny, tmp_path):
    for flags, told in (
        (("--config.shard=2/2", "--stages=sample"), "must be '' or say which of how many"),
        (("--config.shard=0/2", "--stages=sample,sft"), "is for --stages=sample or evaluate only"),
    ):
        done = conftest.cli(tiny, tmp_path, *flags)
        assert done.returncode == 2 and told in done.stderr


def test_strict_mode_writes_the_same_file_for_any_number_of_slots(tiny, tmp_path):
    files = []
    for slots in (8, 24):
        workdir = tmp_path / str(slots)
        done = conftest.cli(
            tiny, workdir, "--stages=sample", "--config.prompts.limit=30",
            "--config.engine.strict=true", f"--config.engine.slots={slots}",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        files.append((workdir / PART).read_bytes())
    assert files[0] == files[1]
