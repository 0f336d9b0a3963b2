"""Limits kept to the unit on a population of any size.

At the prices of a pass, shares and totals are nearly what the limits ask. The rest is settled
unit by unit: only those at the boundary, within reach of indifference, are looked at one by one and
assigned by an exact transport into the room that all others leave. Prices then move by less than
the reach, so that no other unit would change its mind: the assignment is optimal for everyone, and
the final prices decide about all units but the few that they leave indifferent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.assignment.transport import whole_masses
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import (
    Boundary,
    Population,
    PopulationSize,
)
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.steps import PricedPass
from coarse_spark.core.menu.tried_prices import TriedPrices
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, preferred
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import RunError

_ROUNDS = 12
# units that are looked at: so many times those that have to change their treatment, and so many
# more
_MARGIN, _LEAST_BOUNDARY = 50, 5_000
# a pass of prices costs less than to look at the units of a larger shortfall, while it halves it
_NEAR = 3e-4
# of the largest profit: far above what rounding makes of no difference, also that of treatments
# which are read back from a table, and below nearly every unit's difference
_INDIFFERENT = 1e-8

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Settled:
    """A menu whose limits are kept to the unit.

    Attributes
    ----------
    menu : at its final prices.
    sums : of the segments over everyone.
    deciding : the menu at the prices that decide about all units but those at the boundary.
    boundary : these units.
    taken : (m,) their treatments.
    """

    menu: PricedMenu
    sums: SegmentSums
    deciding: PricedMenu
    boundary: Boundary
    taken: IntArray

    @property
    def value(self) -> float:
        """Profit per unit weight."""
        return self.sums.value(self.menu.psi)


def settle(
    population: Population, menus: Mapping[int, PricedMenu], sample: WeightedUnits
) -> dict[int, Settled]:
    """Keep the limits of menus to the unit, over the units of a population.

    Parameters
    ----------
    menus : by size, at prices that nearly keep their limits.
    sample : of the population.

    Raises
    ------
    RunError : limits that no prices come near to, as with a few units that outweigh all others.
    """
    pricing = PricedPass(lambda menus: population.sums(menus)[0], sample)
    size = population.size()
    result: dict[int, Settled] = {}
    missing, short = dict(menus), dict[int, float]()
    attempts = {k: _Attempts(TriedPrices(sample), size) for k in menus}
    for _ in range(_ROUNDS):
        sums = pricing.sums(missing)
        open_ = {k: ValuedMenu(m, sums[k], m.lagrangian(sums[k])) for k, m in missing.items()}
        for k in [k for k, found in open_.items() if _rests(found, size)]:
            result[k] = unsettled(open_.pop(k))
        for k, found in open_.items():
            attempts[k].passed(found)
        off = {k: found.menu.shortfall(found.sums) for k, found in open_.items()}
        far = {k: open_.pop(k) for k in off if _NEAR < off[k] <= short.get(k, np.inf) / 2}
        missing = {
            k: attempts[k].tried.following(_proposed(m, None, pricing)) for k, m in far.items()
        }
        short, near = off, _boundaries(population, open_, sample, size)
        for k, found in open_.items():
            settled = settle_boundary(found, near[k], size)
            final = None if settled is None else attempts[k].confirmed(found, settled)
            if final is None:
                missing[k] = attempts[k].tried.following(_proposed(found, settled, pricing))
            else:
                result[k] = final
        if not missing:
            break
        log.info("limits of menus of %s: prices move on", ", ".join(map(str, missing)))
    return {k: result[k] if k in result else attempts[k].nearest for k in menus}


@dataclass(eq=False)
class _Attempts:
    """What was tried with one menu.

    Attributes
    ----------
    tried : the prices.
    size : of the population.
    best : the best assignment within the limits so far, None before the first.
    """

    tried: TriedPrices
    size: PopulationSize
    best: Settled | None = None

    def passed(self, found: ValuedMenu) -> None:
        """Note a pass over everyone."""
        self.tried.passes.append(found)
        if _keeps(found, self.size):
            self._note(unsettled(found))

    def confirmed(self, found: ValuedMenu, settled: Settled) -> Settled | None:
        """Return a menu whose new prices leave all others with what they have, else None."""
        reach = settled.boundary.reach
        drift = _drift(found.menu, settled.menu, self.tried.sample)
        if drift <= reach:
            return _narrowed(settled, reach - drift)
        # what units take is within the limits all the same
        self._note(settled)
        return None

    @property
    def nearest(self) -> Settled:
        """The best assignment so far, at the prices that are nearest to what limits cost."""
        menu = self.tried.best.menu
        if self.best is None:
            raise RunError(
                f"the limits of the menu of {menu.k} treatments could not be kept: no prices come "
                "near to them"
            )
        log.info("limits of the menu of %d: kept, by more units than can be looked at", menu.k)
        return replace(self.best, menu=menu)

    def _note(self, settled: Settled) -> None:
        if self.best is None or settled.value > self.best.value:
            self.best = settled


def _proposed(
    found: ValuedMenu, settled: Settled | None, pricing: PricedPass
) -> Iterator[PricedMenu | None]:
    """Yield a menu at the prices of the boundary, and at those of the sample."""
    if settled is not None:
        yield settled.menu
    yield pricing.priced(found.menu, found)


def _boundaries(
    population: Population,
    menus: Mapping[int, ValuedMenu],
    sample: WeightedUnits,
    size: PopulationSize,
) -> dict[int, Boundary]:
    """Return the units to look at for every menu."""
    if not menus:
        return {}
    room = population.boundary_units / len(menus) / size.units
    return population.boundary(
        {
            k: (found.menu, _reach(found.menu, sample, min(room, _wanted(found, size))))
            for k, found in menus.items()
        }
    )


def _narrowed(settled: Settled, clear: float) -> Settled:
    """Return a menu whose final prices decide about all units that they do not leave indifferent.

    Parameters
    ----------
    settled : a menu, with the boundary that was looked at.
    clear : how much better than the next best what all other units take is at the final prices, at
        least.
    """
    menu, looked, taken = settled.menu, settled.boundary, settled.taken
    units = looked.units
    if not len(units) or clear <= 0:
        return settled
    preferring, gap = preferred(units.theta, menu.priced_psi)
    size = float(np.abs(profit_matrix(units.theta, menu.priced_psi)).max())
    otherwise = gap[preferring != taken].max(initial=0.0)
    reach = max(_INDIFFERENT * size, 2 * float(otherwise))
    if reach >= clear:
        return settled
    left = np.flatnonzero(gap < reach)
    few = WeightedUnits.of(units.theta[left], units.weights[left])
    boundary = Boundary(few, preferring[left], reach if len(left) else 0.0, looked.ids[left])
    return Settled(menu, settled.sums, menu, boundary, taken[left])


def unsettled(found: ValuedMenu) -> Settled:
    """Return a menu whose prices decide about all units."""
    nobody = Boundary.none(found.sums.theta.shape[1])
    return Settled(found.menu, found.sums, found.menu, nobody, nobody.taken)


def settle_boundary(found: ValuedMenu, boundary: Boundary, size: PopulationSize) -> Settled | None:
    """Assign the units at the boundary into the room that all others leave.

    None where they leave too little or too much.

    Parameters
    ----------
    found : the menu with the sums of all units at its prices.
    boundary : the units near indifference at these prices.
    size : of the population.
    """
    menu, sums, units = found.menu, found.sums, boundary.units
    others = sums - SegmentSums.of(boundary.taken, units.theta, units.weights, menu.k)
    lower, upper = limit_masses(menu, size, float(sums.weight.sum()))
    even = size.even
    outside = others.units * size.heaviest if even else np.maximum(others.weight, 0.0)
    slack = size.heaviest * (1e-6 if even else 1.0)
    low, high, inside = np.maximum(lower - outside, 0.0), upper - outside, units.total
    if (high < -slack).any() or low.sum() > inside + slack or high.sum() < inside - slack:
        return None
    if not len(units):
        return Settled(menu, sums, menu, boundary, boundary.taken)
    total = float(sums.weight.sum())
    posed = replace(
        menu.posed_to(units),
        lower=low,
        upper=np.maximum(high, 0.0),
        most=menu.limits.most * total - menu.used_in_all(others),
    )
    best = posed.whole(menu.prices, menu.limit_prices)
    if best is None:
        return None
    inner = SegmentSums.of(best.taken, units.theta, units.weights, menu.k)
    masses = outside + inner.weight
    if (masses > upper + slack).any() or (masses < lower - slack).any():
        return None
    final = menu.at(best.prices, best.limit_prices)
    return Settled(final, others + inner, menu, boundary, best.taken)


def limit_masses(
    menu: PricedMenu, size: PopulationSize, total: float
) -> tuple[FloatArray, FloatArray]:
    """Return the limits (K,) as masses, in whole units where all weigh the same.

    Parameters
    ----------
    size, total : of the population: its units, and their weight in all.
    """
    if size.even:
        total = size.units * size.heaviest
        return whole_masses(size.heaviest, size.units, menu.lower * total, menu.upper * total)
    return menu.lower * total, menu.upper * total


def _rests(found: ValuedMenu, size: PopulationSize) -> bool:
    """Return whether the limits bind nobody: they are kept at prices 0."""
    return not (found.menu.prices.any() or any(found.menu.limit_prices)) and _keeps(found, size)


def _keeps(found: ValuedMenu, size: PopulationSize) -> bool:
    """Return whether units keep the limits that follow the prices alone."""
    menu, sums = found.menu, found.sums
    if (menu.used(sums) > menu.limits.most + 1e-12 * menu.sizes(sums)).any():
        return False
    lower, upper = limit_masses(menu, size, float(sums.weight.sum()))
    slack = 1e-6 * size.lightest
    return bool((sums.weight >= lower - slack).all() and (sums.weight <= upper + slack).all())


def _wanted(found: ValuedMenu, size: PopulationSize) -> float:
    """Return the share of units that is enough to look at."""
    moving = max(found.menu.shortfall(found.sums), 1e-4)
    return _MARGIN * moving + _LEAST_BOUNDARY / size.units


def _reach(menu: PricedMenu, sample: WeightedUnits, share: float) -> float:
    """Return the difference to the next best below which about a share of the units is."""
    if share >= 1:
        return np.inf
    return float(np.quantile(preferred(sample.theta, menu.priced_psi)[1], share))


def _drift(old: PricedMenu, new: PricedMenu, sample: WeightedUnits) -> float:
    """Return by how much new prices can change what a unit prefers."""
    shift = np.broadcast_to(new.prices - old.prices, (len(sample), old.k))
    moves = new.prices_of_totals - old.prices_of_totals
    for move, counted in zip(moves, old.counted, strict=True):
        if move:
            shift = shift + move * profit_matrix(sample.theta, counted)
    return float(np.ptp(shift, axis=1).max())
