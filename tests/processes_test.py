"""Who a process is before it joins, and waiting for others without a device."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from jssd import processes
from jssd.config import SurvivalConfig

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[001-004]", "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
}  # fmt: skip
# Two slices of two hosts each, as a JobSet on GKE sets them.
TPU = {
    "TPU_WORKER_HOSTNAMES": "localhost,other", "TPU_WORKER_ID": "1", "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
    "TPU_SKIP_MDS_QUERY": "true",
}  # fmt: skip
# Two processes; the second comes late to the second of three places.
PROGRAM = """
import pathlib, sys, time
from jssd import phases, processes, survival
from jssd.config import SurvivalConfig
index, late, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
guard, limits = survival.start(), SurvivalConfig(join=200, heartbeat=60)
guard.configure(limits, joins=True)
guard.beat_in(pathlib.Path(folder))
processes.join(guard, limits, f"localhost:{port}", 2, index)
try:
    processes.wait_for_all("the first")
    if index == 1:
        for _ in range(10 * late):
            time.sleep(0.1)
            survival.check()
    print("at the second", flush=True)
    began = time.monotonic()
    processes.wait_for_all("the second")
    print("waited", round(time.monotonic() - began, 2), phases.total("wait") > 0)
    processes.wait_for_all("the third")
except survival.Stopped:
    print("stopped", time.monotonic() - began < 20)
    guard.stopped()
guard.finish()
"""


class Told:
    """In the guard's place: what it is told."""

    def __init__(self):
        self.places: list[tuple[int, int]] = []

    def join(self, rank, count, client=None):
        self.places.append((rank, count))

    def take_signals(self):
        pass


@pytest.fixture
def joined(monkeypatch):
    """Arguments that JAX was asked to join with; it does not."""
    found: list[tuple] = []
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TPU_", "MEGASCALE_", "OMPI_", "KUBERNETES_", "JAX_COORD")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: found.append(args))
    return found


def _join() -> list[tuple[int, int]]:
    guard = Told()
    processes.join(guard, SurvivalConfig(), None, None, None)  # pyright: ignore
    return guard.places


def test_slurm_says_who_this_is_before_it_joins(monkeypatch, joined, capsys):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert _join()[0] == (2, 4)
    address = f"node001:{7 % 4096 + 61440}"
    assert joined == [(address, 4, 2)]
    told = capsys.readouterr().out
    assert "process 2/4 on " in told and "as SlurmCluster says" in told
    assert f"waits for the others at {address}, 290 s at most" in told
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "elsewhere:1")
    _join()
    assert joined[1] == ("elsewhere:1", 4, 2)


def test_a_tpu_jobset_says_who_this_is_before_it_joins(monkeypatch, joined, capsys):
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    for name, value in TPU.items():
        monkeypatch.setenv(name, value)
    assert _join()[0] == (3, 4)
    assert joined == [("localhost:8482", 4, 3)]
    assert "process 3/4 on " in capsys.readouterr().out
    monkeypatch.delenv("TPU_WORKER_ID")
    with pytest.raises(ValueError, match="GkeTpuCluster does not say which process this is"):
        _join()


def test_without_a_cluster_the_way_out_is_named(joined):
    with pytest.raises(ValueError, match=r"finds no TPU pod.*Give --coordinator"):
        _join()
    assert not joined


def test_one_process_waits_for_nobody():
    processes.wait_for_all("alone")


def _start(folder, late: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(index), str(late), str(port), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        )
        for index in range(2)
    ]  # fmt: skip


def test_all_wait_for_the_one_that_is_late(tmp_path):
    hosts = _start(tmp_path, late=3)
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(outputs)
    waited = [float(output.split("waited ")[1].split()[0]) for output in outputs]
    assert 2 < waited[0] < 60 and waited[1] < 2, outputs
    assert not list(tmp_path.glob("heartbeat-*"))


@pytest.mark.parametrize("index", [0, 1], ids=["the one that waits", "the one that is late"])
def test_sigterm_is_answered_while_waiting(tmp_path, index):
    hosts = _start(tmp_path, late=300)
    assert hosts[0].stdout
    while hosts[0].stdout.readline() not in ("at the second\n", ""):
        pass
    time.sleep(1)
    hosts[index].send_signal(signal.SIGTERM)
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [42, 42], "\n".join(outputs)
    assert "received SIGTERM during wait: " in outputs[0] and "stopped True" in outputs[0]
