"""Rules of paths, laws, soft targets, LoRA, LiveCodeBench, sweep, mechanism, toy and survival."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from jssd.config import (
    LIVECODEBENCH,
    LIVECODEBENCH_RULES,
    MAX_SUPPORT,
    PROJECTIONS,
    Config,
    EvalConfig,
    LoraConfig,
    SamplingConfig,
)
from jssd.places import scheme_error


def read_field(config: Config, name: str) -> Any:
    """The value of a dotted field, as "train.seq_len"."""
    return functools.reduce(getattr, name.split("."), config)


# Every field that names a file, a folder or a model, which may lie in a bucket.
_PATHS = (
    "model.path",
    "prompts.source",
    "filter.proxy_model",
    "evaluate.data",
    "evaluate.packages",
    "evaluate.livecodebench.path",
    "mechanism.base",
    "mechanism.student",
    "mechanism.contexts",
)


def path_errors(config: Config) -> list[str]:
    """The rule of paths: local, or gs:// with a bucket."""
    texts = [(name, read_field(config, name)) for name in _PATHS]
    return [f"{name}={text!r} {wrong}." for name, text in texts if (wrong := scheme_error(text))]


def law_errors(where: str, law) -> list[str]:
    """The rules of a sampling law, for any section that holds one."""
    rules = (
        (law.temperature >= 0, "temperature", "must be 0 (greedy) or more"),
        (law.top_k >= 0, "top_k", "must be 0 (off) or more"),
        (0 < law.top_p <= 1, "top_p", "must be in (0, 1]"),
        (0 <= getattr(law, "min_p", 0.0) <= 1, "min_p", "must be in [0, 1]"),
    )
    return [f"{where}.{name}={getattr(law, name)!r} {must}." for ok, name, must in rules if not ok]


def lora_errors(config: Config) -> list[str]:
    """The rules of section train.lora, and of what is exported of it."""
    lora, off = config.train.lora, LoraConfig()
    words, given = ", ".join(PROJECTIONS), tuple(lora.projections)
    on = lora.rank != 0
    rules = (
        (lora.rank >= 0, "train.lora.rank", "must be 0 (all weights are trained) or more"),
        (lora.alpha >= 0, "train.lora.alpha", "must be 0 (as the rank) or more"),
        (on or lora.alpha == off.alpha, "train.lora.alpha", "needs train.lora.rank above 0"),
        (
            bool(given) and set(given) <= set(PROJECTIONS) and len(set(given)) == len(given),
            "train.lora.projections",
            f"must name some of {words}, each once",
        ),
        (
            on or given == off.projections,
            "train.lora.projections",
            "needs train.lora.rank above 0",
        ),
        (on or not config.export.adapter, "export.adapter", "needs train.lora.rank above 0"),
    )
    return [f"{name}={read_field(config, name)!r} {must}." for ok, name, must in rules if not ok]


def target_errors(config: Config, stages: Sequence[str]) -> list[str]:
    """What soft targets ask of sampling. Samples that are there may hold laws whatever the config
    says: a run that only trains is told by what it reads."""
    sweep, laws = config.sweep, []
    if "sample" in stages:
        laws.append(("sampling", config.sampling, [config.sampling.temperature]))
    if "sweep" in stages and sweep.train_temperatures:
        cuts = [(f"sweep.train_truncations[{i}]", c) for i, c in enumerate(sweep.train_truncations)]
        for where, cut in cuts or [("sampling", config.sampling)]:
            laws.append((where, cut, list(sweep.train_temperatures)))
    if config.train.targets != "law" or not laws:
        return []
    errors = []
    if not config.engine.keep_law:
        errors.append(
            "train.targets='law' needs engine.keep_law=True, or what is sampled lacks the laws. "
            "Set it, or train.targets='draw', or leave stage sample out if samples/ holds them."
        )
    for where, cut, temperatures in laws:
        # Of as many as are looked at, none is seen to be beyond the last: a tie could go on.
        if max(temperatures) > 0 and not 0 < cut.top_k < MAX_SUPPORT:
            errors.append(
                f"{where}.top_k={cut.top_k} must be 1 to {MAX_SUPPORT - 1} with "
                "train.targets='law': a sample holds no wider law. Set it, or train.targets='draw'."
            )
    return list(dict.fromkeys(errors))


def benchmark_errors(config: Config) -> list[str]:
    """Settings of grading that nothing which is asked for would look at."""
    evaluate, off = config.evaluate, EvalConfig()
    theirs = [name for name in evaluate.benchmarks if name in LIVECODEBENCH]
    ours = len(theirs) < len(evaluate.benchmarks)
    reads = {
        "extraction": ours or bool(config.filter.format or config.filter.correct),
        "timeout": ours or bool(config.filter.correct),
    }
    errors = [
        f"evaluate.{name}={getattr(evaluate, name)!r} is read by no benchmark of "
        f"evaluate.benchmarks={evaluate.benchmarks!r}: LiveCodeBench has rules of its own, in "
        f"evaluate.livecodebench.strict. Leave it {getattr(off, name)!r}."
        for name, read in reads.items()
        if not read and getattr(evaluate, name) != getattr(off, name)
    ]
    section = evaluate.livecodebench
    for name, default in vars(off.livecodebench).items():
        value = getattr(section, name)
        if theirs or value == default:
            continue
        errors.append(
            f"evaluate.livecodebench.{name}={value!r} is read by no benchmark of "
            f"evaluate.benchmarks={evaluate.benchmarks!r}. Name one of {', '.join(LIVECODEBENCH)}, "
            f"or leave it {default!r}."
        )
    if section.window and theirs and "livecodebench" not in theirs:
        errors.append(
            f"evaluate.livecodebench.window={section.window!r} is read by benchmark "
            f"'livecodebench' only: {' and '.join(theirs)} has its own. Name that benchmark, or "
            "leave it ''."
        )
    return errors + livecodebench_errors(section)


def livecodebench_errors(section) -> list[str]:
    """The rules of section evaluate.livecodebench."""
    where, errors = "evaluate.livecodebench", []
    if not re.fullmatch(r"(v5|v6|\d{4}-\d\d-\d\d:\d{4}-\d\d-\d\d)?", section.window):
        errors.append(
            f"{where}.window={section.window!r} must be '', 'v5', 'v6' or two days, first to last, "
            "as '2025-02-01:2025-05-31'."
        )
    if section.difficulty not in ("", "easy", "medium", "hard"):
        errors.append(
            f"{where}.difficulty={section.difficulty!r} must be '', 'easy', 'medium' or 'hard'."
        )
    if not set(section.strict) <= {*LIVECODEBENCH_RULES, "all"}:
        names = ", ".join(LIVECODEBENCH_RULES)
        errors.append(f"{where}.strict={section.strict!r} must hold some of {names}, or 'all'.")
    return errors


def sweep_errors(config: Config) -> list[str]:
    """The rules of section sweep."""
    sweep, train, errors = config.sweep, config.train, []
    for part, least in (("train", "0 or more"), ("eval", "0 or more"), ("predict", "above 0")):
        name = f"sweep.{part}_temperatures"
        values = getattr(sweep, f"{part}_temperatures")
        if any(value < 0 or (part == "predict" and value == 0) for value in values):
            errors.append(f"{name}={values!r} must hold numbers {least}.")
        cuts = getattr(sweep, f"{part}_truncations")
        for index, cut in enumerate(cuts):
            law = SamplingConfig(1.0, cut.top_k, cut.top_p, cut.min_p)
            errors.extend(law_errors(f"sweep.{part}_truncations[{index}]", law))
        for kind, members in (("temperatures", list(values)), ("truncations", cuts)):
            if any(member in members[:index] for index, member in enumerate(members)):
                errors.append(f"sweep.{part}_{kind}={members!r} must name each one once.")
        if cuts and not values:
            errors.append(f"sweep.{part}_truncations needs {name}. Set them, or leave it [].")
    if sweep.checkpoints and not sweep.train_temperatures:
        errors.append(
            f"sweep.checkpoints={sweep.checkpoints!r} needs sweep.train_temperatures: they are "
            "steps of students. Set them, or leave it ()."
        )
    if len(set(sweep.checkpoints)) < len(sweep.checkpoints):
        errors.append(f"sweep.checkpoints={sweep.checkpoints!r} must name each one once.")
    if (sweep.train_temperatures or sweep.predict_temperatures) and not sweep.eval_temperatures:
        errors.append("sweep.eval_temperatures=() must name what students are decoded at.")
    if sweep.predict_temperatures and not any(sweep.eval_temperatures):
        errors.append(
            "sweep.predict_temperatures needs a temperature above 0 in eval_temperatures."
        )
    if sweep.eval_temperatures and not (sweep.base or sweep.train_temperatures):
        errors.append("sweep.base=False leaves nothing to decode. Set sweep.train_temperatures.")
    for step in sweep.checkpoints:
        saved = step == train.num_steps or (
            0 < step < train.num_steps and step % train.save_every == 0
        )
        if not saved:
            errors.append(
                f"sweep.checkpoints={step} must be train.num_steps={train.num_steps} or a multiple "
                f"of train.save_every={train.save_every} below it."
            )
        elif (needed := -(-(train.num_steps - step) // train.save_every) + 1) > train.keep_last:
            errors.append(
                f"train.keep_last={train.keep_last} must be at least {needed}, so that "
                f"sweep.checkpoints={step} is still there at the end."
            )
    return errors


def analysis_errors(config: Config, stages: Sequence[str]) -> list[str]:
    """The rules of sections mechanism and toy."""
    mechanism, toy = config.mechanism, config.toy
    above_0 = lambda values: bool(values) and all(value > 0 for value in values)
    rules = (
        (mechanism.limit >= 0, "mechanism.limit", "must be 0 (all) or more"),
        (mechanism.max_tokens >= 1, "mechanism.max_tokens", "must be at least 1"),
        (above_0(mechanism.temperatures), "mechanism.temperatures", "must hold numbers above 0"),
        (mechanism.top_k >= 0, "mechanism.top_k", "must be 0 (off) or more"),
        (0 < mechanism.top_p <= 1, "mechanism.top_p", "must be in (0, 1]"),
        (mechanism.fork_entropy >= 0, "mechanism.fork_entropy", "must be 0 nats or more"),
        (
            "mechanism" not in stages or config.sampling.temperature >= 1e-5,
            "sampling.temperature",
            "must be above 0 in stage mechanism: greedy draws have no law to take apart",
        ),
        (0 < toy.top_p <= 1, "toy.top_p", "must be in (0, 1]"),
        (
            above_0(toy.top_ps) and max(toy.top_ps) <= 1,
            "toy.top_ps",
            "must hold numbers in (0, 1]",
        ),
        (toy.temperatures >= 2, "toy.temperatures", "must be at least 2"),
        (0 < toy.lowest < toy.highest, "toy.lowest", f"must be in (0, toy.highest={toy.highest})"),
    )
    return [f"{name}={read_field(config, name)!r} {must}." for ok, name, must in rules if not ok]


def survival_errors(config: Config) -> list[str]:
    """The rules of section survival."""
    errors = []
    for name, value in vars(config.survival).items():
        least = {"grace": 5, "heartbeat": 10, "stragglers_every": 1}.get(name, 0)
        if value < least:
            must = f"must be at least {least}" if least else "must be 0 (no limit) or more"
            errors.append(f"survival.{name}={value!r} {must}.")
    return errors
