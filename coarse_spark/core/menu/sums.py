"""The record that a pass over any number of units comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class WeightedSums(Additive):
    """Sums over groups of units; those of disjoint sets of units add up.

    Attributes
    ----------
    weight : (g,) Σ w. theta : (g, p) Σ w θ. units : (g,) how many units they are.
    """

    weight: FloatArray
    theta: FloatArray
    units: IntArray

    @classmethod
    def of(cls, group: IntArray, theta: FloatArray, weights: FloatArray, count: int) -> Self:
        """Add up units with group numbers (n,) below ``count``, coefficients (n, p) and weights (n,)."""
        sums = [np.bincount(group, weights * column, minlength=count) for column in theta.T]
        weight = np.asarray(np.bincount(group, weights, minlength=count), dtype=np.float64)
        return cls(
            weight, np.column_stack(sums), np.bincount(group, minlength=count).astype(np.intp)
        )
