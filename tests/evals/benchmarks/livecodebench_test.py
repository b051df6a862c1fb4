"""Tests of reading LiveCodeBench's files: windows, tests from strangers, arguments, mistakes."""

import base64
import dataclasses
import json
import pickle
import zlib

import huggingface_hub
import pytest

from jssd.config import LIVECODEBENCH_RULES, EvalConfig, LiveCodeBenchConfig
from jssd.evals import grading
from jssd.evals.benchmarks import CallTest, StdinTest, catalogue, livecodebench
from jssd.evals.benchmarks.livecodebench_tests import decode_tests, read_arguments
from tests.evals.benchmarks import lcb_problems

WINDOW = "2025-02-01:2025-05-31"


def test_config_names_every_rule():
    assert tuple(livecodebench.RULES) == LIVECODEBENCH_RULES


def test_both_days_of_a_window_count(tmp_path):
    tasks, told = livecodebench.load(str(lcb_problems.write(tmp_path)), WINDOW)
    assert [task.id for task in tasks] == ["sum", "half", "words", "pair"]
    assert told == (
        "4 problems of contests from 2025-02-01 to 2025-05-31 (2 easy, 1 hard, 1 medium)"
    )


@pytest.mark.parametrize(
    ("window", "ids"),
    [
        ("2025-02-02:2025-02-28", ["half"]),
        ("2025-06-01:2025-06-01", ["flag"]),
        ("", ["sum", "half", "words", "pair", "flag"]),
    ],
)
def test_window_of_days(tmp_path, window, ids):
    tasks, _ = livecodebench.load(str(lcb_problems.write(tmp_path)), window)
    assert [task.id for task in tasks] == ids


def test_difficulty_asks_some_but_tells_of_all(tmp_path):
    tasks, told = livecodebench.load(str(lcb_problems.write(tmp_path)), WINDOW, "easy")
    assert [task.id for task in tasks] == ["sum", "pair"]
    assert told.startswith("4 problems") and told.endswith("only the easy ones asked")


@pytest.mark.parametrize(("name", "count"), [("v6", 131), ("v5", 374)])
def test_named_window_must_hold_the_papers_number(tmp_path, name, count):
    path = str(lcb_problems.write(tmp_path))
    with pytest.raises(
        ValueError, match=rf"window {name} .* not the paper's {count}: .*test6\.jsonl"
    ):
        livecodebench.load(path, name)


@pytest.mark.parametrize(
    ("name", "days"), [("v6", ("2025-02-01", "2025-05-31")), ("v5", ("2024-08-01", "2025-02-28"))]
)
def test_named_window_with_the_right_number_is_taken(tmp_path, name, days):
    count = livecodebench.WINDOWS[name].count
    rows = [
        lcb_problems.stdin(f"p{i}", days[i % 2], "easy", [("", "1")], [("", "1")])
        for i in range(count)
    ]
    outside = [
        lcb_problems.stdin("early", "2024-07-31", "easy", [("", "1")], [("", "1")]),
        lcb_problems.stdin("late", "2025-06-01", "easy", [("", "1")], [("", "1")]),
    ]
    tasks, told = livecodebench.load(str(lcb_problems.write(tmp_path, rows + outside)), name)
    assert len(tasks) == count
    assert told.startswith(f"{count} problems of contests from {days[0]} to {days[1]}")


def test_several_files_are_read_in_the_order_of_their_numbers(tmp_path):
    for number, row in zip(("", "2", "10"), lcb_problems.ROWS):
        lcb_problems.write(tmp_path, [row], f"test{number}.jsonl")
    files = livecodebench.locate(str(tmp_path))
    assert [file.name for file in files] == ["test.jsonl", "test2.jsonl", "test10.jsonl"]
    assert len(livecodebench.load(str(tmp_path))[0]) == 3


def test_problem_in_two_files_is_refused(tmp_path):
    lcb_problems.write(tmp_path)
    lcb_problems.write(tmp_path, lcb_problems.ROWS[:1], "test2.jsonl")
    with pytest.raises(ValueError, match="'sum' comes twice"):
        livecodebench.load(str(tmp_path))


def test_private_tests_alone_or_all(tmp_path):
    path = str(lcb_problems.write(tmp_path))
    (task, *_), _ = livecodebench.load(path)
    assert task.tests == (StdinTest("3\n1 2 3\n", "6\n"), StdinTest("1\n5\n", "5\n"))
    (task, *_), _ = livecodebench.load(path, strict=("tests",))
    assert task.tests[0] == StdinTest("2\n1 2\n", "3\n") and len(task.tests) == 3


def test_function_problem(tmp_path):
    tasks, _ = livecodebench.load(str(lcb_problems.write(tmp_path)))
    pair, flag = tasks[3:]
    assert pair.entry_point == "pair" and flag.entry_point == "flag"  # The second by its starter.
    assert pair.tests == (CallTest((3, [4, 5]), [3, 4, 5]), CallTest((0, []), [0]))
    assert flag.tests[0] == CallTest(
        ("false", "y"), ""
    )  # The release reads a bool as text, which is true.
    strict, _ = livecodebench.load(str(tmp_path), strict=("arguments",))
    assert strict[4].tests[0] == CallTest((False, "y"), "")


@pytest.mark.parametrize(
    ("text", "released", "strict"),
    [
        ("1\n2.5\n[1, [2]]", [1, 2.5, [1, [2]]], [1, 2.5, [1, [2]]]),
        ('"a b"', ["a b"], ["a b"]),
        ('"a\\nb"', ["a\\nb"], ["a\nb"]),  # An escape stays as it is written.
        ("null", ["null"], [None]),
        ("true", ["true"], [True]),
        ('{"a": 1}', ['{"a": 1}'], [{"a": 1}]),
        ("a = 1", [1], None),
        ('a = 1, s = "x"', [1, "x"], None),
        ('"x=1"', ['1'], ["x=1"]),  # Taken for a pair: the name, and a stripped quotation mark.
        ('"a==b"', None, ["a==b"]),
        ("[1, 2,]", None, None),
        ("1\n\n2\n", [1, 2], [1, 2]),
    ],
)  # fmt: skip
def test_arguments(text, released, strict):
    for rule, wanted in (("text", released), ("json", strict)):
        if wanted is None:
            with pytest.raises(ValueError):
                read_arguments(text, rule)
        else:
            assert read_arguments(text, rule) == wanted


def test_problem_that_no_program_passes_is_told_of(tmp_path, sandbox):
    row = lcb_problems.functional(
        "odd", "2025-03-01", "easy", ("odd", "s: str", "int"), [('"a"', "1")], [('"a==b"', "4")]
    )
    path = str(lcb_problems.write(tmp_path, [row]))
    (task,), told = livecodebench.load(path)
    assert told.endswith("1 that no program passes by the rules in force")
    program = "class Solution:\n    def odd(self, s): return len(s)"
    how = {"sandbox": sandbox, "memory_mb": 400}
    grade = grading.grade_program(task, program, protocol=livecodebench.protocol(), **how)
    assert grade.verdict == "wrong_answer" and "no program passes" in grade.detail
    (task,), told = livecodebench.load(path, strict=("all",))
    assert "no program" not in told
    strict = livecodebench.protocol(("all",))
    assert grading.grade_program(task, program, protocol=strict, **how).passed


@pytest.mark.parametrize("strict", [(), ("all",)])
def test_right_programs_pass(tmp_path, sandbox, strict):
    tasks, _ = livecodebench.load(str(lcb_problems.write(tmp_path)), strict=strict)
    answers = [f"So:\n```python\n{lcb_problems.PROGRAMS[task.id]}\n```\n" for task in tasks]
    grades = grading.grade_many(
        tasks, answers, protocol=livecodebench.protocol(strict), sandbox=sandbox, workers=2,
        memory_mb=400,
    )  # fmt: skip
    # "flag" is given the text "false", which is true, so the right program fails by that rule.
    wanted = ["passed"] * 4 + ["passed" if strict else "wrong_answer"]
    assert [grade.verdict for grade in grades] == wanted


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def _packed(value) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_packed(Evil()), "builtins.print is not a string"),
        (_packed([Evil()]), "is not a string"),
        (_packed(["a"]), "must be a pickled string, not a list"),
        (_packed(b"[]"), "is not a string|must be a pickled string"),
        (_packed("{}"), "must be a list of objects"),
        (_packed('[{"input": 1, "output": "", "testtype": "stdin"}]'), "must be a list of objects"),
        ("AAAA", "can't be decoded"),
        ("!", "can't be decoded"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "can't be decoded"),
    ],
)
def test_only_strings_are_unpickled(text, reason, capsys):
    with pytest.raises(ValueError, match=reason):
        decode_tests(text)
    assert capsys.readouterr().out == ""


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("jssd.evals.benchmarks.livecodebench_tests._LIMIT", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        decode_tests(_packed("[" + " " * 10_000 + "]"))


def test_plain_json_is_read_too():
    tests = [{"input": "1", "output": "2", "testtype": "stdin"}]
    assert decode_tests(json.dumps(tests)) == decode_tests(lcb_problems.pack(tests)) == tests


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question_content": None}, "no text in field 'question_content'"),
        ({"contest_date": "May"}, "contest_date='May' must be an ISO date"),
        ({"private_test_cases": "[]"}, "without private tests"),
        ({"private_test_cases": "AAAA"}, r"test\.jsonl:1: tests can't be decoded"),
        ({"metadata": "{}", "starter_code": "x = 1"}, "names no function"),
    ],
)
def test_broken_rows_are_named(tmp_path, change, reason):
    path = lcb_problems.write(tmp_path, [lcb_problems.ROWS[3] | change])
    with pytest.raises(ValueError, match=reason):
        livecodebench.load(str(path))


def test_missing_files_are_one_line_with_the_way_out(tmp_path):
    for path in ("", str(tmp_path), str(tmp_path / "none.jsonl")):
        with pytest.raises(FileNotFoundError, match=r"Put the files test\.jsonl to test6\.jsonl"):
            livecodebench.locate(path)


def test_dataset_on_the_hub_is_taken_as_plain_files(tmp_path, monkeypatch):
    asked = {}

    def download(name, **how):
        asked.update(how, name=name)
        return str(lcb_problems.write(tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    tasks, _ = livecodebench.load("hf:livecodebench/code_generation_lite", WINDOW)
    assert len(tasks) == 4
    assert asked == {
        "name": "livecodebench/code_generation_lite",
        "repo_type": "dataset",
        "allow_patterns": "test*.jsonl",  # Not the script.
    }


def test_hub_out_of_reach_is_one_line(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(FileNotFoundError, match=r"can't be downloaded: no network Put the files"):
        livecodebench.locate("hf:a/b")


def test_catalogue_finds_it_with_its_rules(tmp_path):
    section = LiveCodeBenchConfig(path=str(lcb_problems.write(tmp_path)), window=WINDOW)
    config = EvalConfig(benchmarks=("livecodebench",), livecodebench=section, limit=2)
    catalogue.check(config)
    bench = catalogue.find("livecodebench", config)
    assert [task.id for task in bench.tasks] == ["sum", "half"]
    assert bench.told.endswith("the first 2 of them asked")
    assert bench.protocol == livecodebench.protocol()
    assert (bench.protocol.budget(10), bench.protocol.seconds_each) == (75.0, 0.0)
    section.strict = ("budget",)
    strict = catalogue.find("livecodebench", config).protocol
    assert strict == dataclasses.replace(livecodebench.protocol(), seconds_each=6.0)
    with pytest.raises(ValueError, match="window v6"):
        catalogue.find("livecodebench_v6", config)
