"""What every test runs under: eight simulated CPU devices, a cache of compiled programs, and types
that are checked at each call.

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
import jaxtyping  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# Every annotated function of jssd checks its arguments and its result. The hook has to be in place
# before a test file imports jssd.
jaxtyping.install_import_hook("jssd", "beartype.beartype")
