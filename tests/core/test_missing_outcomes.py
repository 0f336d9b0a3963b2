"""Outcomes that some units lack: corrections by hand, coverage, and chances that are learned."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coarse_spark import Profit, TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.debiased import debiased_coefficients
from coarse_spark.core.design import moment_sums, representer, representer_of_known
from coarse_spark.core.learned_design import DesignRows
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.model_free import GivenShares
from coarse_spark.core.presence import Presence, presence_preparation, presence_rows
from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.core.strata import merge_strata

SPACE = TreatmentSpace.from_dict({"t": {"kind": "categorical", "levels": [0, 1], "control": 0}})
BASIS = Basis("levels", SPACE)
PROFIT = Profit({"spend": "0.5", "returned": "-1"})


def drawn(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Strata, treatments, outcomes of which some lack the second, and bad predictions of them.

    Treatment and stratum tell who has it.
    """
    rng = np.random.default_rng(seed)
    stratum, t = rng.integers(0, 2, count), rng.integers(0, 2, count)
    level = rng.normal(0, 1, count)
    y = np.column_stack(
        [2 + level + (1 + stratum) * t, 0.5 * level + stratum + (0.5 - stratum) * t]
    ) + rng.normal(0, 1, (count, 2))
    chance = np.array([[0.9, 0.4], [0.5, 0.8]])[stratum, t]
    y[rng.random(count) > chance, 1] = np.nan
    return stratum, t, y, np.tile([1.0, 0.2, 0.3, 0.1], (count, 1))


def scores(stratum: np.ndarray, t: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Profit of giving 1 to all, a unit each, as the product computes it."""
    phi, labels = BASIS(t[:, None].astype(float)), stratum.astype(str)
    turned = [
        representer_of_known(phi, moment_sums(phi, labels, None, has), labels, has)
        for has in ~np.isnan(y.T)
    ]
    of_profit = ProfitCoefficients.of(2, [PROFIT])
    none = np.empty((len(t), 0))
    found = debiased_coefficients(of_profit, theta, phi, y, np.hstack(turned), none)
    return found @ PROFIT_AT_ONE


PROFIT_AT_ONE = np.array([0.5, 0.5, -1.0, -1.0])


def test_a_correction_is_of_those_who_have_the_outcome_by_hand() -> None:
    stratum, t, y, theta = drawn(400, seed=1)
    expected = np.zeros(len(t))
    for column, margin, (level, effect) in ((0, 0.5, (1.0, 0.2)), (1, -1.0, (0.3, 0.1))):
        has = ~np.isnan(y[:, column])
        expected += margin * (level + effect)
        for label in (0, 1):
            inside = stratum == label
            got = inside & (t == 1) & has  # only those tell of treatment 1
            residual = y[got, column] - level - effect
            expected[got] += margin * residual * inside.sum() / got.sum()
    np.testing.assert_allclose(scores(stratum, t, y, theta), expected, rtol=1e-9)
    # the same as counting every outcome by those who have it and got the treatment, within strata
    by_cell = sum(
        margin * np.mean([y[(stratum == s) & (t == 1) & ~np.isnan(y[:, o]), o].mean() for s in g])
        for o, margin, g in ((0, 0.5, stratum), (1, -1.0, stratum))
    )
    assert expected.mean() == pytest.approx(by_cell)


def test_intervals_cover_where_treatment_and_stratum_tell_who_has_the_outcome() -> None:
    truth = np.mean([0.5 * (2 + 1 + s) - (s + 0.5 - s) for s in (0, 1)])
    found = [scores(*drawn(1_000, seed)) for seed in range(400)]
    value = np.array([one.mean() for one in found])
    error = np.array([one.std(ddof=1) / np.sqrt(len(one)) for one in found])
    assert abs(value.mean() - truth) < 4 * value.std() / 20
    covered = (np.abs(value - truth) < 1.96 * error).mean()
    assert 0.92 <= covered <= 0.985
    assert value.std() == pytest.approx(error.mean(), rel=0.1)


def test_nobody_without_an_outcome_changes_nothing() -> None:
    stratum, t, _, _ = drawn(300, seed=2)
    phi, labels = BASIS(t[:, None].astype(float)), stratum.astype(str)
    everybody = np.ones(len(t), dtype=bool)
    plain = moment_sums(phi, labels)
    np.testing.assert_array_equal(
        representer_of_known(phi, moment_sums(phi, labels, None, everybody), labels, everybody),
        representer(phi, np.stack([plain[label].matrix for label in labels])),
    )


def test_values_without_a_model_are_of_units_that_have_all_outcomes() -> None:
    stratum, t, y, _ = drawn(20_000, seed=3)
    problem = MenuProblem.build(SPACE, "levels", PROFIT)
    treatments, weight = t[:, None].astype(float), np.ones(len(t))
    whole = ~np.isnan(y).any(axis=1)
    given = GivenShares.of(problem, treatments, stratum, weight, weight * whole)
    rows = given.rows(problem, treatments, stratum, y)
    psi = np.tile(problem.psi_at(np.array([[1.0]])), (len(t), 1))
    earned, h, unknown = rows.scores(psi).T
    assert not unknown.any()
    assert h.mean() == pytest.approx(1)
    truth = np.mean([0.5 * (2 + 1 + s) - 0.5 for s in stratum])
    assert (earned.mean() / h.mean()) == pytest.approx(truth, abs=0.1)
    assert not h[~whole].any()


def test_chances_of_a_learned_design_know_features_and_treatment() -> None:
    rng = np.random.default_rng(4)
    count = 6_000
    X = pd.DataFrame({"a": rng.uniform(-1, 1, count)})
    t = rng.integers(0, 2, count)
    chance = np.clip(0.55 + 0.35 * X["a"] * (1 - 0.5 * t) - 0.1 * t, 0.1, 0.95).to_numpy()
    has = rng.random((count, 1)) < chance[:, None]
    part = rng.integers(0, 4, count)
    plain = DesignRows(X, np.empty((count, 0)), part // 2, part, np.ones(count))
    rows = presence_rows(plain, X.assign(t=t.astype(str)), has)
    preparation = presence_preparation(rows, parts_per_fold=2, settings=LearnerSettings())
    means = preparation.means(preparation.mean_sums(rows), rows)
    weights = Presence.of(preparation, means).weights(rows)[:, 0]
    assert not weights[~has[:, 0]].any()
    assert np.abs(1 / weights[has[:, 0]] - chance[has[:, 0]]).mean() < 0.05
    # those that have the outcome stand for all, in any part of the units
    for some in (X["a"] > 0.5, X["a"] < -0.5, t == 1):
        assert weights[some].mean() == pytest.approx(1, abs=0.06)


def test_a_stratum_where_nobody_has_the_outcome_is_judged_with_another() -> None:
    rng = np.random.default_rng(0)
    stratum = np.repeat(["a", "b", "c"], 200)
    z = np.column_stack([np.ones(600), rng.standard_normal(600)])
    has = (stratum != "c") & (rng.random(600) < 0.5)
    merged = merge_strata(moment_sums(z, stratum, None, has))
    assert merged.unidentified == {"c": 0}
    ((host, _),) = merged.groups
    alpha = representer_of_known(z, merged.moments, stratum, has)
    together = (stratum == host) | (stratum == "c")
    for group in (together, ~together):
        np.testing.assert_allclose(alpha[group].T @ z[group] / group.sum(), np.eye(2), atol=1e-12)
    assert not alpha[~has].any()
