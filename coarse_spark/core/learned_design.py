"""A design learned from data: Λ(x) = E[φφᵀ | x].

It is for treatments that were not randomized, or not with known shares. In the whitened basis every
product z_j z_k is regressed on the encoded features, with penalties by empirical Bayes; the
predicted matrix is lifted to a smallest eigenvalue, which bounds how much a single row can weigh.
The report of overlap says how often.

Sums over rows are all that the regressions need: with one set of sums a fold, the design of every
fold is learned from the rows outside it, over any number of batches or machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.ridge.gram import GramStatistics, response_gram, total
from coarse_spark.core.learners.ridge.penalties import empirical_bayes
from coarse_spark.core.learners.settings import LearnerSettings

# least eigenvalue of Λ(x) in the whitened basis: no residual counts more than twenty times
FLOOR = 0.05


@dataclass(frozen=True)
class Overlap:
    """How well the treatments overlap on a set of rows.

    Parameters
    ----------
    rows : number of rows looked at.
    smallest_eigenvalue : least predicted eigenvalue of Λ(x) in the whitened basis, before lifting;
        1 is full randomization.
    lifted_share : share of the rows whose eigenvalues had to be lifted: there responses rest on
        extrapolation.
    effective_rows : effective sample size of the weights zᵀΛ(x)⁻¹z that debiasing gives to
        residuals.
    imbalance : largest deviation of the mean of Λ(x)⁻¹zzᵀ from the identity: 0 for a perfectly
        calibrated design.
    """

    rows: int
    smallest_eigenvalue: float
    lifted_share: float
    effective_rows: float
    imbalance: float

    def problems(self) -> list[str]:
        """Return a sentence for each sign of poor overlap."""
        found = []
        if self.lifted_share > 0.01:
            found.append(
                f"{self.lifted_share:.1%} of the units hardly vary in treatment: their responses "
                "are extrapolated"
            )
        if self.effective_rows < 0.2 * self.rows:
            found.append(
                f"debiasing rests on {self.effective_rows:.0f} effective rows of {self.rows}"
            )
        if self.imbalance > 0.2:
            found.append(
                f"the learned design is off by {self.imbalance:.2f} after weighting (0 is balanced)"
            )
        return found


@dataclass(frozen=True)
class DesignPreparation:
    """What a learned design fixes before it is fitted.

    Attributes
    ----------
    encoder : of the features.
    whitening : of the basis columns.
    """

    encoder: FeatureEncoder
    whitening: Whitening

    @staticmethod
    def fit(
        X: pd.DataFrame,
        T: FloatArray,
        *,
        basis: Basis,
        weight: FloatArray,
        settings: LearnerSettings | None = None,
    ) -> DesignPreparation:
        """Fit on all rows, or on a sample of them.

        Parameters
        ----------
        X : (n, ·) features.
        T : (n, d) encoded treatments.
        basis : of the treatments.
        weight : (n,).
        settings : of which those of the encoding count.

        Raises
        ------
        InvalidInputError : treatments that do not identify the basis, or unusable features.
        """
        settings = settings or LearnerSettings()
        encoder = FeatureEncoder.fit(X, weight, **settings.encoding)
        if len(encoder.main_columns) + len(encoder.pairs) <= settings.max_columns:
            encoder = encoder.with_products(encoder.pairs)
        return DesignPreparation(encoder, Whitening.fit(basis, T, weight))

    def sums(self, X: pd.DataFrame, phi: FloatArray, weight: FloatArray) -> GramStatistics:
        """Return the sums of a batch: the Gram matrix of [features, products z_j z_k, j ≤ k].

        Parameters
        ----------
        X : (n, ·) features.
        phi : (n, p) basis columns.
        weight : (n,).
        """
        z = self.whitening(phi)
        upper = np.triu_indices(z.shape[1])
        products = z[:, upper[0]] * z[:, upper[1]]
        one = np.ones((len(z), 1))
        return response_gram(self.encoder.transform(X), one, products, np.zeros(len(z)), weight)

    def solve(self, sums: GramStatistics) -> LearnedDesign:
        """Return the design that summed batches amount to."""
        sums = sums.scaled(
            sums.effective_rows / sums.weight
        )  # the noise of a row must count once, whatever the weights' unit
        m = len(self.encoder.columns)
        one_block = np.zeros(m, dtype=np.int64)
        rows = [np.eye(1, m)[0]]  # z₀z₀ = 1
        for column in range(m + 1, len(sums.moment)):
            target = GramStatistics(
                sums.gram[:m, :m],
                sums.gram[:m, column],
                float(sums.gram[column, column]),
                sums.weight,
                sums.square_weight,
                sums.rows,
            )
            rows.append(empirical_bayes(target, self.encoder.groups, one_block).coefficients)
        return LearnedDesign(self.encoder, self.whitening, np.array(rows))


@dataclass(frozen=True)
class LearnedDesign:
    """Predicts Λ(x) from features.

    Parameters
    ----------
    encoder, whitening : of features and basis columns.
    coefficients : (p (p + 1) / 2, m) of the products z_j z_k, j ≤ k, row by row of the upper
        triangle.
    """

    encoder: FeatureEncoder
    whitening: Whitening
    coefficients: FloatArray

    def representer(self, X: pd.DataFrame, phi: FloatArray) -> FloatArray:
        """Return Λ(x)⁻¹ φ (n, p) of rows; see ``design.representer``.

        Parameters
        ----------
        X : (n, ·) features.
        phi : (n, p) basis columns of the treatments given.
        """
        return self._whitened(X, phi)[2] @ self.whitening.matrix

    def _whitened(
        self, X: pd.DataFrame, phi: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Smallest eigenvalue of Λ (n,) before lifting, z (n, p) and Λ⁻¹z (n, p), whitened."""
        values, vectors = self._eigen(X)
        z = self.whitening(phi)
        within = np.einsum("nij,ni->nj", vectors, z) / np.maximum(values, FLOOR)
        return values[:, 0], z, np.asarray(np.einsum("nij,nj->ni", vectors, within))

    def _eigen(self, X: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        predicted = self.encoder.transform(X) @ self.coefficients.T
        size = len(self.whitening.matrix)
        matrices = np.empty((len(predicted), size, size))
        upper = np.triu_indices(size)
        matrices[:, upper[0], upper[1]] = predicted
        matrices[:, upper[1], upper[0]] = predicted
        values, vectors = np.linalg.eigh(matrices)
        return values, vectors


@dataclass(frozen=True)
class CrossFittedDesign:
    """One learned design a fold, each learned from the rows of the other folds."""

    designs: Mapping[int, LearnedDesign]

    @staticmethod
    def solve(
        preparation: DesignPreparation, sums: Mapping[int, GramStatistics]
    ) -> CrossFittedDesign:
        """Return the designs that the summed batches of every fold (at least two) amount to."""
        return CrossFittedDesign(
            {fold: preparation.solve(total(sums, without={fold})) for fold in sums}
        )

    def representer(self, X: pd.DataFrame, phi: FloatArray, fold: IntArray) -> FloatArray:
        """Return Λ(x)⁻¹ φ (n, p) of rows, each by the design that did not see its fold.

        Parameters
        ----------
        X : (n, ·) features.
        phi : (n, p) basis columns of the treatments given.
        fold : (n,).
        """
        result = np.empty(phi.shape)
        for number in np.unique(fold):
            inside = fold == number
            result[inside] = self.designs[int(number)].representer(X[inside], phi[inside])
        return result

    def overlap(
        self, X: pd.DataFrame, phi: FloatArray, fold: IntArray, weight: FloatArray
    ) -> Overlap:
        """Return the overlap of rows, each by the design that did not see its fold.

        Parameters
        ----------
        X : (n, ·) features.
        phi : (n, p) basis columns of the treatments given.
        fold : (n,).
        weight : (n,).
        """
        places = [np.flatnonzero(fold == number) for number in np.unique(fold)]
        parts = [
            self.designs[int(fold[rows[0]])]._whitened(X.iloc[rows], phi[rows]) for rows in places
        ]
        smallest, z, solved = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _overlap(smallest, z, solved, weight[np.concatenate(places)])


def _overlap(
    smallest: FloatArray, z: FloatArray, solved: FloatArray, weight: FloatArray
) -> Overlap:
    share = weight / weight.sum()
    leverage = np.einsum("ni,ni->n", solved, z) * share
    return Overlap(
        rows=len(z),
        smallest_eigenvalue=float(smallest.min()),
        lifted_share=float(share @ (smallest < FLOOR)),
        effective_rows=float(leverage.sum() ** 2 / (leverage**2).sum()),
        imbalance=float(np.abs((solved * share[:, None]).T @ z - np.eye(z.shape[1])).max()),
    )
