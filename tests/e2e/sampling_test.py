"""Long sampling jobs: ended at random, and spread over hosts."""

import random
import signal
import subprocess
import time

import pytest

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
            time.sleep(rng.random() * 0.05)
            run.send_signal(how)
        assert run.returncode == -how
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
    alone = conftest.cli(tiny, tmp_path, *JOB)
    assert alone.returncode == 2 and "was begun on 2 hosts" in alone.stderr
    assert len(alone.stderr.strip().splitlines()) == 1


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
