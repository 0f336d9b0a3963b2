"""Clusters: no fold splits one, and standard errors count them, not their units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coarse_spark import ResponseLearner
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, representer
from coarse_spark.core.lack_of_fit import (
    TreatmentBins,
    bin_columns,
    bin_scatter,
    bin_sums,
    lack_of_fit,
)
from coarse_spark.core.learners.blend import Blend, HeldOutTarget
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS, parts_of
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import (
    Policy,
    ScoreMoments,
    contrasts,
    policy_values,
    select_menu_size,
)
from coarse_spark.errors import InvalidInputError

ARMS = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "visit"], "control": "none"}}
)
UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}})


def _moments(scores: np.ndarray, cluster: np.ndarray | None) -> ScoreMoments:
    center = np.zeros(scores.shape[1])
    return ScoreMoments.of(ScoreMoments.sums(scores, np.ones(len(scores)), center, cluster), center)


def _villages(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.repeat(np.arange(count), rng.integers(5, 30, count))


def _trial(rng: np.random.Generator, villages: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of control, everybody visited and those with x > −0.75, treatments by village.

    Four fifths of the outcome's variance are the village's.
    """
    village = _villages(rng, villages)
    t = rng.integers(0, 2, villages)[village]
    x, common = rng.normal(size=len(village)), rng.normal(size=villages)[village]
    y = 1 + t * (0.3 + 0.4 * x) + common + 0.5 * rng.normal(size=len(village))
    theta = np.tile([1.0, 1.2], (len(village), 1))
    phi = Basis("arms", ARMS)(t[:, None].astype(float))
    debiased = corrected(theta, phi, y, representer(phi, np.eye(2) / 2))
    picked = debiased[np.arange(len(village)), (x > -0.75).astype(int)]
    return np.column_stack([debiased, picked]), village


def test_intervals_cover_where_units_of_a_cluster_share_outcomes_and_treatments() -> None:
    rng, replications = np.random.default_rng(11), 600
    value = 1 + 0.3 * stats.norm.sf(-0.75) + 0.4 * stats.norm.pdf(-0.75)
    covered = np.zeros((2, 2))
    for _ in range(replications):
        scores, village = _trial(rng, 40)
        for row, cluster in enumerate((village, None)):
            moments = _moments(scores, cluster)
            reach = moments.quantile(0.95, 2) * np.sqrt(moments.covariance[2, 2])
            covered[row, 0] += abs(moments.mean[2] - value) <= reach
            difference, se = moments.contrast(2, 0)
            reach = moments.quantile(0.95, 2, 0) * se
            covered[row, 1] += abs(difference - (value - 1)) <= reach
    clustered, ignored = covered / replications
    assert ((clustered >= 0.93) & (clustered <= 0.97)).all(), clustered
    assert (ignored < 0.6).all(), ignored


def test_the_published_intervals_and_the_choice_of_k_are_clustered() -> None:
    rng = np.random.default_rng(5)
    village = _villages(rng, 20)
    policies = [
        *(Policy(name, 1) for name in ("control", "uniform")),
        *(Policy("menu", k) for k in (1, 2)),
        Policy("granular", 0),
    ]
    better = np.array([0.0, 1.0, 1.0, 1.25, 1.3])
    common = rng.normal(size=(20, 5))[village]  # far more than is between menus
    scores = better + common - common.mean(axis=0) + 0.1 * rng.normal(size=(len(village), 5))
    clustered, ignored = _moments(scores, village), _moments(scores, None)
    assert select_menu_size(policies, clustered)[0] == 1
    assert select_menu_size(policies, ignored)[0] == 2
    values, pairs = policy_values(policies, clustered, 0.9), contrasts(policies, clustered, 0.9)
    reach = [clustered.quantile(0.9, number) for number in range(5)] * values["se"]
    np.testing.assert_allclose(values["ci_high"] - values["value"], reach)
    known = (policies.index(Policy("menu", 2)), policies.index(Policy("control", 1)))
    pair = pairs.query("policy == 'menu' and k == 2 and versus == 'control'").iloc[0]
    assert pair["ci_high"] - pair["difference"] == pytest.approx(
        clustered.quantile(0.9, *known) * pair["se"]
    )
    assert (values["n"] == len(village)).all()


def test_the_variance_is_that_of_cluster_sums_by_hand() -> None:
    scores, village = np.array([[1.0], [3.0], [8.0]]), np.array([7, 7, -2])
    moments = _moments(scores, village)
    # mean 4; sums of deviations −4 and 4; G / (G − 1) = 2
    assert moments.covariance[0, 0] == pytest.approx((16 + 16) / 9 * 2)
    assert (moments.units, moments.clusters, moments.clustered) == (3, 2, True)


@settings(deadline=None)
@given(st.integers(0, 1_000))
def test_clusters_of_one_are_no_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(30, 3))
    alone, plain = _moments(scores, rng.permutation(30)), _moments(scores, None)
    # some covariances are next to nothing, and rounded as the variances beside them
    np.testing.assert_allclose(alone.covariance, plain.covariance, rtol=1e-12, atol=1e-14)
    assert alone.quantile(0.95, 0) == plain.quantile(0.95, 0) == stats.norm.ppf(0.975)


@settings(deadline=None)
@given(st.integers(0, 1_000), st.integers(1, 12), st.integers(2, 12))
def test_no_validation_part_splits_a_cluster(seed: int, folds: int, validation_parts: int) -> None:
    rng = np.random.default_rng(seed)
    cluster = rng.integers(-(2**62), 2**62, 25)[rng.integers(0, 25, 400)]
    fold = cluster % folds
    part = parts_of(fold, cluster, folds, LearnerSettings(validation_parts=validation_parts), seed)
    assert len(np.unique(np.column_stack([cluster, part]), axis=0)) == len(np.unique(cluster))


def test_a_fold_that_no_row_is_in_has_a_model_all_the_same() -> None:
    """Few clusters leave folds empty; units elsewhere are scored by the models of every fold."""
    rng = np.random.default_rng(0)
    X, T, fold = pd.DataFrame({"x": rng.normal(size=600)}), rng.random((600, 1)), np.arange(600) % 3
    for scale in ("additive", "relative"):
        rows = TrialRows(X, T, 3 + T[:, 0] + 0.1 * rng.normal(size=600), fold=fold, folds=5)
        models = fit_models(
            rows, basis=Basis("linear", UNIT), settings=LearnerSettings(scale=scale)
        )
        assert sorted(models) == [ALL_FOLDS, 0, 1, 2, 3, 4]


def test_what_villages_differ_by_is_no_heterogeneity_of_the_effect() -> None:
    """Features of a village tell it from others, and treatments were by village."""
    found = {"groups": 0, "none": 0}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        village = np.repeat(np.arange(40), 50)
        X = pd.DataFrame(rng.normal(size=(40, 2))[village], columns=["wells", "distance"])
        t = rng.integers(0, 2, 40)[village].astype(float)
        y = 0.3 * t + rng.normal(size=40)[village] + rng.normal(size=len(village))
        learner = ResponseLearner(basis="linear", learner="sieve", scale="additive")
        for name, groups in (("groups", village), ("none", None)):
            theta = learner.fit(X, t, y, groups=groups).predict(X)
            found[name] += bool(theta[:, 1].std() > 1e-9)
    assert found["none"] == 10
    assert found["groups"] <= 1


def test_a_gain_is_as_uncertain_as_clusters_are_few() -> None:
    """Rows that repeat what others of their cluster say add nothing to what is known."""
    rng = np.random.default_rng(4)
    Z, target, effect = rng.normal(size=(3, 50, 1))

    def error(times: int, *, clustered: bool) -> float:
        z, y, theta = (np.repeat(one, times, axis=0) for one in (Z, target[:, 0], effect))
        rows = len(y)
        cluster = np.arange(rows) // times if clustered else None
        none, part = np.zeros((rows, 1)), np.arange(rows) % 2
        held = HeldOutTarget(z, y, np.ones(rows), part, none, none[0], 1, cluster)
        return held.judge(Blend({}, theta, none)).error

    alone = error(1, clustered=False)
    assert error(9, clustered=False) == pytest.approx(alone / 3)
    assert error(9, clustered=True) == pytest.approx(alone * np.sqrt(50 / 49))


def test_rows_without_a_group_are_groups_of_their_own_and_lengths_must_match() -> None:
    rng = np.random.default_rng(1)
    X, t = pd.DataFrame({"x": rng.normal(size=400)}), rng.random(400)
    y = t * X["x"].to_numpy() + rng.normal(size=400)
    learner = ResponseLearner(basis="linear", learner="sieve", scale="additive")
    plain = learner.fit(X, t, y).predict(X)
    missing = learner.fit(X, t, y, groups=np.full(400, None)).predict(X)
    np.testing.assert_array_equal(missing, plain)
    with pytest.raises(InvalidInputError, match="400 outcomes, 399 groups"):
        learner.fit(X, t, y, groups=np.zeros(399))


def test_groups_by_any_label_and_in_any_order_give_the_same_model() -> None:
    rng = np.random.default_rng(2)
    X, t = pd.DataFrame({"x": rng.normal(size=400)}), rng.random(400)
    y, order = t * X["x"].to_numpy() + rng.normal(size=400), rng.permutation(400)
    names = np.array([f"house {number}" for number in rng.integers(0, 40, 400)])
    learner = ResponseLearner(basis="linear", learner="sieve", scale="additive")
    first = learner.fit(X, t, y, groups=names).predict(X)
    shuffled = learner.fit(X.iloc[order], t[order], y[order], groups=pd.Series(names[order]))
    np.testing.assert_allclose(shuffled.predict(X), first, atol=1e-8)


@pytest.mark.parametrize("by_village", [True, False])
def test_lack_of_fit_holds_its_level_in_clusters(by_village: bool) -> None:
    rejected, ignored = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        village = _villages(rng, 60)
        given_ = rng.integers(0, 5, 60)[village] if by_village else rng.integers(0, 5, len(village))
        T = given_[:, None] / 4
        fitted, common = 1 - T[:, 0], rng.normal(size=60)[village]
        y = fitted + common + 0.5 * rng.normal(size=len(village))
        bins = TreatmentBins.fit(T, UNIT, 12)
        number, columns = bins.assign(T), bin_columns(T, Basis("linear", UNIT)(T), y, fitted)
        sums = bin_sums(bins.size, number, columns)
        # batches of whole clusters add up
        scatter = sum(
            bin_scatter(bins.size, number[rows], columns[rows], village[rows])
            for rows in (village < 20, village >= 20)
        )
        rejected += lack_of_fit(bins, sums, scatter, 60).p_value < 0.05
        ignored += lack_of_fit(bins, sums).p_value < 0.05
    assert rejected <= 12
    assert not by_village or ignored > 80


def test_lack_of_fit_sees_a_curve_in_clusters_and_not_where_bins_are_as_many() -> None:
    rng = np.random.default_rng(3)
    village = _villages(rng, 60)
    T = rng.integers(0, 5, len(village))[:, None] / 4
    fitted = 1 - T[:, 0]
    y = fitted + 3 * (T[:, 0] - 0.5) ** 2 + rng.normal(size=(60))[village]
    bins = TreatmentBins.fit(T, UNIT, 12)
    number, columns = bins.assign(T), bin_columns(T, Basis("linear", UNIT)(T), y, fitted)
    sums, scatter = (
        bin_sums(bins.size, number, columns),
        bin_scatter(bins.size, number, columns, village),
    )
    assert lack_of_fit(bins, sums, scatter, 60).p_value < 1e-6
    none = lack_of_fit(bins, sums, scatter, bins.size)
    assert (none.statistic, none.p_value) == (0.0, 1.0)
