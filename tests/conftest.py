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

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
