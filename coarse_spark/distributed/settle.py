"""Share limits and budgets on a population of any size: a sample for the prices, and the units near indifference for the rest.

What reaches the driver is bounded: a hash sample of ``SAMPLE_UNITS``, one small aggregate a pass, and at most ``NEAR_UNITS`` units
that are settled one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, StructField, StructType
from threadpoolctl import threadpool_limits

from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settlement import (
    Everyone,
    Near,
    Sample,
    SettledMenu,
    indifference,
    settle_within,
)
from coarse_spark.distributed.frames import column, hash_limit, matrix, theta_columns
from coarse_spark.distributed.lloyd import segment_sums
from coarse_spark.errors import RunError

SAMPLE_UNITS = 40_000
NEAR_UNITS = 100_000

_HALVINGS = 20


def lottery_ticket(unit_id: str = "unit_id") -> Column:
    """Return a hash of the unit's id as a number in [0, 1): the coefficient of ``core.menu.rules.Lottery``."""
    # its own purpose: samples and folds are drawn by other hashes, and must not be early or late in the lottery
    drawn = F.xxhash64(F.lit("lottery"), column(unit_id).cast("string"))
    return (drawn.cast("double") / F.lit(2.0**64) + F.lit(0.5)).cast("double")


def with_tickets(responses: DataFrame, coefficients: int) -> DataFrame:
    """Return responses with the lottery's hash as coefficient number ``coefficients``, after their own."""
    return responses.withColumn(f"theta_{coefficients}", lottery_ticket())


def population_of(responses: DataFrame) -> Everyone:
    """Return number and range of weights of the units with weight."""
    held = responses.where(F.col("weight") > 0)
    row = held.agg(
        F.count("*").alias("units"), F.min("weight").alias("least"), F.max("weight").alias("most")
    ).collect()[0]
    if not row["units"]:
        raise RunError("no unit of the population has weight; check population.weight")
    return Everyone(int(row["units"]), float(row["least"]), float(row["most"]))


def population_sample(responses: DataFrame, everyone: Everyone, coefficients: int) -> Sample:
    """Return about ``SAMPLE_UNITS`` of the units with weight, those with the smallest hashes, or all of fewer.

    Parameters
    ----------
    responses : unit_id, weight, theta_0 … theta_{coefficients−1}.
    """
    names = theta_columns(coefficients)
    key = F.xxhash64(column("unit_id").cast("string"))
    drawn = responses.where(F.col("weight") > 0).withColumn("key", key)
    drawn = drawn.where(F.col("key") <= hash_limit(SAMPLE_UNITS, everyone.units)).select(
        "key", "weight", *names
    )
    rows = drawn.toPandas().sort_values("key", kind="stable")
    return Sample(matrix(rows, names), rows["weight"].to_numpy(np.float64))


def settle_units(
    responses: DataFrame,
    problem: MenuProblem,
    menus: Mapping[int, BoundedMenu],
    *,
    everyone: Everyone,
    sample: Sample,
    ids: bool,
) -> dict[int, SettledMenu]:
    """Keep the limits of menus to the unit over responses: unit_id, weight, theta_0 … theta_{p−1}; see ``settle_within``.

    ``ids`` : whether the near units are returned with their unit_id.
    """
    names = theta_columns(problem.coefficients)

    def collect(asked: Mapping[int, tuple[BoundedMenu, float]]) -> dict[int, Near]:
        rows, reach = near_units(responses, asked, everyone, keep=["unit_id"] if ids else [])
        result = {}
        for k in asked:
            part = rows[rows["menu"] == k]
            who = part["unit_id"].to_numpy(object) if ids else np.empty(0, dtype=object)
            result[k] = Near(
                matrix(part, names),
                part["weight"].to_numpy(np.float64),
                part["taken"].to_numpy(np.intp),
                reach[k],
                who,
            )
        return result

    def aggregate(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(responses, asked)[0]

    return settle_within(problem, menus, aggregate, collect, sample, everyone, most=NEAR_UNITS)


def near_units(
    responses: DataFrame,
    menus: Mapping[int, tuple[BoundedMenu, float]],
    everyone: Everyone,
    *,
    keep: Sequence[str] = (),
) -> tuple[pd.DataFrame, dict[int, float]]:
    """Return the units with weight that prefer their treatment on a menu by less than its reach, and the reaches (by menu).

    Parameters
    ----------
    responses : weight, theta_0 … theta_{p−1} and the columns ``keep``. menus : menu and reach by key.

    Columns: menu (the key), taken (its row of the menu), weight, theta_0 … and ``keep``; in an order that no partitioning changes.
    Reaches are halved until at most twice ``NEAR_UNITS`` are within them.

    Raises
    ------
    RunError : units that even their hashes do not tell apart.
    """
    names = theta_columns(next(iter(menus.values()))[0].menu.psi.shape[1] - 1)
    units = responses.where(F.col("weight") > 0).select(
        *(column(name) for name in (*keep, "weight", *names))
    )
    numbers = [StructField("menu", IntegerType()), StructField("taken", IntegerType())]
    schema = StructType(
        [*numbers, *(StructField(field.name, field.dataType) for field in units.schema)]
    )
    reach = {k: within for k, (_, within) in menus.items()}
    for _ in range(_HALVINGS):
        asked = {k: (menu, reach[k]) for k, (menu, _) in menus.items()}
        found = units.mapInArrow(_near_rows(asked, names), schema)
        # the sample that reaches come from tells how many to expect; a population of many alike may hold more
        if everyone.units * len(menus) <= 2 * NEAR_UNITS or found.count() <= 2 * NEAR_UNITS:
            return found.toPandas().sort_values(
                ["menu", *names], kind="stable", ignore_index=True
            ), reach
        reach = {k: within / 2 for k, within in reach.items()}
    raise RunError(
        f"more than {2 * NEAR_UNITS} units are indifferent between treatments and nothing tells them apart"
    )


def _near_rows(
    menus: Mapping[int, tuple[BoundedMenu, float]], names: Sequence[str]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches:
                theta = matrix(batch.select(list(names)).to_pandas(), names)
                for key, (bounded, reach) in menus.items():
                    taken, gap = indifference(theta, bounded)
                    near = np.flatnonzero(gap < reach)
                    part = batch.take(pa.array(near))
                    numbers = [
                        pa.array(np.full(near.size, key), pa.int32()),
                        pa.array(taken[near], pa.int32()),
                    ]
                    yield pa.RecordBatch.from_arrays(
                        [*numbers, *part.columns], ["menu", "taken", *part.schema.names]
                    )

    return rows
