"""The experiment as it is judged: every unit by models that never saw it, with its design."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.distributed.coefficients import with_coefficients
from coarse_spark.distributed.design import Design, design_of, with_representer
from coarse_spark.distributed.evaluate import seen
from coarse_spark.distributed.frames import (
    eligibility_columns,
    experiment_units,
    parts,
    theta_columns,
)
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.rules import with_eligibility, with_rules
from coarse_spark.distributed.sample import scored_sample
from coarse_spark.distributed.score import score
from coarse_spark.lake.step_results import ValidateResult
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, learner_settings


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """The experiment's units with the responses that the models of every fold give them.

    Attributes
    ----------
    units : usable rows.
    design : how they were treated.
    predictions : one row a unit and model fold: the columns of ``units`` but its features, those of
        the design, factor_0 …, and theta_0 … with the coefficients of eligibility last.
    problem : the run's, with rules of eligibility. Units of an experiment have no earlier
        treatment: it may have been learned from the very outcomes that it would be judged on.
    usable_rows : number of ``units``.
    """

    units: DataFrame
    design: Design
    predictions: DataFrame
    problem: MenuProblem
    usable_rows: int

    @cached_property
    def samples(self) -> dict[int, pd.DataFrame]:
        """By fold, units that its policies may be fitted on: weight, theta_0 … and feature_0 …"""
        columns = ["model_fold", "weight", *theta_columns(self.problem.coefficients)]
        rows = scored_sample(self.units, seen(self.predictions), columns, self.usable_rows)
        return dict(parts(rows, "model_fold"))


@contextmanager
def cross_fitted(run: Run) -> Iterator[CrossFitted]:
    """Yield the experiment scored by the models of all folds, kept for the block."""
    configuration, problem = run.configuration, run.problem
    rules = eligibility_columns(len(configuration.menu.eligibility))
    setup = experiment_setup(configuration)
    with materialized(experiment_units(run.experiment, setup)) as units:
        design = design_of(units, setup, problem.basis, learner_settings(configuration))
        run.warn(*design.problems)
        designed = with_representer(units, design, problem.basis.size)
        scored = score(
            designed,
            run.lake.read("models", run.run_id).where(F.col("fold") != ALL_FOLDS),
            features=configuration.experiment.features,
            problem=problem,
            keep=[c for c in designed.columns if not c.startswith("feature_")],
            granular=False,
        )
        scored = with_coefficients(scored, problem.of_profit)
        with materialized(with_rules(scored, problem.coefficients, rules)) as predictions:
            by_column = dict(zip(rules, configuration.menu.eligibility.values(), strict=True))
            ruled = with_eligibility(problem, predictions, by_column)
            usable = run.result(ValidateResult).usable_rows
            yield CrossFitted(units, design, predictions, ruled, usable)
