"""Assignment of units to given treatments under several limits at once: a linear programme.

The dual has a price λ_k a treatment and a price μ_l a limit on what all units come to: unit i takes
argmax_k π_ik − Σ_l μ_l c_ikl − λ_k. HiGHS solves the programme of the few units near indifference,
between what they nearly prefer, at prices that every fourth unit tells, into the room that all
others leave; what its prices would tempt units to comes in, until there is nothing: the result is
the optimum of all units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, eye_array, hstack, vstack

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.assignment.transport import whole_limits

_DIRECT = 2_000  # cells of units x treatments that are solved at once
_THINNED = 4
_NEAR = 4  # times the deviation of a sum over the thinned units: cells near indifference
_ROUNDS = 40
# of the range of profits over that of what counts: a limit that costs more cannot be kept
_DEAREST = 1e6
_EXACT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
_SHORT = 1e-6  # units of which too much counts, within what HiGHS resolves
_ROUNDED, _MOST_ROUNDED, _NODES = 16, 700, 500  # units that are made whole together


@dataclass(frozen=True, eq=False)
class Solution:
    """What a programme found.

    Attributes
    ----------
    mass : (n, K) of every unit on every treatment.
    prices : (K,) λ.
    limit_prices : (L,) μ.
    """

    mass: FloatArray
    prices: FloatArray
    limit_prices: FloatArray


@dataclass(frozen=True, eq=False)
class Programme:
    """Units, what they earn and count by treatment, and limits.

    Attributes
    ----------
    profits : (n, K) per unit weight.
    counted : (L, n, K) per unit weight.
    weights : (n,).
    lower, upper : (K,) masses.
    most : (L,) of Σ w c in all.
    """

    profits: FloatArray
    counted: FloatArray
    weights: FloatArray
    lower: FloatArray
    upper: FloatArray
    most: FloatArray

    def solved(self) -> Solution | None:
        """Return the best assignment of units that may be split, None where limits contradict."""
        n, k = self.profits.shape
        if n * k <= _DIRECT:
            everything = np.ones((n, k), dtype=bool)
            return self._restricted(everything, np.zeros(n, dtype=np.intp))
        start = self._thinned().solved()
        if start is None:
            start = Solution(np.empty((0, k)), np.zeros(k), np.zeros(len(self.most)))
        return self._from(start.prices, start.limit_prices)

    def whole(self) -> tuple[IntArray, Solution] | None:
        """Return the treatments (n,) of whole units that keep the limits, and the split optimum.

        Equally weighted units keep ``whole_limits`` of shares exactly, of unequally weighted ones a
        share may be off by the weight of one; other limits are kept exactly. None where they cannot
        be kept.
        """
        lower, upper = whole_limits(self.weights, self.lower, self.upper)
        whole = replace(self, lower=lower, upper=np.maximum(lower, upper))
        found = whole.solved()
        if found is None:
            return None
        taken = whole._rounded(found)
        return None if taken is None else (taken, found)

    def shortage(self) -> tuple[float, FloatArray]:
        """Return by how much limits are broken at least, and what each has to do with it (L,).

        The first is the sum over limits, in shares of what counts most; infinite where not even
        shares can be kept. The second add up to 1.
        """
        if self.profits.size > _DIRECT:
            return self._thinned().shortage()
        n, k = self.profits.shape
        none = replace(self, profits=np.zeros((n, k)))
        cells = _Cells.of(np.ones((n, k), dtype=bool), np.arange(n))
        found, _, sizes = none._optimum(cells, self.lower, self.upper, self.most, 1.0)
        if found.status != 0:
            return np.inf, np.full(len(self.most), 1 / len(self.most))
        parts = np.maximum(-found.ineqlin.marginals[-len(sizes) :], 0.0)
        total = float(parts.sum())
        even = np.full(len(sizes), 1 / len(sizes))
        return float(found.x[n * k :].sum()) / n, parts / total if total > 0 else even

    def net(self, prices: FloatArray, limit_prices: FloatArray) -> FloatArray:
        """Return what units compare (n, K): profits less prices."""
        return np.asarray(self.profits - prices - np.tensordot(limit_prices, self.counted, axes=1))

    def _thinned(self) -> Programme:
        rows = slice(_THINNED // 2, None, _THINNED)
        weights = self.weights[rows]
        part = float(weights.sum() / self.weights.sum())
        return Programme(
            self.profits[rows],
            self.counted[:, rows],
            weights,
            self.lower * part,
            self.upper * part,
            self.most * part,
        )

    def _from(self, prices: FloatArray, limit_prices: FloatArray) -> Solution | None:
        n, open_ = len(self.profits), np.zeros(self.profits.shape, dtype=bool)
        near, rows = round(_NEAR * (_THINNED * n) ** 0.5), np.arange(n)
        noise = 1e-9 * max(float(np.ptp(self.profits)), 1e-300)
        for _ in range(_ROUNDS):
            net = self.net(prices, limit_prices)
            best = net.argmax(axis=1)
            loss = net[rows, best, None] - net
            loss[rows, best] = np.inf
            number = min(near, loss.size)
            open_.flat[np.argpartition(loss, number - 1, axis=None)[:number]] = True
            open_[rows, best] = True
            found = self._restricted(open_, best)
            if found is None:
                if open_.all():
                    return None
                near *= 4
                continue
            net = self.net(found.prices, found.limit_prices)
            tempted = net > np.where(open_, net, -np.inf).max(axis=1)[:, None] + noise
            if not tempted.any():
                return found
            open_ |= tempted
            prices, limit_prices = found.prices, found.limit_prices
        return None

    def _restricted(self, open_: BoolArray, best: IntArray) -> Solution | None:
        """Solve for units that may take what is open (n, K) to them; their ``best`` (n,) is.

        None where that leaves too little room.
        """
        core = open_.sum(axis=1) > 1
        outside, inner, k = np.flatnonzero(~core), np.flatnonzero(core), open_.shape[1]
        if not len(inner):
            inner, outside = outside[:1], outside[1:]
        lower, upper, most = self._room(outside, best[outside])
        cells = _Cells.of(open_[inner], inner)
        found, (low, high), sizes = self._optimum(cells, lower, upper, most, _DEAREST)
        split = len(cells.units)
        if found.status != 0 or found.x[split:].sum() > _SHORT:
            return None
        _, scale = self._most_and_range(inner)
        dual = np.maximum(-found.ineqlin.marginals, 0.0) * scale
        prices, ends = np.zeros(k), np.cumsum([low.sum(), high.sum()])
        prices[low] -= dual[: ends[0]]
        prices[high] += dual[ends[0] : ends[1]]
        mass = np.zeros_like(self.profits)
        mass[outside, best[outside]] = self.weights[outside]
        part = np.maximum(found.x[:split], 0.0)
        mass[cells.units, cells.treatments] = part * self.weights[cells.units]
        return Solution(mass, prices, dual[ends[1] :] / sizes)

    def _optimum(
        self, cells: _Cells, lower: FloatArray, upper: FloatArray, most: FloatArray, dearest: float
    ) -> tuple[Any, tuple[BoolArray, BoolArray], FloatArray]:
        """Solve the programme of cells; what counts too much costs ``dearest`` of the profits.

        Returns the solution of HiGHS, whose last variables are what counts too much, which lower
        and upper limits (K,) it was told, and the sizes (L,) of what counts.
        """
        units = np.unique(cells.units)
        mean = float(self.weights[units].mean()) or 1.0
        low, high = lower > 0, upper < self.weights[units].sum()
        weights = self.weights[cells.units] / mean
        shares, counted, sizes = self._rows(cells, weights)
        limits = vstack([-shares[low], shares[high], counted])
        right = np.concatenate([-lower[low] / mean, upper[high] / mean, most / (mean * sizes)])
        dear = vstack([csr_array((limits.shape[0] - len(most), len(most))), -eye_array(len(most))])
        top, scale = self._most_and_range(units)
        earned = weights * (self.profits[cells.units, cells.treatments] - top) / scale
        found = linprog(
            np.concatenate([-earned, np.full(len(most), dearest)]),
            hstack([limits, dear]),
            right,
            hstack([cells.each, csr_array((len(units), len(most)))]),
            np.ones(len(units)),
            method="highs-ds",
            options=_EXACT,
        )
        return found, (low, high), sizes

    def _most_and_range(self, units: IntArray) -> tuple[float, float]:
        """Return the largest profit of units and the range of their profits, never 0.

        Profits count from the largest: next to a small range a common level would be all that is
        seen, and of equal profits nothing else.
        """
        profits = self.profits[units]
        return float(profits.max()), max(float(np.ptp(profits)), 1e-300)

    def _room(self, rows: IntArray, taken: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return lower, upper and most that units leave which take a treatment each."""
        weights = self.weights[rows]
        decided = np.bincount(taken, weights, minlength=len(self.lower))
        counted = self.counted[:, rows, taken] @ weights
        # what is below 0 by rounding is nothing
        high = self.upper - decided
        high[np.abs(high) <= 1e-9 * self.weights.mean()] = 0.0
        return self.lower - decided, high, np.asarray(self.most - counted)

    def _rows(self, cells: _Cells, weights: FloatArray) -> tuple[csr_array, csr_array, FloatArray]:
        """Return shares (K, c) and what counts (L, c), each by its size (L,), of cells (c,)."""
        k, each = self.profits.shape[1], np.arange(len(weights))
        shares = csr_array((weights, (cells.treatments, each)), shape=(k, len(weights)))
        counted = self.counted[:, cells.units, cells.treatments]
        sizes = np.array([float(np.abs(one).max(initial=0.0)) or 1.0 for one in counted])
        return shares, csr_array(counted * weights / sizes[:, None]), sizes

    def _rounded(self, found: Solution) -> IntArray | None:
        """Return whole units' treatments (n,): few are split, who change with those near them."""
        taken: IntArray = found.mass.argmax(axis=1)
        if self._kept_by(taken):
            return taken
        net = np.sort(self.net(found.prices, found.limit_prices), axis=1)
        gap = net[:, -1] - net[:, -2] if net.shape[1] > 1 else np.zeros(len(net))
        gap[found.mass.max(axis=1) < self.weights * (1 - 1e-9)] = -1.0
        number = int((gap < 0).sum()) + _ROUNDED
        while number <= _MOST_ROUNDED:
            few = np.argsort(gap, kind="stable")[:number]
            for margin in (0.0, 3e-6):  # HiGHS takes what is over by 1e-6 as kept
                part = self._whole_part(few, taken, margin)
                if part is not None:
                    result = taken.copy()
                    result[few] = part
                    if self._kept_by(result):
                        return result
            if number >= len(taken):
                return None
            number *= 4
        return None

    def _whole_part(self, few: IntArray, taken: IntArray, margin: float) -> IntArray | None:
        outside = np.setdiff1d(np.arange(len(taken)), few)
        lower, upper, most = self._room(outside, taken[outside])
        mean, slack = float(self.weights[few].mean()), self._slack
        cells = _Cells.of(np.ones((len(few), self.profits.shape[1]), dtype=bool), few)
        weights = self.weights[cells.units] / mean
        shares, counted, sizes = self._rows(cells, weights)
        top, scale = self._most_and_range(few)
        limits = [
            LinearConstraint(cells.each, 1.0, 1.0),
            LinearConstraint(shares, (lower - slack) / mean, (upper + slack) / mean),
            LinearConstraint(counted, -np.inf, most / (mean * sizes) - margin),
        ]
        # the very optimum: a part of these units, settled again, then finds the same
        solved = milp(
            -weights * (self.profits[cells.units, cells.treatments] - top) / scale,
            integrality=np.ones(len(weights)),
            bounds=Bounds(0, 1),
            constraints=limits,
            options={"node_limit": _NODES, "mip_rel_gap": 0.0},
        )
        if solved.x is None:
            return None
        return np.asarray(solved.x.reshape(len(few), -1).argmax(axis=1))

    @property
    def _slack(self) -> float:
        """By how much a share may be off its mass."""
        heaviest = float(self.weights.max())
        even = np.ptp(self.weights) <= 1e-12 * heaviest
        return heaviest * (1e-6 if even else 1.0)

    def _kept_by(self, taken: IntArray) -> bool:
        every = np.arange(len(taken))
        masses = np.bincount(taken, self.weights, minlength=len(self.lower))
        used = np.asarray(self.counted[:, every, taken] @ self.weights)
        inside = (masses >= self.lower - self._slack) & (masses <= self.upper + self._slack)
        return bool(inside.all() and (used <= self.most + 1e-12 * np.abs(self.most)).all())


@dataclass(frozen=True, eq=False)
class _Cells:
    """What units may take: pairs of a unit and a treatment.

    Attributes
    ----------
    units, treatments : (c,) of the pairs.
    each : (m, c) sums of what each of the units takes.
    """

    units: IntArray
    treatments: IntArray
    each: csr_array

    @staticmethod
    def of(open_: BoolArray, units: IntArray) -> _Cells:
        """Return the cells that are open (m, K) to units (m,)."""
        rows, treatments = np.nonzero(open_)
        shape = len(units), len(rows)
        each = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=shape)
        return _Cells(units[rows], treatments, each)
