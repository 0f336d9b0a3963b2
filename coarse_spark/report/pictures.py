"""The pictures of the page that hold for every run: the K-curve, comparisons, fit of the basis."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy import stats

from coarse_spark.core.treatments import Continuous
from coarse_spark.report.content import ReportContent
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
from coarse_spark.report.wording import level, number, policy_name, value_decimals
from coarse_spark.text import counted

_SHORT = 32  # characters of a title that leave room for a note beside it


def k_curve(content: ReportContent) -> str:
    """Return the value of menus by size, beside the paired gain over the best single treatment."""
    with style():
        figure = new_figure(3.5)
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        _values(left, content)
        _gains(right, content)
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower left",
            ncols=5,
            fontsize=7.5,
            handlelength=1.6,
        )
        digits = value_decimals(content)
        points = ", ".join(
            f"K = {row.k}: {number(row.value, digits)}" for row in content.menus.itertuples()
        )
        control, granular = (
            number(content.value_of(name)["value"], digits) for name in ("control", "granular")
        )
        return to_svg(
            figure,
            "kcurve",
            f"Honest profit{content.money.within} {content.money.each} by menu size. Control "
            f"{control}; {points}; granular {granular}.",
        )


def _positions(content: ReportContent) -> dict[int, int]:
    """Return the place of every menu size on the horizontal axis.

    Full personalization comes one place after the last.
    """
    return {int(k): place for place, k in enumerate(content.menus["k"])}


def _values(axes: Axes, content: ReportContent) -> None:
    places, menus = _positions(content), content.menus
    x, last = np.arange(len(menus)), len(menus)
    uniform, control, granular = (
        content.value_of(name) for name in ("uniform", "control", "granular")
    )
    chosen = places[content.selected_k]
    axes.axvspan(chosen - 0.4, chosen + 0.4, color=GRID, alpha=0.45, lw=0)
    axes.plot(
        x + 0.12,
        menus["plug_in_value"],
        "D",
        ms=4.5,
        mfc="none",
        mec=MUTED,
        label="plug-in (optimistic)",
    )
    axes.plot(last + 0.12, granular["plug_in_value"], "D", ms=4.5, mfc="none", mec=MUTED)
    if "upper_bound" in menus and menus["upper_bound"].notna().any():
        axes.plot(
            x + 0.12,
            menus["upper_bound"],
            "_",
            ms=10,
            mec=MUTED,
            mew=1.3,
            label="plug-in bound of any menu",
        )
    _points(axes, x, menus, f"honest, {level(content)} interval")
    _points(axes, np.array([last]), granular.to_frame().T)
    axes.axhline(
        uniform["value"], color=MUTED, lw=1, ls="--", zorder=1, label="best single treatment"
    )
    _control(axes, content, float(control["value"]))
    axes.set_xticks([*x, last], [*(str(k) for k in places), "no limit"])
    axes.set_xlabel("K, number of unique treatments")
    title = f"Expected profit{content.money.within} {content.money.each}"
    if len(title) <= _SHORT:
        axes.set_title(title)
    else:  # beside a note on the control
        axes.set_title("Expected profit")
        axes.set_ylabel(content.money.unit)
    calm(axes)
    axes.grid(visible=False, axis="x")


def _control(axes: Axes, content: ReportContent, value: float) -> None:
    """Draw the control as a line, or name it below where a line would squeeze everything else."""
    rows = content.policy_values
    rows = rows[rows["policy"].isin(["uniform", "menu", "granular"])]
    low, high = (
        min(rows["ci_low"].min(), rows["plug_in_value"].min()),
        max(rows["ci_high"].max(), rows["plug_in_value"].max()),
    )
    if low - value <= 1.5 * (high - low):
        axes.axhline(value, color=MUTED, lw=1, ls=":", zorder=1, label="control")
    else:
        note = f"control: {number(value, value_decimals(content))}, below this axis"
        axes.set_title(note, loc="right", color=MUTED, fontsize=7.5, fontweight="normal")


def _points(axes: Axes, x: np.ndarray, rows: pd.DataFrame, label: str | None = None) -> None:
    value = rows["value"].to_numpy(float)
    error = np.vstack(
        [value - rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float) - value]
    )
    axes.errorbar(
        x - 0.06,
        value,
        _lengths(error),
        fmt="o",
        ms=6,
        color=BLUE,
        mec=PAPER,
        elinewidth=1.6,
        label=label,
        zorder=4,
    )


def _lengths(error: np.ndarray) -> np.ndarray | None:
    """Return interval lengths, or None where an interval is missing."""
    return error.clip(min=0) if np.isfinite(error).all() else None


def _gains(axes: Axes, content: ReportContent) -> None:
    places = _positions(content)
    rows = content.contrasts[
        (content.contrasts["versus"] == "uniform")
        & content.contrasts["policy"].isin(["menu", "granular"])
    ]
    rows = rows.rename(columns={"difference": "value"})
    x = np.array(
        [
            len(places) if policy == "granular" else places.get(k, -1)
            for policy, k in zip(rows["policy"], rows["k"], strict=True)
        ]
    )
    axes.axvspan(
        places[content.selected_k] - 0.4,
        places[content.selected_k] + 0.4,
        color=GRID,
        alpha=0.45,
        lw=0,
    )
    axes.axhline(0, color=MUTED, lw=1, ls="--", zorder=1)
    if len(rows):
        _points(axes, x[x >= 0] + 0.06, rows[x >= 0])
    axes.set_xlim(-0.6, len(places) + 0.6)
    axes.set_xticks(range(len(places) + 1), [*(str(k) for k in places), "no limit"])
    axes.set_xlabel("K, number of unique treatments")
    axes.set_title("Gain over the best single treatment (paired)")
    if len(rows) and all(
        abs(end) <= 1e-9 * content.policy_values["value"].abs().max()
        for end in axes.dataLim.intervaly
    ):
        axes.set_ylim(-1, 1)
    axes.grid(visible=False, axis="x")


def comparison_picture(content: ReportContent) -> str:
    """Return bars of what the published menu earns above each comparison, with intervals."""
    rows = content.compared.iloc[::-1]
    names = [policy_name(str(name), content.selected_k) for name in rows["versus"]]
    difference = rows["difference"].to_numpy(float)
    error = np.vstack(
        [difference - rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float) - difference]
    )
    with style():
        figure = new_figure(0.9 + 0.32 * len(rows))
        axes = figure.subplots()
        axes.barh(
            range(len(rows)),
            difference,
            height=0.6,
            color=BLUE,
            xerr=_lengths(error),
            error_kw={"ecolor": INK, "elinewidth": 1.3},
        )
        axes.axvline(0, color=MUTED, lw=1, ls="--")
        axes.set_yticks(range(len(rows)), names)
        axes.set_title(f"What the menu earns above each (paired, {level(content)} interval)")
        calm(axes)
        axes.grid(visible=False, axis="y")
        digits = value_decimals(content)
        told = "; ".join(
            f"{name}: {number(value, digits)}"
            for name, value in zip(names[::-1], difference[::-1], strict=True)
        )
        return to_svg(figure, "compared", f"Honest profit of the menu less that of others. {told}.")


def fit_picture(content: ReportContent) -> str:
    """Return observed against fitted outcome means.

    Along the treatment where it is one number, else against each other.
    """
    fit = content.evaluated.lack_of_fit
    bins = fit.table
    z = stats.norm.ppf(0.5 + content.confidence / 2)
    names = content.space.names
    along = len(names) == 1 and isinstance(content.space.dimensions[0], Continuous)
    with style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        x = bins["treatment"].str[0] if along else bins["fitted"]
        bars = {
            "yerr": z * bins["standard_error"],
            "fmt": "o",
            "ms": 5,
            "color": BLUE,
            "mec": PAPER,
            "elinewidth": 1.4,
        }
        axes.errorbar(
            x,
            bins["observed"],
            **bars,
            label=f"observed mean{' (raw, confounded)' if content.raw_means else ''}, "
            f"{level(content)} interval",
        )
        if along:
            axes.plot(
                x,
                bins["fitted"],
                "_",
                ms=18,
                mec=INK,
                mew=1.8,
                label=f"fitted by the basis “{content.basis.name}”",
            )
            axes.set_xlabel(names[0])
            axes.set_ylabel(f"mean of {content.judged_outcome}")
        else:
            ends = [min(x.min(), bins["observed"].min()), max(x.max(), bins["observed"].max())]
            axes.plot(ends, ends, color=MUTED, lw=1, ls="--", label="perfect fit", zorder=1)
            axes.set_xlabel(f"fitted mean of {content.judged_outcome}, by bin of treatment")
            axes.set_ylabel("observed mean")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        calm(axes)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=7.5
        )
        return to_svg(
            figure,
            "fit",
            f"Observed and fitted means of {content.judged_outcome} in "
            f"{counted(len(bins), 'bin')} of treatment.",
        )
