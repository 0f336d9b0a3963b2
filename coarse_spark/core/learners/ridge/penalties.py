"""Ridge regression with one penalty a group of columns, found from Gram statistics.

Model: y = A b + e with e ~ N(0, σ²) and b_g ~ N(0, σ²/λ_g) in every group g. The marginal
likelihood of the penalties is largest where λ_g |b_g|² = γ_g σ² with γ_g = k_g − λ_g tr
(AᵀA + Λ)⁻¹_gg, the effective degrees of freedom of the group (MacKay 1992; for generalised additive
models Wood & Fasiolo 2017). A group without signal runs to an infinite penalty and leaves the
model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.learners.ridge.gram import GramStatistics

# group numbers of columns without a penalty and of columns outside the model
FREE, EXCLUDED = -1, -2

# outcome and columns have variances near one
_START, _SMALLEST, _FAR, _DROPPED = 30.0, 1e-2, 1e5, 1e7
_ITERATIONS, _TOLERANCE, _LEAST_FREEDOM = 6, 0.05, 0.02
_LONGEST_STEP, _STEP_TO_INFINITY = 2.0, 1.0  # of the logarithm of a penalty
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
    coefficients[active] = scipy.linalg.lapack.dpotrs(factor, statistics.moment[active], lower=1)[0]
    return coefficients


def empirical_bayes(
    statistics: GramStatistics,
    groups: IntArray,
    blocks: IntArray,
    *,
    near: RidgeFit | None = None,
) -> RidgeFit:
    """Return the penalties of largest marginal likelihood and the fit they give.

    Coefficients and degrees of freedom are updated a block of columns at a time, given the others:
    blocks of different treatment columns are nearly orthogonal where treatments are randomized, and
    then nothing is lost. The final fit is exact.

    Parameters
    ----------
    statistics : of rows whose weights count as rows (see ``GramStatistics.scaled``).
    groups : (q,) group of every column, or ``FREE`` or ``EXCLUDED``.
    blocks : (q,) block of every column; a group lies in one block.
    near : coefficients and variance of a fit of the same rows to take the first penalties from.
    """
    count = int(groups.max(initial=-1)) + 1
    sizes = np.bincount(groups[groups >= 0], minlength=count)
    # every group starts with the same share of the outcome, be it of one column or a hundred
    penalties: FloatArray = np.multiply(_START, sizes, dtype=np.float64)
    coefficients, variance = np.zeros(len(groups)), 0.0
    if near is not None:
        square = _by_group(near.coefficients**2, groups, count)
        penalties = np.clip(sizes * near.variance / np.maximum(square, 1e-300), 1.0, _FAR)
    explained, columns = np.zeros(len(groups)), np.arange(len(groups))  # gram @ coefficients
    places = [_place(blocks == block) for block in range(int(blocks.max()) + 1)]
    grams = [np.zeros((0, 0))] * len(places)
    for iteration in range(_ITERATIONS):
        penalty, trace = expand(penalties, groups), np.zeros(count)
        for number, place in enumerate(places):
            gram, before = statistics.gram[place], coefficients[place].copy()
            coefficients[place] = 0.0
            within = np.flatnonzero(np.isfinite(penalty[place]))
            inside = columns[place][within]
            if len(inside) != len(grams[number]):  # groups only ever leave
                grams[number] = statistics.gram[np.ix_(inside, inside)]
            factor = _cholesky(grams[number].copy(), penalty[inside])
            target = statistics.moment[place] - explained[place] + before @ gram[:, place]
            coefficients[inside] = scipy.linalg.lapack.dpotrs(factor, target[within], lower=1)[0]
            explained += (coefficients[place] - before) @ gram
            trace += _by_group(_inverse_diagonal(factor), groups[inside], count)
        square = _by_group(coefficients**2, groups, count)
        kept = penalties < _DROPPED
        freedom = np.where(kept, np.maximum(sizes - penalties * trace, 0.0), 0.0)
        used = freedom.sum() + (groups == FREE).sum()
        loss = statistics.square - coefficients @ (2 * statistics.moment - explained)
        variance = max(loss, 1e-12 * statistics.square) / max(statistics.weight - used, 1.0)
        updated = _penalties(penalties, sizes, freedom, square, variance)
        # a group that has next to no freedom left only crawls towards infinity
        updated = np.where(kept & (freedom > _LEAST_FREEDOM), updated, 10 * _DROPPED)
        moved = np.abs(np.log(np.minimum(updated, _DROPPED) / np.minimum(penalties, _DROPPED)))
        penalties = updated
        if iteration >= 2 and moved.max(initial=0.0) < _TOLERANCE:
            break
    return RidgeFit(penalties, ridge(statistics, expand(penalties, groups)), variance)


def _by_group(values: FloatArray, groups: IntArray, count: int) -> FloatArray:
    """Sums (count,) of values (q,) of columns over the groups that they are in, if they are."""
    grouped = groups >= 0
    sums = np.bincount(groups[grouped], weights=values[grouped], minlength=count)
    return np.asarray(sums, dtype=np.float64)


def _penalties(
    penalties: FloatArray, sizes: IntArray, freedom: FloatArray, square: FloatArray, variance: float
) -> FloatArray:
    """Return the penalties that the marginal likelihood asks for, all else being equal.

    With d the information of a group about each of its coefficients, as if it had the same about
    all, γ = k d / (λ + d) and |b|² = B d² / (λ + d)², B being the square without a penalty. Both
    are known at the penalty as it is, which gives d and B; the likelihood is largest at
    λ = k σ² d / (B d − k σ²), or at infinity where B d ≤ k σ². (For a group of one this is the step
    of Tipping & Faul 2003; a fixed point of it is one of MacKay's λ ← γ σ² / |b|², which crawls.)

    Parameters
    ----------
    penalties, sizes, freedom, square : (groups,) λ, k, γ and |b|².
    variance : σ².
    """
    information = penalties * freedom / np.maximum(sizes - freedom, 1e-12 * sizes)
    signal = square * (penalties + information) ** 2 - sizes * variance * information
    best = np.full(len(penalties), np.inf)
    np.divide(sizes * variance * information**2, signal, out=best, where=signal > 0)
    # beside others that still move, a group is given up slowly: there is no way back
    near, further = np.exp(_LONGEST_STEP), np.exp(_STEP_TO_INFINITY)
    best = np.where(np.isinf(best), penalties * further, best)
    return np.clip(np.clip(best, penalties / near, penalties * near), _SMALLEST, 10 * _DROPPED)


def _place(members: BoolArray) -> slice | IntArray:
    """Return where members are: as a slice, which copies nothing, if they lie side by side."""
    found = np.flatnonzero(members)
    first, size = int(found[0]), len(found)
    return slice(first, first + size) if found[-1] - first == size - 1 else found


def _inverse_diagonal(factor: FloatArray) -> FloatArray:
    """Diagonal of (L Lᵀ)⁻¹: sums of squares of the columns of L⁻¹."""
    eye = np.eye(len(factor), order="F")
    inverse = scipy.linalg.blas.dtrsm(1.0, factor, eye, lower=1, overwrite_b=1)
    return np.asarray(np.einsum("ij,ij->j", inverse, inverse))


def _cholesky(gram: FloatArray, penalty: FloatArray) -> FloatArray:
    """Lower Cholesky factor of a penalised Gram matrix, which is overwritten."""
    gram[np.diag_indices(len(gram))] += penalty + _JITTER * max(np.diag(gram).mean(), 1e-300)
    # symmetric: in Fortran's order it is its own transpose
    factor, failed = scipy.linalg.lapack.dpotrf(gram.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("a penalised Gram matrix is not positive definite")
    return np.asarray(factor)
