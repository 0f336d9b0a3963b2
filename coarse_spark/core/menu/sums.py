"""The record that a pass over any number of units comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class WeightedSums:
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
        return cls(weight, np.column_stack(sums), np.bincount(group, minlength=count).astype(np.intp))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.weight + other.weight, self.theta + other.theta, self.units + other.units)

    def to_array(self) -> FloatArray:
        """Return one flat array; arrays of batches add up."""
        return np.column_stack([self.weight, self.units, self.theta]).ravel()

    @classmethod
    def from_array(cls, values: FloatArray, coefficients: int) -> Self:
        """Return the sums that ``to_array`` flattened."""
        table = values.reshape(-1, coefficients + 2)
        return cls(table[:, 0], table[:, 2:], table[:, 1].astype(np.intp))
