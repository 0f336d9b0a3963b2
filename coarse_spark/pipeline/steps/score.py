"""Score the population: response coefficients of every unit, and its own best treatment."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.treatments import Categorical
from coarse_spark.distributed.brought import with_brought, with_own_best
from coarse_spark.distributed.coefficients import with_factors
from coarse_spark.distributed.frames import (
    eligibility_columns,
    factor_columns,
    number_columns,
    population_units,
    theta_columns,
)
from coarse_spark.distributed.rates import outside_rates
from coarse_spark.distributed.score import granular_columns, unseen_partitions
from coarse_spark.distributed.score import score as score_units
from coarse_spark.lake.contract import RESPONSES
from coarse_spark.lake.step_results import FitResult, ScoreResult
from coarse_spark.pipeline.rules import written_rules
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, unit_weight
from coarse_spark.text import counted, shown


def score(run: Run) -> None:
    """Score the population into ``responses``, with every unit's own best treatment."""
    with run.step("score"):
        table = run.experiment if run.population is None else run.population
        run.replace(RESPONSES, response_rows(run, table))
        responses = run.lake.read("responses", run.run_id)
        row = responses.agg(
            F.count("*").alias("units"),
            F.sum("weight").alias("weight"),
            F.sum(F.col("weight") * F.col("granular_profit")).alias("granular"),
            F.sum((F.col("partition") != F.col("served_by")).cast("long")).alias("pooled"),
            *outside_rates(run.problem, run.result(FitResult).rates),
        ).collect()[0]
        run.keep(
            ScoreResult(
                units=row["units"],
                granular_value=row["granular"] / row["weight"],
                pooled_units=row["pooled"],
                unseen_units=warn_of_unseen(run, responses) if row["pooled"] else 0,
                outside_rates=_warn_of_rates(run, row),
                weight=row["weight"],
            )
        )


def response_rows(run: Run, table: DataFrame, brought: DataFrame | None = None) -> DataFrame:
    """Return rows of table ``responses`` of units, by the models of the run, or as brought along.

    Parameters
    ----------
    run : whose models are fitted.
    table : one row a unit, as the user has it.
    brought : responses of these units, where they are brought along; by default those that the run
        started with.
    """
    configuration, problem = run.configuration, run.problem
    eligible = eligibility_columns(len(configuration.menu.eligibility))
    setup, rules = experiment_setup(configuration), list(configuration.menu.eligibility.values())
    units = population_units(table, setup, unit_weight(configuration))
    keep = ["unit_id", "partition", "weight", *eligible]
    if configuration.responses.given:
        if brought is None:
            brought = run.responses[configuration.responses.of_population]
        columns = configuration.response_columns
        numbers = number_columns(len(setup.unit_columns))
        known = with_brought(units.select(*keep, *numbers), brought, setup.unit_id, columns)
        units = with_factors(known, problem.of_profit)
        scored = with_own_best(units, problem, rules).withColumn("served_by", F.col("partition"))
    else:
        scored = score_units(
            units,
            _models(run),
            features=configuration.experiment.features,
            problem=problem,
            keep=keep,
            granular=True,
            eligibility=rules,
        )
    granular = [
        _decoded(run, position).alias(f"best_{name}")
        for position, name in enumerate(configuration.space.names)
    ]
    return scored.select(
        "unit_id",
        "partition",
        *theta_columns(problem.of_profit.responses),
        "weight",
        "served_by",
        "granular_profit",
        *granular,
        *factor_columns(len(problem.of_profit.factors)),
        *(
            F.col(name).alias(written)
            for name, written in zip(eligible, written_rules(configuration), strict=True)
        ),
    )


def warn_of_unseen(run: Run, responses: DataFrame) -> int:
    """Return how many units are in partitions that the experiment does not have, with a warning.

    Parameters
    ----------
    run : that warns.
    responses : rows of the table.
    """
    # the experiment's own units are in partitions that it has
    if not run.declared.population.given:
        return 0
    unseen = unseen_partitions(responses, _models(run))
    if unseen is None:
        return 0
    run.warn(
        f"{counted(unseen.units, 'unit of the population is', 'units of the population are')} in "
        f"{counted(unseen.partitions, 'partition')} that the experiment does not have, the largest "
        f"{shown(unseen.largest, private=run.declared.privacy)}; the pooled model serves them"
    )
    return unseen.units


def _warn_of_rates(run: Run, row: Row) -> int | None:
    """Return how many units have chances or shares predicted that are none, with warnings.

    None where outcomes are neither.

    Parameters
    ----------
    run : that warns.
    row : units, and what ``outside_rates`` counts.
    """
    fitted, names = run.result(FitResult), run.declared.experiment.outcomes
    for number in fitted.rates:
        outside, units = int(row[f"outside_{number}"]), int(row["units"])
        if not outside:
            continue
        remedy = "use a smaller basis or fewer features"
        if run.declared.responses.given:
            remedy = "the models that they were brought along from do so: bound what they predict"
        elif fitted.scale_of(number) != "logistic":
            remedy = f"compare response.scale: logistic, or {remedy}"
        which = f" '{names[number]}'" if len(names) > 1 else ""
        run.warn(
            f"outcomes{which} lie between 0 and 1, but those predicted for {outside:,} of "
            f"{counted(units, 'unit')} ({outside / units:.1%}) leave that range at some treatment "
            f"({row[f'least_{number}']:.3g} to {row[f'greatest_{number}']:.3g}): what such units "
            f"seem to gain is overstated; {remedy}"
        )
    return int(row["outside"]) if fitted.rates else None


def _models(run: Run) -> DataFrame:
    return run.lake.read("models", run.run_id).where(F.col("fold") == ALL_FOLDS)


def _decoded(run: Run, position: int) -> Any:
    dimension, column = (
        run.configuration.space.dimensions[position],
        F.col(granular_columns(run.problem)[position]),
    )
    if not isinstance(dimension, Categorical):
        return column
    return F.coalesce(
        *(
            F.when(column == F.lit(float(code)), F.lit(level))
            for code, level in enumerate(dimension.levels)
        )
    )
