"""Frontiers of a run in words and a table: what another euro, or outcome, would buy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.frontier import PROFIT, SPENDING
from coarse_spark.report.money import Money
from coarse_spark.report.wording import NONE, decimals_for, interval, number, percent
from coarse_spark.text import printable

_OUTCOME = "outcome "
_STEP = 1e-9  # of the largest: a smaller step across the frontier is none


@dataclass(frozen=True, eq=False)
class Frontier:
    """One frontier as its readers see it.

    Attributes
    ----------
    rows : of table ``frontier``, of one sweep.
    money : the words of amounts.
    confidence : of the intervals.
    """

    rows: pd.DataFrame
    money: Money
    confidence: float

    @property
    def moved(self) -> str:
        """What moves along it."""
        return str(self.rows["moved"].iloc[0])

    @property
    def of_budget(self) -> bool:
        """Whether the budget moves."""
        return self.moved == "budget"

    @property
    def outcome(self) -> str:
        """The outcome that is traded for, where one is."""
        return self.moved.removeprefix("weight of ")

    @property
    def across(self) -> str:
        """The measure that a frontier is drawn across: spending, or the outcome traded for."""
        return SPENDING if self.of_budget else _OUTCOME + self.outcome

    @property
    def level(self) -> str:
        """The confidence of the intervals."""
        return f"{100 * self.confidence:g}%"

    @cached_property
    def measures(self) -> list[str]:
        """All measures, profit first."""
        return list(dict.fromkeys(self.rows.sort_values("point", kind="stable")["measure"]))

    def of(self, measure: str) -> pd.DataFrame:
        """Return the rows of a measure, a point each."""
        rows = self.rows[self.rows["measure"] == measure]
        return rows.sort_values("point").reset_index(drop=True)

    @cached_property
    def profit(self) -> pd.DataFrame:
        """The rows of profit."""
        return self.of(PROFIT)

    @cached_property
    def places(self) -> FloatArray:
        """Where points are across the frontier: what the population spends, or has of the outcome.

        By the estimated responses, which is what limits are kept by.
        """
        return self.of(self.across)["plug_in_value"].to_numpy(np.float64)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """What profit changes by from a point to the next, for one more across: rate, low, high.

        Honest and paired; the step across is the population's. NaN at the first point, and where
        a step is none.
        """
        step = np.diff(self.places, prepend=np.nan)
        large = np.abs(step) > _STEP * np.abs(self.places).max(initial=1e-300)
        names = ["difference", "difference_low", "difference_high"]
        rates = self.profit[names].to_numpy(np.float64) / np.where(large, step, np.nan)[:, None]
        ends = np.sort(rates[:, 1:], axis=1)
        return pd.DataFrame({"rate": rates[:, 0], "low": ends[:, 0], "high": ends[:, 1]})

    @cached_property
    def digits(self) -> dict[str, int]:
        """Decimals by measure."""
        return {
            name: decimals_for(self.of(name)["se"].where(lambda errors: errors > 1e-9))
            for name in self.measures
        }

    def at_text(self, point: int) -> str:
        """Return what moves, at a point, in words."""
        row = self.profit.iloc[point]
        if row["policy"] == "control":
            return "control"
        if pd.isna(row["at"]):
            return "no budget"
        text = number(row["at"], _decimals(self.profit["at"]))
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return f"+{text}" if not self.of_budget and row["at"] > 0 else text

    @property
    def current(self) -> int:
        """The point of the run's own choice."""
        return int(np.flatnonzero(self.profit["current"])[0])


def frontiers_of(rows: pd.DataFrame, money: Money, confidence: float) -> list[Frontier]:
    """Return the frontiers among rows of the table, those of budgets first."""
    if rows.empty:
        return []
    return [
        Frontier(part.reset_index(drop=True), money, confidence)
        for _, part in rows.groupby("moved", sort=True)
    ]


def _decimals(values: pd.Series[Any]) -> int:
    """Return the decimals that tell values apart which people wrote, or steps between two."""
    known = values[np.isfinite(values)].to_numpy()
    for decimals in range(6):
        if np.allclose(known, np.round(known, decimals), rtol=0, atol=1e-12):
            return decimals
    return decimals_for(np.diff(np.unique(known)))


def title(frontier: Frontier) -> str:
    """Return the question that a frontier answers."""
    if frontier.of_budget:
        return "What another budget would buy"
    return f"What more or less of {frontier.outcome} costs"


def sentences(frontier: Frontier) -> list[str]:
    """Return what the frontier says of the run's own choice and of its neighbours."""
    own, rows = frontier.current, frontier.profit
    found = [f"{_place(frontier)} honest profit is {_value(frontier, own)}: the run's own choice."]
    price = rows["shadow_price"].iloc[own]
    if frontier.of_budget and price > 0:
        one = frontier.money.amount("1")
        found.append(
            f"{one} more of budget would earn "
            f"{frontier.money.amount(number(price, decimals_for([price / 10])))} there by the "
            "estimated responses."
        )
    if own > 0 and rows["policy"].iloc[own - 1] != "control":
        found += _step(frontier, own, own - 1)
    if own + 1 < len(rows):
        found += _step(frontier, own, own + 1)
    return found


def _place(frontier: Frontier) -> str:
    """Return the run's own choice in words."""
    if not frontier.of_budget:
        return f"With {frontier.outcome} counted by its margin alone,"
    where = frontier.at_text(frontier.current)
    budget = "Without a budget" if where == "no budget" else f"With a budget of {where}"
    digits = decimals_for([np.abs(frontier.places).max() / 10])
    spent = frontier.money.amount(number(frontier.places[frontier.current], digits))
    return f"{budget} the menu spends {spent} {frontier.money.each}, and"


def _value(frontier: Frontier, point: int) -> str:
    row, digits = frontier.profit.iloc[point], frontier.digits[PROFIT]
    amount = frontier.money.amount(number(row["value"], digits))
    return f"{amount} ({frontier.level} interval {interval(row, digits)})"


def _step(frontier: Frontier, own: int, other: int) -> Iterator[str]:
    """Yield what the step from the own point to a neighbour changes."""
    later, sign = frontier.profit.iloc[max(own, other)], 1 if other > own else -1
    ends = sorted(sign * later[f"difference_{end}"] for end in ("low", "high"))
    change = sign * later["difference"]
    where = frontier.at_text(other)
    name = {"no budget": "Without a budget", "control": "With nobody treated"}.get(
        where, f"With a budget of {where}"
    )
    if not frontier.of_budget:
        name = f"With {where} for every unit of it"
    if later["difference_se"] <= _STEP * abs(later["value"]):
        yield f"{name} instead, honest profit is the same."
        return
    digits = decimals_for([later["difference_se"]])
    low, high = (number(end, digits) for end in ends)
    across = frontier.of(frontier.across).iloc[max(own, other)]
    more = number(sign * across["difference"], decimals_for([abs(across["difference"])]))
    what = SPENDING if frontier.of_budget else f"the mean of {frontier.outcome}"
    nothing = ", which may be nothing" if ends[0] <= 0 <= ends[1] else ""
    yield (
        f"{name} instead, {what} changes by {more}, and honest profit {frontier.money.each} by "
        f"{frontier.money.amount(number(change, digits))} (paired, {low} to {high}){nothing}."
    )


def table_rows(frontier: Frontier) -> list[dict[str, Any]]:
    """Return the points in words, a mapping each."""
    profit, digits = frontier.profit, frontier.digits
    others = [name for name in frontier.measures if name != PROFIT]
    steps = decimals_for(profit["difference_se"].where(lambda errors: errors > 1e-9))
    found = []
    for point, row in profit.iterrows():
        honest = {name: frontier.of(name).iloc[int(str(point))] for name in others}
        difference = number(row["difference"], steps)
        ends = f"{number(row['difference_low'], steps)} to {number(row['difference_high'], steps)}"
        found.append(
            {
                "at": frontier.at_text(int(str(point))),
                "current": bool(row["current"]),
                "profit": number(row["value"], digits[PROFIT]),
                "interval": interval(row, digits[PROFIT]),
                "difference": difference,
                "difference_interval": NONE if difference == NONE else ends,
                "others": [number(one["value"], digits[name]) for name, one in honest.items()],
                "price": number(
                    row["shadow_price"], decimals_for([profit["shadow_price"].max() / 100])
                ),
                "plug_in": number(row["plug_in_value"], digits[PROFIT]),
                "menu": "; ".join(
                    f"{name} to {percent(share)}"
                    for name, share in zip(row["treatments"], row["shares"], strict=True)
                    if share > 0
                ),
            }
        )
    return found


def measure_names(frontier: Frontier) -> list[str]:
    """Return the names of what else is measured, as a table heads them."""
    return [
        name if name == SPENDING else f"mean of {name.removeprefix(_OUTCOME)}"
        for name in frontier.measures
        if name != PROFIT
    ]


def first_column(frontier: Frontier) -> str:
    """Return the name of what moves, as a table heads it."""
    return "budget" if frontier.of_budget else f"one more {frontier.outcome} counts"


def printed(frontier: Frontier) -> Table:
    """Return the table of a frontier for a terminal, the run's own choice marked by an arrow."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    heads = ["", first_column(frontier), "honest\nprofit", f"{frontier.level}\ninterval"]
    heads += ["change to\nthe last", f"{frontier.level}\ninterval", *measure_names(frontier)]
    heads += [*(["one more\nearns"] if frontier.of_budget else []), "plug-in\nprofit"]
    for head in heads:
        table.add_column(Text(head), justify="right")
    for row in table_rows(frontier):
        cells = ["→" if row["current"] else "", row["at"], row["profit"], row["interval"]]
        cells += [row["difference"], row["difference_interval"], *row["others"]]
        cells += [*([row["price"]] if frontier.of_budget else []), row["plug_in"]]
        texts = [Text(printable(cell)) for cell in cells]
        table.add_row(*texts, style="bold green" if row["current"] else "")
    return table
