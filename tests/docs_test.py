"""The pages in docs/ speak of what is there: the files they name, the floors they draw."""

import pathlib
import re

import pytest

from tests.house_test import FLOORS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_exist(page):
    inside = r"`((?:jssd|configs|tests|docs|third_party)/[\w./-]*\w\.\w+)`"
    for named in re.findall(inside, page.read_text()):
        assert (ROOT / named).exists(), f"{_name(page)} names {named}."


def test_floors_of_the_picture_are_those_that_are_checked():
    drawn = {}
    rows = re.findall(r"^ +(\d)  \| (.*?) +\|", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    for floor, rooms in rows:
        for room in rooms.split():
            drawn[room.removesuffix("/").removesuffix(".py")] = int(floor)
    drawn[""] = drawn.pop("__init__")
    assert drawn == FLOORS
