"""Lloyd passes over the full population: one pass serves the menus of all sizes.

A pass is one matrix product a batch for all treatments of all menus. As native expressions the same sums of ten menus make
generated code too large to compile, and one menu at a time costs a pass each; ``tests/benchmarks/bench_scale.py`` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.additive import Additive, Flat
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu import lloyd
from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import matrix, theta_columns

Beside = Callable[[FloatArray, FloatArray], Mapping[str, Additive]]


def segment_sums(
    responses: DataFrame, menus: Mapping[int, PricedMenu], beside: Beside | None = None
) -> tuple[dict[int, SegmentSums], dict[str, Flat]]:
    """Return the segment sums of every menu, and the sums of ``beside``, in one pass over the responses.

    Parameters
    ----------
    responses : weight, theta_0 … theta_{p−1}. menus : by any key.
    beside : further additive arrays by name of units (n, p) with weights (n,): reading a large table costs more than sums of it.
    """
    coefficients = next(iter(menus.values())).psi.shape[1] - 1
    names = theta_columns(coefficients)

    def record(rows: pd.DataFrame) -> dict[str, Additive]:
        theta, weights = matrix(rows, names), rows["weight"].to_numpy(np.float64)
        sums = lloyd.segment_sums(theta, weights, menus)
        result: dict[str, Additive] = {f"menu {key}": part for key, part in sums.items()}
        return result if beside is None else {**result, **beside(theta, weights)}

    total = add_up(responses.select("weight", *names), record)
    return {key: SegmentSums.of_flat(total.pop(f"menu {key}")) for key in menus}, total
