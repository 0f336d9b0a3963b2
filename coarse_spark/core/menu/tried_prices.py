"""Prices of one menu that passes over everyone have tried, and those to try next.

What a menu earns at prices, with the limits paid back, is convex in the prices, and the sums of
one pass tell how little it can be at any others. Prices that a part of the units proposes may
overshoot: where passes show that they can be no better, those between are tried instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from coarse_spark.core.menu.assignment.limit_price import price_scale
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix

_NEAREST, _FURTHEST = 0.1, 0.9  # of the way to prices that are known to be beyond
_HALVING = 3  # every so many passes go half of it: where what counts falls in steps, others creep


@dataclass(frozen=True, eq=False)
class TriedPrices:
    """The passes of one menu.

    Attributes
    ----------
    sample : of the population.
    passes : with the sums of everyone at the prices of each, valued by its Lagrangian.
    """

    sample: WeightedUnits
    passes: list[ValuedMenu] = field(default_factory=list)

    @property
    def best(self) -> ValuedMenu:
        """The pass with the lowest Lagrangian, which is nearest to what limits cost."""
        return min(self.passes, key=lambda one: one.value)

    def following(self, proposed: Iterable[PricedMenu | None]) -> PricedMenu:
        """Return the first of the proposed menus whose prices may be better, else prices between.

        ``proposed`` menus differ by their prices alone; None are left out.
        """
        best = self.best
        for menu in proposed:
            if menu is not None and self._least(menu) < best.value:
                return menu
        between = [self._between(best, other) for other in self.passes if other is not best]
        possible = [menu for menu in between if menu is not None]
        return min(possible, key=self._least) if possible else self._further(best)

    def _least(self, menu: PricedMenu) -> float:
        """Return how low the Lagrangian can be at most at the prices of a menu."""
        return max(_at(one, menu) for one in self.passes)

    def _between(self, best: ValuedMenu, other: ValuedMenu) -> PricedMenu | None:
        """Return prices where the slopes at both ends let the Lagrangian be lowest.

        None where it does not fall from the best towards the other.
        """
        falls, rises = best.value - _at(best, other.menu), other.value - _at(other, best.menu)
        if falls <= 0 or rises <= 0:
            return None
        way = min(max(falls / (falls + rises), _NEAREST), _FURTHEST)
        if len(self.passes) % _HALVING == 0:
            way = 0.5
        prices = (1 - way) * best.menu.prices + way * other.menu.prices
        near, far = best.menu.prices_of_totals, other.menu.prices_of_totals
        return best.menu.at(prices, tuple(((1 - way) * near + way * far).tolist()))

    def _further(self, best: ValuedMenu) -> PricedMenu:
        """Return twice the price of what counts too much, and half of what counts too little."""
        menu, theta = best.menu, self.sample.theta
        profits = profit_matrix(theta, menu.psi)
        small = [price_scale(profits, profit_matrix(theta, rows)) for rows in menu.counted]
        prices, over = menu.prices_of_totals, menu.used(best.sums) > menu.limits.most
        dearer = np.maximum(2 * prices, np.array(small))
        return menu.at(menu.prices, tuple(np.where(over, dearer, prices / 2).tolist()))


def _at(found: ValuedMenu, menu: PricedMenu) -> float:
    """Return the Lagrangian of a pass's segments at the prices of a menu: it is no lower there."""
    return menu.lagrangian(found.sums)
