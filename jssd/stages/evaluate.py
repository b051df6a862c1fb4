"""Stage evaluate: pass@k of base and student at each decoding, and their differences: `eval/`."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from jssd import phases, places, processes
from jssd.config import DecodeConfig, EvalConfig, PromptsConfig
from jssd.data import prompts, samples, templates
from jssd.data.tokenizer import Tokenizer
from jssd.evals import exchange, grading, passk, sandbox, ways
from jssd.evals.benchmarks import Task, catalogue
from jssd.evals.benchmarks.catalogue import Benchmark
from jssd.metrics import Writer
from jssd.sampling.request import Sampling
from jssd.stages import context, drawing, verdicts
from jssd.stages.context import Run
from jssd.stages.sample import to_problems
from jssd.weights.fingerprint import fingerprint

MODELS = ("base", "student")


def check(run: Run) -> None:
    """Raises FileNotFoundError or ValueError when what the evaluation reads is not there: asked
    before the first stage, so that hours of sampling do not end in it."""
    if not (run.workdir / "eval" / "comparisons.json").exists():
        catalogue.check(run.config.evaluate)
        ways.this_interpreter(run.config.evaluate.packages, catalogue.private(run.config.evaluate))


def run(run: Run) -> None:
    """Draws, grades and scores what is missing, then compares. A shard only draws.

    All processes draw; the first one grades, on its host's CPUs, while the others wait.
    """
    config = run.config.evaluate
    settings = context.section(run.config, "model", "evaluate")
    del settings["evaluate"]["workers"]  # Changes no verdict.
    settings["cache_dtype"] = run.config.engine.cache_dtype  # Changes what is drawn from.
    context.freeze_settings(run.workdir / "eval", settings)
    if (run.workdir / "eval" / "comparisons.json").exists():
        return
    folders = [cell(run.workdir, name, law.name, model) for model, name, law in _cells(config)]
    share = drawing.share(run, run.workdir / "eval", folders)
    # Before anyone draws: they load a model together if any of them has to draw from it.
    todo = [model for model in MODELS if not _is_drawn_by_all(run, share, model)]
    processes.wait_for_all("all hosts have seen what is to be drawn")
    # Before hours of drawing, which a missing sandbox would make vain.
    python = ways.this_interpreter(config.packages, catalogue.private(config))
    box = sandbox.open_sandbox(config.sandbox, python)
    found = {name: catalogue.find(name, config) for name in config.benchmarks}
    with run.writer("eval") as writer:
        writer.line(f"sandbox: {box.describe()}")
        for bench in found.values():
            writer.line(bench.told)
        for model in todo:
            _draw(run, share, model, found, writer)
        if run.config.shard:
            return
        processes.wait_for_all("all hosts have drawn their completions")
        if jax.process_index() == 0:
            _grade(run, found, box, writer)
    processes.wait_for_all("the completions are graded")


def _is_drawn_by_all(run: Run, share: drawing.Share, model: str) -> bool:
    folders = [
        cell(run.workdir, name, law.name, model)
        for who, name, law in _cells(run.config.evaluate)
        if who == model
    ]
    return all(share.is_drawn_by_all(folder) for folder in folders)


def _grade(run: Run, found: dict[str, Benchmark], box: sandbox.Sandbox, writer: Writer) -> None:
    """Verdicts and scores of all cells, and comparisons.json."""
    config = run.config.evaluate
    for model, name, law in _cells(config):
        about = {"benchmark": name, "decode": dataclasses.asdict(law), "model": model}
        told, place = f"{model} on {name} at {law.name}", cell(run.workdir, name, law.name, model)
        grade(config, place, about, told, found[name], box, writer)
    rows = _compare(run)
    writer.summary(
        {
            f"{row['benchmark']}/{row['kind']}/{row['student_decode']}-{row['base_decode']}"
            f"/pass_at_{row['k']}/{name}": row["difference"][name]
            for row in rows
            for name in ("value", "low", "high")
        }
    )
    context.write_json(run.workdir / "eval" / "comparisons.json", rows)


def cell(workdir: pathlib.Path, benchmark: str, decode: str, model: str) -> pathlib.Path:
    """The folder of one model's completions for one benchmark at one decoding."""
    return workdir / "eval" / benchmark / decode / model


def _cells(config: EvalConfig) -> list[tuple[str, str, DecodeConfig]]:
    return [
        (model, name, law)
        for model in MODELS
        for name in config.benchmarks
        for law in config.decodes
        if model in law.models
    ]


def num_samples(config: EvalConfig, temperature: float) -> int:
    """Completions per problem. Greedy draws are all alike: one is enough."""
    return config.n if temperature > 0 else 1


def ask(bench: Benchmark, template: str, tokenizer: Tokenizer) -> list[prompts.Prompt]:
    """The prompts of a benchmark. A layout's words ask for a program: a task that wants a number
    or a call brings all of its words, and goes through the plain layout of the same kind."""
    if any(task.answer_rule for task in bench.tasks):
        template = "user" if templates.get(template).chat else "raw"
    return prompts.build(to_problems(bench.tasks), PromptsConfig(template=template), tokenizer)


def _draw(
    run: Run, share: drawing.Share, model: str, found: dict[str, Benchmark], writer: Writer
) -> None:
    config = run.config.evaluate
    open_cells = [
        (cell(run.workdir, name, law.name, model), name, law)
        for who, name, law in _cells(config)
        if who == model and not share.is_drawn(cell(run.workdir, name, law.name, model))
    ]  # Perhaps none, where another process has some: it needs this one to load the weights.
    if model == "student" and not places.is_whole(run.workdir / "export"):
        raise FileNotFoundError(
            f"{run.workdir / 'export'} does not exist. Run stages sft and export before evaluate."
        )
    folder = run.base_folder() if model == "base" else run.student_folder()
    tokenizer = run.tokenizer()
    asked = {name: ask(bench, config.template, tokenizer) for name, bench in found.items()}
    longest = max(len(prompt.token_ids) for some in asked.values() for prompt in some)
    with jax.set_mesh(run.mesh):
        cfg, params = run.load(folder)
        name_of_weights = fingerprint(params, cfg.vocab_size)
    drawer = drawing.Drawer(
        context.for_decoding(params, cfg, run.mesh), cfg, tokenizer, run.config.engine,
        fingerprint=name_of_weights, longest=longest + config.max_new_tokens,
        dtype=context.as_dtype(run.config.model.compute_dtype),
    )  # fmt: skip
    for place, name, law in open_cells:
        writer.line(f"{model} on {name} at {law.name}")
        drawer.draw(
            share.part(place),
            share.mine(asked[name]),
            Sampling(law.temperature, law.top_k, law.top_p, law.min_p),
            n=num_samples(config, law.temperature),
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            writer=writer,
            keep_support=False,
        )


def grade(
    config: EvalConfig,
    place: pathlib.Path,
    about: dict,
    told: str,
    bench: Benchmark,
    box: sandbox.Sandbox,
    writer: Writer,
) -> None:
    """Grades the samples in folder `place` and scores them, if that is not done: completions.jsonl
    and scores.json there. `about` goes into the scores, `told` names the cell to people."""
    if (place / "scores.json").exists():
        return
    # In one order, whoever drew them: a process writes its own part.
    drawn = sorted(samples.read_folder(place), key=lambda record: (record.prompt_id, record.sample))
    by_id = {task.id: task for task in bench.tasks}
    asked = [by_id[record.prompt_id] for record in drawn]
    programs = [
        grading.read_answer(task, record.text, bench.protocol) for task, record in zip(asked, drawn)
    ]
    kept = verdicts.Kept(place / "verdicts.jsonl", drawn, dataclasses.asdict(bench.protocol))
    with phases.phase("grade"), writer.progress(len(drawn), f"grade {told}") as advance:
        grades = kept.grade(
            asked,
            programs,
            protocol=bench.protocol,
            sandbox=box,
            workers=config.workers,
            memory_mb=config.memory_mb,
            advance=advance,
        )
    rows = [
        {
            "task_id": record.prompt_id,
            "group": task.group,
            "sample": record.sample,
            "verdict": grade.verdict,
            "detail": grade.detail,
            "finish_reason": record.finish_reason,
            "num_tokens": len(record.token_ids),
            "text": record.text,
        }
        for task, record, grade in zip(asked, drawn, grades)
    ]
    _export(place, asked, programs)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    context.write_text(place / "completions.jsonl", lines)
    scores = _scores(rows, config) | {
        **about,
        "told": bench.told,
        "protocol": dataclasses.asdict(bench.protocol),
        "sandbox": box.describe(),
        "fingerprint": drawn[0].fingerprint,
    }
    name = f"{about['benchmark']}/{about['model']}/{about['decode']['name']}"
    writer.summary(
        {
            f"{name}/pass_at_{k}/{part}": interval[part]
            for k, interval in scores["pass_at"].items()
            for part in ("value", "low", "high")
        }
    )
    context.write_json(place / "scores.json", scores)
    kept.drop()
    best = scores["pass_at"]["1"]
    writer.line(f"{told}: pass@1 {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}]")


def _export(place: pathlib.Path, tasks: list[Task], programs: list[str | None]) -> None:
    """The programs in the formats of others' graders, beside our verdicts."""
    if any(task.answer_rule for task in tasks):
        return
    pairs = [(task.id, program) for task, program in zip(tasks, programs)]
    context.write_text(place / "samples.jsonl", exchange.samples(pairs))
    context.write_text(place / "custom_outputs.json", exchange.custom_outputs(pairs))


def _scores(rows: list[dict], config: EvalConfig) -> dict:
    """pass@k over all problems, and over those of each group where there are several."""
    groups = sorted({row["group"] for row in rows})
    split = {
        group: _pass_at([row for row in rows if row["group"] == group], config)
        for group in groups
        if len(groups) > 1
    }
    return _pass_at(rows, config) | {"by_group": split}


def _pass_at(rows: list[dict], config: EvalConfig) -> dict:
    problems = sorted({row["task_id"] for row in rows})
    count = {problem: [0, 0] for problem in problems}
    verdicts: dict[str, int] = {}
    for row in rows:
        count[row["task_id"]][0] += 1
        count[row["task_id"]][1] += row["verdict"] == "passed"
        verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
    n, c = np.array([count[problem] for problem in problems]).T
    ks = [k for k in sorted({1, *config.ks}) if k <= n.min()]
    return {
        "n": int(n.min()),
        "problems": len(problems),
        "pass_at": {
            str(k): dataclasses.asdict(
                passk.mean_interval(
                    passk.pass_at_k(n, c, k), resamples=config.bootstrap, seed=config.seed
                )
            )
            for k in ks
        },
        "verdicts": verdicts,
        "mean_tokens": float(np.mean([row["num_tokens"] for row in rows])),
        "truncated": float(np.mean([row["finish_reason"] == "length" for row in rows])),
        "per_problem": [{"id": p, "n": int(a), "c": int(b)} for p, a, b in zip(problems, n, c)],
    }


def _compare(run: Run) -> list[dict]:
    """Student minus base by problem: at the same decoding, and each at its own."""
    config = run.config.evaluate
    pairs = [
        ("same", law.name, law.name) for law in config.decodes if set(MODELS) <= set(law.models)
    ]
    if config.base_decode:
        pairs.append(("own", config.base_decode, config.student_decode))
    rows = []
    for name in config.benchmarks:
        for kind, base_decode, student_decode in pairs:
            base = context.read_json(cell(run.workdir, name, base_decode, "base") / "scores.json")
            student = context.read_json(
                cell(run.workdir, name, student_decode, "student") / "scores.json"
            )
            for k in sorted(set(base["pass_at"]) & set(student["pass_at"]), key=int):
                gap = passk.paired_difference(
                    per_problem(student, int(k)), per_problem(base, int(k)),
                    resamples=config.bootstrap, seed=config.seed,
                )  # fmt: skip
                rows.append(
                    {
                        "benchmark": name,
                        "k": int(k),
                        "kind": kind,
                        "base_decode": base_decode,
                        "student_decode": student_decode,
                        "base": base["pass_at"][k],
                        "student": student["pass_at"][k],
                        "difference": dataclasses.asdict(gap),
                        "verdict": gap.verdict,
                    }
                )
    return rows


def per_problem(scores: dict, k: int) -> np.ndarray:
    """pass@k of each problem in scores.json, float64 [P], in the order of problem ids."""
    return passk.by_problem(scores["per_problem"], k)
