"""Sketches of groups of units, in one distributed pass or from a sample alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.sketch import Sketch, SketchTree
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import hash_limit, matrix, parts, theta_columns

_PLACED_PER_CELL = 8  # sampled units a cell that place the cuts
# sampled units a cell that stand for all of them: menus lose less by that than passes correct
_DRAWN_PER_CELL = 25


def sketches(
    units: DataFrame,
    problem: MenuProblem,
    *,
    cells: int,
    groups: Sequence[int],
    drawn: bool = False,
) -> dict[int, Sketch]:
    """Return the sketch of every group of units.

    A sample by hash grows one tree a group on the driver; the trees then route all units on the
    executors. The result does not depend on partitioning or order beyond the rounding of sums.

    Parameters
    ----------
    units : columns sketch_group (int), key (hash of the unit), weight, theta_0 … theta_{p−1}.
    cells : of a group at most; a group with no more units than that is returned unit by unit.
    groups : the values of sketch_group; one without units has no sketch.
    drawn : whether a larger sample stands for all units, so that no pass over them is needed.
    """
    names = theta_columns(problem.coefficients)
    if len(groups) == 1:
        sizes = {groups[0]: units.count()}  # of a table, read from its metadata
    else:
        counted = units.groupBy("sketch_group").count().collect()
        sizes = {int(row["sketch_group"]): int(row["count"]) for row in counted}
    wanted = cells * (_DRAWN_PER_CELL if drawn else _PLACED_PER_CELL)
    # each group by its own size: the share of the largest could be none of a small one
    drawn_of = [
        (F.col("sketch_group") == group) & (F.col("key") <= hash_limit(wanted, size))
        for group, size in sizes.items()
    ]
    sample = units.where(reduce(Column.__or__, drawn_of, F.lit(False)))
    sample = sample.select("sketch_group", "key", "weight", *names)
    rows = sample.toPandas().sort_values(["sketch_group", "key"], kind="stable")
    by_group = dict(parts(rows, "sketch_group"))
    trees: dict[int, SketchTree] = {}
    found: dict[int, Sketch] = {}
    for group in (group for group in groups if group in by_group):
        part = by_group[group]
        theta, weights = matrix(part, names), part["weight"].to_numpy(np.float64)
        if len(part) == sizes[group] <= cells:
            found[group] = Sketch.of_units(theta, weights)
            continue
        # rows are in the order of their hashes: the first ones are another sample
        placed = slice(0, cells * _PLACED_PER_CELL)
        few = WeightedUnits.of(theta[placed], weights[placed])
        trees[group] = tree = SketchTree.build(few, problem.psi, cells)
        if drawn:
            sums = SegmentSums.of(tree.cells(theta), theta, weights, tree.count)
            found[group] = Sketch.of_cells(tree, sums)
    if trees and not drawn:
        for group, sums in _routed(units, trees, problem.coefficients).items():
            found[group] = Sketch.of_cells(trees[group], sums)
    return {group: found[group] for group in groups if group in found}


def _routed(
    units: DataFrame, trees: dict[int, SketchTree], coefficients: int
) -> dict[int, SegmentSums]:
    names = theta_columns(coefficients)

    def record(rows: pd.DataFrame) -> dict[str, SegmentSums]:
        result = {}
        for group, part in parts(rows, "sketch_group"):
            if group in trees:
                theta, weights = matrix(part, names), part["weight"].to_numpy(np.float64)
                tree = trees[group]
                result[str(group)] = SegmentSums.of(tree.cells(theta), theta, weights, tree.count)
        return result

    total = add_up(units.select("sketch_group", "weight", *names), record)
    return {group: SegmentSums.of_flat(total[str(group)]) for group in trees}
