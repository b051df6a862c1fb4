"""Small original Python tasks for weak models, split by family into `train` and `heldout`.

The texts live in `task_families`, one block per task, a blank line between blocks:

    ## family | big factor       Starts a family. The names after `|` are columns of its rows.
    | hours 60                   A row of values: each block of the family is written once per row.
    area(width, height)          The head of a function task; `: name` heads a stdin task.
    Return the area of ...       The statement, on one or more lines.
        return width * height    The reference solution: a function body, or a whole program.
    ? 2, 3 | 0, 5                Tests: the arguments of a call, or a stdin text, between bars.

What a test expects is computed by running the reference, so it cannot disagree with it.
"""

import ast
import contextlib
import copy
import functools
import io
import sys
import textwrap
from typing import Any

from jssd.evals.benchmarks import CallTest, StdinTest, Task
from jssd.evals.benchmarks.task_families import HELDOUT_FAMILIES, TEXTS


def load(split: str) -> list[Task]:
    """The tasks of one split, "train" or "heldout", ordered by id. ValueError for any other."""
    if split not in ("train", "heldout"):
        raise ValueError(f"split={split!r} is not in benchmark 'tasks'. Choose train or heldout.")
    wanted = [task for family, task in _families() if split_of(family) == split]
    return sorted(wanted, key=lambda task: task.id)


def split_of(family: str) -> str:
    """The split a family belongs to, with all its tasks."""
    return "heldout" if family in HELDOUT_FAMILIES else "train"


@functools.cache
def _families() -> tuple[tuple[str, Task], ...]:
    """Every task with the name of its family, in the order of the texts."""
    found = []
    for text in TEXTS:
        for section in text.split("\n## ")[1:]:
            header, _, body = section.partition("\n")
            family, _, columns = header.partition(" | ")
            found += [(family, _task(block)) for block in _blocks(body, columns.split())]
    return tuple(found)


def _blocks(body: str, columns: list[str]) -> list[str]:
    """The blocks of one family; with columns, once per row and with `<column>` filled in."""
    lines = body.splitlines()
    rows = [line[2:].split() for line in lines if line.startswith("| ")]
    template = "\n".join(line for line in lines if not line.startswith("| "))
    filled = []
    for row in rows or [[]]:
        text = template
        for column, value in zip(columns, row, strict=True):
            text = text.replace(f"<{column}>", value)
        filled.append(text)
    # A reference may hold blank lines, so a block ends with its tests.
    blocks = "\n\n".join(filled).split("\n\n")
    joined: list[str] = []
    for block in blocks:
        if joined and "\n?" not in joined[-1]:
            joined[-1] += "\n\n" + block
        else:
            joined.append(block)
    return [block.strip("\n") for block in joined if block.strip()]


def _task(block: str) -> Task:
    head, *lines = block.splitlines()
    code = textwrap.dedent(
        "\n".join(line for line in lines if line.startswith("    ") or not line)
    ).strip("\n")
    words = " ".join(line for line in lines if line and line[0] not in " ?")
    inputs = [
        ast.literal_eval(f"({piece},)")
        for line in lines
        if line.startswith("? ")
        for piece in line[2:].split(" | ")
    ]
    if head.startswith(": "):
        return _stdin_task(head[2:], words, code, inputs)
    return _function_task(head, words, code, inputs)


def _function_task(head: str, words: str, code: str, inputs: list[tuple[Any, ...]]) -> Task:
    name = head.partition("(")[0]
    doc = textwrap.fill(f'"""{words}', width=92, initial_indent="    ", subsequent_indent="    ")
    doc += '\n    """' if "\n" in doc else '"""'
    reference = f"def {head}:\n{textwrap.indent(code, '    ')}\n"
    scope: dict[str, Any] = {}
    exec(reference, scope)
    return Task(
        id=f"tasks/fn/{name}",
        statement=words,
        starter_code=f"def {head}:\n{doc}\n",
        entry_point=name,
        # The reference gets a copy, so that not even a careless one could change its own test.
        tests=tuple(CallTest(args, scope[name](*copy.deepcopy(args))) for args in inputs),
        reference=reference,
    )


def _stdin_task(name: str, words: str, code: str, inputs: list[tuple[Any, ...]]) -> Task:
    reference = code + "\n"
    return Task(
        id=f"tasks/io/{name}",
        statement=words,
        tests=tuple(StdinTest(stdin, _stdout(reference, stdin)) for (stdin,) in inputs),
        reference=reference,
    )


def _stdout(program: str, stdin: str) -> str:
    """What one of our own reference programs prints. Not a sandbox: the program runs right here."""
    printed = io.StringIO()
    before = sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(printed):
            exec(program, {"__name__": "__main__"})
    finally:
        sys.stdin = before
    return printed.getvalue()
