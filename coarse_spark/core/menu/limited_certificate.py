"""Upper bounds on menus under share limits and a budget: the certificate's, with prices of candidates and of spending."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.certificate import DualSums, LimitPrices, limit_prices
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rounding import Rounding
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.profit import profit_matrix

_BOUND_TOLERANCE = 2e-4  # of what offers differ by: what the search for a bound may leave open


@dataclass(frozen=True, eq=False)
class LimitedDual:
    """What bounds the menus of one size within limits, once ``dual_sums`` has added it up over all units.

    Attributes
    ----------
    rounding : rows of the candidates at their prices. menu, corrections : the dual of units, as ``dual_sums`` takes it.
    limits : prices of the candidates. held : rows of candidates that every menu holds.
    """

    rounding: Rounding
    menu: PricedMenu
    corrections: FloatArray
    limits: LimitPrices
    held: IntArray

    @staticmethod
    def search(
        problem: MenuProblem,
        menu: PricedMenu,
        clusters: MicroClusters,
        *,
        lower: FloatArray,
        upper: FloatArray,
        candidates: tuple[FloatArray, FloatArray],
        paid: float,
        held: IntArray,
    ) -> LimitedDual:
        """Search the dual on micro-clusters.

        Parameters
        ----------
        problem : the one in which spending is paid for. lower, upper : (K,) shares of the menu's treatments.
        candidates : widest lower and upper shares (J,) that any place on a menu allows each candidate.
        paid : the budget times its price. held : rows of candidates that every menu holds.
        """
        rounding = Rounding.of(problem)
        # rows next to a jump or an exclusion stand for treatments of any place
        beyond = len(rounding.psi) - len(problem.psi)
        low, high = candidates
        low, high = (
            np.append(low, np.full(beyond, lower.min())),
            np.append(high, np.full(beyond, upper.max())),
        )
        profits = profit_matrix(clusters.theta, rounding.psi)
        offers = profit_matrix(clusters.theta, menu.priced_psi).max(axis=1)
        template = LimitPrices.none(len(rounding.psi), paid, not problem.searched.any())
        aim = float(np.maximum(menu.prices * upper, menu.prices * lower).sum())
        slack = _BOUND_TOLERANCE * max(float(np.ptp(offers)), 1e-12)
        limits, found = limit_prices(
            profits,
            clusters.weights,
            offers,
            len(menu.prices),
            slack,
            low,
            high,
            template,
            held,
            aim,
        )
        return LimitedDual(limits.shifted(rounding), menu, found, limits, held)

    def bound(self, sums: DualSums) -> float:
        """Return the profit per unit weight that no menu of as many treatments within the limits exceeds."""
        return sums.bound(len(self.menu.prices), self.held, self.limits)
