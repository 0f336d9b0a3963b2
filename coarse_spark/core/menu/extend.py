"""Further units for a menu that stays: those served before keep their treatments.

Limits hold for all units together, so the room that the units served before leave is what further
ones have to keep within: limits of their own on the same menu.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.assignment.assign import AssignmentProblem
from coarse_spark.core.menu.assignment.feasible import NamedTotals, unmet_limits
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import Population, PopulationSize
from coarse_spark.core.menu.problem.limits import SizeLimits
from coarse_spark.core.menu.problem.rules import allowed
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.steps import PricedPass
from coarse_spark.core.menu.settle import Settled, limit_masses, settle, unsettled
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits
from coarse_spark.errors import InvalidInputError, RunError

_ROUNDING = 1e-9  # of what counts in all


def extend(
    population: Population, menu: PricedMenu, served: SegmentSums, everyone: PopulationSize
) -> Settled:
    """Assign further units to the treatments of a menu, within its limits over everyone.

    They follow the menu's own prices where that keeps the limits; else prices of their own, settled
    to the unit. Shares may be off by the weight of one unit.

    Parameters
    ----------
    population : the further units, each with at least one treatment that it is eligible for.
    menu : at the prices that decided about the units served before; its limits are for everyone.
    served : segment sums of these, with the coefficients of the basis at least.
    everyone : size of both together.

    Raises
    ------
    InvalidInputError : limits that cannot be kept while the units served before keep their
        treatments, with the nearest that can.
    """
    free = population.sums({menu.k: menu})[0][menu.k]
    # rules count against nothing, and stand in the sums of further units only
    more = free.theta.shape[1] - served.theta.shape[1]
    served = replace(served, theta=np.pad(served.theta, ((0, 0), (0, more))))
    room = _Room(population, menu, served, everyone, float(free.weight.sum()))
    if not room.weight or room.kept_by(free, exactly=True):
        return unsettled(ValuedMenu(menu, free, 0.0))
    sample = population.sample()
    pricing = PricedPass(lambda menus: population.sums(menus)[0], sample)
    try:
        priced = pricing.priced(room.menu)
        found = None if priced is None else settle(population, {menu.k: priced}, sample)[menu.k]
    except RunError:  # no prices come near to the limits
        found = None
    if found is None or not room.kept_by(found.sums):
        raise InvalidInputError(room.complaint(sample))
    return found


@dataclass(frozen=True, eq=False)
class _Room:
    """What units served before leave to further ones of so much weight in all."""

    population: Population
    limited: PricedMenu
    served: SegmentSums
    everyone: PopulationSize
    weight: float

    @property
    def total(self) -> float:
        return float(self.served.weight.sum()) + self.weight

    @property
    def masses(self) -> tuple[FloatArray, FloatArray]:
        """The limits (K,) on the mass of everyone."""
        return limit_masses(self.limited, self.everyone, self.total)

    @property
    def menu(self) -> PricedMenu:
        """The menu with the limits of the further units alone."""
        low, high = (
            np.clip((mass - self.served.weight) / self.weight, 0.0, 1.0) for mass in self.masses
        )
        # units served before may be off by one, which others cannot make up for
        low, high = low / max(float(low.sum()), 1.0), high / min(float(high.sum()), 1.0)
        used = self.limited.used_in_all(self.served)
        of_all = self.limited.limits
        room = (of_all.most * self.total - used) / self.weight
        limits = SizeLimits(low, high, totals=of_all.totals, room=room)
        return replace(self.limited, limits=limits, lower=low, upper=np.maximum(low, high))

    def kept_by(self, sums: SegmentSums, *, exactly: bool = False) -> bool:
        """Return whether limits and eligibility are kept by further units with these sums.

        ``exactly`` leaves no slack where all units weigh the same.
        """
        menu, rules = self.limited, self.population.problem.layout.eligibility
        if ((menu.psi[:, rules] < 0) & (sums.theta[:, rules] > 0)).any():
            return False
        low, high = self.masses
        mass = self.served.weight + sums.weight
        tight = exactly and self.everyone.even
        slack = self.everyone.heaviest * (1e-6 if tight else 1.0 + 1e-9)
        if (mass > high + slack).any() or (mass < low - slack).any():
            return False
        used = menu.used_in_all(self.served + sums)
        most = menu.limits.most * self.total
        return bool((used <= most + _ROUNDING * np.maximum(np.abs(most), self.total)).all())

    def complaint(self, sample: WeightedUnits) -> str:
        """Return which limits cannot be kept, with the nearest that can."""
        menu, problem, served = self.limited, self.population.problem, self.served
        posed = menu.posed_to(sample)
        # a segment served before is one more unit, which may get its treatment only
        had = np.flatnonzero(served.weight > 0)
        mass = served.weight[had]
        used = (served.rows * menu.counted).sum(axis=2)[:, had] / mass
        before = np.repeat(used[:, :, None], menu.k, axis=2)
        union = AssignmentProblem(
            np.zeros((len(sample) + len(had), menu.k)),
            np.concatenate([posed.counted, before], axis=1),
            np.concatenate([sample.weights * (self.weight / sample.total), mass]),
            menu.lower * self.total,
            np.maximum(menu.upper * self.total, served.weight),
            menu.limits.most * self.total,
        )
        may = np.vstack([allowed(sample.theta, menu.psi, problem.layout), np.eye(menu.k)[had] > 0])
        names = [problem.space.describe(row) for row in menu.treatments]
        mean = sample.weights @ np.column_stack([sample.theta, np.ones(len(sample))])
        total = served.rows.sum(axis=0) + mean * (self.weight / sample.total)
        told = NamedTotals.of(problem, menu.limits.totals, total / total[-1])
        return unmet_limits(union, may, names, told) or (
            f"no assignment to {', '.join(names)} was found that keeps share limits and budget"
        )
