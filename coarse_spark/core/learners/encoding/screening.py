"""Which features get products with each other, where not all pairs fit.

Those with the strongest main effects do; products are not screened by their own signal. Out of
thousands of pairs some always look good by chance, and a model that keeps those would seem to
predict even rows it was not fitted on, had they a say in the choice.
"""

from __future__ import annotations

import numpy as np

from coarse_spark.core.arrays import IntArray
from coarse_spark.core.learners.ridge.gram import GramStatistics


def rank_features(sums: GramStatistics, count: int) -> IntArray:
    """Return the numbers of the features (L,), the most important first.

    They are ranked by their Wald tests in a regression on z ⊗ (1, features); the ranks for the
    baseline and for the effects take turns, the effects first.

    Parameters
    ----------
    sums : of ``response_gram`` of (1, features), z and one outcome.
    count : L, of the features.
    """
    gram = sums.gram.copy()
    gram[np.diag_indices(len(gram))] += 1e-6 * max(np.diag(gram).mean(), 1e-300)
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ sums.moment
    wald = (coefficients**2 / np.diag(inverse)).reshape(-1, count + 1)[:, 1:]
    turns = np.column_stack(
        [np.argsort(-wald[1:].sum(axis=0), kind="stable"), np.argsort(-wald[0], kind="stable")]
    )
    return np.array(list(dict.fromkeys(turns.ravel().tolist())), dtype=np.int64)
