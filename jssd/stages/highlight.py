"""Code on a page: completions with their fenced Python coloured, by Pygments.

Pygments is loaded on first use: only stages that write pages need it.
"""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

# Styles of Pygments whose every colour stands out from `ink.LIGHT.box` and `ink.DARK.box`.
STYLES = {"light": "xcode", "dark": "github-dark"}
_PYTHON = ("", "py", "python", "python3")  # A block that names no language is taken for Python.
# As grading reads it: spaces, three backticks or more, no other backtick in the line.
_FENCE = re.compile(r" *`{3,}([^`\n]*)\n?")


def code(text: str) -> Markup:
    """The text for a page, the Python in its fenced blocks coloured. Nothing in it is trusted.

    What Pygments adds is `<span class>` around pieces of the text; all else is as it was.
    """
    marked = [_python(part) if python else escape(part) for part, python in _parts(text)]
    return Markup("").join(marked)


def css() -> Markup:
    """The colours of `code` within `pre`, of pages in light and in dark."""
    from pygments.formatters import HtmlFormatter

    blocks = [
        f"@media (prefers-color-scheme: {mode}) {{\n"
        + "\n".join(HtmlFormatter(style=style).get_token_style_defs("pre"))
        + "\n}"
        for mode, style in STYLES.items()
    ]
    return Markup("\n".join(blocks))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Pieces of `text`, in order and complete, and whether each is Python."""
    inside, piece = None, []  # The language of the open block; None outside of blocks.
    for line in text.splitlines(keepends=True):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            piece.append(line)
            continue
        yield "".join(piece), inside in _PYTHON
        yield line, False
        tag = fence[1].strip().lower()
        inside, piece = (None if inside is not None and not tag else tag), []
    yield "".join(piece), inside in _PYTHON


def _python(text: str) -> Markup:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers.python import PythonLexer

    lexer = PythonLexer(stripnl=False, ensurenl=False)
    marked = highlight(text, lexer, HtmlFormatter(nowrap=True))
    # The formatter ends the last line whether or not the text does.
    return Markup(marked if text.endswith("\n") else marked.removesuffix("\n"))
