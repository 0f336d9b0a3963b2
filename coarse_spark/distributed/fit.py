"""Fitting on executors.

One cross-fitted set of models a partition, or hash shard of one, and the pooled model from added
sums.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from coarse_spark import progress
from coarse_spark.core.basis import Basis
from coarse_spark.core.identification import unidentified_terms
from coarse_spark.core.learners.crossfit import accumulate, fit_models, solve
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS, fewest_parts, parts_of
from coarse_spark.core.learners.pooled import PooledModels
from coarse_spark.core.learners.record import FORMAT_VERSION, ModelRecord
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import ALL, POOLED, ExperimentSetup, matrix, trial_rows
from coarse_spark.distributed.sample import representative_sample
from coarse_spark.errors import TooFewRowsError
from coarse_spark.text import counted

MODEL_SCHEMA = (
    "partition string, fold int, member int, learner string, format_version int, "
    "specification string, arrays map<string,array<double>>, shapes map<string,array<int>>, "
    "rows bigint, seconds double, status string, error string, warnings array<string>, "
    "diagnostics map<string,double>"
)
_COLUMNS = [part.split()[0] for part in MODEL_SCHEMA.split(", ")]
_ENCODER_ROWS = 50_000  # a sample of this size places knots and finds levels of the pooled model


@dataclass(frozen=True)
class FitSettings:
    """How response models are fitted, partition by partition.

    Attributes
    ----------
    basis : of every model.
    learner : of every model.
    min_rows : a partition with fewer rows is served by the pooled model.
    max_rows : a partition with more rows is cut into shards whose models are averaged.
    shrink_to_pooled : whether the pooled model has a share in the models of partitions.
    """

    basis: Basis
    learner: LearnerSettings
    min_rows: int
    max_rows: int
    shrink_to_pooled: bool


def fit_responses(units: DataFrame, setup: ExperimentSetup, settings: FitSettings) -> DataFrame:
    """Return model rows for every partition and fold, and those of the pooled model.

    A partition with fewer than ``min_rows`` rows, with rows in too few folds or parts, as clusters
    do not cross them, whose treatments do not identify the basis, or whose outcomes are too rare
    for the scale, gets a row with the status "pooled" that says why; one with more than
    ``max_rows`` is cut into shards by a hash. A partition that fails gets the status "failed" with
    its error; the run goes on.

    Parameters
    ----------
    units : usable experiment rows in the shape of ``distributed.frames.experiment_units``.
    setup : of the experiment.
    settings : of the models.
    """
    spark = units.sparkSession
    sizes: dict[str, int] = {}
    filled: dict[str, int] = {}  # folds with rows
    fold_sizes: dict[int, int] = {}
    for row in units.groupBy("partition", "fold").agg(F.count("*").alias("rows")).collect():
        sizes[row["partition"]] = sizes.get(row["partition"], 0) + row["rows"]
        filled[row["partition"]] = filled.get(row["partition"], 0) + 1
        fold_sizes[row["fold"]] = fold_sizes.get(row["fold"], 0) + row["rows"]
    own = {
        name
        for name, rows in sizes.items()
        if rows >= settings.min_rows and filled[name] >= setup.least_folds
    }
    # by units, not clusters: a shard may hold a part of a cluster, as all of it is in one fold
    shards = [(name, ceil(sizes[name] / settings.max_rows)) for name in own]
    small = [(name, rows) for name, rows in sizes.items() if name not in own]
    pooled_rows, pooled = _fit_pooled(units, setup, settings, fold_sizes)
    parts = [pooled_rows]
    if small:
        parts.append(
            spark.createDataFrame(
                [
                    _status_row(
                        name,
                        "pooled",
                        rows=rows,
                        error=f"{counted(rows, 'usable row')}, fewer than response.min_rows = "
                        f"{settings.min_rows}"
                        if rows < settings.min_rows
                        else f"rows in {counted(filled[name], 'fold')}, fewer than "
                        f"{setup.least_folds}: clusters do not cross folds",
                    )
                    for name, rows in sorted(small)
                ],
                MODEL_SCHEMA,
            ).coalesce(1)
        )
    if shards:
        # the largest fits begin first, so that no core waits for one at the end
        shards.sort(key=lambda shard: (-sizes[shard[0]] / shard[1], shard))
        numbered = [(name, count, number) for number, (name, count) in enumerate(shards)]
        members = spark.createDataFrame(numbered, "partition string, shards int, number int")
        sharded = units.join(F.broadcast(members), "partition").withColumn(
            "member", F.pmod(F.shiftrightunsigned("key", 7), "shards").cast("int")
        )
        groups = sum(count for _, count in shards)
        noun = "partition" if groups == len(shards) else "shard"
        progress.counts(noun, groups, before=len(parts))
        # one partition alone is the pool itself
        common = pooled if settings.shrink_to_pooled and len(sizes) > 1 else None
        # by range, as a hash puts several groups into one task and none into others; an explicit
        # number, as adaptive execution would pack the groups of a small table in one task
        spread = sharded.repartitionByRange(min(groups, 10_000), "number", "member")
        parts.append(
            spread.groupBy("number", "member").applyInPandas(
                _group_fitter(setup, settings, common), MODEL_SCHEMA
            )
        )
    result = parts[0]
    for part in parts[1:]:
        result = result.unionByName(part)
    return result


def brought_models(spark: SparkSession, rows: int) -> DataFrame:
    """Return the one row of table ``models`` where responses are brought along.

    Parameters
    ----------
    spark : the session.
    rows : of the experiment that they are of.
    """
    row = _status_row(ALL, "brought", rows=rows)
    return spark.createDataFrame([row], MODEL_SCHEMA).coalesce(1)


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
    setup: ExperimentSetup, settings: FitSettings, pooled: PooledModels | None
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def fit_group(rows: pd.DataFrame) -> pd.DataFrame:
        start = time.perf_counter()
        partition, member = str(rows["partition"].iloc[0]), int(rows["member"].iloc[0])
        # rows arrive in any order; sums of floats should not
        rows = rows.sort_values("key", kind="stable", ignore_index=True)
        try:
            with threadpool_limits(limits=1):
                trial = trial_rows(rows, setup)
                why = _unidentified(rows, setup, settings.basis) or _few_parts(
                    trial, settings.learner, setup.seed
                )
                if why:
                    row = _status_row(partition, "pooled", member=member, rows=len(rows), error=why)
                    return pd.DataFrame([row], columns=_COLUMNS)
                records = fit_models(
                    trial,
                    basis=settings.basis,
                    settings=settings.learner,
                    seed=setup.seed,
                    pooled=pooled,
                )
            held = np.bincount(rows["fold"].to_numpy(), minlength=setup.folds)
            counts = _fold_rows(dict(enumerate(held.tolist())), setup.folds)
            result = _model_rows(records, counts, partition, member, time.perf_counter() - start)
        except TooFewRowsError as error:
            row = _status_row(partition, "pooled", member=member, rows=len(rows), error=str(error))
            result = [row]
        # one bad partition must not end the run; its status row says what happened
        except Exception as error:
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


def _unidentified(rows: pd.DataFrame, setup: ExperimentSetup, basis: Basis) -> str:
    """Say which columns of the basis a partition's treatments do not identify; empty for none."""
    treatments, weight = matrix(rows, setup.treatments), rows["weight"].to_numpy(np.float64)
    terms = unidentified_terms(basis, treatments, weight)
    if not terms:
        return ""
    distinct = counted(len(np.unique(treatments, axis=0)), "distinct treatment")
    return (
        f"its {len(rows)} rows with {distinct} do not identify {', '.join(terms)} of '{basis.name}'"
    )


def _few_parts(rows: TrialRows, learner: LearnerSettings, seed: int) -> str:
    """Say that the rows outside a fold cannot be parted, as of one cluster; empty if they can."""
    part = parts_of(rows.fold, rows.cluster, rows.folds, learner, seed)
    if fewest_parts(part, rows.folds, learner) >= 2:
        return ""
    clusters = counted(len(np.unique(rows.cluster)), "cluster")
    return f"its {len(rows)} rows of {clusters} leave no two parts outside every fold"


def _fit_pooled(
    units: DataFrame, setup: ExperimentSetup, settings: FitSettings, fold_counts: dict[int, int]
) -> tuple[DataFrame, PooledModels]:
    """Fit the pooled model: Gram sums added over batches of rows, solved on the driver.

    Returns its model rows, and what partitions may lean on: some hundred kilobytes, whatever the
    number of rows.
    """
    start = time.perf_counter()
    basis, learner, folds = settings.basis, settings.learner, setup.folds
    total = sum(fold_counts.values())
    sample = representative_sample(units, setup, _ENCODER_ROWS, arms=basis.is_arms, total=total)
    preparation = Preparation.fit(
        trial_rows(sample, setup), basis=basis, settings=learner, seed=setup.seed
    )

    def record(rows: pd.DataFrame) -> dict[str, GramStatistics]:
        sums = accumulate(
            preparation,
            trial_rows(rows, setup),
            folds=folds,
            settings=learner,
            seed=setup.seed,
        )
        return {str(part): statistics for part, statistics in sums.items()}

    parts = {
        int(part): GramStatistics.of_flat(sums) for part, sums in add_up(units, record).items()
    }
    records, pooled = solve(preparation, parts, folds=folds, settings=learner)
    rows = _model_rows(
        records, _fold_rows(fold_counts, folds), POOLED, 0, time.perf_counter() - start
    )
    return units.sparkSession.createDataFrame(rows, MODEL_SCHEMA).coalesce(1), pooled
