"""Factors of units in profit, such as ``1 / size``: finite columns do not make them finite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    matrix,
    number_columns,
    population_units,
)
from coarse_spark.distributed.validate.values import Findings
from coarse_spark.text import shown

_SCHEMA = "factor int, rows bigint, unit string"


def check_factors(
    setup: ExperimentSetup,
    table: DataFrame,
    weight: str | None,
    of_profit: ProfitCoefficients | None,
    found: Findings,
) -> None:
    """Check that factors are finite where their columns are, in one pass where any may not be.

    Parameters
    ----------
    setup : names the columns.
    table : one row a unit, as the user has it.
    weight : column with their weight; None for weight 1.
    of_profit : has the factors.
    found : takes problems.
    """
    # a column by itself is what the rules of values look at
    if of_profit is None or {unit.text for unit in of_profit.factors} <= {*of_profit.unit_columns}:
        return
    numbers, told = number_columns(len(setup.unit_columns)), of_profit.factors

    def broken(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            units = batch.to_pandas()
            columns = matrix(units, numbers)
            factors: FloatArray = of_profit.factors_of(columns)
            wrong = ~np.isfinite(factors) & np.isfinite(columns).all(axis=1, keepdims=True)
            yield pa.RecordBatch.from_pylist(
                [
                    {"factor": factor, "rows": int(of.sum()), "unit": units["unit"][of].min()}
                    for factor, of in enumerate(wrong.T)
                    if of.any()
                ],
                pa.schema([("factor", pa.int32()), ("rows", pa.int64()), ("unit", pa.string())]),
            )

    units = population_units(table, setup, weight)
    text = F.coalesce(F.col("unit_id").cast("string"), F.lit("null"))
    counts = (
        units.select(text.alias("unit"), *numbers)
        .mapInArrow(broken, _SCHEMA)
        .groupBy("factor")
        .agg(F.sum("rows").alias("rows"), F.min("unit").alias("unit"))
        .orderBy("factor")
        .collect()
    )
    for row in counts:
        found.problem(
            f"{row['rows']} rows have a '{told[row['factor']].text}' of profit that is NaN or "
            f"infinite, though its columns are numbers, such as "
            f"{shown(row['unit'], private=found.private)}, expected a finite number in every row"
        )
