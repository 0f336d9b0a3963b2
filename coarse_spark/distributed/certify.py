"""Upper bounds on what any menu can earn on the full population: one pass for the menus of all sizes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.certificate import DualSums, dual_prices, dual_sums
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rounding import Rounding
from coarse_spark.distributed.aggregate import FloatArray, add_up
from coarse_spark.distributed.sketch import Sketch
from coarse_spark.distributed.units import matrix, theta_columns


def upper_bounds(
    responses: DataFrame,
    problem: MenuProblem,
    menus: Mapping[int, PricedMenu],
    population: Sketch,
    *,
    tolerance: float,
    always_offered: FloatArray | None = None,
) -> dict[int, float]:
    """Return for every menu size a profit per unit weight that no menu of this size exceeds on these units.

    Parameters
    ----------
    responses : weight, theta_0 … theta_{p−1} of all units. population : their sketch, on which dual prices are searched.
    tolerance : stop the search within this much of the menu's value.
    always_offered : encoded treatments (f, d) that every menu holds.

    The bound holds for all units, not only for the sketch: see ``core.menu.certificate``.
    """
    rounding = Rounding.of(problem)
    positions = [problem.position(row) for row in (always_offered if always_offered is not None else [])]
    held = np.array([position for position in positions if position is not None], dtype=np.intp)
    found = dual_prices(rounding, menus, population.clusters, tolerance, held)
    tree, clusters = population.tree, population.clusters
    if tree is None:
        # the clusters are the units themselves
        sums = dual_sums(rounding, found, clusters.theta, clusters.weights, np.arange(len(clusters.weights)))
        return {k: sums[k].bound(k, held) for k in menus}
    names = theta_columns(problem.coefficients)
    by_cell = {k: (menu, population.by_cell(correction)) for k, (menu, correction) in found.items()}

    def record(rows: pd.DataFrame) -> dict[str, FloatArray]:
        theta = matrix(rows, names)
        sums = dual_sums(rounding, by_cell, theta, rows["weight"].to_numpy(np.float64), tree.cells(theta))
        return {str(k): np.concatenate([[s.base, s.rounding, s.weight], s.gains]) for k, s in sums.items()}

    total = add_up(responses.select("weight", *names), record)
    return {k: DualSums(v[0], v[3:], v[1], v[2]).bound(k, held) for k, v in ((k, total[str(k)]) for k in menus)}
