"""Which features get products with each other, where not all pairs fit.

Those with the strongest main effects do; products are not screened by their own signal. Out of
thousands of pairs some always look good by chance, and a model that keeps those would seem to
predict even rows it was not fitted on, had they a say in the choice.
"""

from __future__ import annotations

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray


def rank_features(
    plain: FloatArray, z: FloatArray, outcome: FloatArray, weight: FloatArray
) -> IntArray:
    """Return the columns of ``plain`` (n, L), the most important first.

    They are ranked by their Wald tests in a regression on z ⊗ (1, plain); the ranks for the
    baseline and for the effects take turns, the effects first.

    Parameters
    ----------
    plain : (n, L) standardized numbers and indicators.
    z : (n, p) whitened basis.
    outcome : (n,).
    weight : (n,).
    """
    design = np.column_stack([np.ones(len(plain)), plain])
    size, p = design.shape[1], z.shape[1]
    design = (z[:, :, None] * design[:, None, :]).reshape(len(plain), -1)
    design *= np.sqrt(weight)[:, None]
    gram = design.T @ design  # of one and the same array: half the work
    gram[np.diag_indices(len(gram))] += 1e-6 * max(np.diag(gram).mean(), 1e-300)
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ (design.T @ (np.sqrt(weight) * outcome))
    wald = (coefficients**2 / np.diag(inverse)).reshape(p, size)[:, 1:]
    turns = np.column_stack(
        [np.argsort(-wald[1:].sum(axis=0), kind="stable"), np.argsort(-wald[0], kind="stable")]
    )
    return np.array(list(dict.fromkeys(turns.ravel().tolist())), dtype=np.int64)
