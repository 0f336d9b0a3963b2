"""Tables of responses that are brought along: what they must hold, one row a unit."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.basis import Basis
from coarse_spark.distributed.brought import seen_by_models, with_brought, with_fold_texts
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    column,
    experiment_units,
    population_units,
)
from coarse_spark.distributed.validate.columns import response_problems
from coarse_spark.distributed.validate.values import Findings, check_repeated_ids
from coarse_spark.text import counted, shown


def check_response_table(
    setup: ExperimentSetup,
    table: DataFrame,
    columns: Sequence[str],
    found: Findings,
    fold: str | None = None,
) -> None:
    """Check names, types and values of a table of responses, and that no unit is there twice.

    Parameters
    ----------
    setup : names the columns of the id.
    table : one row a unit.
    columns : of the coefficients.
    found : takes the problems.
    fold : column with the folds of cross-fitting; None without.
    """
    found.problems += response_problems(setup, table, columns, fold, found.label)
    if found.problems:
        return
    value = {name: column(name).cast("double") for name in columns}
    # no comparison holds for null; NaN is above every number
    broken = {
        name: ~F.coalesce(F.abs(v) < F.lit(float("inf")), F.lit(False)) for name, v in value.items()
    }
    nobody = [column(name).isNull() for name in setup.unit_id]
    row = table.agg(
        F.count(F.lit(1)),
        *(F.count(F.when(wrong, F.lit(1))) for wrong in (*broken.values(), *nobody)),
    ).collect()[0]
    if not row[0]:
        found.problem("the table has no rows")
        return
    for name, count in zip(setup.unit_id, row[1 + len(broken) :], strict=True):
        if count:
            found.problem(
                f"{count} of {row[0]} rows have a null unit_id '{name}', expected an id in every "
                "row"
            )
    for name, count in zip(columns, row[1 : 1 + len(broken)], strict=True):
        if count:
            found.problem(
                f"{count} of {row[0]} rows have a null, NaN or infinite response '{name}', "
                "expected a number in every row"
            )
    check_repeated_ids(table, setup.unit_id, found)


def _check_folds(
    setup: ExperimentSetup, units: DataFrame, table: DataFrame, fold: str, found: Findings
) -> None:
    """Check that units have folds, as many as are asked for, which split no cluster."""
    known = with_fold_texts(units, table, setup.unit_id, fold)
    text = F.col("fold_text")
    row = known.agg(F.count_distinct(text), F.count(F.when(text.isNull(), F.lit(1)))).collect()[0]
    if row[1]:
        found.problem(
            f"{counted(row[1], 'unit of the experiment has', 'units of the experiment have')} a "
            f"null fold '{fold}', expected the fold that the model of the unit left out"
        )
    elif row[0] != setup.folds:
        found.problem(
            f"the column '{fold}' has {counted(row[0], 'fold')}, expected response.folds = "
            f"{setup.folds}"
        )
    elif setup.cluster is not None:
        folds = known.groupBy("cluster").agg(F.count_distinct(text).alias("folds"))
        split = folds.where("folds > 1").count()
        if split:
            found.problem(
                f"the folds of '{fold}' split {counted(split, 'cluster')} of '{setup.cluster}', "
                "expected all units of a cluster in one fold: what they have in common is no secret"
            )


def check_covered(
    setup: ExperimentSetup,
    units: DataFrame,
    table: DataFrame,
    columns: Sequence[str],
    found: Findings,
    whose: str,
) -> None:
    """Check that every unit has its response.

    Parameters
    ----------
    setup, table, columns, found : as in ``check_response_table``.
    units : with unit_id.
    whose : what the units are called.
    """
    brought = with_brought(units.select("unit_id"), table, setup.unit_id, columns)
    without = F.when(F.col("theta_0").isNull(), F.col("unit_id").cast("string"))
    row = brought.agg(F.count("*"), F.count(without), F.min(without)).collect()[0]
    if row[1]:
        found.problem(
            f"{row[1]:,} of {counted(row[0], 'unit')} of the {whose} have no row, such as "
            f"{shown(row[2], private=found.private)}, expected the response of every unit"
        )


def check_responses(
    setup: ExperimentSetup,
    experiment: DataFrame,
    responses: DataFrame,
    columns: Sequence[str],
    basis: Basis,
    found: Findings,
    *,
    fold: str | None,
) -> None:
    """Check the responses of the experiment, and warn where their models saw the units.

    Parameters
    ----------
    setup : of the experiment.
    experiment : one row a unit, as the user has it, without problems of its own.
    responses : of its units, one row a unit.
    columns : of the coefficients, of one outcome after the other.
    basis : φ, which they are coefficients of.
    found : takes problems and warnings.
    fold : as in ``check_response_table``.
    """
    check_response_table(setup, responses, columns, found, fold)
    if found.problems:
        return
    units = experiment_units(experiment, setup)
    check_covered(setup, units, responses, columns, found, "experiment")
    if fold is not None and not found.problems:
        _check_folds(setup, units, responses, fold, found)
    if found.problems or setup.design == "learned":  # features tell treatments then, fairly
        return
    brought = with_brought(units, responses, setup.unit_id, columns)
    for outcome, own in seen_by_models(brought, setup, basis).items():
        if not own.stands_out:
            continue
        which = f" of '{outcome}'" if len(setup.outcomes) > 1 else ""
        found.warning(
            f"the responses{which} look in-sample: what predictions deviate from their mean by has "
            f"a mean square {own.ratio:.3g} times as large at the treatment that a unit got as at "
            f"those that others got (1 is expected, z = {own.z:.1f}), as only models show that saw "
            "the unit; predict every unit by models that were fitted without it, or honest "
            "values are not honest"
        )


def check_population_responses(
    setup: ExperimentSetup,
    population: DataFrame,
    weight: str | None,
    responses: DataFrame,
    columns: Sequence[str],
    found: Findings,
) -> None:
    """Check the responses of the units to serve.

    Parameters
    ----------
    setup : names the columns.
    population : one row a unit, without problems of its own.
    weight : column with their weight; None for weight 1.
    responses, columns, found : as in ``check_responses``.
    """
    check_response_table(setup, responses, columns, found)
    if not found.problems:
        units = population_units(population, setup, weight)
        check_covered(setup, units, responses, columns, found, "population")
