"""What sweeps found, for the report: verdicts in words, errors of predictions, settings."""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

from jssd.evals.passk import Difference, Estimate
from jssd.stages import findings, pages
from jssd.stages.pages import interval, p_value, percent, points
from jssd.stages.run_files import RunFiles, read_json

# What the figures of `heatmaps.draw_all` show, by how their names begin.
FIGURES = {
    "base": "The base's pass@k by T_eval, with 95 % intervals; hollow marks and crosses: predicted",
    "heat": "The students' pass@k by T_train and T_eval; dashed lines join equal T_eff",
    "teff": "The students' pass@k by T_eff, with 95 % intervals and the fitted quadratic",
    "steps": "A student's pass@k by step of its training and T_eval",
}
_WHOLE = "no truncation"


def prefix(index: int) -> str:
    """How the figures of a run's sweep begin; `index` is its place among the runs."""
    return f"sweep-{index}-"


def sentences(summary: dict[str, Any]) -> list[str]:
    """The verdicts of `sweep/summary.json`: no best cell without what the choice did to it."""
    lines = []
    for row in summary["tuned"]:
        gap = Difference(**row["difference"])
        lines.append(
            f"{row['benchmark']}, pass@{row['k']}, base and student each tuned on one half of the "
            f"problems and scored on the other: student {_told(row['verdict'])}, "
            f"{points(gap.value)} points {interval(gap, signed=True)}, p {p_value(gap.p_value)}."
        )
    lines += [_best(row) for row in summary["best"]]
    if not lines:
        lines.append("Too few problems to say which cell is best: see every cell below.")
    for row in summary["teff"]:
        peak = f"highest at {row['peak']:.2f}" if row["peak"] is not None else "without a maximum"
        lines.append(
            f"{row['benchmark']}, pass@{row['k']}, trained with {row['train_cut'] or _WHOLE} "
            f"and decoded with {row['eval_cut'] or _WHOLE}, step {row['step']}: a quadratic "
            f"in T_eff explains {percent(row['r2'])} % of the spread of {row['cells']} cells, "
            f"{peak}."
        )
    lines += prediction_errors(summary["predictions"])
    return lines


def prediction_errors(predictions: Sequence[dict[str, Any]]) -> list[str]:
    """How far predictions of decoded cells were off; of cells not decoded, nothing is known."""
    lines = []
    for trusted in (True, False):
        checked = [r for r in predictions if r["measured"] is not None and r["trusted"] is trusted]
        if checked:
            errors = [abs(error(row)) for row in checked]
            name = "trusted" if trusted else "not trusted"
            lines.append(
                f"Predictions of decoded cells from the others, {name}: off by "
                f"{percent(sum(errors) / len(errors))} points on average, {percent(max(errors))} "
                f"at most, of {len(errors)}."
            )
    return lines


def error(row: dict[str, Any]) -> float:
    """Predicted minus measured pass@1, a share."""
    return row["pass_at_1"]["value"] - row["measured"]["value"]


def section(index: int, run: RunFiles, names: Sequence[str]) -> dict[str, Any]:
    """What the page shows of a run's sweep; `names` are all figures of the report."""
    assert run.sweep is not None
    cells, start = run.sweep["cells"], prefix(index)
    scores = map(read_json, sorted(run.workdir.glob("sweep/cells/*/*/*/scores.json")))
    return {
        "name": run.name,
        "sentences": sentences(run.sweep),
        "settings": settings(run),
        "figures": [
            (name, FIGURES[name.removeprefix(start).partition("-")[0]])
            for name in names
            if name.startswith(start)
        ],
        "predictions": run.sweep["predictions"],
        "cells": cells,
        "ks": sorted({k for cell in cells for k in cell["pass_at"]}, key=int),
        "graded": findings.graded(scores),
    }


def settings(run: RunFiles) -> list[tuple[str, str]]:
    """(name, value) of what every number of a sweep depends on."""
    assert run.sweep is not None
    config, cells = run.config, run.sweep["cells"]
    evaluate, train = config["evaluate"], config["train"]
    laws = [pages.law(law) for law in _distinct(cell["law"] for cell in cells)]
    trained = [
        pages.law(law) for law in _distinct(c["trained_at"] for c in cells if c["trained_at"])
    ]
    rows = [("decoded at", "; ".join(laws))]
    if trained:
        drawn = config["sampling"]
        rows += [
            ("students sampled at", "; ".join(trained)),
            (
                "samples",
                f"{drawn['n']} a prompt of {config['prompts']['source']}, at most "
                f"{pages.number(drawn['max_new_tokens'])} tokens, seed {drawn['seed']}",
            ),
            (
                "training",
                f"{train['num_steps']} steps of {train['global_batch_size']} × "
                f"{pages.number(train['seq_len'])} tokens, learning rate "
                f"{pages.number(train['learning_rate'])}, seed {train['seed']}",
            ),
        ]
    counts = collections.Counter((c["benchmark"], c["problems"], c["n"]) for c in cells)
    asked = [
        f"{name}: {p} problems × {n} ({count} cells)" for (name, p, n), count in counts.items()
    ]
    rows += [
        ("completions", "; ".join(asked)),
        (
            "evaluation",
            f"template {evaluate['template']}, at most {pages.number(evaluate['max_new_tokens'])} "
            f"tokens, seed {evaluate['seed']}, intervals by {pages.number(evaluate['bootstrap'])} "
            "resamples of the problems",
        ),
    ]
    return rows


def _best(row: dict[str, Any]) -> str:
    held, band = Estimate(**row["held_out"]), Estimate(**row["simultaneous"])
    lucky = f"{percent(row['bare'])} % by its own score, {interval(band)} allowing for the choice"
    fair = f"{percent(held.value)} % {interval(held)}"
    among = {"base": "the base's", "students": "the students'"}[row["of"]]
    if row["among"] == 1:
        return f"{row['benchmark']}, pass@{row['k']}: {among} only cell, {row['name']}, has {fair}."
    text = (
        f"{row['benchmark']}, pass@{row['k']}: the best of {among} {row['among']} cells is "
        f"{row['name']}, {lucky}. Chosen on one half of the problems and scored on the other, "
        f"a best cell is worth {fair}."
    )
    if row["held_out_difference"] is not None and row["of"] == "students":
        gap = Difference(**row["held_out_difference"])
        sure = row["p_value"] < 0.05 and not gap.low <= 0 <= gap.high
        verdict = ("better" if gap.value > 0 else "worse") if sure else "not distinguishable"
        text += (
            f" Against the base at its own decoding: {_told(verdict)}, {points(gap.value)} points "
            f"{interval(gap, signed=True)} held out, p {p_value(row['p_value'])} for the best of "
            f"{row['among']}."
        )
    return text


def _told(verdict: str) -> str:
    same = "not distinguishable"
    return f"{same} from the base" if verdict == same else f"{verdict} than the base"


def _distinct(laws: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for law in laws:
        if law not in found:
            found.append(law)
    return found
