"""Devices that are not attached, for the compiler: TPU slices by libtpu, GPUs by a description.

Only a worker process comes here (`plan/worker.py`): the compilers are loaded into it.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator

import numpy as np

from jssd.plan.hardware import CHIPS, Hardware

# Before JAX is imported: no look for a real TPU, and several processes may hold libtpu at once.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# Of the images that hosts of GPUs start from, and what JAX 0.10 asks for.
_CUDNN = (9, 10, 0)
_NEEDS = {
    "tpu": ("libtpu", "libtpu"),
    "cuda": ("jax_plugins.xla_cuda13", "jax-cuda13-plugin jax-cuda13-pjrt"),
}


def set_environment() -> None:
    """Readies this process. Compiled programs can't be kept: nothing here can run them."""
    os.environ |= ENVIRONMENT
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)


def check_compiler(hardware: Hardware) -> None:
    """Raises ValueError where the compiler of the hardware is not installed; says how to."""
    module, packages = _NEEDS[hardware.chip.platform]
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of the parent package.
        found = False
    if not found:
        raise ValueError(
            f"hardware={hardware.name!r}: its compiler, {module.split('.')[-1]}, is not installed. "
            f"Run: pip install 'jssd[plan]' (or, beside jax, pip install --no-deps {packages})."
        )


def devices(hardware: Hardware) -> list:
    """The JAX devices of `hardware`, good for compiling only.

    Raises:
      ValueError: the compiler is not installed, or refuses the topology.
    """
    from jax.experimental import topologies

    check_compiler(hardware)
    if hardware.chip.platform == "cuda":
        described = topologies.get_topology_desc(
            "", platform="cuda", topology=hardware.topology, target_config=_target(hardware)
        )
        return list(described.devices)
    options: dict = {"num_slices": hardware.slices} if hardware.slices > 1 else {}
    if hardware.host_bounds:
        options["chips_per_host_bounds"] = list(hardware.host_bounds)
    try:
        described = topologies.get_topology_desc(hardware.topology, platform="tpu", **options)
    except RuntimeError as error:
        reason = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
        raise ValueError(f"hardware={hardware.name!r} is refused by libtpu: {reason}") from None
    return list(described.devices)


def alone(devices: np.ndarray) -> np.ndarray:
    """The devices of one host as those of a slice of that size, where they are not the first of
    theirs: libtpu numbers what it compiles for from 0, as a host that works by itself does."""
    first = devices.flat[0]
    if first.platform != "tpu" or {one.id for one in devices.flat} == set(range(devices.size)):
        return devices
    model = next(name for name, chip in CHIPS.items() if chip.kind == first.device_kind)
    place = lambda one, low=(0, 0, 0): (*np.subtract(one.coords, low).tolist(), one.core_on_chip)
    places = np.array([one.coords for one in devices.flat])
    low, sides = places.min(axis=0), np.ptp(places, axis=0) + 1
    dimensions = 2 if model in ("v5e", "v6e") else 3
    shape = "x".join(map(str, sides[:dimensions]))
    own = {place(one): one for one in _slice(f"{model}:{shape}")}
    return np.vectorize(lambda one: own[place(one, low)], otypes=[object])(devices)


@functools.cache  # The same devices each time, or arrays and mesh would lie on different ones.
def _slice(name: str) -> list:
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(name, platform="tpu").devices)


@contextlib.contextmanager
def libraries(hardware: Hardware) -> Iterator[None]:
    """Within it programs are traced as where the hardware's libraries are; after it as before."""
    if hardware.chip.platform != "cuda":
        yield
        return
    from jax._src.cudnn import fused_attention_stablehlo as fused

    # JAX asks the cuDNN of this machine for its version before it traces its attention, and a
    # machine that only compiles has none. XLA is told the same one by `_target`, and compiles the
    # call into the program without loading it.
    asked = fused.check_cudnn_version
    major, minor, patch = _CUDNN
    fused.check_cudnn_version = lambda: 10000 * major + 100 * minor + patch
    try:
        yield
    finally:
        fused.check_cudnn_version = asked


def _target(hardware: Hardware) -> str:
    """What XLA asks about a GPU, as the text of its GpuTargetConfigProto."""
    chip = hardware.chip
    major = 10 if hardware.model == "b200" else 9
    cache, clock = {
        "h100": (52428800, 1.98), "h200": (62914560, 1.98), "b200": (132644864, 1.965)
    }[hardware.model]  # fmt: skip
    return f"""
gpu_device_info {{
  name: "{chip.kind}" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ major: {major} feature_extension: ACCELERATED_FEATURES }}
  core_count: {chip.multiprocessors} fpus_per_core: 128 clock_rate_ghz: {clock}
  device_memory_size: {chip.hbm} memory_bandwidth: {int(chip.hbm_bandwidth)}
  l2_cache_size: {cache}
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 device_address_bits: 64
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "{".".join(map(str, _CUDNN))}"
}}
platform_name: "CUDA" device_description_str: "{chip.kind}"
dnn_version_info {{ major: {_CUDNN[0]} minor: {_CUDNN[1]} }} runtime_version {{ major: 13 }}
"""
