"""Joins the processes of a job, and says who they are before any of them waits for another."""

import importlib.metadata
import os
import socket

from jssd import phases, survival
from jssd.config import SurvivalConfig

_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "orbax-checkpoint")


def join(
    guard: survival.Guard,
    limits: SurvivalConfig,
    coordinator: str | None,
    count: int | None,
    index: int | None,
) -> None:
    """Joins the others; without arguments JAX asks the TPU, SLURM or Kubernetes.

    Those that do not come in `limits.join` seconds are named by the watchdog, which ends the
    process: JAX would abort without a word on who is missing.
    """
    known = coordinator is not None
    if count is not None and index is not None:
        guard.join(index, count)
    who = f"process {index}/{count}" if known else "a process of a job"
    print(
        f"{who} on {socket.gethostname()} (pid {os.getpid()}, {versions()}) waits for the others "
        f"at {coordinator or 'the address that its cluster gives'}, {limits.join:g} s at most",
        flush=True,
    )
    import jax

    with phases.phase("join"):
        jax.distributed.initialize(
            coordinator, count, index,
            initialization_timeout=int(limits.join + 60) if limits.join else 10**6,
            heartbeat_timeout_seconds=limits.heartbeat,
        )  # fmt: skip
    guard.take_signals()  # JAX took SIGTERM; its own notice is for those who ask at every step.
    # What JAX itself uses; it has no public name for the coordination service's store.
    from jax._src.distributed import global_state

    guard.join(jax.process_index(), jax.process_count(), global_state.client)
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    print(
        f"process {jax.process_index()}/{jax.process_count()} joined: "
        f"{jax.local_device_count()} of {jax.device_count()} devices are here "
        f"({', '.join(kinds)})",
        flush=True,
    )


def versions() -> str:
    """The versions that decide what a program compiles to, as "jax 0.10.2, jaxlib 0.10.2"."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
