"""Intervals of honest values cover the truth where policies are chosen, by units or by clusters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judged import Design, drawn, judged

from coarse_spark.core.values import ScoreMoments, choice_covariance

FOLDS = 5


@pytest.mark.parametrize("better", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("villages", [0, 60])
def test_what_the_folds_choose_is_no_surer_than_noise_lets_it_be(
    villages: int, better: float
) -> None:
    """Each fold takes the arm that is better on the others; at a tie noise alone decides.

    ``better`` counts in standard errors of the difference of two arms.
    """
    rng, repetitions, units = np.random.default_rng(5), 1_000, 300
    covered = np.zeros(2)
    for _ in range(repetitions):
        village = np.arange(units) if villages == 0 else np.arange(units) % villages
        spread = (
            0.5 * rng.normal(size=(units, 2)) + rng.normal(size=(village.max() + 1, 2))[village]
        )
        step = better * np.sqrt(2 * (0.25 / units + 1 / (village.max() + 1)))
        scores, fold = spread + np.array([0, step]), village % FOLDS
        means = np.stack([scores[fold == number].mean(axis=0) for number in range(FOLDS)])
        arm = ((means.sum(axis=0) - means)[:, 1] > (means.sum(axis=0) - means)[:, 0]).astype(int)
        own = scores[np.arange(units), arm[fold]][:, None]
        moments = ScoreMoments.of(
            ScoreMoments.sums(own, np.ones(units), np.zeros(1), village if villages else None),
            np.zeros(1),
        )
        totals = means[:, arm][..., None] * units / FOLDS
        chosen = replace(moments, choices=choice_covariance(totals, float(units)), folds=FOLDS)
        error = abs(float(moments.mean[0]) - step * arm.mean())
        reach = moments.quantile(0.95, 0)
        covered += [error <= reach * chosen.errors[0], error <= reach * moments.errors[0]]
    honest, independent = covered / repetitions
    assert 0.93 <= honest <= 0.97
    assert independent < honest if better < 3 else independent > 0.93


def test_folds_that_choose_alike_are_independent() -> None:
    totals = np.repeat(np.random.default_rng(0).normal(size=(FOLDS, 1, 3)), FOLDS, axis=1)
    np.testing.assert_array_equal(choice_covariance(totals, 10.0), np.zeros((3, 3)))


def test_fewer_villages_make_up_a_value_where_they_differ() -> None:
    rng = np.random.default_rng(1)

    def effective(sizes: np.ndarray, treated: np.ndarray) -> float:
        village = np.repeat(np.arange(len(sizes)), sizes)
        scores = (rng.normal(size=len(sizes)) * treated)[village][:, None]
        sums = ScoreMoments.sums(scores, np.ones(len(village)), np.zeros(1), village)
        return float(np.broadcast_to(ScoreMoments.of(sums, np.zeros(1)).effective, 1)[0])

    alike, every = np.full(2_000, 3), np.ones(2_000)
    assert effective(alike, every) == pytest.approx(2_000, rel=0.15)
    assert effective(alike, every * (np.arange(2_000) % 2)) == pytest.approx(1_000, rel=0.2)
    large = np.where(np.arange(2_000) % 20 == 0, 60, 3)  # a twentieth of them, and all that counts
    assert effective(large, every) == pytest.approx(100, rel=0.3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cross_fitted_intervals_cover_in_villages_that_were_treated_together() -> None:
    design = Design("clustered", villages=50, icc=0.4)
    found = [
        judged(drawn(design, np.random.default_rng([77, seed])), seed=seed) for seed in range(500)
    ]
    estimate, truth, reach, independent = (np.array(part) for part in zip(*found, strict=True))
    missed = np.abs(estimate - truth) - 1e-9
    covered = (missed <= reach).mean(axis=0)
    assert ((covered >= 0.93) & (covered <= 0.97)).all(), covered
    assert ((missed <= independent).mean(axis=0)[1:] < covered[1:]).all()
