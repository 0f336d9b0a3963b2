"""What the published menu earns in all: values per unit times the weight of the population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from coarse_spark.report.content import ReportContent
from coarse_spark.report.money import rounded
from coarse_spark.report.wording import (
    decimals_for,
    identical,
    interval,
    level,
    number,
    value_decimals,
)
from coarse_spark.text import counted


@dataclass(frozen=True)
class Total:
    """An amount per unit and in all, in words.

    Attributes
    ----------
    name : what earns it.
    against : what it is above, in a sentence; empty of the value itself.
    value, interval : per unit.
    total, total_interval : in all.
    """

    name: str
    against: str
    value: str
    interval: str
    total: str
    total_interval: str


def totals(content: ReportContent) -> list[Total]:
    """Return the value of what is published, and its gains, per unit and in all.

    None for runs of versions that did not keep the population's weight.
    """
    weight = content.scored.weight
    if weight is None:
        return []
    value = content.published
    what = "rule" if content.assigned.policy == "rule" else "menu"
    digits = value_decimals(content)
    found = [_total(content, f"the {what}", "", value, value["value"], digits, weight)]
    for reference, name in (("control", "the control"), ("uniform", "the best single treatment")):
        gain = content.contrast(content.assigned.policy, reference, content.selected_k)
        alike = reference == "uniform" and len(content.selected) == 1
        if gain is None or alike or identical(content, gain):
            continue
        digits = decimals_for([gain["se"]])
        difference = gain["difference"]
        found.append(_total(content, f"above {name}", name, gain, difference, digits, weight))
    return found


def _total(
    content: ReportContent,
    name: str,
    against: str,
    row: pd.Series[Any],
    value: float,
    digits: int,
    weight: float,
) -> Total:
    error = float(row["se"]) * weight
    whole, low, high = (
        rounded(float(amount) * weight, error) for amount in (value, row["ci_low"], row["ci_high"])
    )
    decimals = decimals_for([error])
    return Total(
        name,
        against,
        content.money.amount(number(value, digits)),
        interval(row, digits),
        content.money.amount(number(whole, decimals)),
        f"{number(low, decimals)} to {number(high, decimals)}",
    )


def units_text(content: ReportContent) -> str:
    """Return how many units totals are of, with their weight where they do not weigh 1."""
    units, weight = content.scored.units, content.scored.weight
    text = counted(units, "unit")
    if weight is None or abs(weight - units) <= 1e-9 * units:
        return text
    return f"{text} of weight {number(weight, 0 if weight >= 100 else 2)}"


def totals_sentence(content: ReportContent) -> str:
    """Return what the published menu earns in all, and above what else; empty where unknown."""
    found = totals(content)
    if not found:
        return ""
    value, *gains = found
    of = f" {content.money.of_total}" * bool(content.money.of_total)
    text = (
        f"For all {units_text(content)} that are assigned: {value.total}{of} "
        f"({level(content)} interval {value.total_interval})"
    )
    text += "".join(
        f"; against {gain.against} {gain.total} ({gain.total_interval})" for gain in gains
    )
    alike = "; if they are like those of the experiment" * content.population_given
    return f"{text}{alike}."


def totals_note(content: ReportContent) -> str:
    """Return what the totals refer to."""
    text = (
        f"In all: values {content.money.each} times the {units_text(content)} of the population "
        "that are assigned"
    )
    if content.population_given:
        text += (
            ". Values and intervals are those of the experiment's units, taken for the "
            "population's: they hold in so far as these are alike"
        )
    return f"{text}."
