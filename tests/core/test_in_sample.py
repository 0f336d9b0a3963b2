"""Responses of models that saw their units are told from those of models that did not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from noisy_arms import ARMS, simulated
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.model_selection import KFold

from coarse_spark.core.in_sample import own_treatment

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def boosted(x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Predict by one boosted model with the arm as a feature, as LightGBM users do."""
    model = HistGradientBoostingRegressor(max_iter=100, early_stopping=False)
    model.fit(np.column_stack([x, arm]), y)
    arms = (np.column_stack([at, np.full(len(at), a)]) for a in range(ARMS))
    return np.stack([model.predict(rows) for rows in arms], axis=1)


def forests(x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Predict by one forest an arm."""
    found = []
    for a in range(ARMS):
        model = RandomForestRegressor(30, min_samples_leaf=5, random_state=0)
        found.append(model.fit(x[arm == a], y[arm == a]).predict(at))
    return np.stack(found, axis=1)


def shrunken(x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Predict a quarter of what varies: outcomes rise by four a prediction."""
    theta = boosted(x, arm, y, at)
    return theta.mean(axis=0) + 0.25 * (theta - theta.mean(axis=0))


def out_of_fold(
    predict: Predict, x: np.ndarray, arm: np.ndarray, y: np.ndarray, seed: int
) -> np.ndarray:
    theta = np.empty((len(y), ARMS))
    for seen, held in KFold(3, shuffle=True, random_state=seed).split(x):
        theta[held] = predict(x[seen], arm[seen], y[seen], x[held])
    return theta


@pytest.mark.parametrize("predict", [boosted, forests, shrunken])
def test_models_that_saw_the_units_stand_out_and_others_do_not(predict: Predict) -> None:
    for seed in range(2):
        x, arm, y = simulated(1_500, seed)
        phi, strata = np.eye(ARMS)[arm], np.zeros(len(y))
        seen = own_treatment(predict(x, arm, y, x), phi, strata)
        assert seen.stands_out
        assert seen.ratio > 1.02
        honest = own_treatment(out_of_fold(predict, x, arm, y, seed), phi, strata)
        assert not honest.stands_out
        assert abs(honest.z) < 3


def test_good_models_are_no_cheats_however_well_they_predict() -> None:
    x, arm, _ = simulated(4_000, 0)
    # the outcome itself, but for the treatment: nothing is left of the residual
    rng = np.random.default_rng(1)
    theta = 3.0 * rng.standard_t(3, size=(4_000, 1)) + x[:, :ARMS]
    found = own_treatment(theta, np.eye(ARMS)[arm], np.zeros(4_000))
    assert not found.stands_out


def test_the_difference_is_standard_normal_for_honest_responses() -> None:
    rng, z = np.random.default_rng(2), []
    for _ in range(400):
        arm, strata = rng.integers(0, 2, 400), rng.integers(0, 3, 400)
        theta = rng.normal(size=(400, 2)) + strata[:, None]
        z.append(own_treatment(theta, np.eye(2)[arm], strata).z)
    assert np.mean(z) == pytest.approx(0.0, abs=0.15)
    assert np.std(z) == pytest.approx(1.0, abs=0.12)


def test_strata_with_treatments_of_their_own_are_no_evidence() -> None:
    rng = np.random.default_rng(3)
    strata = rng.integers(0, 2, 3_000)
    arm = (rng.uniform(size=3_000) < np.where(strata == 1, 0.8, 0.2)).astype(int)
    theta = rng.normal(size=(3_000, 2)) * (1 + 2 * np.column_stack([1 - strata, strata]))
    phi = np.eye(2)[arm]
    assert not own_treatment(theta, phi, strata).stands_out
    assert own_treatment(theta, phi, np.zeros(3_000)).stands_out


def test_clusters_count_as_one_draw_each() -> None:
    rng, z = np.random.default_rng(4), []
    for _ in range(200):
        cluster = np.repeat(np.arange(60), 10)
        arm = rng.integers(0, 2, 60)[cluster]
        theta = (rng.normal(size=(60, 2)) + 0.0)[cluster] + 0.1 * rng.normal(size=(600, 2))
        z.append(own_treatment(theta, np.eye(2)[arm], np.zeros(600), cluster).z)
    assert np.std(z) == pytest.approx(1.0, abs=0.2)


def test_constant_responses_are_no_evidence() -> None:
    arm = np.arange(10) % 2
    found = own_treatment(np.ones((10, 2)), np.eye(2)[arm], np.zeros(10))
    assert (found.ratio, found.z) == (1.0, 0.0)
