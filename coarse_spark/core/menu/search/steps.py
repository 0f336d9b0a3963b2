"""The three steps of Lloyd's loop: free choice, transport on units in memory, and priced passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.search.lloyd import Step, ValuedMenu
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, assign, segment_sums
from coarse_spark.errors import InvalidInputError

Found = TypeVar("Found")
Sums = Callable[[Mapping[int, PricedMenu]], Mapping[int, SegmentSums]]

# shares are off by less: a sample cannot aim much finer, and what is left is decided unit by unit
_SHARE_TOLERANCE = 3e-4


def sums_of(units: WeightedUnits) -> Sums:
    """Return the segment sums of menus over units in memory, as a function of the menus."""

    def sums(menus: Mapping[int, PricedMenu]) -> Mapping[int, SegmentSums]:
        rows = {k: menu.priced_psi for k, menu in menus.items()}
        return segment_sums(units.theta, units.weights, rows)

    return sums


@dataclass(frozen=True, eq=False)
class FreeChoice(Step):
    """Every unit takes what it prefers at the prices that menus have.

    Attributes
    ----------
    sums : the segment sums over a population, all menus in one pass.
    """

    sums: Sums
    rises: ClassVar[bool] = True
    stretches: ClassVar[bool] = True

    def __call__(
        self, menus: Sequence[tuple[int, PricedMenu]], known: Mapping[int, ValuedMenu]
    ) -> list[ValuedMenu | None]:
        """Price the menus and assign all of them in one pass."""
        priced = {place: self.priced(menu, known.get(k)) for place, (k, menu) in enumerate(menus)}
        possible = {place: menu for place, menu in priced.items() if menu is not None}
        sums = self.sums(possible) if possible else {}
        found = {place: self.valued(menu, sums[place]) for place, menu in possible.items()}
        return [found.get(place) for place in priced]

    def priced(self, menu: PricedMenu, known: ValuedMenu | None = None) -> PricedMenu | None:  # noqa: ARG002  # of every step
        """Return the menu: its prices stay what they are."""
        return menu

    def valued(self, menu: PricedMenu, sums: SegmentSums) -> ValuedMenu:
        """Return the menu with its Lagrangian, without prices its profit."""
        return ValuedMenu(menu, sums, menu.lagrangian(sums))

    def rests(self, found: ValuedMenu) -> bool:  # noqa: ARG002  # of every step
        """Return True."""
        return True


@dataclass(frozen=True, eq=False)
class WithinLimits(Step):
    """Units in memory are assigned within the limits, as well as can be.

    Attributes
    ----------
    units : whom menus are for.
    whole : whether units stay whole; means of many may be split.
    """

    units: WeightedUnits
    whole: bool = False

    def __call__(
        self,
        menus: Sequence[tuple[int, PricedMenu]],
        known: Mapping[int, ValuedMenu],  # noqa: ARG002  # the optimum needs no start
    ) -> list[ValuedMenu | None]:
        """Assign each menu."""
        return [self.assigned(menu) for _, menu in menus]

    def assigned(self, menu: PricedMenu) -> ValuedMenu | None:
        """Return a menu assigned within its limits, None where its treatments cannot keep them."""
        posed, theta, weights = menu.posed_to(self.units), self.units.theta, self.units.weights
        if self.whole:
            best = posed.whole(menu.prices, menu.limit_prices)
            if best is None:
                return None
            sums = SegmentSums.of(best.taken, theta, weights, menu.k)
            return ValuedMenu(menu.at(best.prices, best.limit_prices), sums, sums.value(menu.psi))
        split = posed.split(menu.limit_prices)
        if split is None:
            return None
        units = np.bincount(split.mass.argmax(axis=1), minlength=menu.k).astype(np.intp)
        sums = SegmentSums(split.mass.sum(axis=0), split.mass.T @ theta, units)
        priced = menu.at(split.prices, split.limit_prices)
        return ValuedMenu(priced, sums, split.value / self.units.total)

    def priced(self, menu: PricedMenu, known: ValuedMenu | None = None) -> PricedMenu | None:  # noqa: ARG002  # of every step
        """Return the menu at the prices of the best assignment."""
        found = self.assigned(menu)
        return None if found is None else found.menu

    def valued(self, menu: PricedMenu, sums: SegmentSums) -> ValuedMenu:  # noqa: ARG002  # of every step
        """Return the menu with its profit; where units are indifferent, sums tell less."""
        return kept(self.assigned(menu), menu)

    def rests(self, found: ValuedMenu) -> bool:  # noqa: ARG002  # of every step
        """Return True: the prices are those of the optimum."""
        return True


@dataclass(frozen=True, eq=False)
class PricedPass(FreeChoice):
    """A population of any size is assigned at prices that keep the limits on a sample of it.

    Each pass tells how far the sample's shares and totals are off, and the next prices aim beside
    their target by as much. The value is the Lagrangian, which equals the profit within the limits
    up to the square of what prices are off.

    Attributes
    ----------
    sums : the segment sums over the population, all menus in one pass.
    sample : units of it.
    """

    sample: WeightedUnits
    rises: ClassVar[bool] = False
    stretches: ClassVar[bool] = False

    def priced(self, menu: PricedMenu, known: ValuedMenu | None = None) -> PricedMenu | None:
        """Return the menu at the prices that keep its limits on the sample.

        ``known`` is what the last pass found, which tells where the sample has to aim. None where a
        total cannot be kept.
        """
        if menu.free:
            return menu
        off, over = np.zeros(menu.k), np.zeros(len(menu.counted))
        if known is not None:
            theta, weights = self.sample.theta, self.sample.weights
            taken = assign(theta, known.menu.priced_psi)
            here = SegmentSums.of(taken, theta, weights, menu.k)
            off = known.sums.shares - here.shares
            over = known.menu.used(known.sums) - known.menu.used(here)
        low = np.clip(menu.lower - off, 0.0, 1.0)
        high = np.clip(menu.upper - off, 0.0, 1.0)
        low, high = low / max(float(low.sum()), 1.0), high / min(float(high.sum()), 1.0)
        total = self.sample.total
        posed = replace(
            menu.posed_to(self.sample),
            lower=low * total,
            upper=high * total,
            most=(menu.limits.most - over) * total,
        )
        best = posed.whole(menu.prices, menu.limit_prices)
        return None if best is None else menu.at(best.prices, best.limit_prices)

    def rests(self, found: ValuedMenu) -> bool:
        """Return whether shares and totals are as near to the limits as a sample can tell."""
        return found.menu.free or found.menu.shortfall(found.sums) <= _SHARE_TOLERANCE


def kept(found: Found | None, menu: PricedMenu) -> Found:
    """Return what was found for a menu.

    Raises
    ------
    InvalidInputError : nothing was: units that stay whole do not keep its limits on totals.
    """
    if found is None:
        totals = menu.limits.totals
        raise InvalidInputError(
            f"no assignment of whole units to the menu of {menu.k} treatments was found that keeps "
            f"{' and '.join(map(str, totals))}; loosen {'one of them' if totals[1:] else 'it'} a "
            "little, or leave small sizes out"
        )
    return found
