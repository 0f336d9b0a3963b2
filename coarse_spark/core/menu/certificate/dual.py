"""The prices of a relaxation, searched on weighted units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import row_blocks

_ITERATIONS, _PRICE_ROUNDS = 150, 4
# of the last direction that is kept: damps the zigzag of subgradients (Camerini, Fratta & Maffioli,
# 1975)
_DEFLECTION = 0.7
_PATIENCE = 10  # iterations without progress before the step is halved


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What the search for prices of one menu knows of it, on weighted units.

    Attributes
    ----------
    profits : (m, J') under all rows of ``Rounding.psi``.
    mass : (m,) shares of the weight.
    best : (m,) what each unit gets from the menu, after prices.
    k : number of treatments.
    required : rows of candidates that every menu holds.
    aim : what the menu is worth more than ``best``: what prices of limits pay back.
    tolerance : of the bound, per unit weight, at which the search may stop.
    """

    profits: FloatArray
    mass: FloatArray
    best: FloatArray
    k: int
    required: IntArray
    aim: float
    tolerance: float

    def corrections(self, prices: FloatArray | float, constants: FloatArray | float) -> FloatArray:
        """Search the corrections (m,) whose u = best − corrections give the lowest bound.

        Parameters
        ----------
        prices : (J',) λ of the candidates.
        constants : (J',) added to every candidate's gain.
        """
        # relative to the best, so that single precision resolves the small differences that matter
        relative = (self.profits - prices - self.best[:, None]).astype(np.float32)
        mass, light = self.mass, self.mass.astype(np.float32)
        least = float(mass @ relative.max(axis=1).astype(np.float64))
        u = np.full(len(mass), -max(least, self.tolerance))
        lowest, lowest_u = np.inf, u
        direction, step, stale = np.zeros(len(u)), 1.0, 0
        for _ in range(_ITERATIONS):
            gains = _gains(relative, light, u) + constants
            ranked = gains.copy()
            ranked[self.required] = np.inf
            top = np.argpartition(-ranked, self.k - 1)[: self.k]
            bound = float(mass @ u + gains[top].sum())
            if bound < lowest - 1e-3 * self.tolerance:
                lowest, lowest_u, stale = bound, u, 0
            else:
                stale += 1
            if lowest <= self.aim + self.tolerance:
                break
            if stale >= _PATIENCE:
                step, stale, u, direction = step / 2, 0, lowest_u, np.zeros(len(u))
                continue
            above = (relative[:, top] > u[:, None]).sum(axis=1)
            direction = 1.0 - above + _DEFLECTION * direction
            norm = float(mass @ direction**2)
            if norm == 0:
                break
            # Polyak's step: what the menu earns is the aim
            u = u - step * (bound - self.aim) / norm * direction
        return -lowest_u

    def limit_prices(
        self, lower: FloatArray, upper: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Search prices of candidates and corrections in turn.

        A candidate that serves a share s of the units within its limits earns at most
        Σ w (π_ij − λ_j − u_i)⁺ + λ_j s, and λ_j s is at most λ_j⁺ upper − λ_j⁻ lower: its constant.

        Parameters
        ----------
        lower, upper : (J',) shares of the candidates.

        Returns
        -------
        prices λ (J',), constants (J',) and corrections (m,).
        """
        none = np.zeros(len(lower))
        if (lower <= 0).all() and (upper >= 1).all():
            return none, none, self.corrections(0.0, 0.0)
        over = float(self.mass @ (self.profits.max(axis=1) - self.best))
        u = self.best - max(over, self.tolerance)
        lowest, found = np.inf, (none, none, np.zeros(len(self.mass)))
        for _ in range(_PRICE_ROUNDS):
            prices = _clearing_prices(self.profits - u[:, None], self.mass, lower, upper)
            constants = np.maximum(prices, 0) * upper + np.minimum(prices, 0) * lower
            corrections = self.corrections(prices, constants)
            u = self.best - corrections
            relative = (self.profits - prices - self.best[:, None]).astype(np.float32)
            gains = _gains(relative, self.mass.astype(np.float32), -corrections) + constants
            bound = float(self.mass @ u) + largest_sum(gains, self.k, self.required)
            if bound < lowest:
                lowest, found = bound, (prices, constants, corrections)
        return found


def largest_sum(gains: FloatArray, k: int, required: IntArray) -> float:
    """Return the sum of the k largest gains, those of ``required`` among them."""
    others = np.delete(gains, required)
    free = min(max(k - len(required), 0), len(others))
    return float(gains[required].sum() + np.sort(others)[len(others) - free :].sum())


def _clearing_prices(
    surplus: FloatArray, mass: FloatArray, lower: FloatArray, upper: FloatArray
) -> FloatArray:
    """Return the price (J',) at which the units with surplus (m, J') above it weigh upper.

    Or lower, where they weigh less at price 0.
    """
    prices = np.zeros(surplus.shape[1])
    for column in range(surplus.shape[1]):
        order = np.argsort(-surplus[:, column])
        heavy, last = np.cumsum(mass[order]), len(order) - 1
        first = [int(np.searchsorted(heavy, share[column] - 1e-12)) for share in (upper, lower)]
        most, least = (surplus[order[min(place, last)], column] for place in first)
        if upper[column] < 1 - 1e-12 and most > 0:
            prices[column] = most
        elif lower[column] > 1e-12 and least < 0:
            prices[column] = least
    return prices


def _gains(
    profits: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], u: FloatArray
) -> FloatArray:
    total = np.zeros(profits.shape[1])
    level = u.astype(np.float32)
    for block in row_blocks(*profits.shape):
        total += weights[block] @ np.maximum(profits[block], level[block, None])
    return total - float(weights.astype(np.float64) @ level.astype(np.float64))
