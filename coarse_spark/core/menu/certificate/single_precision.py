"""Profits of many units under many treatments in single precision, and how far off they may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import FloatArray

SingleArray = npt.NDArray[np.float32]

SINGLE = 2.0**-24  # relative error of one operation


@dataclass(frozen=True, eq=False)
class SinglePrecision:
    """Profit rows of treatments as differences from a middle one.

    Their coordinates are orthogonal over the treatments, so that large terms do not cancel.

    Attributes
    ----------
    middle : (p + 1,) profit row ψ of the middle.
    axes : (p + 1, q) orthonormal columns.
    rows : (J', q + 1) treatments along the axes, and −1.
    reach : (q + 1,) largest entry of each column.
    """

    middle: FloatArray
    axes: FloatArray
    rows: SingleArray
    reach: FloatArray

    @staticmethod
    def of(psi: FloatArray) -> SinglePrecision:
        """Turn the profit rows ψ (J', p + 1)."""
        middle = psi.mean(axis=0)
        left, sizes, right = np.linalg.svd(psi - middle, full_matrices=False)
        rows = np.column_stack([left * sizes, np.full(len(psi), -1.0)])
        return SinglePrecision(middle, right.T, rows.astype(np.float32), np.abs(rows).max(axis=0))

    def along(self, theta: FloatArray, reference: FloatArray) -> tuple[SingleArray, FloatArray]:
        """Return units (n, p) along the axes as (q + 1, n), and how far off profits may be (n,).

        ``rows @`` these units is their profit (J', n) less ``reference`` (n,).
        """
        along = np.vstack(
            [
                self.axes[:-1].T @ theta.T + self.axes[-1][:, None],
                reference - theta @ self.middle[:-1] - self.middle[-1],
            ]
        )
        # products and sums of q + 1 terms each round once, as do both factors (Higham, 2002, 3.1)
        doubt = (len(along) + 3) * SINGLE * (self.reach @ np.abs(along))
        return along.astype(np.float32), np.asarray(doubt)
