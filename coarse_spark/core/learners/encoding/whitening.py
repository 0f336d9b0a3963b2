"""Whitening of the treatment basis: z = W φ(t) with z₀ = 1.

The other columns are centred, of unit variance and uncorrelated. In z the baseline (the coefficient
of z₀) is E[y | x] of the experiment and the other coefficients are effects, so that one penalty
means the same for every column, whatever the units of the treatments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.identification import Standardized, instead
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True)
class Whitening:
    """The linear map W (p, p) between the raw basis and the whitened one.

    A response φ·θ equals z·θ_z for θ = Wᵀ θ_z.
    """

    matrix: FloatArray

    @staticmethod
    def fit(basis: Basis, treatments: FloatArray, weight: FloatArray) -> Whitening:
        """Fit by a QR decomposition of the centred basis columns ``by_name``.

        Parameters
        ----------
        basis : of the treatments.
        treatments : (n, d) encoded.
        weight : (n,).

        Raises
        ------
        InvalidInputError : the observed treatments do not identify a column of the basis.
        """
        columns = Standardized.of(basis, treatments, weight)
        if reason := columns.why_unidentified:
            raise InvalidInputError(f"{reason}; use {instead(basis, treatments)}")
        return Whitening.of(columns)

    @staticmethod
    def of(columns: Standardized) -> Whitening:
        """Return the whitening of columns that their treatments identify."""
        # the first column is the constant, or with arms one minus all others
        basis, triangle, mean = columns.basis, columns.triangle, columns.mean
        triangle = triangle * np.sign(np.diag(triangle))[:, None]
        inverse = scipy.linalg.solve_triangular(
            triangle, np.diag(1 / columns.scale), trans="T", lower=False
        )
        effects = np.zeros((len(inverse), basis.size))
        effects[:, basis.by_name[1:]] = inverse
        effects -= np.outer(effects @ mean, basis.constant)
        return Whitening(np.vstack([basis.constant, effects]))

    def __call__(self, phi: FloatArray) -> FloatArray:
        """Return z (n, p) for basis rows φ (n, p)."""
        return phi @ self.matrix.T

    def raw(self, theta: FloatArray) -> FloatArray:
        """Return coefficients of φ for coefficients of z (n, p)."""
        return theta @ self.matrix

    def to_list(self) -> list[list[float]]:
        """Return plain values that ``restore`` reads back."""
        return [[float(value) for value in row] for row in self.matrix]

    @staticmethod
    def restore(content: Any) -> Whitening:
        """Return the whitening that ``to_list`` described."""
        return Whitening(np.asarray(content, dtype=np.float64))
