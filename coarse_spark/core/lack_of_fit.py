"""Lack of fit of a treatment basis: what a saturated response explains beyond it.

Rows are put into bins, the sums of bins add up over batches, and one test reads the sums: three
functions, so that the middle one can run on many machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.text import counted

_MIN_BIN_ROWS = 5
_BINS = 30
_MOST_BINS = 100  # of many dimensions only the first are told apart: the sums stay small
_PRIOR_ROWS = 30  # weight of the common variance in the variance of a bin

# why there is no test
GO_WITH_STRATA = (
    "strata were treated differently, so that what responses miss of them would look like a misfit"
)
GO_WITH_FEATURES = (
    "treatments go with features, so that what responses miss of units would look like a misfit"
)


@dataclass(frozen=True)
class TreatmentBins:
    """A product grid over the treatment dimensions.

    Parameters
    ----------
    names : of the dimensions.
    edges : of every dimension, ascending interior edges; a value belongs to the number of edges at
        or below it.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]

    @staticmethod
    def fit(
        treatments: FloatArray, space: TreatmentSpace, max_bins: int | None = None
    ) -> TreatmentBins:
        """Return bins of treatments: one a distinct value where those are few, else quantiles.

        At least two a dimension; but where bins would be more than 100 and ``max_bins``, further
        dimensions are not split.

        Parameters
        ----------
        treatments : (n, d) encoded.
        space : the treatments.
        max_bins : about so many in all; default 30, and no more than one for ten rows.
        """
        if max_bins is None:
            max_bins = min(_BINS, len(treatments) // 10)
        most, size = max(max_bins, _MOST_BINS), 1
        each = max(2, round(max_bins ** (1 / treatments.shape[1])))
        edges = []
        for values in treatments.T:
            distinct = np.unique(values)
            if len(distinct) <= each:
                places = (distinct[:-1] + distinct[1:]) / 2
            else:
                places = np.unique(np.quantile(values, np.arange(1, each) / each))
                places = places[places > distinct[0]]
            if size * (len(places) + 1) > most:
                places = places[:0]
            size *= len(places) + 1
            edges.append(tuple(places.tolist()))
        return TreatmentBins(space.names, tuple(edges))

    @property
    def size(self) -> int:
        """B, the number of bins."""
        return int(np.prod([len(edges) + 1 for edges in self.edges]))

    def assign(self, treatments: FloatArray) -> IntArray:
        """Return the bin (n,) of encoded treatments (n, d)."""
        codes = [
            np.searchsorted(edges, values, side="right")
            for edges, values in zip(self.edges, treatments.T, strict=True)
        ]
        return np.asarray(
            np.ravel_multi_index(codes, [len(edges) + 1 for edges in self.edges]), dtype=np.int64
        )

    def describe(self, number: int) -> str:
        """Return the range of a bin in words."""
        codes = np.unravel_index(number, [len(edges) + 1 for edges in self.edges])
        words = []
        for name, edges, code in zip(self.names, self.edges, codes, strict=True):
            low = f"{edges[code - 1]:.4g} <= " if code > 0 else ""
            high = f" < {edges[code]:.4g}" if code < len(edges) else ""
            words.append(f"{low}{name}{high}")
        return ", ".join(words)


@dataclass(frozen=True)
class LackOfFit:
    """Result of the test.

    Parameters
    ----------
    table : one row a bin: bin, rows, observed and fitted mean outcome, standard error of their
        difference, and mean treatment (``mean_<name>`` of every dimension).
    statistic, degrees, p_value : of the chi-square test that the basis holds; 0, 0 and NaN where
        nothing was tested.
    untested : why not, in words; empty where there was a test, or the basis is saturated.
    """

    table: pd.DataFrame
    statistic: float
    degrees: int
    p_value: float
    untested: str = ""

    def __str__(self) -> str:
        bins = counted(len(self.table), "treatment bin")
        if self.untested:
            return f"lack of fit over {bins}: not tested, {self.untested}"
        if not self.degrees:
            return f"lack of fit over {bins}: nothing to test, the basis is saturated"
        test = f"chi-square {self.statistic:.1f} on {self.degrees}, p = {self.p_value:.3g}"
        return f"lack of fit over {bins}: {test}"


def bin_columns(
    treatments: FloatArray, phi: FloatArray, y: FloatArray, fitted: FloatArray
) -> FloatArray:
    """Return what adds up over the rows of a bin: (n, 4 + d + p).

    Columns: 1, y, fitted, (y − fitted)², the d treatment dimensions and the p basis columns.

    Parameters
    ----------
    treatments : (n, d) encoded.
    phi : (n, p) basis columns.
    y : (n,) outcomes.
    fitted : (n,) φ(t)·θ̂(x) of a model fitted on other rows.
    """
    return np.column_stack([np.ones(len(y)), y, fitted, (y - fitted) ** 2, treatments, phi])


def bin_sums(size: int, number: IntArray, columns: FloatArray) -> FloatArray:
    """Return the sums (B, 4 + d + p) of a batch by bin; arrays of batches add up.

    Parameters
    ----------
    size : B, the number of bins.
    number : (n,) bin of every row (``TreatmentBins.assign``).
    columns : (n, 4 + d + p) of ``bin_columns``.
    """
    sums = np.zeros((size, columns.shape[1]))
    np.add.at(sums, number, columns)
    return sums


def bin_scatter(size: int, number: IntArray, columns: FloatArray, cluster: IntArray) -> FloatArray:
    """Return Σ_g v_g v_gᵀ (2 B, 2 B) over whole clusters; those of batches of clusters add up.

    v_g holds the sum of the residuals y − fitted in every bin, then the number of rows there.

    Parameters
    ----------
    size, number, columns : as in ``bin_sums``; columns may be added up over rows of one cluster and
        bin.
    cluster : (n,) labels.
    """
    labels, place = np.unique(cluster, return_inverse=True)
    vectors = np.zeros((len(labels), 2 * size))
    np.add.at(vectors, (place, number), columns[:, 1] - columns[:, 2])
    np.add.at(vectors, (place, size + number), columns[:, 0])
    return np.asarray(vectors.T @ vectors)


def lack_of_fit(
    bins: TreatmentBins,
    sums: FloatArray,
    scatter: FloatArray | None = None,
    clusters: int = 0,
    untested: str = "",
) -> LackOfFit:
    """Return the test whether residuals differ between bins beyond what the basis could absorb.

    The mean residuals of the bins are regressed on the bins' mean basis columns, weighted by their
    variances; the weighted sum of squares left over is chi-square with (bins − rank) degrees of
    freedom when the basis holds. Errors of θ̂ that are constant over units lie in the span of the
    basis and do not count. Errors that vary over units do not count either as far as treatments do
    not go with them: where they do, they would look like a misfit, and nothing is tested. Bins with
    fewer than five rows are left out, and where all have fewer nothing is tested; the variance of a
    bin with few rows, which knows it badly (all successes seem to have none), is drawn towards that
    of all bins.

    Where units share clusters, the sum of squares is divided by the mean design effect of its
    directions, how many times as much they vary as those of independent rows, and referred to F
    with as many further degrees of freedom as there are more clusters than bins (Rao & Scott 1981,
    1987); with no more clusters than bins there is no test, and p is 1.

    Parameters
    ----------
    bins : of the treatments.
    sums : of ``bin_sums``, added up over batches.
    scatter : of ``bin_scatter``; None where every row is a cluster of its own.
    clusters : G, where there is a scatter.
    untested : why the design allows no test (``GO_WITH_STRATA``, ``GO_WITH_FEATURES``).
    """
    used = np.flatnonzero(sums[:, 0] >= _MIN_BIN_ROWS)
    few = not len(used)
    if few:
        used = np.flatnonzero(sums[:, 0])
        untested = untested or f"no bin of treatments has {_MIN_BIN_ROWS} rows"
    rows, total_y, total_fit, squares = sums[used, :4].T
    residual = (total_y - total_fit) / rows
    within = np.maximum(squares - rows * residual**2, 0)
    pooled = max(float(within.sum() / max(rows.sum() - len(rows), 1)), 1e-300)
    variance = (within + _PRIOR_ROWS * pooled) / (rows - 1 + _PRIOR_ROWS) / rows
    table = pd.DataFrame(
        {
            "bin": [bins.describe(number) for number in used],
            "rows": rows.astype(int),
            "observed": total_y / rows,
            "fitted": total_fit / rows,
            "standard_error": np.sqrt(variance),
        }
    )
    dimensions = len(bins.names)
    means = sums[used, 4 : 4 + dimensions] / rows[:, None]
    table[[f"mean_{name}" for name in bins.names]] = means
    root = 1 / np.sqrt(variance)
    phi = sums[used, 4 + dimensions :] / rows[:, None]
    scaled = phi * root[:, None]
    scaled /= np.sqrt((scaled**2).sum(axis=0)).clip(1e-300)
    coefficients, _, rank, _ = np.linalg.lstsq(scaled, residual * root, rcond=1e-10)
    statistic = float(((residual * root - scaled @ coefficients) ** 2).sum())
    degrees = len(used) - int(rank)
    if few or (untested and degrees):
        return LackOfFit(table, 0.0, 0, np.nan, untested)
    if degrees == 0:
        return LackOfFit(table, statistic, degrees, 1.0)
    if scatter is None:
        return LackOfFit(table, statistic, degrees, float(stats.chi2.sf(statistic, degrees)))
    known = clusters - len(used)
    if known < 1:
        return LackOfFit(table, 0.0, degrees, 1.0)
    both = np.concatenate([used, used + bins.size])
    means = np.hstack([np.diag(1 / rows), -np.diag(residual / rows)])
    covariance = means @ scatter[np.ix_(both, both)] @ means.T * (clusters / known)
    # a bin of a single cluster does not show how clusters differ
    table["standard_error"] = np.sqrt(np.maximum(np.diag(covariance), variance))
    left = root[:, None] * (np.eye(len(used)) - scaled @ np.linalg.pinv(scaled, rcond=1e-10))
    effect = float(np.trace(left.T @ covariance @ left)) / degrees
    statistic /= max(effect, 1.0)
    p_value = float(stats.f.sf(statistic / degrees, degrees, known))
    return LackOfFit(table, statistic, degrees, p_value)
