"""Menus within a budget: the search at a price of spending, and the lowest price that keeps the budget.

Profit less price times spending is again linear in (θ, 1), so at any price the search is the one without a budget, and spending
falls as the price rises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.constrained import ConstrainedSearch
from coarse_spark.core.menu.curve import CandidateSearch
from coarse_spark.core.menu.limited import LimitedMenu, LimitedSearch
from coarse_spark.core.menu.limits import Budget
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.menu.transport import exact_assignment
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_DOUBLINGS, _BISECTIONS, _FINE_BISECTIONS, _SETTLEMENTS = 60, 14, 50, 3
_PRICE_BISECTIONS = 24  # where each one is a transport of units
_SWAP_ROUNDS, _TRIED_SWAPS = 20, 16


@dataclass(frozen=True, eq=False)
class BudgetSearch:
    """A constrained search within a budget."""

    search: ConstrainedSearch
    budget: Budget

    def charged(self, charge: float) -> ConstrainedSearch:
        """Return the search in which every unit of spending costs ``charge``."""
        return replace(self.search, problem=self.search.problem.charged(charge, self.budget.row_profit))

    def rows(self, treatments: FloatArray) -> FloatArray:
        """Return the rows (K, p + 1) of the spending on each treatment."""
        return self.search.problem.spend_at(treatments, self.budget.row_profit)

    def run(self) -> tuple[LimitedMenu, float]:
        """Return the best menu found on the sketch and the price of the budget.

        Raises
        ------
        InvalidInputError : a budget that no menu can keep; the message names the nearest that one can.
        """
        free = self.search.best()
        if self._spent(free.treatments, 0.0) <= self.budget.limit:
            return free, 0.0
        self._check()
        high, above = self._first_affordable(free)
        low, below = 0.0, free
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            fresh = self.charged(middle).warm([below.treatments, above.treatments])
            if self._spent(fresh.treatments, middle) > self.budget.limit:
                low, below = middle, fresh
            else:
                high, above = middle, fresh
        thorough = self.charged(high).best((above.treatments,))
        found = [(*self._affordable(menu.treatments, high), menu.treatments) for menu in (below, above, thorough)]
        value, charge, treatments = max(found, key=lambda entry: entry[0])
        # the best menu within a budget need not be the best at any price: look around among its neighbours
        for _ in range(_SWAP_ROUNDS):
            better = self._swapped(treatments, charge, value)
            if better is None:
                break
            value, charge, treatments = better
        return self.charged(charge).priced(treatments), charge

    def _swapped(self, treatments: FloatArray, charge: float, value: float) -> tuple[float, float, FloatArray] | None:
        """Try the swaps that the dual at the current price, an upper bound on each, leaves open; return the first that pays."""
        search = self.charged(charge)
        theta, mass = search.sketch.theta, search.sketch.weights / search.sketch.weights.sum()
        columns = CandidateSearch.prepare(search.problem, search.sketch, search.fixed).columns
        columns = columns[~np.isin(columns, search.limited.rows(treatments))]
        offers = profit_matrix(theta, search.problem.psi_at(treatments)) - search.solve(treatments)[1]
        offered = profit_matrix(theta, search.problem.psi[columns])
        movable = [place for place, row in enumerate(treatments) if not search.limited.stays(row)]
        bounds = np.full((len(treatments), len(columns)), -np.inf)
        for place in movable:
            others = np.delete(offers, place, axis=1).max(axis=1, initial=-np.inf)
            bounds[place] = mass @ np.maximum(offered, others[:, None])
        for flat in np.argsort(-bounds, axis=None, kind="stable")[:_TRIED_SWAPS]:
            place, column = divmod(int(flat), len(columns))
            if not np.isfinite(bounds[place, column]):
                break
            trial = treatments.copy()
            trial[place] = search.problem.candidates[columns[column]]
            if not search.limits.free and search.limited.solve(trial) is None:
                continue
            gained, price = self._affordable(trial, charge)
            if gained > value + 1e-9 * abs(value):
                return gained, price, trial
        return None

    def _spent(self, treatments: FloatArray, charge: float) -> float:
        return self._mean(self.charged(charge).solve(treatments)[0], self.rows(treatments))

    def _mean(self, plan: FloatArray, psi: FloatArray) -> float:
        return float((plan * profit_matrix(self.search.sketch.theta, psi)).sum() / self.search.sketch.weights.sum())

    def _affordable(self, treatments: FloatArray, charge: float) -> tuple[float, float]:
        """Return the profit (−inf where there is none) and the lowest price at which given treatments keep the budget."""
        steps = _FINE_BISECTIONS if self.search.limits.free else _BISECTIONS
        found = lowest_price(lambda price: self._spent(treatments, price), self.budget.limit, charge, steps)
        if found is None:
            return -np.inf, charge
        plan = self.charged(found).solve(treatments)[0]
        return self._mean(plan, self.search.problem.psi_at(treatments)), found

    def _first_affordable(self, menu: LimitedMenu) -> tuple[float, LimitedMenu]:
        charge = 1e-2 * max(abs(menu.value), 1e-9) / max(self._spent(menu.treatments, 0.0), 1e-9)
        for _ in range(_DOUBLINGS):
            menu = self.charged(charge).warm([menu.treatments, self._from_cheapest(charge)])
            if self._spent(menu.treatments, charge) <= self.budget.limit:
                return charge, menu
            charge *= 2
        raise InvalidInputError(
            f"budget: no menu of {self.search.k} treatments within the other limits was found that spends at most "
            f"{self.budget.limit:g}; the least found is {self._spent(menu.treatments, charge):.6g}"
        )

    def _from_cheapest(self, charge: float) -> FloatArray:
        search = self.charged(charge)
        spending = profit_matrix(search.sketch.theta, self.rows(search.problem.candidates)).T @ search.sketch.weights
        start = np.vstack([search.fixed, search.problem.candidates[[int(spending.argmin())]]])
        return CandidateSearch.prepare(search.problem, search.sketch, search.fixed).grow(
            np.unique(start, axis=0)[: search.k], search.k
        )

    def _check(self) -> None:
        spending = profit_matrix(self.search.sketch.theta, self.rows(self.search.problem.candidates))
        mass = self.search.sketch.weights / self.search.sketch.weights.sum()
        least = float(mass @ spending.min(axis=1))
        if self.budget.limit < least - 1e-12:
            raise InvalidInputError(
                f"budget {self.budget.limit:g} is below {least:.6g}, what the cheapest treatment of every unit costs on average; "
                f"the nearest feasible budget is {float((mass @ spending).min()):.6g}, the cost of the cheapest single treatment"
            )


@dataclass(frozen=True, eq=False)
class Settled:
    """treatments (K, d), the treatment of every unit (n,), prices (K,), price of the budget, value and spending per unit weight."""

    treatments: FloatArray
    assignment: IntArray
    prices: FloatArray
    charge: float
    value: float
    spending: float


def settle(
    search: ConstrainedSearch, budget: Budget | None, menu: LimitedMenu, charge: float, theta: FloatArray, weights: FloatArray
) -> Settled:
    """Assign every unit (n, p) with weights (n,) within limits and budget, and let the treatments follow while that earns more."""
    within = None if budget is None else BudgetSearch(search, budget)
    best = _assigned(search, within, menu.treatments, menu.prices, charge, theta, weights)
    everyone = MicroClusters(weights, theta, np.ones(len(theta), dtype=np.intp))
    for _ in range(_SETTLEMENTS):
        taken = np.zeros((len(theta), len(best.treatments)))
        taken[np.arange(len(theta)), best.assignment] = weights
        problem = search.problem if within is None else within.charged(best.charge).problem
        lloyd = LimitedSearch(problem, everyone, search.limits, search.fixed)
        fresh = lloyd.update(best.treatments, taken.T @ np.column_stack([theta, np.ones(len(theta))]))
        if np.array_equal(fresh, best.treatments):
            break
        better = _assigned(search, within, fresh, best.prices, best.charge, theta, weights)
        if better.value <= best.value + 1e-12 * abs(best.value):
            break
        best = better
    return best


def _assigned(
    search: ConstrainedSearch,
    within: BudgetSearch | None,
    treatments: FloatArray,
    prices: FloatArray,
    charge: float,
    theta: FloatArray,
    weights: FloatArray,
) -> Settled:
    profits = profit_matrix(theta, search.problem.psi_at(treatments))
    total = float(weights.sum())
    spending, limit = None, np.inf
    if within is not None:
        spending, limit = profit_matrix(theta, within.rows(treatments)), within.budget.limit
    lower, upper = search.share_bounds(treatments)
    found = assign_within(profits, spending, weights, lower * total, upper * total, limit * total, prices, charge)
    if found is None:
        raise InvalidInputError(f"budget {limit:g} cannot be kept on all units with the menu found")
    rows = np.arange(len(theta))
    value = float(weights @ profits[rows, found.assignment]) / total
    used = 0.0 if spending is None else float(weights @ spending[rows, found.assignment]) / total
    return Settled(treatments, found.assignment, found.prices, found.charge, value, used)


@dataclass(frozen=True, eq=False)
class Assigned:
    """The treatment of every unit (n,), prices (K,) and price of the budget that go with it."""

    assignment: IntArray
    prices: FloatArray
    charge: float


def assign_within(
    profits: FloatArray,
    spending: FloatArray | None,
    weights: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    limit: float,
    prices: FloatArray,
    charge: float,
) -> Assigned | None:
    """Assign units to given treatments at the largest profit within limits, None where the budget cannot be kept.

    Parameters
    ----------
    profits : (n, K). spending : (n, K), None without a budget. weights : (n,). lower, upper : (K,) masses.
    limit : money in all. prices, charge : to start from.
    """
    rows = np.arange(len(profits))
    free = bool((lower <= 0).all() and (upper >= weights.sum() * (1 - 1e-12)).all())

    def at(price: float) -> tuple[IntArray, FloatArray]:
        net = profits if spending is None or not price else profits - price * spending
        return (net.argmax(axis=1), np.zeros(len(lower))) if free else exact_assignment(net, weights, lower, upper, prices)

    if spending is None:
        return Assigned(*at(0.0), 0.0)

    def spent(price: float) -> float:
        return float(weights @ spending[rows, at(price)[0]])

    start = max(charge, 1e-3 * float(np.ptp(profits)) / max(float(np.ptp(spending)), 1e-300))
    # sums that differ from the limit by rounding alone keep it
    found = lowest_price(spent, limit + 1e-12 * abs(limit), start, _FINE_BISECTIONS if free else _PRICE_BISECTIONS)
    return None if found is None else Assigned(*at(found), found)


def lowest_price(spent: Callable[[float], float], limit: float, start: float, bisections: int) -> float | None:
    """Return about the lowest price at which ``spent`` is within the limit, None where no price reaches it."""
    if spent(0.0) <= limit:
        return 0.0
    low, high = 0.0, max(start, 1e-12)
    for _ in range(_DOUBLINGS):
        if spent(high) <= limit:
            break
        low, high = high, 2 * high
    else:
        return None
    for _ in range(bisections):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= limit else (middle, high)
    return high
