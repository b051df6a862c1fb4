"""Samples and completions to read in the report, picked evenly over a run, never by outcome."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from jssd.data import samples
from jssd.stages.run_files import RunFiles

# Characters shown of one text: enough to judge it, and a page that still opens.
MAX_CHARS = 6000


@dataclasses.dataclass(frozen=True)
class Pair:
    """The first completion of base and student for one task; None where there is none.

    A completion is a row of completions.jsonl, its text cut to MAX_CHARS.
    """

    benchmark: str
    task: str
    prompt: str  # "" when the drawn samples are no longer beside the scores.
    base_decode: str
    student_decode: str
    base: dict[str, Any] | None
    student: dict[str, Any] | None


def training(run: RunFiles, count: int) -> list[samples.Sample]:
    """`count` drawn samples, evenly spaced over `samples/part-*.jsonl`; fewer if there are fewer.

    Raises ValueError naming file and line of a broken record.
    """
    paths = sorted((run.workdir / "samples").glob("part-*.jsonl"))
    total = sum(1 for path in paths for _ in _lines(path))
    chosen, at, found = set(spread(total, count)), 0, []
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            if at in chosen:
                sample = samples.from_line(line, f"{path}:{number}")
                cut = {"text": clip(sample.text), "prompt": clip(sample.prompt)}
                found.append(dataclasses.replace(sample, **cut))
            at += 1
    return found


def pairs(run: RunFiles, count: int) -> list[Pair]:
    """About `count` tasks in all, spread over benchmarks and decodings, base beside student."""
    evaluate = run.config["evaluate"]
    ways = [(place[0], place[1], place[1]) for place in run.scores]
    if evaluate["base_decode"]:
        own = (evaluate["base_decode"], evaluate["student_decode"])
        ways += [(benchmark, *own) for benchmark in evaluate["benchmarks"]]
    ways = list(dict.fromkeys(ways))
    found = []
    for benchmark, base_decode, student_decode in ways:
        places = [(benchmark, base_decode, "base"), (benchmark, student_decode, "student")]
        scored = [place for place in places if place in run.scores]
        if not scored:
            continue
        ids = sorted(row["id"] for row in run.scores[scored[0]]["per_problem"])
        chosen = [ids[i] for i in spread(len(ids), max(3, count // len(ways)))]
        base, student = (
            _first_completions(run.workdir.joinpath("eval", *place), chosen) for place in places
        )
        asked = _prompts(run.workdir.joinpath("eval", *scored[0]), chosen)
        found += [
            Pair(
                benchmark,
                id,
                asked.get(id, ""),
                base_decode,
                student_decode,
                base.get(id),
                student.get(id),
            )
            for id in chosen
        ]
    return found


def spread(total: int, count: int) -> list[int]:
    """At most `count` numbers below `total`, evenly spaced from 0 on."""
    return [i * total // count for i in range(count)] if total > count else list(range(total))


def clip(text: str) -> str:
    """The text, or its beginning and how much was left out."""
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[:MAX_CHARS]}\n[{len(text) - MAX_CHARS} more characters are not shown here]"


def _first_completions(folder: pathlib.Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sample 0 of each task in `ids` that completions.jsonl has."""
    found: dict[str, dict[str, Any]] = {}
    for row in _rows(folder / "completions.jsonl"):
        if row["sample"] == 0 and row["task_id"] in ids:
            found[row["task_id"]] = row | {"text": clip(row["text"])}
        if len(found) == len(ids):
            break
    return found


def _prompts(folder: pathlib.Path, ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("part-*.jsonl")):
        for row in _rows(path):
            if row["prompt_id"] in ids:
                found[row["prompt_id"]] = clip(row["prompt"])
            if len(found) == len(ids):
                return found
    return found


def _rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{path}:{number} is not valid JSON: {error}. Delete the folder's scores.json and "
                "run stage evaluate again."
            ) from None


def _lines(path: pathlib.Path) -> Iterator[str]:
    # Not splitlines: a completion may hold the other line separators of Unicode.
    if path.exists():
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from file
