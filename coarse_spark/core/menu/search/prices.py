"""Prices at which the best menu counts just what limits on totals allow, from one try to the next.

What a menu earns at prices, with the limits paid back, is a convex function of the prices whose
slope is the room that the menu leaves. One price is enclosed. Several are those of a linear
programme over the planes that tries have shown, not too far from the best so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.optimize import linprog

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.assignment.limit_price import PriceSearch

_FURTHER = 4.0  # times a price, how far the next may be from it
_CLOSED = 1e-9  # of the value: what the planes may promise still


class Prices(Protocol):
    """A search of prices."""

    @property
    def following(self) -> tuple[float, ...]:
        """The prices (L,) to try next."""

    @property
    def closed(self) -> bool:
        """Whether no others need to be tried."""

    def add(self, prices: tuple[float, ...], excess: FloatArray, value: float) -> None:
        """Note what counts beyond limits (L,) at prices, and the value with limits paid back."""


def price_search(start: tuple[float, ...], scales: tuple[float, ...]) -> Prices:
    """Return a search from prices (L,); ``scales`` (L,) are prices that are small."""
    if len(start) == 1:
        return OnePrice(PriceSearch(start[0], scales[0]))
    return SeveralPrices(np.array(start), np.array(scales))


@dataclass(frozen=True)
class OnePrice:
    """A search of the price of one limit."""

    enclosed: PriceSearch

    @property
    def following(self) -> tuple[float, ...]:
        """The price to try next."""
        return (self.enclosed.following,)

    @property
    def closed(self) -> bool:
        """Whether no other needs to be tried."""
        return self.enclosed.closed

    def add(self, prices: tuple[float, ...], excess: FloatArray, value: float) -> None:  # noqa: ARG002  # of every search
        """Note what counts beyond the limit at a price."""
        self.enclosed.add(prices[0], float(excess[0]))


@dataclass
class SeveralPrices:
    """A search of the prices of several limits.

    Attributes
    ----------
    start : (L,) prices to begin with.
    scales : (L,) prices that are small.
    tried : prices (L,), excess (L,) and value of every try.
    """

    start: FloatArray
    scales: FloatArray
    tried: list[tuple[FloatArray, FloatArray, float]] = field(default_factory=list)

    def add(self, prices: tuple[float, ...], excess: FloatArray, value: float) -> None:
        """Note a try."""
        self.tried.append((np.array(prices), excess, value))

    @property
    def following(self) -> tuple[float, ...]:
        """The prices to try next."""
        return tuple((self._lowest()[0] if self.tried else self.start).tolist())

    @property
    def closed(self) -> bool:
        """Whether the planes promise nothing less than the best try."""
        if not self.tried:
            return False
        best = min(value for *_, value in self.tried)
        return self._lowest()[1] >= best - _CLOSED * abs(best)

    def _lowest(self) -> tuple[FloatArray, float]:
        """Return the prices around the best try where the planes are lowest, and how low."""
        # the value at other prices is at least value − excess · (prices − tried)
        center = min(self.tried, key=lambda one: one[2])[0]
        size = np.maximum(center, self.scales)
        value = max(max(abs(value) for *_, value in self.tried), 1e-300)
        rows = [np.append(-excess * size / value, -1.0) for _, excess, _ in self.tried]
        right = [-(total + excess @ prices) / value for prices, excess, total in self.tried]
        low, high = center / _FURTHER, _FURTHER * size
        low[center <= self.scales] = 0.0
        bounds = [*zip(low / size, high / size, strict=True), (None, None)]
        cost = np.append(np.zeros(len(size)), 1.0)
        found = linprog(cost, np.array(rows), np.array(right), bounds=bounds, method="highs")
        if found.status != 0:
            return center, -np.inf
        return found.x[:-1] * size, float(found.x[-1]) * value
