"""The pages in docs/ speak of what is there: links, files, floors, messages that they quote."""

import ast
import functools
import pathlib
import re

import pytest

from tests.house_test import FLOORS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{_name(page)} links to {target}."


@pytest.mark.parametrize("figure", sorted((ROOT / "docs" / "figures").iterdir()), ids=_name)
def test_a_figure_is_shown_with_words_and_light(figure):
    """In weight. Words: who can't see it, or has only the text, is told what is there."""
    shown = rf"!\[([^\]]+)\]\((?:docs/)?figures/{re.escape(figure.name)}\)"
    told = [words for page in PAGES for words in re.findall(shown, page.read_text())]
    assert told and all(len(words) > 40 for words in told)
    assert figure.stat().st_size < 250_000


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text()))
    for page in (ROOT / "docs").glob("*.md"):
        assert _name(page) in linked, f"README.md has no link to {_name(page)}."


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_exist(page):
    inside = r"`((?:jssd|configs|tests|docs|third_party)/[\w./-]*\w\.\w+)`"
    for named in re.findall(inside, page.read_text()):
        if "NAME" in named:  # Stands for any.
            continue
        assert (ROOT / named).exists(), f"{_name(page)} names {named}."


def test_floors_of_the_picture_are_those_that_are_checked():
    drawn = {}
    rows = re.findall(r"^ +(\d)  \| (.*?) +\|", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    for floor, rooms in rows:
        for room in rooms.split():
            drawn[room.removesuffix("/").removesuffix(".py")] = int(floor)
    drawn[""] = drawn.pop("__init__")
    assert drawn == FLOORS


@functools.cache
def _texts():
    """Every text in the source, as far as it is fixed."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "jssd").rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and node.value]


MESSAGES = re.findall(
    r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize("message", MESSAGES)
def test_quoted_message_is_one_of_ours(message):
    parts = [part for part in message.split("…") if part.strip(" .")]
    assert parts
    for part in parts:
        found = any(part.strip() in text for text in _texts() if isinstance(text, str))
        assert found, f"no message of jssd/ holds {part.strip()!r}."
