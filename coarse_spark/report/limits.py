"""Limits of the published menu in words: what binds, and what one more unit of it is worth."""

from __future__ import annotations

from coarse_spark.report.content import ReportContent
from coarse_spark.report.wording import decimals_for, number, treatment_text


def limit_sentences(content: ReportContent) -> list[str]:
    """Return what the limits of the published menu cost, one sentence each; none without limits."""
    limits = content.chosen.menus[content.selected_k].limits
    if limits is None:
        return []
    sentences = _shares(content) if limits.of_shares else []
    if limits.budget is None:
        return sentences
    used = (
        f"The menu spends {_money(content, limits.spending)} of the "
        f"{_money(content, limits.budget)} that the budget allows {content.money.each}"
    )
    worth = (
        f"one more of budget would earn {_money(content, limits.budget_price)}"
        if limits.budget_price
        else "the budget does not bind"
    )
    return [*sentences, f"{used}; {worth}."]


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
