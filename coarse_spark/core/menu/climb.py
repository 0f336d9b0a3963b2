"""Local maximization of many smooth profits at once, between the candidates of a treatment space.

One routine serves both a population of units (each row its own response) and the segments of a menu (each row the mean response of
a segment), because a segment's profit has the same form as a unit's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

_NEWTON_STEPS = 12
_SWEEPS = 60
_HALVINGS = 34
_DIFFERENCE = 0.05  # of the spacing: truncation and rounding errors of the derivatives are both negligible there
_PRECISION = 1e-7  # of the spacing: a Newton step this small leaves an error of the order of its square


def climb(
    value: Callable[[FloatArray, IntArray], FloatArray],
    allowed: Callable[[FloatArray, IntArray], BoolArray],
    start: FloatArray,
    bounds: FloatArray,
    spacing: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Maximize ``value`` from ``start``, at most one ``spacing`` away, inside ``bounds`` and where ``allowed``.

    Newton steps on a quadratic model, maximized over a shrinking box, locate smooth maxima to rounding; rows that do not settle
    (kinks and jumps of the profit) finish with a compass search. No row ends below its start.

    Parameters
    ----------
    value : (treatments (r, d), rows (r,)) -> objective (r,) of those rows.
    allowed : (treatments (r, d), rows (r,)) -> (r,) whether each row may stand there.
    start : (m, d); rows outside ``bounds`` stay where they are.
    bounds : (d, 2).
    spacing : (d,); 0 for a dimension that is not searched.

    Returns
    -------
    treatments (m, d) and objective (m,).
    """
    rows = np.arange(len(start))
    point, best = start.copy(), value(start, rows)
    free = np.flatnonzero(spacing > 0)
    inside = ((start >= bounds[:, 0]) & (start <= bounds[:, 1])).all(axis=1)
    if not free.size or not inside.any():
        return point, best
    lower = np.maximum(bounds[:, 0], start - spacing)
    upper = np.minimum(bounds[:, 1], start + spacing)
    radius = np.ones(len(start))
    active = rows[inside]
    for _ in range(_NEWTON_STEPS):
        gradient, curvature = _derivatives(value, point[active], active, bounds, spacing, free)
        reach = radius[active, None] * spacing
        low = np.maximum(lower[active], point[active] - reach) - point[active]
        high = np.minimum(upper[active], point[active] + reach) - point[active]
        step = _maximize_model(gradient, curvature, low, high, free)
        trial = np.clip(point[active] + step, lower[active], upper[active])
        reached = value(trial, active)
        noise = 1e-14 * np.abs(best[active])
        good = (reached >= best[active] - noise) & allowed(trial, active)
        moved = active[good]
        point[moved], best[moved] = trial[good], np.maximum(reached[good], best[moved])
        radius[active[~good]] *= 0.25
        settled = good & (np.abs(step) <= _PRECISION * np.maximum(spacing, 1e-300)).all(axis=1)
        active = active[~settled]
        if not active.size:
            return point, best
    _compass(value, allowed, point, best, active, lower, upper, spacing, free)
    return point, best


def _derivatives(
    value: Callable[[FloatArray, IntArray], FloatArray],
    point: FloatArray,
    rows: IntArray,
    bounds: FloatArray,
    spacing: FloatArray,
    free: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Return gradient (r, d) and Hessian (r, d, d) by central differences; the stencil is moved inside the box at its edges."""
    size, dimensions = point.shape
    width = _DIFFERENCE * spacing
    center = np.clip(point, bounds[:, 0] + width, bounds[:, 1] - width)
    center[:, spacing == 0] = point[:, spacing == 0]
    offset = point - center
    middle = value(center, rows)

    def at(*moves: tuple[int, int]) -> FloatArray:
        moved = center.copy()
        for axis, sign in moves:
            moved[:, axis] += sign * width[axis]
        return value(moved, rows)

    gradient, curvature = np.zeros((size, dimensions)), np.zeros((size, dimensions, dimensions))
    for position, a in enumerate(free):
        ahead, behind = at((a, 1)), at((a, -1))
        gradient[:, a] = (ahead - behind) / (2 * width[a])
        curvature[:, a, a] = (ahead - 2 * middle + behind) / width[a] ** 2
        for b in free[:position]:
            cross = at((a, 1), (b, 1)) - at((a, 1), (b, -1)) - at((a, -1), (b, 1)) + at((a, -1), (b, -1))
            curvature[:, a, b] = curvature[:, b, a] = cross / (4 * width[a] * width[b])
    return gradient + np.einsum("rab,rb->ra", curvature, offset), curvature


def _maximize_model(gradient: FloatArray, curvature: FloatArray, low: FloatArray, high: FloatArray, free: IntArray) -> FloatArray:
    """Maximize gradient·s + s'·curvature·s / 2 over low <= s <= high row by row, one coordinate at a time."""
    step = np.zeros_like(gradient)
    for _ in range(_SWEEPS if free.size > 1 else 1):
        largest = 0.0
        for a in free:
            bend = curvature[:, a, a]
            slope = gradient[:, a] + np.einsum("rb,rb->r", curvature[:, a], step) - bend * step[:, a]
            concave = bend < 0
            inner = np.clip(slope / np.where(concave, -bend, 1.0), low[:, a], high[:, a])
            gain_low = low[:, a] * (slope + bend * low[:, a] / 2)
            gain_high = high[:, a] * (slope + bend * high[:, a] / 2)
            edge = np.where(gain_high > gain_low, high[:, a], low[:, a])
            # a flat or convex coordinate without gain at either edge stays
            edge = np.where(np.maximum(gain_low, gain_high) > 0, edge, 0.0)
            fresh = np.where(concave, inner, edge)
            scale = np.maximum(high[:, a] - low[:, a], 1e-300)
            largest = max(largest, float(np.max(np.abs(fresh - step[:, a]) / scale, initial=0.0)))
            step[:, a] = fresh
        if largest <= 1e-12:
            break
    return step


def _compass(
    value: Callable[[FloatArray, IntArray], FloatArray],
    allowed: Callable[[FloatArray, IntArray], BoolArray],
    point: FloatArray,
    best: FloatArray,
    rows: IntArray,
    lower: FloatArray,
    upper: FloatArray,
    spacing: FloatArray,
    free: IntArray,
) -> None:
    """Compass search in place: try a step either way along every dimension, halve the step where nothing helps."""
    scale = np.full(len(rows), 0.5)
    for _ in range(3 * _HALVINGS):
        improved = np.zeros(len(rows), dtype=bool)
        for a in free:
            for sign in (1.0, -1.0):
                trial = point[rows].copy()
                trial[:, a] = np.clip(trial[:, a] + sign * scale * spacing[a], lower[rows, a], upper[rows, a])
                reached = value(trial, rows)
                better = (reached > best[rows]) & allowed(trial, rows)
                point[rows[better]], best[rows[better]] = trial[better], reached[better]
                improved |= better
        scale = np.where(improved, scale, scale / 2)
        keep = scale > 0.5**_HALVINGS
        rows, scale = rows[keep], scale[keep]
        if not rows.size:
            return
