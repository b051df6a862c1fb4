"""Joins the processes of a job, says who they are before any of them waits for another, and lets
them wait for one another without a device."""

import importlib.metadata
import itertools
import os
import socket
import time

from jssd import phases, survival
from jssd.config import SurvivalConfig

_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "orbax-checkpoint")
_BY_HAND = "Give --coordinator, --num_processes and --process_id."
_POLL_SECONDS = 0.5
_waits = itertools.count()


def join(
    guard: survival.Guard,
    limits: SurvivalConfig,
    coordinator: str | None,
    count: int | None,
    index: int | None,
) -> None:
    """Joins the others; without arguments the TPU pod, SLURM or Kubernetes says who they are.

    Those that do not come in `limits.join` seconds are named by the watchdog, which ends the
    process: JAX would abort without a word on who is missing.

    Raises:
      ValueError: without arguments, where no cluster says who this is.
    """
    import jax

    timeout = int(limits.join + 60) if limits.join else 10**6
    with phases.phase("join"):
        cluster = None if coordinator else _cluster()
        if cluster is not None:
            count, index = _place(cluster)
        assert count is not None and index is not None
        guard.join(index, count)  # From here on others see a heartbeat of this process.
        print(
            f"process {index}/{count} on {socket.gethostname()} (pid {os.getpid()}, {versions()})"
            + (f", as {cluster.__name__} says" if cluster else ""),
            flush=True,
        )
        if cluster is not None:  # It may wait here for the first host to have an address.
            coordinator = os.environ.get("JAX_COORDINATOR_ADDRESS")
            coordinator = coordinator or cluster.get_coordinator_address(
                timeout_secs=timeout,
                override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT"),
            )
        print(f"waits for the others at {coordinator}, {limits.join:g} s at most", flush=True)
        jax.distributed.initialize(
            coordinator, count, index,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=limits.heartbeat,
        )  # fmt: skip
    guard.take_signals()  # JAX took SIGTERM; its own notice is for those who ask at every step.
    guard.join(jax.process_index(), jax.process_count(), _service())
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    print(
        f"process {jax.process_index()}/{jax.process_count()} joined: "
        f"{jax.local_device_count()} of {jax.device_count()} devices are here "
        f"({', '.join(kinds)})",
        flush=True,
    )


def _cluster():
    """What JAX would ask who this process is; it has no public way to ask before joining."""
    from jax._src import clusters

    for kind in clusters.ClusterEnv._cluster_types:
        if not kind.opt_in_only_method and kind.is_env_present():
            return kind
    raise ValueError(
        f"--distributed finds no TPU pod, SLURM step or Kubernetes job here. {_BY_HAND}"
    )


def _place(cluster) -> tuple[int, int]:
    """How many processes there are, and which this is."""
    try:
        return cluster.get_process_count(), cluster.get_process_id()
    except (KeyError, TypeError, ValueError) as error:  # A variable that is not set, or no number.
        raise ValueError(
            f"--distributed: {cluster.__name__} does not say which process this is ({error}). "
            f"{_BY_HAND}"
        ) from None


def _service():
    """The client of JAX's coordination service; it has no public name."""
    from jax._src.distributed import global_state

    return global_state.client


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; at once where there is one.

    However long it takes: the coordination service is asked, since a collective that waits for
    hours of a host's work counts as a hung device.

    Args:
      name: where this is, the same on all processes.

    Raises:
      survival.Stopped: this process or another received SIGTERM. Some may have gone through then;
        they are told as well, and all end.
    """
    import jax

    client, count = _service(), jax.process_count()
    if client is None or count == 1:
        return
    number = next(_waits)  # All processes come to the same places in the same order.
    client.key_value_set(f"{_room(number)}come/{jax.process_index()}", name)
    pause = 0.01
    with phases.phase("wait"):
        while not _all_came(client, number, count, jax.process_index()):
            survival.go_on()
            time.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS)


def _room(number: int) -> str:
    return f"jssd/wait/{number}/"


def _all_came(client, number: int, count: int, index: int) -> bool:
    """Process 0 counts, and the others ask whether it is done: with many, not each sees each."""
    if index:
        return bool(client.key_value_dir_get(f"{_room(number)}done/"))
    came = client.key_value_dir_get(f"{_room(number)}come/")
    names = sorted({name for _, name in came})
    if len(names) > 1:
        raise RuntimeError(f"processes wait for one another at different places: {names}.")
    if len(came) < count:
        return False
    if number:  # Everyone who came here has left the last place.
        client.key_value_delete(_room(number - 1))
    client.key_value_set(f"{_room(number)}done/all", names[0])
    return True


def versions() -> str:
    """The versions that decide what a program compiles to, as "jax 0.10.2, jaxlib 0.10.2"."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
