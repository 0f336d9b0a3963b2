"""Lloyd passes over the full population: one small aggregate of native expressions a pass, for all menus at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu.lloyd import Aggregate, PricedMenu, SegmentSums
from coarse_spark.distributed.assign import best_position, profit_column
from coarse_spark.distributed.units import theta_columns


def population_aggregate(responses: DataFrame) -> Aggregate:
    """Return the ``aggregate`` of ``core.menu.lloyd.refine`` over responses (weight, theta_0 … theta_{p−1})."""

    def aggregate(menus: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(responses, menus)

    return aggregate


def segment_sums(responses: DataFrame, menus: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
    """Return the segment sums of every menu, in one pass over the responses."""
    coefficients = next(iter(menus.values())).psi.shape[1] - 1
    names = theta_columns(coefficients)
    segments = [
        F.struct(F.lit(key).alias("menu"), best_position([profit_column(row) for row in menu.priced_psi]).alias("segment"))
        for key, menu in menus.items()
    ]
    taken = responses.select("weight", *names, F.explode(F.array(*segments)).alias("taken"))
    weighted = [F.sum(F.col("weight") * F.col(name)).alias(name) for name in names]
    rows = (
        taken.groupBy("taken.menu", "taken.segment")
        .agg(F.sum("weight").alias("weight"), F.count("*").alias("units"), *weighted)
        .toPandas()
    )
    result = {}
    for key, menu in menus.items():
        k = len(menu.treatments)
        weight, theta, units = np.zeros(k), np.zeros((k, coefficients)), np.zeros(k, dtype=np.intp)
        own = rows[rows["menu"] == key]
        position = own["segment"].to_numpy(np.intp)
        weight[position], units[position] = own["weight"], own["units"]
        theta[position] = own[names].to_numpy(np.float64)
        result[key] = SegmentSums(weight, theta, units)
    return result
