"""Every notebook runs as it is, opens in Jupyter, draws readable pictures, and claims what it may.

Notebooks of ``notebooks/`` are found by their numbers. The long ones are slow tests; the one on
Spark takes the session that is there.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jupytext
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coarse_spark.core.menu.menu import Menu

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.py"))
QUICK = ("01_quick_start",)
ON_SPARK = ("02_promotions", "06_responses_brought_along")
NEEDS = {"06_responses_brought_along": ("econml", "lightgbm")}  # of the extra "bench"

Cells = dict[str, Any]


def ids(path: Path) -> str:
    return path.stem


def marks(path: Path) -> list[pytest.MarkDecorator]:
    slow = [] if path.stem in QUICK else [pytest.mark.slow]
    return [*slow, pytest.mark.spark] if path.stem in ON_SPARK else slow


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_a_notebook_opens_in_jupyter_by_jupytext(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    percent = runpy.run_path(str(path.parent / "to_jupyter.py"))["percent"]
    notebook = jupytext.reads(percent(source), fmt="py:percent")
    nbformat.validate(notebook)
    cells = notebook.cells
    assert source.startswith("# Databricks notebook source\n")
    assert len(cells) == source.count("# COMMAND ----------") + 1
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    codes = [cell.source for cell in cells if cell.cell_type == "code"]
    assert texts[0].startswith(f"# {int(path.stem[:2])}. ")
    assert len(texts) > 4
    assert not [cell for cell in texts + codes if "MAGIC" in cell or not cell.strip()]
    for code in codes:
        compile(code, path.name, "exec")
    # every figure that is made is shown
    assert source.count("plt.show()") == source.count("plt.subplots(") > 2


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=marks(path)) for path in NOTEBOOKS],
    ids=ids,
)
@pytest.mark.timeout(1_800)
def test_a_notebook_runs_and_its_claims_hold(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in NEEDS.get(path.stem, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    with plt.rc_context():
        cells = runpy.run_path(str(path))
        figures = [plt.figure(number) for number in plt.get_fignums()]
        try:
            assert len(figures) == path.read_text(encoding="utf-8").count("plt.subplots(")
            for figure in figures:
                check_picture(figure)
        finally:
            plt.close("all")
    CLAIMS[path.stem](cells)


def check_picture(figure: Figure) -> None:
    """Titles, labels, data, and a legend that lies on none of it."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>":
            assert axes.get_ylabel()
            continue
        assert axes.get_title()
        assert axes.get_xlabel(), axes.get_title()
        assert axes.get_ylabel() or axes.get_subplotspec().colspan.start > 0, axes.get_title()
        assert axes.has_data(), axes.get_title()
        if axes.get_xlabel().startswith("K,"):
            assert all(label.get_text().isdigit() for label in axes.get_xticklabels())
        assert axes.get_legend() is None, f"{axes.get_title()}: put the legend outside"
        check_words(axes)


def check_words(axes: Axes) -> None:
    """No tick label covers the next one."""
    for labels, low, high in ((axes.get_xticklabels(), 0, 2), (axes.get_yticklabels(), 1, 3)):
        boxes = [one.get_window_extent().extents for one in labels if one.get_text()]
        boxes.sort(key=lambda box: box[low])
        for before, after in pairwise(boxes):
            assert before[high] <= after[low] + 1, axes.get_title()


def quick_start(cells: Cells) -> None:
    menus, gain, true_gain = (cells[name] for name in ("menus", "gain", "true_gain"))
    assert [menu.k for menu in menus] == [1, 2, 3, 4, 5]
    assert menus[4].captured_of_control > 0.97
    assert menus[4].captured_of_uniform > 0.9
    assert max(menu.gap for menu in menus) < 0.002
    # plug-in values are optimistic, the honest interval holds the truth
    assert cells["plug_in"][2] > true_gain[2] > 0.08
    assert gain.loc[3, "ci_low"] < true_gain[2] < gain.loc[3, "ci_high"]
    assert gain.loc[2, "ci_low"] > 0
    assert cells["more"]["ci_low"] < 0 < cells["more"]["ci_high"]


def promotions(cells: Cells) -> None:
    menus, gain, ours = (cells[name] for name in ("menus", "gain", "ours"))
    chosen, k = cells["chosen"], cells["k"]
    assert len(chosen) == k > 1
    assert chosen["share"].sum() == pytest.approx(1)
    bounds = menus.set_index("k")
    whole = cells["granular"]["plug_in_value"] - cells["control"]["plug_in_value"]
    assert ((bounds["upper_bound"] - bounds["plug_in_value"]) / whole).max() < 0.02
    # honest gains are real, and hold what the simulation knows
    assert gain.loc[k, "ci_low"] > 0
    assert ours.loc["control", "ci_low"] > 0
    none, alike, menu_earned = (cells[name] for name in ("none", "alike", "menu_earned"))
    assert menu_earned > alike > none
    # no other policy of as many promotions honestly earns more by more than chance
    assert (cells["others"]["ci_high"] > 0).all()
    assert ours.loc["random_menu", "ci_low"] > 0
    # the rule gives every customer a promotion of the menu
    assert cells["by_rule"]["treatment_id"].isin(chosen.index).all()
    assert len(cells["by_rule"]) == len(cells["known"])
    assert cells["case"].startswith("CASE")


def pricing(cells: Cells) -> None:
    menus, gain, over_one, truth = (cells[n] for n in ("menus", "gain", "over_one", "truth"))
    assert menus[1].captured_of_uniform == pytest.approx(0, abs=1e-9)
    assert menus[3].captured_of_uniform > 0.85
    assert menus[5].captured_of_control > 0.95
    assert max(menu.gap for menu in menus.values()) < 0.002
    assert cells["honest"].lack_of_fit.p_value > 0.05
    assert over_one.loc[3, "ci_low"] > 0.2
    assert gain.loc[3, "ci_low"] < truth[3] < gain.loc[3, "ci_high"]
    assert 0.6 < cells["kept"] < 1
    assert set(cells["menu"].treatments["price"]) <= set(cells["PRICES"])
    # who changes, does so for more than it costs
    assert 0.3 < 1 - cells["calm"].changed_share < 0.7
    assert 9.99 in set(cells["calm"].treatments["price"])


def incentives(cells: Cells) -> None:
    # the real experiment: one voucher for all, and a budget whose price is the slope of the value
    assert cells["one"]["ci_low"] > 0.5
    assert abs(cells["more"]["difference"]) < 0.05
    assert cells["more"]["ci_low"] < 0 < cells["more"]["ci_high"]
    check_slopes(cells["budgets"], cells["limited"], cells["prices"])
    assert cells["prices"][0] > 0.3
    assert cells["prices"][-1] == 0

    # the simulated one: both limits are kept, and two offers earn more than one
    kept, over_one, truth = cells["kept"], cells["over_one"], cells["truth"]
    for menu in list(kept.values())[1:]:
        visits = menu.shares[menu.treatments["visit"] == 1].sum()
        assert visits <= cells["CAPACITY"] + 1e-3
        assert menu.limits.spending <= cells["MONEY"] + 1e-9
    assert kept[4].captured_of_control < 0.85 < 0.95 < cells["free"][4].captured_of_control
    assert over_one.loc[2, "ci_low"] > 0.3
    assert over_one.loc[2, "ci_low"] < truth[2] < over_one.loc[2, "ci_high"]
    check_slopes(cells["capacities"], cells["more_visits"], cells["shadow"])
    assert min(cells["shadow"]) > 1


def other_domains(cells: Cells) -> None:
    letters, gain, truth = cells["letters"], cells["gain"], cells["truth"]
    assert letters[3].captured_of_uniform > 0.8
    # the text says that the experiment cannot be sure of the gain; it is one
    assert gain.loc[3, "ci_low"] < 0 < truth[3] < gain.loc[3, "ci_high"]
    assert truth[3] > truth[2] > 0.05

    lines, row = cells["lines"], cells["line_gain"]
    assert lines[4].captured_of_uniform > 0.8
    assert lines[4].gap < 0.002
    assert cells["judged"].lack_of_fit.p_value > 0.02
    assert 0 < row["ci_low"] < cells["line_truth"] < row["ci_high"]
    assert cells["lengths"] == sorted(cells["lengths"], reverse=True)
    assert cells["lengths"][1] == 4
    means = cells["customers"].groupby(cells["offered"]).mean()
    organic = means.index.str.contains("organic")
    assert means.loc[organic, "green"].min() > means.loc[~organic, "green"].max()
    small = means.index.str.startswith("500")
    assert means.loc[small, "household"].max() < means.loc[~small, "household"].min()


def brought_along(cells: Cells) -> None:
    # models that saw the units are told from those that did not, and only the latter are honest
    for name in ("LightGBM", "EconML"):
        assert cells["check"].loc[(name, "in sample"), "z"] > 4
        assert abs(cells["check"].loc[(name, "out of fold"), "z"]) < 3
        fair, seen = (cells["tables"][name, kind] for kind in ("out of fold", "in sample"))
        assert ((fair["ci_low"] < fair["truth"]) & (fair["truth"] < fair["ci_high"])).all()
        assert seen.loc[4, "ci_low"] > seen.loc[4, "truth"]
    none, one, three, own = cells["policies"].values()
    assert none < one < three < own
    assert (three - one) / (own - one) > 0.5
    assert cells["run"].record.status == "published"


def check_slopes(limits: np.ndarray, menus: list[Menu], prices: list[float]) -> None:
    """Between two limits, values rise by at most the first one's price, at least the last one's.

    Within what dividing units by whole ones and prices found to some digits cost.
    """
    slopes = np.diff([menu.value for menu in menus]) / np.diff(limits)
    assert (slopes <= np.array(prices[:-1]) * 1.05 + 0.02).all()
    assert (slopes >= np.array(prices[1:]) * 0.95 - 0.02).all()


CLAIMS: dict[str, Callable[[Cells], None]] = {
    "01_quick_start": quick_start,
    "02_promotions": promotions,
    "03_pricing": pricing,
    "04_incentives": incentives,
    "05_other_domains": other_domains,
    "06_responses_brought_along": brought_along,
}


def test_every_notebook_has_its_claims_checked() -> None:
    assert list(CLAIMS) == [path.stem for path in NOTEBOOKS]
