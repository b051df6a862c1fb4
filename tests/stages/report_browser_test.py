"""The pages of stages report and mechanism in a headless Chromium: light and dark, wide and narrow.

They run where a Chromium is found: the one that JSSD_CHROMIUM names, one on the PATH, or one of
`playwright install chromium`. Pictures of all pages stay in pytest's temporary folder: `-s` tells
where.
"""

import os
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

from jssd.stages import ink, report
from tests.stages import mechanism_files
from tests.stages.report_test import everything

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'"
)
BROWSERS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
INKS = {"light": ink.LIGHT, "dark": ink.DARK}
WIDTHS = {"wide": 1200, "phone": 390}
FIGURES = {"report": 8, "mechanism": 2}  # At least so many on each page.


@pytest.fixture(scope="module")
def browser():
    named = os.environ.get("JSSD_CHROMIUM")
    if named and not shutil.which(named):
        pytest.fail(f"JSSD_CHROMIUM={named} is no program. Give the path of a Chromium.")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as play:
        if not found and not pathlib.Path(play.chromium.executable_path).exists():
            pytest.skip("no Chromium on the PATH: install one, or set JSSD_CHROMIUM to its path")
        with play.chromium.launch(executable_path=found) as chromium:
            yield chromium


@pytest.fixture(scope="module")
def folder(browser, tmp_path_factory):
    workdir = everything(tmp_path_factory.mktemp("browser") / "run")
    report.run([workdir], workdir / "report")
    return workdir


@pytest.fixture(
    params=[(name, mode, size) for name in FIGURES for mode in INKS for size in WIDTHS],
    ids="-".join,
)
def opened(request, browser, folder):
    """(page, name, mode, size, complaints): with all of its folds open."""
    name, mode, size = request.param
    view = {"width": WIDTHS[size], "height": 900}
    context = browser.new_context(color_scheme=mode, viewport=view)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith("data:") or complaints.append(request.url),
    )
    address = (folder / name / "index.html").as_uri()
    page.goto(address)
    assert complaints.pop(0) == address  # The one request that there is.
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    yield page, name, mode, size, complaints
    context.close()


def test_it_loads_nothing_fits_the_screen_and_has_the_readers_colours(opened, folder):
    page, name, mode, size, complaints = opened
    figures = page.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth, i.clientWidth, i.alt])"
    )
    assert len(figures) >= FIGURES[name]
    for width, shown, alt in figures:
        assert width > 300 and 0 < shown <= WIDTHS[size] and alt
    assert outside(page, size) == []
    at = lambda name: page.evaluate(f"getComputedStyle(document.body).{name}")
    assert at("backgroundColor") == rgb(INKS[mode].paper) and at("color") == rgb(INKS[mode].text)
    shot = folder / f"{name}-{mode}-{size}.png"
    page.screenshot(path=shot, full_page=True)
    print(shot)
    # Pages are mostly paper, their figures included; what is written on it is far from it.
    paper = np.array([int(INKS[mode].paper[i : i + 2], 16) for i in (1, 3, 5)], np.int16)
    with PIL.Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    away = abs(pixels[::2, ::2].astype(np.int16) - paper).max(axis=-1)
    assert (away < 15).mean() > 0.65 and (away > 127).mean() > 0.01
    corners = page.evaluate(
        """[...document.querySelectorAll('picture img')].map(i => i.getBoundingClientRect())
        .map(box => [Math.ceil(box.top + scrollY) + 2, Math.ceil(box.left) + 2])"""
    )
    for y, x in corners:
        assert abs(pixels[y, x].astype(np.int16) - paper).max() < 5, (y, x)
    assert complaints == []


def test_tokens_are_coloured_and_tell_their_law(opened):
    page, _, mode, size, complaints = opened
    colours = {
        kind: page.locator(f".tokens .{kind}").first.evaluate(
            "e => getComputedStyle(e).backgroundColor"
        )
        for kind in ("lock", "fork")
    }
    lines = {
        mark: page.locator(f".tokens .{mark}").first.evaluate(
            "e => getComputedStyle(e).borderBottomColor"
        )
        for mark in ("opened", "sharpened")
    }
    seen = {*colours.values(), *lines.values(), rgb(INKS[mode].paper), "rgba(0, 0, 0, 0)"}
    assert len(seen) == 6  # All different, and none of them the paper's.
    shown = page.locator(".tokens").first.evaluate(
        "e => [...e.querySelectorAll('.t')].map(t => t.firstChild.data).join('')"
    )
    assert shown == mechanism_files.TEXTS[0]
    for number in (0, 5, -1):  # In all places of a line.
        token = page.locator(".tokens .t").nth(number)
        tip = token.locator(".tip")
        assert not tip.is_visible()
        token.focus()
        assert tip.is_visible() and "before" in tip.inner_text()
        assert outside(page, size) == []
        token.evaluate("e => e.blur()")
    assert complaints == []


def test_code_is_coloured_and_folds_open(browser, folder):
    page = browser.new_page()
    page.goto((folder / "report" / "index.html").as_uri())
    pair = page.locator("details:has(.pair)").first
    assert not pair.locator(".pair").is_visible()
    pair.locator("summary").click()
    assert pair.locator(".pair").is_visible()
    page.get_by_role("link", name="The page of stage mechanism").click()
    assert page.url == (folder / "mechanism" / "index.html").as_uri()
    page.close()


def outside(page, size: str) -> list[str]:
    """What sticks out at a side. What is wider than the page must have a bar of its own."""
    return page.evaluate(
        """width => [document.documentElement, ...document.querySelectorAll('body *')]
        .filter(e => e === document.documentElement ? e.scrollWidth > width
                     : (e.getBoundingClientRect().right > width + 1
                        || e.getBoundingClientRect().left < -1)
                       && !e.closest('.scroll') && !e.closest('.columns'))
        .map(e => e.outerHTML.slice(0, 80))""",
        WIDTHS[size],
    )


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))
