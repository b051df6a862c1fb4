"""What every test runs under: eight simulated CPU devices and a cache of compiled programs.

Warnings are errors; the exceptions are named in pyproject.toml.
"""

import os
import pathlib

# Before JAX is imported anywhere, and in the environment, so that child processes get it too.
_CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Simulated devices are threads. Programs keep one order of collectives on all of them, or a loaded
# machine can leave some waiting in one and some in another until XLA gives up.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        "--xla_cpu_collective_call_terminate_timeout_seconds=300",
    )
)

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
