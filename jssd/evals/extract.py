"""Which part of a chat model's answer is the program."""

import re

RULES = ("last_fence", "defining_fence")  # Names that go into score files.
_FENCE = "```"


def extract_code(text: str, entry_point: str = "", rule: str = "last_fence") -> str | None:
    """The program in an answer, or None when there is none.

    Rule "last_fence": the last fenced block with anything in it, whatever its language tag. A fence
    is a line that starts with three backticks, after spaces at most; a line that ends in them also
    closes a block. A fence with a language tag inside an open block starts a new block. A block
    that is never closed runs to the end of the text: models forget the last fence, and an answer
    that was cut short fails anyway. Text without a fence is not a program. It is the paper's rule.

    Rule "defining_fence": the last block that defines `entry_point`, for models that show an
    example call in a block of its own after the program; as above where no block does.

    Raises ValueError for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"extraction={rule!r} is unknown. Choose from {', '.join(RULES)}.")
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
    programs = ["\n".join(block) + "\n" for block in blocks if any(map(str.strip, block))]
    if rule == "defining_fence" and entry_point:
        definition = re.compile(rf"^\s*(async\s+)?def\s+{re.escape(entry_point)}\s*\(", re.M)
        programs = [program for program in programs if definition.search(program)] or programs
    return programs[-1] if programs else None
