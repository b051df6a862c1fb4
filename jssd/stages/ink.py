"""The colours of pages and figures, light and dark, and figures that can be drawn in both."""

import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Ink:
    """The colours of one mode.

    Attributes:
      paper: the background; box: that of boxes and code.
      text: and soft: of lesser text; edge: of axes; line: between rows, and of grids.
      base: and student: the two models.
      pale: and strong: bars of one thing, without and with emphasis.
      ramp: the part of the colour map `viridis` that stands out from the paper.
    """

    paper: str
    box: str
    text: str
    soft: str
    edge: str
    line: str
    base: str
    student: str
    pale: str
    strong: str
    ramp: tuple[float, float]

    @property
    def models(self) -> dict[str, str]:
        """The colour of each model."""
        return {"base": self.base, "student": self.student}

    def step(self, index: int, count: int) -> Any:
        """The colour of the `index`-th of `count` things in an order."""
        low, high = self.ramp
        return matplotlib.colormaps["viridis"](low + (high - low) * index / max(count - 1, 1))


LIGHT = Ink(
    paper="#ffffff", box="#f5f7fa", text="#1f2730", soft="#5a6470", edge="#b8c0c8", line="#e3e7eb",
    base="#3b6fb6", student="#c9581b", pale="#c9d3de", strong="#5b7fa6", ramp=(0.0, 0.8),
)  # fmt: skip
DARK = Ink(
    paper="#14181d", box="#1d232a", text="#e3e8ed", soft="#9fabb7", edge="#57626e", line="#2d353d",
    base="#7fb0f0", student="#f0955f", pale="#46525f", strong="#84aad4", ramp=(0.4, 1.0),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure, drawn when it is asked for: PNG bytes in light colours and in dark ones."""

    draw: Callable[[Ink], Figure]

    @functools.cached_property
    def light(self) -> bytes:
        return self._png(LIGHT)

    @functools.cached_property
    def dark(self) -> bytes:
        return self._png(DARK)

    def _png(self, ink: Ink) -> bytes:
        with matplotlib.rc_context(_style(ink)):
            out = io.BytesIO()
            self.draw(ink).savefig(out, format="png", dpi=200, metadata={"Software": None})
        return out.getvalue()


def plot(draw: Callable[..., Figure]) -> Callable[..., Plot]:
    """Makes `draw(ink, ...)` a function of the rest that returns the `Plot`."""

    @functools.wraps(draw)
    def made(*args) -> Plot:
        return Plot(lambda ink: draw(ink, *args))

    return made


def _style(ink: Ink) -> Any:
    return {
        "font.size": 9.5,
        "text.color": ink.text,
        "text.parse_math": False,  # Names come from people; a $ in one is a $.
        "figure.facecolor": ink.paper,
        "savefig.facecolor": ink.paper,
        "axes.facecolor": ink.paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": ink.edge,
        "axes.labelcolor": ink.text,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": ink.text,
        "axes.axisbelow": True,
        "xtick.color": ink.edge,
        "ytick.color": ink.edge,
        "xtick.labelcolor": ink.soft,
        "ytick.labelcolor": ink.text,
        "grid.color": ink.line,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
