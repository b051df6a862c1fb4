"""What a draw costs beside the model's step: milliseconds, and its share of a step.

    python tests/benchmarks/truncation.py --vocab=151936 --batch=1 --batch=32 --batch=256

A full sort of the vocabulary, which others draw from, is timed beside it. The share is against a
decode step of SmolLM2-135M at the same batch on this machine, whose model is small: beside a larger
one the share is smaller.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jssd.model import transformer
from jssd.sampling import draw, noise
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.sampling.truncate import Law

_VOCAB = flags.DEFINE_integer("vocab", 151936, "tokens")
_BATCH = flags.DEFINE_multi_integer("batch", [1, 8, 32, 128, 256], "rows")
_MODEL = flags.DEFINE_string("model", "assets/SmolLM2-135M-Instruct.Q4_1.gguf", "'' times none")

LAWS = {  # Name: (temperature, top_k, top_p, min_p), spread of the logits.
    "top-k 20, top-p 0.8": ((1.0, 20, 0.8, 0.0), 3.0),
    "top-p 0.95, flat": ((1.0, 0, 0.95, 0.0), 1.0),
    "min-p 0.05": ((1.0, 0, 1.0, 0.05), 3.0),
    "no truncation": ((1.0, 0, 1.0, 0.0), 3.0),
    "greedy": ((0.0, 0, 1.0, 0.0), 3.0),
}


def _milliseconds(f, *args, rounds: int = 7) -> float:
    jax.block_until_ready(f(*args))
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(f(*args))
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def _step(model, batch: int) -> float:
    """Milliseconds of one greedy decode step with a short history."""
    engine = Engine(
        transformer.unstack(model.params), model.cfg, num_slots=batch, max_len=256, decode_steps=8
    )
    requests = [Request((1,) * 100, 0, i, 0, Sampling(0.0), (), 100) for i in range(batch)]
    pages = engine.pages()
    assert all(pages.extend(slot, 200) for slot in range(batch))
    prefix = engine.prefill([requests[0].prompt_ids])
    slots = engine.insert(
        prefix, [0] * batch, requests, engine.init_decode_state(), range(batch), pages.table_BM
    )
    times = []
    for _ in range(4):
        started = time.perf_counter()
        slots, drawn = engine.generate(slots, pages.table_BM, 1)
        jax.block_until_ready(drawn)
        times.append((time.perf_counter() - started) / 8)
    return statistics.median(times[1:]) * 1e3


def main(_) -> None:
    model = None
    if _MODEL.value:
        import jssd

        model = jssd.load(_MODEL.value, "float32")
    V = _VOCAB.value
    program = jax.jit(lambda x, law, keys: draw.draw(x, law, keys).token_B)
    sort = jax.jit(lambda x: jax.lax.top_k(x, V)[1])
    print("rows  law                    draw ms   sort ms   step ms   draw / step")
    for B in _BATCH.value:
        step = _step(model, B) if model else float("nan")
        zeros = jnp.zeros(B, jnp.uint32)
        keys_B = noise.row_keys(zeros, zeros, jnp.arange(B, dtype=jnp.uint32))
        normal_BV = np.random.default_rng(0).normal(size=(B, V)).astype(np.float32)
        full = _milliseconds(sort, jnp.asarray(normal_BV), rounds=3)
        for name, (settings, spread) in LAWS.items():
            logits_BV = normal_BV * spread
            temperature, top_k, top_p, min_p = settings
            numbers = [jnp.full(B, x, jnp.float32) for x in (temperature, top_p, min_p)]
            law = Law(numbers[0], jnp.full(B, top_k, jnp.int32), numbers[1], numbers[2])
            ours = _milliseconds(program, jnp.asarray(logits_BV), law, keys_B)
            print(
                f"{B:>4}  {name:<20} {ours:>9.1f} {full:>9.1f} {step:>9.1f} {ours / step:>12.0%}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
