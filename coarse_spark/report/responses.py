"""The picture of the menu: its treatments on the response and profit of their segments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.treatments import Continuous
from coarse_spark.report.content import ReportContent
from coarse_spark.report.drawing import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    apart,
    calm,
    colour,
    line,
    mark,
    new_figure,
    spread,
    style,
    to_svg,
)
from coarse_spark.report.wording import letter, percent, treatment_text

_COLUMNS = 3
_GAP = 0.055  # between letters beside each other, of the width of one of two pictures
_PANEL = (165, 150)  # points that a map is wide and high, about
_LABEL = 28  # letters in a line of the label of a treatment
_ROWS_SHOWN = 12  # candidates of a categorical treatment that fit one under the other


def response_picture(content: ReportContent) -> tuple[str, str]:
    """Return the picture and its caption.

    Curves for one numeric treatment, maps for two, points for anything else.
    """
    space = content.space
    numeric = all(isinstance(dimension, Continuous) for dimension in space.dimensions)
    # a map would show what a finite list does not offer
    numeric &= space.finite is None or len(space.dimensions) == 1
    draw = (
        {1: _curves, 2: _maps}.get(len(space.dimensions), _points)
        if numeric and content.basis.name != "arms"
        else _points
    )
    with style():
        figure, caption = draw(content)
        offers = "; ".join(
            f"{letter(position)}: {treatment_text(content, row)}, {percent(row['share'])} of the "
            "units"
            for position, (_, row) in enumerate(content.selected.iterrows())
        )
        return to_svg(
            figure,
            "responses",
            f"Treatments of the menu on the responses of their segments. {offers}.",
        ), caption


def _curves(content: ReportContent) -> tuple[Figure, str]:
    outcomes = content.outcome_names
    rows = -(-(len(outcomes) + 1) // 2)
    figure = new_figure(3.4 * rows)
    name, control = content.space.names[0], float(content.space.control[0])
    grid = _axis(content, 0, 240)
    treatments, dots = content.treatments[:, 0], []
    drawn: list[Callable[[FloatArray], FloatArray]] = [
        *(partial(content.outcomes, number=number) for number in range(len(outcomes))),
        content.profits,
    ]
    panels = figure.subplots(rows, 2, squeeze=False).ravel().tolist()
    for axes in panels[len(outcomes) + 1 :]:
        axes.remove()
    for axes, function in zip(panels, drawn, strict=False):
        curves, at_control = function(grid[:, None]), function(content.space.control[None, :])[:, 0]
        own = np.diag(function(content.treatments))
        for k, curve in enumerate(curves):
            axes.plot(grid, curve, color=colour(k), ls=line(k), lw=1.6)
            axes.plot(
                [control],
                [at_control[k]],
                "o",
                ms=5,
                mfc=PAPER,
                mec=colour(k),
                mew=1.3,
                zorder=4,
                clip_on=False,
            )
        dots.append(own)
        axes.set_xlabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    for axes, outcome in zip(figure.axes, outcomes, strict=False):
        axes.set_title(f"Expected {outcome}")
    figure.axes[-1].set_title(f"Expected profit{content.money.within} {content.money.each}")
    observed = len(outcomes) == 1  # of several their sum in money was kept
    if observed:
        bins = content.evaluated.lack_of_fit.table
        figure.axes[0].errorbar(
            bins["treatment"].str[0],
            bins["observed"],
            bins["standard_error"],
            fmt="s",
            ms=3.5,
            color=MUTED,
            mfc=PAPER if content.raw_means else MUTED,
            elinewidth=1,
            zorder=2,
        )
    for axes, own in zip(figure.axes, dots, strict=True):
        _name_above(axes, treatments, own)
    raw = (
        f" They are raw means, not effects: confounded by {content.raw_means}, which the curves "
        "are not."
        if content.raw_means
        else ""
    )
    caption = (
        "Each curve is the mean response of the units that get one treatment; the letter marks "
        "what they are offered, the open circle is the control."
    )
    if not observed:
        return figure, caption
    return figure, (
        f"{caption} {'Open' if content.raw_means else 'Grey'} squares are observed means of the "
        f"whole experiment with one standard error.{raw}"
    )


def _name_above(axes: Axes, treatments: FloatArray, own: FloatArray) -> None:
    """Mark treatments (K,) on their curves, with the letters in a row above everything drawn."""
    calm(axes)
    low, high = axes.get_ylim()
    row = high + 0.06 * (high - low)
    axes.set_ylim(low, high + 0.13 * (high - low))
    ends = axes.get_xlim()
    width = ends[1] - ends[0]
    letters = spread(treatments, _GAP * width, ends[0] + _GAP / 2 * width, ends[1])
    for k, (t, value, place) in enumerate(zip(treatments, own, letters, strict=True)):
        axes.plot([place, t, t], [row, high, value], ":", color=colour(k), lw=0.9, zorder=1)
        axes.plot([t], [value], "o", ms=5.5, mfc=colour(k), mec=PAPER, mew=0.8, zorder=5)
        mark(axes, place, row, k)
    axes.set_xlim(ends)


def _maps(content: ReportContent) -> tuple[Figure, str]:
    count = len(content.selected) + 1
    rows = -(-count // _COLUMNS)
    figure = new_figure(2.75 * rows + 0.3)
    panels = _panels(figure, rows, _COLUMNS, count)
    x, y = _axis(content, 0, 41), _axis(content, 1, 41)
    points = np.column_stack([np.tile(x, len(y)), np.repeat(y, len(x))])
    gains = content.profits(points) - content.profits(content.space.control[None, :])
    gains[:, ~content.space.allowed(points)] = np.nan
    top = float(np.nanmax(gains))
    levels = np.asarray(MaxNLocator(7).tick_values(0.0, top if top > 0 else 1.0))
    levels = levels[levels >= 0]
    blue = to_rgb(BLUE)
    fills = [
        (*blue, 0.08 + 0.62 * step / max(len(levels) - 2, 1)) for step in range(len(levels) - 1)
    ]
    panels[0].set_title("The menu; discs sized by share")
    if len(content.own_best):
        letters = {treatment: k for k, treatment in enumerate(content.selected["treatment_id"])}
        colours = [colour(letters[treatment]) for treatment in content.own_best["treatment_id"]]
        own = content.space.encode(content.own_best)
        panels[0].scatter(own[:, 0], own[:, 1], s=4, c=colours, alpha=0.5, lw=0, zorder=2)
    sizes = 9 + 24 * np.sqrt(content.selected["share"].to_numpy(float))
    scale = [np.ptp(_with_margin(content, j)) / points for j, points in enumerate(_PANEL)]
    centres = apart(content.treatments / scale, sizes) * scale
    for k, (centre, t) in enumerate(zip(centres, content.treatments, strict=True)):
        if (centre != t).any():
            panels[0].plot(*zip(centre, t, strict=True), color=INK, lw=0.8, zorder=4)
            panels[0].plot(*t, "o", ms=3.5, mfc=INK, mec=PAPER, mew=0.6, zorder=4)
        mark(panels[0], centre[0], centre[1], k, size=float(sizes[k]))
    for k, axes in enumerate(panels[1:]):
        gain = gains[k].reshape(len(y), len(x))
        filled = axes.contourf(x, y, gain, levels=levels, colors=fills)
        if np.nanmin(gain) < 0 < np.nanmax(gain):
            axes.contour(x, y, gain, levels=[0.0], colors=[MUTED], linewidths=0.9, linestyles="--")
        others = np.delete(content.treatments, k, axis=0)
        axes.plot(others[:, 0], others[:, 1], "o", ms=3.5, mfc=PAPER, mec=INK, mew=0.8, zorder=4)
        mark(axes, content.treatments[k, 0], content.treatments[k, 1], k)
        axes.set_title(f"Segment {letter(k)}, {percent(content.selected['share'][k])} of units")
    for place, axes in enumerate(panels):
        axes.plot(
            content.space.control[:1],
            content.space.control[1:],
            "x",
            ms=5,
            mec=MUTED,
            mew=1.4,
            zorder=3,
        )
        axes.grid(visible=place == 0)
        axes.set_xlim(*_with_margin(content, 0))
        axes.set_ylim(*_with_margin(content, 1))
        if place % _COLUMNS == 0:
            axes.set_ylabel(content.space.names[1])
        if place + _COLUMNS >= count:
            axes.set_xlabel(content.space.names[0])
    bar = figure.colorbar(
        filled,
        ax=panels,
        shrink=0.6,
        aspect=30,
        pad=0.02,
        label=f"profit{content.money.within} {content.money.each} above the control",
    )
    bar.outline.set_visible(False)
    dots = (
        "In the first map a dot is a unit at its own best treatment, in the colour of what it "
        "gets. "
    )
    return figure, (
        f"{dots if len(content.own_best) else ''}A segment's map is its mean profit over all "
        "treatments, above that under the control (the cross). The stronger the colour, the "
        "more; outside the dashed line it is less than under the control. The letter marks what "
        "the segment is offered, small circles are the other treatments of the menu."
    )


def _panels(figure: Figure, rows: int, columns: int, count: int) -> list[Axes]:
    """Return the first ``count`` of a grid of small pictures with common axes.

    The lowest of each column has tick labels.
    """
    panels: list[Axes] = (
        figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    )
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)
    return panels[:count]


def _points(content: ReportContent) -> tuple[Figure, str]:
    everything = len(content.space.candidates) <= _ROWS_SHOWN
    shown = (
        content.space.candidates
        if everything
        else np.unique(np.vstack([content.treatments, content.space.control]), axis=0)
    )
    count = len(content.selected)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = new_figure(rows * (0.7 + 0.26 * len(shown)) + 0.3)
    panels = _panels(figure, rows, columns, count)
    places = np.arange(len(shown))[::-1]
    profits = content.profits(shown)
    several = len(content.space.dimensions) > 1
    labels = [
        treatment_text(content, row, names=several)
        for _, row in content.space.decode(shown).iterrows()
    ]
    is_control = np.all(np.abs(shown - content.space.control) <= 1e-9, axis=1).tolist()
    for k, axes in enumerate(panels):
        axes.plot(profits[k], places, "o", ms=5, mfc=MUTED, mec=PAPER, zorder=3)
        axes.axvline(float(profits[k][is_control.index(True)]), color=MUTED, lw=1, ls=":")
        own = int(np.abs(shown - content.treatments[k]).max(axis=1).argmin())
        mark(axes, float(profits[k][own]), float(places[own]), k)
        axes.set_title(f"Segment {letter(k)}, {percent(content.selected['share'][k])} of units")
        axes.set_yticks(
            places,
            [
                _two_lines(f"{text} (control)" if control else text)
                for text, control in zip(labels, is_control, strict=True)
            ],
        )
        if k % columns == 0 and not several:
            axes.set_ylabel(_two_lines(content.space.names[0]))
        axes.margins(y=0.15 if len(shown) < 6 else 0.06)
        if k + columns >= count:
            axes.set_xlabel(f"expected profit{content.money.within} {content.money.each}")
    return figure, (
        "Mean profit of each segment under "
        f"{'every treatment' if everything else 'the treatments of the menu and the control'}; "
        "the letter marks what the segment is offered, the dotted line its profit under the "
        "control."
    )


def _two_lines(text: str) -> str:
    """Return a label that leaves room for what it labels."""
    lines = wrap(text, _LABEL)
    return "\n".join(lines[:2]) + "…" * (len(lines) > 2)


def _axis(content: ReportContent, dimension: int, points: int) -> FloatArray:
    """Return values along a dimension that miss the control by a hair.

    A response may jump there, which a curve must not join.
    """
    lower, upper = content.space.bounds[dimension]
    grid = np.linspace(lower, upper, points)
    control, hair = content.space.control[dimension], 1e-6 * (upper - lower)
    return np.where(
        np.abs(grid - control) < hair, control + (hair if control < upper else -hair), grid
    )


def _with_margin(content: ReportContent, dimension: int) -> tuple[float, float]:
    """Return the ends of a map along a dimension: discs on its border and control stay whole."""
    lower, upper = content.space.bounds[dimension]
    control = content.space.control[dimension]
    return float(min(lower, control) - 0.06 * (upper - lower)), float(
        max(upper, control) + 0.06 * (upper - lower)
    )
