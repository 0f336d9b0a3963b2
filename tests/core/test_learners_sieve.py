import json

import numpy as np
import pandas as pd
import pytest
from causaldata import thornton_hiv

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.crossfit import accumulate, fit_models, solve
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.response import ResponseLearner
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

PRICE = TreatmentSpace.from_dict(
    {"price": {"kind": "continuous", "lower": 80, "upper": 100, "control": 100}}
)
QUADRATIC = Basis("quadratic", PRICE)


def experiment(n=4000, seed=0, heterogeneity=1.0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "x0": rng.uniform(-1, 1, n),
            "x1": rng.normal(size=n),
            "group": rng.choice(["a", "b", "c"], n),
        }
    )
    T = rng.uniform(80, 100, (n, 1))
    slope = -0.1 + heterogeneity * (0.1 * X["x0"] + 0.1 * (X["group"] == "a"))
    y = 5 + X["x1"] + slope * (T[:, 0] - 100) + 0.005 * (T[:, 0] - 100) ** 2 + rng.normal(size=n)
    return X, T, y.to_numpy(), slope.to_numpy()


def keys(n):
    return np.arange(n) * 7919


def test_whitened_columns_are_uncorrelated_and_coefficients_carry_over():
    _, T, _, _ = experiment()
    whitening = Whitening.fit(QUADRATIC, T, np.ones(len(T)))
    z = whitening(QUADRATIC(T))
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(3), atol=1e-9)
    theta = np.random.default_rng(1).normal(size=(len(T), 3))
    np.testing.assert_allclose(
        (z * theta).sum(1), (QUADRATIC(T) * whitening.raw(theta)).sum(1), atol=1e-9
    )


def test_arms_are_whitened_although_they_hold_no_constant_column():
    space = TreatmentSpace.from_dict(
        {"arm": {"kind": "categorical", "levels": ["a", "b", "c"], "control": "a"}}
    )
    basis = Basis("arms", space)
    T = np.random.default_rng(0).integers(0, 3, (500, 1)).astype(float)
    z = Whitening.fit(basis, T, np.ones(500))(basis(T))
    np.testing.assert_allclose(z[:, 0], 1)
    np.testing.assert_allclose(z.T @ z / 500, np.eye(3), atol=1e-9)


def test_treatments_that_do_not_identify_the_basis_are_refused():
    with pytest.raises(
        InvalidInputError, match=r"do not identify its column 'price\^2'.*2 distinct"
    ):
        Whitening.fit(QUADRATIC, np.array([[80.0], [100.0]] * 10), np.ones(20))


def test_gram_statistics_add_up_and_survive_flattening():
    rng = np.random.default_rng(0)
    design, y, w = rng.normal(size=(50, 4)), rng.normal(size=50), rng.random(50)
    whole = GramStatistics.of(design, y, w)
    split = GramStatistics.of(design[:20], y[:20], w[:20]) + GramStatistics.of(
        design[20:], y[20:], w[20:]
    )
    again = GramStatistics.of_flat(split.flat())
    np.testing.assert_allclose(again.gram, whole.gram)
    np.testing.assert_allclose(again.moment, whole.moment)
    b = rng.normal(size=4)
    assert whole.loss(b) == pytest.approx(w @ (y - design @ b) ** 2)


@pytest.mark.parametrize("folds", [1, 2, 5])
def test_sums_of_batches_in_any_order_give_the_models_of_one_machine(folds):
    X, T, y, _ = experiment()
    fold, weight, strata = (
        keys(len(y)) % folds,
        np.random.default_rng(1).random(len(y)),
        X["group"].to_numpy(),
    )
    settings = LearnerSettings(learner="sieve")
    trial = TrialRows(X, T, y, keys(len(y)), fold, weight, strata)
    whole = fit_models(trial, basis=QUADRATIC, settings=settings)
    assert sorted(whole) == ([ALL_FOLDS, *range(folds)] if folds > 1 else [ALL_FOLDS])

    preparation = Preparation.fit(trial, basis=QUADRATIC, settings=settings)
    preparation = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    sums: dict[int, GramStatistics] = {}
    for rows in np.array_split(np.random.default_rng(2).permutation(len(y)), 7):
        part = accumulate(preparation, trial.take(rows), folds=folds, settings=settings)
        sums = {
            k: sums[k] + part[k] if k in sums and k in part else sums.get(k, part.get(k))
            for k in {*sums, *part}
        }
    spread, _ = solve(preparation, sums, folds=folds, settings=settings)
    for key, record in whole.items():
        np.testing.assert_allclose(
            load_model(spread[key]).predict(X), load_model(record).predict(X), rtol=1e-8
        )


@pytest.mark.parametrize("learner", ["sieve", "boosting"])
def test_a_fold_model_never_sees_its_fold(learner):
    X, T, y, _ = experiment(600)
    fold = keys(600) % 2
    common = {
        "basis": Basis("linear", PRICE),
        "settings": LearnerSettings(learner=learner, validation_parts=2),
    }
    before = fit_models(TrialRows(X, T, y, keys(600), fold), **common)
    # the same mean and spread in the fold, so that the scale of the outcome does not move: only its
    # rows change places
    changed = y.copy()
    changed[fold == 1] = y[fold == 1][::-1]
    after = fit_models(TrialRows(X, T, changed, keys(600), fold), **common)
    np.testing.assert_allclose(
        load_model(after[1]).predict(X), load_model(before[1]).predict(X), rtol=1e-8
    )
    assert not np.allclose(
        load_model(after[0]).predict(X), load_model(before[0]).predict(X), rtol=1e-2
    )


def test_heterogeneous_slopes_are_recovered():
    X, T, y, slope = experiment(20_000)
    theta = ResponseLearner(space=PRICE).fit(X, pd.DataFrame(T, columns=["price"]), y).predict(X)
    at_90 = theta[:, 1] + 2 * 90 * theta[:, 2]
    truth = slope + 2 * 0.005 * (90 - 100)
    assert np.corrcoef(at_90, truth)[0, 1] > 0.95
    assert np.abs(at_90 - truth).mean() < 0.03


def test_no_heterogeneity_gives_the_constant_effect():
    constants = []
    for seed in range(8):
        X, T, y, _ = experiment(2000, seed, heterogeneity=0.0)
        learner = ResponseLearner(space=PRICE, learner="sieve").fit(X, T, y)
        lift = (
            learner.predict(X) @ (QUADRATIC(np.array([[80.0]])) - QUADRATIC(np.array([[100.0]])))[0]
        )
        assert lift.mean() == pytest.approx(2 + 2, abs=0.3)
        assert lift.std() < 0.4  # with heterogeneity 1 it is 1.6
        constants.append(learner.record_.learner == "constant")
    assert sum(constants) >= 6


def test_weights_have_no_unit_and_decide_which_units_count():
    X, T, y, _ = experiment(8000, heterogeneity=0.0)
    flipped = np.where(X["group"] == "a", 10 - y, y)
    lift = (QUADRATIC(np.array([[80.0]])) - QUADRATIC(np.array([[100.0]])))[0]
    lifts = {}
    for name, weight in (("a", X["group"] == "a"), ("not a", X["group"] != "a")):
        tilted = np.where(weight, 1.0, 0.01)
        one, other = (
            fit_models(
                TrialRows(X, T, flipped, keys(8000), weight=unit * tilted),
                basis=QUADRATIC,
                settings=LearnerSettings(learner="constant"),
            )[ALL_FOLDS]
            for unit in (1, 1000)
        )
        np.testing.assert_allclose(
            load_model(one).predict(X), load_model(other).predict(X), rtol=1e-6
        )
        lifts[name] = (load_model(one).predict(X) @ lift).mean()
    assert lifts["a"] == pytest.approx(-4, abs=0.5)
    assert lifts["not a"] == pytest.approx(4, abs=0.5)


def test_strata_remove_confounding_between_strata():
    rng = np.random.default_rng(0)
    n = 20_000
    risk = rng.integers(0, 4, n)
    X = pd.DataFrame({"x": rng.normal(size=n)})
    T = (80 + 4 * risk + 8 * rng.random(n))[:, None]
    y = -0.1 * T[:, 0] + 2.0 * risk + rng.normal(size=n)
    basis = Basis("linear", PRICE)
    slopes = {}
    for name, strata in (("ignored", None), ("known", risk)):
        record = fit_models(TrialRows(X, T, y, keys(n), strata=strata), basis=basis)[ALL_FOLDS]
        slopes[name] = load_model(record).predict(X)[:, 1].mean()
    assert abs(slopes["known"] + 0.1) < 0.02
    assert slopes["ignored"] > 0.1


@pytest.mark.parametrize("learner", ["sieve", "auto"])
def test_strata_neither_fake_heterogeneity_nor_bias_the_baseline(learner):
    rng = np.random.default_rng(1)
    n, detected = 4000, 0
    for _ in range(3):
        risk = rng.integers(0, 3, n)
        X = pd.DataFrame({"score": risk + rng.normal(size=n), "x": rng.normal(size=n)})
        T = (80 + 6 * risk + 8 * rng.random(n))[:, None]
        # the baseline's slope in x differs by stratum, and so does the mean treatment
        y = -0.1 * (T[:, 0] - 90) + 2.0 * risk + risk * X["x"].to_numpy() + rng.normal(size=n)
        record = fit_models(
            TrialRows(X, T, y, keys(n), strata=risk),
            basis=Basis("linear", PRICE),
            settings=LearnerSettings(learner=learner),
        )[ALL_FOLDS]
        detected += record.learner != "constant"
        theta = load_model(record).predict(X)
        assert abs(theta[:, 1].mean() + 0.1) < 0.03
        # a unit to be served has no stratum: its baseline is the mean over the strata its score
        # suggests
        at_90 = theta @ Basis("linear", PRICE)(np.array([[90.0]]))[0]
        bins = pd.qcut(X["score"], 6, labels=False)
        likely, found = (pd.Series(v).groupby(bins).mean() for v in (2.0 * risk, at_90))
        np.testing.assert_allclose(found, likely, atol=0.35)
    assert detected == 0


def test_record_survives_a_table_row():
    X, T, y, _ = experiment(500)
    learner = ResponseLearner(space=PRICE).fit(X, T, y)
    row = json.loads(json.dumps(learner.record_.to_row()))
    np.testing.assert_array_equal(
        load_model(ModelRecord.from_row(row)).predict(X), learner.predict(X)
    )
    with pytest.raises(InvalidInputError, match="format version 99"):
        ModelRecord.from_row({**row, "format_version": 99})


def test_order_of_rows_does_not_matter():
    X, T, y, _ = experiment(1500)
    shuffled = np.random.default_rng(3).permutation(1500)
    a = ResponseLearner(space=PRICE).fit(X, T, y).predict(X)
    b = ResponseLearner(space=PRICE).fit(X.iloc[shuffled], T[shuffled], y[shuffled]).predict(X)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_box_of_treatments_is_that_of_rows_with_weight():
    X, T, y, _ = experiment(600)
    weight = np.where(T[:, 0] < 90, 0.0, 1.0)
    settings = {"basis": "linear", "learner": "sieve", "scale": "additive"}
    some = ResponseLearner(**settings).fit(X, T, y, weight)
    used = np.flatnonzero(weight)
    alone = ResponseLearner(**settings).fit(X.iloc[used], T[used], y[used])
    assert some.basis_.space == alone.basis_.space
    assert some.basis_.space.bounds[0, 0] >= 90
    np.testing.assert_array_equal(some.predict(X), alone.predict(X))
    arm = np.where(weight, np.where(T[:, 0] < 95, "a", "b"), "nobody's")
    named = ResponseLearner("arms", "sieve").fit(X, pd.DataFrame({"arm": arm}), y, weight)
    assert named.basis_.columns == ("arm = a", "arm = b")


def test_rows_of_weight_0_are_no_rows():
    X, T, y, _ = experiment(1500)
    X["x1"] = X["x1"].mask(X.index % 7 == 0)
    weight = np.random.default_rng(4).uniform(0.5, 2, 1500)
    settings = {"space": PRICE, "basis": "spline", "learner": "sieve", "winsorize": 0.01}
    alone = ResponseLearner(**settings).fit(X, T, y, weight, X["group"])
    more = pd.concat([X, X.head(300).assign(x0=1e6, group="none")], ignore_index=True)
    with_none = ResponseLearner(**settings).fit(
        more,
        np.concatenate([T, np.full((300, 1), 81.0)]),
        np.concatenate([y, np.full(300, -1e9)]),
        np.concatenate([weight, np.zeros(300)]),
        more["group"],
    )
    np.testing.assert_array_equal(with_none.predict(X), alone.predict(X))


def test_thornton_incentives_raise_the_chance_of_learning_results():
    data = thornton_hiv.load_pandas().data.dropna(subset=["got", "tinc", "age", "distvct"])
    space = TreatmentSpace.from_dict(
        {"tinc": {"kind": "continuous", "lower": 0, "upper": 3, "control": 0}}
    )
    learner = ResponseLearner("any+log1p", space=space).fit(
        data[["age", "distvct"]], data[["tinc"]], data["got"]
    )
    theta = learner.predict(data[["age", "distvct"]])
    chance = theta @ learner.basis_(np.array([[0.0], [1.0], [3.0]])).T
    share = data.groupby(pd.cut(data["tinc"], [-1, 0, 1.5, 4]), observed=True)["got"].mean()
    assert 0.30 < chance[:, 0].mean() < 0.38
    assert chance[:, 0].mean() == pytest.approx(share.iloc[0], abs=0.02)
    assert chance[:, 0].mean() + 0.25 < chance[:, 1].mean() < chance[:, 2].mean() < 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.full(100, np.nan)}, "100 rows have a missing or infinite outcome"),
        ({"T": np.full((100, 1), 90.0)}, "do not identify"),
        ({"T": np.full((99, 1), 90.0)}, "rows do not match: 100 features, 99 treatments"),
        ({"sample_weight": -np.ones(100)}, "weights must not be negative"),
    ],
)
def test_bad_rows_are_named(change, message):
    X, T, y, _ = experiment(100)
    with pytest.raises(InvalidInputError, match=message):
        ResponseLearner(space=PRICE).fit(**{"X": X, "T": T, "y": y, **change})


def test_bad_settings_are_named():
    with pytest.raises(InvalidInputError, match="did you mean 'sieve'"):
        ResponseLearner(learner="seive")
    with pytest.raises(InvalidInputError, match="not fitted yet"):
        ResponseLearner().predict(np.zeros((1, 1)))
