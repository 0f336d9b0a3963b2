"""Limits that cannot be kept by units that may not get everything, and the nearest that can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.menu.assignment.assign import AssignmentProblem
from coarse_spark.core.menu.problem.limits import BUDGET, Limit

if TYPE_CHECKING:
    from coarse_spark.core.menu.problem.problem import MenuProblem

_LEAST = 1e-9  # of the population


@dataclass(frozen=True, eq=False)
class NamedTotals:
    """Limits on what a menu comes to, and what messages need to tell of them.

    Attributes
    ----------
    limits : the limits.
    control : (L,) what all units come to under the control, per unit weight.
    """

    limits: tuple[Limit, ...]
    control: FloatArray

    @staticmethod
    def of(problem: MenuProblem, limits: Sequence[Limit], mean: FloatArray) -> NamedTotals:
        """Name limits for units whose mean (θ, 1) is ``mean`` (p + 1,)."""
        control = [float(problem.amounts_of_control(limit) @ mean) for limit in limits]
        return NamedTotals(tuple(limits), np.array(control))

    def __str__(self) -> str:
        return " and ".join(map(str, self.limits))

    def refusal(self, least: LeastCounts | None, where: str, why: str = "") -> str:
        """Return that limits cannot be kept, with the nearest of each that can.

        Parameters
        ----------
        least : that can count against them on a menu; None where nothing is known.
        where : on what menus.
        why : a sentence that says it, by default that no assignment ``where`` keeps them.
        """
        several, money = len(self.limits) > 1, self.limits[0].name == BUDGET
        what = "cannot be kept together" if several else "cannot be kept"
        told = why or f"{self} {'is too small' if money and not several else what} {where}"
        alone = [] if least is None else self._nearest(least.alone)
        if least is None or not alone:
            return told
        if not several:
            return f"{told}; the nearest feasible {'budget' if money else 'value'} is {alone[0][1]}"
        how, values = "beside the others", self._nearest(least.beside)
        if not values:
            how, values = "alone", alone
            told += "" if why else ", nor without any one of them"
        each = ", or ".join(f"of {name} {value}" for name, value in values)
        return f"{told}; the nearest feasible value {how} is {each}"

    def _nearest(self, counts: Sequence[float | None]) -> list[tuple[str, str]]:
        """Return names of limits, and what counts (L,) keep of each by itself.

        A multiple of nothing has none.
        """
        told = zip(self.limits, counts, self.control.tolist(), strict=True)
        return [
            (limit.name, limit.nearest(count, control))
            for limit, count, control in told
            if count is not None and (control or not limit.relative_to)
        ]


def least_counts(posed: AssignmentProblem, allowed: BoolArray | None = None) -> LeastCounts | None:
    """Return how little can count against limits on totals, None where all can be kept.

    Parameters
    ----------
    posed : what counts, and the limits; profits do not matter.
    allowed : (n, K) which treatments units may get, default all.
    """
    total, places = float(posed.weights.sum()), range(len(posed.most))
    alone, beside = [], list[float | None]()
    for place in places:
        counted = posed.counted[place]
        profits = -counted
        if allowed is not None:  # what units may not get counts more than anything
            profits = profits - 1e3 * (float(np.ptp(counted)) or 1.0) * ~allowed
        others = [other for other in places if other != place]
        none = replace(posed, profits=profits, counted=posed.counted[:0], most=posed.most[:0])
        cheapest = none.split()
        if cheapest is None:
            return None
        alone.append(-cheapest.value / total)
        found: float | None = alone[-1]
        if others:
            part = replace(none, counted=posed.counted[others], most=posed.most[others])
            solved = part.programme.solved()
            found = None
            if solved is not None and (allowed is None or solved.mass[~allowed].sum() <= 0):
                found = float((solved.mass * counted).sum()) / total
        limit = posed.most[place] / total
        size = float(np.abs(counted).max(initial=0.0)) if others else abs(limit)
        if found is not None and found <= limit + 1e-9 * bool(others) * size + 1e-12 * size:
            return None
        beside.append(found)
    return LeastCounts(tuple(alone), tuple(beside))


@dataclass(frozen=True)
class LeastCounts:
    """The least (L,) that can count against each limit, per unit weight.

    Attributes
    ----------
    alone : while no other limit on totals is kept.
    beside : while the others are kept; None where they cannot be kept.
    """

    alone: tuple[float, ...]
    beside: tuple[float | None, ...]


def unmet_limits(
    posed: AssignmentProblem, allowed: BoolArray, names: Sequence[str], totals: NamedTotals
) -> str | None:
    """Return why no assignment of units to what they may get keeps limits on shares and totals.

    The limits that cannot be kept are named with the nearest that can. None if all can be kept, and
    where units may get none of the treatments, which is no matter of limits.

    Parameters
    ----------
    posed : what is spent on units, and the limits; profits do not matter.
    allowed : (n, K) which treatments units may get, or groups of them that may get the same.
    names : of the treatments.
    totals : the limits on totals.
    """
    if not allowed.any(axis=1).all():
        return None
    total = float(posed.weights.sum())
    patterns, group = np.unique(allowed, axis=0, return_inverse=True)
    masses = np.bincount(group.ravel(), posed.weights).astype(np.float64) / total
    unmet = _unmet_shares(patterns, masses, posed.lower / total, posed.upper / total, names)
    if unmet:
        return f"the share limits cannot be kept: {'; '.join(unmet)}"
    least = least_counts(posed, allowed) if totals.limits else None
    if least is None:
        return None
    where = f"on the menu of {', '.join(names)}"
    return totals.refusal(least, where)


def _unmet_shares(
    allowed: BoolArray,
    masses: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    names: Sequence[str],
) -> list[str]:
    """Return a sentence for each share limit that groups of units cannot keep.

    Parameters
    ----------
    allowed : (g, K) treatments that a group may get.
    masses : (g,) shares of the groups.
    """
    groups, k = allowed.shape
    # the least that minima have to be lowered and maxima raised by, over all transports from groups
    # to what they may get
    cost = np.concatenate([np.zeros(groups * k), np.ones(2 * k)])
    totals = np.hstack([np.kron(np.eye(groups), np.ones(k)), np.zeros((groups, 2 * k))])
    shares, slack, none = np.tile(np.eye(k), groups), np.eye(k), np.zeros((k, k))
    limits = np.vstack([np.hstack([-shares, -slack, none]), np.hstack([shares, none, -slack])])
    bounds = [(0.0, None if may else 0.0) for may in allowed.ravel()] + [(0.0, None)] * (2 * k)
    right = np.concatenate([-lower, upper])
    solved = linprog(cost, limits, right, totals, masses, bounds=bounds, method="highs")
    low, high = solved.x[groups * k : groups * k + k], solved.x[groups * k + k :]
    may_get = masses @ allowed
    return [
        f"{name} has a minimum share of {lower[place]:g}, "
        f"and {may_get[place]:.6g} of the units may get it; "
        f"the nearest feasible minimum is {lower[place] - low[place]:.6g}"
        for place, name in enumerate(names)
        if low[place] > _LEAST
    ] + [
        f"{name} has a maximum share of {upper[place]:g}, and more units have to get it "
        f"because they may not get others; "
        f"the nearest feasible maximum is {upper[place] + high[place]:.6g}"
        for place, name in enumerate(names)
        if high[place] > _LEAST
    ]
