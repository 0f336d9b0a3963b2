"""Chances that are predicted outside 0 … 1 are counted and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.distributed.frames import matrix, theta_columns
from coarse_spark.lake.step_results import FitResult, ScoreResult

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

UNITS = 2_000
CONFIGURATION = """\
experiment:
  path: {folder}/experiment.parquet
  format: parquet
  unit_id: customer
  features: [need]
  outcome: bought
treatments:
  discount: {{kind: continuous, lower: 0, upper: 1, control: 0}}
response: {{basis: linear, learner: sieve, scale: additive, folds: 2}}
profit: {{margin: 1 - discount}}
output: {{path: {folder}/tables}}
"""


@pytest.mark.long
def test_chances_outside_their_range_are_counted_and_told(
    spark: SparkSession, tmp_path: Path
) -> None:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.pipeline import fit, score, start_run

    rng = np.random.default_rng(0)
    need, discount = rng.uniform(-1, 1, UNITS), rng.uniform(0, 1, UNITS)
    # a step of the chance, which splines overshoot
    bought = (rng.random(UNITS) < np.where(need > 0, 0.98, 0.02)).astype(float)
    frame = {"customer": np.arange(UNITS), "need": need, "discount": discount}
    pd.DataFrame({**frame, "bought": bought}).to_parquet(tmp_path / "experiment.parquet")
    (tmp_path / "run.yml").write_text(CONFIGURATION.format(folder=tmp_path))
    run = start_run(spark, load_configuration(tmp_path / "run.yml"))
    for step in (fit, score):
        step(run)
    assert run.result(FitResult).outcomes == (0, 1)
    told = [warning for warning in run.record.warnings if "outcomes lie between 0 and 1" in warning]
    theta = matrix(run.lake.read("responses", run.run_id).toPandas(), theta_columns(2))
    # linear in the discount: the extremes are at its ends
    predicted = theta @ np.array([[1, 1], [0, 1]])
    outside = int(((predicted < 0) | (predicted > 1)).any(axis=1).sum())
    assert 0 < outside < UNITS
    assert run.result(ScoreResult).outside_rates == outside
    assert len(told) == 1
    assert f"{outside:,} of {UNITS:,} units" in told[0]
    assert f"({predicted.min():.3g} to {predicted.max():.3g})" in told[0]


def test_chances_are_counted_beside_other_outcomes(spark: SparkSession) -> None:
    from coarse_spark.core.menu.problem.problem import MenuProblem
    from coarse_spark.core.profit import Profit
    from coarse_spark.core.treatments import TreatmentSpace
    from coarse_spark.distributed.rates import outside_rates

    discount = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}
    space = TreatmentSpace.from_dict({"discount": discount})
    profit = Profit({"spend": "1", "bought": "2", "kept": "1"})
    problem = MenuProblem.build(space, "linear", profit)
    rows = [
        (30.0, 5.0, 0.5, 0.25, 0.5, 0.0),
        (30.0, 5.0, 0.5, 0.75, 0.5, 0.75),
        (30.0, 5.0, 0.5, -0.75, 0.5, 0.0),
    ]
    units = spark.createDataFrame(rows, theta_columns(6))
    found = units.agg(*outside_rates(problem, [1, 2])).collect()[0].asDict()
    assert found == {
        "outside": 2,
        "outside_1": 2,
        "least_1": -0.25,
        "greatest_1": 1.25,
        "outside_2": 1,
        "least_2": 0.5,
        "greatest_2": 1.25,
    }
