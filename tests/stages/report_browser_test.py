"""The report in a headless Chromium: light and dark, wide and narrow, and a picture of each.

Needs `pip install '.[browser]'` and a Chromium: one on the PATH, or `playwright install chromium`.
The pictures stay in pytest's temporary folder: run with `-s` to be told where.
"""

import pathlib
import shutil

import matplotlib.image
import pytest

from jssd.stages import ink, report
from tests.stages.report_test import everything

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'"
)
pytestmark = pytest.mark.optin
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


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as play:
        if not found and not pathlib.Path(play.chromium.executable_path).exists():
            pytest.skip("no Chromium on the PATH or from `playwright install chromium`")
        with play.chromium.launch(executable_path=found) as chromium:
            yield chromium


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    workdir = everything(tmp_path_factory.mktemp("browser") / "run")
    report.run([workdir], workdir / "report")
    return workdir / "report" / "index.html"


@pytest.fixture(params=[(mode, size) for mode in INKS for size in WIDTHS], ids="-".join)
def opened(request, browser, page_path):
    """(page, mode, size, complaints): with all of its folds open."""
    mode, size = request.param
    view = {"width": WIDTHS[size], "height": 900}
    context = browser.new_context(color_scheme=mode, viewport=view)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith("data:") or complaints.append(request.url),
    )
    page.goto(page_path.as_uri())
    assert complaints.pop(0) == page_path.as_uri()  # The one request that there is.
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    yield page, mode, size, complaints
    context.close()


def test_it_loads_nothing_and_fits_the_screen(opened):
    page, _, size, complaints = opened
    figures = page.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth, i.clientWidth, i.alt])"
    )
    assert len(figures) > 8
    for width, shown, alt in figures:
        assert width > 300 and 0 < shown <= WIDTHS[size] and alt
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size]
    # What is wider has a bar of its own: nothing sticks out.
    assert not page.evaluate(
        """width => [...document.querySelectorAll('body *')]
        .filter(e => e.getBoundingClientRect().right > width + 1
                     && !e.closest('.scroll') && !e.closest('.columns'))
        .map(e => e.outerHTML.slice(0, 80))""",
        WIDTHS[size],
    )
    assert complaints == []


def test_it_has_the_colours_that_the_reader_prefers(opened, page_path):
    page, mode, size, _ = opened
    at = lambda name: page.evaluate(f"getComputedStyle(document.body).{name}")
    assert at("backgroundColor") == rgb(INKS[mode].paper) and at("color") == rgb(INKS[mode].text)
    shot = page_path.with_name(f"{mode}-{size}.png")
    page.screenshot(path=shot, full_page=True)
    print(shot)
    # Pages are mostly paper, their figures included; what is written on it is far from it.
    pixels = matplotlib.image.imread(shot)[..., :3]
    paper = [int(INKS[mode].paper[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    away = abs(pixels - paper).max(axis=-1)
    assert (away < 0.06).mean() > 0.7 and (away > 0.5).mean() > 0.01
    for figure in page.locator("picture").all():
        figure.scroll_into_view_if_needed()
        corner = figure.screenshot(path=page_path.with_name("figure.png"))
        assert corner and abs(
            matplotlib.image.imread(page_path.with_name("figure.png"))[2, 2, :3] - paper
        ).max() < 0.02  # fmt: skip


def test_code_is_coloured_and_folds_open(browser, page_path):
    page = browser.new_page()
    page.goto(page_path.as_uri())
    pair = page.locator("details:has(.pair)").first
    assert not pair.locator(".pair").is_visible()
    pair.locator("summary").click()
    assert pair.locator(".pair").is_visible()
    page.close()


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))
