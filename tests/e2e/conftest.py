"""A tiny random model with a real tokenizer, and the command run as a user runs it."""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jssd import sharding
from jssd.config import Config
from jssd.model import config as model_config
from jssd.model import transformer
from jssd.weights import files, names

CONFIG = """
from jssd import config as c


def get_config():
    return c.Config(
        name="tiny",
        model=c.ModelSource(path={model!r}),
        prompts=c.PromptsConfig(source="tasks:train", template="task", limit=12),
        sampling=c.SamplingConfig(temperature=1.0, top_k=20, top_p=0.9, max_new_tokens=24),
        engine=c.EngineConfig(slots=4, decode_steps=4),
        filter=c.FilterConfig(drop_empty=False, drop_stubs=False),
        train=c.TrainConfig(
            num_steps=6, global_batch_size=2, seq_len=512, learning_rate=1e-3, warmup_steps=1,
            final_learning_rate=1e-4, save_every=2, remat="none", loss_chunk=64,
        ),
        evaluate=c.EvalConfig(
            n=2, ks=(1, 2), limit=4, max_new_tokens=16, bootstrap=200,
            decodes=[c.DecodeConfig("greedy"), c.DecodeConfig("t1.0", 1.0)],
            base_decode="greedy", student_decode="t1.0",
        ),
        compile_cache=False,
    )
"""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(folder: pathlib.Path, family: str = "llama") -> pathlib.Path:
    """Writes a random model of a few thousand weights, with a byte tokenizer, as a HF folder."""
    folder.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    hf = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": family,
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": 257,
    }
    files.write_json(folder / "config.json", hf)
    files.write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "chat_template": TEMPLATE,
        },
    )
    cfg = model_config.from_hf(hf)
    params = jax.tree.map(lambda x: 10 * x, transformer.init_params(cfg, jax.random.key(0)))
    rows = {name: (row, place) for name, row, place in names.hf_names(cfg)}

    def fetch(name: str):
        row, place = rows[name]
        return names.to_hf(row, jax.device_get(names.get(params, row.path))[place])

    plan = [files.Planned(name, np.dtype("float32"), fetch(name).shape) for name in rows]
    files.write_tensors(folder, plan, fetch, shard_bytes=10**9, is_writer=True)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> pathlib.Path:
    """A folder with `model/` and `config.py`."""
    root = tmp_path_factory.mktemp("tiny")
    make_model(root / "model")
    (root / "config.py").write_text(CONFIG.format(model=str(root / "model")))
    return root


def load_config(root: pathlib.Path) -> Config:
    """The config of `tiny`, for tests that call the stages in their own process."""
    spec = importlib.util.spec_from_file_location("tiny_config", root / "config.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture(scope="module")
def one_device():
    """The tests' eight simulated devices take longer to compile for and show nothing more."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = sharding.make_mesh
        patch.setattr(sharding, "make_mesh", lambda cfg: mesh(cfg, jax.devices()[:1]))
        yield


@pytest.fixture(scope="session")
def straight(tiny, tmp_path_factory) -> pathlib.Path:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    done = cli(tiny, workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


def command(
    root: pathlib.Path, workdir: pathlib.Path, *flags: str, start: list[str] | None = None
) -> list[str]:
    """The command line of a run."""
    config = f"--config={root / 'config.py'}"
    start = start or [sys.executable, "-m", "jssd.main"]
    return [*start, config, f"--workdir={workdir}", *flags]


def cpu_devices(count: int = 1) -> dict[str, str]:
    """The environment of a child: so many CPU devices, no accelerators looked for."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}


def start_hosts(
    root: pathlib.Path,
    workdir: pathlib.Path,
    *flags: str,
    count: int,
    devices: int = 1,
    start: list[str] | None = None,
) -> list[subprocess.Popen]:
    """Starts the command on `count` processes that find one another, with `devices` each.

    `start` takes the place of `python -m jssd.main`.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        join = (f"--coordinator=localhost:{free.getsockname()[1]}", f"--num_processes={count}")
    return [
        subprocess.Popen(
            command(root, workdir, *flags, *join, f"--process_id={i}", start=start),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=cpu_devices(devices),
        )
        for i in range(count)
    ]


def finish_hosts(hosts: list[subprocess.Popen]) -> list[str]:
    """What the processes printed, when all have ended well."""
    outputs = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0] * len(hosts), "\n".join(outputs)
    return outputs


def cli(root: pathlib.Path, workdir: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
    """Runs the command to its end."""
    return subprocess.run(
        command(root, workdir, *flags), capture_output=True, text=True, env=cpu_devices()
    )


def outputs(workdir: pathlib.Path) -> dict[str, bytes]:
    """The bytes that must not depend on kills: samples, weights, completions, scores."""
    found = {}
    for pattern in ("samples/part-*", "export/*.safetensors", "export/*.json", "eval/**/*.json*"):
        for path in sorted(workdir.glob(pattern)):
            # A kill in the middle of writing leaves what is beside the target.
            if path.is_file() and path.name != "events.jsonl" and path.suffix != ".tmp":
                found[str(path.relative_to(workdir))] = path.read_bytes()
    return found


def count_lines(path: pathlib.Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def read_lines(path: pathlib.Path) -> list[dict]:
    """A JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
