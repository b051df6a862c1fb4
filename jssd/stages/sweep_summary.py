"""What a sweep found: every cell with its interval, best cells never bare, the use of T_eff."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jssd.evals import passk, selection
from jssd.sampling.request import Sampling
from jssd.stages import context, evaluate, grids, predict
from jssd.stages.context import Run

MIN_TEFF = 4  # Distinct values of T_eff that a quadratic is fitted to: one more than it has knobs.


def sum_up(run: Run) -> dict[str, Any]:
    """All of `sweep/summary.json`, from the scores and predictions on disk.

    `cells` holds each cell's settings, T_eff and pass@k. `best` holds, by benchmark and k, the best
    cell of the base and of the students (`selection.Best`; the baseline is the base at its own
    decoding, where the grid has it). `tuned` compares student and base when both choose their cell
    on one half of the problems and are scored on the other. `teff` are quadratics in T_eff.
    """
    rows, loaded = [], {}
    for model in grids.models(run.config):
        for cell in grids.cells(run.config, model):
            scores = context.read_json(cell.place(run.workdir) / "scores.json")
            row = _row(cell, scores)
            rows.append(row)
            loaded[id(row)] = scores
    predicted = [row for model in grids.models(run.config) for row in predict.read(run, model)]
    found: dict[str, Any] = {
        "cells": rows,
        "best": [],
        "tuned": [],
        "teff": _teff(rows),
        "predictions": _beside_measured(predicted, rows),
    }
    own = _own_law(run)
    for benchmark in run.config.evaluate.benchmarks:
        for k in sorted({1, *run.config.evaluate.ks}):
            mine = [r for r in rows if r["benchmark"] == benchmark and str(k) in r["pass_at"]]
            grid = {r["name"]: evaluate.per_problem(loaded[id(r)], k) for r in mine}
            _choose(found, run, benchmark, k, mine, grid, own)
    return found


def fit_teff(
    teff: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """Least-squares quadratic of a score in T_eff: its R^2, and `peak`, the T_eff of its maximum.

    `peak` is nan where the curve has no maximum. The paper does so in section 3.4.
    """
    x, y = np.asarray(teff, np.float64), np.asarray(values, np.float64)
    curve = np.polynomial.Polynomial.fit(x, y, 2).convert()
    low, slope, bend = (*curve.coef, 0.0, 0.0)[:3]
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - curve(x)) ** 2).sum())
    return {
        "constant": float(low),
        "linear": float(slope),
        "quadratic": float(bend),
        "r2": 1 - left / spread if spread > 0 else 0.0,
        "peak": float(-slope / (2 * bend)) if bend < 0 else float("nan"),
    }


def lines(summary: dict[str, Any]) -> list[str]:
    """The findings for the console."""
    told = []
    for row in summary["best"]:
        held, band = row["held_out"], row["simultaneous"]
        text = (
            f"{row['benchmark']} pass@{row['k']}: best {row['of']} of {row['among']} cells "
            f"{row['name']}: {_span(band, row['bare'])} allowing for the choice; held out "
            f"{_span(held, held['value'])}"
        )
        if row["p_value"] is not None:
            text += f"; against the base at its own decoding p = {row['p_value']:.3g}, adjusted"
        told.append(text)
    for row in summary["tuned"]:
        gap = row["difference"]
        told.append(
            f"{row['benchmark']} pass@{row['k']}: student minus base, both tuned on the other "
            f"half: {_span(gap, gap['value'], '+')}, p = {gap['p_value']:.3g}: {row['verdict']}"
        )
    for row in summary["teff"]:
        peak = f"peak at {row['peak']:.2f}" if row["peak"] is not None else "no maximum"
        told.append(
            f"{row['benchmark']} pass@{row['k']} as a quadratic in T_eff, trained at "
            f"{row['train_cut'] or 'no truncation'}, decoded at {row['eval_cut'] or 'none'}, step "
            f"{row['step']}: R^2 {row['r2']:.2f}, {peak}"
        )
    checks = [row for row in summary["predictions"] if row["measured"] is not None]
    for trusted in (True, False):
        errors = [
            abs(row["pass_at_1"]["value"] - row["measured"]["value"])
            for row in checks
            if row["trusted"] is trusted
        ]
        if errors:
            name = "trusted" if trusted else "untrusted"
            told.append(
                f"{name} predictions of decoded cells from the others: off by "
                f"{100 * np.mean(errors):.1f} points on average, {100 * max(errors):.1f} at most, "
                f"of {len(errors)}"
            )
    return told


def _row(cell: grids.Cell, scores: dict) -> dict[str, Any]:
    kept = ("n", "problems", "pass_at", "verdicts", "mean_tokens", "truncated")
    trained_at = cell.model.trained_at
    return {
        "benchmark": cell.benchmark,
        "model": cell.model.name,
        "trained_at": trained_at and dataclasses.asdict(trained_at),
        "train_cut": grids.cut_of(trained_at) if trained_at else None,
        "step": cell.model.step,
        "law": dataclasses.asdict(cell.law),
        "eval_cut": grids.cut_of(cell.law),
        "name": f"{cell.model.name} at {grids.label(cell.law)}",
        "teff": cell.teff,
        **{name: scores[name] for name in kept},
    }


def _own_law(run: Run) -> dict | None:
    """The law of the base's own decoding, if the config names one."""
    config = run.config.evaluate
    for law in config.decodes:
        if law.name == config.base_decode:
            own = Sampling(float(law.temperature), law.top_k, law.top_p, law.min_p)
            return dataclasses.asdict(own)
    return None


def _choose(
    found: dict, run: Run, benchmark: str, k: int, mine: list[dict], grid: dict, own: dict | None
) -> None:
    """Adds the best cells of one benchmark and k, and the comparison of tuned with tuned."""
    how = {"resamples": run.config.evaluate.bootstrap, "seed": run.config.evaluate.seed}
    values = lambda part: np.array([grid[row["name"]] for row in part])
    parts = {
        "base": [row for row in mine if row["trained_at"] is None],
        "students": [row for row in mine if row["trained_at"] is not None],
    }
    if any(row["problems"] < 2 for row in mine):
        return
    baseline = [row for row in parts["base"] if row["law"] == own]
    for of, part in parts.items():
        if part:
            best = selection.best(values(part), values(baseline)[0] if baseline else None, **how)
            at = part[best.cell]
            found["best"].append(
                {
                    "benchmark": benchmark,
                    "k": k,
                    "of": of,
                    "among": len(part),
                    "name": at["name"],
                    **dataclasses.asdict(best),
                    "choices": [part[index]["name"] for index in best.choices],
                    "baseline": baseline[0]["name"] if baseline else None,
                }
            )
    if parts["base"] and parts["students"]:
        fits = [
            selection.cross_fit(values(parts[of]), seed=how["seed"]) for of in ("students", "base")
        ]
        gap = passk.paired_difference(fits[0].values, fits[1].values, **how)
        found["tuned"].append(
            {
                "benchmark": benchmark,
                "k": k,
                "base": float(fits[1].values.mean()),
                "student": float(fits[0].values.mean()),
                "difference": dataclasses.asdict(gap),
                "verdict": gap.verdict,
            }
        )


def _teff(rows: list[dict]) -> list[dict]:
    """A quadratic for each benchmark, k, step and pair of truncations."""
    groups: dict[tuple, list[tuple[float, float]]] = {}
    for row in rows:
        if row["teff"] is not None:
            for k, estimate in row["pass_at"].items():
                key = (row["benchmark"], int(k), row["step"], row["train_cut"], row["eval_cut"])
                groups.setdefault(key, []).append((row["teff"], estimate["value"]))
    fits = []
    for key, points in groups.items():
        if len({round(teff, 6) for teff, _ in points}) >= MIN_TEFF:
            fit = fit_teff(*zip(*points))
            names = ("benchmark", "k", "step", "train_cut", "eval_cut")
            peak = fit["peak"] if np.isfinite(fit["peak"]) else None
            fits.append(dict(zip(names, key)) | fit | {"peak": peak, "cells": len(points)})
    return fits


def _beside_measured(predicted: list[dict], rows: list[dict]) -> list[dict]:
    """Each prediction with `measured`, pass@1 of its cell where that was decoded, else None."""
    measured = {
        (row["benchmark"], row["model"], tuple(row["law"].values())): row["pass_at"]["1"]
        for row in rows
    }
    return [
        row
        | {"measured": measured.get((row["benchmark"], row["model"], tuple(row["law"].values())))}
        for row in predicted
    ]


def _span(span: dict, value: float, sign: str = "") -> str:
    low, high = (format(100 * span[end], f"{sign}.1f") for end in ("low", "high"))
    return f"{format(100 * value, f'{sign}.1f')} [{low}, {high}]"
