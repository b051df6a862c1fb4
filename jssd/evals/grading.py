"""Completions in, verdicts out.

The program under test only produces plain data. What it should have produced stays on this side: in
this process for calls and printed text, in a checker process of its own for `check(candidate)`.
"""

import concurrent.futures
import dataclasses
import functools
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence

from jssd.evals import compare, plain
from jssd.evals.benchmarks import CallTest, StdinTest, Task
from jssd.evals.child import OUTPUT_LIMIT, PYTHON_FLAGS, Child, Failure, joined_text
from jssd.evals.extract import extract_answer, extract_code
from jssd.evals.inside import READY
from jssd.evals.protocol import Protocol
from jssd.evals.sandbox import START_SECONDS, Sandbox

VERDICTS = (
    "passed",
    "wrong_answer",  # Ran to the end with another result.
    "runtime_error",  # Raised, exited early, or is not Python.
    "timeout",
    "memory",
    "output_limit",
    "bad_output",  # Returned something other than plain data.
    "no_code",  # The answer holds no fenced block, or whatever its benchmark asks for.
)
_CHILD_MAY_SAY = ("runtime_error", "memory", "bad_output")


@dataclasses.dataclass(frozen=True)
class Grade:
    """How one completion did."""

    verdict: str  # One of VERDICTS.
    detail: str  # One line; "" for a pass.
    seconds: float  # Wall clock from the program's first line to the verdict.

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"


def grade_many(
    tasks: Sequence[Task],
    completions: Sequence[str],
    *,
    protocol: Protocol | None = None,
    sandbox: Sandbox,
    workers: int,
    memory_mb: int,
    on_grade: Callable[[list[int], Grade], None] | None = None,
) -> list[Grade]:
    """The grade of each completion for the task at the same place: of its program, or of the short
    answer in it. Arguments and errors are those of `grade_programs`."""
    _refuse_unequal(tasks, completions)
    protocol = protocol or Protocol()
    programs = [read_answer(task, text, protocol) for task, text in zip(tasks, completions)]
    return grade_programs(
        tasks,
        programs,
        protocol=protocol,
        sandbox=sandbox,
        workers=workers,
        memory_mb=memory_mb,
        on_grade=on_grade,
    )


def grade_programs(
    tasks: Sequence[Task],
    programs: Sequence[str | None],
    *,
    protocol: Protocol | None = None,
    sandbox: Sandbox,
    workers: int,
    memory_mb: int,
    on_grade: Callable[[list[int], Grade], None] | None = None,
) -> list[Grade]:
    """The grade of each program for the task at the same place, in that order; see `grade_program`.

    `protocol` has the rules; by default this project's own. `workers` programs run at once. Equal
    programs for one task are run once and share their grade. `on_grade` gets it as it comes, with
    the places of these programs, from the calling thread.

    Raises ValueError for sequences of unequal length, and RuntimeError when the sandbox breaks
    down, which no completion is to blame for.
    """
    _refuse_unequal(tasks, programs)
    places: dict[tuple[int, str | None], list[int]] = {}
    for place, (task, program) in enumerate(zip(tasks, programs, strict=True)):
        places.setdefault((id(task), program), []).append(place)
    grades: list[Grade | None] = [None] * len(tasks)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        limits = {"protocol": protocol, "sandbox": sandbox, "memory_mb": memory_mb}
        waiting = {
            pool.submit(grade_program, tasks[where[0]], code, **limits): where
            for (_, code), where in places.items()
        }
        try:
            for future in concurrent.futures.as_completed(waiting):
                for place in waiting[future]:
                    grades[place] = future.result()
                if on_grade:
                    on_grade(waiting[future], future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [grade for grade in grades if grade is not None]


def read_answer(task: Task, completion: str, protocol: Protocol) -> str | None:
    """The part of a completion that is graded: a program, or the short answer that the task asks
    for; None where there is none."""
    if task.answer_rule:
        return extract_answer(completion, task.answer_rule)
    return extract_code(completion, task.entry_point, protocol.extraction)


def grade_program(
    task: Task,
    code: str | None,
    *,
    protocol: Protocol | None = None,
    sandbox: Sandbox,
    memory_mb: int,
) -> Grade:
    """The grade of one program or short answer; None stands for a completion without one.

    The time that `protocol` gives is wall clock from the program's first line on. Testing stops at
    the first failure.
    """
    protocol = protocol or Protocol()
    if code is None:
        wanted = "words in the form asked for" if task.answer_rule else "fenced block"
        return Grade("no_code", f"no {wanted} in the answer", 0.0)
    if task.unpassable:
        return Grade("wrong_answer", f"no program passes: {task.unpassable}", 0.0)
    if task.answer_rule in ("integer", "literal"):
        same = compare.same_answer(task.answer, code, task.answer_rule)
        shown = " ".join(code.split())[:120]
        return Grade("passed", "", 0.0) if same else Grade("wrong_answer", f"answered {shown}", 0.0)
    if task.answer_rule == "call":
        code = f"{task.answer}\n\n\ndef {task.entry_point}():\n    return {code}\n"
    clock = _Clock(protocol.budget(len(task.tests)), protocol.seconds_each)
    start = functools.partial(
        sandbox.start,
        code,
        protocol=protocol,
        output_limit=_output_limit(task),
        timeout=protocol.budget(len(task.tests)),
        memory_mb=memory_mb,
    )
    if task.entry_point:
        start = functools.partial(
            start, starter_code=task.starter_code, entry_point=task.entry_point
        )
    try:
        if task.check_source:
            _grade_check(task, start, clock)
        elif task.entry_point:
            _grade_calls(task, start, clock, protocol.values)
        else:
            _grade_scripts(task, start, clock)
    except Failure as failure:
        return Grade(failure.verdict, failure.detail, clock.spent())
    return Grade("passed", "", clock.spent())


def _refuse_unequal(tasks: Sequence[Task], completions: Sequence[str | None]) -> None:
    if len(tasks) != len(completions):
        raise ValueError(
            f"{len(tasks)} tasks and {len(completions)} completions must be equally many: "
            "give the task of each completion."
        )


def _output_limit(task: Task) -> int:
    """Bytes of output that end a program: what is expected, twice over, is always let through."""
    longest = max(
        (len(test.stdout) for test in task.tests if isinstance(test, StdinTest)), default=0
    )
    return max(OUTPUT_LIMIT, 8 * longest)  # A character has four bytes at most.


class _Clock:
    """A time budget that runs only while the program does, not while walls are being built."""

    def __init__(self, budget: float, each: float):
        self._left, self._since = budget, None
        self._budget, self._each = budget, each or budget

    def run(self) -> float:
        """Starts the clock, for one test; returns the deadline on the monotonic clock."""
        self.pause()
        self._since = time.monotonic()
        return self._since + min(self._left, self._each)

    def pause(self) -> None:
        if self._since is not None:
            self._left -= time.monotonic() - self._since
            self._since = None

    def spent(self) -> float:
        self.pause()
        return round(self._budget - self._left, 4)


def _grade_scripts(task: Task, start: Callable, clock: _Clock) -> None:
    for number, test in enumerate(task.tests, 1):
        assert isinstance(test, StdinTest)
        with start(stdin=test.stdin.encode()) as child:
            printed = child.read_all(clock.run()).decode("utf8", "replace")
            clock.pause()
        if not compare.same_output(test.stdout, printed):
            raise Failure("wrong_answer", f"test {number} of {len(task.tests)}: printed otherwise")


def _grade_calls(task: Task, start: Callable, clock: _Clock, values: str) -> None:
    with start() as child:
        _value(child.read_line(clock.run()))
        for number, test in enumerate(task.tests, 1):
            assert isinstance(test, CallTest)
            child.send(_line(plain.encode([list(test.args), {}])))
            value = _value(child.read_line(clock.run()))
            try:
                same = compare.same_result(test.expected, value, values)
            except RecursionError as error:
                raise Failure("bad_output", "nested too deep to compare") from error
            if not same:
                where = f"test {number} of {len(task.tests)}"
                raise Failure("wrong_answer", f"{where}: {_short(value)}")


def _grade_check(task: Task, start: Callable, clock: _Clock) -> None:
    text = joined_text("plain.py", "inside.py", "checker.py", main="judge")
    command = [sys.executable, *PYTHON_FLAGS, "-c", text]
    token = uuid.uuid4().hex  # Only the checker has it, so nobody else can write its verdict.
    orders = {
        "starter_code": task.starter_code,
        "entry_point": task.entry_point,
        "check_source": task.check_source,
        "token": token,
    }
    with Child(command, cwd="/", env={"LANG": "C.UTF-8"}) as checker:
        checker.send(_line(orders))
        checker.wait_ready(READY, START_SECONDS)
        with start() as child:
            deadline = clock.run()
            _value(child.read_line(deadline))
            while True:
                message = _from_checker(checker, deadline)
                if "call" not in message:
                    break
                child.send(_line(message["call"]))
                checker.send(_line(_value(child.read_line(deadline))))
    if message["token"] != token:
        raise RuntimeError(f"task {task.id!r}: the verdict did not come from the checker.")
    verdict, detail = message["verdict"]
    if verdict != "passed":
        raise Failure(verdict, detail)


def _from_checker(checker: Child, deadline: float) -> dict:
    """The checker's next message. It fails only on results that no honest program returns."""
    try:
        return json.loads(checker.read_line(deadline))
    except Failure as failure:
        if failure.verdict == "timeout":
            raise Failure("timeout", "checking the results took too long") from failure
        raise Failure("bad_output", f"the check broke down: {failure.detail}") from failure


def _value(line: bytes):
    """The JSON form of the value in one line from the program. Raises Failure for anything else."""
    try:
        reply = json.loads(line)
        if "value" in reply:
            return reply["value"]
        verdict, detail = reply["fail"]
        known = verdict in _CHILD_MAY_SAY and isinstance(detail, str)
    except (ValueError, TypeError, KeyError, RecursionError):
        known = False
        verdict = detail = ""
    if not known:
        raise Failure("bad_output", f"not a reply: {_short(line.decode('utf8', 'replace'))}")
    raise Failure(verdict, " ".join(detail.split())[:300])


def _line(data) -> bytes:
    return json.dumps(data).encode() + b"\n"


def _short(data) -> str:
    return "returned " + " ".join(json.dumps(data).split())[:120]
