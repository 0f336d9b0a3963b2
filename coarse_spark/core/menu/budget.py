"""Menus within a budget: the search at a price of spending, and the lowest price that keeps the budget.

Profit less price times spending is again linear in (θ, 1), so at any price the search is the one without a budget, and spending
falls as the price rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.clearing import Offers, PriceSearch, free_price, price_scale
from coarse_spark.core.menu.constrained import ConstrainedSearch
from coarse_spark.core.menu.limited import LimitedMenu, LimitedSearch
from coarse_spark.core.menu.limits import Budget
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

_SEARCHES, _PRICES, _SETTLEMENTS = 3, 12, 3
_SWAP_ROUNDS = 20
_GAP, _GAIN = (
    1e-8,
    1e-6,
)  # of profit: what a price may leave open, and what another search has to promise
_STUCK = 4  # prices without a menu that keeps the budget


@dataclass(frozen=True, eq=False)
class BudgetMenu:
    """A menu within a budget.

    Attributes
    ----------
    treatments : (K, d) in the order of the limits' positions. value : the most they earn within the budget, per unit weight.
    charge : the lowest price of spending at which they keep it. asked : the price at which the search found them, where the
        treatments themselves are worth their spending.
    """

    treatments: FloatArray
    value: float
    charge: float
    asked: float


@dataclass(frozen=True, eq=False)
class BudgetSearch:
    """A constrained search within a budget."""

    search: ConstrainedSearch
    budget: Budget

    def charged(self, charge: float) -> ConstrainedSearch:
        """Return the search in which every unit of spending costs ``charge``."""
        return self.search.charged(charge, self.budget.row_profit)

    def rows(self, treatments: FloatArray) -> FloatArray:
        """Return the rows (K, p + 1) of the spending on each treatment."""
        return self.search.problem.spend_at(treatments, self.budget.row_profit)

    def run(self, start: float | None = None) -> BudgetMenu:
        """Return the best menu found on the sketch; ``start`` : price of spending to begin with, as of another size.

        Raises
        ------
        InvalidInputError : a budget that no menu can keep; the message names the nearest that one can.
        """
        self._check()
        asked = self._price_of_all() if start is None else start
        best = self._balanced(self.charged(asked).best().treatments, asked)
        for number in range(1, _SEARCHES):
            # again at the price that the first search led to, from starts of another draw
            search = self.charged(best.asked)
            drawn = replace(
                search, settings=replace(search.settings, seed=search.settings.seed + number)
            )
            menu = drawn.best((best.treatments,))
            least = best.value + _GAIN * abs(best.value)
            fresh = (
                self._balanced(menu.treatments, best.asked)
                if self._bound(menu, best.asked) > least
                else best
            )
            if fresh.value <= least:
                break
            best = fresh
        # the best menu within a budget need not be the best at any price: look around among its neighbours
        for _ in range(_SWAP_ROUNDS):
            better = self._swapped(best)
            if better is None:
                break
            best = better
        return best

    def priced(self, found: BudgetMenu) -> LimitedMenu:
        """Return a menu within the budget with the prices that its share limits ask for."""
        return self.charged(found.charge).priced(found.treatments)

    def _bound(self, menu: LimitedMenu, price: float) -> float:
        """Return what the treatments of a menu, valued at a price of spending, earn at most when the budget is paid back."""
        return menu.value + price * self.budget.limit

    def _balanced(self, treatments: FloatArray, asked: float) -> BudgetMenu:
        """Let treatments follow the price of spending until what is best at the price spends just the budget."""
        limit, prices = self.budget.limit, PriceSearch(asked, self._scale)
        below, above = [treatments], list[FloatArray]()
        bound, best = np.inf, BudgetMenu(treatments, -np.inf, asked, asked)
        for number in range(_PRICES):
            price = prices.following
            search = self.charged(price)
            stuck = [self._from_cheapest(price)] if number >= _STUCK and not above else []
            menu = search.warm([*below, *above, *stuck])
            spent = self._mean(search.solve(menu.treatments)[0], self.rows(menu.treatments))
            prices.put(price, spent - limit)
            if spent > limit:
                below = [menu.treatments]
            else:
                above = [menu.treatments]
            bound = min(bound, self._bound(menu, price))
            best = max(
                best, self._affordable(menu.treatments, price), key=lambda found: found.value
            )
            if prices.closed or best.value >= bound - _GAP * abs(bound):
                break
        if not np.isfinite(best.value):
            raise InvalidInputError(
                f"budget: no menu of {self.search.k} treatments within the other limits was found that spends at most "
                f"{limit:g}; the least found is {spent:.6g}"
            )
        return best

    def _swapped(self, best: BudgetMenu) -> BudgetMenu | None:
        """Return the first swap that pays."""
        search = self.charged(best.charge)
        for treatments in search.limited.swaps(
            search.priced(best.treatments), search.candidates.columns
        ):
            found = self._affordable(treatments, best.asked)
            if found.value > best.value + 1e-9 * abs(best.value):
                return max(
                    found, self._balanced(treatments, best.asked), key=lambda menu: menu.value
                )
        return None

    def _affordable(self, treatments: FloatArray, asked: float) -> BudgetMenu:
        """Return given treatments at the lowest price at which they keep the budget; their value is −inf where none does."""
        theta, weights = self.search.sketch.theta, self.search.sketch.weights
        total = float(weights.sum())
        profits, spending = (
            profit_matrix(theta, rows)
            for rows in (self.search.problem.psi_at(treatments), self.rows(treatments))
        )
        lower, upper = self.search.limits.bounds(self.search.limited.rows(treatments))
        plan = Offers(
            profits, spending, weights, lower * total, upper * total, self.budget.limit * total
        ).plan(asked)
        if plan is None:
            return BudgetMenu(treatments, -np.inf, asked, asked)
        return BudgetMenu(treatments, plan.value / total, plan.charge, asked)

    def _mean(self, plan: FloatArray, psi: FloatArray) -> float:
        return float(
            (plan * profit_matrix(self.search.sketch.theta, psi)).sum()
            / self.search.sketch.weights.sum()
        )

    @cached_property
    def _coarse(self) -> tuple[FloatArray, FloatArray]:
        """Profits and spending of the coarse units under the coarse candidates."""
        candidates = self.search.candidates
        spending = profit_matrix(
            candidates.few.theta, self.rows(candidates.problem.candidates[candidates.columns])
        )
        return candidates.coarse.profits, spending

    @cached_property
    def _scale(self) -> float:
        return price_scale(*self._coarse)

    def _price_of_all(self) -> float:
        """Return the price at which units keep the budget that are all offered all candidates."""
        weights = self.search.candidates.few.weights
        price = free_price(
            *self._coarse, weights, self.budget.limit * float(weights.sum()), self._scale
        )
        return self._scale if price is None else price

    def _from_cheapest(self, charge: float) -> FloatArray:
        search = self.charged(charge)
        spending = (
            profit_matrix(search.sketch.theta, self.rows(search.problem.candidates)).T
            @ search.sketch.weights
        )
        start = np.vstack([search.fixed, search.problem.candidates[[int(spending.argmin())]]])
        return search.candidates.grow(np.unique(start, axis=0)[: search.k], search.k)

    def _check(self) -> None:
        spending = profit_matrix(
            self.search.sketch.theta, self.rows(self.search.problem.candidates)
        )
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
    search: ConstrainedSearch,
    budget: Budget | None,
    menu: LimitedMenu,
    charge: float,
    theta: FloatArray,
    weights: FloatArray,
) -> Settled:
    """Assign every unit (n, p) with weights (n,) within limits and budget, and let the treatments follow while that earns more."""
    within = None if budget is None else BudgetSearch(search, budget)
    best = _assigned(search, within, menu.treatments, menu.prices, charge, theta, weights)
    if best is None:
        limit = np.inf if budget is None else budget.limit
        raise InvalidInputError(f"budget {limit:g} cannot be kept on all units with the menu found")
    everyone = MicroClusters(weights, theta, np.ones(len(theta), dtype=np.intp))
    for _ in range(_SETTLEMENTS):
        taken = np.zeros((len(theta), len(best.treatments)))
        taken[np.arange(len(theta)), best.assignment] = weights
        problem = search.problem if within is None else within.charged(best.charge).problem
        lloyd = LimitedSearch(problem, everyone, search.limits, search.fixed)
        fresh = lloyd.update(
            best.treatments, taken.T @ np.column_stack([theta, np.ones(len(theta))])
        )
        if np.array_equal(fresh, best.treatments):
            break
        better = _assigned(search, within, fresh, best.prices, best.charge, theta, weights)
        if better is None or better.value <= best.value + 1e-12 * abs(best.value):
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
) -> Settled | None:
    profits = profit_matrix(theta, search.problem.psi_at(treatments))
    total = float(weights.sum())
    spending, limit = None, np.inf
    if within is not None:
        spending, limit = profit_matrix(theta, within.rows(treatments)), within.budget.limit
    lower, upper = search.share_bounds(treatments)
    found = Offers(profits, spending, weights, lower * total, upper * total, limit * total).assign(
        prices, charge
    )
    if found is None:
        return None
    rows = np.arange(len(theta))
    value = float(weights @ profits[rows, found.assignment]) / total
    used = 0.0 if spending is None else float(weights @ spending[rows, found.assignment]) / total
    return Settled(treatments, found.assignment, found.prices, found.charge, value, used)
