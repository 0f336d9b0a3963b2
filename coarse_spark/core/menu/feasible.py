"""Limits that eligibility does not allow to keep: which they are, and the nearest that can be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.menu.clearing import Offers
from coarse_spark.core.menu.rules import Rule, barred_units

_LEAST = 1e-9  # of the population


def eligible_treatments(theta: FloatArray, psi: FloatArray, rules: Sequence[Rule]) -> BoolArray:
    """Return (n, K) which treatments with rows ``psi`` (K, p + 1) units (n, p) may get; ``rules`` are of the last coefficients."""
    return np.column_stack(
        [~barred_units(theta, np.broadcast_to(row, (len(theta), len(row))), rules) for row in psi]
    )


def unmet_limits(
    allowed: BoolArray,
    weights: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    names: Sequence[str],
    spending: FloatArray | None = None,
    budget: float = np.inf,
) -> str | None:
    """Return why no assignment to the K treatments of a menu keeps eligibility, share limits and budget together, None if one does.

    Parameters
    ----------
    allowed : (n, K) which treatments units may get, or groups of them that may get the same. weights : (n,).
    lower, upper : (K,) shares. names : of the treatments. spending : (n, K), None without a ``budget`` per unit weight.

    The limits that cannot be kept are named with the nearest that can. Units that may get none of the treatments are no matter of
    limits: nothing is said of them.
    """
    if not allowed.any(axis=1).all():
        return None
    patterns, group = np.unique(allowed, axis=0, return_inverse=True)
    unmet = _unmet_shares(
        patterns, np.bincount(group.ravel(), weights).astype(np.float64), lower, upper, names
    )
    if unmet:
        return f"the share limits cannot be kept: {'; '.join(unmet)}"
    if spending is not None:
        total = float(weights.sum())
        barred = 1e3 * max(float(np.ptp(spending)), 1e-12) * ~allowed
        plan = Offers(
            -spending - barred, None, weights, lower * total, upper * total, np.inf
        ).plan()
        if plan is not None and -plan.value / total > budget + 1e-12 * abs(budget):
            return (
                f"budget {budget:g} is too small on the menu of {', '.join(names)}: units are not eligible for what costs less; "
                f"the nearest feasible budget is {-plan.value / total:.6g}"
            )
    return None


def _unmet_shares(
    allowed: BoolArray,
    masses: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    names: Sequence[str],
) -> list[str]:
    """Return a sentence for each share limit that groups of units, with masses (g,) and allowed treatments (g, K), cannot keep."""
    groups, k = allowed.shape
    masses = masses / masses.sum()
    # the least that minima have to be lowered and maxima raised by, over all transports from groups to what they may get
    cost = np.concatenate([np.zeros(groups * k), np.ones(2 * k)])
    everyone = np.hstack([np.kron(np.eye(groups), np.ones(k)), np.zeros((groups, 2 * k))])
    taken, slack, none = np.tile(np.eye(k), groups), np.eye(k), np.zeros((k, k))
    limits = np.vstack([np.hstack([-taken, -slack, none]), np.hstack([taken, none, -slack])])
    bounds = [(0.0, None if may else 0.0) for may in allowed.ravel()] + [(0.0, None)] * (2 * k)
    solved = linprog(
        cost,
        limits,
        np.concatenate([-lower, upper]),
        everyone,
        masses,
        bounds=bounds,
        method="highs",
    )
    low, high = solved.x[groups * k : groups * k + k], solved.x[groups * k + k :]
    may_get = masses @ allowed
    return [
        f"{name} has a minimum share of {lower[place]:g}, and {may_get[place]:.6g} of the units may get it; "
        f"the nearest feasible minimum is {lower[place] - low[place]:.6g}"
        for place, name in enumerate(names)
        if low[place] > _LEAST
    ] + [
        f"{name} has a maximum share of {upper[place]:g}, and more units have to get it because they are not eligible for others; "
        f"the nearest feasible maximum is {upper[place] + high[place]:.6g}"
        for place, name in enumerate(names)
        if high[place] > _LEAST
    ]
