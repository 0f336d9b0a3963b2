"""Units in memory with their weights, the sums over segments of them, and who prefers what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import row_blocks


@dataclass(frozen=True, eq=False)
class WeightedUnits:
    """Units, or means of many, that stand for a population.

    Attributes
    ----------
    theta : (m, p) response coefficients, those of rules included.
    weights : (m,).
    behind : (m,) how many units of the population each stands for.
    """

    theta: FloatArray
    weights: FloatArray
    behind: IntArray

    @staticmethod
    def of(theta: FloatArray, weights: FloatArray) -> WeightedUnits:
        """Return units that stand for themselves."""
        return WeightedUnits(theta, weights, np.ones(len(weights), dtype=np.intp))

    @property
    def total(self) -> float:
        """Σ w."""
        return float(self.weights.sum())

    @property
    def mean(self) -> WeightedUnits:
        """One unit with the mean response: what a single treatment for all is worth."""
        theta = self.weights @ self.theta / self.total
        return WeightedUnits(theta[None, :], np.ones(1), np.ones(1, dtype=np.intp))

    def __len__(self) -> int:
        return len(self.weights)


@dataclass(frozen=True, eq=False)
class SegmentSums(Additive):
    """Sums over groups of units: segments of a menu, or cells of a sketch.

    Attributes
    ----------
    weight : (g,) Σ w.
    theta : (g, p) Σ w θ.
    units : (g,) how many units with weight they are.
    """

    weight: FloatArray
    theta: FloatArray
    units: IntArray

    @staticmethod
    def of(group: IntArray, theta: FloatArray, weights: FloatArray, count: int) -> SegmentSums:
        """Add up units (n, p) with weights (n,) by their group (n,), a number below ``count``."""
        sums = [np.bincount(group, weights * column, minlength=count) for column in theta.T]
        weight = np.asarray(np.bincount(group, weights, minlength=count), dtype=np.float64)
        units = np.bincount(group, weights > 0, minlength=count).astype(np.intp)
        return SegmentSums(weight, np.column_stack(sums), units)

    @property
    def rows(self) -> FloatArray:
        """(g, p + 1) Σ w (θ, 1) of every group."""
        return np.column_stack([self.theta, self.weight])

    @property
    def shares(self) -> FloatArray:
        """(g,) share of the weight."""
        return np.asarray(self.weight / self.weight.sum())

    @property
    def means(self) -> WeightedUnits:
        """The groups that have weight as weighted units: the mean response of each."""
        filled = self.weight > 0
        weight = self.weight[filled]
        return WeightedUnits(self.theta[filled] / weight[:, None], weight, self.units[filled])

    def ordered(self, rows: IntArray) -> SegmentSums:
        """Return the sums with groups in another order."""
        return SegmentSums(self.weight[rows], self.theta[rows], self.units[rows])

    def value(self, psi: FloatArray) -> float:
        """Return the mean profit per unit weight when group k gets the treatment of ``psi[k]``."""
        return float((self.rows * psi).sum() / self.weight.sum())

    def value_of_all(self, psi: FloatArray) -> float:
        """Return the mean profit per unit weight when everybody gets the treatment of ``psi``."""
        return float(psi @ self.rows.sum(axis=0) / self.weight.sum())


def content_order(theta: FloatArray, weights: FloatArray) -> IntArray:
    """Return the order of units (n, p) with weights (n,) by what they are, not where they stand.

    A tie-break, the last coefficient, decides among units that are alike without it.
    """
    return np.asarray(np.lexsort([*theta.T[::-1], weights]))


def preferred(theta: FloatArray, psi: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the treatment (n,) that units (n, p) prefer, and by how much (n,) to the next best.

    It is the first maximum of profit less prices, ``psi`` (K, p + 1) being the priced rows.
    """
    net = psi[:, :-1] @ theta.T + psi[:, -1, None]
    taken, best = first_maximum(net)
    if len(net) == 1:
        return taken, np.full(len(theta), np.inf)
    net[taken, np.arange(len(theta))] = -np.inf
    return taken, best - net.max(axis=0)


def assign(theta: FloatArray, psi: FloatArray) -> IntArray:
    """Return the treatment (n,) that units (n, p) prefer; ``psi`` as in ``preferred``."""
    chosen = np.empty(len(theta), dtype=np.intp)
    for block in row_blocks(len(theta), len(psi)):
        chosen[block] = first_maximum(psi[:, :-1] @ theta[block].T + psi[:, -1, None])[0]
    return chosen


def first_maximum(profits: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return place and value of the first maximum in every column of (K, n).

    Where K is small this is much faster than argmax.
    """
    best, place = profits[0].copy(), np.zeros(profits.shape[1], dtype=np.int16)
    for position in range(1, len(profits)):
        better = profits[position] > best
        np.copyto(place, position, where=better)
        np.maximum(best, profits[position], out=best)
    return place.astype(np.intp), best


def segment_sums(
    theta: FloatArray, weights: FloatArray, menus: Mapping[int, FloatArray]
) -> dict[int, SegmentSums]:
    """Add up units (n, p) with weights (n,) by the treatment they prefer.

    Parameters
    ----------
    menus : priced rows (K, p + 1) of a menu, by any key; one sweep over blocks of rows serves all.
    """
    psi = np.vstack(list(menus.values()))
    ends = list(pairwise(np.cumsum([0, *map(len, menus.values())])))
    total = np.zeros((len(psi), theta.shape[1] + 1))
    units = np.zeros(len(psi), dtype=np.intp)
    for block in row_blocks(len(theta), len(psi)):
        profits = psi[:, :-1] @ theta[block].T + psi[:, -1, None]
        taken = np.empty_like(profits)
        for start, end in ends:
            best = profits[start:end].max(axis=0)
            np.equal(profits[start:end], best, out=taken[start:end])
        if taken.sum() > len(menus) * profits.shape[1]:
            # equal profits: the first treatment takes the unit
            for start, end in ends:
                first = taken[start:end].argmax(axis=0)
                np.equal(first, np.arange(end - start)[:, None], out=taken[start:end])
        units += (taken @ (weights[block] > 0)).astype(np.intp)
        total += taken @ np.column_stack([theta[block] * weights[block, None], weights[block]])
    return {
        k: SegmentSums(total[start:end, -1], total[start:end, :-1], units[start:end])
        for k, (start, end) in zip(menus, ends, strict=True)
    }


@dataclass(frozen=True, eq=False)
class KnownUnits:
    """Numbers of units that are recognized by what they are, not by where they stand.

    Attributes
    ----------
    keys : (n,) hashes of the units' coefficients, ascending.
    values : (n,) a number of each. Units alike take those of their key in turn.
    """

    keys: IntArray
    values: IntArray

    @staticmethod
    def of(theta: FloatArray, values: IntArray) -> KnownUnits:
        """Remember units (n, p) and a number from 0 (n,) of each."""
        keys = _content_keys(theta)
        order = np.argsort(keys, kind="stable")
        return KnownUnits(keys[order], np.asarray(values, dtype=np.intp)[order])

    @staticmethod
    def exceptions(theta: FloatArray, values: IntArray, usual: IntArray) -> KnownUnits:
        """Remember the units whose number is not the usual one (n,), and all units like them."""
        keys = _content_keys(theta)
        chosen = np.isin(keys, keys[values != usual])
        return KnownUnits.of(theta[chosen], values[chosen])

    def look_up(self, theta: FloatArray) -> IntArray:
        """Return the number (n,) of every unit (n, p), −1 for one that is not known."""
        if not len(self.keys):
            return np.full(len(theta), -1, dtype=np.intp)
        keys = _content_keys(theta)
        first = np.searchsorted(self.keys, keys, side="left")
        count = np.searchsorted(self.keys, keys, side="right") - first
        # the how manieth of its kind a unit is, in the order of rows
        number = pd.Series(keys).groupby(keys, sort=False).cumcount().to_numpy()
        place = first + number % np.maximum(count, 1)
        found = self.values[np.minimum(place, len(self.values) - 1)]
        return np.asarray(np.where(count > 0, found, -1), dtype=np.intp)


def _content_keys(theta: FloatArray) -> IntArray:
    # adding 0 makes −0 and 0 alike
    keys = pd.util.hash_pandas_object(pd.DataFrame(theta + 0.0), index=False)
    return keys.to_numpy().view(np.int64)
