"""The coefficients that profit is linear in, beside the responses of units on Spark."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.distributed.frames import factor_columns, theta_columns


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
