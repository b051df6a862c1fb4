"""Tests of others' file formats, out and in, and of grading what stands in them."""

import json

import pytest

from jssd.evals import exchange, regrade
from jssd.evals.benchmarks import files, livecodebench
from tests.evals.benchmarks import lcb_problems

WRONG = "print('no')"


@pytest.fixture
def tasks(tmp_path):
    return livecodebench.load(str(lcb_problems.write(tmp_path / "lcb")))[0]


def test_custom_outputs_are_sorted_and_complete(tasks, tmp_path):
    text = exchange.custom_outputs([("words", "a"), ("sum", "b"), ("words", None)])
    assert json.loads(text) == [
        {"question_id": "sum", "code_list": ["b"]},
        {"question_id": "words", "code_list": ["a", ""]},
    ]
    (tmp_path / "out.json").write_text(text)
    assert exchange.read(tmp_path / "out.json", tasks) == [
        exchange.Graded("sum", "b"),
        exchange.Graded("words", "a"),
        exchange.Graded("words", ""),
    ]


def test_samples_round_trip(tasks, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(exchange.samples([("sum", "a\nb"), ("half", None)]))
    assert path.read_text().splitlines()[0] == '{"task_id": "sum", "solution": "a\\nb"}'
    assert exchange.read(path, tasks) == [
        exchange.Graded("sum", "a\nb"),
        exchange.Graded("half", ""),
    ]


def test_mbpp_has_the_ids_of_evalplus_in_files_and_either_is_read(tmp_path):
    row = {"code": "def f(x):\n    return x", "test_list": ["assert f(1) == 1"], "text": "Same."}
    lines = [row | {"task_id": task_id} for task_id in (2, "Mbpp/3")]
    data = tmp_path / "mbpp.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = files.load(data, "mbpp")
    assert [task.id for task in tasks] == ["mbpp/2", "mbpp/3"]
    path = tmp_path / "samples.jsonl"
    text = exchange.samples([(task.id, "f = int") for task in tasks])
    assert [json.loads(line)["task_id"] for line in text.splitlines()] == ["Mbpp/2", "Mbpp/3"]
    for given in (text, text.replace("Mbpp", "mbpp")):
        path.write_text(given)
        assert [graded.task_id for graded in exchange.read(path, tasks)] == ["mbpp/2", "mbpp/3"]
    path.write_text('{"task_id": "Mbpp/3", "completion": "    return x"}')
    (found,) = exchange.read(path, tasks)
    assert found == exchange.Graded("mbpp/3", "def f(x):\n    return x")
    path.write_text('{"task_id": "Mbpp/4", "solution": ""}')
    with pytest.raises(ValueError, match="names 'mbpp/4', which is not a task"):
        exchange.read(path, tasks)


def test_completions_go_on_from_the_starter_code(tasks, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"task_id": "pair", "completion": "return [a] + b"}))
    (found,) = exchange.read(path, tasks)
    compile(found.program, "", "exec")
    assert found.program.endswith("-> List[int]:\n        return [a] + b")


def test_plain_lists_are_in_the_order_of_the_ids(tasks, tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps([["a"], ["b"], ["c"], ["d"], ["e"]]))
    found = exchange.read(path, tasks)
    assert [graded.task_id for graded in found] == ["flag", "half", "pair", "sum", "words"]
    path.write_text(json.dumps([["a"]]))
    with pytest.raises(ValueError, match="1 lists for 5 problems"):
        exchange.read(path, tasks)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"question_id": "none", "code_list": ["a"]}]', "names 'none', which is not a task"),
        ('{"a": 1}', "is no file of programs"),
        ("[]", "holds no program"),
        ("x", "is no file of programs"),
        ('[{"question_id": "sum", "code_list": ["a"], "graded_list": [true, false]}]', "no file"),
    ],
)
def test_other_contents_are_refused(tasks, tmp_path, text, reason):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        exchange.read(path, tasks)


def test_command_tells_where_verdicts_differ(tmp_path, capsys):
    folder = lcb_problems.write(tmp_path / "lcb")
    graded = [
        {
            "question_id": name,
            "code_list": [lcb_problems.PROGRAMS[name], WRONG],
            "graded_list": [True, name == "sum"],  # Of "sum" the wrong one too.
        }
        for name in ("sum", "pair")
    ]
    path = tmp_path / "run_eval_all.json"
    path.write_text(json.dumps(graded))
    flags = ["--benchmark=livecodebench", f"--livecodebench={folder}", "--memory_mb=400"]
    assert regrade.main([*flags, str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["problems"], found["programs"], found["graded_by_both"]) == (2, 4, 4)
    assert found["pass@1"]["value"] == 0.5
    assert found["verdicts"] == {"passed": 2, "wrong_answer": 1, "runtime_error": 1}
    assert [(row["task_id"], row["sample"], row["ours"]) for row in found["differ"]] == [
        ("sum", 1, "wrong_answer")
    ]


def test_mistake_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text("[]")
    assert regrade.main(["--benchmark=livecodebench_v6", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jssd: error: LiveCodeBench is asked for") and said.count("\n") == 1
