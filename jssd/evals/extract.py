"""Which part of a chat model's answer is the program."""

RULE = "last_fence"  # The name that goes into score files; change it when the rule changes.
_FENCE = "```"


def extract_code(text: str) -> str | None:
    """The program in an answer, or None when there is none.

    Rule "last_fence": the last fenced block with anything in it, whatever its language tag. A fence
    is a line that starts with three backticks, after spaces at most; a line that ends in them also
    closes a block. A fence with a language tag inside an open block starts a new block. A block
    that is never closed runs to the end of the text: models forget the last fence, and an answer
    that was cut short fails anyway. Text without a fence is not a program.
    """
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
    return programs[-1] if programs else None
