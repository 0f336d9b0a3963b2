"""A menu under share limits and a budget, with the prices that keep them: the form that passes over a population use.

The dual of the limits has one price λ_k a treatment and one price μ of spending: unit i takes argmax_k π_ik − μ s_ik − λ_k (power
cells). Where many units respond alike, no price can divide them. A lottery can: one more coefficient u_i in [0, 1), a hash of the
unit, times ε k / K. It is far too small to matter between unlike units, and alike ones take the treatments in the order of u.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.clearing import Offers
from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rules import Lottery
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.profit import Profit, profit_matrix

_LOTTERY = (
    1e-7  # of the spread of profits: far below what responses are known to, far above rounding
)


@dataclass(frozen=True, eq=False)
class BoundedMenu:
    """A menu with limits and their prices; without limits all prices are 0.

    Attributes
    ----------
    menu : treatments (K, d), their rows ψ and prices λ (K,); its charges are μ times the rows of spending, less the lottery.
    lower, upper : (K,) shares of the population's weight.
    budget : most spending per unit weight. charge : its price μ, 0 where it does not bind.
    spend : what counts as spending, in the sign convention of Profit (see ``Budget.row_profit``); None without a budget.
    lottery : ε, 0 where units have no hash.
    """

    menu: PricedMenu
    lower: FloatArray
    upper: FloatArray
    budget: float = np.inf
    charge: float = 0.0
    spend: Profit | None = None
    lottery: float = 0.0

    @staticmethod
    def free_of_limits(menu: PricedMenu) -> BoundedMenu:
        """Return a menu that nothing limits."""
        size = len(menu.treatments)
        return BoundedMenu(menu, np.zeros(size), np.ones(size))

    @property
    def size(self) -> int:
        """K, the number of treatments."""
        return len(self.lower)

    @property
    def free(self) -> bool:
        """Whether every assignment keeps the limits."""
        return self.spend is None and bool((self.lower <= 0).all() and (self.upper >= 1).all())

    def spending(self, problem: MenuProblem) -> FloatArray:
        """Return the rows (K, p + 1) of spending, zeros without a budget."""
        return (
            np.zeros_like(self.menu.psi)
            if self.spend is None
            else problem.spend_at(self.menu.treatments, self.spend)
        )

    def charged(self, problem: MenuProblem) -> MenuProblem:
        """Return the problem in which spending is paid for at its price."""
        return (
            problem
            if self.spend is None or not self.charge
            else problem.charged(self.charge, self.spend)
        )

    def at(self, problem: MenuProblem, prices: FloatArray, charge: float) -> BoundedMenu:
        """Return the menu at other prices."""
        charges = charge * self.spending(problem) - self.tickets(problem)
        return replace(
            self,
            menu=replace(self.menu, prices=prices, charges=charges if charges.any() else None),
            charge=charge,
        )

    def moved(self, problem: MenuProblem, treatments: FloatArray) -> BoundedMenu:
        """Return the menu with other treatments at the same prices."""
        fresh = replace(self, menu=self.menu.moved(problem, treatments))
        return fresh.at(problem, self.menu.prices, self.charge)

    def ordered(self, problem: MenuProblem) -> BoundedMenu:
        """Return the menu with its treatments in ascending order, limits along with them."""
        menu, rows = self.menu.ordered()
        fresh = replace(self, menu=menu, lower=self.lower[rows], upper=self.upper[rows])
        return fresh.at(problem, menu.prices, self.charge)

    def value(self, problem: MenuProblem, clusters: MicroClusters) -> float:
        """Return the most that the menu earns within its limits, per unit weight of clusters; −inf where it cannot keep them."""
        plan = self.offers(problem, clusters).plan(self.charge)
        return -np.inf if plan is None else plan.value / float(clusters.weights.sum())

    def offers(self, problem: MenuProblem, clusters: MicroClusters) -> Offers:
        """Return what the menu offers clusters within its limits."""
        total = float(clusters.weights.sum())
        spending = (
            None if self.spend is None else profit_matrix(clusters.theta, self.spending(problem))
        )
        profits = profit_matrix(clusters.theta, self.menu.psi)
        return Offers(
            profits,
            spending,
            clusters.weights,
            self.lower * total,
            self.upper * total,
            self.budget * total,
        )

    def tickets(self, problem: MenuProblem) -> FloatArray:
        """Return the rows (K, p + 1) of the lottery: ε k / K times a unit's hash."""
        rows = np.zeros_like(self.menu.psi)
        if self.lottery:
            rows[:, lottery_column(problem)] = self.lottery * np.arange(self.size) / self.size
        return rows

    def dual(self, sums: SegmentSums, problem: MenuProblem) -> float:
        """Return the Lagrangian per unit weight at a pass's sums: no assignment to these treatments within the limits earns more,
        up to the lottery.
        """
        prices = self.menu.prices
        back = float(np.maximum(prices, 0) @ self.upper + np.minimum(prices, 0) @ self.lower)
        if self.charge:
            back += self.charge * (self.budget - self.spent(sums, problem))
        return sums.worth(self.menu) + back

    def spent(self, sums: SegmentSums, problem: MenuProblem) -> float:
        """Return the spending per unit weight of a pass's sums."""
        return sums.value(self.spending(problem))

    def shortfall(self, sums: SegmentSums, problem: MenuProblem) -> float:
        """Return how far sums are off what limits and prices ask for: the largest of shares, and of spending in shares of the
        budget.
        """
        shares, prices = sums.weight / sums.weight.sum(), self.menu.prices
        asked = np.where(
            prices > 0,
            self.upper,
            np.where(prices < 0, self.lower, np.clip(shares, self.lower, self.upper)),
        )
        off = float(np.abs(shares - asked).max())
        if self.spend is not None:
            over = self.spent(sums, problem) - self.budget
            off = max(
                off, (abs(over) if self.charge else max(over, 0.0)) / max(abs(self.budget), 1e-12)
            )
        return off


def with_lottery(problem: MenuProblem) -> MenuProblem:
    """Return the problem whose units have one more coefficient, the last: a hash in [0, 1) that profit does not depend on."""
    fresh = replace(problem, rules=(*problem.rules, Lottery()))
    return replace(fresh, psi=fresh.psi_at(fresh.candidates))


def lottery_column(problem: MenuProblem) -> int:
    """Return which coefficient holds a unit's hash."""
    return problem.coefficients - 1


def lottery_size(problem: MenuProblem, theta: FloatArray) -> float:
    """Return ε for a population with responses like ``theta`` (m, p)."""
    profits = profit_matrix(theta[:: max(1, len(theta) // 2_000)], problem.psi)
    return _LOTTERY * max(
        float(np.ptp(profits, axis=1).mean()), 1e-6 * float(np.abs(profits).max()), 1e-300
    )
