"""Menus within a budget: a search of its price around the search in which spending is paid for.

Profit less price times spending is again linear in (θ, 1), so at any price the search is the one
without a budget, and spending falls as the price rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.assignment.budget_price import PriceSearch, free_price, price_scale
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.size import SizeSearch
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

_SEARCHES, _PRICES = 3, 12
_SWAP_ROUNDS = 20
# of profit: what a price may leave open, and what another search has to promise
_GAP, _GAIN = 1e-8, 1e-6
_STUCK = 4  # prices without a menu that keeps the budget
_DEAR = 1e6  # times a small price of spending: next to it profits hardly matter


def within_budget(search: SizeSearch, start: float | None = None) -> tuple[PricedMenu, float]:
    """Return the best menu found within the budget of the search's limits, at its prices.

    Also returns the price of spending at which the search found its treatments, a good ``start``
    for another size.

    Raises
    ------
    InvalidInputError : a budget that no menu can keep; the message names the nearest that one can.
    """
    outer = BudgetSearch(search)
    found = outer.run(start)
    priced = outer.at(found.price).assigned(found.treatments).menu.prices
    return search.menu(found.treatments).at(priced, found.price), found.found_at


@dataclass(frozen=True, eq=False)
class Affordable:
    """Treatments within a budget.

    Attributes
    ----------
    treatments : (K, d) in the order of the limits' places.
    value : the most they earn within the budget, per unit weight; −inf where they cannot keep it.
    price : the lowest price of spending at which they keep it.
    found_at : the price at which the search found them, where they are worth their spending.
    """

    treatments: FloatArray
    value: float
    price: float
    found_at: float


@dataclass(frozen=True, eq=False)
class BudgetSearch:
    """The outer search; ``search`` has limits with a budget."""

    search: SizeSearch

    @property
    def budget(self) -> float:
        """Most spending per unit weight."""
        return self.search.limits.budget

    def at(self, price: float) -> SizeSearch:
        """Return the search in which spending costs ``price``."""
        return self.search.at_budget_price(price)

    def run(self, start: float | None = None) -> Affordable:
        """Return the best menu; ``start`` is a price of spending to begin with."""
        self._check()
        found_at = self._price_of_all() if start is None else start
        best = self._balanced(self.at(found_at).best().menu.treatments, found_at)
        for number in range(1, _SEARCHES):
            # again at the price that the first search led to, from starts of another draw
            search = self.at(best.found_at)
            settings = replace(search.settings, seed=search.settings.seed + number)
            found = replace(search, settings=settings).best([best.treatments])
            least = best.value + _GAIN * abs(best.value)
            if self._bound(found, best.found_at) <= least:
                break
            fresh = self._balanced(found.menu.treatments, best.found_at)
            if fresh.value <= least:
                break
            best = fresh
        # the best menu within a budget need not be the best at any price: look among its neighbours
        for _ in range(_SWAP_ROUNDS):
            better = self._exchanged(best)
            if better is None:
                break
            best = better
        return best

    def _bound(self, found: ValuedMenu, price: float) -> float:
        """Return what a menu valued at a price earns at most when the budget is paid back."""
        return found.value + price * self.budget

    def _spent(self, found: ValuedMenu) -> float:
        """Return the spending per unit weight of a menu of the search at a price."""
        return found.sums.value(self.search.problem.spending_at(found.menu.treatments))

    def _balanced(self, treatments: FloatArray, found_at: float) -> Affordable:
        """Let treatments follow the price until the best at the price spends just the budget."""
        prices = PriceSearch(found_at, self._scale)
        below, above = [treatments], list[FloatArray]()
        bound, best = np.inf, Affordable(treatments, -np.inf, found_at, found_at)
        for number in range(_PRICES):
            price = prices.following
            search = self.at(price)
            stuck = [self._least.menu.treatments] if number >= _STUCK and not above else []
            found = search.warm([*below, *above, *stuck])
            treatments, spent = found.menu.treatments, self._spent(found)
            prices.add(price, spent - self.budget)
            if spent > self.budget:
                below = [treatments]
            else:
                above = [treatments]
            bound = min(bound, self._bound(found, price))
            best = max(best, self._affordable(treatments, price), key=lambda one: one.value)
            if prices.closed or best.value >= bound - _GAP * abs(bound):
                break
        if not np.isfinite(best.value):
            raise InvalidInputError(
                f"budget: no menu of {self.search.k} treatments within the other limits was found "
                f"that spends at most {self.budget:g}; the least found is {spent:.6g}"
            )
        return best

    def _exchanged(self, best: Affordable) -> Affordable | None:
        """Return the first swap that pays."""
        search = self.at(best.price)
        for menu in search.swaps(search.assigned(best.treatments), search.units):
            found = self._affordable(menu.treatments, best.found_at)
            if found.value > best.value + 1e-9 * abs(best.value):
                balanced = self._balanced(menu.treatments, best.found_at)
                return max(found, balanced, key=lambda one: one.value)
        return None

    def _affordable(self, treatments: FloatArray, found_at: float) -> Affordable:
        """Return given treatments at the lowest price at which they keep the budget."""
        units = self.search.units
        split = self.search.menu(treatments).posed_to(units).split(found_at)
        if split is None:
            return Affordable(treatments, -np.inf, found_at, found_at)
        return Affordable(treatments, split.value / units.total, split.budget_price, found_at)

    @cached_property
    def _coarse(self) -> tuple[FloatArray, FloatArray]:
        """Profits and spending of the coarse units under the coarse candidates."""
        starts = self.search.starts
        rows = starts.problem.spending_at(starts.problem.candidates[starts.columns])
        return starts.coarse.profits, profit_matrix(starts.few.theta, rows)

    @cached_property
    def _scale(self) -> float:
        return price_scale(*self._coarse)

    def _price_of_all(self) -> float:
        """Return the price at which units keep the budget that may take all candidates."""
        weights = self.search.starts.few.weights
        limit = self.budget * float(weights.sum())
        price = free_price(*self._coarse, weights, limit, self._scale)
        return self._scale if price is None else price

    @cached_property
    def _least(self) -> ValuedMenu:
        """The menu of the cheapest candidates: least is spent on it within limits on shares."""
        search = self.at(_DEAR * self._scale)
        problem, starts, units = search.problem, search.starts, search.units
        spent = profit_matrix(units.theta, problem.spending_at(problem.candidates))
        cheapest = np.argsort(units.weights @ spent, kind="stable")
        others = cheapest[~np.isin(cheapest, starts.rows)]
        rows = [*starts.rows, *others][: search.k]
        return search.assigned(search.fitted(problem.candidates[rows]))

    def _check(self) -> None:
        problem, units = self.search.problem, self.search.units
        spending = profit_matrix(units.theta, problem.spending_at(problem.candidates))
        least = float(units.weights @ spending.min(axis=1)) / units.total
        if self.budget < least - 1e-12:
            nearest = self._spent(self._least)
            raise InvalidInputError(
                f"budget {self.budget:g} is below {least:.6g}, what the cheapest treatment of "
                f"every unit costs on average; the nearest feasible budget is {nearest:.6g}"
            )
