"""Who takes which of given treatments, within limits on shares and on totals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.assignment.limit_price import free_price, lowest_price, price_scale
from coarse_spark.core.menu.assignment.programme import Programme
from coarse_spark.core.menu.assignment.transport import Transport, exact_assignment, transport

_WHOLE_TRIES, _SPLIT_TRIES = 24, 14  # to find a price between two with


@dataclass(frozen=True, eq=False)
class Assignment:
    """Whole units' treatments.

    Attributes
    ----------
    taken : (n,) treatment of every unit.
    prices : (K,) λ that go with it.
    limit_prices : (L,) μ.
    """

    taken: IntArray
    prices: FloatArray
    limit_prices: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SplitAssignment:
    """What given treatments earn at most when units may be split.

    Attributes
    ----------
    mass : (n, K) of every unit on every treatment.
    prices : (K,) λ.
    limit_prices : (L,) μ.
    value : in all: that of the dual at the prices, which without share limits are exact.
    """

    mass: FloatArray
    prices: FloatArray
    limit_prices: tuple[float, ...]
    value: float


@dataclass(frozen=True, eq=False)
class AssignmentProblem:
    """What units earn by given treatments, and the limits that their assignment has to keep.

    Attributes
    ----------
    profits : (n, K).
    counted : (L, n, K) what counts against the limits on totals, such as spending.
    weights : (n,).
    lower, upper : (K,) masses.
    most : (L,) of what counts, in all.
    """

    profits: FloatArray
    counted: FloatArray
    weights: FloatArray
    lower: FloatArray
    upper: FloatArray
    most: FloatArray

    def whole(self, prices: FloatArray, limit_prices: tuple[float, ...] = ()) -> Assignment | None:
        """Return the best assignment of whole units, None where a total cannot be kept.

        Parameters
        ----------
        prices : (K,) of treatments to start from.
        limit_prices : (L,) of what counts to start from.
        """
        if len(self.most) > 1:
            return self._whole_by_programme()
        rows = np.arange(len(self.profits))

        def at(price: float) -> tuple[IntArray, FloatArray]:
            net = self._net(price)
            if self._free:
                return net.argmax(axis=1), np.zeros(len(self.lower))
            return exact_assignment(net, self.weights, self.lower, self.upper, prices)

        def spent(price: float, spending: FloatArray) -> float:
            return float(self.weights @ spending[rows, at(price)[0]])

        # sums that differ from the limit by rounding alone keep it
        limit = float((self.most + 1e-12 * np.abs(self.most)).sum())
        found = self._lowest_price(spent, limit, limit_prices, _WHOLE_TRIES)
        return None if found is None else Assignment(*at(found), self._of_limits(found))

    def split(self, limit_prices: tuple[float, ...] = ()) -> SplitAssignment | None:
        """Return the best assignment of units that may be split, None where limits contradict.

        ``limit_prices`` (L,) of what counts are where to start from.
        """
        total = float(self.weights.sum())
        if (self.lower > self.upper + 1e-12 * total).any():
            return None
        if self.lower.sum() > total * (1 + 1e-9) or self.upper.sum() < total * (1 - 1e-9):
            return None

        if len(self.most) > 1:
            return self._split_by_programme()

        def solved(price: float) -> Transport:
            upper = np.maximum(self.lower, self.upper)
            return transport(self._net(price), self.weights, self.lower, upper)

        def spent(price: float, spending: FloatArray) -> float:
            return float((solved(price).plan * spending).sum())

        limit = float(self.most.sum())
        found = self._lowest_price(spent, limit, limit_prices, _SPLIT_TRIES)
        if found is None:
            return None
        back, each = found * limit if found else 0.0, self._of_limits(found)
        if self._free:
            net = self._net(found)
            mass = np.zeros_like(net)
            best = net.argmax(axis=1)
            mass[np.arange(len(net)), best] = self.weights
            value = float(self.weights @ net[np.arange(len(net)), best])
            return SplitAssignment(mass, np.zeros(net.shape[1]), each, value + back)
        plan = solved(found)
        return SplitAssignment(plan.plan, plan.prices, each, plan.value + back)

    def _whole_by_programme(self) -> Assignment | None:
        best = self.programme.whole()
        if best is None:
            return None
        taken, found = best
        return Assignment(taken, found.prices, tuple(found.limit_prices.tolist()))

    def _split_by_programme(self) -> SplitAssignment | None:
        best = self.programme.solved()
        if best is None:
            return None
        value, prices = float((best.mass * self.profits).sum()), best.limit_prices
        return SplitAssignment(best.mass, best.prices, tuple(prices.tolist()), value)

    @property
    def programme(self) -> Programme:
        """The same as a linear programme."""
        parts = (self.counted, self.weights, self.lower, self.upper, self.most)
        return Programme(self.profits, *parts)

    def _of_limits(self, price: float) -> tuple[float, ...]:
        return (price,) * len(self.most)

    @property
    def _free(self) -> bool:
        upper = self.weights.sum() * (1 - 1e-12)
        return bool((self.lower <= 0).all() and (self.upper >= upper).all())

    def _net(self, price: float) -> FloatArray:
        if not len(self.counted) or not price:
            return self.profits
        return np.asarray(self.profits - price * self.counted[0])

    def _lowest_price(
        self,
        spent: Callable[[float, FloatArray], float],
        limit: float,
        starts: tuple[float, ...],
        tries: int,
    ) -> float | None:
        """Return about the lowest price of what counts within the one limit, 0 without any.

        ``spent`` tells what a price comes to under share limits.
        """
        if not len(self.counted):
            return 0.0
        spending, start = self.counted[0], starts[0] if starts else 0.0
        scale = price_scale(self.profits, spending)
        if self._free:
            return free_price(self.profits, spending, self.weights, limit, max(start, scale))
        return lowest_price(lambda price: spent(price, spending), limit, start, scale, tries)
