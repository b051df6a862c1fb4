"""What stage mechanism leaves, of invented measurements: for tests of the pages that show it."""

import json
import pathlib
import re

import numpy as np

from jssd.analysis import locks_forks, panels
from jssd.config import Config, to_dict
from jssd.data.tokenizer import Tokenizer
from jssd.stages import coloured

# Ordinary code, a line wider than a phone, and what must not become part of the page.
TEXTS = (
    "def add(a, b):\n    total = a + b\n    return total\n",
    "names = ['" + "', '".join(f"name_{i}" for i in range(12)) + "']\nfor name in names: pass\n",
    "# <script>alert(1)</script> & </pre><b>\nprint('" + "x" * 90 + "')\n",
)
PIECES = [re.findall(r"\s*\w+|\s*[^\w\s]+|\s+", text) for text in TEXTS]
WORDS = sorted({piece for pieces in PIECES for piece in pieces})


class Words(Tokenizer):
    """Ids are places in WORDS."""

    def __init__(self):
        pass

    def show(self, token: int) -> str:
        return WORDS[token]


def write(workdir: pathlib.Path, config: Config) -> None:
    """Writes `mechanism/`: every third token is a fork, and training sharpened locks, opened forks
    and left each fifth token as it was."""
    rng, law = np.random.default_rng(0), config.mechanism
    completions = []
    for number, pieces in enumerate(PIECES):
        rows = [_row(WORDS.index(piece), t, rng, law) for t, piece in enumerate(pieces)]
        curve = (1 - 0.5 ** np.arange(1, locks_forks.RANKS + 1)).tolist()
        completions.append(
            {
                "prompt_id": f"made-up/{number} <b>", "sample": number, "tokens": rows,
                "mass_by_rank": dict.fromkeys(locks_forks.MODELS, curve),
            }
        )  # fmt: skip
    summary = panels.summarise(completions, temperatures=law.temperatures, resamples=200)
    tree = to_dict(config)
    summary |= {
        "settings": {name: tree[name] for name in ("model", "mechanism", "sampling")},
        "fingerprints": {model: f"print-{model}" for model in locks_forks.MODELS},
    }
    folder = workdir / "mechanism"
    coloured.write(folder, summary, completions, Words())
    (folder / "summary.json").write_text(json.dumps(summary))


def _row(token: int, place: int, rng, law) -> dict:
    fork = place % 3 == 2
    entropy = 1.2 if fork else 0.2
    moved = 0.0 if place % 5 == 4 else 0.3 if fork else -0.1
    row = {"token": token, "kind": "fork" if fork else "lock"}
    for model, change in zip(locks_forks.MODELS, (0.0, moved)):
        shares = np.sort(rng.dirichlet(np.full(5, 0.4)))[::-1] * 0.98
        others = rng.permutation(len(WORDS))[:4].tolist()
        parts = {"compression": 0.05, "reshaping": 0.02, "alignment": 0.1 + change / 4,
                 "constant": 0.3}  # fmt: skip
        row[model] = {
            "entropy": entropy + change, "logprob": -entropy, "tail_mass": 0.06 - change / 10,
            "head_entropy": (entropy + change) * 0.9, "support": 5 if fork else 2,
            "top_mass": 0.96 if fork else 0.9995,
            "eval_supports": [1 + round(3 * t) for t in law.temperatures],
            "eval_entropies": [(entropy + change) * t for t in law.temperatures],
            "candidates": [[i, float(p)] for i, p in zip([token, *others], shares)],
            "loss": {"cross_entropy": sum(parts.values()), **parts},
        }  # fmt: skip
    return row
