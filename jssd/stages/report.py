"""Stage report: what finished runs found, as one self-contained page with figures and a table."""

import collections
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jssd import goodput
from jssd.plan import table
from jssd.stages import (
    coloured,
    excerpts,
    findings,
    findings_sweep,
    groups,
    heatmaps,
    pages,
    plots,
    run_files,
)
from jssd.stages.findings import Cell, Gap
from jssd.stages.ink import Plot
from jssd.stages.pages import PAGE, interval, p_value, percent, points
from jssd.stages.run_files import RunFiles

NUM_SAMPLES = 24  # Training samples to read on the page.
NUM_COLOURED = 2  # Completions coloured token by token; the page of stage mechanism has more.
NUM_TASKS = 32  # Evaluated tasks to read, over all decodings.
# The curves' keys, each with what it says.
METRICS = {
    "loss": "loss, nats",
    "kept_mass": "KeptMass",
    "compression": "−log KeptMass, nats",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_s": "tokens/s",
    "seconds_per_step": "s/step",
}


def run(workdirs: list[pathlib.Path], folder: pathlib.Path) -> None:
    """Writes `folder/index.html` with its figures, and prints the results as a table.

    Args:
      workdirs: folders of finished runs. Several are seeds of one run; their results are pooled.
      folder: of the report. Built beside it; an older report stays whole until the new one is.

    Raises:
      FileNotFoundError: no work directory holds anything to report.
      ValueError: a broken file, or work directories that are not seeds of one run.
    """
    if jax.process_index() != 0:
        return
    runs, absent = run_files.read(workdirs, home=folder.parent)
    cells, gaps = findings.cells(runs), findings.gaps(runs)
    toy = run_files.read_toy(folder.parent)
    figures = _figures(runs, cells) | ({"toy.png": plots.toy(toy)} if toy else {})
    page = _page(runs, absent, cells, gaps, toy, figures, folder)
    pages.write(folder, {name: plot.light for name, plot in figures.items()} | {PAGE: page})
    for kind in ("pass_at-*", "sweep-*", "toy"):
        for old in folder.glob(f"{kind}.png"):
            if old.name not in figures:
                old.unlink()  # Of a benchmark, a grid or a toy that is no longer there.
    _print(runs, absent, cells, gaps)
    print(f"report: {folder / PAGE}", flush=True)


def _figures(runs: Sequence[RunFiles], cells: Sequence[Cell]) -> dict[str, Plot]:
    figures = {}
    if any(run.samples for run in runs):
        figures["lengths.png"] = plots.lengths(runs)
    if any(run.steps for run in runs):
        figures["training.png"] = plots.training(runs)
    for benchmark in _benchmarks(cells):
        mine = [cell for cell in cells if cell.benchmark == benchmark]
        figures[f"pass_at-{benchmark}.png"] = plots.pass_at(mine)
    for index, run in enumerate(runs):
        if run.mechanism:
            figures[f"mechanism-{index}.png"] = plots.panels(run.mechanism["panels"])
        if run.sweep:
            figures |= {
                f"{findings_sweep.prefix(index)}{name}.png": plot
                for name, plot in heatmaps.draw_all(run.sweep)
            }
    return figures


def _page(
    runs: Sequence[RunFiles],
    absent: Sequence[str],
    cells: Sequence[Cell],
    gaps: Sequence[Gap],
    toy: dict[str, Any] | None,
    figures: dict[str, Plot],
    folder: pathlib.Path,
) -> bytes:
    first_drawn = next((run for run in runs if run.samples), None)
    first_scored = next((run for run in runs if run.scores), None)
    return pages.render(
        "report.html.jinja",
        runs=runs,
        absent=absent,
        config=runs[0].config,
        benchmarks=_benchmarks(cells),
        cells=cells,
        gaps=gaps,
        conclusions=conclusions(gaps, len(runs)),
        missing=missing(runs, absent),
        figures={name: pages.embedded(plot) for name, plot in figures.items()},
        metrics=METRICS,
        sandboxes=findings.graded(s for run in runs for s in run.scores.values())["sandboxes"],
        fingerprints={
            model: _distinct(
                s["fingerprint"] for run in runs for p, s in run.scores.items() if p[2] == model
            )
            for model in run_files.MODELS
        },
        sampled=first_drawn and excerpts.training(first_drawn, NUM_SAMPLES),
        sampled_from=first_drawn,
        pairs=first_scored and excerpts.pairs(first_scored, NUM_TASKS),
        pairs_from=first_scored,
        goodput=goodput.read(run.workdir for run in runs),
        plan=run_files.read_plan(folder.parent),
        plan_table=table,
        toy=toy,
        groups=groups.rows(runs, cells, gaps),
        laws={(cell.benchmark, cell.decode["name"]): cell.decode for cell in cells},
        graded={
            name: findings.graded(
                scores for run in runs for p, scores in run.scores.items() if p[0] == name
            )
            for name in _benchmarks(cells)
        },
        sweeps=[
            findings_sweep.section(index, run, list(figures))
            for index, run in enumerate(runs)
            if run.sweep
        ],
        mechanisms=[
            {
                "name": run.name,
                "figure": f"mechanism-{index}.png",
                "sentences": coloured.sentences(run.mechanism),
                "page": os.path.relpath(run.workdir / "mechanism" / PAGE, folder),
                "settings": run.mechanism["settings"],
                "words": coloured.words(run.mechanism),
                "shown": run_files.read_coloured(run.workdir)[:NUM_COLOURED],
            }
            for index, run in enumerate(runs)
            if run.mechanism
        ],
    )


def missing(runs: Sequence[RunFiles], absent: Sequence[str]) -> list[str]:
    """One line for each stage that is not done everywhere."""
    several = len(runs) + len(absent) > 1
    lines = [f"not run: every stage of {name}" for name in absent]
    for run in runs:
        where = f" ({run.name})" if several else ""
        for stage, state in run.status.items():
            if state == "not run":
                lines.append(f"not run: {stage}{where}")
            elif state != "done":
                lines.append(f"not finished: {stage}{where}, {state}")
    return lines


def conclusions(gaps: Sequence[Gap], num_runs: int) -> list[str]:
    """What the comparisons say, in sentences: where the student stands, by benchmark and k."""
    lines = []
    linked = {"not distinguishable": "not distinguishable from the base"}
    for benchmark, k in dict.fromkeys((gap.benchmark, gap.k) for gap in gaps):
        mine = [gap for gap in gaps if (gap.benchmark, gap.k) == (benchmark, k)]
        same = [gap for gap in mine if gap.kind == "same"]
        parts = []
        for verdict in ("better", "worse", "not distinguishable"):
            names = [
                f"{gap.base_decode} ({points(gap.difference.value)})"
                for gap in same
                if gap.verdict == verdict
            ]
            told = linked.get(verdict, verdict)
            parts.append(f"{told} at {', '.join(names) if names else 'none'}")
        if same:
            stands = "; ".join(parts)
            lines.append(f"{benchmark}, pass@{k}, both at the same decoding: student {stands}.")
        for gap in (gap for gap in mine if gap.kind == "own"):
            lines.append(
                f"{benchmark}, pass@{k}, each at its own decoding (base {gap.base_decode}, student "
                f"{gap.student_decode}): student {linked.get(gap.verdict, gap.verdict)}, "
                f"{points(gap.difference.value)} points {interval(gap.difference, signed=True)}, "
                f"p {p_value(gap.difference.p_value)}."
            )
    if lines and num_runs == 1:
        lines.append("One seed: these verdicts are about this one student, not about the method.")
    return lines


def _benchmarks(cells: Sequence[Cell]) -> list[str]:
    return _distinct(cell.benchmark for cell in cells)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _print(
    runs: Sequence[RunFiles], absent: Sequence[str], cells: Sequence[Cell], gaps: Sequence[Gap]
) -> None:
    """The table on the terminal; plain aligned text where there is none."""
    if sys.stdout.isatty():
        console, box = Console(), rich.box.SIMPLE_HEAD
    else:
        console, box = Console(width=160, color_system=None), None
    for line in missing(runs, absent):
        console.print(Text(line))
    rows: list[tuple[str, ...]] = []
    if gaps:
        heads = (
            "benchmark",
            "pass@",
            "decoding",
            "base %",
            "student %",
            "points",
            "p",
            "student is",
        )
        for gap in gaps:
            own = f"own: {gap.base_decode} / {gap.student_decode}"
            rows.append((
                gap.benchmark, str(gap.k), gap.base_decode if gap.kind == "same" else own,
                f"{percent(gap.base.value)} {interval(gap.base)}",
                f"{percent(gap.student.value)} {interval(gap.student)}",
                f"{points(gap.difference.value)} {interval(gap.difference, signed=True)}",
                p_value(gap.difference.p_value), gap.verdict,
            ))  # fmt: skip
    elif cells:
        heads = ("benchmark", "pass@", "decoding", "model", "%")
        for cell in cells:
            for k, pooled in cell.pass_at.items():
                shown = f"{percent(pooled.over_all.value)} {interval(pooled.over_all)}"
                rows.append((cell.benchmark, str(k), cell.decode["name"], cell.model, shown))
    else:
        return
    table = Table(*heads, box=box, pad_edge=box is not None)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    agree = collections.Counter(gap.verdict for gap in gaps)
    if agree:
        console.print(Text(", ".join(f"{verdict}: {count}" for verdict, count in agree.items())))
