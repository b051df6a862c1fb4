"""Stage toy: the paper's toy simulation (section 5.4), into `toy/`: numbers, a figure, a table.

Exact, without a model; seconds on a CPU.
"""

import pathlib
import sys
from typing import Any

import numpy as np
import rich.box
from rich.console import Console
from rich.table import Table

from jssd.analysis import toy
from jssd.config import Config
from jssd.sampling.request import Sampling
from jssd.stages import context, pages, plots

FILE = "toy.json"
PLACES = (0.5, 1.0)  # A low and a medium temperature; the student's own best is the high one.


def run(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Writes `toy/`: toy.json, toy.png and laws.png; prints the numbers and returns them."""
    found = simulate(config)
    figures = {"toy.png": plots.toy(found), "laws.png": plots.toy_laws(_drawn(found))}
    pages.write(workdir / "toy", {name: figure.light for name, figure in figures.items()})
    context.write_json(workdir / "toy" / FILE, found)
    _print(found)
    print(f"toy: {workdir / 'toy' / FILE}", flush=True)
    return found


def simulate(config: Config) -> dict[str, Any]:
    """Every number of the paper's section, ready for JSON; probabilities, not percent.

    `laws` are teacher's and student's by state; `curves` the chance to pass by temperature at
    `toy.top_p`, its best, the fork's law there and the chance at low, medium and high temperature;
    `gaps` student's best minus teacher's, by evaluation top_p.
    """
    law, knobs = config.sampling, config.toy
    teacher = toy.teacher()
    student = toy.distil(teacher, Sampling(law.temperature, law.top_k, law.top_p, law.min_p))
    models = {"teacher": teacher, "student": student}
    grid = np.linspace(knobs.lowest, knobs.highest, knobs.temperatures).tolist()
    curves = {name: toy.curve(probs, grid, knobs.top_p) for name, probs in models.items()}
    high = curves["student"].best[0]
    found: dict[str, Any] = {
        "laws": {name: {s: p.tolist() for s, p in probs.items()} for name, probs in models.items()},
        "entropy_bits": {s: toy.entropy_bits(p) for s, p in teacher.items()},
        "top_p": knobs.top_p,
        "curves": {},
        "gaps": [],
    }
    for name, probs in models.items():
        temperature, success = curves[name].best
        at_best = Sampling(temperature, top_p=knobs.top_p)
        found["curves"][name] = {
            "temperatures": grid,
            "success": curves[name].success.tolist(),
            "best": {"temperature": temperature, "success": success},
            "fork_at_best": toy.at(probs["fork"], [at_best])[0].tolist(),
            "at": [
                {"temperature": t, "success": float(s)}
                for t, s in zip(
                    (*PLACES, high), toy.curve(probs, (*PLACES, high), knobs.top_p).success
                )
            ],
        }
    for top_p in knobs.top_ps:
        best = {name: toy.curve(probs, grid, top_p).best for name, probs in models.items()}
        found["gaps"].append(
            {"top_p": top_p, "gap": best["student"][1] - best["teacher"][1]}
            | {name: {"temperature": t, "success": s} for name, (t, s) in best.items()}
        )
    return found


def _drawn(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The laws themselves, and as they are drawn by at the student's best temperature."""
    temperature = found["curves"]["student"]["best"]["temperature"]
    by = Sampling(temperature, top_p=found["top_p"])
    decoded = {
        model: {state: toy.at(np.asarray(law), [by])[0].tolist() for state, law in laws.items()}
        for model, laws in found["laws"].items()
    }
    title = f"decoded at T {temperature:.2f}, top-p {found['top_p']:g}"
    return {"as the model has it": found["laws"], title: decoded}


def _print(found: dict[str, Any]) -> None:
    terminal = sys.stdout.isatty()
    console = Console() if terminal else Console(width=100, color_system=None)
    box = rich.box.SIMPLE_HEAD if terminal else None
    percent = lambda value: f"{100 * value:.2f}"

    def show(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        console.print(title, highlight=False)
        table = Table(*heads, box=box, pad_edge=terminal)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    kept = lambda law: " ".join(percent(p) for p in sorted(law, reverse=True) if p > 0)
    student = found["laws"]["student"]
    show(
        "the student's laws, percent",
        ("state", "tokens kept", "likeliest first"),
        [(s, str(sum(p > 0 for p in law)), kept(law)) for s, law in student.items()],
    )
    rows = []
    for name, curve in found["curves"].items():
        best, at = curve["best"], (percent(place["success"]) for place in curve["at"])
        shown = f"{percent(best['success'])} at T {best['temperature']:.3f}"
        rows.append((name, shown, *at, kept(curve["fork_at_best"])))
    heads = [f"T {place['temperature']:.3g}" for place in found["curves"]["teacher"]["at"]]
    show(
        f"chance to pass, percent, evaluation top-p {found['top_p']:g}",
        ("model", "best", *heads, "fork at its best T"),
        rows,
    )
    show(
        "each at its best temperature, by evaluation top-p",
        ("top-p", "teacher", "student", "gap, points"),
        [
            (f"{row['top_p']:.2f}", *(percent(row[m]["success"]) for m in found["curves"]),
             f"{100 * row['gap']:+.2f}")
            for row in found["gaps"]
        ],
    )  # fmt: skip
