"""Who takes which of given treatments, within limits on shares and a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.assignment.budget_price import free_price, lowest_price, price_scale
from coarse_spark.core.menu.assignment.transport import Transport, exact_assignment, transport

_WHOLE_TRIES, _SPLIT_TRIES = 24, 14  # to find a price between two with


@dataclass(frozen=True, eq=False)
class Assignment:
    """Whole units' treatments.

    Attributes
    ----------
    taken : (n,) treatment of every unit.
    prices : (K,) λ that go with it.
    budget_price : μ.
    """

    taken: IntArray
    prices: FloatArray
    budget_price: float


@dataclass(frozen=True, eq=False)
class SplitAssignment:
    """What given treatments earn at most when units may be split.

    Attributes
    ----------
    mass : (n, K) of every unit on every treatment.
    prices : (K,) λ.
    budget_price : μ.
    value : in all: that of the dual at the prices, which without share limits are exact.
    """

    mass: FloatArray
    prices: FloatArray
    budget_price: float
    value: float


@dataclass(frozen=True, eq=False)
class AssignmentProblem:
    """What units earn by given treatments, and the limits that their assignment has to keep.

    Attributes
    ----------
    profits : (n, K).
    spending : (n, K); None without a budget.
    weights : (n,).
    lower, upper : (K,) masses.
    budget : money in all.
    """

    profits: FloatArray
    spending: FloatArray | None
    weights: FloatArray
    lower: FloatArray
    upper: FloatArray
    budget: float

    def whole(self, prices: FloatArray, budget_price: float) -> Assignment | None:
        """Return the best assignment of whole units, None where the budget cannot be kept.

        Parameters
        ----------
        prices : (K,) of treatments to start from.
        budget_price : of spending to start from.
        """
        rows = np.arange(len(self.profits))

        def at(price: float) -> tuple[IntArray, FloatArray]:
            net = self._net(price)
            if self._free:
                return net.argmax(axis=1), np.zeros(len(self.lower))
            return exact_assignment(net, self.weights, self.lower, self.upper, prices)

        def spent(price: float, spending: FloatArray) -> float:
            return float(self.weights @ spending[rows, at(price)[0]])

        # sums that differ from the limit by rounding alone keep it
        limit = self.budget + 1e-12 * abs(self.budget)
        found = self._lowest_price(spent, limit, budget_price, _WHOLE_TRIES)
        return None if found is None else Assignment(*at(found), found)

    def split(self, budget_price: float = 0.0) -> SplitAssignment | None:
        """Return the best assignment of units that may be split, None where limits contradict.

        ``budget_price`` of spending is where to start from.
        """
        total = float(self.weights.sum())
        if (self.lower > self.upper + 1e-12 * total).any():
            return None
        if self.lower.sum() > total * (1 + 1e-9) or self.upper.sum() < total * (1 - 1e-9):
            return None

        def solved(price: float) -> Transport:
            upper = np.maximum(self.lower, self.upper)
            return transport(self._net(price), self.weights, self.lower, upper)

        def spent(price: float, spending: FloatArray) -> float:
            return float((solved(price).plan * spending).sum())

        found = self._lowest_price(spent, self.budget, budget_price, _SPLIT_TRIES)
        if found is None:
            return None
        back = found * self.budget if found else 0.0
        if self._free:
            net = self._net(found)
            mass = np.zeros_like(net)
            best = net.argmax(axis=1)
            mass[np.arange(len(net)), best] = self.weights
            value = float(self.weights @ net[np.arange(len(net)), best])
            return SplitAssignment(mass, np.zeros(net.shape[1]), found, value + back)
        plan = solved(found)
        return SplitAssignment(plan.plan, plan.prices, found, plan.value + back)

    @property
    def _free(self) -> bool:
        upper = self.weights.sum() * (1 - 1e-12)
        return bool((self.lower <= 0).all() and (self.upper >= upper).all())

    def _net(self, price: float) -> FloatArray:
        if self.spending is None or not price:
            return self.profits
        return self.profits - price * self.spending

    def _lowest_price(
        self,
        spent: Callable[[float, FloatArray], float],
        limit: float,
        start: float,
        tries: int,
    ) -> float | None:
        """Return about the lowest price of spending within the limit.

        ``spent`` tells what a price comes to under share limits.
        """
        spending = self.spending
        if spending is None:
            return 0.0
        scale = price_scale(self.profits, spending)
        if self._free:
            return free_price(self.profits, spending, self.weights, limit, max(start, scale))
        return lowest_price(lambda price: spent(price, spending), limit, start, scale, tries)
