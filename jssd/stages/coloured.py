"""The page of stage mechanism: figures, means, and completions coloured as locks and forks."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jssd.analysis import locks_forks
from jssd.data.tokenizer import Tokenizer
from jssd.stages import pages, plots
from jssd.stages.excerpts import spread
from jssd.stages.pages import PAGE

FILE = "coloured.json"  # The completions of the page, for the report.
SHOWN = 6  # Completions on the page.
TOKENS_SHOWN = 240  # Of one completion.
CANDIDATES_SHOWN = 5
# Nats of entropy that the student must have moved to be marked: a page on which all is underlined
# says nothing.
MARKED_FROM = 0.05
QUANTITIES = {
    "entropy": "entropy, nats",
    "head_entropy": "entropy within S, nats",
    "tail_mass": "mass outside S",
    "support": "tokens that the law keeps",
}


def write(
    folder: pathlib.Path,
    summary: dict[str, Any],
    completions: Sequence[dict[str, Any]],
    tokenizer: Tokenizer,
) -> None:
    """Writes `folder/index.html`, its figures, and `coloured.json` with the completions shown.

    Args:
      summary: of `panels.summarise`, with the stage's settings and fingerprints.
      completions: the lines of tokens.jsonl.
      tokenizer: of the models.
    """
    figures = {
        "panels.png": plots.panels(summary["panels"]),
        "loss.png": plots.loss_parts(summary["kinds"]),
    }
    chosen = [completions[i] for i in spread(len(completions), SHOWN)]
    shown = [_shown(completion, tokenizer) for completion in chosen]
    page = pages.render(
        "mechanism.html.jinja",
        summary=summary,
        sentences=sentences(summary),
        settings=summary["settings"],
        **words(summary),
        figures={name: pages.embedded(plot) for name, plot in figures.items()},
        shown=shown,
    )
    data = json.dumps(shown, separators=(",", ":")).encode()
    pngs = {name: plot.light for name, plot in figures.items()}
    pages.write(folder, pngs | {FILE: data, PAGE: page})


def words(summary: dict[str, Any]) -> dict[str, Any]:
    """What the templates of coloured completions ask for besides them."""
    return {
        "quantities": QUANTITIES,
        "parts": list(summary["kinds"]["all"]["base"]["loss"]),
        "models": locks_forks.MODELS,
        "marked_from": MARKED_FROM,
    }


def sentences(summary: dict[str, Any]) -> list[str]:
    """What was found, in words: how many locks and forks, and what moved at each."""
    kinds = summary["kinds"]
    counts = ", ".join(f"{kinds[kind]['tokens']} {kind}s" for kind in kinds if kind != "all")
    lines = [f"{summary['tokens']} tokens of {summary['completions']} completions: {counts}."]
    for kind in (kind for kind in kinds if kind != "all"):
        moves = []
        for name, title in (("tail_mass", "mass outside S"), ("head_entropy", "entropy within S")):
            gap = summary["differences"][kind][name]
            before, after = (kinds[kind][model][name] for model in locks_forks.MODELS)
            sure = gap["p_value"] < 0.05 and not gap["low"] <= 0 <= gap["high"]
            moved = ("rose" if gap["value"] > 0 else "fell") if sure else "did not clearly move"
            moves.append(f"{title} {moved} ({_four(before)} to {_four(after)})")
        lines.append(f"At {kind}s " + ", ".join(moves) + ".")
    parts = [kinds["all"][model]["loss"] for model in locks_forks.MODELS]
    told = ", ".join(
        f"{name} {_four(parts[0][name])} to {_four(parts[1][name])}"
        for name in ("compression", "reshaping", "alignment")
    )
    lines.append(
        f"The loss went from {_four(parts[0]['cross_entropy'])} to "
        f"{_four(parts[1]['cross_entropy'])} nats a token: {told}; the constant is "
        f"{_four(parts[0]['constant'])}."
    )
    return lines


def _four(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # Without a sign where it rounds to 0.


def _shown(completion: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """A completion for the page: each token with its text, classes and what the tooltip says."""
    tokens = []
    for row in completion["tokens"][:TOKENS_SHOWN]:
        change = row["student"]["entropy"] - row["base"]["entropy"]
        mark = "" if abs(change) < MARKED_FROM else "opened" if change > 0 else "sharpened"
        candidates = [
            {
                model: (tokenizer.show(token), prob, token == row["token"])
                for model, (token, prob) in zip(locks_forks.MODELS, pair)
            }
            for pair in list(zip(*(row[model]["candidates"] for model in locks_forks.MODELS)))[
                :CANDIDATES_SHOWN
            ]
        ]
        text = tokenizer.show(row["token"])
        tokens.append(row | {"text": text, "mark": mark, "candidates": candidates})
    left = len(completion["tokens"]) - len(tokens)
    return {"id": completion["prompt_id"], "sample": completion["sample"]} | {
        "tokens": tokens,
        "left": left,
        "forks": sum(row["kind"] == "fork" for row in completion["tokens"]),
        "total": len(completion["tokens"]),
    }
