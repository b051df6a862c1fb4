"""Tests of the pipes to a child, with programs that do not need a sandbox."""

import os
import time

import pytest

from jssd.evals.child import OUTPUT_LIMIT, Child, Failure, joined_text

ENV = {"PATH": "/usr/bin:/bin"}


def shell(script: str) -> Child:
    return Child(["/bin/sh", "-c", script], cwd="/", env=ENV)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_long_input_and_output_do_not_block_each_other():
    data = b"x" * (OUTPUT_LIMIT - 1)
    with shell("cat") as child:
        child.send(data, last=True)
        assert child.read_all(soon()) == data


def test_lines_are_asked_and_answered_in_turn():
    with shell("while read line; do echo got $line; done") as child:
        for number in (b"1", b"2"):
            child.send(number + b"\n")
            assert child.read_line(soon()) == b"got " + number


def test_unread_input_does_not_matter():
    with shell("exec <&-; echo done") as child:
        child.send(b"x" * 1_000_000, last=True)
        assert child.read_all(soon()) == b"done\n"


@pytest.mark.parametrize(
    "script, verdict, detail",
    [
        ("echo one; exit 3", "runtime_error", "ended early with status 3"),
        ("echo first >&2; echo why >&2; exit 1", "runtime_error", "why"),
        ("echo MemoryError: >&2; exit 1", "memory", "MemoryError:"),
        ("kill -XCPU $$", "timeout", "used up its processor time"),
        ("yes", "output_limit", f"wrote more than {OUTPUT_LIMIT} bytes"),
        ("yes >&2", "output_limit", f"wrote more than {OUTPUT_LIMIT} bytes"),
    ],
)
def test_ends_that_are_no_answer(script, verdict, detail):
    with shell(script) as child, pytest.raises(Failure) as failure:
        child.read_all(soon())
    assert (failure.value.verdict, failure.value.detail) == (verdict, detail)


def test_deadline_holds_for_lines_and_for_the_end():
    for read in (Child.read_line, Child.read_all):
        start = time.monotonic()
        with shell("sleep 30") as child, pytest.raises(Failure, match="timeout"):
            read(child, soon(0.2))
        assert time.monotonic() - start < 2


def test_left_over_process_with_the_pipes_does_not_hold_the_reader():
    start = time.monotonic()
    with shell("sleep 30 & echo done") as child:
        assert child.read_all(soon()) == b"done\n"
    assert time.monotonic() - start < 2


def test_start_that_fails_says_why():
    wall = shell("echo no such wall >&2; exit 1")
    with wall as child, pytest.raises(RuntimeError, match="did not start: no such wall"):
        child.wait_ready(b"ready\n", 10.0)


def test_ready_mark_is_not_an_error_text():
    with shell("echo ready >&2; echo broke >&2; exit 1") as child:
        child.wait_ready(b"ready\n", 10.0)
        with pytest.raises(Failure, match="runtime_error: broke"):
            child.read_line(soon())


def test_no_descriptor_stays_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with shell("cat"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_joined_text_stands_alone():
    text = joined_text("plain.py", "inside.py", main="main")
    assert "jssd." not in "".join(line for line in text.splitlines() if "import" in line)
    assert text.endswith("main()")
    compile(text, "joined", "exec")
