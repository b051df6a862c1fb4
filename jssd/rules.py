"""The rules of `config.py`: what each knob may hold, checked once before anything is done."""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

from jssd.config import (
    ATTENTION,
    CACHE_DTYPES,
    CORRECT,
    FORMATS,
    LOSS_ON,
    OPTIMIZATION,
    PACKING,
    PROGRAMS,
    REMAT,
    STAGES,
    TARGETS,
    TRACKERS,
    TRAIN_ATTENTION,
    UNCLOSED,
    Config,
)
from jssd.section_rules import (
    analysis_errors,
    benchmark_errors,
    law_errors,
    lora_errors,
    path_errors,
    read_field,
    survival_errors,
    sweep_errors,
    target_errors,
)


def validate(config: Config, stages: Sequence[str] = ()) -> None:
    """Raises one ValueError that lists every broken rule: the field, its value and the way out.

    `stages` are those to run; none are the config's own.
    """
    errors = []
    stages = stages or config.stages
    read = functools.partial(read_field, config)

    def rule(ok: bool, name: str, must: str) -> None:
        if not ok:
            errors.append(f"{name}={read(name)!r} {must}.")

    rule(
        bool(config.stages) and set(config.stages) <= set(STAGES),
        "stages",
        f"must hold some of {', '.join(STAGES)}",
    )
    rule(set(config.trackers) <= set(TRACKERS), "trackers", f"must be of {', '.join(TRACKERS)}")
    rule(
        not config.shard or _is_shard(config.shard),
        "shard",
        "must be '' or say which of how many, from 0, e.g. 3/8",
    )
    rule(
        not config.shard or set(stages) <= {"sample", "evaluate"},
        "shard",
        "is for --stages=sample or evaluate only: they draw prompts that don't depend on others",
    )
    rule(
        not config.shard or config.rounds == 1,
        "shard",
        f"and rounds={config.rounds} exclude one another: a round needs the one before it whole",
    )
    rule(
        not config.shard or not config.model.path.endswith(".gguf"),
        "shard",
        "needs a model in Hugging Face form: several jobs can't convert a .gguf file at once",
    )
    asks_a_model = not set(stages) <= {"toy", "report"}
    rule(
        bool(config.model.path) or not asks_a_model,
        "model.path",
        "must name a Hugging Face folder, a .gguf file or a hub id",
    )
    for name in ("model.dtype", "model.compute_dtype", "export.dtype"):
        rule(read(name) in ("", "float32", "bfloat16"), name, "must be '', 'float32' or 'bfloat16'")
    rule(
        bool(config.prompts.source) or not asks_a_model,
        "prompts.source",
        "must name the problems, e.g. tasks:train or a .jsonl file",
    )
    rule(config.engine.cache_tokens >= 0, "engine.cache_tokens", "must be 0 (room for all) or more")
    bucket = config.engine.prompt_bucket
    rule(
        bucket < 1 or config.engine.prefill_chunk % math.lcm(bucket, 64) == 0,
        "engine.prefill_chunk",
        f"must be a multiple of engine.prompt_bucket={bucket} and of the cache's page, 64",
    )
    rule(
        config.engine.attention in ATTENTION,
        "engine.attention",
        "must be auto, gather, ragged or triton",
    )
    rule(
        config.engine.cache_dtype in CACHE_DTYPES,
        "engine.cache_dtype",
        "must be '', 'float32', 'bfloat16' or 'int8'",
    )
    rule(config.prompts.limit >= 0, "prompts.limit", "must be 0 (all) or more")
    rule(
        config.prompts.revision == "main" or config.prompts.source.startswith("hf:"),
        "prompts.revision",
        "only means something for an hf: source: leave it 'main'",
    )
    rule(config.prompts.repeat >= 1, "prompts.repeat", "must be at least 1")
    errors.extend(law_errors("sampling", config.sampling))
    errors.extend(law_errors("export", config.export))
    for index, decode in enumerate(config.evaluate.decodes):
        errors.extend(law_errors(f"evaluate.decodes[{index}]", decode))
    names = [decode.name for decode in config.evaluate.decodes]
    if len(set(names)) < len(names):
        errors.append(f"evaluate.decodes names {names} must differ from one another.")
    if (config.evaluate.base_decode == "") != (config.evaluate.student_decode == ""):
        errors.append("evaluate.base_decode and evaluate.student_decode must be set together.")
    for model in ("base", "student"):
        own = getattr(config.evaluate, f"{model}_decode")
        scored = [law.name for law in config.evaluate.decodes if model in law.models]
        if own and own not in scored:
            errors.append(
                f"evaluate.{model}_decode={own!r} must be one of {scored}, which score {model}."
            )
    for name in ("sampling.seed", "train.seed", "evaluate.seed"):
        rule(read(name) >= 0, name, "must be 0 or more")
    for name in (
        "sampling.max_new_tokens",
        "sampling.n",
        "engine.slots",
        "engine.prompt_bucket",
        "engine.prefill_chunk",
        "engine.decode_steps",
        "train.num_steps",
        "train.global_batch_size",
        "train.seq_len",
        "train.grad_accum",
        "train.loss_chunk",
        "train.unroll",
        "train.log_every",
        "train.save_every",
        "train.keep_last",
        "evaluate.n",
        "evaluate.max_new_tokens",
        "evaluate.workers",
        "evaluate.bootstrap",
        "evaluate.memory_mb",
        "export.shard_bytes",
        "plan.tries",
        "plan.prompt_tokens",
        "plan.support_ids",
        "seeds",
        "rounds",
    ):
        rule(read(name) >= 1, name, "must be at least 1")
    rule(
        config.filter.truncated in ("keep", "no_eos", "drop"),
        "filter.truncated",
        "must be keep, no_eos or drop",
    )
    rule(
        0 <= config.filter.drop_shortest_percent < 100,
        "filter.drop_shortest_percent",
        "must be in [0, 100)",
    )
    for name, words in (("format", ("", *FORMATS)), ("correct", ("", *CORRECT))):
        must = f"must be {', '.join(map(repr, words))}"
        rule(read(f"filter.{name}") in words, f"filter.{name}", must)
    rule(
        0 < config.filter.proxy_keep_percent <= 100,
        "filter.proxy_keep_percent",
        "must be in (0, 100]",
    )
    rule(config.filter.min_tokens >= 0, "filter.min_tokens", "must be 0 (off) or more")
    rule(
        config.filter.max_tokens == 0
        or config.filter.max_tokens >= max(1, config.filter.min_tokens),
        "filter.max_tokens",
        f"must be 0 (off), or no less than filter.min_tokens={config.filter.min_tokens}",
    )
    for name, words in (
        ("train.remat", REMAT),
        ("train.packing", PACKING),
        ("train.targets", TARGETS),
        ("train.loss_on", LOSS_ON),
        ("filter.unclosed", UNCLOSED),
        ("train.attention", TRAIN_ATTENTION),
        ("train.param_dtype", ("float32", "bfloat16")),
        ("train.mu_dtype", ("float32", "bfloat16")),
    ):
        rule(read(name) in words, name, f"must be one of {', '.join(words)}")
    rule(bool(config.train.think_end), "train.think_end", "must be the text of a token")
    if config.train.loss_on == "response":
        for name, default in (("filter.unclosed", "drop"), ("train.think_end", "</think>")):
            rule(read(name) == default, name, "needs train.loss_on='answer'")
    rule(
        config.engine.keep_support or not config.engine.keep_law,
        "engine.keep_law",
        "needs engine.keep_support=True: it stores the probabilities of those tokens",
    )
    errors.extend(target_errors(config, stages))
    errors.extend(lora_errors(config))
    errors.extend(path_errors(config))
    rule(config.train.router_aux_loss >= 0, "train.router_aux_loss", "must be 0 (off) or more")
    rule(config.train.learning_rate > 0, "train.learning_rate", "must be above 0")
    rule(
        0 <= config.train.final_learning_rate <= config.train.learning_rate,
        "train.final_learning_rate",
        "must be between 0 and train.learning_rate",
    )
    rule(
        0 <= config.train.warmup_steps < config.train.num_steps,
        "train.warmup_steps",
        f"must be in [0, train.num_steps={config.train.num_steps})",
    )
    rule(config.train.clip_norm >= 0, "train.clip_norm", "must be 0 (off) or more")
    rule(config.train.weight_decay >= 0, "train.weight_decay", "must be 0 or more")
    rule(
        config.train.global_batch_size % config.train.grad_accum == 0,
        "train.global_batch_size",
        f"must be a multiple of train.grad_accum={config.train.grad_accum}",
    )
    rule(
        all(1 <= k <= config.evaluate.n for k in config.evaluate.ks) and bool(config.evaluate.ks),
        "evaluate.ks",
        f"must hold numbers between 1 and evaluate.n={config.evaluate.n}",
    )
    rule(
        config.evaluate.sandbox in ("auto", "bwrap", "unshare", "uid", "rlimit"),
        "evaluate.sandbox",
        "must be auto, bwrap, unshare, uid or rlimit",
    )
    rule(config.evaluate.timeout > 0, "evaluate.timeout", "must be above 0 seconds")
    rule(
        config.evaluate.extraction in ("last_fence", "defining_fence"),
        "evaluate.extraction",
        "must be last_fence or defining_fence",
    )
    errors.extend(benchmark_errors(config))
    rule(
        bool(config.plan.programs) and set(config.plan.programs) <= set(PROGRAMS),
        "plan.programs",
        f"must hold some of {', '.join(PROGRAMS)}",
    )
    rule(
        config.plan.optimization in OPTIMIZATION,
        "plan.optimization",
        f"must be '' or one of {', '.join(OPTIMIZATION[1:])}",
    )
    rule(config.plan.layers >= 0, "plan.layers", "must be 0 (all) or more")
    rule(config.plan.timeout > 0, "plan.timeout", "must be above 0 seconds")
    errors.extend(sweep_errors(config))
    errors.extend(analysis_errors(config, stages))
    errors.extend(survival_errors(config))
    axes = dataclasses.asdict(config.mesh)
    if any(size < 1 and size != -1 for size in axes.values()) or list(axes.values()).count(-1) > 1:
        errors.append(
            f"mesh={axes} must hold sizes of 1 or more, and at most one -1 (what is left)."
        )
    if errors:
        raise ValueError("config: " + " ".join(errors))


def _is_shard(text: str) -> bool:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    return match is not None and int(match[1]) < int(match[2])
