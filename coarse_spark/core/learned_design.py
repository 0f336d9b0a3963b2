"""A design learned from data: Λ(x) = E[φφᵀ | x].

It is for treatments that were not randomized, or not with known shares. In the whitened basis
z = (1, v) it is known by the mean e(x) = E[v | x] and the covariance V(x) of v given x, of which
every product of residuals v − e(x) is an observation. Both are learned by ridge and trees
(``encoding.conditional_mean``). V is lifted to a smallest eigenvalue, which makes Λ a valid matrix
of moments and bounds how much a single row can weigh; the report of overlap says how often.

The design of a fold is learned from the rows of the other folds alone: of these, residuals are
taken from means that did not see their validation part, and the average of these means is the
design's.
Sums over rows, two passes of them, are all that the regressions need of tables of any size; trees
are grown on a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.conditional_mean import (
    TREE_ROWS,
    ConditionalMean,
    cross_fitted,
)
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.overlap import Overlap
from coarse_spark.errors import InvalidInputError

# least eigenvalue of V(x): no residual counts more than twenty times
FLOOR = 0.05

# by the fold that a design serves: means without that fold and a part of the others, by that part
NestedMeans = Mapping[int, Mapping[int, ConditionalMean]]


@dataclass(frozen=True, eq=False)
class DesignRows:
    """Rows of an experiment, of which a design knows no outcomes.

    Attributes
    ----------
    X : (n, ·) features.
    phi : (n, p) basis columns of the treatments given.
    fold : (n,).
    part : (n,) validation part, numbered over all folds (``learners.folds``).
    weight : (n,).
    """

    X: pd.DataFrame
    phi: FloatArray
    fold: IntArray
    part: IntArray
    weight: FloatArray


@dataclass(frozen=True)
class DesignPreparation:
    """What a learned design fixes before it is fitted.

    Attributes
    ----------
    encoder : of the features.
    whitening : of the basis columns.
    parts_per_fold : validation parts that a fold is cut into; outside a fold are at least two.
    """

    encoder: FeatureEncoder
    whitening: Whitening
    parts_per_fold: int = 1

    @staticmethod
    def fit(
        X: pd.DataFrame,
        T: FloatArray,
        *,
        basis: Basis,
        weight: FloatArray,
        parts_per_fold: int = 1,
        settings: LearnerSettings | None = None,
    ) -> DesignPreparation:
        """Fit on all rows, or on a sample of them.

        Parameters
        ----------
        X : (n, ·) features.
        T : (n, d) encoded treatments.
        basis : of the treatments.
        weight : (n,).
        parts_per_fold : as in ``DesignPreparation``.
        settings : of which those of the encoding count.

        Raises
        ------
        InvalidInputError : treatments that do not identify the basis, or unusable features.
        """
        encoder = design_encoder(X, weight, settings or LearnerSettings())
        return DesignPreparation(encoder, Whitening.fit(basis, T, weight), parts_per_fold)

    def mean_sums(self, rows: DesignRows) -> dict[int, GramStatistics]:
        """Return the first pass's sums of a batch, by part; those of batches add up."""
        return self._sums(rows, self.encoder.transform(rows.X), self._moving(rows))

    def means(self, sums: Mapping[int, GramStatistics], sample: DesignRows) -> NestedMeans:
        """Return the means that the first pass amounts to.

        Parameters
        ----------
        sums : of ``mean_sums``, added up.
        sample : all rows, or a sample of them, in random order.

        Raises
        ------
        InvalidInputError : the rows outside a fold are of one part only.
        """
        folds = sorted({self._fold(part) for part in sums})
        for fold in folds:
            if len(np.unique(sample.part[sample.fold != fold][:TREE_ROWS])) < 2:
                raise InvalidInputError(
                    "design: its rows leave no two parts outside every fold, as those of few "
                    "clusters may; expected more clusters or more folds"
                )
        features, moving = self.encoder.transform(sample.X), self._moving(sample)
        return {fold: self._learned(sums, features, moving, sample, fold) for fold in folds}

    def covariance_sums(self, rows: DesignRows, means: NestedMeans) -> dict[int, GramStatistics]:
        """Return the second pass's sums of a batch, by part; those of batches add up.

        Parameters
        ----------
        rows : the batch.
        means : of the first pass.
        """
        features = self.encoder.transform(rows.X)
        return self._sums(rows, features, self._products(rows, features, means))

    def solve(
        self, means: NestedMeans, sums: Mapping[int, GramStatistics], sample: DesignRows
    ) -> CrossFittedDesign:
        """Return the designs, one a fold, that both passes amount to.

        Parameters
        ----------
        means : of the first pass.
        sums : of ``covariance_sums``, added up.
        sample : as in ``means``.
        """
        features = self.encoder.transform(sample.X)
        products = self._products(sample, features, means)
        size, designs = products.shape[1] // len(means), {}
        for position, fold in enumerate(sorted(means)):
            columns = slice(position * size, (position + 1) * size)
            own = {part: one.of_outcome(columns) for part, one in sums.items()}
            learned = self._learned(own, features, products[:, columns], sample, fold)
            designs[fold] = LearnedDesign(
                self.encoder,
                self.whitening,
                ConditionalMean.average(list(means[fold].values())),
                ConditionalMean.average(list(learned.values())),
            )
        return CrossFittedDesign(designs)

    def _fold(self, part: int) -> int:
        return part // self.parts_per_fold

    def _moving(self, rows: DesignRows) -> FloatArray:
        return self.whitening(rows.phi)[:, 1:]

    def _products(self, rows: DesignRows, features: FloatArray, means: NestedMeans) -> FloatArray:
        """Products of residuals for the design of every fold, side by side; 0 in that fold."""
        moving = self._moving(rows)
        upper = np.triu_indices(moving.shape[1])
        products = np.zeros((len(moving), len(means), len(upper[0])))
        for position, fold in enumerate(sorted(means)):
            for number, mean in means[fold].items():
                here = np.flatnonzero(rows.part == number)
                residual = moving[here] - mean(features[here], self.encoder.plain)
                products[here, position] = residual[:, upper[0]] * residual[:, upper[1]]
        return products.reshape(len(moving), -1)

    @staticmethod
    def _sums(
        rows: DesignRows, features: FloatArray, target: FloatArray
    ) -> dict[int, GramStatistics]:
        places = {int(part): np.flatnonzero(rows.part == part) for part in np.unique(rows.part)}
        return {
            part: GramStatistics.of(features[here], target[here], rows.weight[here])
            for part, here in places.items()
        }

    def _learned(
        self,
        sums: Mapping[int, GramStatistics],
        features: FloatArray,
        target: FloatArray,
        sample: DesignRows,
        fold: int,
    ) -> dict[int, ConditionalMean]:
        """Models without a fold and a part of the others, by that part."""
        rest = np.flatnonzero(sample.fold != fold)
        return cross_fitted(
            self.encoder,
            {part: one for part, one in sums.items() if self._fold(part) != fold},
            features[rest],
            target[rest],
            sample.weight[rest],
            sample.part[rest],
            seed=fold,
        )


def design_encoder(
    X: pd.DataFrame, weight: FloatArray, settings: LearnerSettings
) -> FeatureEncoder:
    """Return the encoder of features (n, ·), with products as far as these are not too many."""
    encoder = FeatureEncoder.fit(X, weight, **settings.encoding)
    if len(encoder.main_columns) + len(encoder.pairs) <= settings.max_columns:
        encoder = encoder.with_products(encoder.pairs)
    return encoder


@dataclass(frozen=True)
class LearnedDesign:
    """Predicts Λ(x) from features.

    Parameters
    ----------
    encoder, whitening : of features and basis columns.
    mean : e(x), of the p − 1 whitened columns after the constant.
    covariance : the upper triangle of V(x), row by row.
    """

    encoder: FeatureEncoder
    whitening: Whitening
    mean: ConditionalMean
    covariance: ConditionalMean

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
        """Smallest eigenvalue of V (n,) before lifting, z (n, p) and Λ⁻¹z (n, p), whitened.

        With Λ of the blocks 1, e and V + eeᵀ, Λ⁻¹z is (z₀ − e·a, a) for a = V⁻¹(v − z₀ e).
        """
        features, plain = self.encoder.transform(X), self.encoder.plain
        mean, z = self.mean(features, plain), self.whitening(phi)
        size = mean.shape[1]
        covariance, upper = np.empty((len(z), size, size)), np.triu_indices(size)
        predicted = self.covariance(features, plain)
        covariance[:, upper[0], upper[1]] = predicted
        covariance[:, upper[1], upper[0]] = predicted
        values, vectors = np.linalg.eigh(covariance)
        residual = z[:, 1:] - z[:, :1] * mean
        within = np.einsum("nij,ni->nj", vectors, residual) / np.maximum(values, FLOOR)
        solved = np.einsum("nij,nj->ni", vectors, within)
        first = z[:, 0] - np.einsum("ni,ni->n", mean, solved)
        return values[:, 0], z, np.column_stack([first, solved])


@dataclass(frozen=True)
class CrossFittedDesign:
    """One learned design a fold, each learned from the rows of the other folds."""

    designs: Mapping[int, LearnedDesign]

    @staticmethod
    def fit(preparation: DesignPreparation, rows: DesignRows) -> CrossFittedDesign:
        """Return the designs of rows in memory, in random order.

        Parameters
        ----------
        preparation : of these rows.
        rows : of the experiment.
        """
        means = preparation.means(preparation.mean_sums(rows), rows)
        return preparation.solve(means, preparation.covariance_sums(rows, means), rows)

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
        self,
        rows: DesignRows,
        *,
        names: Mapping[str, str] | None = None,
        private: bool = False,
    ) -> Overlap:
        """Return the overlap of rows, each by the design that did not see its fold.

        Parameters
        ----------
        rows : of the experiment.
        names : what features are called, where other than here.
        private : show hashes of levels.
        """
        places = [np.flatnonzero(rows.fold == number) for number in np.unique(rows.fold)]
        parts = [
            self.designs[int(rows.fold[here[0]])]._whitened(rows.X.iloc[here], rows.phi[here])
            for here in places
        ]
        smallest, z, solved = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.concatenate(places)
        return Overlap.of(
            rows.X.iloc[order].rename(columns=names or {}),
            smallest,
            z,
            solved,
            rows.weight[order],
            FLOOR,
            private=private,
        )
