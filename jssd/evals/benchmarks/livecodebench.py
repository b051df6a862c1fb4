"""LiveCodeBench (Jain et al., 2024; arXiv 2403.07974): dated contest problems, from released files.

The data are not shipped here, and no code that comes with them runs. Which problems count is told
by named windows of days, and how answers are graded by `RULES`: each has the choice of the paper's
evaluator (Apple's ml-ssd, evaluation/, April 2026), and a strict twin where that choice judges
something other than the program. What the evaluator does beside them is not reproduced: it takes
functions of `os` and `shutil` away, and lets a program print without limit.
"""

import collections
import dataclasses
import datetime
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jssd import jsonl, places
from jssd.evals.benchmarks import CallTest, StdinTest, Task
from jssd.evals.benchmarks.livecodebench_tests import decode_tests, expected_value, read_arguments
from jssd.evals.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Window:
    """Days of contests, both included, and how many problems the paper counts in them."""

    first: str
    last: str
    count: int


# The paper names months. 131 + 323 = 454 problems from August 2024 on is also what others count.
WINDOWS = {
    "v6": Window("2025-02-01", "2025-05-31", 131),
    "v5": Window("2024-08-01", "2025-02-28", 374),
}

# Rule -> (the paper's evaluator, strict twin).
RULES = {
    # What of the answer is the program: extract.py. The release takes a block only if its fence is
    # closed and its language tag has letters alone.
    "extraction": ("release_fence", "last_fence"),
    # Which tests count. The release leaves out those that the statement shows.
    "tests": ("private", "all"),
    # How a function test's text becomes arguments. The release reads lists as JSON, but true, null
    # and escapes in a string as plain text, and any text with a "=" in it as "name = value" pairs.
    # The twin reads each line as JSON, as LiveCodeBench's own harness does.
    "arguments": ("text", "json"),
    # A stdin program as the body of a function, where `global` misses what it names, or as a
    # script: released.py.
    "script": ("function", "main"),
    # Streams in memory, of which read() gives all and buffer.readline() the first line, every time,
    # and which take no bytes; or pipes: released.py.
    "streams": ("text", "pipes"),
    # Without exit(), but with any status of sys.exit a good end; or Python's own meaning of both.
    "exit": ("none", "status"),
    # Python's 1000 frames, or 50,000 as in LiveCodeBench's own harness.
    "recursion": ("default", "deep"),
    # Whether a function's result is right: as text, or as values where tuples count as lists.
    # compare.py. Printed text has no twin: each line exact, or token by token as decimals.
    "values": ("text", "loose"),
    # 7 seconds a test and 5 more, for all tests together. The twin adds that no test may take more
    # than 6, as in LiveCodeBench's own harness: many quick tests do not pay for a slow one.
    "budget": ("total", "each"),
}
_HOW = (
    "Put the files test.jsonl to test6.jsonl of the dataset livecodebench/code_generation_lite in "
    "a folder and give it as evaluate.livecodebench.path"
)


def choose(strict: Sequence[str] = ()) -> dict[str, str]:
    """The choice for each rule: the paper's, or the twin's for the rules in `strict` ("all")."""
    return {
        rule: twin if rule in strict or "all" in strict else release
        for rule, (release, twin) in RULES.items()
    }


def protocol(strict: Sequence[str] = ()) -> Protocol:
    """The rules that answers to these problems are graded by."""
    chosen = choose(strict)
    names = ("extraction", "script", "streams", "exit", "recursion", "values")
    return Protocol(
        **{name: chosen[name] for name in names},
        preamble="release",
        leetcode=True,
        seconds=5.0,
        seconds_per_test=7.0,
        seconds_each=6.0 if chosen["budget"] == "each" else 0.0,
    )


def load(
    path: str, window: str = "", difficulty: str = "", strict: Sequence[str] = ()
) -> tuple[list[Task], str]:
    """The problems of a window in the order of their days, and one line about them.

    `window` is a name in WINDOWS, two days "2025-02-01:2025-05-31" that both count, or "" for all.

    Raises FileNotFoundError when the files are missing, and ValueError for a broken row, a problem
    that comes twice, and a named window that does not hold the paper's number of problems.
    """
    named = WINDOWS.get(window)
    first, last = (named.first, named.last) if named else (window or ":").split(":")
    found, seen, days = {}, set(), []
    files = locate(path)
    for where, row in _rows(files):
        name, day = _text(row, "question_id", where), _day(row, where)
        if name in seen:
            raise ValueError(f"{where}: problem {name!r} comes twice. Give each file once.")
        seen.add(name)
        days.append(day)
        if (first or day) <= day <= (last or day):
            found[day, name] = (where, row)
    if named and len(found) != named.count:
        span = f"{len(seen)} problems from {min(days)} to {max(days)}" if days else "no problem"
        raise ValueError(
            f"window {window} ({first} to {last}) holds {len(found)} problems, not the paper's "
            f"{named.count}: {path} has {span}. {_HOW}, or name the window's two days instead."
        )
    chosen = choose(strict)
    tasks = [_task(row, where, chosen) for _, (where, row) in sorted(found.items())]
    told = _describe(tasks, [day for day, _ in found], difficulty)
    tasks = [task for task in tasks if difficulty in ("", task.group)]
    if not tasks:
        raise ValueError(
            f"{path} holds no problem of window {window!r} and difficulty {difficulty!r}."
        )
    return tasks, told


def locate(path: str) -> list[Path]:
    """The released files at a path: one, those of a folder, or those of a dataset on the hub.

    Raises FileNotFoundError or ValueError with the way out.
    """
    if not path:
        raise FileNotFoundError(f"LiveCodeBench is asked for, but its files are not. {_HOW}.")
    if path.startswith("hf:"):
        folder = _download(path.removeprefix("hf:"))
    else:
        folder = places.fetch(places.path(path), ["test*.jsonl"])
    if folder.is_file():
        return [folder]
    files = sorted(folder.glob("test*.jsonl"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise FileNotFoundError(f"{path} is no .jsonl file and holds no test*.jsonl. {_HOW}.")
    return files


def _download(name: str) -> Path:
    """The dataset's files in the hub's cache. They are plain data: its loading script stays out."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, repo_type="dataset", allow_patterns="test*.jsonl"
            )
        )
    except Exception as error:  # The library lets through errors of several packages.
        raise FileNotFoundError(
            f"dataset {name} can't be downloaded: {' '.join(str(error).split())[:200]} {_HOW}."
        ) from error


def _rows(files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    return itertools.chain.from_iterable(map(jsonl.rows, files))


def _text(row: dict, name: str, where: str) -> str:
    if not isinstance(row.get(name), str):
        raise ValueError(
            f"{where} has no text in field {name!r}, so it is no LiveCodeBench problem. It has: "
            f"{', '.join(sorted(row))}."
        )
    return row[name]


def _day(row: dict, where: str) -> str:
    text = _text(row, "contest_date", where)
    try:
        return datetime.datetime.fromisoformat(text).date().isoformat()
    except ValueError as error:
        raise ValueError(f"{where}: contest_date={text!r} must be an ISO date.") from error


def _task(row: dict, where: str, chosen: dict[str, str]) -> Task:
    try:
        public = decode_tests(_text(row, "public_test_cases", where))
        tests = decode_tests(_text(row, "private_test_cases", where))
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from error
    if not tests:
        raise ValueError(f"{where}: a problem without private tests can't be graded.")
    is_stdin = any(test["testtype"] == "stdin" for test in public)
    tests = public + tests if chosen["tests"] == "all" else tests
    name = _text(row, "question_id", where)
    starter = row.get("starter_code") or ""
    fields: dict[str, Any] = {
        "id": name,
        "statement": _text(row, "question_content", where),
        "group": _text(row, "difficulty", where),
    }
    if is_stdin:
        return Task(**fields, tests=tuple(StdinTest(t["input"], t["output"]) for t in tests))
    unpassable, calls = "", []
    for number, test in enumerate(tests, 1):
        try:
            args = tuple(read_arguments(test["input"], chosen["arguments"]))
        except ValueError as error:
            args, unpassable = (), f"test {number} can't be read as arguments ({error})"
        calls.append(CallTest(args, expected_value(test["output"])))
    return Task(
        **fields,
        tests=tuple(calls),
        starter_code=starter,
        entry_point=_function_name(row, starter, where),
        unpassable=unpassable,
    )


def _function_name(row: dict, starter: str, where: str) -> str:
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    if metadata.get("func_name"):
        return metadata["func_name"]
    names = re.findall(r"^\s*(?:async\s+)?def\s+(\w+)", starter, re.M)
    if not names:
        raise ValueError(f"{where} names no function, in its metadata or its starter_code.")
    return names[-1]


def _describe(tasks: list[Task], days: list[str], difficulty: str) -> str:
    if not tasks:
        return "no problem"
    groups = collections.Counter(task.group for task in tasks)
    levels = ", ".join(f"{groups[level]} {level}" for level in sorted(groups))
    lost = sum(bool(task.unpassable) for task in tasks)
    return (
        f"{len(tasks)} problems of contests from {min(days)} to {max(days)} ({levels})"
        + (f", only the {difficulty} ones asked" if difficulty else "")
        + (f", {lost} that no program passes by the rules in force" if lost else "")
    )
