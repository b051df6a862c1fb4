"""Training throughput on SmolLM2-135M on a CPU: jssd beside torch, on the same packed batches.

    python tests/benchmarks/training.py
    python tests/benchmarks/training.py --peers=torch,torch-samples,torch-compile --threads=1
    python tests/benchmarks/training.py --peers=trl --trl_python=/path/to/venv/bin/python
    python tests/benchmarks/training.py --peers= --profile      # Where jssd's step spends its time.

Rows hold our training tasks and their reference solutions, several to a row. A step reads them all:
gradients of the mean loss of the response tokens, norm clipped at 1, AdamW; float32 throughout.
Each side runs in a process of its own and stays warm. The parent asks jssd (with remat `none` and
`block`) and one peer after another in turns, so a slow minute of the machine hits all; the ratio is
the median over rounds of the better jssd against the peer in the same round. The first step's loss
of all must agree. Tokens are those of samples; padding counts for nobody.

Peers, all with scaled-dot-product attention and fused AdamW; only response tokens meet the head:
  torch          transformers' model on the same packed rows, with a mask that parts the samples.
  torch-samples  the same, one sample at a time: no padding, no mask, torch's causal kernel.
  torch-compile  as `torch`, through torch.compile.
  trl            TRL's SFTTrainer as it comes, on batches of samples alike in length.

`of the rate` is the share of the machine's float32 matmul rate (2048 x 2048, measured between
rounds) by the FLOPs that the batch needs (train/flops.py): attention within samples, the head on
response tokens, nothing recomputed. `core` is tokens per second of one core's work: what to look
at on a busy machine, with --threads=1, for torch's threads spin while they wait for each other.
"""

import collections
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_MODEL = flags.DEFINE_string("model", "assets/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF or folder")
_LENGTH = flags.DEFINE_integer("length", 512, "tokens of a row")
_ROWS = flags.DEFINE_integer("rows", 8, "rows of a step")
_MICRO = flags.DEFINE_integer("micro", 2, "rows of jssd's micro-batch")
_TORCH_MICRO = flags.DEFINE_integer("torch_micro", 2, "rows of torch's micro-batch")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "timed rounds")
_PEERS = flags.DEFINE_list("peers", ["torch", "torch-samples", "torch-compile"], "who else runs")
_REMAT = flags.DEFINE_list("remat", ["none", "block"], "of jssd")
_THREADS = flags.DEFINE_integer("threads", 2, "of torch")
_TRL = flags.DEFINE_string("trl_python", "", "a Python with trl")
_PROFILE = flags.DEFINE_bool("profile", False, "print where jssd's step spends its time")
_WORKER = flags.DEFINE_string("worker", "", "internal: serve as this side")
_FOLDER = flags.DEFINE_string("folder", "", "internal: the model as a Hugging Face folder")
_BATCH = flags.DEFINE_string("batch", "", "internal: the rows")

# AdamW's settings for all sides; the rate is small, so that losses stay comparable.
RATE, BETAS, EPS, DECAY, CLIP = 1e-6, (0.9, 0.95), 1e-8, 0.1, 1.0


def _serve(step) -> None:
    """Answers each line with one step: seconds, seconds of all its threads, and its loss."""
    print("ready", flush=True)
    for _ in sys.stdin:
        started, worked = time.perf_counter(), time.process_time()
        loss = float(step())
        answer = {
            "seconds": time.perf_counter() - started, "cpu": time.process_time() - worked,
            "loss": loss,
        }  # fmt: skip
        print(json.dumps(answer), flush=True)


def _read_batch() -> dict[str, np.ndarray]:
    with np.load(_BATCH.value) as file:
        return dict(file)


def _jssd(remat: str) -> None:
    import jax

    from jssd.config import TrainConfig
    from jssd.train.optimizer import make_optimizer
    from jssd.train.step import init_state, make_train_step, place_batch
    from jssd.weights import hf

    cfg, params = hf.load(_FOLDER.value)
    rows = _read_batch()
    accum = len(rows["inputs"]) // _MICRO.value
    micros = [
        {name: part[index] for name, part in (
            (name, np.split(array, accum)) for name, array in rows.items()
        )}
        for index in range(accum)
    ]  # fmt: skip
    config = TrainConfig(
        num_steps=10**6, seq_len=_LENGTH.value, global_batch_size=_ROWS.value, grad_accum=accum,
        learning_rate=RATE, final_learning_rate=RATE, warmup_steps=0, beta1=BETAS[0],
        beta2=BETAS[1], eps=EPS, weight_decay=DECAY, clip_norm=CLIP, remat=remat,
    )  # fmt: skip
    optimizer = make_optimizer(config)
    train_step = make_train_step(cfg, optimizer, config)
    state = init_state(params, optimizer)
    del params

    def step():
        nonlocal state
        state, metrics = train_step(state, place_batch(micros))
        return jax.block_until_ready(metrics)["loss"]

    if _PROFILE.value:
        totals = train_step.zeros(state.params) if accum > 1 else None
        micro = place_batch(micros)[0]
        program = train_step.add.lower(totals, state.params, micro).compile()
        text = program.as_text()
        assert text is not None
        _profile(step, text)
    else:
        _serve(step)


def _part(op_name: str) -> str:
    """Which part of a step an instruction belongs to, by the scopes and einsum in its op_name."""
    einsum = re.search(r"([A-Z]+),([A-Z]+)->([A-Z]+)", op_name)
    letters = set("".join(einsum.groups())) if einsum else set()
    kind = "matmuls" if op_name.endswith("dot_general") else "the rest"
    if "attention/" in op_name:
        if kind == "matmuls" and letters and "D" not in letters:
            return "attention: scores and sums"
        return f"attention: {'projections' if kind == 'matmuls' else 'softmax, norms, copies'}"
    if "mlp/" in op_name:
        return f"mlp: {kind}"
    if "V" in letters or "/while/body/reduce" in op_name or "logsumexp" in op_name:
        return f"loss: {kind}"
    if "while" in op_name:
        return "loops: slices, stacking, zeros, sums"
    return "optimizer, norms, unnamed"


def _profile(step, text: str) -> None:
    """Prints seconds of a step by part of the model and kind of instruction, from a trace."""
    import jax

    names = {}  # Of leaves: a loop's time is that of the instructions inside it.
    for line in text.splitlines():
        made = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
        meant = re.search(r'op_name="([^"]*)"', line)
        if made and not re.search(r" (while|call|conditional)\(", line):
            names[made.group(1)] = meant.group(1) if meant else ""
    step()  # Compiles.
    steps = 2
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with jax.profiler.trace(folder):
            for _ in range(steps):
                step()
        wall = (time.perf_counter() - started) / steps
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    spent = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in names:
                    spent[event.name] += event.duration_ns / 1e9 / steps
    parts = collections.Counter()
    for name, seconds in spent.items():
        parts[_part(names[name])] += seconds
    total = sum(parts.values())
    print(f"a step takes {wall:.2f} s; its instructions, {total:.2f} s:")
    for part, seconds in parts.most_common():
        print(f"{seconds / total:>7.1%}  {part}")
    print("the slowest:")
    for name, seconds in spent.most_common(12):
        print(f"{seconds / total:>7.1%}  {name:<28} {names[name][-100:]}")


def _samples(rows: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Each sample of the rows on its own, longest first."""
    found = []
    for row in range(len(rows["inputs"])):
        segments = rows["segment_ids"][row]
        for segment in range(1, int(segments.max()) + 1):
            here = segments == segment
            found.append({name: array[row][here] for name, array in rows.items()})
    return sorted(found, key=lambda sample: -len(sample["inputs"]))


def _torch(kind: str) -> None:
    import torch
    import transformers

    torch.set_num_threads(_THREADS.value)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        _FOLDER.value, dtype=torch.float32, attn_implementation="sdpa", use_cache=False
    )
    decays = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=RATE, betas=BETAS, eps=EPS, fused=True,
    )  # fmt: skip
    rows = _read_batch()
    total = float(rows["loss_mask"].sum())
    micros = []
    if kind == "torch-samples":
        for sample in _samples(rows):
            micros.append({name: torch.from_numpy(array[None]) for name, array in sample.items()})
    else:
        for start in range(0, len(rows["inputs"]), _TORCH_MICRO.value):
            part = slice(start, start + _TORCH_MICRO.value)
            micro = {name: torch.from_numpy(array[part]) for name, array in rows.items()}
            segments = micro["segment_ids"]
            same = segments[:, :, None] == segments[:, None, :]
            # Padding sees itself, for a row without any key would be no number.
            micro["mask"] = torch.tril(same)[:, None]
            micros.append(micro)

    def loss_of(micro) -> torch.Tensor:
        hidden = model.model(
            input_ids=micro["inputs"].long(),
            attention_mask=micro.get("mask"),
            position_ids=micro["positions"].long(),
        ).last_hidden_state
        chosen = micro["loss_mask"] > 0
        logits = model.lm_head(hidden[chosen])
        return torch.nn.functional.cross_entropy(
            logits, micro["targets"][chosen].long(), reduction="sum"
        )

    run = torch.compile(loss_of, dynamic=False) if kind == "torch-compile" else loss_of

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for micro in micros:
            part = run(micro) / total
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss

    _serve(step)


def _trl() -> None:
    import datasets  # pyright: ignore[reportMissingImports]
    import torch
    import transformers
    import trl  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(_THREADS.value)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        _FOLDER.value, dtype=torch.float32, attn_implementation="sdpa"
    )
    samples = _samples(_read_batch())
    # One micro-batch of samples alike in length for each of jssd's; the last may be short.
    size = -(-len(samples) * _TORCH_MICRO.value // _ROWS.value)
    accum = -(-len(samples) // size)
    data = datasets.Dataset.from_list(
        [
            {
                "input_ids": [*map(int, sample["inputs"]), int(sample["targets"][-1])],
                "completion_mask": [0, *map(int, sample["loss_mask"])],
            }
            for sample in samples
        ]
    )
    config = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=size,
        gradient_accumulation_steps=accum, learning_rate=RATE, lr_scheduler_type="constant",
        adam_beta1=BETAS[0], adam_beta2=BETAS[1], adam_epsilon=EPS, weight_decay=DECAY,
        max_grad_norm=CLIP, optim="adamw_torch_fused", bf16=False, use_cpu=True,
        gradient_checkpointing=False, max_length=None, packing=False, report_to=[],
        save_strategy="no", logging_strategy="no", train_sampling_strategy="sequential",
        disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model, config, train_dataset=data,
        processing_class=transformers.AutoTokenizer.from_pretrained(_FOLDER.value),
    )  # fmt: skip
    clocks = np.zeros(2)

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            clocks[:] = time.perf_counter(), time.process_time()

        def on_step_end(self, *_, **__):
            clocks[:] = time.perf_counter() - clocks[0], time.process_time() - clocks[1]

    trainer.add_callback(Clock())
    print("ready", flush=True)
    for _ in sys.stdin:
        loss = trainer.train().training_loss
        print(json.dumps({"seconds": clocks[0], "cpu": clocks[1], "loss": loss}), flush=True)


class _Side:
    """One side, warm in a process of its own."""

    def __init__(self, name: str, folder: str, batch: str):
        self.name = name
        python = _TRL.value if name == "trl" else sys.executable
        own = [f"--worker={name}", f"--folder={folder}", f"--batch={batch}"]
        command = [python, __file__, *own] + [x for x in sys.argv[1:] if x.startswith("--")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()
        self.loss = self.ask()["loss"]  # Compiles.
        self.ask()

    def _read(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(('{"', "ready")):
                return line
        raise RuntimeError(f"{self.name} ended early; its words are above.")

    def ask(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def _build_batch(model) -> dict[str, np.ndarray]:
    """Rows [rows, length] of the training tasks with their reference solutions, first-fit."""
    from jssd.config import PromptsConfig
    from jssd.data import prompts
    from jssd.evals import benchmarks
    from jssd.stages.sample import to_problems

    tasks = {task.id: task for task in benchmarks.load("functions", "train")}
    tokenizer = model.tokenizer
    asked = prompts.build(
        to_problems(list(tasks.values())), PromptsConfig(template="task"), tokenizer
    )
    shape = (_ROWS.value, _LENGTH.value)
    names = ("inputs", "targets", "segment_ids", "positions")
    rows: dict[str, np.ndarray] = {name: np.zeros(shape, np.int32) for name in names}
    rows["loss_mask"] = np.zeros(shape, np.float32)
    rows["support_ids"] = np.full((*shape, 1), -1, np.int32)
    used, count = np.zeros(_ROWS.value, int), np.zeros(_ROWS.value, int)
    for prompt in asked:
        answer = tokenizer.encode(tasks[prompt.id].reference)
        tokens = np.asarray([*prompt.token_ids, *answer, tokenizer.eos_id], np.int32)
        size = len(tokens) - 1
        fits = np.flatnonzero(used + size <= _LENGTH.value)
        if not fits.size:
            continue
        row = int(fits[0])
        here = (row, slice(int(used[row]), int(used[row]) + size))
        count[row] += 1
        rows["inputs"][here], rows["targets"][here] = tokens[:-1], tokens[1:]
        rows["segment_ids"][here], rows["positions"][here] = count[row], np.arange(size)
        response = (row, slice(int(used[row]) + len(prompt.token_ids) - 1, int(used[row]) + size))
        rows["loss_mask"][response] = 1
        rows["support_ids"][(*response, 0)] = -2  # Not recorded.
        used[row] += size
    return rows


def _matmul_rate() -> float:
    """FLOP/s of a float32 product of 2048 x 2048 matrices, the best of a few."""
    import jax
    import jax.numpy as jnp

    square = jnp.ones((2048, 2048))
    multiply = jax.jit(jnp.matmul)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        jax.block_until_ready(multiply(square, square))
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times[1:])


def main(_) -> None:
    if _WORKER.value:
        side, _, remat = _WORKER.value.partition(":")
        if side == "jssd":
            _jssd(remat)
        elif side == "trl":
            _trl()
        else:
            _torch(side)
        return

    import jssd
    from jssd.train.flops import train_flops

    model = jssd.load(_MODEL.value, "float32")
    rows = _build_batch(model)
    real = rows["segment_ids"] > 0
    tokens, responses = int(real.sum()), int(rows["loss_mask"].sum())
    flops = train_flops(
        model.cfg, tokens=tokens, response_tokens=responses,
        attention_pairs=float((rows["positions"] + 1)[real].sum()),
    )  # fmt: skip
    print(
        f"{_ROWS.value} rows of {_LENGTH.value}: {len(_samples(rows))} samples, {tokens} tokens, "
        f"{responses} of them with a loss, {flops / 1e12:.2f} TFLOP"
    )
    with tempfile.TemporaryDirectory() as temporary:
        batch = f"{temporary}/batch.npz"
        np.savez(batch, **rows)  # pyright: ignore[reportArgumentType]
        folder = str(model.folder)
        if _PROFILE.value:
            for remat in _REMAT.value:
                own = [f"--worker=jssd:{remat}", f"--folder={folder}", f"--batch={batch}"]
                subprocess.run([sys.executable, __file__, *own, *sys.argv[1:]], check=True)
            return
        del model
        ours = [_Side(f"jssd:{remat}", folder, batch) for remat in _REMAT.value]
        print(
            "side            tokens/s (each round)           median  jssd is  of the rate    core"
        )
        for name in _PEERS.value:
            peer = _Side(name, folder, batch)
            sides = [*ours, peer]
            answers: dict[str, list[dict]] = {side.name: [] for side in sides}
            machine = []
            for number in range(1, _ROUNDS.value + 1):
                machine.append(_matmul_rate())
                for side in sides:
                    answers[side.name].append(side.ask())
                now = (f"{key} {tokens / each[-1]['seconds']:.0f}" for key, each in answers.items())
                print(f"  round {number}: {', '.join(now)}", flush=True)
            machine_rate = statistics.median(machine)
            rates = {key: [tokens / x["seconds"] for x in each] for key, each in answers.items()}
            best = [max(each) for each in zip(*(rates[side.name] for side in ours))]
            for side in sides:
                found = rates[side.name]
                median = statistics.median(found)
                ratio = statistics.median(a / b for a, b in zip(best, found))
                share = median / tokens * flops / machine_rate
                core = statistics.median(tokens / x["cpu"] for x in answers[side.name])
                each = " ".join(f"{x:.0f}" for x in found)
                print(
                    f"{side.name:<14}  {each:<30}  {median:>6.0f}  {ratio:>6.2f}x  {share:>11.0%}"
                    f"  {core:>6.0f}  loss {side.loss:.4f}",
                    flush=True,
                )
            print(f"  the machine's rate {machine_rate / 1e9:.0f} GFLOP/s", flush=True)
            peer.close()
        for side in ours:
            side.close()


if __name__ == "__main__":
    app.run(main)
