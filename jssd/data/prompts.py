"""Problem sets to prompts: read rows, drop what is not asked, and put each problem into words."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

from jssd.config import PromptsConfig
from jssd.data import rows as problem_rows
from jssd.data import templates
from jssd.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing to ask. Blank `starter_code` makes it a stdin problem, else a function problem."""

    id: str
    statement: str
    starter_code: str = ""
    is_passed: bool | None = None  # A verdict that came with the data; None where there is none.


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One text for the model. `id` is the problem's; its second wording adds "#1", and so on."""

    id: str
    text: str
    token_ids: list[int]
    template: str


def read(config: PromptsConfig) -> list[Problem]:
    """Every row of `config.source`: a .jsonl or .parquet file, or "hf:owner/name[/config]".

    Without an id field, problems are numbered by row from "0", before anything is dropped.
    Raises FileNotFoundError or ValueError that name the file, the row and the way out.
    """
    rows = problem_rows.read(config)
    return [_problem(row, where, index, config) for index, (where, row) in enumerate(rows)]


def select(
    problems: Sequence[Problem], config: PromptsConfig
) -> tuple[list[Problem], dict[str, int]]:
    """The problems that are asked, and how many were left after each step.

    Steps, in order: blank statements go; rows not passed go (`require_is_passed`, before `dedup`,
    so that a problem stays when any of its rows passed); repeated statements go, whitespace
    normalised, the first stays; the first `limit` stay. Raises ValueError when nothing is left or
    two problems that stay share an id.
    """
    counts = {"read": len(problems)}
    kept = [problem for problem in problems if problem.statement.strip()]
    counts["not_blank"] = len(kept)
    if config.require_is_passed:
        if kept and all(problem.is_passed is None for problem in kept):
            raise ValueError(
                f"prompts.require_is_passed=True, but no row of {config.source} has is_passed. "
                "Set it to False."
            )
        kept = [problem for problem in kept if problem.is_passed]
        counts["passed"] = len(kept)
    if config.dedup:
        first: dict[str, Problem] = {}
        for problem in kept:
            first.setdefault(" ".join(problem.statement.split()), problem)
        kept = list(first.values())
        counts["deduplicated"] = len(kept)
    if config.limit:
        kept = kept[: config.limit]
        counts["limited"] = len(kept)
    if not kept:
        raise ValueError(
            f"prompts.source={config.source} leaves no problem to ask. Counts: {counts}."
        )
    _refuse_repeated(
        [problem.id for problem in kept], "Set prompts.id_field='' to number the rows."
    )
    return kept, counts


def build(problems: Sequence[Problem], config: PromptsConfig, tokenizer: Tokenizer) -> list[Prompt]:
    """The prompts of all problems, in `config.repeat` wordings each: all of a problem's wordings
    follow one another.

    Raises ValueError for a template with fewer wordings, or ids that collide.
    """
    template = templates.get(config.template)
    if config.repeat > len(template.stdin):
        raise ValueError(
            f"prompts.repeat={config.repeat} is more than the {len(template.stdin)} wordings of "
            f"template {template.name!r}. Lower it; for several answers to one prompt set "
            "sampling.n."
        )
    prompts = []
    for problem, wording in itertools.product(problems, range(config.repeat)):
        text = render(problem, config.template, tokenizer, config.system_prompt, wording)
        name = problem.id if wording == 0 else f"{problem.id}#{wording}"
        prompts.append(Prompt(name, text, tokenizer.encode(text), config.template))
    _refuse_repeated(
        [prompt.id for prompt in prompts], "Rename the problem that has '#' in its id."
    )
    return prompts


def render(
    problem: Problem,
    template: str,
    tokenizer: Tokenizer,
    system_prompt: str = "",
    wording: int = 0,
) -> str:
    """The exact text the model is given for `problem`; `tokenizer.encode` of it gives the prompt's
    ids.

    `system_prompt` replaces the template's own system text. Raises ValueError for an unknown
    template or wording, a system prompt where the template has no system turn, or a wording that
    needs a signature the problem lacks.
    """
    layout = templates.get(template)
    if system_prompt and not layout.system:
        raise ValueError(
            f"prompts.system_prompt is set, but template {template!r} has no system turn. Use "
            "template 'system'."
        )
    wordings = layout.function if problem.starter_code.strip() else layout.stdin
    if not 0 <= wording < len(wordings):
        raise ValueError(
            f"wording={wording} must be below {len(wordings)} for template {template!r}."
        )
    words = wordings[wording]
    text = words.format(
        statement=problem.statement.strip(),
        starter_code=problem.starter_code.strip("\n").rstrip(),
        signature=_signature(problem) if "{signature}" in words else "",
    )
    if not layout.chat:
        return tokenizer.prefix + text
    messages = [{"role": "user", "content": text}]
    if layout.system:
        messages.insert(0, {"role": "system", "content": system_prompt or layout.system})
    return tokenizer.chat(messages)


# A name and its bracket, up to the colon that opens the body; the arrow's type is left out.
_DEF = re.compile(
    r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+[ \t]*\(.*?\))\s*(?:->[^:]*)?:", re.M | re.S
)


def _signature(problem: Problem) -> str:
    # Helpers come first in starter code, so the last definition is the one to write.
    found = _DEF.findall(problem.starter_code)
    if not found:
        raise ValueError(
            f"problem {problem.id!r}: its starter code has no 'def', which template 'task' needs. "
            "Use template 'user'."
        )
    return " ".join(found[-1].split())


def _refuse_repeated(ids: list[str], way_out: str) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise ValueError(
                f"problem id {name!r} comes twice, but draws are addressed by id. {way_out}"
            )
        seen.add(name)


def _problem(row: dict[str, Any], where: str, index: int, config: PromptsConfig) -> Problem:
    """A row's problem. Raises ValueError naming the row for a missing field or a wrong type."""

    def text(name: str, setting: str) -> str:
        if name not in row:
            raise ValueError(
                f"{where} has no field {name!r} (prompts.{setting}). It has: "
                f"{', '.join(sorted(row))}."
            )
        if not isinstance(row[name], str):
            raise ValueError(f"{where}: field {name!r} must be text, not {row[name]!r}.")
        return row[name]

    starter = row.get(config.starter_code_field) or ""
    if not isinstance(starter, str):
        raise ValueError(
            f"{where}: field {config.starter_code_field!r} must be text, not {starter!r}."
        )
    passed = row.get("is_passed")
    if passed is not None and passed not in (True, False):
        raise ValueError(f"{where}: field 'is_passed' must be true or false, not {passed!r}.")
    name = str(index)
    if config.id_field:
        number = row.get(config.id_field)
        name = str(number) if type(number) is int else text(config.id_field, "id_field")
    return Problem(
        id=name,
        statement=text(config.question_field, "question_field"),
        starter_code=starter if starter.strip() else "",
        is_passed=None if passed is None else bool(passed),
    )
