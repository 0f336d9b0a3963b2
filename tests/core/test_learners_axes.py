"""Principal axes of heterogeneity."""

from __future__ import annotations

import numpy as np

from coarse_spark.core.learners.ridge.axes import principal_axes, turned, turned_statistics
from coarse_spark.core.learners.ridge.gram import GramStatistics, response_gram
from coarse_spark.core.learners.ridge.penalties import ridge

RNG = np.random.default_rng(0)
N, M, P = 400, 3, 5


def sums() -> GramStatistics:
    features = np.column_stack([np.ones(N), RNG.normal(size=(N, M - 1))])
    z = np.column_stack([np.ones(N), RNG.normal(size=(N, P - 1))])
    outcome = RNG.normal(size=N)
    return response_gram(features, z, RNG.normal(size=(N, 2)), outcome, RNG.uniform(1, 2, N))


def test_axes_are_a_rotation_along_which_effects_are_uncorrelated() -> None:
    statistics, effects = sums(), RNG.normal(size=(P - 1, M))
    axes = principal_axes(effects, statistics)
    np.testing.assert_allclose(axes @ axes.T, np.eye(P - 1), atol=1e-12)
    moving = axes @ effects[:, 1:]
    covariance = moving @ statistics.gram[1:M, 1:M] @ moving.T
    spread = np.diag(covariance)
    assert (np.diff(spread) < 1e-6 * spread[0]).all(), "most heterogeneity first"
    assert np.abs(covariance - np.diag(spread)).max() < 1e-4 * spread[0]


def test_turned_sums_have_the_turned_solution() -> None:
    statistics, effects = sums(), RNG.normal(size=(P - 1, M))
    axes = principal_axes(effects, statistics)
    there = ridge(turned_statistics(statistics, axes, M), np.full(M * P + 2, 0.5))
    # one penalty for all does not notice the turn
    back = turned(there, axes.T, M)
    np.testing.assert_allclose(back, ridge(statistics, np.full(M * P + 2, 0.5)), atol=1e-10)


def test_axes_without_heterogeneity_do_not_hang_on_the_last_bit_of_a_sum() -> None:
    statistics, effects = sums(), np.zeros((P - 1, M))
    effects[1, 1] = 1.0  # one effect of four varies
    axes = principal_axes(effects, statistics)
    shaken = effects + 1e-14 * RNG.normal(size=effects.shape)
    np.testing.assert_allclose(principal_axes(shaken, statistics), axes, atol=1e-6)
