"""The exact menu over ordered candidates, where profits rise and then fall along one dimension.

What such a unit takes is one of the two treatments next to its own peak, so the profit of a menu is
a sum over pairs of neighbouring treatments, and the best menu of every size is a longest path with
that many stops: a dynamic program in O(K J²).
"""

from __future__ import annotations

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray

_MAX_WORK = 3e9  # units x pairs of candidates


def is_unimodal(profits: FloatArray) -> bool:
    """Return whether every row of profits (m, J) rises, up to rounding, until it falls for good."""
    change = np.diff(profits, axis=1)
    noise = 1e-12 * np.abs(profits).max(initial=0.0)
    fallen = np.logical_or.accumulate(change < -noise, axis=1)
    return not bool((fallen & (change > noise)).any())


def is_small_enough(units: int, candidates: int) -> bool:
    """Return whether the program's table of neighbouring pairs can be filled in seconds."""
    return units * candidates**2 <= _MAX_WORK


def exact_menus(
    profits: FloatArray, weights: FloatArray, largest: int, required: IntArray
) -> dict[int, IntArray]:
    """Return the columns of the best menu of every size up to ``largest``.

    Parameters
    ----------
    profits : (m, J) of units under candidates in the order of their dimension; every row rises and
        then falls (see ``is_unimodal``).
    weights : (m,).
    largest : size.
    required : columns that every menu holds; smaller sizes are left out.
    """
    count = profits.shape[1]
    peak = profits.argmax(axis=1)
    order = np.argsort(peak, kind="stable")
    profits, weights, peak = profits[order], weights[order], peak[order]
    # first[b]: units whose peak lies before candidate b
    first = np.searchsorted(peak, np.arange(count + 1))
    running = np.vstack([np.zeros(count), np.cumsum(weights[:, None] * profits, axis=0)])
    columns = np.arange(count)
    # Σ over units that peak before b, of their profit under b
    before = running[first[:-1], columns]
    after = running[-1] - before
    between = np.full((count, count), -np.inf)
    for a in range(count - 1):
        start = first[a]
        rows = slice(start, None)
        better = np.maximum(profits[rows, a + 1 :], profits[rows, a, None]) * weights[rows, None]
        summed = np.vstack([np.zeros(better.shape[1]), np.cumsum(better, axis=0)])
        ends = first[a + 1 : count] - start
        between[a, a + 1 :] = summed[ends, np.arange(better.shape[1])]
    # no pair of neighbours may leave a required candidate out
    for column in required:
        between[:column, column + 1 :] = -np.inf
        before[column + 1 :] = -np.inf
        after[:column] = -np.inf
    value, back = before, []
    menus: dict[int, IntArray] = {}
    for size in range(1, min(largest, count) + 1):
        if size > 1:
            paths = value[:, None] + between
            back.append(paths.argmax(axis=0))
            value = paths.max(axis=0)
        last = int((value + after).argmax())
        if np.isfinite(value[last] + after[last]):
            menu = [last]
            for step in reversed(back):
                menu.append(int(step[menu[-1]]))
            menus[size] = np.array(menu[::-1], dtype=np.intp)
    return menus
