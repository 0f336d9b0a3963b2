"""The coefficients that profit is linear in, beside the responses of units on Spark."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructField, StructType

from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.distributed.frames import factor_columns, matrix, number_columns, theta_columns


def with_factors(rows: DataFrame, of_profit: ProfitCoefficients) -> DataFrame:
    """Return rows with factor_0 … of the units in place of number_0 …, their columns in profit.

    Parameters
    ----------
    rows : number_0 …, in the order of the unit columns.
    of_profit : what the factors are.
    """
    numbers = number_columns(len(of_profit.unit_columns))
    if not of_profit.factors:
        return rows.drop(*numbers)
    names = factor_columns(len(of_profit.factors))
    kept = [name for name in rows.columns if name not in numbers]
    schema = StructType(
        [*(rows.schema[name] for name in kept), *(StructField(n, DoubleType()) for n in names)]
    )

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            factors = of_profit.factor_values(matrix(batch.select(numbers).to_pandas(), numbers))
            yield pa.RecordBatch.from_arrays(
                [*batch.select(kept).columns, *map(pa.array, factors.T)], names=[*kept, *names]
            )

    return rows.mapInArrow(add, schema)


def with_coefficients(rows: DataFrame, of_profit: ProfitCoefficients) -> DataFrame:
    """Return rows with the coefficients after the responses as theta_p …

    Parameters
    ----------
    rows : theta_0 … theta_{p−1}, the responses, and factor_0 … of the units.
    of_profit : what the coefficients are.
    """
    factors = factor_columns(len(of_profit.factors))
    names = theta_columns(of_profit.size)[of_profit.responses :]
    found = {
        name: reduce(
            Column.__mul__,
            [F.col(factors[factor]), *([] if response is None else [F.col(f"theta_{response}")])],
        )
        for name, (response, factor) in zip(names, of_profit.further, strict=True)
    }
    return rows.withColumns(found) if found else rows
