"""The figures of a sweep: heat-maps with lines of equal T_eff, curves of the base, T_eff alone."""

from collections.abc import Iterable, Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects, ticker
from matplotlib.figure import Figure

from jssd.stages.ink import Ink, Plot, plot

_WHOLE = "whole"  # In names of files and keys, for no truncation.


def draw_all(summary: dict[str, Any]) -> Iterator[tuple[str, Plot]]:
    """(file name without ending, plot) of every figure that `sweep/summary.json` has rows for."""
    cells = summary["cells"]
    for (benchmark, k), mine in _groups(_by_k(cells), "benchmark", "k"):
        start = f"{benchmark}-pass{k}"
        base = [row for row in mine if row["trained_at"] is None]
        students = [row for row in mine if row["trained_at"] is not None]
        if len({row["law"]["temperature"] for row in base}) > 1:
            near = [
                row
                for row in summary["predictions"]
                if k == 1 and row["benchmark"] == benchmark and row["model"] == "base"
            ]
            yield f"base-{start}", curves(base, near, f"{benchmark}, base: pass@{k}")
        for (cut, at, step), some in _groups(students, "train_cut", "eval_cut", "step"):
            told = f"trained with {cut or 'no truncation'}, decoded with {at or 'none'}"
            name = f"{start}-train-{cut or _WHOLE}-eval-{at or _WHOLE}-step{step}"
            rows = sorted({row["trained_at"]["temperature"] for row in some})
            if len(rows) > 1:
                get = lambda row: row["trained_at"]["temperature"]
                title = f"{benchmark}: pass@{k}, percent\n{told}, step {step}"
                yield f"heat-{name}", heat(some, rows, get, "T_train", title)
            for fit in summary["teff"]:
                keys = ("benchmark", "k", "train_cut", "eval_cut", "step")
                if tuple(fit[key] for key in keys) == (benchmark, k, cut, at, step):
                    yield f"teff-{name}", collapse(some, fit, f"{benchmark}: pass@{k}\n{told}")
        for (student, at), some in _groups(students, "student", "eval_cut"):
            steps = sorted({row["step"] for row in some})
            if len(steps) > 1:
                title = f"{benchmark}: pass@{k}, percent\n{student}, decoded with {at or 'none'}"
                name = f"steps-{start}-{student}-eval-{at or _WHOLE}"
                yield name, heat(some, steps, lambda row: row["step"], "step", title)


@plot
def heat(ink: Ink, cells: list[dict], rows: list, row_of, label: str, title: str) -> Figure:
    """pass@k by row and T_eval, figures in the cells. Rows of T_train get lines of equal T_eff."""
    columns = sorted({cell["law"]["temperature"] for cell in cells})
    values = np.full((len(rows), len(columns)), np.nan)
    for cell in cells:
        at = rows.index(row_of(cell)), columns.index(cell["law"]["temperature"])
        values[at] = 100 * cell["value"]
    size = (1.9 + 0.62 * len(columns), 1.7 + 0.42 * len(rows))
    figure = Figure(figsize=(max(size[0], 4.6), size[1]), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color, other = ("black", "#ffffff99") if value > middle else ("white", "#00000099")
            text = axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
            text.set(size=8, path_effects=_outlined(other), zorder=4)  # Over the lines.
    axes.set_xticks(range(len(columns)), [f"{t:g}" for t in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.set(xlabel="T_eval", ylabel=label, title=title)
    if label == "T_train" and len(columns) > 1:
        _teff_lines(axes, rows, columns)
    figure.colorbar(image, ax=axes, pad=0.02)
    return figure


def _teff_lines(axes, rows: list[float], columns: list[float]) -> None:
    """Lines of equal T_train x T_eval, between the centres of the cells."""
    fine = lambda ends: np.linspace(0, len(ends) - 1, 60)
    x, y = fine(columns), fine(rows)
    t_eval = np.interp(x, range(len(columns)), columns)
    t_train = np.interp(y, range(len(rows)), rows)
    teff = t_train[:, None] * t_eval
    levels = ticker.MaxNLocator(6).tick_values(teff.min(), teff.max())
    levels = [level for level in levels if teff.min() < level < teff.max()]
    if levels:
        drawn = axes.contour(x, y, teff, levels, colors="white", linewidths=1.1, linestyles="--")
        drawn.set_path_effects(_outlined("#00000066"))  # To be seen on bright cells too.
        places = [place for level in levels for place in _between(level, rows, columns)]
        for label in axes.clabel(drawn, fmt="T_eff %g", fontsize=7.5, manual=places):
            label.set_path_effects(_outlined("#000000cc", 1.5))


def _between(level: float, rows: list[float], columns: list[float]) -> list[tuple[float, float]]:
    """Where a line's label is farthest from the figures in the cells; none off the grid."""
    x = np.arange(len(columns) - 1) + 0.5
    t_train = level / np.interp(x, range(len(columns)), columns)
    x, t_train = (part[(rows[0] <= t_train) & (t_train <= rows[-1])] for part in (x, t_train))
    if x.size == 0:
        return []
    y = np.interp(t_train, rows, range(len(rows)))
    best = np.argmin(np.abs(y % 1 - 0.5))
    return [(float(x[best]), float(y[best]))]


def _outlined(color: str, width: float = 2.2) -> list[patheffects.AbstractPathEffect]:
    return [patheffects.withStroke(linewidth=width, foreground=color)]


@plot
def collapse(ink: Ink, cells: list[dict], fit: dict, title: str) -> Figure:
    """pass@k over T_eff, coloured by T_train, and the quadratic fitted to it."""
    figure = Figure(figsize=(4.8, 3.7), layout="constrained")  # Fits beside a small heat-map.
    axes = figure.subplots()
    groups = _groups(cells, "train_temperature")
    for index, ((t_train,), some) in enumerate(groups):
        color = ink.step(index, len(groups))
        x, estimates = [row["teff"] for row in some], [row["estimate"] for row in some]
        _dots(axes, x, estimates, fmt="o", color=color, label=f"T_train {t_train:g}")
    x = np.linspace(min(row["teff"] for row in cells), max(row["teff"] for row in cells), 100)
    curve = fit["constant"] + fit["linear"] * x + fit["quadratic"] * x**2
    axes.plot(x, 100 * curve, color=ink.text, lw=1.2, label=f"quadratic, R² {fit['r2']:.2f}")
    axes.set(title=title, xlabel="T_eff = T_train x T_eval", ylabel="percent")
    axes.grid(True)
    figure.legend(loc="outside lower center", ncols=3)  # Below intervals, not on them.
    return figure


@plot
def curves(ink: Ink, cells: list[dict], predicted: list[dict], title: str) -> Figure:
    """pass@k over T_eval with intervals, a line for each truncation; predictions are hollow."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    axes = figure.subplots()
    groups = _groups(cells, "eval_cut")
    for index, ((cut,), some) in enumerate(groups):
        color = ink.base if len(groups) == 1 else matplotlib.colormaps["tab10"](index)
        some = sorted(some, key=lambda row: row["law"]["temperature"])
        x = [row["law"]["temperature"] for row in some]
        _dots(axes, x, [row["estimate"] for row in some], fmt="o-", color=color,
              label=cut or "no truncation")  # fmt: skip
        mine = [row for row in predicted if _cut(row["law"]) == _cut(some[0]["law"])]
        for trusted, marker in ((True, "D"), (False, "x")):
            part = [row for row in mine if row["trusted"] is trusted]
            name = "predicted from the others" + ("" if trusted else ", not trusted")
            if part:
                _dots(axes, [row["law"]["temperature"] for row in part],
                      [row["pass_at_1"] for row in part], fmt=marker, color=color, mfc="none",
                      alpha=0.65, label=name)  # fmt: skip
    axes.set(title=title, xlabel="T_eval", ylabel="percent")
    axes.grid(True)
    figure.legend(loc="outside right upper")  # Beside intervals, not on them.
    return figure


def _dots(axes, x: list[float], estimates: list[dict], **style) -> None:
    value = np.array([100 * e["value"] for e in estimates])
    spans = [
        value - [100 * e["low"] for e in estimates],
        [100 * e["high"] for e in estimates] - value,
    ]
    axes.errorbar(x, value, yerr=np.maximum(spans, 0), ms=5, lw=1.2, elinewidth=0.9, **style)


def _cut(law: dict) -> tuple:
    return law["top_k"], law["top_p"], law["min_p"]


def _by_k(cells: Iterable[dict]) -> list[dict]:
    """One row for each cell and k, with what figures sort by at hand."""
    return [
        row
        | {
            "k": int(k),
            "estimate": estimate,
            "value": estimate["value"],
            "student": row["model"].partition("@")[0],
            "train_temperature": row["trained_at"] and row["trained_at"]["temperature"],
        }
        for row in cells
        for k, estimate in row["pass_at"].items()
    ]


def _groups(rows: Iterable[dict], *keys: str) -> list[tuple[tuple, list[dict]]]:
    """Rows by their values of `keys`, in the order of first appearance."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.items())
