"""Which part of a chat model's answer is the program, or the short answer asked for."""

import ast
import re

RULES = ("last_fence", "defining_fence", "release_fence")  # Names that go into score files.
_FENCE = "```"
_RELEASED = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.S)
_TAGGED = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.S)


def extract_code(text: str, entry_point: str = "", rule: str = "last_fence") -> str | None:
    """The program in an answer, or None when there is none.

    Rule "last_fence": the last fenced block with anything in it, whatever its language tag. A fence
    is a line that starts with three backticks, after spaces at most; a line that ends in them also
    closes a block. A fence with a language tag inside an open block starts a new block. A block
    that is never closed runs to the end of the text: models forget the last fence, and an answer
    that was cut short fails anyway. Text without a fence is not a program.

    Rule "defining_fence": the last block that defines `entry_point`, for models that show an
    example call in a block of its own after the program; as above where no block does.

    Rule "release_fence": the paper's evaluator (ml-ssd, evaluation/benchmark.py), by its regular
    expression: from three backticks with letters and a line's end behind them to the next three
    backticks, anywhere in a line; the last such stretch. So a block that is never closed is none, a
    tag with a digit or a space behind it opens none (the *next* fence then does, and the prose
    after the block may become the program), and backticks in a string end a block. HTML-like
    <code> marks are then taken out, and all from a </code> on is cut.

    Raises ValueError for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"extraction={rule!r} is unknown. Choose from {', '.join(RULES)}.")
    if rule == "release_fence":
        found = _RELEASED.findall(text)
        return found[-1].split("</code>")[0].replace("<code>", "") if found else None
    programs = _blocks(text)
    if rule == "defining_fence" and entry_point:
        definition = re.compile(rf"^\s*(async\s+)?def\s+{re.escape(entry_point)}\s*\(", re.M)
        programs = [program for program in programs if definition.search(program)] or programs
    return programs[-1] if programs else None


def _blocks(text: str) -> list[str]:
    blocks: list[list[str]] = []
    is_open = False
    indent = 0
    for line in text.splitlines():
        bare = line.strip()
        # More backticks later in the line make it inline code.
        is_fence = bare.startswith(_FENCE) and "`" not in bare.lstrip("`")
        if is_fence and is_open and not bare.strip("`"):
            is_open = False
        elif is_fence:
            blocks.append([])
            is_open, indent = True, len(line) - len(line.lstrip(" "))
        elif is_open:
            margin = len(line) - len(line.lstrip(" "))
            line = line[min(indent, margin) :]  # A block inside a list is indented as a whole.
            if bare.endswith(_FENCE):
                line, is_open = line.rstrip().rstrip("`"), False
            blocks[-1].append(line)
    return ["\n".join(block) + "\n" for block in blocks if any(map(str.strip, block))]


def extract_answer(text: str, rule: str) -> str | None:
    """The short answer in a completion, or None when there is none of the form asked for.

    Rule "integer" (AIME): the digits in the last LaTeX box, `\\boxed{042}`; without any box the
    last whole number of the text. Rule "literal" (CruxEval, output asked): what stands between the
    last [ANSWER] tags, without an "assert f(...) ==" ahead of it. Rule "call" (CruxEval, input
    asked): the same without a "== ..." behind it, and only if it is a call of `f` with literal
    arguments, so that the answer cannot hold the result itself.
    """
    if rule == "integer":
        return _integer(text)
    found = _TAGGED.findall(text)
    if not found:
        return None
    answer = found[-1].strip().removeprefix("assert ").strip()
    try:
        tree: ast.expr = ast.parse(answer, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if rule == "call":
        tree = _sides(tree)[0]
        return ast.unparse(tree) if _is_plain_call(tree) else None
    return ast.unparse(_sides(tree)[-1])


def _integer(text: str) -> str | None:
    boxes = re.findall(r"\\boxed\s*\{([^{}]*)\}", text)
    if boxes:
        digits = re.fullmatch(r"\D*?(-?\d+)\D*", boxes[-1].replace(",", "").strip("$ "))
        return digits[1] if digits else None
    numbers = re.findall(r"(?<![\d.])-?\d+(?![\d]|\.\d)", text.replace(",", ""))
    return numbers[-1] if numbers else None


def _sides(tree: ast.expr) -> list[ast.expr]:
    """Both sides of `a == b`, or the expression alone."""
    if isinstance(tree, ast.Compare) and [type(op) for op in tree.ops] == [ast.Eq]:
        return [tree.left, *tree.comparators]
    return [tree]


def _is_plain_call(tree: ast.expr) -> bool:
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "f"):
        return False
    try:
        for part in (*tree.args, *(keyword.value for keyword in tree.keywords)):
            ast.literal_eval(part)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True
