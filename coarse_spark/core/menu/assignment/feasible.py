"""Limits that cannot be kept by units that may not get everything, and the nearest that can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linprog

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.menu.assignment.assign import AssignmentProblem

_LEAST = 1e-9  # of the population


def unmet_limits(posed: AssignmentProblem, allowed: BoolArray, names: Sequence[str]) -> str | None:
    """Return why no assignment of units to what they may get keeps share limits and budget.

    The limits that cannot be kept are named with the nearest that can. None if all can be kept, and
    where units may get none of the treatments, which is no matter of limits.

    Parameters
    ----------
    posed : what is spent on units, and the limits; profits do not matter.
    allowed : (n, K) which treatments units may get, or groups of them that may get the same.
    names : of the treatments.
    """
    if not allowed.any(axis=1).all():
        return None
    total = float(posed.weights.sum())
    patterns, group = np.unique(allowed, axis=0, return_inverse=True)
    masses = np.bincount(group.ravel(), posed.weights).astype(np.float64) / total
    unmet = _unmet_shares(patterns, masses, posed.lower / total, posed.upper / total, names)
    if unmet:
        return f"the share limits cannot be kept: {'; '.join(unmet)}"
    if posed.spending is None:
        return None
    # the least that can be spent, where what units may not get costs more than anything
    penalty = 1e3 * (float(np.ptp(posed.spending)) or 1.0) * ~allowed
    cheapest = replace(posed, profits=-posed.spending - penalty, spending=None).split()
    if cheapest is None or -cheapest.value <= posed.budget + 1e-12 * abs(posed.budget):
        return None
    return (
        f"budget {posed.budget / total:g} is too small on the menu of {', '.join(names)}: "
        f"units may not get what costs less; "
        f"the nearest feasible budget is {-cheapest.value / total:.6g}"
    )


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
