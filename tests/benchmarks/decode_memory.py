"""Does the decode step fit? Compiles it for accelerators that are not there and prints the memory.

    python tests/benchmarks/decode_memory.py --hardware=v5p-2x2x1 --tensor=4
    python tests/benchmarks/decode_memory.py --hardware=b200x2 --tensor=2

The program is the engine's own, of Qwen3-4B's shape in bfloat16 with room for completions of 65,536
tokens, over all devices of the hardware. The compiler's numbers are per device. Hardware as for
stage `plan`, whose compilers it needs (`pip install 'jssd[plan]'`), and neither a TPU nor a GPU.
"""

import time

from absl import app, flags

_HARDWARE = flags.DEFINE_string("hardware", "v5p-2x2x1", "a name that stage plan knows")
_TENSOR = flags.DEFINE_integer("tensor", 1, "devices over which heads and vocabulary are split")
_SLOTS = flags.DEFINE_integer("slots", 64, "completions decoded side by side, over all devices")
_MAX_LEN = flags.DEFINE_integer("max_len", 65536 + 1024, "longest prompt plus completion")
_CACHE_TOKENS = flags.DEFINE_integer("cache_tokens", 0, "room of the cache; 0 is all slots in full")
_ATTENTION = flags.DEFINE_string("attention", "auto", "layout of the cache")
_CACHE_DTYPE = flags.DEFINE_string("cache_dtype", "", "of keys and values")


def main(_) -> None:
    from jssd.plan import absent

    absent.set_environment()  # Before JAX loads.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jssd import hosts, sharding
    from jssd.config import MeshConfig, ModelSource
    from jssd.model import transformer
    from jssd.plan import architectures, hardware
    from jssd.sampling.engine import Engine

    cfg, _ = architectures.read(ModelSource("Qwen/Qwen3-4B-Instruct-2507"))
    devices = absent.devices(hardware.parse(_HARDWARE.value))
    training = sharding.make_mesh(MeshConfig(-1, 1, _TENSOR.value), devices)
    mesh = hosts.decode_mesh(training)
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
        f"{_HARDWARE.value}: {len(devices)} x {devices[0].device_kind}, mesh data "
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
