"""Stage sample: draws one answer per prompt from the frozen model into `samples/`."""

import pathlib
from collections.abc import Sequence

import jax

from jssd import processes
from jssd.data import filters, prompts, samples
from jssd.data.tokenizer import Tokenizer
from jssd.evals import benchmarks
from jssd.metrics import Writer
from jssd.sampling.request import Sampling
from jssd.stages import context, drawing
from jssd.stages.context import Run
from jssd.weights.fingerprint import fingerprint


def run(run: Run) -> None:
    """Draws what is missing, then writes `samples/manifest.json`: counts, settings, weights' name,
    histograms and checksums. Returns at once when it is there. A shard only draws."""
    run_all([run])


def run_all(runs: Sequence[Run]) -> None:
    """Stage sample of runs that differ in nothing but the law: one set of weights and of compiled
    programs draws for them all."""
    drawer = None
    for run in runs:
        drawer = _run(run, drawer)


def _run(run: Run, drawer: drawing.Drawer | None) -> drawing.Drawer | None:
    """Draws with `drawer`, or with one that is made if it is needed. Returns what there is then."""
    config, folder = run.config, run.workdir / "samples"
    settings = context.section(config, "model", "prompts", "sampling")
    settings["cache_dtype"] = config.engine.cache_dtype  # It changes what is drawn from.
    context.freeze_settings(folder, settings)
    if (folder / samples.MANIFEST).exists():
        return drawer
    share = drawing.share(run, folder, [folder])
    with run.writer("samples") as writer:
        tokenizer = run.tokenizer()
        problems, counts = prompts.select(_problems(config.prompts), config.prompts)
        asked = prompts.build(problems, config.prompts, tokenizer)
        counts["prompts"] = len(asked)
        writer.line("prompts: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        if share.taken:
            writer.line(f"{folder}: drawn in {share.taken} shares, all there")
        else:
            drawer = drawer or _open(run, asked, tokenizer)
            _draw(run, drawer, share.part(folder), share.mine(asked), writer)
        if config.shard:
            return drawer
        processes.wait_for_all("all hosts have drawn their samples")
        drawn = samples.read_folder(folder)
        stats = filters.stats(drawn)
        writer.line(filters.describe(stats))
        manifest = {
            "settings": settings,
            "fingerprint": _fingerprint(folder, drawn),
            "prompts": counts,
            "samples": stats,
            "parts": samples.list_parts(folder),
        }
        context.write_json(folder / samples.MANIFEST, manifest)
    processes.wait_for_all("the manifest of the samples is written")
    return drawer


def _open(run: Run, asked: Sequence[prompts.Prompt], tokenizer: Tokenizer) -> drawing.Drawer:
    config = run.config
    longest = max(len(prompt.token_ids) for prompt in asked) + config.sampling.max_new_tokens
    with jax.set_mesh(run.mesh):
        cfg, params = run.load(run.base_folder())
        name = fingerprint(params, cfg.vocab_size)
    return drawing.Drawer(
        context.for_decoding(params, cfg, run.mesh), cfg, tokenizer, config.engine,
        fingerprint=name, longest=longest, dtype=context.as_dtype(config.model.compute_dtype),
    )  # fmt: skip


def _draw(
    run: Run,
    drawer: drawing.Drawer,
    path: pathlib.Path,
    asked: Sequence[prompts.Prompt],
    writer: Writer,
) -> None:
    law = run.config.sampling
    drawer.draw(
        path,
        asked,
        Sampling(law.temperature, law.top_k, law.top_p, law.min_p),
        n=law.n,
        max_new_tokens=law.max_new_tokens,
        seed=law.seed,
        writer=writer,
    )


def _fingerprint(folder: pathlib.Path, drawn: list[samples.Sample]) -> str:
    """The name of the weights that all samples were drawn from."""
    names = sorted({sample.fingerprint for sample in drawn})
    if len(names) > 1:
        raise ValueError(
            f"{folder} holds samples of {len(names)} models ({', '.join(names)}). Use a fresh "
            "--workdir."
        )
    return names[0]


def _problems(config) -> list[prompts.Problem]:
    """The problems of `config.source`; "tasks:SPLIT" is a benchmark of our own."""
    name, _, split = config.source.partition(":")
    if name not in benchmarks.SPLITS:
        return prompts.read(config)
    return to_problems(benchmarks.load(name, split))


def to_problems(tasks: list[benchmarks.Task]) -> list[prompts.Problem]:
    """Benchmark tasks as problems to ask, their tests left behind."""
    return [prompts.Problem(task.id, task.statement, task.starter_code) for task in tasks]
