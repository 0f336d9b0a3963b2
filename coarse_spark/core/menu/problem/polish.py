"""Local maximization of many smooth profits at once, between the candidates of a treatment space.

One routine serves both a population of units (each row its own response) and the segments of a menu
(each row the mean response of a segment), because a segment's profit has the same form as a unit's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.treatments import TreatmentSpace

# of the spacing: truncation and rounding errors of the derivatives are both negligible there
DIFFERENCE = 0.05
_NEWTON_STEPS = 12
_SWEEPS = 60
_EDGE_HALVINGS = 45  # of a spacing, to find the edge of an exclusion
_HALVINGS = 34
_POLLS = 5 * _HALVINGS  # more than a row needs: it may move a few times at every length of its step
# of fewer, the values at many points are one call: it costs more than its numbers
_STACKED_ROWS = 2_000
# of the spacing: a Newton step this small leaves an error of the order of its square
_PRECISION = 1e-7


@dataclass(frozen=True, eq=False)
class Objective:
    """What is maximized, and where.

    Attributes
    ----------
    value : (treatments (r, d), rows (r,)) -> objective (r,) of those rows.
    allowed : (treatments (r, d)) -> (r,) whether they may be offered.
    bounds : (d, 2).
    spacing : (d,) how far a row may move; 0 for a dimension that is not searched.
    noise : (m,) rounding error of every row's objective.
    """

    value: Callable[[FloatArray, IntArray], FloatArray]
    allowed: Callable[[FloatArray], BoolArray]
    bounds: FloatArray
    spacing: FloatArray
    noise: FloatArray


def polish(
    objective: Objective,
    start: FloatArray,
    derivatives: tuple[FloatArray, FloatArray] | None = None,
    *,
    precise: bool = True,
) -> tuple[FloatArray, FloatArray]:
    """Maximize every row's objective from ``start``, at most one spacing away.

    Newton steps on a quadratic model, maximized over a shrinking box, locate smooth maxima to
    rounding; rows that do not come to rest (kinks and jumps of the profit) finish with a compass
    search. No row ends below its start by more than rounding.

    Parameters
    ----------
    start : (m, d); rows outside the bounds stay where they are.
    derivatives : gradient (m, d) and Hessian (m, d, d) at the start, where they are known.
    precise : whether the place of the maximum matters to 1e-9 of the spacing, or only its value,
        which is known a step earlier.

    Returns
    -------
    treatments (m, d) and objective (m,).
    """
    rows, bounds, spacing = np.arange(len(start)), objective.bounds, objective.spacing
    point, best = start.copy(), objective.value(start, rows)
    free = np.flatnonzero(spacing > 0)
    inside = ((start >= bounds[:, 0]) & (start <= bounds[:, 1])).all(axis=1)
    if not free.size or not inside.any():
        return point, best
    lower = np.maximum(bounds[:, 0], start - spacing)
    upper = np.minimum(bounds[:, 1], start + spacing)
    radius = np.ones(len(start))
    active = rows[inside]
    for number in range(_NEWTON_STEPS):
        if number == 0 and derivatives is not None:
            gradient, curvature = derivatives[0][active], derivatives[1][active]
        else:
            gradient, curvature = central_differences(
                objective.value, point[active], active, bounds, spacing
            )
        reach = radius[active, None] * spacing
        low = np.maximum(lower[active], point[active] - reach) - point[active]
        high = np.minimum(upper[active], point[active] + reach) - point[active]
        step = _maximize_model(gradient, curvature, low, high, free)
        trial = np.clip(point[active] + step, lower[active], upper[active])
        reached = objective.value(trial, active)
        good = (reached >= best[active] - objective.noise[active]) & objective.allowed(trial)
        expected = np.einsum("ra,ra->r", gradient, step) + 0.5 * np.einsum(
            "ra,rab,rb->r", step, curvature, step
        )
        # where values no longer tell points apart the derivatives still do: take their step and end
        resting = good & (
            (np.abs(step) <= _PRECISION * spacing).all(axis=1)
            | (np.abs(expected) <= objective.noise[active])
        )
        if not precise:
            # what the model foretells is the maximum only where the step was free to reach it
            short = (np.abs(step) < (1 - 1e-9) * reach)[:, free].all(axis=1)
            free_step = (radius[active] == 1.0) | short
            surprise = np.abs(reached - best[active] - expected)
            resting |= good & free_step & (surprise <= 1e-9 * expected + objective.noise[active])
        moved = active[good]
        point[moved], best[moved] = trial[good], np.maximum(reached[good], best[moved])
        radius[active[~good]] *= 0.25
        active = active[~resting]
        if not active.size:
            return point, best
    _compass(objective, point, best, active, lower, upper, free)
    return point, best


def central_differences(
    value: Callable[[FloatArray, IntArray], FloatArray],
    point: FloatArray,
    rows: IntArray,
    bounds: FloatArray,
    spacing: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return gradient (r, d, …) and Hessian (r, d, d, …) of ``value`` (r, …).

    They come from five values along every dimension, moved inside the bounds at the edge. The
    gradient is exact for profits up to the fourth degree in every dimension, such as a linear
    margin times a cubic response: a maximum does not depend on the spacing, so that Newton's steps
    end there.
    """
    width = DIFFERENCE * spacing
    free = np.flatnonzero(spacing > 0)
    center = np.clip(point, bounds[:, 0] + 2 * width, bounds[:, 1] - 2 * width)
    center[:, spacing == 0] = point[:, spacing == 0]

    def moved(base: FloatArray, *moves: tuple[int, int]) -> FloatArray:
        result = base.copy()
        for axis, steps in moves:
            result[:, axis] += steps * width[axis]
        return result

    points = []
    for position, a in enumerate(free):
        # only the own coordinate moves inside: derivatives along the other dimensions belong to the
        # point itself
        base = point.copy()
        base[:, a] = center[:, a]
        points += [moved(base, (a, steps)) for steps in (-2, -1, 0, 1, 2)]
        for b in free[:position]:
            points += [moved(center, (a, i), (b, j)) for i in (1, -1) for j in (1, -1)]
    values = _at_all(value, np.stack(points), rows)
    rest = values.shape[2:]
    gradient = np.zeros((*point.shape, *rest))
    curvature = np.zeros((*point.shape, point.shape[1], *rest))
    left = iter(values)
    for position, a in enumerate(free):
        h = width[a]
        two_behind, behind, here, ahead, two_ahead = islice(left, 5)
        first = (two_behind - 8 * behind + 8 * ahead - two_ahead) / (12 * h)
        second = (16 * (behind + ahead) - two_behind - two_ahead - 30 * here) / (12 * h**2)
        third = (two_ahead - 2 * ahead + 2 * behind - two_behind) / (2 * h**3)
        fourth = (two_behind + two_ahead - 4 * (behind + ahead) + 6 * here) / h**4
        offset = (point[:, a] - center[:, a]).reshape(-1, *[1] * len(rest))
        gradient[:, a] = first + offset * (second + offset * (third / 2 + offset * fourth / 6))
        curvature[:, a, a] = second + offset * (third + offset * fourth / 2)
        for b in free[:position]:
            both, ahead_behind, behind_ahead, neither = islice(left, 4)
            cross = both - ahead_behind - behind_ahead + neither
            curvature[:, a, b] = curvature[:, b, a] = cross / (4 * h * width[b])
    return gradient, curvature


def _maximize_model(
    gradient: FloatArray, curvature: FloatArray, low: FloatArray, high: FloatArray, free: IntArray
) -> FloatArray:
    """Maximize gradient·s + s'·curvature·s / 2 over low <= s <= high, row by row.

    It goes through one coordinate at a time.
    """
    step = np.zeros_like(gradient)
    for _ in range(_SWEEPS if free.size > 1 else 1):
        largest = 0.0
        for a in free:
            bend = curvature[:, a, a]
            slope = gradient[:, a].copy()
            for b in free:
                if b != a:
                    slope += curvature[:, a, b] * step[:, b]
            concave = bend < 0
            fresh = np.clip(slope / np.where(concave, -bend, 1.0), low[:, a], high[:, a])
            if not concave.all():
                gain_low = low[:, a] * (slope + bend * low[:, a] / 2)
                gain_high = high[:, a] * (slope + bend * high[:, a] / 2)
                edge = np.where(gain_high > gain_low, high[:, a], low[:, a])
                # a flat or convex coordinate without gain at either edge stays
                edge = np.where(np.maximum(gain_low, gain_high) > 0, edge, 0.0)
                fresh = np.where(concave, fresh, edge)
            scale = np.maximum(high[:, a] - low[:, a], 1e-300)
            largest = max(largest, float(np.max(np.abs(fresh - step[:, a]) / scale, initial=0.0)))
            step[:, a] = fresh
        if largest <= 1e-12:
            break
    return step


def _compass(
    objective: Objective,
    point: FloatArray,
    best: FloatArray,
    rows: IntArray,
    lower: FloatArray,
    upper: FloatArray,
    free: IntArray,
) -> None:
    """Compass search in place.

    Takes the best step along a dimension or diagonal, and halves the step where none helps. The
    diagonals let rows slide along the edge of an exclusion that runs across dimensions.
    """
    moves = np.zeros((3**free.size - 1, len(objective.spacing)))
    moves[:, free] = list(product((0.0, 1.0, -1.0), repeat=free.size))[1:]
    scale = np.full(len(rows), 0.5)
    for _ in range(_POLLS):
        steps = scale[:, None] * moves[:, None, :] * objective.spacing
        trials = np.clip(point[rows] + steps, lower[rows], upper[rows])
        allowed = _at_all(objective.allowed, trials)
        reached = np.where(allowed, _at_all(objective.value, trials, rows), -np.inf)
        chosen = reached.argmax(axis=0), np.arange(len(rows))
        better = reached[chosen] > best[rows] + objective.noise[rows]
        point[rows[better]], best[rows[better]] = trials[chosen][better], reached[chosen][better]
        scale = np.where(better, scale, scale / 2)
        keep = scale > 0.5**_HALVINGS
        rows, scale = rows[keep], scale[keep]
        if not rows.size:
            return


def _at_all(
    function: Callable[..., npt.NDArray[Any]], points: FloatArray, *rows: IntArray
) -> npt.NDArray[Any]:
    """Return a function of points (r, d) and their rows (r,) at all ``points`` (s, r, d).

    The result is (s, r, …).
    """
    if points.shape[1] > _STACKED_ROWS:
        return np.stack([function(part, *rows) for part in points])
    values = function(
        points.reshape(-1, points.shape[2]), *(np.tile(row, len(points)) for row in rows)
    )
    return values.reshape(*points.shape[:2], *values.shape[1:])


def last_allowed(
    space: TreatmentSpace,
    allowed: Callable[[FloatArray], BoolArray],
    further: Sequence[FloatArray] = (),
) -> FloatArray:
    """Return the last allowed treatments (e, d) before others that are not, on continuous axes.

    Parameters
    ----------
    allowed : (treatments (n, d)) -> (n,) whether they are.
    further : encoded treatments (d,) to start from besides the space's candidates.
    """
    edges = [np.empty((0, len(space.dimensions)))]
    low, high = space.bounds.T
    start = space.candidates
    start = start[((start >= low) & (start <= high)).all(axis=1)]
    start = np.vstack([start, *further])
    start = start[allowed(start)]
    for axis in np.flatnonzero(space.continuous):
        for sign in (1.0, -1.0):
            far = start.copy()
            step = sign * space.spacing[axis]
            far[:, axis] = np.clip(far[:, axis] + step, *space.bounds[axis])
            cut = ~allowed(far)
            near, far = start[cut].copy(), far[cut]
            for _ in range(_EDGE_HALVINGS):
                middle = (near + far) / 2
                open_ = allowed(middle)[:, None]
                near, far = np.where(open_, middle, near), np.where(open_, far, middle)
            edges.append(near)
    return np.unique(np.vstack(edges), axis=0)
