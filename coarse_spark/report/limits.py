"""Limits of the published menu in words: what binds, and what one more unit of it is worth."""

from __future__ import annotations

from coarse_spark.core.menu.problem.limits import BUDGET
from coarse_spark.lake.step_results import TotalKept
from coarse_spark.report.content import ReportContent
from coarse_spark.report.wording import decimals_for, number, treatment_text


def limit_sentences(content: ReportContent) -> list[str]:
    """Return what the limits of the published menu cost, one sentence each; none without limits."""
    limits = content.chosen.menus[content.selected_k].limits
    if limits is None:
        return []
    sentences = _shares(content) if limits.of_shares else []
    return [*sentences, *(_total(content, total) for total in limits.totals)]


def _total(content: ReportContent, total: TotalKept) -> str:
    """Return what a menu comes to of what a limit allows, and what one more is worth."""
    if total.name == BUDGET:
        used = (
            f"The menu spends {_money(content, total.used)} of the "
            f"{_money(content, total.allowed)} that the budget allows {content.money.each}"
        )
        more, what = "more of budget", "the budget"
    else:
        side, way = ("most", "more") if total.at_most else ("least", "less")
        used = (
            f"The menu comes to {_count(total.used)} of {total.name} {content.money.each}, which "
            f"the limit asks to be at {side} {_count(total.allowed)}"
        )
        more, what = f"{way} of {total.name} that is allowed", "the limit"
    worth = (
        f"one {more} would earn {_money(content, total.price)}"
        if total.price
        else f"{what} does not bind"
    )
    return f"{used}; {worth}."


def _count(value: float) -> str:
    return number(value, decimals_for([value / 10]) if value else 0)


def _shares(content: ReportContent) -> list[str]:
    """Return what binding share limits are worth, plug-in, a treatment each."""
    sentences = []
    for _, row in content.selected.iterrows():
        price, what = float(row["shadow_price"]), treatment_text(content, row)
        if price > 0:
            sentences.append(
                f"One more unit that may take {what} would be worth {_money(content, price)}."
            )
        elif price < 0:
            sentences.append(
                f"One unit less that has to take {what} would be worth {_money(content, -price)}."
            )
    return sentences or ["The limits on shares bind no treatment."]


def _money(content: ReportContent, value: float) -> str:
    return content.money.amount(number(value, decimals_for([value / 10]) if value else 0))
