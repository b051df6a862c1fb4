"""Code on pages: which part is coloured, and that text stays the text it was."""

import html
import re

import pytest

from jssd.stages import highlight, ink

ANSWER = "Use `f`:\n```python\ndef f(x):\n    return x < 1\n```\nso that f(0) is true.\n"


def text_of(marked: str) -> str:
    return html.unescape(re.sub(r"</?span[^>]*>", "", marked))


def test_python_in_a_fence_is_coloured_and_prose_is_not():
    marked = highlight.code(ANSWER)
    assert '<span class="k">def</span>' in marked and '<span class="nf">f</span>' in marked
    before, after = marked.split("```python\n")[0], marked.rsplit("```\n")[-1]
    assert "<span" not in before + after
    assert text_of(marked) == ANSWER


@pytest.mark.parametrize(
    ("text", "coloured"),
    [
        ("```\nreturn 1\n```", True),  # Without a language.
        ("1. so:\n   ```python3\n   return 1\n   ```", True),  # In a list.
        ("```python\nx\n```python\nreturn 1", True),  # A second one, never closed.
        ("```json\nreturn 1\n```", False),
        ("```python\nx\n```\nreturn 1", False),
        ("return 1", False),
        ("`return 1` and ```return 1```", False),
    ],
)
def test_what_counts_as_code(text, coloured):
    assert ('<span class="k">return</span>' in highlight.code(text)) is coloured
    assert text_of(highlight.code(text)) == text


@pytest.mark.parametrize("place", ["{}", "```\n{}\n```", "```python\n'{}\n", "```python\n# {}"])
def test_hostile_text_stays_text(place):
    text = place.format("</pre><script>alert(1)</script>&amp;\"' \ud800\u2028 \x00")
    marked = highlight.code(text)
    assert set(re.findall(r"<(?!/?span)", marked)) == set()
    assert not re.search(r"<span (?!class=\"\w+\">)", marked)
    assert text_of(marked) == text


@pytest.mark.parametrize(("mode", "paper"), [("light", ink.LIGHT.box), ("dark", ink.DARK.box)])
def test_every_colour_can_be_read(mode, paper):
    block = highlight.css().split(f"(prefers-color-scheme: {mode})")[1].split("@media")[0]
    # The class of errors is a box of its own in some styles; blank text has no colour to read.
    rules = [line for line in block.splitlines() if line.startswith("pre .") and ".w {" not in line]
    colours = {c for line in rules for c in re.findall(r"[{;] *color: (#\w{6})", line.lower())}
    assert len(colours) > 5
    assert min(contrast(colour, paper) for colour in colours) > 4


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21; text of normal size wants 4.5."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
