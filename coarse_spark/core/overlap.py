"""How well the treatments of a learned design overlap, and whether its weights balance features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.stats import norm

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.encoding.features import is_numeric, numeric_values
from coarse_spark.text import shown

_BINS, _LEVELS = 10, 20  # of a numeric feature, and of a categorical one: the most frequent
_LEAST_ROWS = 100.0  # a bin with fewer effective rows tells little
_CHANCE = 0.01  # that a balanced design has any imbalance at all


@dataclass(frozen=True)
class Overlap:
    """How well the treatments overlap on a set of rows.

    Parameters
    ----------
    rows : number of rows looked at.
    smallest_eigenvalue : least predicted eigenvalue of the whitened treatments' covariance given x,
        before lifting; 1 is full randomization.
    lifted_share : share of the rows whose eigenvalues had to be lifted: there responses rest on
        extrapolation.
    effective_rows : effective sample size of the weights zᵀΛ(x)⁻¹z that debiasing gives to
        residuals.
    imbalance : largest deviation of the mean of Λ(x)⁻¹zzᵀ from the identity among all rows and
        those of every bin of every feature, less what chance can do: 0 for a calibrated design.
    imbalanced : the bin where it is; empty where it is among all rows, or nowhere.
    """

    rows: int
    smallest_eigenvalue: float
    lifted_share: float
    effective_rows: float
    imbalance: float
    imbalanced: str = ""

    @staticmethod
    def of(
        X: pd.DataFrame,
        smallest: FloatArray,
        z: FloatArray,
        solved: FloatArray,
        weight: FloatArray,
        floor: float,
        *,
        private: bool = False,
    ) -> Overlap:
        """Return the overlap of rows.

        Parameters
        ----------
        X : (n, ·) features.
        smallest : (n,) eigenvalue before lifting.
        z : (n, p) whitened basis columns.
        solved : (n, p) Λ(x)⁻¹z.
        weight : (n,).
        floor : what smaller eigenvalues are lifted to.
        private : show hashes of levels.
        """
        share = weight / weight.sum()
        leverage = np.einsum("ni,ni->n", solved, z) * share
        size = z.shape[1]
        # the first column of Λ⁻¹zzᵀ is Λ⁻¹z
        deviation = (solved[:, :, None] * z[:, None, :] - np.eye(size)).reshape(len(z), -1)
        imbalance, place = _imbalance(X, deviation, weight, private=private)
        return Overlap(
            rows=len(z),
            smallest_eigenvalue=float(smallest.min()),
            lifted_share=float(share @ (smallest < floor)),
            effective_rows=float(leverage.sum() ** 2 / (leverage**2).sum()),
            imbalance=imbalance,
            imbalanced=place,
        )

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
        if self.imbalance > 0.1:
            where = f" where {self.imbalanced}" if self.imbalanced else ""
            found.append(
                f"the learned design is off by at least {self.imbalance:.2f} after weighting"
                f"{where} (0 is balanced)"
            )
        return found


def _imbalance(
    X: pd.DataFrame, deviation: FloatArray, weight: FloatArray, *, private: bool
) -> tuple[float, str]:
    """The largest mean deviation (n, c) in a group of rows beyond chance, and the group's name."""
    names, members = [""], [np.arange(len(X))]
    for name, rows in _bins(X, private=private):
        if weight[rows].sum() ** 2 >= _LEAST_ROWS * (weight[rows] @ weight[rows]):
            names.append(name)
            members.append(rows)
    starts = np.cumsum([0, *map(len, members)])
    content = weight[np.concatenate(members)], np.concatenate(members), starts
    groups = csr_array(content, shape=(len(members), len(X)))
    total = groups.sum(axis=1)[:, None]
    mean = groups @ deviation / total
    counted = groups.power(2)
    square = counted @ deviation**2 - 2 * mean * (counted @ deviation)
    square += mean**2 * counted.sum(axis=1)[:, None]
    error = np.sqrt(np.maximum(square, 0.0)) / total
    critical = norm.isf(_CHANCE / (2 * mean.size))
    beyond = np.abs(mean) - critical * error
    worst = int(beyond.max(axis=1).argmax())
    found = float(beyond[worst].max())
    return (found, names[worst]) if found > 0 else (0.0, "")


def _bins(X: pd.DataFrame, *, private: bool) -> Iterator[tuple[str, IntArray]]:
    """Names and rows of the bins of every feature: tenths of numbers, levels, what is missing."""
    for name, values in X.items():
        missing = values.isna().to_numpy()
        if missing.any():
            yield f"{name} is missing", np.flatnonzero(missing)
        if not is_numeric(values):
            for level in values.value_counts().index[:_LEVELS]:
                yield (
                    f"{name} is {shown(level, private=private)}",
                    np.flatnonzero((values == level).to_numpy()),
                )
            continue
        if missing.all():
            continue
        raw = numeric_values(values)
        edges = np.unique(
            np.quantile(raw[~missing], np.arange(_BINS + 1) / _BINS, method="inverted_cdf")
        )
        place = np.searchsorted(edges[1:-1], raw, side="left")
        for number in range(len(edges) - 1 if len(edges) > 1 else 0):
            low, high = edges[number : number + 2]
            yield (
                f"{name} is from {low:.4g} to {high:.4g}",
                np.flatnonzero((place == number) & ~missing),
            )
