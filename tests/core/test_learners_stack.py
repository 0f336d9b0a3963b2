import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeRegressor

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.boosting.booster import fit_boosting
from coarse_spark.core.learners.boosting.trees import (
    Binned,
    Growth,
    Trees,
    grow,
    route,
)
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.encoding.screening import rank_features
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.response import ResponseLearner
from coarse_spark.core.learners.ridge.gram import GramStatistics, response_gram
from coarse_spark.core.learners.ridge.penalties import FREE, empirical_bayes, expand
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, TooFewRowsError
from coarse_spark.simulate.field import field_simulation

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}})
LINEAR = Basis("linear", UNIT)
ARMS = Basis(
    "arms",
    TreatmentSpace.from_dict(
        {"arm": {"kind": "categorical", "levels": list("abcdef"), "control": "a"}}
    ),
)


def stepped(n, seed=0):
    """Effects that jump: 1 + 2·1{x0 > 0 and x1 > 0}; hard for splines, easy for trees."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.uniform(-1, 1, (n, 4)), columns=list("abcd"))
    T = rng.random((n, 1))
    effect = 1 + 2.0 * ((X["a"] > 0) & (X["b"] > 0)).to_numpy()
    return X, T, 2 * (X["c"] > 0).to_numpy() + effect * T[:, 0] + 0.5 * rng.normal(size=n), effect


def test_the_first_split_is_the_one_scikit_learn_finds():
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 12, (800, 5)).astype(float)
    target = (
        np.where(inputs[:, 3] > 7, 2.0, -1.0)
        + np.where(inputs[:, 1] > 4, 0.7, 0)
        + 0.1 * rng.normal(size=800)
    )
    binned = Binned.of(inputs)
    features, places = grow(
        binned,
        target[None],
        np.ones(800),
        np.arange(5),
        Growth(depth=2, min_rows=5, penalty=1e-9),
    )
    peer = DecisionTreeRegressor(max_depth=2, min_samples_leaf=5).fit(inputs, target).tree_
    assert features[0] == peer.feature[0] == 3
    assert binned.edges[3][places[0]] < peer.threshold[0] < binned.edges[3][places[0]] + 1
    assert set(features[1:]) == {1}


def test_a_step_is_found_where_it_is():
    rng = np.random.default_rng(0)
    inputs = rng.random((20_000, 2))
    target = np.where(inputs[:, 1] > 0.237, 1.0, 0.0) - 0.763
    binned = Binned.of(inputs)
    features, places = grow(
        binned,
        target[None],
        np.ones(20_000),
        np.arange(2),
        Growth(depth=1, min_rows=25, penalty=50),
    )
    assert features.tolist() == [1]
    # one of 255 bins is 0.004 wide, a step of ten rows 0.0005; 32 bins missed it by up to 0.03
    assert binned.edges[1][places[0]] == pytest.approx(0.237, abs=0.0005)


@pytest.mark.parametrize(("rounds", "depth"), [(0, 3), (1, 3), (37, 3), (8, 2), (3, 5)])
def test_ensembles_add_up_the_leaves_of_every_tree(rounds, depth):
    rng, nodes = np.random.default_rng(rounds), 2**depth - 1
    inputs = rng.integers(-3, 4, (5_000, 4)).astype(np.float64)
    feature = rng.integers(-1, 4, (rounds, nodes))
    threshold = rng.integers(-3, 4, (rounds, nodes)).astype(np.float64)
    value = rng.normal(size=(rounds, nodes + 1, 2))
    expected, rows = np.zeros((len(inputs), 2)), np.arange(len(inputs))
    for splits, cuts, leaves in zip(feature, threshold, value, strict=True):
        node = np.zeros(len(inputs), dtype=int)
        for _ in range(depth):
            column = splits[node]
            right = (column >= 0) & (inputs[rows, column] > cuts[node])
            node = 2 * node + 1 + right
        expected += leaves[node - nodes]
    found = Trees(feature, threshold, value).predict(inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_trees_route_raw_values_as_they_routed_bins():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(3000, 6))
    binned = Binned.of(inputs)
    features, places = grow(
        binned,
        rng.normal(size=(2, 3000)),
        np.ones(3000),
        np.arange(6),
        Growth(depth=3, min_rows=20, penalty=10),
    )
    # of noise, no place within a bin is worth a search
    assert all(p in binned.last[f] for f, p in zip(features, places, strict=True))
    threshold = np.array([binned.edges[f][p] for f, p in zip(features, places, strict=True)])
    value = rng.normal(size=(8, 2))
    predicted = Trees(features[None], threshold[None], value[None]).predict(inputs)
    np.testing.assert_array_equal(predicted, value[route(binned.steps, features, places)])
    leaf = np.zeros(3000, dtype=int)
    for row in range(3000):
        node = 0
        for _ in range(3):
            node = 2 * node + 1 + int(inputs[row, features[node]] > threshold[node])
        leaf[row] = node - 7
    np.testing.assert_array_equal(route(binned.steps, features, places), leaf)


def test_boosting_recovers_jumps_and_stops_without_signal():
    X, T, y, effect = stepped(4000)
    Z = np.column_stack([np.ones(4000), T[:, 0] - 0.5])
    fit = fit_boosting(Binned.of(X.to_numpy()), Z, y, np.ones(4000), np.arange(4000) % 3, seed=0)
    predicted = (fit.start + fit.trees.predict(X.to_numpy()))[:, 1]
    assert np.corrcoef(predicted, effect)[0, 1] > 0.9
    assert np.corrcoef(fit.held_out[:, 1], effect)[0, 1] > 0.85
    noise = fit_boosting(
        Binned.of(X.to_numpy()),
        Z[:, 1:],
        np.random.default_rng(2).normal(size=4000),
        np.ones(4000),
        np.arange(4000) % 3,
        seed=0,
    )
    assert noise.rounds < fit.rounds / 2


def test_empirical_bayes_finds_the_variance_of_each_group():
    rng = np.random.default_rng(3)
    groups = np.repeat([FREE, 0, 1, 2], [1, 40, 40, 40])
    spread = np.repeat([1.0, 0.5, 0.05, 0.0], [1, 40, 40, 40])
    design = rng.normal(size=(6000, 121))
    y = design @ (spread * rng.normal(size=121)) + rng.normal(size=6000)
    blocks = np.repeat([0, 1, 0], [41, 40, 40])
    fit = empirical_bayes(GramStatistics.of(design, y, np.ones(6000)), groups, blocks)
    assert fit.variance == pytest.approx(1, abs=0.06)
    assert fit.penalties[0] == pytest.approx(1 / 0.25, rel=0.5)
    assert fit.penalties[1] == pytest.approx(1 / 0.0025, rel=0.5)
    assert fit.penalties[2] > 5000
    assert expand(np.array([2.0, 1e9]), np.array([FREE, 0, 1])).tolist() == [0.0, 2.0, np.inf]


def test_auto_takes_trees_for_jumps_and_splines_for_lines():
    X, T, y, effect = stepped(4000)
    errors = {}
    for name in ("sieve", "boosting", "auto"):
        learner = ResponseLearner("linear", learner=name, space=UNIT).fit(X, T, y)
        errors[name] = np.abs(learner.predict(X)[:, 1] - effect).mean()
    assert errors["boosting"] < 0.8 * errors["sieve"]
    assert errors["auto"] < 1.15 * errors["boosting"]
    assert learner.record_.diagnostics["effect_weight_boosting"] > 0.5

    smooth = field_simulation(4000, 1, seed=1)
    record = ResponseLearner().fit(smooth.X, smooth.T, smooth.y).record_
    assert record.diagnostics["effect_weight_sieve"] > 0.5
    assert record.diagnostics["r_loss_gain"] > 5 * record.diagnostics["r_loss_gain_error"]


def test_a_stack_survives_a_table_row_and_ignores_the_order_of_rows():
    X, T, y, _ = stepped(1500)
    fold, key = np.arange(1500) % 2, np.arange(1500) * 31
    settings = LearnerSettings(validation_parts=3)
    trial = TrialRows(X, T, y, key, fold)
    records = fit_models(trial, basis=LINEAR, settings=settings)
    shuffled = np.random.default_rng(4).permutation(1500)
    again = fit_models(trial.take(shuffled), basis=LINEAR, settings=settings)
    assert sorted(records) == [ALL_FOLDS, 0, 1]
    for number, record in records.items():
        row = json.loads(json.dumps(again[number].to_row()))
        np.testing.assert_array_equal(
            load_model(ModelRecord.from_row(row)).predict(X), load_model(record).predict(X)
        )
    assert "tree_value" in records[ALL_FOLDS].arrays


def test_the_order_of_treatments_does_not_matter():
    sample = field_simulation(1200, 2, seed=3)
    dimension = {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}
    predicted = []
    for names in (["t1", "t2"], ["t2", "t1"]):
        basis, T = (
            Basis("quadratic", TreatmentSpace.from_dict(dict.fromkeys(names, dimension))),
            sample.T[names].to_numpy(),
        )
        record = fit_models(TrialRows(sample.X, T, sample.y), basis=basis)[ALL_FOLDS]
        predicted.append(np.einsum("ij,ij->i", load_model(record).predict(sample.X), basis(T)))
    np.testing.assert_allclose(predicted[1], predicted[0], atol=1e-9)


@pytest.mark.parametrize("draw", ["binary", "count"])
def test_binary_and_count_outcomes(draw):
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, 6000)})
    T = rng.random((6000, 1))
    mean = 0.4 + 0.4 * X["x"].to_numpy() * T[:, 0]
    y = (rng.random(6000) < mean) if draw == "binary" else rng.poisson(mean)
    theta = ResponseLearner("linear", learner="sieve", space=UNIT).fit(X, T, y).predict(X)
    assert np.abs(theta[:, 1] - 0.4 * X["x"]).mean() < 0.08


def test_heavy_tails_are_winsorized_only_on_demand_and_reported():
    rng = np.random.default_rng(6)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, 4000)})
    T = rng.random((4000, 1))
    y = (1 + X["x"].to_numpy()) * T[:, 0] + rng.standard_t(1.5, 4000)
    plain = ResponseLearner("linear", learner="sieve", space=UNIT).fit(X, T, y)
    clipped = ResponseLearner("linear", learner="sieve", space=UNIT, winsorize=0.01).fit(X, T, y)
    assert plain.record_.warnings == ()
    assert "outcomes were clipped to" in clipped.record_.warnings[0]
    truth = 1 + X["x"]
    assert (
        np.abs(clipped.predict(X)[:, 1] - truth).mean()
        < np.abs(plain.predict(X)[:, 1] - truth).mean()
    )


def test_winsorizing_goes_by_weights_and_leaves_more_than_one_outcome():
    n = 400
    X, T = pd.DataFrame({"x": np.arange(n) % 7}), np.arange(n)[:, None] % 2
    y, settings = np.arange(n) / n, LearnerSettings(learner="sieve", winsorize=0.05)

    def clip(outcome, weight=None):
        trial = TrialRows(X, T, outcome, weight=weight)
        return Preparation.fit(trial, basis=LINEAR, settings=settings).clip

    assert clip(y) == clip(y, np.full(n, 0.3)) == tuple(np.quantile(y, [0.05, 0.95]))
    # the upper half counts nine times as much as the lower
    assert clip(y, np.where(y < 0.5, 1.0, 9.0)) == pytest.approx((0.25, 0.972), abs=0.005)
    with pytest.raises(
        TooFewRowsError,
        match=r"winsorize is 0\.05, which clips all outcomes to 0, expected less than 0\.03",
    ):
        clip((np.arange(n) < 12) * 1.0)
    assert clip(np.ones(n)) == (1, 1)


def test_features_are_ranked_by_their_main_effects_on_baseline_and_effects():
    rng = np.random.default_rng(7)
    plain, t = rng.normal(size=(3000, 12)), rng.normal(size=3000)
    y = plain[:, 0] + 0.2 * t * plain[:, 7] + 0.3 * t * plain[:, 9] + rng.normal(size=3000)
    ones = np.ones(3000)
    design, z = np.column_stack([ones, plain]), np.column_stack([ones, t])
    ranks = rank_features(response_gram(design, z, np.empty((3000, 0)), y, ones), 12)
    assert ranks[:2].tolist() == [9, 0]
    assert 7 in ranks[2:4]
    assert sorted(ranks) == list(range(12))


def test_choosing_products_takes_memory_by_the_rows_and_not_by_their_wide_design():
    def peak(rows):
        rng = np.random.default_rng(9)
        X = pd.DataFrame(rng.normal(size=(rows, 30)), columns=[f"x{j}" for j in range(30)])
        trial = TrialRows(X, rng.integers(0, 6, (rows, 1)), rng.random(rows), folds=1)
        tracemalloc.start()
        fitted = Preparation.fit(trial, basis=ARMS)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most, fitted

    (few, _), (many, fitted) = peak(6_000), peak(12_000)
    columns = 1 + len(fitted.encoder.plain)
    assert fitted.products
    assert (many - few) / 6_000 < 8 * columns * ARMS.size


def test_many_features_get_products_that_the_left_out_fold_did_not_choose():
    rng = np.random.default_rng(8)
    X = pd.DataFrame(rng.normal(size=(1200, 20)), columns=[f"x{j}" for j in range(20)])
    T = rng.random((1200, 1))
    a, b = X["x3"].to_numpy(), X["x4"].to_numpy()
    y = (a + b + a * b) * T[:, 0] * 4 + rng.normal(size=1200)
    fold = np.arange(1200) % 3
    settings = LearnerSettings(learner="sieve", max_columns=60)
    preparation = Preparation.fit(TrialRows(X, T, y, fold=fold), basis=LINEAR, settings=settings)
    columns = preparation.encoder.columns
    assert ("x3 * x4", "product", "") in columns
    assert (~preparation.excluded(ALL_FOLDS)).sum() == 60
    assert len(columns) > 60
    changed = np.where(fold == 1, y[::-1], y)
    again = Preparation.fit(TrialRows(X, T, changed, fold=fold), basis=LINEAR, settings=settings)
    labels = [
        {c[0] for c, out in zip(p.encoder.columns, p.excluded(1), strict=True) if not out}
        for p in (preparation, again)
    ]
    assert labels[0] == labels[1]
    theta = (
        ResponseLearner("linear", learner="sieve", space=UNIT, max_columns=60)
        .fit(X, T, y)
        .predict(X)
    )
    assert np.corrcoef(theta[:, 1], a + b + a * b)[0, 1] > 0.95


def test_shuffled_treatments_show_no_heterogeneity_among_many_features():
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(10):
        X = pd.DataFrame(rng.normal(size=(1500, 15)), columns=[f"x{j}" for j in range(15)])
        X["branch"] = rng.integers(0, 30, 1500).astype(str)
        y = (rng.random(1500) < 0.1 + 0.1 * (X["x0"] > 0)).astype(float)
        record = (
            ResponseLearner("linear", learner="sieve", space=UNIT)
            .fit(X, rng.random((1500, 1)), y)
            .record_
        )
        found += record.learner != "constant"
    assert found <= 3


def test_no_features_at_all_give_the_average_response():
    rng = np.random.default_rng(9)
    T = rng.random((500, 1))
    y = 1 + 2 * T[:, 0] + 0.1 * rng.normal(size=500)
    theta = ResponseLearner("linear", space=UNIT).fit(pd.DataFrame({"flat": np.ones(500)}), T, y)
    assert theta.record_.learner == "constant"
    assert "feature 'flat' is constant and was left out" in theta.record_.warnings
    np.testing.assert_allclose(theta.predict(pd.DataFrame({"flat": [1.0]})), [[1, 2]], atol=0.1)


def test_auto_basis_finds_the_curve():
    rng = np.random.default_rng(10)
    X, T = pd.DataFrame({"x": rng.normal(size=3000)}), rng.random((3000, 1))
    curves = {
        "linear": 2 * T[:, 0],
        "quadratic": 4 * T[:, 0] - 4 * T[:, 0] ** 2,
        "spline": np.sin(6 * T[:, 0]),
    }
    for expected, curve in curves.items():
        learner = ResponseLearner("auto", learner="sieve", space=UNIT).fit(
            X, T, curve + 0.3 * rng.normal(size=3000)
        )
        assert learner.basis_.name.startswith(expected)
        assert len(learner.basis_losses_) == 4 - ("any + quadratic" not in learner.basis_losses_)
    jump = np.where(T[:, 0] > 0.3, 1.0, 0.0) + 2 * T[:, 0]
    at_control = np.where(T > 0.3, T, 0.0)
    learner = ResponseLearner(
        ["linear", "quadratic", "spline", "any+linear"], learner="sieve", space=UNIT
    )
    learner.fit(X, at_control, jump + 0.3 * rng.normal(size=3000))
    assert learner.basis_.name == "any+linear"
    assert min(learner.basis_losses_.values()) == learner.basis_losses_["any+linear"]
    with pytest.raises(InvalidInputError, match="none of the bases quadratic, cubic is identified"):
        ResponseLearner(["quadratic", "cubic"], space=UNIT).fit(X, np.round(T), T[:, 0])
