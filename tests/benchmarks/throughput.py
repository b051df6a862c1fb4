"""Decode throughput on SmolLM2-135M: jssd, transformers and Tunix on the same prompts and lengths.

    python tests/benchmarks/throughput.py --tunix_python=/path/to/venv/bin/python

Each peer runs in a process of its own and stays warm; the parent asks them one after another, in
pairs, so a slow minute of the machine hits all. Prompts are our training tasks, each with its own
number of new tokens (16 to 128, mixed). Every peer draws at T 1.0, top-k 20, top-p 0.8 and counts
only the tokens asked for: a peer that runs a batch until its longest row ends pays for the rest.
The last column is against the machine's own limit for the same prompts and completions: every
token through the model's matmuls (the head for drawn tokens only) at the measured float32 matmul
rate, or the weights read once per step of a full batch, whichever is slower.

transformers runs in float32 with a dynamic and a static cache, and in bfloat16, which is faster on
CPUs that multiply it natively; jssd and Tunix run in float32.

Tunix is left out without --tunix_python (a Python with google-tunix installed).
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from absl import app, flags

_MODEL = flags.DEFINE_string("model", "assets/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF or folder")
_ROWS = flags.DEFINE_multi_integer("rows", [1, 8, 32], "concurrent rows")
_REQUESTS = flags.DEFINE_integer("requests", 64, "prompts at 32 rows; fewer rows ask fewer")
_PAIRS = flags.DEFINE_integer("pairs", 3, "timed rounds")
_PEERS = flags.DEFINE_list("peers", ["jssd", "dynamic", "static", "bfloat16", "tunix"], "who runs")
_TUNIX = flags.DEFINE_string("tunix_python", "", "a Python with google-tunix")
_WORKER = flags.DEFINE_string("worker", "", "internal: serve as this peer")
_FOLDER = flags.DEFINE_string("folder", "", "internal: the model as a Hugging Face folder")

LAW = {"temperature": 1.0, "top_k": 20, "top_p": 0.8}
LIMITS = (16, 128, 48, 96, 24, 64, 112, 32)


def _serve(draw) -> None:
    """Answers requests, one JSON line each, with seconds and useful tokens."""
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        started = time.perf_counter()
        draw(job["prompts"], job["limits"], job["rows"])
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "tokens": sum(job["limits"])}), flush=True)


def _batches(prompts, limits, rows):
    for start in range(0, len(prompts), rows):
        yield prompts[start : start + rows], limits[start : start + rows]


def _jssd(folder: str) -> None:
    from jssd.model import transformer
    from jssd.sampling import generate
    from jssd.sampling.engine import Engine
    from jssd.sampling.request import Request, Sampling
    from jssd.weights import hf

    cfg, params = hf.load(folder)
    params = transformer.unstack(params)
    engines = {}

    def draw(prompts, limits, rows):
        longest = max(map(len, prompts)) + max(limits)
        key = (rows, longest)
        if key not in engines:
            engines[key] = Engine(params, cfg, num_slots=rows, max_len=longest)
        requests = [
            Request(tuple(ids), 0, i, 0, Sampling(**LAW), (), limit)
            for i, (ids, limit) in enumerate(zip(prompts, limits))
        ]
        found = dict(generate.run(engines[key], requests, keep_support=False))
        assert [len(found[i].token_ids) for i in range(len(limits))] == limits

    _serve(draw)


def _transformers(folder: str, kind: str) -> None:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    cache = "static" if kind == "static" else "dynamic"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def draw(prompts, limits, rows):
        longest = max(map(len, prompts))
        for ids, wanted in _batches(prompts, limits, rows):
            # A static cache has one shape for all batches; a dynamic one may follow each.
            width = longest if cache == "static" else max(map(len, ids))
            tokens = torch.tensor([[0] * (width - len(row)) + row for row in ids])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
            out = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
                tokens, attention_mask=mask, do_sample=True, max_new_tokens=max(wanted),
                min_new_tokens=max(wanted), pad_token_id=0, cache_implementation=cache, **LAW,
            )  # fmt: skip
            assert out.shape[1] == width + max(wanted)

    _serve(draw)


def _tunix(folder: str) -> None:
    import jax.numpy as jnp
    from tunix.generate import sampler  # pyright: ignore[reportMissingImports]
    from tunix.models.llama3 import model, params  # pyright: ignore[reportMissingImports]

    tree = json.loads(pathlib.Path(folder, "config.json").read_text())
    heads = tree["num_attention_heads"]
    config = model.ModelConfig(
        num_layers=tree["num_hidden_layers"],
        vocab_size=tree["vocab_size"],
        embed_dim=tree["hidden_size"],
        hidden_dim=tree["intermediate_size"],
        num_heads=heads,
        head_dim=tree["hidden_size"] // heads,
        num_kv_heads=tree["num_key_value_heads"],
        rope_theta=int(tree.get("rope_theta", 0) or tree["rope_parameters"]["rope_theta"]),
        norm_eps=tree["rms_norm_eps"],
        weight_tying=True,
    )
    weights = params.create_model_from_safe_tensors(folder, config, dtype=jnp.float32)

    class Ids:
        """Stands in for a tokenizer: the text is the token ids."""

        def encode(self, text, **_):
            return [int(part) for part in text.split()]

        def decode(self, ids, **_):
            return " ".join(map(str, ids))

        def bos_id(self):
            return 1

        def eos_id(self):
            return 2

        def pad_id(self):
            return 0

    samplers = {}

    def draw(prompts, limits, rows):
        longest = max(map(len, prompts)) + 1  # It puts a first token before each prompt.
        size = longest + max(limits)
        if size not in samplers:
            samplers[size] = sampler.Sampler(
                weights, Ids(),
                sampler.CacheConfig(
                    size, config.num_layers, config.num_kv_heads, config.head_dim
                ),
            )  # fmt: skip
        for ids, wanted in _batches(prompts, limits, rows):
            samplers[size](
                [" ".join(map(str, row)) for row in ids], max(limits) if rows > 1 else wanted[0],
                max_prompt_length=longest, eos_tokens=[-1], **LAW,
            )  # fmt: skip

    _serve(draw)


class _Peer:
    def __init__(self, name: str, folder: str):
        python = _TUNIX.value if name == "tunix" else sys.executable
        command = [python, __file__, f"--worker={name}", f"--folder={folder}"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended early; its words are above.")
        return line

    def ask(self, job: dict) -> float:
        """Useful tokens per second."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self._read())
        return answer["tokens"] / answer["seconds"]


def _limit(job: dict, num_params: int, num_embed: int) -> float:
    """Drawn tokens per second that the machine allows for a job."""
    import jax
    import jax.numpy as jnp

    def best(f, *args) -> float:
        times = []
        jax.block_until_ready(f(*args))
        for _ in range(5):
            started = time.perf_counter()
            jax.block_until_ready(f(*args))
            times.append(time.perf_counter() - started)
        return min(times)

    square = jnp.ones((2048, 2048))
    flops = 2 * 2048**3 / best(jax.jit(jnp.matmul), square, square)
    big = jnp.ones(1 << 27)
    read = big.nbytes / best(jax.jit(jnp.sum), big)
    drawn, prompt = sum(job["limits"]), sum(map(len, job["prompts"]))
    multiply = 2 * (num_params * drawn + (num_params - num_embed) * prompt) / flops
    return drawn / max(multiply, 4 * num_params / read * drawn / job["rows"])


def main(_) -> None:
    if _WORKER.value:
        kind = _WORKER.value
        if kind == "jssd":
            _jssd(_FOLDER.value)
        elif kind == "tunix":
            _tunix(_FOLDER.value)
        else:
            _transformers(_FOLDER.value, kind)
        return
    import jax

    import jssd
    from jssd.config import PromptsConfig
    from jssd.data import prompts
    from jssd.evals import benchmarks
    from jssd.stages.sample import to_problems

    model = jssd.load(_MODEL.value, "float32")
    folder = str(model.folder)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    num_embed = model.params["embed"].size
    asked = prompts.build(
        to_problems(benchmarks.load("functions", "train")), PromptsConfig(template="task"),
        model.tokenizer,
    )  # fmt: skip
    names = [name for name in _PEERS.value if name != "tunix" or _TUNIX.value]
    peers = {name: _Peer(name, folder) for name in names}
    print("rows  peer       tokens/s (each round)            median  jssd is  of the limit")
    for rows in _ROWS.value:
        count = max(4, _REQUESTS.value * min(rows, 32) // 32)
        job = {
            "prompts": [list(prompt.token_ids) for prompt in asked[:count]],
            "limits": [LIMITS[i % len(LIMITS)] for i in range(count)],
            "rows": rows,
        }
        for peer in peers.values():
            peer.ask(job)  # Compiles.
        found = {name: [] for name in peers}
        for _ in range(_PAIRS.value):
            for name, peer in peers.items():
                found[name].append(peer.ask(job))
        limit = _limit(job, num_params, num_embed)
        ours = statistics.median(found.get("jssd", [float("nan")]))
        for name, rates in found.items():
            rate = statistics.median(rates)
            each = " ".join(f"{x:.1f}" for x in rates)
            print(
                f"{rows:>4}  {name:<9}  {each:<31}  {rate:>6.1f}  {ours / rate:>6.2f}x  "
                f"{rate / limit:>7.0%}",
                flush=True,
            )
    for peer in peers.values():
        peer.process.kill()


if __name__ == "__main__":
    app.run(main)
