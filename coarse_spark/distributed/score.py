"""Scoring: response coefficients of every unit from the model rows of its partition.

The coefficients are plain float columns. Units and model rows meet in co-groups of bounded size, so
neither the driver nor a closure ever holds the models: a partition with many units is cut into
chunks by the hash of the unit's id and its model rows are repeated for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, IntegerType, StringType, StructField, StructType
from threadpoolctl import threadpool_limits

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.learners.model import load_model, predictions
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.distributed.frames import (
    POOLED,
    eligibility_columns,
    factor_columns,
    feature_columns,
    feature_frame,
    matrix,
    number_columns,
    theta_columns,
)

CHUNK_ROWS = 20_000  # units scored in one Python call, small enough that cores share a partition


def granular_columns(problem: MenuProblem) -> list[str]:
    """Names of the columns with a unit's own best treatment, numbers even for levels."""
    return [f"granular_{position}" for position in range(problem.candidates.shape[1])]


def score(
    units: DataFrame,
    models: DataFrame,
    *,
    features: Sequence[str],
    problem: MenuProblem,
    keep: Sequence[str],
    granular: bool,
    eligibility: Sequence[str] = (),
) -> DataFrame:
    """Return one row a unit and model fold.

    Its columns are ``keep``, served_by, model_fold, the responses theta_0 … theta_{p−1}, and
    factor_0 … of the units in profit. Units whose partition has no fitted model are served by the
    pooled one, of several outcomes each by itself; served_by is the pooled one where it serves any.
    Shards of a partition are averaged by rows.

    Parameters
    ----------
    units : rows in the shape of ``distributed.frames``.
    models : rows of the models table of one run, of the folds to score with.
    features : names of the columns that ``units`` have as feature columns, in that order.
    problem : without rules.
    keep : columns of ``units``.
    granular : whether to add granular_0 … granular_{d−1} (encoded) and granular_profit, the unit's
        own best treatment.
    eligibility : for the columns eligible_0 … of ``units``, which treatments each is about (see
        ``core.menu.problem.rules``): a unit's own best treatment is one that it may get.
    """
    serving = serving_models(models, len(problem.of_profit.outcomes))
    own = (
        models.where((F.col("status") == "ok") & (F.col("partition") != POOLED))
        .select("partition", F.col("partition").alias("models_of"))
        .distinct()
    )
    served = units.join(F.broadcast(own), "partition", "left").fillna({"models_of": POOLED})
    chunks = F.ceil(F.count("*") / F.lit(CHUNK_ROWS)).alias("chunks")
    sizes = served.groupBy("models_of").agg(chunks)
    chunked = served.join(F.broadcast(sizes), "models_of")
    chunked = chunked.withColumn("chunk", F.pmod("key", "chunks"))
    spread = serving.join(F.broadcast(sizes), "models_of").withColumn(
        "chunk", F.explode(F.sequence(F.lit(0).cast("long"), F.col("chunks") - 1))
    )
    kept = [name for name in chunked.columns if name in keep]
    fields = [*(chunked.schema[name] for name in kept), StructField("served_by", StringType())]
    numbers = [
        *theta_columns(problem.of_profit.responses),
        *factor_columns(len(problem.of_profit.factors)),
        *([*granular_columns(problem), "granular_profit"] if granular else []),
    ]
    schema = StructType(
        [
            *fields,
            StructField("model_fold", IntegerType()),
            *(StructField(name, DoubleType()) for name in numbers),
        ]
    )
    group = ["models_of", "chunk"]
    return (
        chunked.select(
            *{
                *kept,
                *group,
                *feature_columns(len(features)),
                *eligibility_columns(len(eligibility)),
                *number_columns(len(problem.of_profit.unit_columns)),
            }
        )
        .groupBy(*group)
        .cogroup(spread.groupBy(*group))
        .applyInPandas(
            _scorer(kept, list(features), problem, granular, list(eligibility), schema), schema
        )
    )


def serving_models(models: DataFrame, outcomes: int) -> DataFrame:
    """Return fitted models with models_of, the partition that they serve.

    Where a partition has fitted models of some outcomes only, the pooled ones serve the others:
    their rows are there once more for it.

    Parameters
    ----------
    models, outcomes : as in ``fitted_partitions``.
    """
    fitted = models.where(F.col("status") == "ok").withColumn("models_of", F.col("partition"))
    if outcomes == 1:
        return fitted
    pooled = fitted.where(F.col("partition") == POOLED)
    known = fitted.select("models_of", "outcome").distinct()
    wanted = known.select("models_of").distinct().crossJoin(pooled.select("outcome").distinct())
    lacking = wanted.join(known, ["models_of", "outcome"], "left_anti")
    return fitted.unionByName(lacking.join(pooled.drop("models_of"), "outcome"))


def fitted_partitions(models: DataFrame, outcomes: int) -> DataFrame:
    """Return the partitions with fitted models, of every outcome where there are several.

    Parameters
    ----------
    models : partition and status; outcome, where there are several.
    outcomes : number of outcomes.
    """
    fitted = models.where(F.col("status") == "ok")
    if outcomes == 1:
        return fitted.select("partition").distinct()
    known = fitted.groupBy("partition").agg(F.count_distinct("outcome").alias("known"))
    return known.where(F.col("known") == outcomes).select("partition")


@dataclass(frozen=True)
class UnseenPartitions:
    """Units whose partition has no model row, as no experiment unit was in it.

    Attributes
    ----------
    units : how many.
    partitions : how many they are in.
    largest : the partition with most of them.
    """

    units: int
    partitions: int
    largest: str


def unseen_partitions(responses: DataFrame, models: DataFrame) -> UnseenPartitions | None:
    """Return the partitions of scored units that ``models`` does not know; None if it knows all."""
    known = models.select("partition").distinct()
    sizes = (
        responses.join(F.broadcast(known), "partition", "left_anti")
        .groupBy("partition")
        .agg(F.count("*").alias("units"))
    )
    largest = F.max(F.struct("units", "partition")).getField("partition")
    row = sizes.agg(F.sum("units"), F.count("*"), largest).collect()[0]
    return UnseenPartitions(int(row[0]), int(row[1]), str(row[2])) if row[1] else None


def _scorer(
    keep: Sequence[str],
    features: Sequence[str],
    problem: MenuProblem,
    granular: bool,
    eligibility: Sequence[str],
    schema: StructType,
) -> Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]:
    columns, of_profit = [field.name for field in schema], problem.of_profit
    numbers = number_columns(len(of_profit.unit_columns))

    def score_chunk(units: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
        if units.empty:
            return pd.DataFrame(columns=columns)
        # Spark already runs a task on every core
        with threadpool_limits(limits=1):
            X = feature_frame(units, features)
            factors = np.empty((len(units), 0))
            if of_profit.factors:
                factors = of_profit.factor_values(matrix(units, numbers))
            partitions = models["partition"].unique()
            served_by = partitions[0] if len(partitions) == 1 else POOLED
            scored = []
            for fold, theta in predict_outcomes(models, X, len(of_profit.outcomes)).items():
                part = units[list(keep)].copy()
                part["served_by"] = served_by
                part["model_fold"] = fold
                part[theta_columns(theta.shape[1])] = theta
                part[factor_columns(factors.shape[1])] = factors
                if granular:
                    coefficients = of_profit.extended(theta, factors)
                    treatments, profit = own_best(problem, coefficients, units, eligibility)
                    part[granular_columns(problem)] = treatments
                    part["granular_profit"] = profit
                scored.append(part)
            return pd.concat(scored, ignore_index=True)[columns]

    return score_chunk


def own_best(
    problem: MenuProblem, theta: FloatArray, units: pd.DataFrame, eligibility: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Return the units' own best treatments (n, d), encoded, and their profits (n,).

    Parameters
    ----------
    problem : without rules.
    theta : (n, p) coefficients.
    units : n of them, with eligible_0 ….
    eligibility : as in ``score``.
    """
    if not eligibility:
        return problem.granular(theta)
    ruled = problem.with_eligibility(
        eligibility, np.abs(theta).max(axis=0), np.ones(len(eligibility))
    )
    eligible = matrix(units, eligibility_columns(len(eligibility)))
    return ruled.granular(np.hstack([theta, 1.0 - eligible]))


def predict_outcomes(models: pd.DataFrame, X: pd.DataFrame, outcomes: int) -> dict[int, FloatArray]:
    """Return what ``predict_folds`` does, those of several outcomes side by side."""
    if outcomes == 1:
        return predict_folds(models, X)
    found = [predict_folds(models[models["outcome"] == outcome], X) for outcome in range(outcomes)]
    # a fold in which one of them has no model is none
    folds = sorted(set.intersection(*map(set, found)))
    return {fold: np.hstack([one[fold] for one in found]) for fold in folds}


def predict_folds(models: pd.DataFrame, X: pd.DataFrame) -> dict[int, FloatArray]:
    """Return by fold the average θ(x) (n, p) of the shard models of one partition.

    Weights are the numbers of rows they were fitted on.

    Raises
    ------
    ValueError : a model gives a coefficient that is not finite.
    """
    models = models.sort_values(["fold", "member"])
    folds, fold = np.unique(models["fold"].to_numpy(), return_inverse=True)
    weights = (fold == np.arange(len(folds))[:, None]) * models["rows"].to_numpy(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    # column names are texts
    rows: list[dict[str, Any]] = models.to_dict("records")  # type: ignore[assignment]
    members = [load_model(ModelRecord.from_row(row)) for row in rows]
    theta = np.empty((len(folds), len(X), len(members[0].coefficients)))
    for block, found in predictions(members, X):
        theta[:, block] = np.tensordot(weights, np.stack(found), 1)
    if not np.isfinite(theta).all():
        raise ValueError(
            f"the model of partition {rows[0].get('models_of')} gives coefficients "
            "that are not finite"
        )
    return dict(zip(folds.tolist(), theta, strict=True))
