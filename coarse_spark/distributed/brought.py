"""Responses that the user's own models predicted, in the place of those of fitted models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructField, StructType
from threadpoolctl import threadpool_limits

from coarse_spark.core.basis import Basis
from coarse_spark.core.in_sample import OwnTreatment, own_treatment
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    column,
    eligibility_columns,
    factor_columns,
    hash_sample,
    matrix,
    theta_columns,
    unit_id,
)
from coarse_spark.distributed.score import granular_columns, own_best

_SAMPLE_ROWS = 50_000  # enough to tell whether models saw the units, small enough for the driver


def with_brought(
    units: DataFrame, table: DataFrame, ids: Sequence[str], columns: Sequence[str]
) -> DataFrame:
    """Return units with their theta_0 …; nulls where the table does not have the unit.

    Parameters
    ----------
    units : rows in the shape of ``distributed.frames``.
    table : one row a unit, as the user has it.
    ids : columns that together identify a unit.
    columns : of the coefficients, in the order of the basis.
    """
    theta = theta_columns(len(columns))
    found = [column(name).cast("double").alias(to) for name, to in zip(columns, theta, strict=True)]
    return _joined(units, table, ids, found)


def with_judging_folds(
    units: DataFrame, table: DataFrame, ids: Sequence[str], fold: str | None
) -> DataFrame:
    """Return experiment units with the folds 0 … of their responses in place of ours.

    What a fold's models predict knows nothing of the outcomes in the fold. So its menu is chosen on
    the fold's own responses: those of other folds come from models that saw these outcomes, and a
    menu that was chosen on them would be judged by what it knows.

    Parameters
    ----------
    units : rows in the shape of ``distributed.frames.experiment_units``.
    table, ids : of ``with_brought``.
    fold : column of the table; None where no model saw any unit, so that any folds will do.
    """
    if fold is None:
        return units
    known = with_fold_texts(units, table, ids, fold)
    found = known.select("fold_text").distinct().collect()  # as few as ``validate`` lets through
    values = sorted(row[0] for row in found if row[0] is not None)
    place = F.coalesce(*(F.when(F.col("fold_text") == v, F.lit(i)) for i, v in enumerate(values)))
    return known.withColumn("fold", place).drop("fold_text")


def with_fold_texts(units: DataFrame, table: DataFrame, ids: Sequence[str], fold: str) -> DataFrame:
    """Return units with fold_text, the fold that their responses name; parameters as above."""
    return _joined(units, table, ids, [column(fold).cast("string").alias("fold_text")])


def _joined(
    units: DataFrame, table: DataFrame, ids: Sequence[str], columns: Sequence[Column]
) -> DataFrame:
    """Return units with columns of their rows in a table, matched by the texts of their ids."""
    rows = table.select(unit_id(ids).cast("string").alias("brought_id"), *columns)
    same = F.col("unit_id").cast("string") == F.col("brought_id")
    return units.join(rows, same, "left").drop("brought_id")


def with_own_best(units: DataFrame, problem: MenuProblem, eligibility: Sequence[str]) -> DataFrame:
    """Return units with granular_0 … and granular_profit, their own best treatment.

    Parameters
    ----------
    units : with theta_0 …, factor_0 … and eligible_0 ….
    problem : without rules.
    eligibility : as in ``distributed.score.score``.
    """
    names = [*granular_columns(problem), "granular_profit"]
    of_profit = problem.of_profit
    responses = theta_columns(of_profit.responses)
    factors = factor_columns(len(of_profit.factors))
    needed = [*responses, *factors, *eligibility_columns(len(eligibility))]
    schema = StructType(
        [*units.schema.fields, *(StructField(name, DoubleType()) for name in names)]
    )

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches:
                if not batch.num_rows:
                    continue
                rows = batch.select(needed).to_pandas()
                theta = of_profit.extended(matrix(rows, responses), matrix(rows, factors))
                treatments, profit = own_best(problem, theta, rows, eligibility)
                found = map(pa.array, (*treatments.T, profit))
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, *found], names=[*batch.schema.names, *names]
                )

    return units.mapInArrow(add, schema)


def seen_by_models(
    units: DataFrame, setup: ExperimentSetup, basis: Basis
) -> dict[str, OwnTreatment]:
    """Return by outcome whether responses know which treatments their units got.

    From a hash sample.

    Parameters
    ----------
    units : of the experiment, with theta_0 … of one outcome after the other.
    setup : of the experiment, whose treatments were randomized, within strata or at all.
    basis : φ.
    """
    names = theta_columns(basis.size * len(setup.outcomes))
    cluster = [] if setup.cluster is None else ["cluster"]
    rows = hash_sample(
        units.select("key", "stratum", *cluster, *setup.treatments, *names), _SAMPLE_ROWS
    )
    phi, stratum = basis(matrix(rows, setup.treatments)), rows["stratum"].to_numpy()
    labels = rows["cluster"].to_numpy() if cluster else None
    parts = np.split(matrix(rows, names), len(setup.outcomes), axis=1)
    return {
        outcome: own_treatment(theta, phi, stratum, labels)
        for outcome, theta in zip(setup.outcomes, parts, strict=True)
    }
