"""Does the decode step fit? Compiles it for accelerators that are not there and prints the memory.

    python tests/benchmarks/decode_memory.py --topology=v5p:2x2x1 --tensor=4
    python tests/benchmarks/decode_memory.py --topology=b200:1x1x8 --tensor=2

The program is the engine's own, of Qwen3-4B's shape in bfloat16 with room for completions of 65,536
tokens. The compiler's numbers are per device. Needs libtpu (`pip install 'jax[tpu]'`) or the CUDA
plugin (`pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt`), and neither a TPU nor a GPU.
"""

import os
import time

from absl import app, flags

_TOPOLOGY = flags.DEFINE_string("topology", "v5p:2x2x1", "TPU, or b200:hosts...xGPUs")
_TENSOR = flags.DEFINE_integer("tensor", 1, "devices over which heads and vocabulary are split")
_SLOTS = flags.DEFINE_integer("slots", 64, "completions decoded side by side, over all devices")
_MAX_LEN = flags.DEFINE_integer("max_len", 65536 + 1024, "longest prompt plus completion")
_CACHE_TOKENS = flags.DEFINE_integer("cache_tokens", 0, "room of the cache; 0 is all slots in full")
_ATTENTION = flags.DEFINE_string("attention", "auto", "layout of the cache")
_CACHE_DTYPE = flags.DEFINE_string("cache_dtype", "", "of keys and values")


# What the compiler asks of a GPU that is not there.
_B200 = """
gpu_device_info {
  name: "NVIDIA B200" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 10 feature_extension: ACCELERATED_FEATURES }
  core_count: 148 fpus_per_core: 128 clock_rate_ghz: 1.965
  device_memory_size: 191514411008 memory_bandwidth: 7672320000000 l2_cache_size: 132644864
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 device_address_bits: 64
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA" device_description_str: "NVIDIA B200"
dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 }
"""


def main(_) -> None:
    # Before JAX loads: no look for a real TPU.
    for name, value in (
        ("JAX_PLATFORMS", "cpu"), ("TPU_SKIP_MDS_QUERY", "1"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):  # fmt: skip
        os.environ.setdefault(name, value)
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies

    from jssd import sharding
    from jssd.config import MeshConfig
    from jssd.model import transformer
    from jssd.model.config import ModelConfig, Rope
    from jssd.sampling.engine import Engine

    cfg = ModelConfig(
        family="qwen3", vocab_size=151936, embed_dim=2560, mlp_dim=9728, num_layers=36,
        num_heads=32, num_kv_heads=8, head_dim=128, max_seq_len=262144, norm_eps=1e-6,
        rope=Rope(5e6), tied_head=True, qk_norm=True,
    )  # fmt: skip
    name, _, shape = _TOPOLOGY.value.partition(":")
    if name == "b200":
        described = topologies.get_topology_desc(
            "", platform="cuda", topology=shape, target_config=_B200
        )
    else:
        described = topologies.get_topology_desc(_TOPOLOGY.value, platform="tpu")
    devices = described.devices
    training = sharding.make_mesh(MeshConfig(-1, 1, _TENSOR.value), devices)
    mesh = sharding.decode_mesh(training)
    with jax.set_mesh(mesh):
        params = transformer.abstract_unstacked(cfg, jnp.bfloat16)
    engine = Engine(
        params, cfg, num_slots=_SLOTS.value, max_len=_MAX_LEN.value,
        cache_tokens=_CACHE_TOKENS.value, attention=_ATTENTION.value,
        cache_dtype=_CACHE_DTYPE.value,
    )  # fmt: skip
    started = time.perf_counter()
    lowered = engine.lower_generate()
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None
    pages = engine.num_pages * sum(
        int(np.prod(shape)) * dtype.itemsize for shape, dtype in engine.layout.shapes()
    )
    weights = sum(leaf.size * 2 for leaf in jax.tree.leaves(params))
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    print(
        f"{_TOPOLOGY.value}: {len(devices)} x {devices[0].device_kind}, mesh data "
        f"{mesh.shape['data']} x tensor {mesh.shape['tensor']}, {_SLOTS.value} slots of "
        f"{_MAX_LEN.value} tokens, cache {type(engine.layout).__name__} {engine.layout.dtype}"
    )
    print(
        f"compiled in {seconds:.0f} s; the attention kernel is "
        f"{'' if 'paged_attention' in text else 'not '}in the program"
    )
    print(
        f"per device: weights {gib(weights / mesh.shape['tensor'])}, cache "
        f"{gib(pages * cfg.num_layers / mesh.shape['tensor'])}; arguments "
        f"{gib(memory.argument_size_in_bytes)}, temporaries {gib(memory.temp_size_in_bytes)}, "
        f"given back in place {gib(memory.alias_size_in_bytes)}, "
        f"peak {gib(memory.peak_memory_in_bytes)}"
    )


if __name__ == "__main__":
    app.run(main)
