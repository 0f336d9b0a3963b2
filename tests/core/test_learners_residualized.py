"""Treatments that were not randomized: effects are learned from what units deviate by."""

from __future__ import annotations

import numpy as np
import pytest
from pricing import FEATURES, pricing

from coarse_spark import ResponseLearner, TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.crossfit import accumulate, fit_models, solve
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.sieve import FoldSieve
from coarse_spark.errors import TooFewRowsError

SPACE = TreatmentSpace.from_dict(
    {"price": {"kind": "continuous", "lower": 0.5, "upper": 1, "control": 1}}
)
LINEAR = Basis("linear", SPACE)
NEW = pricing(5_000, 99)
LOW = NEW["income"] < 1


def rows_of(units, folds=1):
    return TrialRows(
        units[list(FEATURES)],
        units[["price"]].to_numpy(),
        units["demand"].to_numpy(),
        key=np.arange(len(units)) * 7919,
        fold=np.arange(len(units)) % folds,
    )


def errors(theta):
    """Root mean squared errors of the demand at the control, and of the slope."""
    control = theta.sum(axis=1) - NEW["base"] - NEW["slope"]
    return np.sqrt(np.mean(control**2)), np.sqrt(np.mean((theta[:, 1] - NEW["slope"]) ** 2))


@pytest.mark.parametrize("learner", ["sieve", "auto"])
def test_slopes_and_levels_are_nearer_to_the_truth(learner):
    units = pricing(4_000)
    plain, own = (
        ResponseLearner(
            basis="linear", learner=learner, scale="additive", space=SPACE, residualize=residualize
        )
        .fit(units[list(FEATURES)], units[["price"]], units["demand"])
        .predict(NEW[list(FEATURES)])
        for residualize in (False, True)
    )
    (level, slope), (own_level, own_slope) = errors(plain), errors(own)
    assert own_slope < 0.9 * slope
    assert own_level < 1.05 * level
    # what incomes below 1 were charged less for is no part of what they react by
    bias = np.abs((own[:, 1] - NEW["slope"]).groupby(LOW).mean())
    assert (bias < np.abs((plain[:, 1] - NEW["slope"]).groupby(LOW).mean())).all()


@pytest.mark.parametrize("scale", ["additive", "relative"])
def test_a_row_of_the_model_table_predicts_the_same(scale):
    settings = LearnerSettings(residualize=True, scale=scale)
    record = fit_models(rows_of(pricing(1_500)), basis=LINEAR, settings=settings)[ALL_FOLDS]
    X = NEW[list(FEATURES)]
    np.testing.assert_array_equal(
        load_model(ModelRecord.from_row(record.to_row())).predict(X), load_model(record).predict(X)
    )
    # the first coefficient is the demand at price 0, not the mean demand
    assert load_model(record).predict(X).sum(axis=1).mean() == pytest.approx(
        (NEW["base"] + NEW["slope"]).mean(), rel=0.05
    )


def test_batches_of_the_pooled_model_and_the_order_of_rows_do_not_matter():
    settings, rows = LearnerSettings(learner="sieve", residualize=True), rows_of(pricing(3_000), 3)
    preparation = Preparation.fit(rows, basis=LINEAR, settings=settings)
    found = []
    for batches in (1, 7):
        sums = {}
        for here in np.array_split(np.random.default_rng(batches).permutation(3_000), batches):
            part_sums = accumulate(preparation, rows.take(here), folds=3, settings=settings)
            for part, statistics in part_sums.items():
                sums[part] = sums[part] + statistics if part in sums else statistics
        records, _ = solve(preparation, sums, folds=3, settings=settings)
        found.append(load_model(records[0]).predict(NEW[list(FEATURES)]))
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-8)


def test_a_partition_leans_on_the_pooled_model_wherever_its_prices_are_centred():
    """A market of higher prices, whose own rows tell little, is served by what all have shown."""
    settings = LearnerSettings(learner="sieve", residualize=True)
    everybody = rows_of(pricing(6_000))
    preparation = Preparation.fit(everybody, basis=LINEAR, settings=settings)
    sums = accumulate(preparation, everybody, folds=1, settings=settings)
    _, pooled = solve(preparation, sums, folds=1, settings=settings)
    few = pricing(900, 5)
    shift = 0.3
    market = rows_of(few.assign(price=few["price"] + shift, demand=few["demand"] - 15 * shift))
    alone, leaning = (
        load_model(
            fit_models(market, basis=LINEAR, settings=settings, pooled=common)[ALL_FOLDS]
        ).predict(NEW[list(FEATURES)])
        for common in (None, pooled)
    )
    truth = NEW["base"] - shift * (NEW["slope"] + 15)
    (slope_alone, slope), (level_alone, level) = (
        [np.sqrt(np.mean((theta[:, 1] - NEW["slope"]) ** 2)) for theta in (alone, leaning)],
        [
            np.sqrt(np.mean((theta[:, 0] + theta[:, 1] - truth - NEW["slope"]) ** 2))
            for theta in (alone, leaning)
        ],
    )
    assert slope < slope_alone
    assert level < 1.05 * level_alone
    # what it lends is E[y | x] of everybody, in this market's units but not at its prices
    own = Preparation.fit(market, basis=LINEAR, settings=settings)
    features = preparation.encoder.transform(few[list(FEATURES)])
    sieve, first = FoldSieve(ALL_FOLDS, None, {0: None}, None), np.zeros(900, dtype=int)
    lent = pooled.member(own, sieve, features, first).functions.coefficients[0] @ features.T
    common = pooled.functions[ALL_FOLDS][0] @ features.T
    np.testing.assert_allclose(
        own.center + own.scale * lent, preparation.center + preparation.scale * common
    )


def test_parts_in_one_third_cannot_be_centred():
    rows = rows_of(pricing(1_000), 4)
    alike = rows.take(np.flatnonzero(rows.fold % 3 == 0))
    with pytest.raises(TooFewRowsError, match="the 500 rows are all in one third of the validat"):
        fit_models(alike, basis=LINEAR, settings=LearnerSettings(residualize=True))
