"""Given treatments within a budget: the lowest price of spending at which units that are assigned by profit less price keep it.

Under one price of spending the best assignment is that of profit less price times spending, and its spending falls as the price
rises. Share limits come in as prices of treatments (see ``transport``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.transport import Transport, exact_assignment, transport

_DOUBLINGS = 60
_BISECTIONS = 50
_TRANSPORTS, _PLANS = 24, 14  # to find a price between two with
_FIRST_STEP, _LONGEST_STEP_DOWN, _HIGHEST = 1.25, 5.0, 1e18
_PRECISION = 1e-12


@dataclass(frozen=True, eq=False)
class Assigned:
    """The treatment of every unit (n,), prices (K,) and price of the budget that go with it."""

    assignment: IntArray
    prices: FloatArray
    charge: float


@dataclass(frozen=True, eq=False)
class Plan:
    """What given treatments earn at most when units may be split: value in all, prices (K,) of treatments, price of the budget."""

    value: float
    prices: FloatArray
    charge: float


@dataclass(frozen=True, eq=False)
class Offers:
    """The treatments of a menu, what units earn by them, and the limits that their assignment has to keep.

    Attributes
    ----------
    profits : (n, K). spending : (n, K), None without a budget. weights : (n,). lower, upper : (K,) masses.
    limit : money in all.
    """

    profits: FloatArray
    spending: FloatArray | None
    weights: FloatArray
    lower: FloatArray
    upper: FloatArray
    limit: float

    def assign(self, prices: FloatArray, charge: float) -> Assigned | None:
        """Return the assignment of whole units that earns most, None where the budget cannot be kept.

        ``prices`` (K,) of treatments and ``charge`` of the budget are where to start from.
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
        found = self._lowest_price(spent, self.limit + 1e-12 * abs(self.limit), charge, _TRANSPORTS)
        return None if found is None else Assigned(*at(found), found)

    def plan(self, charge: float = 0.0) -> Plan | None:
        """Return the best plan, None where there is none; ``charge`` of the budget is where to start from.

        The value is that of the dual at the prices, which without share limits are exact.
        """
        total = float(self.weights.sum())
        if (self.lower > self.upper + 1e-12 * total).any():
            return None
        if self.lower.sum() > total * (1 + 1e-9) or self.upper.sum() < total * (1 - 1e-9):
            return None

        def solved(price: float) -> Transport:
            return transport(
                self._net(price), self.weights, self.lower, np.maximum(self.lower, self.upper)
            )

        def spent(price: float, spending: FloatArray) -> float:
            return float((solved(price).plan * spending).sum())

        found = self._lowest_price(spent, self.limit, charge, _PLANS)
        if found is None:
            return None
        back = found * self.limit if found else 0.0
        if self._free:
            return Plan(
                float(self.weights @ self._net(found).max(axis=1)) + back,
                np.zeros(self.profits.shape[1]),
                found,
            )
        plan = solved(found)
        return Plan(plan.value + back, plan.prices, found)

    @property
    def _free(self) -> bool:
        return bool(
            (self.lower <= 0).all() and (self.upper >= self.weights.sum() * (1 - 1e-12)).all()
        )

    def _net(self, price: float) -> FloatArray:
        return (
            self.profits
            if self.spending is None or not price
            else self.profits - price * self.spending
        )

    def _lowest_price(
        self, spent: Callable[[float, FloatArray], float], limit: float, charge: float, tries: int
    ) -> float | None:
        """Return about the lowest price of spending within the limit; ``spent`` tells what a price comes to under share limits."""
        spending = self.spending
        if spending is None:
            return 0.0
        scale = price_scale(self.profits, spending)
        if self._free:
            return free_price(self.profits, spending, self.weights, limit, max(charge, scale))
        return lowest_price(lambda price: spent(price, spending), limit, charge, scale, tries)


def price_scale(profits: FloatArray, spending: FloatArray) -> float:
    """Return a price of spending that is small for profits (n, K) and spending (n, K)."""
    return 1e-3 * max(float(np.ptp(profits)), 1e-12) / max(float(np.ptp(spending)), 1e-12)


@dataclass
class PriceSearch:
    """Where spending, which falls as its price rises, meets a limit.

    Attributes
    ----------
    start : price to begin with. scale : price to go up from where nothing above 0 is known.
    low, high : largest price known to be too low and lowest known to be high enough, each with what is spent above the limit.
    """

    start: float
    scale: float
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    _tried: int = 0

    def put(self, price: float, excess: float) -> None:
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
            # every third price halves what is left: spending may fall in steps, where a secant creeps
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
    """Return about the lowest price at which ``spent`` is within the limit, None where no price reaches it.

    ``start``, ``scale`` : see ``PriceSearch``. ``tries`` : calls of ``spent`` once the price is enclosed.
    """
    search = PriceSearch(start, scale)
    while tries and not search.closed:
        price = search.following
        if not price < _HIGHEST * scale:
            return None
        tries -= search.low is not None and search.high is not None
        search.put(price, spent(price) - limit)
    return None if search.high is None else search.high[0]


def free_price(
    profits: FloatArray, spending: FloatArray, weights: FloatArray, limit: float, start: float
) -> float | None:
    """Return the lowest price at which units (n, K) that choose freely spend at most ``limit`` in all, None where none reaches it.

    A unit's profit less price is linear in the price under every treatment, so whoever chooses alike at two prices does so between
    them: a bisection has to look at the others only, and costs a few sweeps over the units whatever its precision.
    """

    def chosen(price: float, rows: IntArray) -> IntArray:
        return np.asarray((profits[rows] - price * spending[rows]).argmax(axis=1))

    rows = np.arange(len(profits))
    at_low = chosen(0.0, rows)
    if float(weights @ spending[rows, at_low]) <= limit:
        return 0.0
    low, high = 0.0, max(start, 1e-12)
    for _ in range(_DOUBLINGS):
        at_high = chosen(high, rows)
        if float(weights @ spending[rows, at_high]) <= limit:
            break
        low, at_low, high = high, at_high, 2 * high
    else:
        return None
    settled = 0.0
    for _ in range(_BISECTIONS):
        open_ = at_low != at_high
        settled += float(weights[rows[~open_]] @ spending[rows[~open_], at_low[~open_]])
        rows, at_low, at_high = rows[open_], at_low[open_], at_high[open_]
        middle = (low + high) / 2
        at_middle = chosen(middle, rows)
        if settled + float(weights[rows] @ spending[rows, at_middle]) <= limit:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return high
