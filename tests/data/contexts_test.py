"""Contexts from sample records and from texts."""

import json

import pytest

from jssd.data import contexts
from jssd.data.tokenizer import Tokenizer
from tests.e2e import conftest


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(conftest.make_model(tmp_path_factory.mktemp("contexts") / "model"))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_go_in_letter_by_letter(tokenizer, tmp_path):
    row = {"prompt": "def f():\n", "completion": "    return 1\n"}
    (found,) = contexts.read(write(tmp_path / "a.jsonl", row), tokenizer, "raw")
    assert tokenizer.decode(found.prompt_ids) == row["prompt"]
    assert tokenizer.decode(found.completion_ids) == row["completion"]
    assert (found.prompt_id, found.sample) == ("0", 0)
    assert found.cut(3).completion_ids == found.completion_ids[:3]


def test_a_template_lays_prompts_out(tokenizer, tmp_path):
    row = {"prompt": "Add.", "completion": "1", "prompt_id": "p", "sample": 2}
    (found,) = contexts.read(write(tmp_path / "a.jsonl", row), tokenizer, "user")
    chat = tokenizer.chat([{"role": "user", "content": "Add."}])
    assert found.prompt_ids == tokenizer.encode(chat)
    assert (found.prompt_id, found.sample) == ("p", 2)


def test_token_ids_are_taken_as_they_are(tokenizer, tmp_path):
    row = {"prompt_token_ids": [1, 2], "token_ids": [3], "text": "x", "prompt": "y"}
    (found,) = contexts.read(write(tmp_path / "a.jsonl", row), tokenizer, "raw")
    assert (found.prompt_ids, found.completion_ids) == ([1, 2], [3])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        ([{"prompt": "a"}], r"a.jsonl:1 must hold texts in prompt and completion.*It has: prompt"),
        ([{"prompt": "a", "completion": ""}], "a.jsonl:1 must hold texts"),
        ([{"prompt_token_ids": [1], "token_ids": []}], "a.jsonl:1 must hold token ids"),
        ([{"prompt_token_ids": [1], "token_ids": ["x"]}], "a.jsonl:1 must hold token ids"),
    ],
)
def test_what_is_no_context_is_named(tokenizer, tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        contexts.read(write(tmp_path / "a.jsonl", *rows), tokenizer, "raw")


def test_a_missing_file(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.jsonl does not exist"):
        contexts.read(tmp_path / "a.jsonl", tokenizer, "raw")
