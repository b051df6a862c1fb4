"""Problems with tests: the record each benchmark is read into, and `load`, which reads one by name.

A task comes in one of three forms. A *function* task has an `entry_point`, and is tested by calls
(`CallTest`) or by HumanEval-style `check_source`. A *stdin* task has neither starter code nor entry
point, and is tested by whole runs (`StdinTest`). An *answer* task has an `answer_rule` and asks for
no program but for a number, a literal, or the call that gives a known result.

The protocol of a benchmark is one function, `load(split) -> list[Task]` for those that come with
us or with a package, `read(rows) -> list[Task]` for those read from files: see `files.py`.
"""

import dataclasses
import importlib
from typing import Any

# Benchmark -> its splits. The first is the one scores are reported on.
SPLITS = {
    "tasks": ("heldout", "train"),
    "functions": ("heldout", "train"),  # The function tasks among "tasks".
    "programs": ("heldout", "train"),  # The stdin tasks among "tasks".
    "humaneval": ("test",),
}


@dataclasses.dataclass(frozen=True)
class CallTest:
    """One call of the entry point: positional arguments and the value it must return.

    Both are plain data: None, bool, int, float, complex, str, bytes, list, tuple, dict, set and
    frozenset, nested at will. `compare.same_value` says when two values count as equal.
    """

    args: tuple[Any, ...]
    expected: Any


@dataclasses.dataclass(frozen=True)
class StdinTest:
    """One run of the whole program: what it reads and what it must print."""

    stdin: str
    stdout: str


@dataclasses.dataclass(frozen=True)
class Task:
    """One problem with its tests.

    Raises ValueError when the fields fit neither form: a badly written benchmark fails on loading.
    """

    id: str
    statement: str  # The problem in words, as a prompt template shows it.
    tests: tuple[CallTest, ...] | tuple[StdinTest, ...] = ()
    starter_code: str = ""  # Function form: imports, helpers and the signature to fill in.
    entry_point: str = ""  # Function form: the name the tests call. "" is the stdin form.
    check_source: str = ""  # Function form: defines `check(candidate)`; used instead of `tests`.
    reference: str = ""  # A full program that passes, for tests of the benchmark itself.
    group: str = ""  # What scores are split by besides, e.g. the difficulty.
    unpassable: str = ""  # Why no program passes by the rules in force; "" where one can.
    # Answer form: "integer" or "literal" (the answer is compared with `answer`), or "call" (the
    # answer calls a function of the program `answer`, and `tests` holds what must come out).
    answer_rule: str = ""
    answer: str = ""

    def __post_init__(self) -> None:
        where = f"task {self.id!r}:"
        if self.answer_rule in ("integer", "literal"):
            if not self.answer or self.tests or self.check_source or self.entry_point:
                raise ValueError(f"{where} an answer task has an answer, and no tests or code.")
            return
        if bool(self.tests) == bool(self.check_source):
            raise ValueError(f"{where} give exactly one of tests and check_source.")
        wanted = CallTest if self.entry_point else StdinTest
        if not all(isinstance(test, wanted) for test in self.tests):
            form = f"entry_point={self.entry_point!r}"
            raise ValueError(f"{where} with {form} every test must be a {wanted.__name__}.")
        if not self.entry_point and (self.starter_code or self.check_source):
            raise ValueError(
                f"{where} a stdin task has no starter_code and no check_source. Set entry_point."
            )


def load(name: str, split: str) -> list[Task]:
    """All tasks of one split of a benchmark, in a fixed order.

    Raises ValueError for an unknown name or split, and FileNotFoundError when the benchmark's data
    are not installed.
    """
    if name not in SPLITS:
        raise ValueError(f"benchmark={name!r} is unknown. Choose from {', '.join(SPLITS)}.")
    if split not in SPLITS[name]:
        raise ValueError(
            f"split={split!r} is not in benchmark {name!r}. Choose from {', '.join(SPLITS[name])}."
        )
    if name in ("functions", "programs"):
        return [
            task for task in load("tasks", split) if bool(task.entry_point) == (name == "functions")
        ]
    module = importlib.import_module(f"jssd.evals.benchmarks.{name}")
    return module.load(split)
