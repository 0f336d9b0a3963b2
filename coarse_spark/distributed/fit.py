"""Fitting on executors: one cross-fitted model set a partition (or hash shard of one), and the pooled model from added sums."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from coarse_spark.core.learners.crossfit import accumulate, fit_models, solve
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.pooled import PooledModels
from coarse_spark.core.learners.record import FORMAT_VERSION, ModelRecord
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.sample import representative_sample
from coarse_spark.distributed.units import POOLED, trial_rows

if TYPE_CHECKING:
    # Python workers import this file: they would wait for pydantic
    from coarse_spark.config.models import Configuration

MODEL_SCHEMA = (
    "partition string, fold int, member int, learner string, format_version int, specification string, "
    "arrays map<string,array<double>>, shapes map<string,array<int>>, rows bigint, seconds double, status string, error string, "
    "warnings array<string>, diagnostics map<string,double>"
)
_COLUMNS = [part.split()[0] for part in MODEL_SCHEMA.split(", ")]
_ENCODER_ROWS = 50_000  # a sample of this size places knots and finds levels of the pooled model


def fit_responses(spark: SparkSession, units: DataFrame, configuration: Configuration) -> DataFrame:
    """Return model rows for every partition and fold, those of the pooled model and a status row for every small partition.

    Parameters
    ----------
    units : usable experiment rows in the shape of ``distributed.units.experiment_units``.

    A partition with fewer than ``response.min_rows`` rows gets the status "pooled"; one with more than ``response.max_rows`` is
    cut into shards by a hash. A partition that fails gets the status "failed" with its error; the run goes on.
    """
    response = configuration.response
    sizes: dict[str, int] = {}
    fold_sizes: dict[int, int] = {}
    for row in units.groupBy("partition", "fold").agg(F.count("*").alias("rows")).collect():
        sizes[row["partition"]] = sizes.get(row["partition"], 0) + row["rows"]
        fold_sizes[row["fold"]] = fold_sizes.get(row["fold"], 0) + row["rows"]
    shards = [
        (name, ceil(rows / response.max_rows))
        for name, rows in sizes.items()
        if rows >= response.min_rows
    ]
    small = [(name, rows) for name, rows in sizes.items() if rows < response.min_rows]
    pooled_rows, pooled = _fit_pooled(spark, units, configuration, fold_sizes)
    parts = [pooled_rows]
    if small:
        parts.append(
            spark.createDataFrame(
                [_status_row(name, "pooled", rows=rows) for name, rows in sorted(small)],
                MODEL_SCHEMA,
            )
        )
    if shards:
        members = spark.createDataFrame(sorted(shards), "partition string, shards int")
        sharded = units.join(F.broadcast(members), "partition").withColumn(
            "member", F.pmod(F.shiftrightunsigned("key", 7), "shards").cast("int")
        )
        groups = sum(count for _, count in shards)
        # one partition alone is the pool itself
        common = pooled if response.shrink_to_pooled and len(sizes) > 1 else None
        # an explicit number keeps adaptive execution from packing all groups of a small table into one task
        spread = sharded.repartition(min(groups, 10_000), "partition", "member")
        parts.append(
            spread.groupBy("partition", "member").applyInPandas(
                _group_fitter(configuration, common), MODEL_SCHEMA
            )
        )
    result = parts[0]
    for part in parts[1:]:
        result = result.unionByName(part)
    return result


def settings_of(configuration: Configuration) -> LearnerSettings:
    """Return the learner's settings."""
    response = configuration.response
    return LearnerSettings(
        learner=response.learner, winsorize=response.winsorize, shape=response.shape or None
    )


def _status_row(
    partition: str,
    status: str,
    *,
    member: int = 0,
    rows: int = 0,
    seconds: float = 0.0,
    error: str | None = None,
) -> tuple[Any, ...]:
    return (
        partition,
        ALL_FOLDS,
        member,
        None,
        FORMAT_VERSION,
        None,
        None,
        None,
        rows,
        seconds,
        status,
        error,
        [],
        {},
    )


def _model_rows(
    records: dict[int, ModelRecord],
    fold_rows: dict[int, int],
    partition: str,
    member: int,
    seconds: float,
) -> list[tuple[Any, ...]]:
    rows = []
    for fold, record in sorted(records.items()):
        values = {
            **record.to_row(),
            "partition": partition,
            "fold": fold,
            "member": member,
            "rows": fold_rows[fold],
            "seconds": seconds,
            "status": "ok",
            "error": None,
        }
        rows.append(tuple(values[name] for name in _COLUMNS))
    return rows


def _fold_rows(fold_counts: dict[int, int], folds: int) -> dict[int, int]:
    """Rows that each model was fitted on: all, or all but its fold."""
    total = sum(fold_counts.values())
    return {ALL_FOLDS: total, **{fold: total - fold_counts.get(fold, 0) for fold in range(folds)}}


def _group_fitter(
    configuration: Configuration, pooled: PooledModels | None
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    basis, settings = configuration.basis, settings_of(configuration)
    features, seed, folds = (
        list(configuration.experiment.features),
        configuration.menu.seed,
        configuration.response.folds,
    )
    dimensions = len(configuration.space.dimensions)

    def fit_group(rows: pd.DataFrame) -> pd.DataFrame:
        start = time.perf_counter()
        partition, member = str(rows["partition"].iloc[0]), int(rows["member"].iloc[0])
        # rows arrive in any order; sums of floats should not
        rows = rows.sort_values("key", kind="stable", ignore_index=True)
        try:
            with threadpool_limits(limits=1):
                records = fit_models(
                    trial_rows(rows, features, dimensions),
                    basis=basis,
                    settings=settings,
                    seed=seed,
                    pooled=pooled,
                )
            held = np.bincount(rows["fold"].to_numpy(), minlength=folds)
            counts = _fold_rows(dict(enumerate(held.tolist())), folds)
            result = _model_rows(records, counts, partition, member, time.perf_counter() - start)
        except (
            Exception
        ) as error:  # one bad partition must not end the run; its status row says what happened
            cause = "".join(traceback.format_exception_only(error)).strip()
            result = [
                _status_row(
                    partition,
                    "failed",
                    member=member,
                    rows=len(rows),
                    seconds=time.perf_counter() - start,
                    error=cause,
                )
            ]
        return pd.DataFrame(result, columns=_COLUMNS)

    return fit_group


def _fit_pooled(
    spark: SparkSession, units: DataFrame, configuration: Configuration, fold_counts: dict[int, int]
) -> tuple[DataFrame, PooledModels]:
    """Fit the pooled model: Gram sums added over batches of rows on executors, solved on the driver.

    Returns its model rows, and what partitions may lean on: some hundred kilobytes, whatever the number of rows.
    """
    start = time.perf_counter()
    features, seed, folds = (
        list(configuration.experiment.features),
        configuration.menu.seed,
        configuration.response.folds,
    )
    dimensions = len(configuration.space.dimensions)
    sample = representative_sample(
        units, configuration, _ENCODER_ROWS, total=sum(fold_counts.values())
    )
    settings = settings_of(configuration)
    preparation = Preparation.fit(
        trial_rows(sample, features, dimensions), basis=configuration.basis, settings=settings
    )

    def record(rows: pd.DataFrame) -> dict[str, GramStatistics]:
        sums = accumulate(
            preparation,
            trial_rows(rows, features, dimensions),
            folds=folds,
            settings=settings,
            seed=seed,
        )
        return {str(part): statistics for part, statistics in sums.items()}

    parts = {
        int(part): GramStatistics.of_flat(sums) for part, sums in add_up(units, record).items()
    }
    records, pooled = solve(preparation, parts, folds=folds, settings=settings)
    rows = _model_rows(
        records, _fold_rows(fold_counts, folds), POOLED, 0, time.perf_counter() - start
    )
    return spark.createDataFrame(rows, MODEL_SCHEMA), pooled
