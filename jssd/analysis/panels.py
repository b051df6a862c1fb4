"""Means over the rows of `locks_forks`: what SSD did to locks and to forks, and the paper's panels.

NumPy only. Panels a to d are those of the paper's measurements on a real model (section 5.5).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jssd.analysis.locks_forks import MODELS
from jssd.evals import passk

KINDS = ("all", "lock", "fork")
# Quantities of a position that a row holds for both models.
QUANTITIES = ("entropy", "head_entropy", "tail_mass", "support")
# Panel d's groups by mass in the likeliest 20 tokens: from so much up to the one before. The paper
# names the five masses; that they are lower edges, and the sixth group, is our reading.
EDGES = (0.999, 0.995, 0.99, 0.98, 0.95, 0.0)


def summarise(
    completions: Sequence[dict[str, Any]], *, temperatures: Sequence[float], resamples: int
) -> dict[str, Any]:
    """Everything the page and the figures show, ready for JSON.

    Args:
      completions: each with `tokens` (of `locks_forks.rows`) and `mass_by_rank` by model.
      temperatures: of the evaluation laws, in their order in the rows.
      resamples: of the completions, for the intervals.

    Returns:
      `completions` and `tokens` counted; `kinds`: for each of KINDS its tokens, both models' mean
      of QUANTITIES and of the parts of the loss, and the student's KeptMass; `differences`: by kind
      and quantity, student minus base with an interval over completions; `panels`.
    """
    rows = [row for completion in completions for row in completion["tokens"]]
    groups = {kind: [row for row in rows if kind in ("all", row["kind"])] for kind in KINDS}
    return {
        "completions": len(completions),
        "tokens": len(rows),
        "kinds": {kind: _means(group) for kind, group in groups.items() if group},
        "differences": {
            kind: {name: _difference(completions, kind, name, resamples) for name in QUANTITIES}
            for kind, group in groups.items()
            if group
        },
        "panels": {
            "temperatures": list(temperatures),
            "mass_by_rank": {model: _mass_by_rank(completions, model) for model in MODELS},
            "supports": {model: _mean(rows, model, "eval_supports") for model in MODELS},
            "entropies": {model: _mean(rows, model, "eval_entropies") for model in MODELS},
            "by_top_mass": {model: _by_top_mass(rows, model) for model in MODELS},
        },
    }


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {"tokens": len(rows)}
    for model in MODELS:
        means[model] = {name: _mean(rows, model, name) for name in QUANTITIES}
        parts = rows[0][model]["loss"]
        means[model]["loss"] = {
            part: float(np.mean([row[model]["loss"][part] for row in rows])) for part in parts
        }
    means["kept_mass"] = 1 - means["student"]["tail_mass"]
    return means


def _mean(rows: Sequence[dict[str, Any]], model: str, name: str) -> Any:
    """Mean over rows of a number, or of each place of a list."""
    return np.mean([row[model][name] for row in rows], axis=0).tolist()


def _difference(
    completions: Sequence[dict[str, Any]], kind: str, name: str, resamples: int
) -> dict[str, float]:
    """Student minus base of completions' means: tokens of one completion are no independent sample,
    and long completions count as much as short ones."""
    pairs = []
    for completion in completions:
        rows = [row for row in completion["tokens"] if kind in ("all", row["kind"])]
        if rows:
            pairs.append([_mean(rows, model, name) for model in MODELS])
    base, student = np.array(pairs).T
    gap = passk.paired_difference(student, base, resamples=resamples, seed=0)
    return {"value": gap.value, "low": gap.low, "high": gap.high, "p_value": gap.p_value}


def _mass_by_rank(completions: Sequence[dict[str, Any]], model: str) -> list[float]:
    weights = [len(completion["tokens"]) for completion in completions]
    curves = [completion["mass_by_rank"][model] for completion in completions]
    return np.average(curves, axis=0, weights=weights).tolist()


def _by_top_mass(rows: Sequence[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Panel d: entropies after truncation, of positions alike in this model's top mass."""
    mass = np.array([row[model]["top_mass"] for row in rows])
    found, upper = [], np.inf
    for edge in EDGES:
        inside = np.flatnonzero((mass >= edge) & (mass < upper))
        upper = edge
        means = (
            _mean([rows[int(i)] for i in inside], model, "eval_entropies") if len(inside) else None
        )
        found.append({"from": edge, "tokens": len(inside), "entropies": means})
    return found
