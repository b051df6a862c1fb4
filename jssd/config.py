"""Every knob of a run: typed, its default and its reason beside it. `rules.py` checks them once.

Config files in `configs/` build a `Config` in plain Python; absl flags override single fields
(`--config.sampling.temperature=1.2`). Once checked the tree is treated as read-only. Settings
that only fit one room live in that room's section; rooms receive their own section, never the
whole tree.
"""

import dataclasses
import hashlib
import json
from dataclasses import field

PIPELINE = ("sample", "sft", "export", "evaluate", "report")  # What runs when no stage is named.
STAGES = ("toy", "plan", *PIPELINE, "mechanism", "sweep")


@dataclasses.dataclass
class ModelSource:
    """Where the frozen base model comes from and how it is computed with."""

    # A Hugging Face folder, a .gguf file, or a hub id such as "Qwen/Qwen3-4B-Instruct-2507". As
    # every path of the config it may be gs://bucket/...: docs/buckets.md.
    path: str = ""
    # Commit, tag or branch of a hub id. Ignored names are refused: local paths allow "main" only.
    revision: str = "main"
    # Storage dtype of the weights: "" keeps the checkpoint's, else "float32" or "bfloat16".
    dtype: str = ""
    compute_dtype: str = ""  # Dtype of activations and matmuls: "" follows the weights.


@dataclasses.dataclass
class MeshConfig:
    """How devices are laid out. The product must equal the number of devices; one axis may be -1:
    what is left."""

    data: int = 1  # Replicates weights, splits the batch.
    fsdp: int = -1  # Splits weights and the batch.
    tensor: int = 1  # Splits heads, MLP width and vocabulary.
    # Splits the experts of a mixture of experts, the batch, and all other weights as fsdp does.
    expert: int = 1
    context: int = 1  # Splits each row of the batch by time in training, and weights as fsdp does.


@dataclasses.dataclass
class PromptsConfig:
    """Which problems are asked, and in which words."""

    # "tasks:train", a .jsonl or .parquet path, or "hf:owner/dataset[/config]" (extra `hub`).
    source: str = ""
    split: str = "train"  # Split of an "hf:" source.
    revision: str = "main"  # Commit, tag or branch of an "hf:" source.
    question_field: str = "question"  # Column that holds the problem statement.
    # Column with starter code; blank or missing makes it a stdin problem.
    starter_code_field: str = "starter_code"
    id_field: str = ""  # Column with a stable id; "" numbers the rows.
    # A name in data/templates.py: "raw", "user", "system", "apple_raw", "apple_user",
    # "apple_eval", "apple_eval_closed", "task".
    template: str = "user"
    # Replaces the template's own system text where the template has a system turn.
    system_prompt: str = ""
    # Drops repeated statements, compared after whitespace is normalised (paper section 2).
    dedup: bool = True
    # Keeps rows whose `is_passed` is true: reproduces the 10,167 rows of ml-ssd issue 7.
    require_is_passed: bool = False
    limit: int = 0  # Keeps the first so many problems; 0 keeps all.
    # Asks each problem in so many wordings of a template that has several ("task").
    repeat: int = 1


@dataclasses.dataclass
class SamplingConfig:
    """The law completions are drawn from. vLLM's order: temperature, top_k, top_p, min_p."""

    temperature: float = 1.0  # 0 is greedy. Traced: a sweep compiles once.
    top_k: int = 0  # 0 keeps the whole vocabulary.
    top_p: float = 1.0  # 1.0 keeps the whole mass.
    # Keeps tokens with at least this share of the likeliest token's probability.
    min_p: float = 0.0
    max_new_tokens: int = 512  # A completion that reaches it ends with finish_reason "length".
    n: int = 1  # Samples per prompt. The paper draws one.
    seed: int = 0  # With prompt id, sample number and position it addresses every draw.


@dataclasses.dataclass
class EngineConfig:
    """How the sampler uses the machine: but for `cache_dtype`, never the law, at most the last bits
    of a logit."""

    slots: int = 32  # Completions decoded side by side.
    # Tokens the cache has room for, over all slots. 0 is room for the longest completion in every
    # slot; with less, completions are set back and redone when the others need the room.
    cache_tokens: int = 0
    prompt_bucket: int = 64  # Prompt lengths are padded up to a multiple of this.
    prefill_chunk: int = 512  # Tokens of a prompt that go through the model at once.
    # How a decode step attends: "auto" (by device), "gather" (any device), "ragged" (TPU kernel),
    # "triton" (GPU kernel). The same law; sampling/cache.py says what each needs.
    attention: str = "auto"
    # Of keys and values: "" (as computed), "float32", "bfloat16", or "int8" with a scale per token
    # and head. int8 changes the model that is drawn from, a little.
    cache_dtype: str = ""
    decode_steps: int = 16  # Steps fused into one device call before the host refills ended slots.
    # Runs slots through the model eight at a time: then their number changes no completion's bits.
    # Slower.
    strict: bool = False
    # Stores the token ids each draw could have taken, for KeptMass in training.
    keep_support: bool = True
    # Stores their probabilities too, for `train.targets` "law". Some three times the file.
    keep_law: bool = False


@dataclasses.dataclass
class FilterConfig:
    """Which completions are trained on. The paper drops only empty answers and stubs."""

    drop_empty: bool = True
    # One line only (paper); the exact rule is not published, ours is in data/filters.py.
    drop_stubs: bool = True
    # The released code drops the shortest 10 percent by characters.
    drop_shortest_percent: float = 0.0
    # Completions cut at the token limit: "keep" (ends the turn), "no_eos", or "drop".
    truncated: str = "keep"
    # Least and most tokens of a completion, its stop token counted; 0 sets no such bound.
    min_tokens: int = 0
    max_tokens: int = 0
    drop_duplicates: bool = False  # Same prompt, same tokens.
    # With `train.loss_on` "answer": completions whose thinking never ends are left out ("drop"), or
    # the first such one ends the run ("refuse").
    unclosed: str = "drop"
    # What grading would read from the text: "fence" (there is a program), "python" (it parses too),
    # "" asks for neither.
    format: str = ""
    # The control arm: only completions that pass their task's tests ("passed"), or only others
    # ("failed"). Needs prompts with tests, as tasks:train. "" asks no test, as the paper.
    correct: str = ""
    # Another model, as `ModelSource.path`, with the same tokenizer: keeps the share of completions
    # that it finds likeliest, by the mean log-probability of a token. "" asks none.
    proxy_model: str = ""
    proxy_keep_percent: float = 50.0  # Of what the other filters left, at least one.


@dataclasses.dataclass
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv 2106.09685) in place of full fine-tuning, which is what the
    paper means. A frozen weight W works as W + (alpha / rank) B A; only A and B are trained."""

    rank: int = 0  # Of A and B. 0 is off: all weights are trained.
    # 0 is the rank, so a factor of 1: as section 4.1 there sets it, and peft with its 8 of 8.
    alpha: float = 0.0
    # Which weights of a layer get an adapter. All: QLoRA (arXiv 2305.14314, section 4) needed all
    # to come up to full fine-tuning; the LoRA paper adapts q and v. Experts cannot have any.
    projections: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")


@dataclasses.dataclass
class TrainConfig:
    """Supervised fine-tuning on the raw samples. Defaults are the paper's (section 3.2)."""

    num_steps: int = 2500
    global_batch_size: int = 32  # Rows per optimizer step.
    seq_len: int = 65536  # Tokens per row.
    # "packed": several samples per row with segment ids. "none": one sample on a row of seq_len.
    # "bucketed": one sample on a row, and rows of a step that are alike in length share a
    # micro-batch no longer than they need. The paper does not say.
    packing: str = "packed"
    grad_accum: int = 1  # Micro-batches per step; the loss is normalised over all of them together.
    learning_rate: float = 5e-6
    final_learning_rate: float = 1e-6  # Cosine from the peak to this.
    warmup_steps: int = 250
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8  # Not published; Adam's usual value.
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # Global norm; 0 switches it off. Not published; the usual value.
    # Of the weights the step computes with. With "bfloat16" the optimizer keeps a float32 master;
    # with `lora` it is the dtype of the frozen weights, and adapters are always float32.
    param_dtype: str = "float32"
    mu_dtype: str = "float32"  # Of Adam's first moment, or "bfloat16". The second is float32.
    # What the backward pass recomputes: "none", "block" (all of a layer), "dots" (all but matrix
    # products with weights), or "offload" (as "block", with each layer's input kept on the host).
    remat: str = "block"
    unroll: int = 1  # Layers in one turn of the loop over layers; more compile longer.
    # How a training row attends: "auto" (by device and length), "dense", "blockwise", "splash"
    # (TPU) or "cudnn" (GPU). model/attention.py says what each needs.
    attention: str = "auto"
    # Weight of the router's load-balancing loss. It is logged anyway; the paper names none.
    router_aux_loss: float = 0.0
    loss_chunk: int = 256  # Response tokens whose logits exist at once.
    # What a response token is trained towards: "draw", the token that was drawn, or "law", all that
    # could have been, each by its probability (soft targets): the same expected gradient with less
    # noise. "law" is ours, not the paper's, and needs `engine.keep_law` at sampling.
    targets: str = "draw"
    # The part of a completion that is trained on: "response", all of it (the paper), or "answer",
    # what a thinking model writes after its thinking, which stays as context. Then filters read the
    # answer too. Ours, an option that people ask for.
    loss_on: str = "response"
    think_end: str = "</think>"  # What ends the thinking, for `loss_on` "answer": a token.
    seed: int = 0  # Order of the samples, and the start of adapters.
    lora: LoraConfig = field(default_factory=LoraConfig)
    log_every: int = 1
    save_every: int = 250
    keep_last: int = 2  # Newest checkpoints kept, besides the best by loss.
    # Trains on samples that other weights drew. Off: the paper's premise is broken.
    allow_foreign_samples: bool = False


@dataclasses.dataclass
class DecodeConfig:
    """One way to decode at evaluation, with a name to show."""

    name: str = ""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    models: tuple[str, ...] = ("base", "student")  # Who is scored with it.


@dataclasses.dataclass
class LiveCodeBenchConfig:
    """The paper's benchmark: where its problems are, which are asked, and how they are graded."""

    # A released .jsonl file, a folder of them (test.jsonl to test6.jsonl), or the dataset on the
    # hub, "hf:livecodebench/code_generation_lite".
    path: str = ""
    # Of benchmark "livecodebench": "v6", "v5", two days as "2025-02-01:2025-05-31", or "" for all.
    window: str = ""
    difficulty: str = ""  # "easy", "medium" or "hard" asks only those.
    # Rules of the paper's evaluator to replace by stricter ones, of LIVECODEBENCH_RULES, or "all".
    strict: tuple[str, ...] = ()


@dataclasses.dataclass
class EvalConfig:
    """pass@k of base and student, each at its own decoding and both at the same."""

    # "tasks" (held-out half of our own set), "functions", "programs", "humaneval",
    # "livecodebench_v6", "livecodebench_v5", "livecodebench", or NAME of a file NAME.jsonl in
    # `data`. docs/evaluation.md has the formats.
    benchmarks: tuple[str, ...] = ("tasks",)
    data: str = ""  # Folder of benchmark files.
    livecodebench: LiveCodeBenchConfig = field(default_factory=LiveCodeBenchConfig)
    decodes: list[DecodeConfig] = field(default_factory=list)
    # Name of the base's own decoding among `decodes`; "" makes no own-own comparison.
    base_decode: str = ""
    student_decode: str = ""  # Name of the student's own decoding.
    n: int = 10  # Completions per problem; the paper draws ten.
    ks: tuple[int, ...] = (1, 5)
    max_new_tokens: int = 512
    template: str = "task"  # Prompt template, as in `PromptsConfig.template`.
    limit: int = 0  # Problems per benchmark; 0 asks all.
    seed: int = 0
    bootstrap: int = 10000  # Resamples of the problems for the 95 percent intervals.
    # "auto" takes the strongest way there is; or "bwrap", "unshare", "uid", "rlimit".
    sandbox: str = "auto"
    # What of an answer is the program: "last_fence", or "defining_fence", the last
    # fenced block that defines the function asked for. LiveCodeBench has rules of its own.
    extraction: str = "last_fence"
    workers: int = 2  # Programs graded at once.
    timeout: float = 10.0  # Seconds per program. LiveCodeBench has rules of its own.
    memory_mb: int = 512  # Of a program's address space, and of all its processes together.
    # Folder with numpy and pandas for the programs, made by `pip install --target`. "" lets them
    # import the standard library only; the paper's evaluator has both.
    packages: str = ""


@dataclasses.dataclass
class TruncationConfig:
    """What is cut off after the temperature, as in `SamplingConfig`."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclasses.dataclass
class SweepConfig:
    """The grids of stage `sweep`: the base, and students trained at other laws, each decoded at
    `eval_temperatures` x `eval_truncations`. Problems, words and counts are section evaluate's."""

    base: bool = True  # Whether the base is decoded over the grid.
    # A student is sampled for and trained at each of these times `train_truncations`.
    train_temperatures: tuple[float, ...] = ()
    train_truncations: list[TruncationConfig] = field(default_factory=list)  # [] is sampling's own.
    # Steps of each student that are decoded; () is the last. `train.keep_last` must keep them.
    checkpoints: tuple[int, ...] = ()
    eval_temperatures: tuple[float, ...] = ()
    eval_truncations: list[TruncationConfig] = field(default_factory=list)  # [] cuts nothing off.
    # Estimated at each of `predict_truncations` by re-scoring what the grid drew: no decoding.
    predict_temperatures: tuple[float, ...] = ()
    predict_truncations: list[TruncationConfig] = field(default_factory=list)  # [] is eval's.


@dataclasses.dataclass
class ExportConfig:
    """What the exported folder serves by default: the student's own decoding (paper table 3)."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    dtype: str = ""  # "" exports in the source checkpoint's dtype.
    # With `train.lora`, `adapter/` too: the adapters by themselves, as Hugging Face's peft reads
    # them. `export/` holds the merged weights in any case.
    adapter: bool = False
    shard_bytes: int = 5_000_000_000  # Every loader accepts it; transformers 5 would write 50 GB.


@dataclasses.dataclass
class PlanConfig:
    """What stage `plan` compiles for `Config.hardware`, and how hard it looks."""

    # Programs to compile: "train", "prefill" and "decode".
    programs: tuple[str, ...] = ("train", "prefill", "decode")
    # Looks for the smallest slice, up to `hardware`, and on it for the fewest micro-batches, from
    # `train.grad_accum` up, and the best mesh that fit.
    search: bool = False
    tries: int = 4  # Compiles of a search on a slice, best first, before a larger slice.
    layers: int = 0  # Compiles so many layers only, for a quick look; 0 is the whole model.
    # Room for the prompt in a slot, beside `sampling.max_new_tokens`, and the prefill's length.
    prompt_tokens: int = 1024
    support_ids: int = 32  # Widest recorded support of a draw, which a batch is as wide as.
    # Of XLA, as JAX_OPTIMIZATION_LEVEL: "" is what a run uses. "O1" compiles faster, up to several
    # times, and may ask for more memory.
    optimization: str = ""
    timeout: float = 3600.0  # Seconds for one compile.


@dataclasses.dataclass
class MechanismConfig:
    """What stage `mechanism` compares, token by token: base and student on the same contexts. The
    law of training, which says what was kept, is section `sampling`."""

    # Two models, each as `ModelSource.path`, or a checkpoint of any run, WORKDIR/checkpoints/STEP.
    # "" is the run's own: model.path, and `export/`.
    base: str = ""
    student: str = ""
    # A .jsonl file of sample records, or of rows with "prompt" and "completion". "" takes the run's
    # own samples.
    contexts: str = ""
    template: str = "raw"  # Of rows that hold texts: how the prompt is laid out.
    limit: int = 32  # Completions, evenly spaced over the contexts; 0 takes all.
    max_tokens: int = 512  # Only so many first tokens of a completion.
    # Evaluation laws: the paper's temperatures; its truncation is not published, this is the
    # instruct models' own at evaluation.
    temperatures: tuple[float, ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    top_k: int = 20
    top_p: float = 0.8
    # Nats. From here on the base's entropy makes a position a fork, below it a lock. Ours, for the
    # paper names no threshold: 0.69 is as undecided as a fair coin.
    fork_entropy: float = 0.69


@dataclasses.dataclass
class ToyConfig:
    """The paper's toy (section 5.4). Its student is the target of section `sampling`."""

    top_p: float = 0.80  # Of evaluation, for teacher and student.
    top_ps: tuple[float, ...] = (0.65, 0.70, 0.75, 0.80, 0.85, 0.90)  # For the gap by top_p.
    # So many temperatures from lowest to highest. The published optima lie on this grid.
    temperatures: int = 200
    lowest: float = 0.3
    highest: float = 3.0


@dataclasses.dataclass
class SurvivalConfig:
    """When a process ends itself, in seconds: docs/faults.md. `start` to `grade` are limits of time
    without a sign of life, after which a process counts as hung; 0 sets none."""

    join: float = 290.0  # For all processes of a job to come.
    start: float = 1800.0  # Loading, restoring, export, and whatever has no limit of its own.
    compile: float = 3600.0  # Before the first sign of life of what compiles.
    sample: float = 900.0  # `engine.decode_steps` tokens in every slot, or a row of scores.
    step: float = 1800.0  # A training step, or its data.
    save: float = 1800.0
    grade: float = 1800.0  # One program: LiveCodeBench gives some of them minutes.
    wait: float = 0.0  # For other hosts, whose own limits end the job if one of them is hung.
    # After SIGTERM, for work that is not on disk. Spot machines are taken 30 s after it.
    grace: float = 25.0
    # Until JAX gives up a process that is gone or frozen, and with it the job.
    heartbeat: int = 60
    stragglers_every: int = 50  # Training steps between two lines that name the slowest host.


@dataclasses.dataclass
class Config:
    """One experiment. Stages meet on disk in the work directory."""

    name: str = ""
    stages: tuple[str, ...] = PIPELINE  # What runs when --stages names none.
    model: ModelSource = field(default_factory=ModelSource)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvalConfig = field(default_factory=EvalConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    # What stage `plan` compiles for, e.g. v5p-64, 2xv5e-256 or b200x8; plan/hardware.py has all.
    hardware: str = ""
    plan: PlanConfig = field(default_factory=PlanConfig)
    mechanism: MechanismConfig = field(default_factory=MechanismConfig)
    toy: ToyConfig = field(default_factory=ToyConfig)
    survival: SurvivalConfig = field(default_factory=SurvivalConfig)
    # Independent repetitions of the whole run with sampling.seed, train.seed and evaluate.seed + i.
    seeds: int = 1
    # Rounds of self-distillation, each in `<workdir>/round-i`: the base of one is the export of the
    # one before, at other seeds. The paper does one, which stays in the work directory itself.
    rounds: int = 1
    # Copies of metrics and scores to "wandb" or "mlflow" (extras of these names), beside the run's
    # own files. Where they are and who you are is set as each of them has it.
    trackers: tuple[str, ...] = ()
    # "0/8" to "7/8": stages `sample` and `evaluate` draw only every eighth prompt, in a job that
    # waits for no other. The stage without it takes up what all eight have drawn.
    shard: str = ""
    # Keeps compiled programs in `<workdir>/.cache`, so that a restart skips compiling.
    compile_cache: bool = True


LIVECODEBENCH = ("livecodebench_v6", "livecodebench_v5", "livecodebench")
LIVECODEBENCH_RULES = (
    "extraction",
    "tests",
    "arguments",
    "script",
    "streams",
    "exit",
    "recursion",
    "values",
    "budget",
)
MAX_SUPPORT = 128  # Likeliest tokens that a draw looks at: a sample holds no wider law.
FORMATS = ("fence", "python")
CORRECT = ("passed", "failed")
PACKING = ("packed", "bucketed", "none")
TARGETS = ("draw", "law")
TRACKERS = ("wandb", "mlflow")
LOSS_ON = ("response", "answer")
UNCLOSED = ("drop", "refuse")
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
REMAT = ("none", "block", "dots", "offload")
TRAIN_ATTENTION = ("auto", "dense", "blockwise", "splash", "cudnn")
ATTENTION = ("auto", "gather", "ragged", "triton")
CACHE_DTYPES = ("", "float32", "bfloat16", "int8")
PROGRAMS = ("train", "prefill", "decode")
OPTIMIZATION = ("", "O0", "O1", "O2", "O3")


def to_dict(config: Config) -> dict:
    """Plain nested dict of a config, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def digest(tree: dict) -> str:
    """Short hash of a plain dict; equal dicts give equal digests whatever their key order."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
