"""A table of tricky answers: the verdict by the rules of the paper's evaluator, by their strict
twins, and why. Where the two differ, the rule that decides is named and tried alone.
"""

import dataclasses

import pytest

from jssd.evals import grading
from jssd.evals.benchmarks import livecodebench
from tests.evals.benchmarks import lcb_problems as ours

P, W, E, T, N, B = (
    "passed",
    "wrong_answer",
    "runtime_error",
    "timeout",
    "no_code",
    "bad_output",
)
F = "```"


def block(code: str, tag: str = "python") -> str:
    return f"{F}{tag}\n{code}\n{F}\n"


def printing(text: str) -> str:
    return block(f"print({text!r}, end='')")


def returning(value: str) -> str:
    return block(f"class Solution:\n    def f(self, x):\n        return {value}")


def stdin(wanted: str, given: str = "7\n8\n"):
    return ours.stdin("p", "2025-03-01", "easy", [(given, wanted)], [(given, wanted)])


def function(wanted: str, given: str = "7"):
    head = ("f", "x: int", "object")
    return ours.functional("p", "2025-03-01", "easy", head, [(given, wanted)], [(given, wanted)])


def two_calls(*tests):
    head = ("f", "x: int", "int")
    return ours.functional("p", "2025-03-01", "easy", head, tests[:1], tests)


# (name, problem, answer, verdict of the release, verdict of the twins, rule that decides)
TABLE = [
    # Whitespace. Contest sites forgive it at the ends of lines and of the text.
    ("no line's end", stdin("7\n"), printing("7"), P, P, ""),
    ("spaces at both ends", stdin("7 8\n9\n"), printing("  7 8 \n9\n\n\n"), P, P, ""),
    ("other line ends", stdin("7\n8\n"), printing("7\r\n8\r\n"), P, P, ""),
    # Between numbers they do not count, as the tokens are compared; between words they do.
    ("two spaces between numbers", stdin("7 8\n"), printing("7  8\n"), P, P, ""),
    ("two spaces between words", stdin("a b\n"), printing("a  b\n"), W, W, ""),
    # An empty line in the middle is content: it may stand for an empty answer.
    ("empty line too many", stdin("7\n8\n"), printing("7\n\n8\n"), W, W, ""),
    ("one line for two", stdin("7\n8\n"), printing("7 8\n"), W, W, ""),
    ("case of letters", stdin("Yes\n"), printing("YES\n"), W, W, ""),
    ("nothing expected, nothing printed", stdin("\n"), block("pass"), P, P, ""),
    ("nothing printed", stdin("7\n"), block("pass"), W, W, ""),
    # Decimals: equal numbers are equal however they are written, close ones are not. A statement
    # that allows an error of 1e-6 is judged too hard; the files do not say which ones do.
    ("zeros at the end", stdin("1.50\n"), printing("1.5\n"), P, P, ""),
    ("exponent", stdin("1000\n"), printing("1e3\n"), P, P, ""),
    ("last digit", stdin("0.3\n"), block("print(0.1 + 0.2)"), W, W, ""),
    ("long integers are exact", stdin("50000000000000001\n"), printing("50000000000000000\n"),
     W, W, ""),
    ("number in a line of words", stdin("x 1\n"), printing("x 1.0\n"), W, W, ""),
    # Function results. As text, what prints alike is alike: a text of digits is a number. As
    # values, types count.
    ("digits for a number", function("7"), returning("str(x)"), P, W, "values"),
    ("number for digits", function('"7"'), returning("x"), P, W, "values"),
    ("whole float", function("7"), returning("float(x)"), P, P, ""),
    ("whole float in a list", function("[7]"), returning("[float(x)]"), W, P, "values"),
    ("rounding in a float", function("0.3"), returning("0.1 + 0.2"), W, P, "values"),
    ("far float", function("0.3"), returning("0.31"), W, W, ""),
    # A tuple is the outermost list by both; further in only by value. No statement asks for one.
    ("tuple", function("[7, 8]"), returning("(7, 8)"), P, P, ""),
    ("tuple in a list", function("[[7, 8]]"), returning("[(7, 8)]"), W, P, "values"),
    ("1 for true", function("true"), returning("1"), W, W, ""),
    ("true", function("true"), returning("x > 0"), P, P, ""),
    ("null", function("null"), returning("None"), P, P, ""),
    ("None for a text", function('"None"'), returning("None"), P, W, "values"),
    ("spaces around a text", function('"a"'), returning("' a '"), P, W, "values"),
    ("generator", function("[7]"), returning("(y for y in [x])"), W, B, "values"),
    ("printed, not returned", function("7"), returning("print(x)"), W, W, ""),
    ("function without a class", function("7"), block("def f(x): return x"), P, P, ""),
    ("other name", function("7"), block("def g(x): return x"), E, E, ""),
    # Each test sees the program anew: what one left behind must not reach the next.
    ("state between tests", two_calls(("7", "1"), ("8", "1")),
     block("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)"), P, P, ""),
    # true as an argument is the text "true" to the release, and so is false: both are truthy.
    ("false as an argument", function('"no"', "false"), returning("'yes' if x else 'no'"),
     W, P, "arguments"),
    # Blocks. The last one is the answer, even where it is the worse one.
    ("second block better", stdin("7\n"), printing("8") + "Better:\n" + printing("7"), P, P, ""),
    ("second block worse", stdin("7\n"), printing("7") + "Or:\n" + printing("8"), W, W, ""),
    ("output shown after the program", stdin("7\n"), printing("7") + "Prints:\n" + block("7", ""),
     W, W, ""),
    ("no block", stdin("7\n"), "print(7)", N, N, ""),
    ("inline code", stdin("7\n"), f"Use {F}print(7){F}.", N, N, ""),
    # A block that the token limit or the model left open. What was written may well be whole.
    ("open block", stdin("7\n"), f"{F}python\nprint(7)\n", N, P, "extraction"),
    ("cut in the middle of a line", stdin("7\n"), f"{F}python\nprint(7)\nprint(", N, E,
     "extraction"),
    # The release's tag has letters only. Here its closing fence opens a block that never closes.
    ("tag with a digit", stdin("7\n"), block("print(7)", "python3"), N, P, "extraction"),
    # ... and here what stands between two blocks, prose, becomes the program.
    ("two tags with digits", stdin("7\n"),
     block("print(8)", "python3") + "Better:\n" + block("print(7)", "python3"), E, P,
     "extraction"),
    ("other language's tag", stdin("7\n"), block("print(7)", "text"), P, P, ""),
    # A fence in a string ends the block for the release, whose program then is half a line.
    ("fence in a string", stdin("```\n"), block("print('```')"), E, P, "extraction"),
    ("thinking first", stdin("7\n"), "<think>\n" + printing("8") + "</think>\n" + printing("7"),
     P, P, ""),
    ("thinking only", stdin("7\n"), "<think>\n" + printing("7") + "cut", P, P, ""),
    # Partial output is no answer, nor is a right one followed by a crash: the program is broken.
    ("half of the output", stdin("7\n8\n"), block("print(7)"), W, W, ""),
    ("crash after the answer", stdin("7\n"), block("print(7)\nprint(1 / 0)"), E, E, ""),
    ("does not end", two_calls(("7", "7")), returning("sum(iter(int, 1))"), T, T, ""),
    # Ending early. exit() is Python's own word for it; the release has taken it away. A status says
    # that the program itself found something wrong; the release does not look at it.
    ("exit()", stdin("7\n"), block("print(7)\nexit()"), E, P, "exit"),
    ("sys.exit()", stdin("7\n"), block("import sys\nprint(7)\nsys.exit()"), P, P, ""),
    ("status 1", stdin("7\n"), block("import sys\nprint(7)\nsys.exit(1)"), P, E, "exit"),
    # A script as the body of a function: names of the top level are not global there.
    ("main guard at the end", stdin("7\n"),
     block("def main():\n    print(7)\nif __name__ == '__main__':\n    main()"), P, P, ""),
    ("main guard in the middle", stdin("7\n"),
     block("if __name__ == '__main__':\n    print(7)\nx = 1"), W, P, "script"),
    ("global", stdin("8\n"),
     block("n = 7\ndef up():\n    global n\n    n += 1\nup()\nprint(n)"), E, P, "script"),
    ("class Solution in a script", stdin("7\n"),
     block("class Solution:\n    def go(self): print(7)\nSolution().go()"), E, P, "script"),
    ("return outside of a function", stdin("7\n"), block("print(7)\nreturn"), P, E, "script"),
    # Streams in memory, given 7 and 8 on two lines.
    ("read after a line", stdin("8\n"),
     block("import sys\ninput()\nprint(sys.stdin.read().strip())"), W, P, "streams"),
    ("second line of bytes", stdin("8\n"),
     block("import sys\nread = sys.stdin.buffer.readline\nread()\nprint(read().decode())"),
     W, P, "streams"),
    ("lines one by one", stdin("7 8\n"),
     block("import sys\nprint(*[line.strip() for line in sys.stdin])"), P, P, ""),
    ("bytes out", stdin("7\n"), block("import sys\nsys.stdout.buffer.write(b'7')"), E, P,
     "streams"),
    ("open(0)", stdin("7 8\n"), block("print(*open(0).read().split())"), P, P, ""),
    ("end of the input", stdin("2\n"),
     block("n = 0\ntry:\n    while True:\n        input()\n        n += 1\n"
           "except EOFError:\n    print(n)"), P, P, ""),
    # Imports that answers leave out, and recursion a little deeper than Python's default.
    ("import left out", function("7"), returning("math.gcd(x, 14)"), P, P, ""),
    ("deep recursion", function("5000"),
     block("def f(x, n=5000): return 0 if n == 0 else 1 + f(x, n - 1)"), E, P, "recursion"),
]  # fmt: skip


def grade(folder, row, answer, sandbox, strict) -> str:
    path = str(ours.write(folder, [row]))
    tasks, _ = livecodebench.load(path, strict=strict)
    # Shorter than the release's 5 s and 7 s a test, for the program that does not end.
    rules = dataclasses.replace(livecodebench.protocol(strict), seconds=3.0, seconds_per_test=0.0)
    (result,) = grading.grade_many(
        tasks, [answer], protocol=rules, sandbox=sandbox, workers=1, memory_mb=400
    )
    return result.verdict


def test_names_differ():
    names = [name for name, *_ in TABLE]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize(
    ("row", "answer", "released", "strict", "rule"),
    [case[1:] for case in TABLE],
    ids=[case[0] for case in TABLE],
)
def test_verdict(tmp_path, sandbox, row, answer, released, strict, rule):
    assert grade(tmp_path, row, answer, sandbox, ()) == released
    assert grade(tmp_path, row, answer, sandbox, ("all",)) == strict
    if rule:  # That rule alone turns the verdict.
        assert grade(tmp_path, row, answer, sandbox, (rule,)) == strict
    else:
        assert released == strict


def test_every_rule_with_a_twin_decides_somewhere():
    decided = {case[-1] for case in TABLE}
    # Which tests count, and time for each, have tests of their own.
    assert decided >= set(livecodebench.RULES) - {"tests", "budget"}
