"""Stage sweep: grids of T_train, T_eval and truncation, in one run that goes on where it stopped.

    sweep/students/<law>/                        a run of its own: samples, training
    sweep/cells/<benchmark>/<model>/<law>/       completions, verdicts and scores
    sweep/predictions/<model>.json               laws that were not decoded (`predict.py`)
    sweep/summary.json and *.png                 every cell, the best ones, heat-maps

Grids may grow: what is there is kept, what is new is drawn. Settings of a draw are traced and the
engine takes new weights of the same shapes, so all cells share one set of compiled programs, all
students' samples another, and all students' training a third.
"""

import dataclasses
from collections.abc import Iterator

import jax

from jssd.evals import sandbox, ways
from jssd.evals.benchmarks import catalogue
from jssd.evals.benchmarks.catalogue import Benchmark
from jssd.metrics import Writer
from jssd.sampling.score import Scorer
from jssd.stages import (
    context,
    drawing,
    evaluate,
    grids,
    heatmaps,
    pages,
    predict,
    sample,
    sft,
    students,
    sweep_summary,
)
from jssd.stages.context import Run
from jssd.weights.checkpoint import Checkpointer
from jssd.weights.fingerprint import fingerprint

_ALL = drawing.Share(0, 1)  # One process draws everything.


def run(run: Run) -> None:
    """Trains, draws, grades and predicts what is missing, then sums up.

    Raises:
      ValueError: no grid in the config, more than one process, or a folder begun with other
        settings.
    """
    if not run.config.sweep.eval_temperatures:
        raise ValueError(
            "sweep.eval_temperatures=() must hold what is swept. Set it, or leave stage sweep out."
        )
    if jax.process_count() > 1:
        raise ValueError("--stages=sweep runs on the devices of one process: start it alone.")
    folder, config = run.workdir / "sweep", run.config.evaluate
    _freeze(run)
    models = grids.models(run.config)
    found = {name: catalogue.find(name, config) for name in config.benchmarks}
    python = ways.this_interpreter(config.packages, catalogue.private(config))
    box = sandbox.open_sandbox(config.sandbox, python)
    with run.writer("sweep") as writer:
        writer.line(
            f"{len(models)} models x {len(grids.eval_laws(run.config))} laws x "
            f"{len(config.benchmarks)} benchmarks; sandbox: {box.describe()}"
        )
        for bench in found.values():
            writer.line(bench.told)
        todo = [model for model in models if _undrawn(run, model) or predict.wanted(run, model)]
        laws = {model.trained_at: None for model in todo if model.trained_at}
        _train([grids.student_run(run, law) for law in laws], writer)
        _decode(run, todo, found, box, writer)
        for model in models:  # Killed between drawing and grading.
            _grade(run, model, found, box, writer)
        summary = sweep_summary.sum_up(run)
        context.write_json(folder / "summary.json", summary)
        figures = {f"{name}.png": plot.light for name, plot in heatmaps.draw_all(summary)}
        pages.write(folder, figures)
        for path in folder.glob("*.png"):
            if path.name not in figures:
                path.unlink()  # Of a grid that was another.
        for line in sweep_summary.lines(summary):
            writer.line(line)


def _freeze(run: Run) -> None:
    """Refuses to go on with cells or students that other settings made; grids may differ."""
    settings = context.section(run.config, "model", "evaluate")
    for name in ("workers", "decodes", "base_decode", "student_decode"):
        del settings["evaluate"][name]
    settings["cache_dtype"] = run.config.engine.cache_dtype
    context.freeze_settings(run.workdir / "sweep", settings)
    for law in grids.train_laws(run.config):
        student = grids.student_run(run, law)
        settings = context.section(student.config, "model", "prompts", "sampling")
        settings |= context.trained(student.config)
        settings["cache_dtype"] = run.config.engine.cache_dtype
        context.freeze_settings(student.workdir, settings)


def _undrawn(run: Run, model: grids.Model) -> list[grids.Cell]:
    return [
        cell
        for cell in grids.cells(run.config, model)
        if not _ALL.is_drawn(cell.place(run.workdir))
    ]


def _train(students: list[Run], writer: Writer) -> None:
    """Samples for all first: the weights that draw are gone when training needs their room."""
    untrained = [student for student in students if not _is_trained(student)]
    if untrained:
        names = ", ".join(student.workdir.name for student in untrained)
        writer.line(f"samples and training of {len(untrained)} students: {names}")
    sample.run_all(untrained)
    sft.run_all(untrained)


def _is_trained(student: Run) -> bool:
    path = student.workdir / "checkpoints"
    if not path.exists():
        return False
    with Checkpointer(path, keep_last=student.config.train.keep_last) as saved:
        return saved.latest_step() == student.config.train.num_steps


def _decode(
    run: Run,
    todo: list[grids.Model],
    found: dict[str, Benchmark],
    box: sandbox.Sandbox,
    writer: Writer,
) -> None:
    """Draws, grades and predicts, one model's weights at a time."""
    if not todo:
        return
    config = run.config.evaluate
    tokenizer, dtype = run.tokenizer(), context.as_dtype(run.config.model.compute_dtype)
    asked = {name: evaluate.ask(bench, config.template, tokenizer) for name, bench in found.items()}
    longest = max(len(prompt.token_ids) for some in asked.values() for prompt in some)
    drawer: drawing.Drawer | None = None
    scorer: Scorer | None = None
    for model, cfg, params in _weights(run, todo):
        name = fingerprint(params, cfg.vocab_size)
        unstacked = context.for_decoding(params, cfg, run.mesh)
        if drawer is None:
            drawer = drawing.Drawer(
                unstacked, cfg, tokenizer, run.config.engine, fingerprint=name,
                longest=longest + config.max_new_tokens, dtype=dtype,
            )  # fmt: skip
        else:
            drawer.use(unstacked, name)
        del unstacked
        for cell in _undrawn(run, model):
            writer.line(f"drawing {cell.told}")
            drawer.draw(
                _ALL.part(cell.place(run.workdir)),
                _ALL.mine(asked[cell.benchmark]),
                cell.law,
                n=evaluate.num_samples(config, cell.law.temperature),
                max_new_tokens=config.max_new_tokens,
                seed=config.seed,
                writer=writer,
                keep_support=False,
            )
        _grade(run, model, found, box, writer)
        if predict.wanted(run, model):
            params = jax.device_put(params, jax.local_devices()[0])
            if scorer is None:
                scorer = Scorer(params, cfg, dtype=dtype)
            scorer.params = params
            predict.run(run, model, scorer, writer)
            scorer.params = {}
        del params  # The next model needs the room.


def _weights(run: Run, todo: list[grids.Model]) -> Iterator[tuple]:
    """(model, architecture, stacked weights) of each, in the dtype the base is decoded in."""
    with jax.set_mesh(run.mesh):
        cfg, params = run.load(run.base_folder())
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, params)
    for model in todo:
        if model.trained_at is None:
            yield model, cfg, params
            continue
        student = grids.student_run(run, model.trained_at)
        del params
        with (
            jax.set_mesh(run.mesh),
            Checkpointer(
                student.workdir / "checkpoints",
                keep_last=student.config.train.keep_last,
                vocab_size=cfg.vocab_size,
            ) as saved,
        ):
            params = students.load(student, cfg, saved, model.step)
            params = jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), params, dtypes)
        yield model, cfg, params


def _grade(
    run: Run, model: grids.Model, found: dict[str, Benchmark], box: sandbox.Sandbox, writer: Writer
) -> None:
    for cell in grids.cells(run.config, model):
        trained_at = model.trained_at
        about = {
            "benchmark": cell.benchmark,
            "decode": {"name": grids.label(cell.law), **dataclasses.asdict(cell.law)},
            "model": model.name,
            "trained_at": trained_at and dataclasses.asdict(trained_at),
            "step": model.step,
        }
        evaluate.grade(
            run.config.evaluate, cell.place(run.workdir), about, cell.told,
            found[cell.benchmark], box, writer,
        )  # fmt: skip
