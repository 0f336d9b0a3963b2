"""The models of one partition, as an executor fits them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coarse_spark import TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.fit import FitSettings, _group_fitter
from coarse_spark.distributed.frames import ExperimentSetup

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}})
SETUP = ExperimentSetup(unit_id=("id",), features=("a",), outcome="y", space=UNIT, folds=5)


def status(outcome, **settings):
    """Status and reason of a partition with outcomes (n,), treated by every other unit."""
    rows = len(outcome)
    key = np.random.default_rng(0).integers(0, 2**62, rows)
    group = pd.DataFrame(
        {
            "partition": "here",
            "member": 0,
            "key": key,
            "fold": key % 5,
            "weight": 1.0,
            "stratum": "",
            "outcome": outcome,
            "treatment_0": np.arange(rows) % 2 * 1.0,
            "feature_0": np.random.default_rng(1).random(rows),
        }
    )
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
