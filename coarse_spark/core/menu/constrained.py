"""Menus under share limits and a budget: search on a sketch, then settlement on every unit.

A budget enters through its price: profit less price times spending is again linear in (θ, 1), so at any price the search is the one without
a budget, and spending falls as the price rises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.curve import CandidateSearch, refined_on
from coarse_spark.core.menu.limited import LimitedMenu, LimitedSearch
from coarse_spark.core.menu.limits import Budget, ShareLimits
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.menu.transport import exact_assignment
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_DOUBLINGS, _BISECTIONS, _FINE_BISECTIONS, _SETTLEMENTS = 40, 14, 50, 3


@dataclass(frozen=True, eq=False)
class Settled:
    """treatments (K, d), the treatment of every unit (n,), prices (K,), price of the budget, value and spending per unit weight."""

    treatments: FloatArray
    assignment: IntArray
    prices: FloatArray
    charge: float
    value: float
    spending: float


@dataclass(frozen=True, eq=False)
class ConstrainedSearch:
    """The search for one size of menu.

    Parameters
    ----------
    limits, budget : at least one of them. fixed : (f, d) treatments on every menu. pool : further menus to start from.
    """

    problem: MenuProblem
    sketch: MicroClusters
    k: int
    limits: ShareLimits | None
    budget: Budget | None
    fixed: FloatArray
    pool: tuple[FloatArray, ...] = ()
    starts: int = 8
    seed: int = 0

    def run(self) -> tuple[LimitedMenu, float]:
        """Return the best menu found on the sketch and the price of the budget.

        Raises
        ------
        InvalidInputError : limits or a budget that no menu can meet; the message names the nearest that one can.
        """
        menu = self._best(self.problem, list(self.pool))
        if self.budget is None or self._spending(menu, 0.0) <= self.budget.limit:
            return menu, 0.0
        self._check_budget()
        charge = self._first_affordable(menu)
        low, high, below, above = 0.0, charge[0], menu, charge[1]
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            fresh = self._warm(self.at(middle), [below.treatments, above.treatments])
            if self._spending(fresh, middle) > self.budget.limit:
                low, below = middle, fresh
            else:
                high, above = middle, fresh
        thorough = self._best(self.at(high), [above.treatments])
        menus = [(menu, *self._affordable(menu.treatments, high)) for menu in (below, above, thorough)]
        best = max(menus, key=lambda entry: entry[2])
        return self._warm_fixed(best[0].treatments, best[1]), best[1]

    def at(self, charge: float) -> MenuProblem:
        """Return the problem with spending charged at a price."""
        return self.problem if self.budget is None else self.problem.charged(charge, self.budget.row_profit)

    def _best(self, problem: MenuProblem, pool: list[FloatArray]) -> LimitedMenu:
        """Search thoroughly: coarse starts with swaps, then Lloyd on the sketch."""
        search = CandidateSearch.prepare(problem, self.sketch, self.fixed)
        pool = [*pool, *search.starts(self.k, self.starts, np.random.default_rng([self.seed, self.k]))]
        if not pool:
            pool = [search.grow(self.fixed if len(self.fixed) else problem.candidates[:1], self.k)]
        if self.limits is None:
            return _unpriced(problem, self.sketch, search.improve(pool).treatments)
        pool = [self._with_forced(problem, treatments) for treatments in pool]
        columns = np.union1d(search.columns, self.limits.forced)
        rough = LimitedSearch(problem, search.few, self.limits, self.fixed).best(pool, columns)
        full = LimitedSearch(problem, self.sketch, self.limits, self.fixed)
        found = None if rough is None else full.lloyd(rough.treatments)
        if found is None:
            raise InvalidInputError(
                f"min_share and max_share cannot be met together by any {self.k} candidates; "
                f"loosen the limits of single candidates or choose another k"
            )
        return found

    def _warm(self, problem: MenuProblem, pool: list[FloatArray]) -> LimitedMenu:
        """Search from given menus only."""
        if self.limits is None:
            return _unpriced(problem, self.sketch, refined_on(problem, self.sketch, pool, self.fixed)[0].treatments)
        search = LimitedSearch(problem, self.sketch, self.limits, self.fixed)
        found = [menu for treatments in pool for menu in [search.lloyd(treatments)] if menu is not None]
        return max(found, key=lambda menu: menu.value)

    def _warm_fixed(self, treatments: FloatArray, charge: float) -> LimitedMenu:
        problem = self.at(charge)
        if self.limits is None:
            return _unpriced(problem, self.sketch, treatments)
        solved = LimitedSearch(problem, self.sketch, self.limits, self.fixed).solve(treatments)
        assert solved is not None
        return LimitedMenu(treatments, solved[0].prices, solved[1])

    def _plan(self, treatments: FloatArray, charge: float) -> FloatArray:
        problem = self.at(charge)
        if self.limits is not None:
            solved = LimitedSearch(problem, self.sketch, self.limits, self.fixed).solve(treatments)
            assert solved is not None
            return solved[0].plan
        profits = profit_matrix(self.sketch.theta, problem.psi_at(treatments))
        plan = np.zeros_like(profits)
        plan[np.arange(len(plan)), profits.argmax(axis=1)] = self.sketch.weights
        return plan

    def _spending(self, menu: LimitedMenu, charge: float) -> float:
        return self._mean(self._plan(menu.treatments, charge), self.spending_rows(menu.treatments))

    def share_bounds(self, treatments: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper shares (K,) of treatments in the order of positions."""
        known = [self.problem.position(treatment) for treatment in treatments]
        limits = self.limits or ShareLimits.none(self.k, len(self.problem.psi))
        return limits.bounds(np.array([-1 if row is None else row for row in known], dtype=np.intp))

    def candidate_bounds(self, rows: int) -> tuple[FloatArray, FloatArray]:
        """Return the widest lower and upper shares (rows,) that any position allows a candidate, or a row beyond the candidates."""
        limits = self.limits or ShareLimits.none(self.k, len(self.problem.psi))
        lower, upper = np.full(rows, limits.lower.min()), np.full(rows, limits.upper.max())
        named = len(limits.candidate_lower)
        lower[:named] = np.maximum(lower[:named], limits.candidate_lower)
        upper[:named] = np.minimum(upper[:named], limits.candidate_upper)
        return lower, upper

    def spending_rows(self, treatments: FloatArray) -> FloatArray:
        """Return (K, p + 1) rows of the spending on each treatment."""
        assert self.budget is not None
        return self.problem.spend_at(treatments, self.budget.row_profit)

    def _mean(self, plan: FloatArray, psi: FloatArray) -> float:
        return float((plan * profit_matrix(self.sketch.theta, psi)).sum() / self.sketch.weights.sum())

    def _affordable(self, treatments: FloatArray, charge: float) -> tuple[float, float]:
        """Return the lowest price at which given treatments keep the budget, and their profit then (−inf where there is none)."""
        assert self.budget is not None
        rows = self.spending_rows(treatments)
        limit = self.budget.limit

        def spent(price: float) -> float:
            return self._mean(self._plan(treatments, price), rows)

        found = lowest_price(spent, limit, charge, _BISECTIONS if self.limits is not None else _FINE_BISECTIONS)
        if found is None:
            return charge, -np.inf
        return found, self._mean(self._plan(treatments, found), self.problem.psi_at(treatments))

    def _first_affordable(self, menu: LimitedMenu) -> tuple[float, LimitedMenu]:
        assert self.budget is not None
        spent = self._spending(menu, 0.0)
        charge = max(abs(menu.value), 1e-9) / max(spent, 1e-9) * 1e-2
        for _ in range(_DOUBLINGS):
            cheapest = self._grown_from_cheapest(charge)
            menu = self._warm(self.at(charge), [menu.treatments, cheapest])
            if self._spending(menu, charge) <= self.budget.limit:
                return charge, menu
            charge *= 2
        raise InvalidInputError(
            f"budget: no menu of {self.k} treatments within the other limits was found that spends at most {self.budget.limit:g}; "
            f"the least found is {self._spending(menu, charge):.6g}"
        )

    def _grown_from_cheapest(self, charge: float) -> FloatArray:
        rows = self.spending_rows(self.problem.candidates)
        spending = profit_matrix(self.sketch.theta, rows).T @ self.sketch.weights
        start = self.problem.candidates[[int(spending.argmin())]]
        start = (
            np.vstack([self.fixed, start])
            if len(self.fixed) and len(self.fixed) < self.k
            else (self.fixed if len(self.fixed) else start)
        )
        return CandidateSearch.prepare(self.at(charge), self.sketch, self.fixed).grow(np.unique(start, axis=0)[: self.k], self.k)

    def _check_budget(self) -> None:
        assert self.budget is not None
        spending = profit_matrix(self.sketch.theta, self.spending_rows(self.problem.candidates))
        mass = self.sketch.weights / self.sketch.weights.sum()
        least = float(mass @ spending.min(axis=1))
        if self.budget.limit < least - 1e-12:
            reachable = float((mass @ spending).min())
            raise InvalidInputError(
                f"budget {self.budget.limit:g} is below {least:.6g}, what the cheapest treatment of every unit costs on average; "
                f"the nearest feasible budget is {reachable:.6g}, the cost of the cheapest single treatment"
            )

    def _with_forced(self, problem: MenuProblem, treatments: FloatArray) -> FloatArray:
        """Exchange treatments for the candidates that a minimum share puts on the menu."""
        assert self.limits is not None
        result = list(treatments)
        for row in self.limits.forced:
            wanted = problem.candidates[row]
            if not any(np.array_equal(treatment, wanted) for treatment in result):
                forced = [problem.candidates[r].tolist() for r in self.limits.forced] + self.fixed.tolist()
                spare = next(i for i in reversed(range(len(result))) if result[i].tolist() not in forced)
                result[spare] = wanted
        return np.array(result)


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


def settle(search: ConstrainedSearch, menu: LimitedMenu, charge: float, theta: FloatArray, weights: FloatArray) -> Settled:
    """Assign every unit (n, p) with weights (n,) within the limits, and let the treatments follow while that earns more."""
    best = _assigned(search, menu.treatments, menu.prices, charge, theta, weights)
    for _ in range(_SETTLEMENTS):
        problem = search.at(best.charge)
        taken = np.zeros((len(theta), len(best.treatments)))
        taken[np.arange(len(theta)), best.assignment] = weights
        sums = taken.T @ np.column_stack([theta, np.ones(len(theta))])
        limits = search.limits or ShareLimits.none(search.k, len(problem.psi))
        whole = MicroClusters(weights, theta, np.ones(len(theta), dtype=np.intp))
        fresh = LimitedSearch(problem, whole, limits, search.fixed).update(best.treatments, sums)
        if np.array_equal(fresh, best.treatments):
            break
        better = _assigned(search, fresh, best.prices, best.charge, theta, weights)
        if better.value <= best.value + 1e-12 * abs(best.value) or _overspent(search, better) > _overspent(search, best):
            break
        best = better
    return best


def _overspent(search: ConstrainedSearch, settled: Settled) -> float:
    return 0.0 if search.budget is None else max(0.0, settled.spending - search.budget.limit * (1 + 1e-12))


def _assigned(
    search: ConstrainedSearch, treatments: FloatArray, prices: FloatArray, charge: float, theta: FloatArray, weights: FloatArray
) -> Settled:
    profits = profit_matrix(theta, search.problem.psi_at(treatments))
    spending = None if search.budget is None else profit_matrix(theta, search.spending_rows(treatments))
    rows, total = np.arange(len(theta)), float(weights.sum())

    def assigned(price: float) -> tuple[IntArray, FloatArray]:
        net = profits if spending is None else profits - price * spending
        if search.limits is None:
            return net.argmax(axis=1), np.zeros(len(treatments))
        lower, upper = search.share_bounds(treatments)
        return exact_assignment(net, weights, lower * total, np.maximum(lower, upper) * total, prices)

    def spent(price: float) -> float:
        assert spending is not None
        return float(weights @ spending[rows, assigned(price)[0]]) / total

    if search.budget is not None:
        found = lowest_price(spent, search.budget.limit, charge, _BISECTIONS if search.limits is not None else _FINE_BISECTIONS)
        if found is None:
            raise InvalidInputError(f"budget {search.budget.limit:g} cannot be kept together with the share limits on all units")
        charge = found
    chosen, prices = assigned(charge)
    value = float(weights @ profits[rows, chosen]) / total
    used = 0.0 if spending is None else float(weights @ spending[rows, chosen]) / total
    return Settled(treatments, chosen, prices, charge, value, used)


def _unpriced(problem: MenuProblem, sketch: MicroClusters, treatments: FloatArray) -> LimitedMenu:
    value = float(sketch.weights @ profit_matrix(sketch.theta, problem.psi_at(treatments)).max(axis=1) / sketch.weights.sum())
    return LimitedMenu(treatments, np.zeros(len(treatments)), value)
