"""The picture of a frontier: profit across it, and what one more across it changes profit by."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from coarse_spark.report.drawing import (
    BLUE,
    GRID,
    INK,
    MUTED,
    PAPER,
    calm,
    new_figure,
    style,
    to_svg,
)
from coarse_spark.report.frontier import Frontier, first_column, table_rows, title


def picture(frontier: Frontier, number_of: int) -> str:
    """Return profit across the frontier, beside what one more across it changes profit by."""
    with style():
        figure = new_figure(3.5)
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        _curve(left, frontier)
        _rates(right, frontier)
        handles, labels = left.get_legend_handles_labels()
        more, names = right.get_legend_handles_labels()
        figure.legend(
            [*handles, *more],
            [*labels, *names],
            loc="outside lower left",
            ncols=4,
            fontsize=7.5,
            handlelength=1.6,
        )
        told = "; ".join(f"{row['at']}: {row['profit']}" for row in table_rows(frontier))
        return to_svg(
            figure,
            f"frontier{number_of}",
            f"{title(frontier)}: honest profit{frontier.money.within} {frontier.money.each} by "
            f"{first_column(frontier)}. {told}.",
        )


def _axis_name(frontier: Frontier) -> str:
    if frontier.of_budget:
        return f"spent{frontier.money.within} {frontier.money.each}"
    return f"mean of {frontier.outcome} {frontier.money.each}"


def _curve(axes: Axes, frontier: Frontier) -> None:
    x, rows = frontier.places, frontier.profit
    order = np.argsort(x, kind="stable")
    axes.plot(
        x[order],
        rows["plug_in_value"].to_numpy(np.float64)[order],
        color=MUTED,
        lw=1,
        ls="--",
        label="plug-in: by the responses themselves",
        zorder=2,
    )
    value = rows["value"].to_numpy(np.float64)
    error = np.vstack([value - rows["ci_low"], rows["ci_high"] - value]).clip(min=0)
    axes.errorbar(
        x,
        value,
        error,
        fmt="o",
        ms=5,
        color=BLUE,
        mec=PAPER,
        elinewidth=1.4,
        label=f"honest, {frontier.level} interval",
        zorder=3,
    )
    own = frontier.current
    axes.plot(
        [x[own]],
        [value[own]],
        "o",
        ms=11,
        mfc="none",
        mec=INK,
        mew=1.5,
        zorder=4,
        label="the run's own choice",
    )
    axes.set_xlabel(_axis_name(frontier))
    axes.set_title(f"Expected profit{frontier.money.within} {frontier.money.each}")
    calm(axes)


def _rates(axes: Axes, frontier: Frontier) -> None:
    x, rates, rows = frontier.places, frontier.rates, frontier.profit
    known = np.isfinite(rates["rate"].to_numpy(np.float64))
    low, high, rate = (rates[name].to_numpy(np.float64)[known] for name in ("low", "high", "rate"))
    ends = np.column_stack([np.roll(x, 1), x])[known]
    middle = ends.mean(axis=1)
    if frontier.of_budget:
        price = rows["shadow_price"].to_numpy(np.float64)
        name = "price of the budget (plug-in)"
    else:
        price, name = -rows["at"].to_numpy(np.float64), "what it was traded at"
    axes.axhline(0, color=MUTED, lw=1, ls=":", zorder=1)
    for left, right, value in zip(*ends.T, rate, strict=True):
        axes.plot([left, right], [value, value], color=BLUE, lw=1.2, zorder=2)
    axes.errorbar(
        middle,
        rate,
        np.vstack([rate - low, high - rate]).clip(min=0),
        fmt="o",
        ms=4,
        color=BLUE,
        mec=PAPER,
        elinewidth=1.4,
        zorder=3,
    )
    axes.plot(x, price, "_", ms=12, mec=INK, mew=1.6, label=name, zorder=4)
    own = x[frontier.current]
    axes.axvline(own, color=GRID, lw=6, alpha=0.6, zorder=0)
    axes.set_xlabel(_axis_name(frontier))
    axes.set_title(
        "One more spent earns (honest, paired)"
        if frontier.of_budget
        else f"Profit for one more {frontier.outcome} (paired)"
    )
