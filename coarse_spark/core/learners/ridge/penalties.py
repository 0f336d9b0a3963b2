"""Ridge regression with one penalty a group of columns, found from Gram statistics.

Model: y = A b + e with e ~ N(0, σ²) and b_g ~ N(0, σ²/λ_g) in every group g. The marginal
likelihood of the penalties is maximised by MacKay's fixed point (MacKay 1992; for generalised
additive models Wood & Fasiolo 2017): λ_g ← γ_g σ² / |b_g|² with γ_g = k_g − λ_g tr (AᵀA + Λ)⁻¹_gg,
the effective degrees of freedom of the group. A group without signal runs to an infinite penalty
and leaves the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.ridge.gram import GramStatistics

# group numbers of columns without a penalty and of columns outside the model
FREE, EXCLUDED = -1, -2

_START, _SMALLEST, _DROPPED = 30.0, 1e-2, 1e7  # outcome and columns have variances near one
_ITERATIONS, _TOLERANCE, _LEAST_FREEDOM = 30, 0.05, 0.02
# of the mean diagonal: solves collinear columns (all levels of a feature) without moving the fit
_JITTER = 1e-9


@dataclass(frozen=True)
class RidgeFit:
    """Penalties (groups,), coefficients (q,) and the residual variance σ²."""

    penalties: FloatArray
    coefficients: FloatArray
    variance: float


def expand(penalties: FloatArray, groups: IntArray) -> FloatArray:
    """Return the penalty (q,) of every column.

    Groups beyond the largest penalty are infinite, free columns 0.
    """
    # the last two entries serve EXCLUDED = −2 and FREE = −1
    return np.concatenate([np.where(penalties < _DROPPED, penalties, np.inf), [np.inf, 0.0]])[
        groups
    ]


def ridge(statistics: GramStatistics, penalty: FloatArray) -> FloatArray:
    """Return argmin over b of Σ w (y − a·b)² + Σ penalty b² (q,).

    Columns with an infinite penalty get 0.
    """
    active = np.flatnonzero(np.isfinite(penalty))
    factor = _cholesky(statistics.gram[np.ix_(active, active)], penalty[active])
    coefficients = np.zeros(len(penalty))
    coefficients[active] = scipy.linalg.cho_solve(
        (factor, True), statistics.moment[active], check_finite=False
    )
    return coefficients


def empirical_bayes(statistics: GramStatistics, groups: IntArray, blocks: IntArray) -> RidgeFit:
    """Return the penalties of largest marginal likelihood and the fit they give.

    Coefficients and degrees of freedom are updated a block of columns at a time, given the others:
    blocks of different treatment columns are nearly orthogonal where treatments are randomized, and
    then nothing is lost. The final fit is exact.

    Parameters
    ----------
    statistics : of rows whose weights count as rows (see ``GramStatistics.scaled``).
    groups : (q,) group of every column, or ``FREE`` or ``EXCLUDED``.
    blocks : (q,) block of every column; a group lies in one block.
    """
    count = int(groups.max(initial=-1)) + 1
    sizes = np.bincount(groups[groups >= 0], minlength=count)
    penalties, coefficients, variance = np.full(count, _START), np.zeros(len(groups)), 0.0
    for iteration in range(_ITERATIONS):
        penalty, trace = expand(penalties, groups), np.zeros(count)
        for block in range(int(blocks.max()) + 1):
            inside = np.flatnonzero((blocks == block) & np.isfinite(penalty))
            gram, before = statistics.gram[np.ix_(inside, inside)], coefficients[inside]
            target = (
                statistics.moment[inside] - statistics.gram[inside] @ coefficients + gram @ before
            )
            coefficients[blocks == block] = 0.0
            factor = _cholesky(gram, penalty[inside])
            coefficients[inside] = scipy.linalg.cho_solve(
                (factor, True), target, check_finite=False
            )
            inverse, _ = scipy.linalg.lapack.dpotri(factor, lower=1)
            grouped = groups[inside] >= 0
            trace += np.bincount(
                groups[inside][grouped], weights=np.diag(inverse)[grouped], minlength=count
            )
        square = np.bincount(
            groups[groups >= 0], weights=coefficients[groups >= 0] ** 2, minlength=count
        )
        kept = penalties < _DROPPED
        freedom = np.where(kept, np.maximum(sizes - penalties * trace, 0.0), 0.0)
        used = freedom.sum() + (groups == FREE).sum()
        variance = max(statistics.loss(coefficients), 1e-12 * statistics.square) / max(
            statistics.weight - used, 1.0
        )
        updated = np.clip(freedom * variance / np.maximum(square, 1e-300), _SMALLEST, 10 * _DROPPED)
        # a group that has next to no freedom left only crawls towards infinity
        updated = np.where(kept & (freedom > _LEAST_FREEDOM), updated, 10 * _DROPPED)
        moved = np.abs(np.log(np.minimum(updated, _DROPPED) / np.minimum(penalties, _DROPPED)))
        penalties = updated
        if iteration >= 2 and moved.max(initial=0.0) < _TOLERANCE:
            break
    return RidgeFit(penalties, ridge(statistics, expand(penalties, groups)), variance)


def _cholesky(gram: FloatArray, penalty: FloatArray) -> FloatArray:
    """Lower Cholesky factor of a penalised Gram matrix, which is overwritten."""
    gram[np.diag_indices(len(gram))] += penalty + _JITTER * max(np.diag(gram).mean(), 1e-300)
    return np.asarray(scipy.linalg.cholesky(gram, lower=True, overwrite_a=True, check_finite=False))
