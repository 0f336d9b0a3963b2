"""Logistic responses: effects in proportion to b (1 − b), for chances and shares."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from batches import solved_in_batches
from scipy.special import expit

from coarse_spark import ResponseLearner, TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, representer
from coarse_spark.core.learners.choose_scale import choose_scale
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.baseline import Baseline
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.errors import InvalidInputError

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}})
LINEAR = Basis("linear", UNIT)
LOGISTIC = LearnerSettings(learner="sieve", scale="logistic")
AUTO = LearnerSettings(learner="sieve", scale="auto")


def chance(truth, X, t):
    """Low or middle rates whose logit a treatment moves, or rates that it adds to."""
    a, b, c = (X[name].to_numpy() for name in "abc")
    reacts = 1 + 0.8 * np.sign(c)
    if truth == "low":
        return expit(-3.2 + 0.6 * a + 0.3 * b + 0.8 * reacts * t)
    if truth == "middle":
        return expit(-0.6 + 1.2 * a + 0.6 * b + 0.8 * reacts * t)
    return 0.3 + 0.08 * a + 0.15 * reacts * t


def purchases(truth, rows, seed=0, folds=1):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.uniform(-1.7, 1.7, (rows, 4)), columns=list("abcd"))
    T = rng.integers(0, 2, (rows, 1)).astype(float)
    y = (rng.random(rows) < chance(truth, X, T[:, 0])).astype(float)
    return TrialRows(X, T, y, key=rng.permutation(rows), fold=np.arange(rows) % folds)


def of_truth(truth, X):
    """The coefficients (n, 2) of a truth with two treatments."""
    control, treated = chance(truth, X, 0.0), chance(truth, X, 1.0)
    return np.column_stack([control, treated - control])


@pytest.mark.parametrize(
    ("truth", "scales", "level"),
    [
        ("low", ("logistic", "relative"), 0.2),
        ("middle", ("logistic",), 0.06),
        ("additive", ("logistic", "additive"), 0.06),
    ],
)
def test_auto_recovers_chances_whatever_their_form(truth, scales, level):
    trial, new = purchases(truth, 12_000), purchases(truth, 4_000, seed=1).X
    learner = ResponseLearner(basis="linear", learner="sieve", space=UNIT)
    learner.fit(trial.X, trial.T, trial.y)
    assert learner.scale_ in scales
    found, wanted = learner.predict(new), of_truth(truth, new)
    off = np.abs(found - wanted).mean(axis=0) / wanted.mean(axis=0)
    assert off[0] < level
    assert off[1] < 0.3


def test_effects_in_proportion_to_the_slope_are_told_apart_from_additive_ones():
    trial, new = purchases("middle", 12_000), purchases("middle", 4_000, seed=1).X
    wanted, errors, outside = of_truth("middle", new), {}, {}
    for scale in ("additive", "relative", "logistic"):
        learner = ResponseLearner(basis="linear", learner="sieve", scale=scale, space=UNIT)
        found = learner.fit(trial.X, trial.T, trial.y).predict(new)
        errors[scale] = np.abs(found - wanted)[:, 1].mean()
        rates = np.column_stack([found[:, 0], found.sum(axis=1)])
        outside[scale] = ((rates < 0) | (rates > 1)).any(axis=1).mean()
    assert errors["logistic"] < 0.9 * min(errors["additive"], errors["relative"])
    assert outside["logistic"] < 0.2 * min(outside["additive"], outside["relative"])


def test_the_logistic_scale_is_left_for_other_noise_and_other_effects():
    rng = np.random.default_rng(0)
    x, t = rng.uniform(-1, 1, 3_000), rng.random(3_000)
    # a score from 0 to 1 is no chance: its noise does not vanish towards the ends
    score = 0.5 + 0.3 * x + 0.1 * t * (1 + x) + 0.01 * rng.normal(size=3_000)
    trial = TrialRows(pd.DataFrame({"x": x}), t[:, None], np.clip(score, 0, 1))
    chosen = choose_scale(trial, basis=LINEAR, settings=AUTO)
    assert chosen.scale == "additive"
    assert set(chosen.losses) == {"additive", "relative", "logistic"}
    # a chance that grows by a quarter for everybody, be it 1 % or 73 %
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.uniform(0, 1, (8_000, 3)), columns=list("abc"))
    T = rng.integers(0, 2, (8_000, 1)).astype(float)
    mean = 0.01 + 0.72 * X["a"].to_numpy() ** 2 + 0.25 * T[:, 0]
    trial = TrialRows(X, T, (rng.random(8_000) < mean) * 1.0)
    assert choose_scale(trial, basis=LINEAR, settings=AUTO).scale == "additive"


def test_outcomes_beyond_the_unit_interval_are_not_logistic():
    trial = purchases("middle", 600)
    wide = replace(trial, y=2 * trial.y)
    with pytest.raises(
        InvalidInputError,
        match=r"outcomes lie from 0 to 2, expected from 0 to 1: .*response.scale: auto, additive",
    ):
        fit_models(wide, basis=LINEAR, settings=LOGISTIC)
    for rows, given in ((wide, None), (trial, (0.0, 2.0))):
        chosen = choose_scale(rows, basis=LINEAR, settings=AUTO, outcomes=given)
        assert set(chosen.losses) == {"additive", "relative"}
    for value in (0.0, 1.0):
        alike = replace(trial, y=np.full(len(trial), value))
        with pytest.raises(
            InvalidInputError, match=rf"mean outcome is {value:g}, expected above 0"
        ):
            fit_models(alike, basis=LINEAR, settings=LOGISTIC)
        chosen = choose_scale(alike, basis=LINEAR, settings=AUTO)
        assert chosen.scale != "logistic"
    # a few outcomes that are clipped do not matter
    odd = replace(trial, y=np.where(np.arange(600) == 7, 5.0, trial.y))
    assert fit_models(odd, basis=LINEAR, settings=replace(LOGISTIC, winsorize=0.01))


@pytest.mark.parametrize("learner", ["sieve", "auto"])
@pytest.mark.parametrize("stratified", [False, True])
def test_what_all_units_do_is_met_on_average(learner, stratified):
    trial = purchases("low", 3_000, seed=3, folds=3)
    rng = np.random.default_rng(0)
    trial = replace(trial, weight=rng.uniform(0.5, 2, len(trial)))
    if stratified:
        trial = replace(trial, strata=np.where(trial.X["a"] > 0, "more", "fewer"))
    settings = replace(LOGISTIC, learner=learner)
    models, phi = fit_models(trial, basis=LINEAR, settings=settings), LINEAR(trial.T)
    theta = np.empty((len(trial), 2))
    for fold in range(3):
        held = trial.fold == fold
        theta[held] = load_model(models[fold]).predict(trial.X)[held]
    share = trial.weight / trial.weight.sum()
    moments = (phi * share[:, None]).T @ phi
    debiased = corrected(theta, phi, trial.y, representer(phi, moments))
    whole = load_model(models[ALL_FOLDS]).predict(trial.X)
    for predicted in (theta, whole):
        np.testing.assert_allclose(share @ predicted, share @ debiased, rtol=0.15)


def test_the_model_of_a_fold_never_saw_its_outcomes():
    trial = purchases("middle", 1_500, folds=3)
    y = trial.y.copy()
    # units of one arm exchange their outcomes: what all models share, means by arm, stays
    for arm in (0, 1):
        inside = np.flatnonzero((trial.fold == 1) & (trial.T[:, 0] == arm))
        y[inside] = np.sort(y[inside])
    models, others = (
        fit_models(rows, basis=LINEAR, settings=LOGISTIC) for rows in (trial, replace(trial, y=y))
    )

    def moved(fold):
        found = [load_model(records[fold]).predict(trial.X) for records in (models, others)]
        return np.abs(found[0] - found[1]).max()

    # the unit of outcomes is shared too, and cancels
    assert moved(1) < 1e-6
    assert moved(2) > 0.05


@pytest.mark.parametrize(
    "changes", [{}, {"learner": "auto"}, {"residualize": True}, {"shape": {"t": "increasing"}}]
)
def test_a_logistic_model_is_plain_values(changes):
    trial = purchases("middle", 1_500)
    settings = replace(LOGISTIC, **changes)
    record = fit_models(trial, basis=LINEAR, settings=settings)[ALL_FOLDS]
    row = json.loads(json.dumps(record.to_row()))
    again = load_model(ModelRecord.from_row(row)).predict(trial.X)
    np.testing.assert_array_equal(again, load_model(record).predict(trial.X))
    wanted = of_truth("middle", trial.X).mean(axis=0)
    np.testing.assert_allclose(again.mean(axis=0), wanted, atol=0.06)
    assert (again[:, 1] >= 0).all() or "shape" not in changes


def test_baselines_of_older_records_are_of_relative_responses():
    baseline = Baseline(np.array([1.0, 2.0]), 0.5, 0.1)
    content = baseline.to_dict()
    del content["scale"]
    features = np.column_stack([np.ones(5), np.linspace(-1, 1, 5)])
    np.testing.assert_array_equal(Baseline.from_dict(content)(features), baseline(features))


def test_arms_are_the_same_chances_as_a_line_through_them():
    trial = purchases("middle", 2_000)
    dimension = {"kind": "categorical", "levels": ["no", "yes"], "control": "no"}
    arms = Basis("arms", TreatmentSpace.from_dict({"t": dimension}))
    line, levels = (
        load_model(fit_models(trial, basis=basis, settings=LOGISTIC)[ALL_FOLDS]).predict(trial.X)
        for basis in (LINEAR, arms)
    )
    np.testing.assert_allclose(np.column_stack([line[:, 0], line.sum(axis=1)]), levels, atol=1e-9)


def test_batches_add_up_and_partitions_lean_on_the_pooled_model():
    trial = purchases("middle", 4_000, folds=3)
    records, pooled = solved_in_batches(trial, LINEAR, LOGISTIC)
    whole = fit_models(trial, basis=LINEAR, settings=LOGISTIC)
    for fold, record in whole.items():
        np.testing.assert_allclose(
            load_model(records[fold]).predict(trial.X),
            load_model(record).predict(trial.X),
            rtol=1e-6,
        )
    own = trial.take(np.flatnonzero(trial.key % 4 == 0))
    wanted, errors = of_truth("middle", trial.X)[:, 1], {}
    for name, lent in (("alone", None), ("leaning", pooled)):
        model = fit_models(own, basis=LINEAR, settings=LOGISTIC, pooled=lent)[ALL_FOLDS]
        row = json.loads(json.dumps(model.to_row()))
        found = load_model(ModelRecord.from_row(row)).predict(trial.X)
        errors[name] = np.abs(found[:, 1] - wanted).mean()
    assert errors["leaning"] < errors["alone"]
    with pytest.raises(InvalidInputError, match="different scales"):
        fit_models(own, basis=LINEAR, settings=replace(LOGISTIC, scale="relative"), pooled=pooled)


def test_rows_of_weight_two_are_two_rows():
    trial = purchases("middle", 2_000)
    groups, features = np.array([-1, 0]), np.column_stack([np.ones(2_000), trial.X["a"]])
    twice = np.repeat(np.arange(2_000), np.where(trial.key % 2, 1, 2))
    weighted = Baseline.fit(
        features, trial.y, np.where(trial.key % 2, 1.0, 2.0), groups, "logistic"
    )
    repeated = Baseline.fit(
        features[twice], trial.y[twice], np.ones(len(twice)), groups, "logistic"
    )
    np.testing.assert_allclose(weighted(features), repeated(features), rtol=0.01)


def test_a_logistic_baseline_is_kept_from_the_ends():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 20_000)
    features = np.column_stack([np.ones_like(x), x])
    outcome = (rng.random(20_000) < expit(-0.5 + 1.5 * x)).astype(float)
    groups = np.array([-1, 0])
    baseline = Baseline.fit(features, outcome, np.ones_like(x), groups, "logistic")
    np.testing.assert_allclose(baseline.coefficients, [-0.5, 1.5], atol=0.1)
    found = baseline(features)
    ends = np.minimum(found, 1 - found)
    assert ends.min() == baseline.floor == pytest.approx(np.quantile(ends, 0.02), rel=1e-4)
    far = baseline(np.array([[1.0, 1e6], [1.0, -1e6]]))
    np.testing.assert_allclose(far, [1 - baseline.floor, baseline.floor])
    offset, multiplier = baseline.terms(features)
    np.testing.assert_array_equal(offset, found)
    np.testing.assert_allclose(multiplier, found * (1 - found))
    # the other outcome has the other chance
    other = Baseline.fit(features, 1 - outcome, np.ones_like(x), groups, "logistic")
    np.testing.assert_allclose(other(features), 1 - found, atol=1e-6)
