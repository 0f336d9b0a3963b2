"""Money in the user's words: the currency, what a unit's profit is of, totals of a population."""

from __future__ import annotations

import math
from dataclasses import dataclass

_NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Money:
    """The words of amounts.

    Attributes
    ----------
    currency : such as EUR or €; empty where amounts stand alone.
    per : what a unit's profit is of: unit, customer, customer and month.
    """

    currency: str = ""
    per: str = "unit"

    def amount(self, text: str) -> str:
        """Return a number with its currency: names behind it, such as EUR, signs before it."""
        if not self.currency or not any(sign.isdigit() for sign in text):
            return text
        if any(sign.isalpha() for sign in self.currency):
            return f"{text}{_NO_BREAK}{self.currency}"
        minus = "−" * text.startswith("−")
        return f"{minus}{self.currency}{text.removeprefix('−')}"

    @property
    def each(self) -> str:
        """What an amount of one unit is of, such as "per customer"."""
        return f"per {self.per}"

    @property
    def unit(self) -> str:
        """What amounts of one unit are counted in, such as "EUR per customer"."""
        return " ".join(filter(None, [self.currency, self.each]))

    @property
    def of_total(self) -> str:
        """What the sum over all units is still of: "per month" of "customer and month"."""
        rest = self.per.partition(" and ")[2]
        return f"per {rest}" if rest else ""

    @property
    def within(self) -> str:
        """The words of titles, such as " in EUR"."""
        return f" in {self.currency}" if self.currency else ""


def rounded(value: float, error: float) -> float:
    """Return a total to two digits of its standard error: what is beyond says nothing."""
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return value
    return round(value, 1 - math.floor(math.log10(error)))
