"""Training on several hosts, ended and gone on with on others: the same run as on one."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e import conftest

# Gentle, so that rounding stays rounding.
TRAIN = (
    "--config.train.num_steps=8", "--config.train.global_batch_size=8",
    "--config.train.learning_rate=2e-5",
    "--config.train.final_learning_rate=2e-6",
)  # fmt: skip
BUCKETED = (*TRAIN, "--config.train.packing=bucketed")
FOUR_WAYS = ("--config.mesh.fsdp=4",)
# A cut of the batch that the first hosts had no need of.
TWO_BY_TWO = (
    "--config.mesh.fsdp=1", "--config.mesh.data=2", "--config.mesh.tensor=2",
    "--config.train.grad_accum=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """A run on one device that computes all rows at their full length."""
    root = tmp_path_factory.mktemp("alone")
    problems = [{"question": f"Say {n}. " * (1 + 3 * n)} for n in range(12)]
    source = root / "problems.jsonl"
    source.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    flags = (f"--config.prompts.source={source}", "--config.prompts.template=user")
    done = conftest.cli(
        tiny, root / "run", *flags, *TRAIN, "--config.train.packing=none",
        "--stages=sample,sft,export",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "run"


@pytest.fixture(scope="module")
def moved(tiny, alone, tmp_path_factory):
    """The run with bucketed rows, begun on two hosts, killed, and ended on four that share rows in
    pairs."""
    workdir = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(alone / "samples", workdir / "samples")
    flags = ("--stages=sft", *BUCKETED, *FOUR_WAYS)
    hosts = conftest.start_hosts(tiny, workdir, *flags, count=2, devices=2)
    while not (workdir / "checkpoints/2").exists() and hosts[0].poll() is None:
        time.sleep(0.001)
    for host in hosts:
        host.send_signal(signal.SIGKILL)
    outputs = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [-signal.SIGKILL] * 2, "\n".join(outputs)
    assert not (workdir / "checkpoints/8").exists()
    flags = ("--stages=sft,export", *BUCKETED, *TWO_BY_TWO)
    conftest.finish_hosts(conftest.start_hosts(tiny, workdir, *flags, count=4))
    return workdir


def test_losses_and_weights_are_those_of_one_host(tiny, alone, moved):
    wanted, found = (
        conftest.read_lines(workdir / "train/metrics.jsonl") for workdir in (alone, moved)
    )
    assert [line["step"] for line in found] == list(range(1, 9))
    for ours, theirs in zip(found, wanted):
        for name in ("tokens", "response_tokens", "unsupported_tokens"):
            assert ours[name] == theirs[name]
        for name in ("loss", "kept_mass", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3)
    first, wanted, found = (
        np.concatenate(
            [array.ravel() for array in load_file(folder / "model.safetensors").values()]
        )
        for folder in (tiny / "model", alone / "export", moved / "export")
    )
    # All but a thousandth of the way that the weights went.
    assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted - first)


def test_rows_of_a_step_were_computed_at_several_lengths(moved):
    report = json.loads((moved / "data/stats.json").read_text())["batches"]
    assert report["packing"] == "bucketed"
    cost = report["tokens_per_step"]
    # Eight rows of 512, or four as long as the longest of each half needs.
    assert cost["none"]["computed"] == 8 * 512
    assert cost["bucketed"]["computed"] == 4 * 512 + 4 * 256


def test_four_hosts_export_the_file_that_one_does(tiny, moved, tmp_path):
    shutil.copytree(moved / "checkpoints", tmp_path / "run/checkpoints")
    done = conftest.cli(tiny, tmp_path / "run", "--stages=export", *BUCKETED)
    assert done.returncode == 0, done.stdout + done.stderr
    name = "export/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (moved / name).read_bytes()
