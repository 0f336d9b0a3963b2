"""Lloyd passes over the full population: one pass serves the menus of all sizes.

A pass is one matrix product a batch for all treatments of all menus. As native expressions the same sums of ten menus make
generated code too large to compile, and one menu at a time costs a pass each; ``tests/benchmarks/bench_scale.py`` measures both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu import lloyd
from coarse_spark.core.menu.lloyd import Aggregate, PricedMenu, SegmentSums
from coarse_spark.distributed.aggregate import FloatArray, add_up
from coarse_spark.distributed.units import matrix, theta_columns


def population_aggregate(responses: DataFrame) -> Aggregate:
    """Return the ``aggregate`` of ``core.menu.lloyd.refine`` over responses (weight, theta_0 … theta_{p−1})."""

    def aggregate(menus: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(responses, menus)

    return aggregate


def segment_sums(responses: DataFrame, menus: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
    """Return the segment sums of every menu, in one pass over the responses."""
    coefficients = next(iter(menus.values())).psi.shape[1] - 1
    names = theta_columns(coefficients)

    def record(rows: pd.DataFrame) -> dict[str, FloatArray]:
        sums = lloyd.segment_sums(matrix(rows, names), rows["weight"].to_numpy(np.float64), menus)
        return {str(key): np.column_stack([part.weight, part.units, part.theta]).ravel() for key, part in sums.items()}

    total = add_up(responses.select("weight", *names), record)
    tables = {key: total[str(key)].reshape(-1, coefficients + 2) for key in menus}
    return {key: SegmentSums(table[:, 0], table[:, 2:], table[:, 1].astype(np.intp)) for key, table in tables.items()}
