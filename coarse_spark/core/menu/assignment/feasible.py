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

    def nearest(self, counts: Sequence[float | None]) -> str:
        """Return the limits in words that counts (L,) keep, which are of one limit each."""
        told = zip(self.limits, counts, self.control.tolist(), strict=True)
        values = [
            (limit.name, limit.nearest(count, control))
            for limit, count, control in told
            if count is not None
        ]
        return ", or ".join(f"of {name} {value}" for name, value in values)

    def together(self, counts: Sequence[float | None], alone: Sequence[float], where: str) -> str:
        """Return that limits cannot be kept together, with the nearest value of each that can.

        Parameters
        ----------
        counts : (L,) the least that counts against each while the others are kept; None where they
            cannot be kept without it either.
        alone : (L,) the same while nothing else is kept.
        where : on what menus.
        """
        limits = " and ".join(map(str, self.limits))
        if any(count is not None for count in counts):
            return (
                f"{limits} cannot be kept together {where}; the nearest feasible value beside the "
                f"others is {self.nearest(counts)}"
            )
        return (
            f"{limits} cannot be kept together {where}, nor without any one of them; the nearest "
            f"feasible value alone is {self.nearest(alone)}"
        )


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
    if len(totals.limits) > 1:
        return totals.together(least.beside, least.alone, where)
    (limit,), (control,) = totals.limits, totals.control
    nearest = limit.nearest(least.alone[0], control)
    if limit.name == BUDGET:
        return (
            f"{limit} is too small {where}: units may not get what costs less; "
            f"the nearest feasible budget is {nearest}"
        )
    return f"{limit} cannot be kept {where}; the nearest feasible value is {nearest}"


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
