"""Programs in the file formats of others' graders, out and in, so that they can check our verdicts.

`custom_outputs.json` is what LiveCodeBench's custom evaluator reads; the files it writes can be
read back with its verdicts. `samples.jsonl` is what evalplus reads, and HumanEval's own grader in
the form with completions.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jssd.evals.benchmarks import Task


@dataclasses.dataclass(frozen=True)
class Graded:
    """A program from a file, and what its grader said: None where the file holds no verdict."""

    task_id: str
    program: str
    passed: bool | None = None


def custom_outputs(programs: Iterable[tuple[str, str | None]]) -> str:
    """The text of custom_outputs.json: the programs of each problem, sorted by its id.

    `programs` are pairs of a task's id and a program; an answer without one is "" there.
    """
    lists: dict[str, list[str]] = {}
    for task_id, program in programs:
        lists.setdefault(task_id, []).append(program or "")
    rows = [{"question_id": name, "code_list": lists[name]} for name in sorted(lists)]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def samples(programs: Iterable[tuple[str, str | None]]) -> str:
    """The text of samples.jsonl: one whole program a line, MBPP's ids as evalplus has them."""
    theirs = lambda task_id: re.sub(r"^mbpp/", "Mbpp/", task_id)
    return "".join(
        json.dumps({"task_id": theirs(task_id), "solution": program or ""}, ensure_ascii=False)
        + "\n"
        for task_id, program in programs
    )


def read(path: Path, tasks: Sequence[Task]) -> list[Graded]:
    """The programs of a file for a benchmark's tasks.

    A .jsonl file is evalplus' samples: `solution`, or `completion`, which goes on from the task's
    starter code. A .json file is LiveCodeBench's: objects with question_id and code_list, and
    graded_list in the files its evaluator writes (..._eval_all.json); or plain lists of programs,
    in the order of the ids.

    Raises ValueError for other contents, and for ids that are not the benchmark's.
    """
    by_id = {task.id: task for task in tasks}
    try:
        text = path.read_text(encoding="utf8")
        found = _samples(text, by_id) if path.suffix == ".jsonl" else _outputs(text, by_id)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no file of programs that is known here: {error!r}.") from error
    unknown = sorted({graded.task_id for graded in found} - set(by_id))
    if unknown:
        raise ValueError(f"{path} names {unknown[0]!r}, which is not a task of the benchmark.")
    if not found:
        raise ValueError(f"{path} holds no program.")
    return found


def _samples(text: str, by_id: dict[str, Task]) -> list[Graded]:
    found = []
    for row in map(json.loads, filter(str.strip, text.splitlines())):
        task_id, program = row["task_id"], row.get("solution")
        if task_id not in by_id:
            task_id = re.sub(r"^Mbpp/", "mbpp/", task_id)
        if program is None:
            program = by_id[task_id].starter_code + row["completion"]
        found.append(Graded(task_id, program))
    return found


def _outputs(text: str, by_id: dict[str, Task]) -> list[Graded]:
    rows = json.loads(text)
    if rows and isinstance(rows[0], list):
        if len(rows) != len(by_id):
            raise ValueError(f"{len(rows)} lists for {len(by_id)} problems")
        rows = [
            {"question_id": name, "code_list": programs}
            for name, programs in zip(sorted(by_id), rows, strict=True)
        ]
    found = []
    for row in rows:
        programs = row["code_list"]
        verdicts = row.get("graded_list") or [None] * len(programs)
        found += [
            Graded(str(row["question_id"]), program, None if verdict is None else bool(verdict))
            for program, verdict in zip(programs, verdicts, strict=True)
        ]
    return found
