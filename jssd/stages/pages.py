"""What pages have in common: templates that trust no text, numbers as text, files put in place."""

import base64
import os
import pathlib
import shutil
from typing import Any

import jinja2

from jssd import places
from jssd.evals.passk import Difference, Estimate
from jssd.stages import highlight, ink
from jssd.stages.ink import Plot

PAGE = "index.html"


def render(name: str, **values: Any) -> bytes:
    """The template `name` of this folder, filled in."""
    # Autoescape is not left to the file's name: completions are hostile text.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "percent": percent, "interval": interval, "points": points,
        "p_value": p_value, "law": law, "code": highlight.code,
    }  # fmt: skip
    page = environment.get_template(name).render(
        light=ink.LIGHT, dark=ink.DARK, code_css=highlight.css, **values
    )
    # A lone surrogate in a completion has no UTF-8; it is shown as its escape.
    return page.encode("utf-8", errors="backslashreplace")


def embedded(plot: Plot) -> dict[str, Any]:
    """A figure for the page, at half its pixels so that it stays sharp on fine screens."""
    width = int.from_bytes(plot.light[16:20])  # Of the header, which every PNG begins with.
    encoded = {"light": plot.light, "dark": plot.dark}
    return {"width": width // 2} | {
        mode: base64.b64encode(png).decode() for mode, png in encoded.items()
    }


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    """Puts `files` into `folder`, all written beside it first, the page last.

    Each is renamed into place. The page holds its own copies of the figures, so whatever stops
    this, the page is whole: the old one or the new one. In a bucket each is one request.
    """
    last = sorted(files, key=lambda name: name == PAGE)
    if places.is_remote(folder):
        for name in last:
            places.write_bytes(folder / name, files[name])
        return
    beside = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, data in files.items():
        with open(beside / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    folder.mkdir(parents=True, exist_ok=True)
    for name in last:
        os.replace(beside / name, folder / name)
    beside.rmdir()


def percent(value: float) -> str:
    """A share in percent with one digit, without the sign."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−")  # Never −0.0.


def interval(estimate: Estimate | Difference, signed: bool = False) -> str:
    """The ends of an interval in percent or, `signed`, in points."""
    show = points if signed else percent
    return f"[{show(estimate.low)}, {show(estimate.high)}]"


def p_value(value: float) -> str:
    """A p-value with three digits after the point."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def number(value: Any) -> str:
    """A value of the config or of the counts as short text."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e12):
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    return f"{value:.4g}"


def law(decode: dict[str, Any]) -> str:
    """A sampling law in words, truncation only where it is on."""
    if decode["temperature"] == 0:
        return "greedy"
    parts = [f"T {decode['temperature']:g}"]
    parts += [f"top-k {decode['top_k']}"] if decode["top_k"] else []
    parts += [f"top-p {decode['top_p']:g}"] if decode["top_p"] < 1 else []
    parts += [f"min-p {decode['min_p']:g}"] if decode.get("min_p") else []
    return ", ".join(parts)
