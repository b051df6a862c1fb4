"""Benchmarks in JSON lines, told by their columns: our own form, MBPP, HumanEval, CruxEval, AIME.

A row of our own form has `id`, `statement` and `tests`, and may have `starter_code`, `entry_point`,
`group` and `reference`. A test is {"args": [...], "expected": ...} where there is an entry point,
else {"stdin": "...", "stdout": "..."}.
"""

import ast
import json
from pathlib import Path
from typing import Any

from jssd import places
from jssd.evals.benchmarks import CallTest, StdinTest, Task, humaneval

# CruxEval asks two things of one file; the benchmark's name says which.
SIDES = ("_input", "_output")
_ANSWER = "Give it between the tags [ANSWER] and [/ANSWER], and nothing else between them."


def find(folder: str, name: str) -> Path:
    """The file of a benchmark: NAME.jsonl, also for NAME_input and NAME_output.

    Raises FileNotFoundError with the way out.
    """
    bare = next((name.removesuffix(side) for side in SIDES if name.endswith(side)), name)
    for stem in (name, bare):
        path = places.path(folder) / f"{stem}.jsonl"
        if folder and path.is_file():
            return places.fetch(path)
    raise FileNotFoundError(
        f"benchmark {name!r} comes neither with jssd nor as {name}.jsonl in "
        f"evaluate.data={folder!r}."
    )


def load(path: Path, name: str) -> list[Task]:
    """The tasks of a file in its order; `name` ends in _input or _output for CruxEval.

    Raises ValueError that names the line, for rows of no known form and for broken ones.
    """
    tasks = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                tasks.append(_task(row, number, name))
            except (ValueError, KeyError, TypeError, SyntaxError, AttributeError) as error:
                said = f"no field {error}" if isinstance(error, KeyError) else error
                raise ValueError(f"{path}:{number}: {said}") from error
    names = [task.id for task in tasks]
    if not tasks or len(set(names)) < len(names):
        raise ValueError(f"{path} must hold at least one task, and no id twice.")
    return tasks


def _task(row: dict[str, Any], number: int, name: str) -> Task:
    for columns, read in _FORMS.items():
        if all(column in row for column in columns):
            return read(row, str(number), name)
    forms = "; ".join(", ".join(columns) for columns in _FORMS)
    raise ValueError(f"columns {', '.join(sorted(row))} fit no known form. They are: {forms}.")


def _own(row: dict[str, Any], number: str, name: str) -> Task:
    entry_point = row.get("entry_point", "")
    if entry_point:
        tests = tuple(CallTest(tuple(test["args"]), test["expected"]) for test in row["tests"])
    else:
        tests = tuple(StdinTest(test["stdin"], test["stdout"]) for test in row["tests"])
    return Task(
        id=str(row["id"]),
        statement=row["statement"],
        tests=tests,
        starter_code=row.get("starter_code", ""),
        entry_point=entry_point,
        group=row.get("group", ""),
        reference=row.get("reference", ""),
    )


def _mbpp(row: dict[str, Any], number: str, name: str) -> Task:
    """MBPP (Austin et al., 2021), the full or the sanitized file. The statement shows the tests, as
    is usual: it does not name the function. The head of the reference is the starter code."""
    lines = [*row.get("test_imports", ()), row.get("test_setup_code", ""), *row["test_list"]]
    functions = {
        node.name: node for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef)
    }
    called = [
        node.id
        for node in ast.walk(ast.parse("\n".join(row["test_list"])))
        if isinstance(node, ast.Name) and node.id in functions
    ]
    if not called:
        raise ValueError("no test calls a function that the code defines.")
    shown = "\n".join(row["test_list"])
    body = "\n".join(line for line in lines if line.strip())
    return Task(
        id=f"mbpp/{str(row.get('task_id', number)).removeprefix('Mbpp/')}",
        statement=f"{row.get('text') or row['prompt']}\nThese tests must pass:\n{shown}",
        starter_code=f"def {called[0]}({ast.unparse(functions[called[0]].args)}):\n",
        entry_point=called[0],
        check_source="def check(candidate):\n" + _indented(body),
        reference=row["code"],
    )


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _humaneval(row: dict[str, Any], number: str, name: str) -> Task:
    return humaneval.to_task({"canonical_solution": "", **row})


def _cruxeval(row: dict[str, Any], number: str, name: str) -> Task:
    """CruxEval (Gu et al., 2024): what a function returns, or what it must be given."""
    side = next((side for side in SIDES if name.endswith(side)), None)
    if side is None:
        raise ValueError(f"CruxEval asks two things: call it {name}_input or {name}_output.")
    code, output = row["code"].strip(), row["output"]
    common = {"id": f"cruxeval/{row.get('id', number)}", "reference": code}
    shown = f"```python\n{code}\n```\n"
    if side == "_output":
        return Task(
            **common,
            statement=f"What does `f({row['input']})` return? Answer with a Python literal, "
            f"not with an expression to work out. {_ANSWER}\n{shown}",
            answer=output,
            answer_rule="literal",
        )
    return Task(
        **common,
        statement=f"Find arguments with which `f` returns `{output}`, and answer with the call, "
        f"`f(...)`, its arguments written as literals. {_ANSWER}\n{shown}",
        tests=(CallTest((), ast.literal_eval(output)),),
        entry_point="answered",
        answer=code,
        answer_rule="call",
    )


def _aime(row: dict[str, Any], number: str, name: str) -> Task:
    """A contest problem in mathematics whose answer is a whole number, as AIME's are."""
    answer = str(row["answer"]).strip()
    if not answer.removeprefix("-").isdigit():
        raise ValueError(f"answer={answer!r} must be a whole number.")
    return Task(
        id=str(row.get("id", number)),
        statement=f"{row['problem']}\n\nPut the final answer, a whole number, in \\boxed{{}}.",
        answer=answer,
        answer_rule="integer",
    )


_FORMS = {
    ("statement", "tests"): _own,
    ("test_list", "code"): _mbpp,
    ("entry_point", "prompt", "test"): _humaneval,
    ("code", "input", "output"): _cruxeval,
    ("problem", "answer"): _aime,
}
