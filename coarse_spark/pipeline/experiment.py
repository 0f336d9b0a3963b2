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
from coarse_spark.distributed.brought import with_brought, with_judging_folds
from coarse_spark.distributed.coefficients import with_coefficients, with_factors
from coarse_spark.distributed.design import Design, design_of, with_representer
from coarse_spark.distributed.evaluate import seen
from coarse_spark.distributed.frames import (
    ExperimentSetup,
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
    brought : whether the responses were brought along: a unit has those of its fold alone.
    """

    units: DataFrame
    design: Design
    predictions: DataFrame
    problem: MenuProblem
    usable_rows: int
    brought: bool = False

    @property
    def chosen_on(self) -> DataFrame:
        """The rows that policies may be chosen on, with the fold that judges them: sketch_group.

        No outcome of that fold is in them.
        """
        if self.brought:
            return self.predictions.withColumn("sketch_group", F.col("model_fold"))
        return seen(self.predictions)

    @cached_property
    def samples(self) -> dict[int, pd.DataFrame]:
        """By fold, units that its policies may be fitted on: weight, theta_0 … and feature_0 …"""
        columns = ["model_fold", "weight", *theta_columns(self.problem.coefficients)]
        rows = scored_sample(self.units, self.chosen_on, columns, self.usable_rows)
        return dict(parts(rows, "model_fold"))


@contextmanager
def cross_fitted(run: Run, problem: MenuProblem | None = None) -> Iterator[CrossFitted]:
    """Yield the experiment scored by the models of all folds, kept for the block.

    Parameters
    ----------
    run : whose models they are.
    problem : that says which coefficients units need, without rules; default: the run's.
    """
    configuration = run.configuration
    problem = run.problem if problem is None else problem
    rules = eligibility_columns(len(configuration.menu.eligibility))
    setup = experiment_setup(configuration)
    with materialized(_units(run, setup)) as units:
        design = design_of(units, setup, problem.basis, learner_settings(configuration))
        run.warn(*design.problems)
        designed = with_representer(units, design, problem.of_profit.responses)
        keep = [c for c in designed.columns if not c.startswith("feature_")]
        if configuration.responses.given:
            table, columns = run.responses["responses.experiment"], configuration.response_columns
            known = with_brought(designed.select(*keep), table, setup.unit_id, columns)
            scored = with_factors(known, problem.of_profit).withColumn("model_fold", F.col("fold"))
        else:
            scored = score(
                designed,
                run.lake.read("models", run.run_id).where(F.col("fold") != ALL_FOLDS),
                features=configuration.experiment.features,
                problem=problem,
                keep=keep,
                granular=False,
            )
        scored = with_coefficients(scored, problem.of_profit)
        with materialized(with_rules(scored, problem.coefficients, rules)) as predictions:
            by_column = dict(zip(rules, configuration.menu.eligibility.values(), strict=True))
            ruled = with_eligibility(problem, predictions, by_column)
            usable = run.result(ValidateResult).usable_rows
            brought = configuration.responses.given
            yield CrossFitted(units, design, predictions, ruled, usable, brought)


def _units(run: Run, setup: ExperimentSetup) -> DataFrame:
    units, responses = experiment_units(run.experiment, setup), run.declared.responses
    if not responses.given:
        return units
    table = run.responses["responses.experiment"]
    return with_judging_folds(units, table, setup.unit_id, responses.fold)
