"""Additive sufficient statistics of a least-squares fit.

Sums of any split of the rows add up to the sums of all rows, so a fit over any number of batches,
processes or machines equals the fit on one. With one set of sums a fold, every leave-folds-out
model comes from the sums alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from coarse_spark.core.additive import Additive, Flat
from coarse_spark.core.arrays import FloatArray

_BLOCK_ROWS = 4096  # rows of the wide design held at once


@dataclass(frozen=True)
class GramStatistics(Additive):
    """Sums over rows with design a (q,), outcome y and weight w, or several outcomes (k,).

    Parameters
    ----------
    gram : Σ w a aᵀ (q, q).
    moment : Σ w a y (q,), of several outcomes (q, k).
    square : Σ w y², of several outcomes (k,).
    weight, square_weight : Σ w and Σ w².
    rows : number of rows.
    """

    gram: FloatArray
    moment: FloatArray
    square: float | FloatArray
    weight: float
    square_weight: float
    rows: float

    @staticmethod
    def of(design: FloatArray, outcome: FloatArray, weight: FloatArray) -> GramStatistics:
        """Return the sums over rows.

        Parameters
        ----------
        design : (n, q).
        outcome : (n,) or (n, k).
        weight : (n,).
        """
        return GramStatistics._of_scaled(design * np.sqrt(weight)[:, None], outcome, weight)

    @staticmethod
    def _of_scaled(design: FloatArray, outcome: FloatArray, weight: FloatArray) -> GramStatistics:
        """Return the sums over rows of a design that is times the roots of the weights already."""
        target = (outcome.T * np.sqrt(weight)).T
        return GramStatistics(
            design.T @ design,
            design.T @ target,
            (target * target).sum(axis=0),
            float(weight.sum()),
            float(weight @ weight),
            float(len(outcome)),
        )

    def of_outcome(self, number: int | slice) -> GramStatistics:
        """Return the sums of one of several outcomes, or of a slice of them."""
        return replace(self, moment=self.moment[:, number], square=np.asarray(self.square)[number])

    @property
    def effective_rows(self) -> float:
        """Rows of equal weight that are worth as much: (Σw)² / Σw² (Kish 1965)."""
        return self.weight**2 / self.square_weight if self.square_weight > 0 else 0.0

    @property
    def rows_a_weight(self) -> float:
        """The factor that makes weights count as rows: noise counts once, whatever their unit."""
        return self.effective_rows / self.weight

    def scaled(self, factor: float) -> GramStatistics:
        """Return the sums with all weights times ``factor``."""
        w = factor
        return GramStatistics(
            self.gram * w,
            self.moment * w,
            self.square * w,
            self.weight * w,
            self.square_weight * w * w,
            self.rows,
        )

    def loss(self, coefficients: FloatArray) -> float:
        """Return Σ w (y − a·coefficients)² over the rows."""
        return float(
            self.square - 2 * coefficients @ self.moment + coefficients @ self.gram @ coefficients
        )

    def flat(self) -> Flat:
        """Return the flat form, with the upper triangle of the symmetric gram alone."""
        upper = self.gram[np.triu_indices(len(self.moment))]
        rest = super().flat()
        values = np.concatenate([upper, rest.numbers[self.gram.size :]])
        return Flat(values, rest.shapes)

    @classmethod
    def of_flat(cls, flat: Flat) -> GramStatistics:
        """Return the sums of a flat form."""
        size = flat.shapes[0][0]
        gram, held = np.zeros((size, size)), size * (size + 1) // 2
        gram[np.triu_indices(size)] = flat.numbers[:held]
        gram += np.triu(gram, 1).T
        return super().of_flat(
            Flat(np.concatenate([gram.ravel(), flat.numbers[held:]]), flat.shapes)
        )


def response_gram(
    features: FloatArray,
    z: FloatArray,
    nuisance: FloatArray,
    outcome: FloatArray,
    weight: FloatArray,
) -> GramStatistics:
    """Return the sums of the design [z₀ f, …, z_{p−1} f, nuisance].

    It is built a block of rows at a time.

    Parameters
    ----------
    features : f(x) (n, m).
    z : whitened basis (n, p).
    nuisance : (n, s) columns that only the baseline has, s may be 0.
    outcome : (n,) or (n, k).
    weight : (n,).
    """
    n, m = features.shape
    p = z.shape[1]
    held = np.empty((min(n, _BLOCK_ROWS), m * p + nuisance.shape[1]))  # memory of every block

    def block(start: int) -> GramStatistics:
        rows = slice(start, start + _BLOCK_ROWS)
        design = held[: len(weight[rows])]
        products = design[:, : m * p].reshape(-1, p, m)  # a view
        np.multiply(z[rows, :, None], features[rows, None, :], out=products)
        design[:, m * p :] = nuisance[rows]
        design *= np.sqrt(weight[rows])[:, None]
        return GramStatistics._of_scaled(design, outcome[rows], weight[rows])

    return reduce(add, map(block, range(0, max(n, 1), _BLOCK_ROWS)))


def total(
    parts: Mapping[int, GramStatistics], without: set[int] | frozenset[int] = frozenset()
) -> GramStatistics:
    """Return the sum of all parts but those whose key is in ``without``."""
    return reduce(add, [parts[key] for key in sorted(parts) if key not in without])
