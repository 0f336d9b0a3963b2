"""Partitions that lean on the pooled model.

Closer to the truth where markets are alike, no worse where they are not.
"""

import json

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.crossfit import accumulate, fit_models, solve
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS, parts_of, parts_per_fold
from coarse_spark.core.learners.model import AdditiveModel, load_model
from coarse_spark.core.learners.record import FORMAT_VERSION, ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.sieve import FoldSieve
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}})
LINEAR = Basis("linear", UNIT)
SIEVE = LearnerSettings(learner="sieve")


def trial(market, rows, alike, seed=0):
    """A market's experiment with effect 1 + 1.5·a − 1{b > 0}.

    Where markets are not ``alike``, its sign and scale differ.
    """
    rng = np.random.default_rng([seed, market])
    X = pd.DataFrame(rng.uniform(-1, 1, (rows, 4)), columns=list("abcd"))
    T = rng.random((rows, 1)) * (1 if alike else 0.6 + 0.1 * market)
    factor = 1.0 if alike else (-1.0) ** market * (1 + 0.5 * market)
    effect = factor * (1 + 1.5 * X["a"] - (X["b"] > 0)).to_numpy()
    y = 10 * (not alike) * market + X["c"].to_numpy() + effect * T[:, 0] + rng.normal(size=rows)
    return X, T, y, effect, market * 100_000 + np.arange(rows)


def together(markets, folds=1):
    T, y, key = (np.concatenate([m[i] for m in markets]) for i in (1, 2, 4))
    return TrialRows(pd.concat([m[0] for m in markets]), T, y, key, key % folds)


def prepared(markets):
    return Preparation.fit(together(markets), basis=LINEAR)


def pooled_models(markets, folds=1, settings=SIEVE, batches=1, preparation=None):
    whole, preparation, sums = together(markets, folds), preparation or prepared(markets), {}
    for rows in np.array_split(np.arange(len(whole)), batches):
        found = accumulate(preparation, whole.take(rows), folds=folds, settings=settings)
        for part, statistics in found.items():
            sums[part] = sums[part] + statistics if part in sums else statistics
    return solve(preparation, sums, folds=folds, settings=settings)


def errors(markets, settings):
    """Root mean squared errors of the effects, unshrunk and shrunk, by market."""
    _, pooled = pooled_models(markets, settings=settings)
    result = []
    for X, T, y, effect, key in markets:
        models = [
            fit_models(TrialRows(X, T, y, key), basis=LINEAR, settings=settings, pooled=common)[
                ALL_FOLDS
            ]
            for common in (None, pooled)
        ]
        result.append(
            [
                np.sqrt(np.mean((load_model(model).predict(X)[:, 1] - effect) ** 2))
                for model in models
            ]
        )
    return np.array(result)


@pytest.mark.parametrize(("learner", "rows"), [("sieve", 300), ("sieve", 1000), ("auto", 600)])
def test_markets_alike_come_closer_to_the_truth(learner, rows):
    found = errors(
        [trial(market, rows, alike=True) for market in range(6)], LearnerSettings(learner=learner)
    )
    plain, shrunk = found.mean(axis=0)
    assert shrunk < 0.7 * plain


@pytest.mark.parametrize(("learner", "rows"), [("sieve", 400), ("sieve", 1500), ("auto", 600)])
def test_markets_that_differ_are_not_harmed(learner, rows):
    found = errors(
        [trial(market, rows, alike=False) for market in range(6)], LearnerSettings(learner=learner)
    )
    plain, shrunk = found.mean(axis=0)
    assert shrunk < 1.05 * plain


def test_held_out_pooled_functions_never_saw_the_rows_they_predict():
    markets, folds, part = [trial(market, 400, alike=True) for market in range(3)], 3, 4
    preparation = prepared(markets)
    records, before = pooled_models(markets, folds, preparation=preparation)
    fold = part // parts_per_fold(folds, SIEVE)
    changed = []
    for X, T, y, effect, key in markets:
        inside = parts_of(key % folds, key, folds, SIEVE, 0) == part
        assert 0 < inside.mean() < 0.3
        changed.append((X, T, np.where(inside, y + T[:, 0] * X["d"] / 2, y), effect, key))
    changed_records, after = pooled_models(changed, folds, preparation=preparation)
    for (
        left_out,
        record,
    ) in records.items():  # chosen on all parts, for the pooled sieve as for any other
        name = "effect_penalty_multiplier"
        assert changed_records[left_out].diagnostics[name] == record.diagnostics[name]
    for left_out, functions in before.held_out.items():
        for number, held_out in functions.items():
            unseen = number == part or left_out == fold
            assert np.array_equal(after.held_out[left_out][number], held_out) == unseen
        assert np.array_equal(after.functions[left_out], before.functions[left_out]) == (
            left_out == fold
        )


def test_a_partition_reads_the_pooled_model_in_its_own_coordinates():
    markets = [trial(market, 500, alike=False) for market in range(3)]
    records, pooled = pooled_models(markets)
    X, T, y, _, _ = markets[2]
    own = Preparation.fit(TrialRows(X, T, y), basis=LINEAR)
    sieve = FoldSieve(ALL_FOLDS, None, {0: None}, None)
    member = pooled.member(own, sieve, pooled.preparation.encoder.transform(X), np.zeros(len(y)))
    model = AdditiveModel(
        own, np.zeros((2, len(own.encoder.columns))), np.zeros(1), pooled=member.functions
    )
    np.testing.assert_allclose(
        model.predict(X), load_model(records[ALL_FOLDS]).predict(X), atol=1e-9
    )
    with pytest.raises(InvalidInputError, match="basis 'linear', expected 'quadratic'"):
        pooled.member(
            Preparation.fit(TrialRows(X, T, y), basis=Basis("quadratic", UNIT)),
            sieve,
            np.empty((0, 1)),
            np.empty(0),
        )


def test_shrunk_models_survive_a_table_row_and_ignore_order_and_batches():
    markets = [trial(market, 500, alike=True) for market in range(3)]
    X, T, y, _, key = markets[0]
    whole = TrialRows(X, T, y, key, key % 2)
    settings = LearnerSettings(validation_parts=3)
    _, pooled = pooled_models(markets, folds=2, settings=settings)
    records = fit_models(whole, basis=LINEAR, settings=settings, pooled=pooled)
    _, pooled = pooled_models(
        markets[::-1], folds=2, settings=settings, batches=7, preparation=prepared(markets)
    )
    mixed = np.random.default_rng(4).permutation(len(y))
    again = fit_models(whole.take(mixed), basis=LINEAR, settings=settings, pooled=pooled)
    for fold, record in records.items():
        row = json.loads(json.dumps(again[fold].to_row()))
        assert row["format_version"] == FORMAT_VERSION
        assert "pooled_coefficients" in row["arrays"]
        np.testing.assert_allclose(
            load_model(ModelRecord.from_row(row)).predict(X),
            load_model(record).predict(X),
            atol=1e-9,
        )
    weights = {
        name: value
        for name, value in records[ALL_FOLDS].diagnostics.items()
        if name.startswith("effect_weight")
    }
    assert weights["effect_weight_pooled"] > 0.3
    assert records[ALL_FOLDS].learner == "+".join(
        n.removeprefix("effect_weight_") for n, value in weights.items() if value > 0
    )


def test_rows_of_the_first_format_are_read():
    X, T, y, _, key = trial(0, 600, alike=True)
    record = fit_models(TrialRows(X, T, y, key, key % 2), basis=LINEAR, settings=SIEVE)[ALL_FOLDS]
    row = {**record.to_row(), "format_version": 1}
    np.testing.assert_array_equal(
        load_model(ModelRecord.from_row(row)).predict(X), load_model(record).predict(X)
    )


def test_a_pool_without_heterogeneity_lends_none():
    markets = []
    for market in range(4):
        X, T, y, effect, key = trial(market, 400, alike=True)
        markets.append((X, T, y - (effect - 1) * T[:, 0], np.ones(len(y)), key))
    records, pooled = pooled_models(markets)
    assert records[ALL_FOLDS].learner == "constant"
    X, T, y, _, key = markets[0]
    whole = TrialRows(X, T, y, key)
    model = fit_models(whole, basis=LINEAR, settings=SIEVE, pooled=pooled)[ALL_FOLDS]
    assert np.ptp(load_model(model).predict(X)[:, 1]) < 1e-9
