"""A design learned from data: Λ(x) = E[φφᵀ | x] where treatments were not randomized, or not with known shares.

In the whitened basis every product z_j z_k is regressed on the encoded features, with penalties by empirical Bayes; the predicted
matrix is lifted to a smallest eigenvalue, which bounds how much a single row can weigh. The report of overlap says how often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.features import FeatureEncoder
from coarse_spark.core.learners.gram import GramStatistics
from coarse_spark.core.learners.penalties import empirical_bayes
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.whitening import Whitening

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Overlap:
    """How well the treatments overlap on a set of rows.

    Parameters
    ----------
    smallest_eigenvalue : least predicted eigenvalue of Λ(x) in the whitened basis, before lifting; 1 is full randomization.
    lifted_share : share of the rows whose eigenvalues had to be lifted: there responses rest on extrapolation.
    effective_rows : effective sample size of the weights zᵀΛ(x)⁻¹z that debiasing gives to residuals.
    imbalance : largest deviation of the mean of Λ(x)⁻¹zzᵀ from the identity: 0 for a perfectly calibrated design.
    """

    smallest_eigenvalue: float
    lifted_share: float
    effective_rows: float
    imbalance: float

    def problems(self, rows: int) -> list[str]:
        """Return a sentence for each sign of poor overlap among ``rows`` rows."""
        found = []
        if self.lifted_share > 0.01:
            found.append(f"{self.lifted_share:.1%} of the units hardly vary in treatment: their responses are extrapolated")
        if self.effective_rows < 0.2 * rows:
            found.append(f"debiasing rests on {self.effective_rows:.0f} effective rows of {rows}")
        if self.imbalance > 0.2:
            found.append(f"the learned design is off by {self.imbalance:.2f} after weighting (0 is balanced)")
        return found


@dataclass(frozen=True)
class LearnedDesign:
    """Predicts Λ(x) from features.

    Parameters
    ----------
    encoder, whitening : of features and basis columns.
    coefficients : (p (p + 1) / 2, m) of the products z_j z_k, j ≤ k, row by row of the upper triangle.
    floor : least eigenvalue of Λ(x) in the whitened basis.
    """

    encoder: FeatureEncoder
    whitening: Whitening
    coefficients: FloatArray
    floor: float = 0.05

    @staticmethod
    def fit(
        X: pd.DataFrame,
        T: FloatArray,
        *,
        basis: Basis,
        weight: FloatArray | None = None,
        settings: LearnerSettings | None = None,
        floor: float = 0.05,
    ) -> LearnedDesign:
        """Fit on features X (n, ·) and encoded treatments T (n, d), weights (n,).

        Raises
        ------
        InvalidInputError : treatments that do not identify the basis, or unusable features.
        """
        settings = settings or LearnerSettings()
        weight = np.ones(len(T)) if weight is None else weight * (weight.sum() / (weight @ weight))
        encoder = FeatureEncoder.fit(X, weight, knots=settings.knots, max_columns=settings.max_columns)
        if len(encoder.main_columns) + len(encoder.pairs) <= settings.max_columns:
            encoder = encoder.with_products(encoder.pairs)
        whitening = Whitening.fit(basis, T, weight)
        features, z = encoder.transform(X), whitening(basis(T))
        shared = GramStatistics.of(features, np.zeros(len(T)), weight)
        rows, one_block = [], np.zeros(features.shape[1], dtype=np.int64)
        for j, k in zip(*np.triu_indices(basis.size), strict=True):
            target = z[:, j] * z[:, k]
            statistics = GramStatistics(
                shared.gram,
                features.T @ (weight * target),
                float(weight @ target**2),
                shared.weight,
                shared.square_weight,
                shared.rows,
            )
            rows.append(
                np.eye(1, features.shape[1])[0] if k == 0 else empirical_bayes(statistics, encoder.groups, one_block).coefficients
            )
        return LearnedDesign(encoder, whitening, np.array(rows), floor)

    def moments(self, X: pd.DataFrame) -> FloatArray:
        """Return Λ(x) (n, p, p) in the raw basis columns, ready for ``design.debiased_coefficients``."""
        values, vectors = self._eigen(X)
        whitened = np.einsum("nij,nj,nkj->nik", vectors, np.maximum(values, self.floor), vectors)
        back = np.linalg.inv(self.whitening.matrix)
        return np.asarray(back @ whitened @ back.T)

    def overlap(self, X: pd.DataFrame, phi: FloatArray) -> Overlap:
        """Return the overlap of rows with features X and basis columns of the treatments given φ (n, p)."""
        values, vectors = self._eigen(X)
        z = self.whitening(phi)
        solved = np.einsum("nij,nj->ni", vectors, np.einsum("nij,ni->nj", vectors, z) / np.maximum(values, self.floor))
        leverage = np.einsum("ni,ni->n", solved, z)
        imbalance = np.abs(solved.T @ z / len(z) - np.eye(z.shape[1])).max()
        return Overlap(
            smallest_eigenvalue=float(values.min()),
            lifted_share=float((values[:, 0] < self.floor).mean()),
            effective_rows=float(leverage.sum() ** 2 / (leverage**2).sum()),
            imbalance=float(imbalance),
        )

    def _eigen(self, X: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        predicted = self.encoder.transform(X) @ self.coefficients.T
        size = len(self.whitening.matrix)
        matrices = np.empty((len(predicted), size, size))
        upper = np.triu_indices(size)
        matrices[:, upper[0], upper[1]] = predicted
        matrices[:, upper[1], upper[0]] = predicted
        values, vectors = np.linalg.eigh(matrices)
        return values, vectors

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        return {
            "encoder": self.encoder.to_dict(),
            "whitening": self.whitening.to_list(),
            "coefficients": self.coefficients.tolist(),
            "floor": self.floor,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> LearnedDesign:
        """Return the design that ``to_dict`` described."""
        return LearnedDesign(
            FeatureEncoder.from_dict(content["encoder"]),
            Whitening.restore(content["whitening"]),
            np.asarray(content["coefficients"], dtype=np.float64),
            float(content["floor"]),
        )
