"""The price of what counts at which one limit on it is kept, such as of spending within a budget.

Under one price of spending the best assignment is that of profit less price times spending, and its
spending falls as the price rises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray

_DOUBLINGS = 60
_BISECTIONS = 50
_FIRST_STEP, _LONGEST_STEP_DOWN, _HIGHEST = 1.25, 5.0, 1e18
_PRECISION = 1e-12


def price_scale(profits: FloatArray, spending: FloatArray) -> float:
    """Return a price of spending that is small for profits (n, K) and spending (n, K)."""
    return 1e-3 * (float(np.ptp(profits)) or 1.0) / (float(np.ptp(spending)) or 1.0)


@dataclass
class PriceSearch:
    """Where spending, which falls as its price rises, meets a limit.

    Attributes
    ----------
    start : price to begin with.
    scale : price to go up from where nothing above 0 is known.
    low : largest price known to be too low, with what is spent above the limit.
    high : lowest price known to be high enough, with the same.
    """

    start: float
    scale: float
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    _tried: int = 0

    def add(self, price: float, excess: float) -> None:
        """Note what is spent above the limit at a price."""
        self._tried += 1
        if excess > 0:
            self.low = price, excess
        else:
            self.high = price, excess

    @property
    def following(self) -> float:
        """The price to try next."""
        if self.low is not None and self.high is not None:
            (low, over), (high, under) = self.low, self.high
            # every third price halves what is left: where spending falls in steps, a secant creeps
            share = 0.5 if self._tried % 3 == 0 else min(max(over / (over - under), 0.1), 0.9)
            return low + share * (high - low)
        step = float(_FIRST_STEP**2.0 ** (self._tried - 1))
        if self.low is not None:
            return max(self.low[0] * step, self.scale)
        if self.high is not None:
            return self.high[0] / step if step < _LONGEST_STEP_DOWN else 0.0
        return self.start

    @property
    def closed(self) -> bool:
        """Whether no other price needs to be tried."""
        if self.high is None:
            return False
        return self.high[0] == 0 or (
            self.low is not None and self.high[0] - self.low[0] <= _PRECISION * self.high[0]
        )


def lowest_price(
    spent: Callable[[float], float], limit: float, start: float, scale: float, tries: int
) -> float | None:
    """Return about the lowest price at which ``spent`` is within the limit, None if none is.

    Parameters
    ----------
    start, scale : see ``PriceSearch``.
    tries : calls of ``spent`` once the price is enclosed.
    """
    search = PriceSearch(start, scale)
    while tries and not search.closed:
        price = search.following
        if not price < _HIGHEST * scale:
            return None
        tries -= search.low is not None and search.high is not None
        search.add(price, spent(price) - limit)
    return None if search.high is None else search.high[0]


def free_price(
    profits: FloatArray, spending: FloatArray, weights: FloatArray, limit: float, start: float
) -> float | None:
    """Return the lowest price at which units that choose freely spend at most ``limit`` in all.

    None where none reaches it.

    Parameters
    ----------
    profits, spending : (n, K).
    weights : (n,).
    start : first price above 0 to try.

    Notes
    -----
    A unit's profit less price is linear in the price under every treatment, so whoever chooses
    alike at two prices does so between them: a bisection has to look at the others only, and costs
    a few sweeps over the units whatever its precision.
    """

    def chosen(price: float, rows: IntArray) -> IntArray:
        return np.asarray((profits[rows] - price * spending[rows]).argmax(axis=1))

    rows = np.arange(len(profits))
    at_low = chosen(0.0, rows)
    if float(weights @ spending[rows, at_low]) <= limit:
        return 0.0
    low, high = 0.0, start if start > 0 else 1.0
    for _ in range(_DOUBLINGS):
        at_high = chosen(high, rows)
        if float(weights @ spending[rows, at_high]) <= limit:
            break
        low, at_low, high = high, at_high, 2 * high
    else:
        return None
    decided = 0.0
    for _ in range(_BISECTIONS):
        open_ = at_low != at_high
        decided += float(weights[rows[~open_]] @ spending[rows[~open_], at_low[~open_]])
        rows, at_low, at_high = rows[open_], at_low[open_], at_high[open_]
        middle = (low + high) / 2
        at_middle = chosen(middle, rows)
        if decided + float(weights[rows] @ spending[rows, at_middle]) <= limit:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return high
