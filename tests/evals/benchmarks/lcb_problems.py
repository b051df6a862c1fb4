"""Problems of our own in the form of LiveCodeBench's released files."""

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path

STARTER = "class Solution:\n    def {name}(self, {args}) -> {result}:\n        "


def pack(tests: list[dict]) -> str:
    """Tests as the released files store the private ones."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def stdin(name: str, day: str, level: str, public, private) -> dict:
    """A row of a stdin problem; tests are pairs (input, output)."""
    row = _row(name, day, level, _tests(public, "stdin"), _tests(private, "stdin"))
    return row | {"starter_code": "", "metadata": "{}", "platform": "atcoder"}


def functional(name: str, day: str, level: str, head, public, private, metadata=True) -> dict:
    """A row of a function problem; `head` is (function, arguments, result type)."""
    function, args, result = head
    kind = "functional"
    row = _row(name, day, level, _tests(public, kind), _tests(private, kind))
    return row | {
        "starter_code": STARTER.format(name=function, args=args, result=result),
        "metadata": json.dumps({"func_name": function} if metadata else {}),
        "platform": "leetcode",
    }


def _row(name: str, day: str, level: str, public: list[dict], private: list[dict]) -> dict:
    return {
        "question_id": name,
        "question_title": name,
        "question_content": f"Solve {name}.",
        "contest_id": "ours",
        "contest_date": f"{day}T00:00:00",
        "difficulty": level,
        "public_test_cases": json.dumps(public),
        "private_test_cases": pack(private),
    }


def _tests(pairs: Sequence[tuple[str, str]], kind: str) -> list[dict]:
    return [{"input": given, "output": wanted, "testtype": kind} for given, wanted in pairs]


ROWS = [
    stdin(
        "sum", "2025-02-01", "easy",
        [("2\n1 2\n", "3\n")], [("3\n1 2 3\n", "6\n"), ("1\n5\n", "5\n")],
    ),
    stdin("half", "2025-02-28", "medium", [("1\n", "0.5\n")], [("3\n", "1.50\n"), ("2\n", "1\n")]),
    stdin("words", "2025-03-01", "hard", [("a\n", "A\n")], [("ab c\n", "AB\nC\n")]),
    functional(
        "pair", "2025-05-31", "easy", ("pair", "a: int, b: List[int]", "List[int]"),
        [("1\n[2]", "[1, 2]")], [("3\n[4, 5]", "[3, 4, 5]"), ("0\n[]", "[0]")],
    ),
    functional(
        "flag", "2025-06-01", "hard", ("flag", "on: bool, name: str", "str"),
        [('true\n"x"', '"x"')], [('false\n"y"', '""'), ('true\n"z"', '"z"')], metadata=False,
    ),
]  # fmt: skip
PROGRAMS = {
    "sum": "n = int(input())\nprint(sum(map(int, input().split())))",
    "half": "print(int(input()) / 2)",
    "words": "print(*input().upper().split(), sep='\\n')",
    "pair": "class Solution:\n    def pair(self, a, b):\n        return [a] + b",
    "flag": "class Solution:\n    def flag(self, on, name):\n        return name if on else ''",
}


def write(folder: Path, rows: Sequence[dict] = ROWS, name: str = "test.jsonl") -> Path:
    """The rows as a released file; returns the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
