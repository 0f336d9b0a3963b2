"""Features and treatments in any unit, with heavy tails or with codes for what is missing."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coarse_spark import ResponseLearner, TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.settings import LearnerSettings


def trial(rows, seed, recorded):
    """A normal feature that moves the effect, recorded as ``recorded`` says, beside two others."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=rows)
    raw, missing = recorded(true, rng)
    X = pd.DataFrame({"a": raw, "b": rng.normal(size=rows), "c": rng.normal(size=rows)})
    effect = np.where(missing, 0.0, true)
    T = rng.random(rows)
    y = X["b"].to_numpy() + true + effect * T + rng.normal(size=rows)
    return X, pd.DataFrame({"t": T}), y, effect


def coded(code, share):
    def recorded(true, rng):
        missing = rng.random(len(true)) < share
        return np.where(missing, code, true), missing

    return recorded


def tail(function):
    return lambda true, _: (function(true), np.zeros(len(true), dtype=bool))


@pytest.mark.parametrize(
    "recorded",
    [
        coded(-999, 0.1),
        coded(9999, 0.01),
        coded(-999, 0.6),
        tail(lambda v: np.exp(3 * v)),
        tail(lambda v: np.sign(v) * np.abs(v) ** 7),
    ],
    ids=["code", "rare code", "mostly code", "log-normal", "two heavy tails"],
)
@pytest.mark.parametrize("learner", ["sieve", "auto"])
def test_codes_and_heavy_tails_do_not_blind_the_learner(recorded, learner):
    X, T, y, _ = trial(4_000, 0, recorded)
    new, _, _, truth = trial(10_000, 1, recorded)
    fitted = ResponseLearner(basis="linear", learner=learner, scale="additive").fit(X, T, y)
    error = fitted.predict(new)[:, 1] - truth
    assert (error**2).mean() < 0.2 * truth.var()


def test_light_tails_are_left_alone():
    X, *_ = trial(4_000, 0, tail(lambda v: v))
    (a, b, c) = FeatureEncoder.fit(X).features
    assert (a.reach, b.reach, c.reach) == (None, None, None)


@given(st.lists(st.floats(-1e12, 1e12), min_size=3, max_size=60))
@example([0.0, 1.0, 2.2250738585e-313, -1.0])  # ratios that are no numbers
def test_encoding_keeps_the_order_of_values(values):
    X = pd.DataFrame({"a": np.array(values)})
    encoder = FeatureEncoder.fit(X, knots=0)
    if encoder.features:
        column = encoder.transform(X.sort_values("a"))[:, 1]
        assert np.isfinite(column).all()
        assert (np.diff(column) >= -1e-12 * np.abs(column).max()).all()
        restored = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
        np.testing.assert_array_equal(restored.transform(X), encoder.transform(X))


def effects(X, T, y, *, unit=1.0, learner="sieve"):
    """Coefficients in [0, 1] units of a treatment that is recorded in units of ``unit``."""
    dimension = {"kind": "continuous", "lower": 0, "upper": unit, "control": 0}
    basis = Basis("quadratic", TreatmentSpace.from_dict({"t": dimension}))
    rows = TrialRows(X, unit * T.to_numpy(), y)
    record = fit_models(rows, basis=basis, settings=LearnerSettings(learner=learner))[ALL_FOLDS]
    return load_model(record).predict(X) * [1, unit, unit**2]


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e9])
def test_the_unit_of_features_does_not_matter(unit):
    X, T, y, _ = trial(1_500, 0, coded(-999, 0.1))
    ours, theirs = (effects(x, T, y, learner="auto") for x in (X, unit * X))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e9])
def test_the_unit_of_treatments_does_not_matter(unit):
    X, T, y, _ = trial(1_500, 0, tail(lambda v: v))
    np.testing.assert_allclose(effects(X, T, y, unit=unit), effects(X, T, y), rtol=1e-5, atol=1e-6)
    bounds = {"kind": "continuous", "lower": 0, "upper": unit, "control": 0, "step": unit / 10}
    candidates = TreatmentSpace.from_dict({"t": bounds}).candidates
    assert len(np.unique(candidates)) == 11
