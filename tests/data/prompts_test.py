"""Tests of jssd/data/prompts.py, rows.py and templates.py."""

import dataclasses
import json
import sys
import types
from pathlib import Path

import pytest

from jssd.config import PromptsConfig
from jssd.data import prompts, templates
from jssd.data.prompts import Problem
from jssd.data.tokenizer import Tokenizer

ADD = Problem("p", "Return the sum of a and b.", "def add(a, b):\n")
ECHO = Problem("e", "Print what you read.")


def jsonl(path: Path, rows: list) -> str:
    file = path / "problems.jsonl"
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return str(file)


# Reading.


def test_jsonl_rows_are_numbered_before_anything_is_dropped(tmp_path):
    rows = [{"question": " "}, "", {"question": "A", "starter_code": "def f():", "is_passed": True}]
    read = prompts.read(PromptsConfig(source=jsonl(tmp_path, rows)))
    assert [problem.id for problem in read] == ["0", "1"]
    assert read[1] == Problem("1", "A", "def f():", True)


def test_fields_are_chosen_by_config(tmp_path):
    source = jsonl(tmp_path, [{"q": "A", "code": "  ", "key": 7}, {"q": "B", "key": "x"}])
    config = PromptsConfig(
        source=source, question_field="q", starter_code_field="code", id_field="key"
    )
    assert prompts.read(config) == [Problem("7", "A"), Problem("x", "B")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "a"', r"problems.jsonl:2 isn't valid JSON"),
        ("[1]", r"problems.jsonl:2 must be a JSON object, not a list"),
        ('{"text": "a"}', r"problems.jsonl:2 has no field 'question' .* It has: text"),
        ('{"question": 3}', r"problems.jsonl:2: field 'question' must be text, not 3"),
        ('{"question": "a", "is_passed": "yes"}', r"problems.jsonl:2: field 'is_passed'"),
        ('{"question": "a", "starter_code": 1}', r"problems.jsonl:2: field 'starter_code'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        prompts.read(PromptsConfig(source=jsonl(tmp_path, [{"question": "ok"}, row])))


def test_bad_sources_are_refused(tmp_path):
    for source, error in (
        ("tasks:train", ValueError),
        ("x.csv", ValueError),
        (str(tmp_path / "no.jsonl"), FileNotFoundError),
        ("hf:name-only", ValueError),
    ):
        with pytest.raises(error, match=r"prompts\.source="):
            prompts.read(PromptsConfig(source=source))
    with pytest.raises(ValueError, match=r"prompts\.split='test' only fits"):
        prompts.read(PromptsConfig(source=jsonl(tmp_path, []), split="test"))


def test_parquet_reads_like_jsonl(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"question": "A", "starter_code": None, "is_passed": True, "answer": "x" * 99},
        {"question": "B", "starter_code": "def f():", "is_passed": False, "answer": "y"},
    ]
    path = tmp_path / "problems.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    expected = [Problem("0", "A", "", True), Problem("1", "B", "def f():", False)]
    assert prompts.read(PromptsConfig(source=str(path))) == expected
    with pytest.raises(ValueError, match=r"no column 'q' .* It has: question, starter_code, is_pa"):
        prompts.read(PromptsConfig(source=str(path), question_field="q"))
    path.write_bytes(b"PAR1 not parquet")
    with pytest.raises(ValueError, match="can't be read as Parquet"):
        prompts.read(PromptsConfig(source=str(path)))


def test_missing_packages_name_their_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "p.parquet").touch()
    with pytest.raises(ValueError, match=r"pip install 'jssd\[parquet\]'"):
        prompts.read(PromptsConfig(source=str(tmp_path / "p.parquet")))
    with pytest.raises(ValueError, match=r"pip install 'jssd\[hub\]'"):
        prompts.read(PromptsConfig(source="hf:owner/name"))


class FakeTable(list):
    column_names = ("question", "answer")

    def select_columns(self, names):
        return FakeTable({name: row[name] for name in names} for row in self)


def test_hub_source_passes_name_config_and_split(monkeypatch):
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        return FakeTable([{"question": "A", "answer": "x"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    config = PromptsConfig(source="hf:owner/name/part", split="test", revision="abc123")
    assert prompts.read(config) == [Problem("0", "A")]
    assert calls == [(("owner/name", "part"), {"split": "test", "revision": "abc123"})]


def test_hub_offline_is_one_clear_line(monkeypatch):
    def load_dataset(*args, **options):
        raise ConnectionError("no\nroute")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(ValueError, match=r"can't be loaded: no route. Check the name"):
        prompts.read(PromptsConfig(source="hf:owner/name"))


# Selecting.


def ids(problems: list[Problem]) -> list[str]:
    return [problem.id for problem in problems]


def test_dedup_ignores_white_space_and_keeps_the_first():
    problems = [Problem("0", "a  b"), Problem("1", " a\n\tb "), Problem("2", "A b")]
    kept, counts = prompts.select(problems, PromptsConfig())
    assert ids(kept) == ["0", "2"]
    assert counts == {"read": 3, "not_blank": 3, "deduplicated": 2}
    assert ids(prompts.select(problems, PromptsConfig(dedup=False))[0]) == ["0", "1", "2"]


def test_a_problem_stays_when_any_of_its_rows_passed():
    problems = [
        Problem("0", "a", is_passed=False),
        Problem("1", "a", is_passed=True),
        Problem("2", "b", is_passed=None),
        Problem("3", " "),
        Problem("4", "c", is_passed=True),
    ]
    config = PromptsConfig(require_is_passed=True, limit=1)
    kept, counts = prompts.select(problems, config)
    assert ids(kept) == ["1"]
    assert counts == {"read": 5, "not_blank": 4, "passed": 2, "deduplicated": 2, "limited": 1}


def test_selections_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="no row of x has is_passed"):
        prompts.select([ECHO], PromptsConfig(source="x", require_is_passed=True))
    with pytest.raises(ValueError, match="leaves no problem to ask"):
        prompts.select([Problem("0", " ")], PromptsConfig())
    with pytest.raises(ValueError, match="id '0' comes twice"):
        prompts.select([Problem("0", "a"), Problem("0", "b")], PromptsConfig())


# Rendering.


@pytest.fixture
def tokenizer(make_folder) -> Tokenizer:
    return Tokenizer(make_folder())


def test_task_prompts_read_like_a_person_wrote_them(tokenizer):
    text = prompts.render(ADD, "task", tokenizer)
    assert "user\nWrite a Python function `add(a, b)`. Return the sum of a and b.<|im" in text
    text = prompts.render(ADD, "task", tokenizer, wording=1)
    assert "```python\ndef add(a, b):\n```<|im_end|>" in text
    assert "Write a Python program. Print what you read." in prompts.render(ECHO, "task", tokenizer)


@pytest.mark.parametrize(
    ("code", "signature"),
    [
        (
            "def helper(x):\n    return x\n\ndef main(a: dict[str, int] = {},\n  b=(1, 2)) -> int:",
            None,
        ),
        ("class Solution:\n    def twoSum(self, nums: List[int]) -> List[int]:\n", None),
        ("async def f(): ...", "f()"),
    ],
)
def test_the_last_signature_is_asked_for(tokenizer, code, signature):
    expected = signature or (
        "main(a: dict[str, int] = {}, b=(1, 2))"
        if "main" in code
        else "twoSum(self, nums: List[int])"
    )
    text = prompts.render(Problem("p", "Do it.", code), "task", tokenizer)
    assert f"`{expected}`" in text


def test_raw_is_the_bare_statement_with_what_the_tokenizer_puts_first(make_folder):
    tokenizer = Tokenizer(make_folder(bos=True, chat=None))
    assert prompts.render(Problem("p", " {x}\n"), "raw", tokenizer) == "<|bos|>{x}"
    assert prompts.render(ADD, "raw", tokenizer).endswith("b.\n\ndef add(a, b):")


def test_system_prompt_replaces_the_templates_own(tokenizer):
    own = prompts.render(ECHO, "system", tokenizer)
    assert own.startswith("<|im_start|>system\nSolve the programming problem in Python")
    text = prompts.render(ECHO, "system", tokenizer, system_prompt="Be brief.")
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nPrint what")
    with pytest.raises(ValueError, match="has no system turn"):
        prompts.render(ECHO, "user", tokenizer, system_prompt="Be brief.")


@pytest.mark.parametrize("problem", [ADD, ECHO])
def test_apple_user_wraps_the_same_text_as_apple_raw(tokenizer, problem):
    raw = prompts.render(problem, "apple_raw", tokenizer)
    assert prompts.render(problem, "apple_user", tokenizer) == tokenizer.chat(
        [{"role": "user", "content": raw}]
    )
    assert raw.startswith("Below is") and raw.endswith("```")
    assert problem.statement in raw and problem.starter_code.strip() in raw


def test_released_evaluators_layout(tokenizer):
    stdin = prompts.Problem("p", "Print it.")
    text = prompts.render(stdin, "apple_eval", tokenizer)
    assert "```python\n  # your code\n```" in text  # Indented, and nothing on the format before it.
    assert "must have this format" not in text
    starter = prompts.Problem("p", "Add.", "class Solution:\n    def add(self, a):\n        ")
    (left_open,) = templates.get("apple_eval").function
    assert left_open.endswith('shown below."\n```python\n{starter_code}\n')
    (closed,) = templates.get("apple_eval_closed").function
    assert closed.endswith("shown below.\n```python\n{starter_code}\n```")
    assert "def add(self, a):\n```" in prompts.render(starter, "apple_eval_closed", tokenizer)


@pytest.mark.parametrize("name", templates.TEMPLATES)
@pytest.mark.parametrize("problem", [ADD, ECHO])
def test_every_wording_of_every_template_holds_the_statement_once(tokenizer, name, problem):
    layout = templates.get(name)
    assert len(layout.stdin) == len(layout.function)
    texts = [prompts.render(problem, name, tokenizer, wording=i) for i in range(len(layout.stdin))]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert text.count(problem.statement) == 1
        assert "{" not in text


def test_unknown_names_are_refused(tokenizer):
    with pytest.raises(ValueError, match="Choose one of: raw, user, system"):
        prompts.render(ADD, "chat", tokenizer)
    with pytest.raises(ValueError, match="wording=1 must be below 1"):
        prompts.render(ADD, "user", tokenizer, wording=1)
    with pytest.raises(ValueError, match="problem 'p': its starter code has no 'def'"):
        prompts.render(dataclasses.replace(ADD, starter_code="x = 1"), "task", tokenizer)


def test_repeat_asks_in_several_wordings_with_stable_ids(tokenizer):
    config = PromptsConfig(template="task", repeat=2)
    built = prompts.build([ADD, ECHO], config, tokenizer)
    assert [prompt.id for prompt in built] == ["p", "p#1", "e", "e#1"]
    assert all(tokenizer.encode(prompt.text) == prompt.token_ids for prompt in built)
    assert built[0].text == prompts.render(ADD, "task", tokenizer)
    with pytest.raises(ValueError, match=r"prompts\.repeat=2 is more than the 1 wordings"):
        prompts.build([ADD], PromptsConfig(template="user", repeat=2), tokenizer)
    with pytest.raises(ValueError, match="'p#1' comes twice"):
        prompts.build([ADD, dataclasses.replace(ADD, id="p#1")], config, tokenizer)
