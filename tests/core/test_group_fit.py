"""Fits of Spark runs without Spark: a partition as an executor fits it, the pooled preparation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coarse_spark import TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding import conditional_mean
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.fit import FitSettings, _group_fitter
from coarse_spark.distributed.frames import ExperimentSetup, trial_rows
from coarse_spark.distributed.sample import in_random_order

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}})
SETUP = ExperimentSetup(unit_id=("id",), features=("a",), outcome="y", space=UNIT, folds=5)


def units(outcome, treatment, key):
    """Experiment units of one partition, arrays (n,)."""
    return pd.DataFrame(
        {
            "partition": "here",
            "member": 0,
            "key": key,
            "fold": key % 5,
            "weight": 1.0,
            "stratum": "",
            "outcome": outcome,
            "treatment_0": np.asarray(treatment, float),
            "feature_0": np.random.default_rng(1).random(len(key)),
        }
    )


def status(outcome, **settings):
    """Status and reason of a partition with outcomes (n,), treated by every other unit."""
    rows = len(outcome)
    group = units(outcome, np.arange(rows) % 2, np.random.default_rng(0).integers(0, 2**62, rows))
    learner = LearnerSettings(learner="sieve", **settings)
    fit = _group_fitter(
        SETUP, FitSettings(Basis("linear", UNIT), learner, 500, 150_000, True), None
    )
    return tuple(fit(group)[["status", "error"]].iloc[0])


@pytest.mark.parametrize("scale", ["relative", "logistic"])
@pytest.mark.parametrize("successes", [0, 1])
def test_outcomes_too_rare_for_its_own_models_leave_a_partition_to_the_pooled_one(scale, successes):
    found, why = status(np.arange(1_000) < successes, scale=scale)
    assert found == "pooled"
    assert "the mean outcome is 0" in why
    assert status(np.arange(1_000) < 200, scale=scale) == ("ok", None)


def test_a_partition_at_a_loss_fails():
    found, why = status(np.full(1_000, -1.0), scale="relative")
    assert found == "failed"
    assert "the mean outcome is -1, expected above 0" in why


def test_rare_treatments_of_a_sample_have_their_probability(monkeypatch):
    """All of a rare arm are in, of others a fiftieth: the largest keys are all of it."""
    monkeypatch.setattr(conditional_mean, "TREE_ROWS", 3_000)
    rng = np.random.default_rng(0)
    key, arm = rng.integers(0, 2**62, 200_000), rng.choice(3, 200_000, p=[0.5, 0.495, 0.005])
    drawn = (arm == 2) | (key < 2**62 / 50)
    sample = units(rng.random(drawn.sum()), arm[drawn], key[drawn]).sort_values("key")
    sample["weight"] = np.where(sample["treatment_0"] == 2, 1 / 50, 1.0)
    arms = {"arm": {"kind": "categorical", "levels": ["none", "mail", "visit"], "control": "none"}}
    space = TreatmentSpace.from_dict(arms)
    setup = ExperimentSetup(unit_id=("id",), features=("a",), outcome="y", space=space, folds=5)
    rows = trial_rows(in_random_order(sample, setup.seed), setup)
    learner = LearnerSettings(residualize=True)
    found = Preparation.fit(rows, basis=Basis("arms", space), settings=learner, seed=setup.seed)
    features = found.encoder.transform(sample[["feature_0"]].rename(columns={"feature_0": "a"}))
    means = found.treatment_mean(features, found.encoder.plain)
    mean = np.average(means, axis=0, weights=sample["weight"])
    shares = np.linalg.solve(found.whitening.matrix, np.r_[1, mean])
    assert shares[2] == pytest.approx(np.average(arm == 2), rel=0.15)
