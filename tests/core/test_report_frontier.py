"""Frontiers in words, on the terminal and on the page: what they say is what their rows say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from test_report import Page, field_content, flowing, summary_of

from coarse_spark.report.content import ReportContent
from coarse_spark.report.frontier import Frontier, frontiers_of, sentences, table_rows
from coarse_spark.report.money import Money
from coarse_spark.report.page import render_report

NAN = float("nan")


def _rows(
    moved: str, at: list[float], own: int, across: list[float], profit: list[float]
) -> pd.DataFrame:
    """Return rows of a frontier whose paired differences have errors of 0.01."""
    measure = "spending" if moved == "budget" else f"outcome {moved.removeprefix('weight of ')}"
    frames = []
    for name, values, error in (("profit", profit, 0.05), (measure, across, 0.001)):
        value, difference = np.array(values), np.diff(values, prepend=NAN)
        frames.append(
            pd.DataFrame(
                {
                    "sweep": f"{moved}, 1",
                    "moved": moved,
                    "point": range(len(at)),
                    "measure": name,
                    "policy": "menu",
                    "k": 2,
                    "at": at,
                    "current": [n == own for n in range(len(at))],
                    "value": value,
                    "se": error,
                    "ci_low": value - 2 * error,
                    "ci_high": value + 2 * error,
                    "difference": difference,
                    "difference_se": np.where(np.isnan(difference), NAN, 0.01),
                    "difference_low": difference - 0.02,
                    "difference_high": difference + 0.02,
                    "plug_in_value": value + (0.1 if name == "profit" else 0.0),
                    "shadow_price": [NAN, 2.5, 0.8, 0.0][: len(at)] if moved == "budget" else NAN,
                    "treatments": [["t = 0", "t = 1.5"]] * len(at),
                    "shares": [[0.25, 0.75]] * len(at),
                    "n": 1_000,
                }
            )
        )
    rows = pd.concat(frames, ignore_index=True)
    rows.loc[rows["point"] == 0, "policy"] = "control" if moved == "budget" else "menu"
    return rows


BUDGETS = _rows("budget", [NAN, 0.5, 1.0, NAN], 2, [0, 0.5, 1.0, 1.3], [2, 3.25, 3.8, 3.81])
TRADED = _rows("weight of <b>", [-1, 0, 1], 1, [0.1, 0.2, 0.4], [1.9, 2.0, 1.85])


def _frontier(rows: pd.DataFrame) -> Frontier:
    (found,) = frontiers_of(rows, Money("EUR", "customer"), 0.95)
    return found


def test_what_the_neighbours_of_the_own_budget_change() -> None:
    own, price, less, more = (text.replace("\u00a0", " ") for text in sentences(_frontier(BUDGETS)))
    assert own == (
        "With a budget of 1 the menu spends 1.00 EUR per customer, and honest profit is 3.800 EUR "
        "(95% interval 3.700 to 3.900): the run's own choice."
    )
    assert price == "1 EUR more of budget would earn 0.800 EUR there by the estimated responses."
    assert less == (
        "With a budget of 0.5 instead, spending changes by −0.50, and honest profit per customer "
        "by −0.550 EUR (paired, −0.570 to −0.530)."
    )
    assert more == (
        "Without a budget instead, spending changes by 0.30, and honest profit per customer by "
        "0.010 EUR (paired, −0.010 to 0.030), which may be nothing."
    )


def test_what_more_or_less_of_an_outcome_changes() -> None:
    own, less, more = sentences(_frontier(TRADED))
    assert own.startswith("With <b> counted by its margin alone, honest profit is 2.000")
    assert less.startswith("With −1 for every unit of it instead, the mean of <b> changes by −0.10")
    assert "−0.150" in more
    assert "which may be nothing" not in more


def test_one_more_earns_what_profit_changes_by_over_the_step() -> None:
    rates = _frontier(BUDGETS).rates
    np.testing.assert_allclose(rates["rate"][1:], [2.5, 1.1, 0.01 / 0.3])
    np.testing.assert_allclose(rates["low"][1:], [2.46, 1.06, -0.01 / 0.3])
    assert np.isnan(rates["rate"][0])
    # a budget that nobody uses up is no step across
    idle = BUDGETS.assign(plug_in_value=BUDGETS["plug_in_value"].where(BUDGETS["point"] < 3, 1.0))
    assert np.isnan(_frontier(idle).rates["rate"][3])
    # more of the outcome may cost: the ends of an interval change places
    fewer = _rows("weight of y", [-1, 0], 1, [0.4, 0.2], [1.9, 2.0])
    rate, low, high = _frontier(fewer).rates.iloc[1]
    assert (rate, low, high) == pytest.approx((-0.5, -0.6, -0.4))


def test_a_table_names_what_moves_and_marks_the_own_choice() -> None:
    rows = table_rows(_frontier(BUDGETS))
    assert [row["at"] for row in rows] == ["control", "0.5", "1", "no budget"]
    assert [row["current"] for row in rows] == [False, False, True, False]
    assert rows[1]["price"] == "2.500"
    assert rows[0]["difference"] == rows[0]["difference_interval"] == "–"
    assert rows[2]["menu"] == "t = 0 to 25%; t = 1.5 to 75%"
    assert [row["at"] for row in table_rows(_frontier(TRADED))] == ["−1", "0", "+1"]


@pytest.fixture(scope="module")
def content() -> ReportContent:
    both = pd.concat([BUDGETS, TRADED], ignore_index=True)
    return dataclasses.replace(field_content(1), frontier=both)


def test_page_and_summary_show_frontiers_where_there_are_any(content: ReportContent) -> None:
    page = Page(render_report(content))
    for told in ("What another budget would buy", "the run's own", "Without a budget instead"):
        assert told in page.text
    assert "What more or less of <b> costs" in page.text
    assert "b" not in page.tags
    assert not page.open
    summary = flowing(summary_of(content))
    assert "What another budget would buy" in summary
    assert "→ 1" in " ".join(summary.split())
    without = dataclasses.replace(content, frontier=pd.DataFrame())
    assert "another budget" not in render_report(without) + summary_of(without)
