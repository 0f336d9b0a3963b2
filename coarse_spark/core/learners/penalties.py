"""Ridge regression with one penalty a group of columns, the penalties found by empirical Bayes from Gram statistics.

Model: y = A b + e with e ~ N(0, σ²) and b_g ~ N(0, σ²/λ_g) in every group g. The marginal likelihood of the penalties is
maximised by MacKay's fixed point (MacKay 1992; for generalised additive models Wood & Fasiolo 2017):
λ_g ← γ_g σ² / |b_g|² with γ_g = k_g − λ_g tr (AᵀA + Λ)⁻¹_gg, the effective degrees of freedom of the group. A group without
signal runs to an infinite penalty and leaves the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from coarse_spark.core.learners.gram import GramStatistics

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FREE, EXCLUDED = -1, -2  # group numbers of columns without a penalty and of columns outside the model

_START, _SMALLEST, _DROPPED = 30.0, 1e-2, 1e7  # outcome and columns have variances near one
_ITERATIONS, _TOLERANCE, _LEAST_FREEDOM = 30, 0.05, 0.02
_JITTER = 1e-9  # of the mean diagonal: solves collinear columns (all levels of a feature) without moving the fit


@dataclass(frozen=True)
class RidgeFit:
    """Penalties (groups,), coefficients (q,) and the residual variance σ²."""

    penalties: FloatArray
    coefficients: FloatArray
    variance: float


def expand(penalties: FloatArray, groups: IntArray) -> FloatArray:
    """Return the penalty (q,) of every column; groups beyond the largest penalty are infinite, free columns 0."""
    # the last two entries serve EXCLUDED = −2 and FREE = −1
    return np.concatenate([np.where(penalties < _DROPPED, penalties, np.inf), [np.inf, 0.0]])[groups]


def ridge(statistics: GramStatistics, penalty: FloatArray) -> FloatArray:
    """Return argmin over b of Σ w (y − a·b)² + Σ penalty b² (q,); columns with an infinite penalty get 0."""
    active, factor = _factor(statistics, penalty)
    coefficients = np.zeros(len(penalty))
    coefficients[active] = scipy.linalg.cho_solve(factor, statistics.moment[active], check_finite=False)
    return coefficients


def empirical_bayes(statistics: GramStatistics, groups: IntArray) -> RidgeFit:
    """Return the penalties of largest marginal likelihood and the fit they give.

    Parameters
    ----------
    statistics : of rows whose weights count as rows (see ``GramStatistics.per_row``).
    groups : (q,) group of every column, or ``FREE`` or ``EXCLUDED``.
    """
    count = int(groups.max()) + 1
    sizes = np.bincount(groups[groups >= 0], minlength=count)
    penalties = np.full(count, _START)
    coefficients, variance = np.zeros(len(groups)), 0.0
    for iteration in range(_ITERATIONS):
        penalty = expand(penalties, groups)
        active, factor = _factor(statistics, penalty)
        coefficients = np.zeros(len(groups))
        coefficients[active] = scipy.linalg.cho_solve(factor, statistics.moment[active], check_finite=False)
        inverse, _ = scipy.linalg.lapack.dpotri(factor[0], lower=1)
        member = groups[active]
        inside = member >= 0
        trace = np.bincount(member[inside], weights=np.diag(inverse)[inside], minlength=count)
        square = np.bincount(member[inside], weights=coefficients[active][inside] ** 2, minlength=count)
        kept = penalties < _DROPPED
        freedom = np.where(kept, np.maximum(sizes - penalties * trace, 1e-6), 0.0)
        used = freedom.sum() + (~inside).sum()
        variance = max(statistics.loss(coefficients), 1e-12 * statistics.square) / max(statistics.weight - used, 1.0)
        updated = np.clip(freedom * variance / np.maximum(square, 1e-300), _SMALLEST, 10 * _DROPPED)
        # a group that has next to no freedom left only crawls towards infinity
        updated = np.where(kept & (freedom > _LEAST_FREEDOM), updated, 10 * _DROPPED)
        moved = np.abs(np.log(np.minimum(updated, _DROPPED) / np.minimum(penalties, _DROPPED)))
        penalties = updated
        if iteration >= 2 and moved.max(initial=0.0) < _TOLERANCE:
            break
    return RidgeFit(penalties, ridge(statistics, expand(penalties, groups)), variance)


def _factor(statistics: GramStatistics, penalty: FloatArray) -> tuple[IntArray, tuple[FloatArray, bool]]:
    """Columns in the model and the Cholesky factor of their penalised Gram matrix."""
    active = np.flatnonzero(np.isfinite(penalty))
    gram = statistics.gram[np.ix_(active, active)]
    gram[np.diag_indices(len(active))] += penalty[active] + _JITTER * max(np.diag(gram).mean(), 1e-300)
    return active, scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
