"""What all pictures share.

Colours that survive colour blindness and a dark page, lettered treatments, and SVG for one page.
"""

from __future__ import annotations

import re
from html import escape
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from coarse_spark.core.arrays import FloatArray
from coarse_spark.report.wording import letter
from coarse_spark.text import printable

# Stand-ins that ``to_svg`` turns into the page's CSS variables, so that pictures follow a light or
# dark page.
INK, MUTED, GRID, PAPER = "#111213", "#717273", "#d1d2d3", "#fafbfc"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"}

# Okabe and Ito's palette (Color Universal Design, 2008), without its yellow and black, with the
# letter colour that reads on each.
_PALETTE = (
    ("#0072b2", "#ffffff"),
    ("#d55e00", "#ffffff"),
    ("#009e73", "#ffffff"),
    ("#cc79a7", "#000000"),
    ("#e69f00", "#000000"),
    ("#56b4e9", "#000000"),
)
_PUSHES = 200
_LINES = ("-", "--", "-.", ":")
BLUE = _PALETTE[0][0]
WIDTH = 8.8
"""Width of every picture in inches; a point of text is 1.4 pixels in a column of 880 pixels."""

_STYLE: Any = {
    "text.parse_math": False,  # dollar signs in the user's names are dollar signs
    "svg.fonttype": "none",  # text stays text: small, sharp, selectable
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}


def style() -> Any:
    """Return a context for drawing that leaves the user's own matplotlib settings alone."""
    return matplotlib.rc_context(
        {**matplotlib.rcParamsDefault, **_STYLE, "backend": matplotlib.rcParams["backend"]}
    )


def new_figure(height: float) -> Figure:
    """Return an empty picture of the page's width; ``height`` in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def colour(position: int) -> str:
    """Return the colour of a treatment."""
    return _PALETTE[position % len(_PALETTE)][0]


def ink(position: int) -> str:
    """Return the colour of letters that read on a treatment's colour."""
    return _PALETTE[position % len(_PALETTE)][1]


def line(position: int) -> str:
    """Return the line style of a treatment: colours repeat after six, styles tell them apart."""
    return _LINES[position // len(_PALETTE) % len(_LINES)]


def calm(axes: Axes) -> None:
    """Widen a vertical axis that shows nothing but rounding errors."""
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    if high - low <= 1e-6 * abs(middle):
        axes.set_ylim(middle - 0.05 * abs(middle), middle + 0.05 * abs(middle))


def spread(places: FloatArray, gap: float, low: float, high: float) -> FloatArray:
    """Return places (n,) moved apart to ``gap`` between neighbours, within the ends if they fit.

    Their order stays, and what is far enough from the others is not moved.
    """
    order = np.argsort(places, kind="stable")
    moved = np.clip(places[order], low, high)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved[-1:] = np.minimum(moved[-1:], high)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    result = np.empty_like(moved)
    result[order] = moved
    return result


def apart(places: FloatArray, sizes: FloatArray) -> FloatArray:
    """Return the centres (n, 2) of discs, moved from their places until none covers another.

    Discs that overlap push each other away along the line between them; the others stay.

    Parameters
    ----------
    places : (n, 2) in the unit of the sizes.
    sizes : (n,) diameters.
    """
    moved = places.astype(float)
    if len(moved) < 2:
        return moved
    # discs at one place go different ways
    moved += 1e-3 * np.column_stack([np.cos(np.arange(len(moved))), np.sin(np.arange(len(moved)))])
    least = (sizes[:, None] + sizes) / 2
    for _ in range(_PUSHES):
        between = moved[:, None] - moved
        distance = np.hypot(*between.transpose(2, 0, 1)) + np.eye(len(moved))
        short = np.where(np.eye(len(moved)) > 0, 0.0, np.maximum(least - distance, 0.0))
        if not short.any():
            break
        moved += 0.5 * (between / distance[..., None] * short[..., None]).sum(axis=1)
    return np.where(np.abs(moved - places).max(axis=1, keepdims=True) < 0.01, places, moved)


def mark(axes: Axes, x: float, y: float, position: int, size: float = 13.0) -> None:
    """Draw a treatment as a disc with its letter; ``size`` is the diameter in points."""
    axes.plot(
        [x], [y], "o", ms=size, mfc=colour(position), mec=PAPER, mew=1.0, zorder=5, clip_on=False
    )
    axes.text(
        x,
        y,
        letter(position),
        color=ink(position),
        ha="center",
        va="center_baseline",
        fontsize=7.5,
        fontweight="bold",
        zorder=6,
    )


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Return a picture as an SVG element for inclusion in HTML, the same text for the same picture.

    Parameters
    ----------
    figure : the picture.
    name : prefix of all ids, which must be unique on a page.
    description : what a screen reader says.
    """
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
    buffer = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|url\(#|xlink:href="#)', lambda match: f"{match[1]}{name}-", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    # sizes come from the page's style sheet; the viewBox keeps the proportions
    svg = re.sub(r'^(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1sans-serif", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(printable(description))}"', 1)
