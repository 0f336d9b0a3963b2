"""Principal axes of heterogeneity: treatment columns turned to where effects differ most.

Whitened treatment columns stay white under any rotation, but one penalty a column is worth more on
some axes than on others: where customers differ in little more than "how steep", a rotation puts
that into one column, and the others shrink to their averages. The axes are the eigenvectors of the
effects' covariance over units, τ(x)τ(x)ᵀ, that a first fit estimates: reduced-rank regression
(Izenman 1975) with the rank left to the penalties.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.learners.ridge.gram import GramStatistics

_TIE = 1e-6


def principal_axes(effects: FloatArray, statistics: GramStatistics) -> FloatArray:
    """Return the axes (k, k) of effects, a row each, those of most heterogeneity first.

    Parameters
    ----------
    effects : C (k, m) of the effects; their averages, in the first column, have no say.
    statistics : of a design that begins with the m columns of features.
    """
    m = effects.shape[1]
    moving = effects[:, 1:]
    covariance = moving @ statistics.gram[1:m, 1:m] @ moving.T
    # columns without heterogeneity have no axes of their own: what is added tells them apart, or
    # the last bit of a sum would
    covariance += np.diag(_TIE * np.trace(covariance) * np.arange(len(moving), 0, -1))
    _, vectors = np.linalg.eigh(covariance)
    # eigenvectors have no sign: the same one in every fit
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))] < 0, -1, 1)
    return np.asarray(vectors.T[::-1])


def turned(values: FloatArray, axes: FloatArray, m: int) -> FloatArray:
    """Return coefficients, or rows of sums, of the design whose effect columns are turned.

    Parameters
    ----------
    values : (q, ·) or (q,) of the design [z₀ f, z₁ f, …, z_k f, nuisance].
    axes : (k, k) rotation; its transpose turns back.
    m : columns of features.
    """
    k = len(axes)
    result = values.copy()
    blocks = values[m : m * (k + 1)].reshape(k, -1)
    result[m : m * (k + 1)] = (axes @ blocks).reshape(values[m : m * (k + 1)].shape)
    return result


def turned_statistics(statistics: GramStatistics, axes: FloatArray, m: int) -> GramStatistics:
    """Return the sums of the design whose effect columns are turned; see ``turned``."""
    gram, k = turned(statistics.gram, axes, m), len(axes)
    columns = gram[:, m : m * (k + 1)].reshape(len(gram), k, m)
    gram[:, m : m * (k + 1)] = (axes @ columns).reshape(len(gram), -1)
    return replace(statistics, gram=gram, moment=turned(statistics.moment, axes, m))
