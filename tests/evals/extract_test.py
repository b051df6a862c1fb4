"""Tests of which part of an answer is the program."""

import pytest

from jssd.evals.extract import extract_code

F = "```"


@pytest.mark.parametrize(
    "text, code",
    [
        (f"{F}python\nx = 1\n{F}", "x = 1\n"),
        (f"{F}\nx = 1\n{F}\nDone.", "x = 1\n"),
        (f"{F}c++\nx = 1\n{F}", "x = 1\n"),
        (f"Try:\n{F}py\na\n{F}\nBetter:\n{F}python\nb\n{F}\nThis works.", "b\n"),
        (f"{F}python\nx = 1\n", "x = 1\n"),
        (f"{F}python\na\n{F}python\nb\n{F}", "b\n"),
        (f"{F}python\nx = 1{F}", "x = 1\n"),
        (f"1. So:\n   {F}python\n   if x:\n       y\n   {F}", "if x:\n    y\n"),
        (f"{F}python\nx = 1\n{F}\n{F}\n\n{F}", "x = 1\n"),
        (f"{F}{F}python\nx = 1\n{F}{F}", "x = 1\n"),
        (f"{F}python\r\nx = 1\r\n{F}\r\n", "x = 1\n"),
        (f"Use {F}x = 1{F} here.\n{F}x = 2{F}\n", None),
        ("x = 1", None),
        ("", None),
        (f"{F}python\n\n{F}", None),
        (F, None),
    ],
)
def test_last_fence(text, code):
    assert extract_code(text) == code
