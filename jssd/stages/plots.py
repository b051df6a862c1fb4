"""The figures of the report, each drawn from plain numbers."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jssd.stages.findings import Cell
from jssd.stages.ink import Ink, plot
from jssd.stages.run_files import MODELS, RunFiles


@plot
def lengths(ink: Ink, runs: Sequence[RunFiles]) -> Figure:
    """Completion lengths in tokens, drawn and kept for training, summed over `runs`."""
    drawn, kept = _histogram(runs, "samples"), _histogram(runs, "data")
    bins = sorted({*drawn, *kept})
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.subplots()
    at = range(len(bins))
    axes.bar(at, [drawn.get(b, 0) for b in bins], 0.8, color=ink.pale, label="drawn")
    if kept:
        axes.bar(at, [kept.get(b, 0) for b in bins], 0.5, color=ink.strong, label="trained on")
    names = [f"{low}" if low == high else f"{low}–{high}" for low, high in bins]
    axes.set_xticks(list(at), names, rotation=30 if len(bins) > 8 else 0)
    axes.set(xlabel="tokens of a completion (bins by powers of two)", ylabel="completions")
    axes.yaxis.grid(True)
    axes.legend()
    return figure


@plot
def training(ink: Ink, runs: Sequence[RunFiles]) -> Figure:
    """Loss and KeptMass by step, one line for each of `runs`."""
    figure = Figure(figsize=(9.4, 3.0), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {
        "loss": "Loss, nats per response token",
        "kept_mass": "KeptMass, share of probability",
    }
    for axes, (key, title) in zip(panels, titles.items()):
        for index, run in enumerate(runs):
            points = [(row["step"], row[key]) for row in run.steps if row.get(key) is not None]
            if points:
                color = ink.step(index, len(runs)) if len(runs) > 1 else ink.strong
                marker = "o" if len(points) < 3 else None
                axes.plot(*zip(*points), color=color, lw=1.3, marker=marker, label=run.name)
        if not axes.lines:
            axes.text(
                0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=ink.soft
            )
        axes.set(title=title, xlabel="step")
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True)
        if len(runs) > 1 and axes.lines:
            axes.legend()
    return figure


@plot
def pass_at(ink: Ink, cells: Sequence[Cell]) -> Figure:
    """pass@k of one benchmark: a dot and its interval by decoding, a panel for each k.

    With several seeds the small marks are the seeds.
    """
    ks = sorted({k for cell in cells for k in cell.pass_at})
    decodes = list(dict.fromkeys(cell.decode["name"] for cell in cells))
    width = 7.4 if len(ks) == 1 else min(4.8 * len(ks), 12.5)
    figure = Figure(figsize=(width, 1.25 + 0.52 * len(decodes)), layout="constrained")
    panels = figure.subplots(1, len(ks), sharey=True, squeeze=False)[0]
    for axes, k in zip(panels, ks):
        for model, offset in zip(MODELS, (-0.14, 0.14)):
            mine = [cell for cell in cells if cell.model == model and k in cell.pass_at]
            if not mine:
                continue
            rows = [decodes.index(cell.decode["name"]) + offset for cell in mine]
            means = [cell.pass_at[k].over_all for cell in mine]
            spans = [
                [100 * (e.value - e.low) for e in means],
                [100 * (e.high - e.value) for e in means],
            ]
            axes.errorbar(
                [100 * e.value for e in means], rows, xerr=spans,
                fmt="o" if model == "base" else "D", ms=6 if model == "base" else 5.5,
                lw=1.8, capsize=0, color=ink.models[model], label=model,
            )  # fmt: skip
            for cell, row in zip(mine, rows):
                values = [100 * e.value for e in cell.pass_at[k].by_seed.values()]
                if len(values) > 1:
                    axes.plot(
                        values, [row + 0.13] * len(values), "|", ms=6, color=ink.models[model]
                    )
        axes.set(title=f"pass@{k}", xlabel="percent")
        axes.set_yticks(range(len(decodes)), decodes)
        axes.set_ylim(len(decodes) - 0.5, -0.5)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -1), min(high, 101))
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(decodes)):
            axes.axhline(row - 0.5, color=ink.line, lw=0.8, zorder=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


@plot
def panels(ink: Ink, found: dict[str, Any]) -> Figure:
    """Panels a to d of the paper's measurements (section 5.5), of `analysis.panels.summarise`."""
    figure = Figure(figsize=(9.4, 6.4), layout=ConstrainedLayoutEngine(hspace=0.06))
    (ranks, supports), (entropies, matched) = figure.subplots(2, 2)
    temperatures, groups = found["temperatures"], found["by_top_mass"]
    middle = len(temperatures) // 2
    for model, color in ink.models.items():
        style: Any = {"color": color, "lw": 1.5, "label": model}
        marked = style | {"marker": "o" if model == "base" else "D", "ms": 4.5}
        curve = found["mass_by_rank"][model]
        ranks.plot(range(1, len(curve) + 1), [max(1 - mass, 1e-7) for mass in curve], **style)
        supports.plot(temperatures, found["supports"][model], **marked)
        entropies.plot(temperatures, found["entropies"][model], **marked)
        held = [
            (i, row["entropies"][middle]) for i, row in enumerate(groups[model]) if row["tokens"]
        ]
        matched.plot(*zip(*held), **marked)
    ranks.set(yscale="log", title="a. Mass of the likeliest tokens, cumulative", xlabel="rank")
    ranks.invert_yaxis()
    beyond = [10.0**-nines for nines in range(1, 7)]
    ranks.set_yticks(beyond, [f"{100 * (1 - mass):g} %" for mass in beyond])
    ranks.minorticks_off()
    supports.set(title="b. Tokens that survive truncation, mean", xlabel="evaluation temperature")
    entropies.set(title="c. Entropy after truncation, nats", xlabel="evaluation temperature")
    edges = [row["from"] for row in groups["base"]]
    names = [f"≥ {100 * edge:g}" for edge in edges[:-1]] + ["below"]
    matched.set_xticks(range(len(names)), names)
    matched.set_xlim(-0.4, len(names) - 0.6)
    matched.set(
        title=f"d. The same at T {temperatures[middle]:g}, by mass in the top 20",
        xlabel="mass in the model's own 20 likeliest tokens, percent",
    )
    for axes in (ranks, supports, entropies, matched):
        axes.grid(True)
        axes.legend()
    return figure


@plot
def loss_parts(ink: Ink, kinds: dict[str, Any]) -> Figure:
    """The loss taken apart, before training and after, for all tokens, locks and forks."""
    figure = Figure(figsize=(9.4, 2.9), layout="constrained")
    parts = {
        "compression": "support compression",
        "reshaping": "within-support reshaping",
        "alignment": "alignment",
    }
    for axes, (part, title) in zip(figure.subplots(1, 3, sharey=True), parts.items()):
        for (model, color), shift in zip(ink.models.items(), (-0.19, 0.19)):
            at = [i + shift for i in range(len(kinds))]
            values = [kind[model]["loss"][part] for kind in kinds.values()]
            axes.bar(at, values, 0.36, color=color, label=model)
        axes.set_xticks(range(len(kinds)), list(kinds))
        axes.set_title(f"{title}, nats")
        axes.yaxis.grid(True)
    axes.legend()
    return figure


@plot
def toy(ink: Ink, found: dict[str, Any]) -> Figure:
    """The toy: the chance to pass by temperature, and the student's gain by evaluation top_p."""
    figure = Figure(figsize=(9.4, 3.2), layout="constrained")
    curve, gap = figure.subplots(1, 2, width_ratios=(3, 2))
    for (name, row), color in zip(found["curves"].items(), ink.models.values()):
        percents = [100 * value for value in row["success"]]
        at, success = row["best"]["temperature"], 100 * row["best"]["success"]
        told = f"{name}, best {success:.1f} at T {at:.2f}"  # Beside the dot, curves would cross it.
        curve.plot(row["temperatures"], percents, color=color, lw=1.5, label=told)
        curve.plot(at, success, "o", color=color, ms=5)
    curve.set(title=f"Chance to pass, percent, at top-p {found['top_p']:g}", xlabel="temperature")
    curve.set_ylim(0, 1.2 * max(curve.get_ylim()))
    curve.legend(loc="upper left")
    names = [f"{row['top_p']:.2f}" for row in found["gaps"]]
    gap.bar(names, [100 * row["gap"] for row in found["gaps"]], 0.6, color=ink.strong)
    gap.set(title="Best student minus best teacher, points", xlabel="top-p of evaluation")
    for axes in (curve, gap):
        axes.yaxis.grid(True)
    return figure


@plot
def toy_laws(ink: Ink, drawn: dict[str, dict[str, Any]]) -> Figure:
    """A lock and a fork of the toy before self-distillation and after: likelihoods by rank.

    `drawn` has a row of pictures by title: laws by model and state.
    """
    figure = Figure(figsize=(9.4, 2.5 * len(drawn)), layout="constrained")
    grid = figure.subplots(len(drawn), 2, sharex=True, sharey="col", squeeze=False)
    for line, (title, laws) in zip(grid, drawn.items()):
        for axes, state in zip(line, ("lock", "fork")):
            for (model, law), color, shift in zip(laws.items(), ink.models.values(), (-0.2, 0.2)):
                percents = sorted((100 * p for p in law[state]), reverse=True)
                ranks = [rank + shift for rank in range(1, len(percents) + 1)]
                axes.bar(ranks, percents, 0.38, color=color, label=model)
            axes.set_title(f"A {state}, {title}")
            axes.yaxis.grid(True)
            axes.set_xlim(0.4, 12.6)  # The rest of the tail is below what can be seen.
            axes.set_xticks(range(1, 13))
        line[0].set_ylabel("percent")
    grid[0][0].legend()
    for axes in grid[-1]:
        axes.set_xlabel("rank of the token, likeliest first")
    return figure


def _histogram(runs: Sequence[RunFiles], part: str) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for run in runs:
        tree = getattr(run, part)
        for row in tree["samples"]["tokens"]["histogram"] if tree else []:
            span = (row["from"], row["to"])
            counts[span] = counts.get(span, 0) + row["count"]
    return counts
