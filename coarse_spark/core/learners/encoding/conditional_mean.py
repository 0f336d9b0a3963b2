"""E[v | x] of a vector v: ridge regression on the encoded features and trees, blended.

One model a part is learned from the rows outside it. The share of the trees is what held-out
predictions of the other parts speak for (the short-stacking of Ahrens, Hansen, Schaffer & Wiemann
2025), so that a step in a feature is not smeared, and a slope is not cut into stairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.boosting.booster import fit_boosting
from coarse_spark.core.learners.boosting.trees import Binned, Trees
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.learners.ridge.gram import GramStatistics, total
from coarse_spark.core.learners.ridge.penalties import empirical_bayes

# for trees: what is smooth is the ridge's, and steps show in few rounds and rows
_ROUNDS, TREE_ROWS = 60, 30_000


@dataclass(frozen=True, eq=False)
class ConditionalMean:
    """C f(x) + trees(x).

    Attributes
    ----------
    coefficients : C (q, m).
    trees : with leaf values (q,).
    """

    coefficients: FloatArray
    trees: Trees

    def __call__(self, features: FloatArray, plain: IntArray) -> FloatArray:
        """Return E[v | x] (n, q).

        Parameters
        ----------
        features : f(x) (n, ·), whose first m columns count.
        plain : columns of them that trees split on (``FeatureEncoder.plain``).
        """
        known = features[:, : self.coefficients.shape[1]]
        return known @ self.coefficients.T + self.trees.predict(features[:, plain])

    @staticmethod
    def average(means: Sequence[ConditionalMean]) -> ConditionalMean:
        """Return the mean of several."""
        return ConditionalMean(
            np.mean([mean.coefficients for mean in means], axis=0),
            Trees.concatenate([mean.trees.scaled(1 / len(means)) for mean in means]),
        )


def cross_fitted(
    encoder: FeatureEncoder,
    sums: Mapping[int, GramStatistics],
    features: FloatArray,
    target: FloatArray,
    weight: FloatArray,
    part: IntArray,
    *,
    seed: int = 0,
) -> dict[int, ConditionalMean]:
    """Return models by part, each learned from the rows outside it.

    Parameters
    ----------
    encoder : of the features.
    sums : by part, of design f(x) and outcomes v, over all rows.
    features : f(x) (n, m) of all rows, or of a sample of them, in random order: the trees are grown
        on the first 30,000 of these.
    target : v (n, q) of the same rows, as are the others.
    weight : (n,).
    part : (n,) at least two parts among the rows that trees are grown on.
    seed : of the trees.
    """
    features, target = features[:TREE_ROWS], target[:TREE_ROWS]
    weight, part = weight[:TREE_ROWS], part[:TREE_ROWS]
    share = weight / weight.sum()
    mean = share @ target
    scale = np.sqrt(share @ (target - mean) ** 2)
    scale = np.where(scale > 0, scale, 1.0)
    counted = weight * (weight.sum() / (weight @ weight))
    ones = np.ones((len(part), 1))
    inputs = Binned.of(features[:, encoder.plain])
    boosted = fit_boosting(inputs, ones, target / scale, counted, part, seed=seed, rounds=_ROUNDS)
    linear = {number: _ridge(total(sums, without={number}), encoder.groups) for number in sums}
    members = {}  # by part, moments of [ridge, trees] and v about the mean
    for number in boosted.without:
        here = np.flatnonzero(part == number)
        stacked = np.stack([features[here] @ linear[number].T / scale, boosted.held_out[here]])
        stacked = np.concatenate([stacked, target[None, here] / scale]) - mean / scale
        members[number] = np.einsum("n,inq,jnq->qij", weight[here], stacked, stacked)
    models = {}
    for number, coefficients in linear.items():
        moments = sum(found for other, found in members.items() if other != number)
        blend = np.array([_shares(one) for one in moments])  # (q, 2)
        start, trees = boosted.without.get(number, (boosted.start, boosted.trees))
        blended = blend[:, :1] * coefficients
        blended[:, 0] += blend[:, 1] * scale * start + (1 - blend.sum(axis=1)) * mean
        models[number] = ConditionalMean(blended, trees.scaled(blend[:, 1] * scale))
    return models


def _shares(moments: FloatArray) -> FloatArray:
    """Return the nonnegative weights (2,) of the two members that predict best.

    Parameters
    ----------
    moments : (3, 3) of the members and the target.
    """
    root = np.linalg.cholesky(moments[:2, :2] + 1e-9 * np.trace(moments) * np.eye(2))
    return np.asarray(nnls(root.T, np.linalg.solve(root, moments[:2, 2]))[0])


def _ridge(sums: GramStatistics, groups: IntArray) -> FloatArray:
    """Return C (q, m), each row with penalties of its own."""
    sums = sums.scaled(sums.rows_a_weight)
    block = np.zeros_like(groups)
    return np.array(
        [
            empirical_bayes(sums.of_outcome(column), groups, block).coefficients
            for column in range(sums.moment.shape[1])
        ]
    )
