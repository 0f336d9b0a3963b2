"""Limits kept on a population of any size: prices cleared on a sample, passes over everyone, whole units last.

A pass over everyone tells how far the sample's shares and spending are off, and the next clearing on the sample aims beside its
target by as much. What is left is settled unit by unit: only those within reach of indifference are looked at one by one and
assigned by an exact transport into the room that all others leave. Prices then move by less than the reach, so that no other unit
would change its mind: the assignment is optimal for everyone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.clearing import Assigned, Offers
from coarse_spark.core.menu.lloyd import (
    Aggregate,
    Pass,
    PricedMenu,
    SegmentSums,
    describe_pass,
    first_maximum,
    update,
)
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.transport import whole_masses
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import RunError

_SHARE_TOLERANCE = 3e-4  # a sample cannot aim much finer, and what is left is settled unit by unit
_ROUNDS = 12
_MARGIN, _LEAST_NEAR = 50, 5_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sample:
    """Units in memory that stand for all: theta (m, p), weights (m,)."""

    theta: FloatArray
    weights: FloatArray

    def gaps(self, bounded: BoundedMenu) -> FloatArray:
        """Return by how much (m,) every unit prefers its treatment to the next best."""
        return indifference(self.theta, bounded)[1]

    def sums(self, bounded: BoundedMenu) -> SegmentSums:
        """Return the segment sums at the menu's prices."""
        return SegmentSums.of(
            indifference(self.theta, bounded)[0], self.theta, self.weights, bounded.size
        )


@dataclass(frozen=True)
class Everyone:
    """How many units with weight there are, and their least and largest weight."""

    units: int
    lightest: float
    heaviest: float

    @property
    def even(self) -> bool:
        """Whether all units weigh the same, so that shares are whole numbers of units."""
        return self.heaviest - self.lightest <= 1e-12 * self.heaviest

    def masses(self, bounded: BoundedMenu, total: float) -> tuple[FloatArray, FloatArray]:
        """Return the limits (K,) as masses, in whole units where all weigh the same."""
        if self.even:
            total = self.units * self.heaviest
            return whole_masses(
                self.heaviest, self.units, bounded.lower * total, bounded.upper * total
            )
        return bounded.lower * total, bounded.upper * total


@dataclass(frozen=True, eq=False)
class Near:
    """Units near indifference at a menu's prices.

    Attributes
    ----------
    theta : (m, p). weights : (m,) above 0. taken : (m,) their treatment at these prices.
    reach : they are all units that prefer it to the next best by less than this. ids : (m,) who they are, or empty.
    """

    theta: FloatArray
    weights: FloatArray
    taken: IntArray
    reach: float
    ids: npt.NDArray[np.object_]

    @staticmethod
    def nobody(coefficients: int) -> Near:
        """Return no units."""
        none = np.empty(0)
        return Near(
            np.empty((0, coefficients)), none, none.astype(np.intp), 0.0, none.astype(object)
        )


@dataclass(frozen=True, eq=False)
class SettledMenu:
    """A menu whose limits are kept to the unit.

    Attributes
    ----------
    bounded : the menu at its final prices. sums : of the segments over everyone.
    asked : the menu at the prices that decide about all units but the near ones. near, chosen : these and their treatments (m,).
    """

    bounded: BoundedMenu
    sums: SegmentSums
    asked: BoundedMenu
    near: Near
    chosen: IntArray


Collect = Callable[[Mapping[int, tuple[BoundedMenu, float]]], Mapping[int, Near]]


def indifference(theta: FloatArray, bounded: BoundedMenu) -> tuple[IntArray, FloatArray]:
    """Return the treatment (n,) of units (n, p) at a menu's prices, and by how much (n,) they prefer it to the next best."""
    priced = bounded.menu.priced_psi
    net = priced[:, :-1] @ theta.T + priced[:, -1, None]
    taken, best = first_maximum(net)
    if len(net) == 1:
        return taken, np.full(len(theta), np.inf)
    net[taken, np.arange(len(theta))] = -np.inf
    return taken, best - net.max(axis=0)


def cleared(
    problem: MenuProblem,
    sample: Sample,
    bounded: BoundedMenu,
    asked: BoundedMenu | None = None,
    found: SegmentSums | None = None,
) -> BoundedMenu:
    """Return the menu at the prices that keep its limits on the sample.

    Parameters
    ----------
    asked, found : the menu of the last pass over everyone and the sums it found, which tell where the sample has to aim.

    Raises
    ------
    RunError : a budget that the menu cannot keep.
    """
    solved = _cleared(problem, sample, bounded, asked, found)
    if solved is None:
        raise RunError(
            f"a menu of {bounded.size} treatments cannot keep the budget of {bounded.budget:g} a unit; leave small sizes out"
        )
    return solved


def _cleared(
    problem: MenuProblem,
    sample: Sample,
    bounded: BoundedMenu,
    asked: BoundedMenu | None,
    found: SegmentSums | None,
) -> BoundedMenu | None:
    if bounded.free:
        return bounded
    total, off, over = float(sample.weights.sum()), np.zeros(bounded.size), 0.0
    if asked is not None and found is not None:
        here = sample.sums(asked)
        off = found.weight / found.weight.sum() - here.weight / total
        over = asked.spent(found, problem) - asked.spent(here, problem)
    low, high = np.clip(bounded.lower - off, 0.0, 1.0), np.clip(bounded.upper - off, 0.0, 1.0)
    low, high = low / max(float(low.sum()), 1.0), high / min(float(high.sum()), 1.0)
    solved = _assigned(
        problem,
        bounded,
        sample.theta,
        sample.weights,
        low * total,
        high * total,
        (bounded.budget - over) * total,
    )
    return None if solved is None else bounded.at(problem, solved.prices, solved.charge)


def _assigned(
    problem: MenuProblem,
    bounded: BoundedMenu,
    theta: FloatArray,
    weights: FloatArray,
    low: FloatArray,
    high: FloatArray,
    limit: float,
) -> Assigned | None:
    profits = profit_matrix(theta, bounded.menu.psi + bounded.tickets(problem))
    spending = None if bounded.spend is None else profit_matrix(theta, bounded.spending(problem))
    return Offers(profits, spending, weights, low, high, limit).assign(
        bounded.menu.prices, bounded.charge
    )


@dataclass(frozen=True, eq=False)
class RefinedWithin:
    """Bounded menus after refinement with the sums of a pass at exactly their prices, and the history of the passes."""

    menus: dict[int, BoundedMenu]
    sums: dict[int, SegmentSums]
    history: tuple[Pass, ...]


def refine_within(
    problem: MenuProblem,
    menus: Mapping[int, BoundedMenu],
    aggregate: Aggregate,
    sample: Sample,
    *,
    max_passes: int,
    tolerance: float = 1e-9,
) -> RefinedWithin:
    """Alternate passes over everyone with new prices and new treatments, until menus rest or passes are used up.

    Parameters
    ----------
    aggregate : returns the segment sums of the priced menus it is given; one call a pass serves all menus.
    max_passes : calls of ``aggregate`` at most; at least one is made.
    tolerance : treatments rest when moving them would gain less, as a share of the profit over the control's.

    Treatments move to what serves their segments best after charges. A move stays if it raises the Lagrangian, which equals the
    profit within the limits up to the square of what prices are off.
    """
    trial = {k: cleared(problem, sample, menu) for k, menu in menus.items()}
    best: dict[int, BoundedMenu] = {}
    sums: dict[int, SegmentSums] = {}
    history: list[Pass] = []
    for number in range(1, max(1, max_passes) + 1):
        if not trial:
            break
        found = aggregate({k: menu.menu for k, menu in trial.items()})
        following: dict[int, BoundedMenu] = {}
        for k, menu in trial.items():
            before = best[k].dual(sums[k], problem) if k in best else -np.inf
            worth = menu.dual(found[k], problem)
            if (
                k in best
                and not np.array_equal(best[k].menu.treatments, menu.menu.treatments)
                and worth <= before
            ):
                continue
            best[k], sums[k] = menu, found[k]
            fresh = menu.moved(
                problem,
                update(menu.charged(problem), {k: _payable(menu, problem)}, {k: found[k]})[
                    k
                ].treatments,
            )
            scale = abs(worth - float(found[k].value_of_all(problem.control_psi[None, :])[0]))
            gains = _gains(menu, fresh, found[k], problem)
            gain = worth - before if np.isfinite(before) else 0.0
            history.append(
                describe_pass(problem, k, number, worth, gain, menu.menu, fresh.menu, gains)
            )
            if gains.sum() <= tolerance * scale:
                fresh = menu
            # treatments that are worth more without the budget need not be able to keep it
            moved = None if fresh is menu else _cleared(problem, sample, fresh, menu, found[k])
            if moved is None and menu.shortfall(found[k], problem) > _SHARE_TOLERANCE:
                moved = cleared(problem, sample, menu, menu, found[k])
            if moved is not None:
                following[k] = moved
        trial = following
    return RefinedWithin(best, sums, tuple(history))


def _payable(bounded: BoundedMenu, problem: MenuProblem) -> PricedMenu:
    """Return the menu with rows ψ less charges: what its treatments earn in the charged problem."""
    return replace(
        bounded.menu, psi=bounded.charged(problem).psi_at(bounded.menu.treatments), charges=None
    )


def _gains(
    old: BoundedMenu, new: BoundedMenu, sums: SegmentSums, problem: MenuProblem
) -> FloatArray:
    charged = old.charged(problem)
    rows = charged.psi_at(new.menu.treatments) - charged.psi_at(old.menu.treatments)
    return np.asarray((rows * sums.rows).sum(axis=1) / sums.weight.sum())


def settle_within(
    problem: MenuProblem,
    menus: Mapping[int, BoundedMenu],
    aggregate: Aggregate,
    collect: Collect,
    sample: Sample,
    everyone: Everyone,
    *,
    most: int,
    sums: Mapping[int, SegmentSums] | None = None,
) -> dict[int, SettledMenu]:
    """Keep the limits of all menus to the unit; see the module's notes.

    Parameters
    ----------
    collect : returns for every menu the units within the given reach of indifference, or within a smaller one that it says.
    most : units to look at one by one, for all menus together. sums : of a pass at exactly these prices, where there is one.

    Raises
    ------
    RunError : limits that no prices come near to, as with a few units that outweigh all others.
    """
    result: dict[int, SettledMenu] = {}
    asked, found = dict(menus), dict(sums or {})
    for _ in range(_ROUNDS):
        missing = {k: menu.menu for k, menu in asked.items() if k not in found}
        found |= aggregate(missing) if missing else {}
        resting = {k for k, menu in asked.items() if _rests(problem, menu, found[k], everyone)}
        nobody = Near.nobody(problem.coefficients)
        result |= {
            k: SettledMenu(asked[k], found[k], asked[k], nobody, nobody.taken) for k in resting
        }
        asked = {k: menu for k, menu in asked.items() if k not in resting}
        if not asked:
            break
        room = most / len(asked) / everyone.units
        reach = {
            k: _reach(menu, sample, min(room, _wanted(problem, menu, found[k], everyone)))
            for k, menu in asked.items()
        }
        near = collect({k: (menu, reach[k]) for k, menu in asked.items()})
        following = {}
        for k, menu in asked.items():
            settled = _settled(problem, menu, found[k], near[k], everyone)
            if settled is None:
                following[k] = cleared(problem, sample, menu, menu, found[k])
                continue
            result[k] = settled
            if _drift(problem, menu, settled.bounded, sample) > near[k].reach:
                following[k] = settled.bounded
        if following:
            log.info("limits of menus of %s: prices move on", ", ".join(map(str, following)))
        asked, found = following, {}
    for k in menus:
        if k not in result:
            raise RunError(
                f"the limits of the menu of {k} treatments could not be kept: no prices come near to them"
            )
    return result


def _rests(
    problem: MenuProblem, bounded: BoundedMenu, sums: SegmentSums, everyone: Everyone
) -> bool:
    """Return whether the limits bind nobody: they are kept at prices 0."""
    if (
        bounded.menu.prices.any()
        or bounded.charge
        or bounded.spent(sums, problem) > bounded.budget + 1e-12 * abs(bounded.budget)
    ):
        return False
    lower, upper = everyone.masses(bounded, float(sums.weight.sum()))
    slack = 1e-6 * everyone.lightest
    return bool((sums.weight >= lower - slack).all() and (sums.weight <= upper + slack).all())


def _wanted(
    problem: MenuProblem, bounded: BoundedMenu, sums: SegmentSums, everyone: Everyone
) -> float:
    """Return the share of units that is enough to look at: many times those that have to change their treatment."""
    return _MARGIN * max(bounded.shortfall(sums, problem), 1e-4) + _LEAST_NEAR / everyone.units


def _reach(bounded: BoundedMenu, sample: Sample, share: float) -> float:
    if share >= 1:
        return np.inf
    return float(np.quantile(sample.gaps(bounded), share))


def _drift(problem: MenuProblem, old: BoundedMenu, new: BoundedMenu, sample: Sample) -> float:
    """Return by how much new prices can change what a unit prefers."""
    shift = np.broadcast_to(new.menu.prices - old.menu.prices, (len(sample.theta), old.size))
    if new.charge != old.charge:
        shift = shift + (new.charge - old.charge) * profit_matrix(
            sample.theta, old.spending(problem)
        )
    return float(np.ptp(shift, axis=1).max())


def _settled(
    problem: MenuProblem, bounded: BoundedMenu, sums: SegmentSums, near: Near, everyone: Everyone
) -> SettledMenu | None:
    """Assign the near units into the room that all others leave, None where they leave too little or too much."""
    others = sums - SegmentSums.of(near.taken, near.theta, near.weights, bounded.size)
    lower, upper = everyone.masses(bounded, float(sums.weight.sum()))
    outside = others.units * everyone.heaviest if everyone.even else np.maximum(others.weight, 0.0)
    slack = everyone.heaviest * (1e-6 if everyone.even else 1.0)
    low, high, inside = np.maximum(lower - outside, 0.0), upper - outside, float(near.weights.sum())
    if (high < -slack).any() or low.sum() > inside + slack or high.sum() < inside - slack:
        return None
    if not len(near.weights):
        return SettledMenu(bounded, sums, bounded, near, near.taken)
    limit = bounded.budget * float(sums.weight.sum()) - float(
        (others.rows * bounded.spending(problem)).sum()
    )
    solved = _assigned(
        problem, bounded, near.theta, near.weights, low, np.maximum(high, 0.0), limit
    )
    if solved is None:
        return None
    inner = SegmentSums.of(solved.assignment, near.theta, near.weights, bounded.size)
    masses = outside + inner.weight
    if (masses > upper + slack).any() or (masses < lower - slack).any():
        return None
    final = bounded.at(problem, solved.prices, solved.charge)
    return SettledMenu(final, others + inner, bounded, near, solved.assignment)
