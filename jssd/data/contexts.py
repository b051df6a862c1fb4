"""Prompts with completions to look at, as token ids: sample records, or texts from any JSONL."""

import dataclasses
from pathlib import Path
from typing import Any

from jssd import places
from jssd.config import PromptsConfig
from jssd.data import prompts, rows, samples
from jssd.data.answers import Answers
from jssd.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Context:
    """A completion and what it answers; `completion_ids` may be cut."""

    prompt_id: str
    sample: int
    prompt_ids: list[int]
    completion_ids: list[int]

    def cut(self, max_tokens: int) -> "Context":
        """With the first so many tokens of the completion."""
        return dataclasses.replace(self, completion_ids=self.completion_ids[:max_tokens])


def read(
    where: str | Path, tokenizer: Tokenizer, template: str, answers: Answers | None = None
) -> list[Context]:
    """The contexts of a folder of samples, or of a .jsonl file.

    A row of a file holds `prompt_token_ids` and `token_ids`, as sample records do, or texts
    `prompt` and `completion`: the prompt is laid out by `template`, the completion taken as it is.
    `prompt_id` and `sample` are kept where they are given; else rows are numbered. Of a folder of
    samples, `answers` takes only what was trained on: the thinking becomes part of the prompt, and
    completions without an answer are left out.

    Raises FileNotFoundError without anything there, ValueError naming the row that has neither.
    """
    path = places.path(where)
    if path.is_dir():
        return _of_samples(samples.read_folder(path), answers)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Give a .jsonl file of contexts.")
    found = [
        _context(row, place, number, tokenizer, template)
        for number, (place, row) in enumerate(rows.read(PromptsConfig(source=str(path))))
    ]
    if not found:
        raise ValueError(f"{path} holds no rows. Give prompts with completions.")
    return found


def _of_samples(drawn: list[samples.Sample], answers: Answers | None) -> list[Context]:
    found = []
    for one in drawn:
        thinking = 0 if answers is None else answers.start(one)
        if thinking is not None:
            asked = one.prompt_token_ids + one.token_ids[:thinking]
            found.append(Context(one.prompt_id, one.sample, asked, one.token_ids[thinking:]))
    if not found:
        raise ValueError(
            f"none of {len(drawn)} samples has an answer to look at: their thinking never ends. "
            "Sample again with a larger sampling.max_new_tokens."
        )
    return found


def _context(
    row: dict[str, Any], place: str, number: int, tokenizer: Tokenizer, template: str
) -> Context:
    name, sample = str(row.get("prompt_id", number)), int(row.get("sample", 0))
    prompt_ids, ids = row.get("prompt_token_ids"), row.get("token_ids")
    if prompt_ids or ids:
        for value in (prompt_ids, ids):
            if not value or not all(type(i) is int and i >= 0 for i in value):
                raise ValueError(f"{place} must hold token ids in prompt_token_ids and token_ids.")
        return Context(name, sample, row["prompt_token_ids"], row["token_ids"])
    prompt, completion = row.get("prompt") or "", row.get("completion") or ""
    if not all(isinstance(text, str) and text for text in (prompt, completion)):
        raise ValueError(
            f"{place} must hold texts in prompt and completion, or token ids in prompt_token_ids "
            f"and token_ids. It has: {', '.join(sorted(row))}."
        )
    # Laid out raw, a text goes in letter by letter: a template would strip it.
    asked = tokenizer.prefix + prompt
    if template != "raw":
        asked = prompts.render(prompts.Problem(name, prompt), template, tokenizer)
    return Context(name, sample, tokenizer.encode(asked), tokenizer.encode(completion))
