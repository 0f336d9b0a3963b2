"""Responses of any number of units compressed into weighted micro-clusters, in one distributed pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters, SketchSums, SketchTree
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import hash_limit, matrix, parts, theta_columns

_PLACED_PER_CELL = 8  # sampled units a cell that place the cuts
_DRAWN_PER_CELL = 25  # sampled units a cell that stand for all of them: what menus lose by that is below what passes correct


@dataclass(frozen=True, eq=False)
class Sketch:
    """Micro-clusters and the tree that routes units to them.

    Attributes
    ----------
    clusters : what menus are searched on. tree : None where the clusters are the units themselves.
    filled : (cells,) which cells of the tree are clusters.
    """

    clusters: MicroClusters
    tree: SketchTree | None
    filled: BoolArray

    def by_cell(self, values: FloatArray) -> FloatArray:
        """Return values of the clusters (m,) by cell of the tree (cells,), 0 in empty ones."""
        result = np.zeros(len(self.filled))
        result[self.filled] = values
        return result

    def sums(self, theta: FloatArray, weights: FloatArray, cells: IntArray) -> SketchSums:
        """Add up units (n, p) with weights (n,) by their cells (n,)."""
        return SketchSums.of(cells, theta, weights, len(self.filled))

    def cells(self, theta: FloatArray) -> IntArray:
        """Return the cell of every unit (n, p) of the sketched population as (n,)."""
        if self.tree is not None:
            return self.tree.cells(theta)
        # units without weight are no clusters: it does not matter which cell they are told
        return np.array([self._units.get(unit.tobytes(), 0) for unit in theta], dtype=np.intp)

    @cached_property
    def _units(self) -> dict[bytes, int]:
        return {unit.tobytes(): number for number, unit in enumerate(self.clusters.theta)}


def sketch(
    responses: DataFrame,
    problem: MenuProblem,
    *,
    cells: int,
    groups: Sequence[int],
    drawn: bool = False,
) -> dict[int, Sketch]:
    """Return the sketch of every group of responses.

    Parameters
    ----------
    responses : columns sketch_group (int), key (hash of the unit), weight, theta_0 … theta_{p−1}.
    cells : micro-clusters a group at most; a group with no more units than that is returned unit by unit.
    groups : the values of sketch_group.
    drawn : whether a larger sample stands for all units, so that no pass over them is needed: a later pass can sum over the cells.

    A sample by hash grows one tree a group on the driver; the trees then route all units on the executors. The result does not
    depend on partitioning or order beyond the rounding of sums.
    """
    names = theta_columns(problem.coefficients)
    if len(groups) == 1:
        sizes = {groups[0]: responses.count()}  # of a table, read from its metadata
    else:
        sizes = {
            int(row["sketch_group"]): int(row["count"])
            for row in responses.groupBy("sketch_group").count().collect()
        }
    limit = hash_limit(
        cells * (_DRAWN_PER_CELL if drawn else _PLACED_PER_CELL), max(sizes.values(), default=0)
    )
    sample = (
        responses.where(F.col("key") <= limit)
        .select("sketch_group", "key", "weight", *names)
        .toPandas()
    )
    sample = sample.sort_values(["sketch_group", "key"], kind="stable")
    rows = dict(parts(sample, "sketch_group"))
    trees: dict[int, SketchTree] = {}
    sketches: dict[int, Sketch] = {}
    for group in groups:
        part = rows[group]
        theta, weights = matrix(part, names), part["weight"].to_numpy(np.float64)
        if (
            len(part) == sizes[group] <= cells
        ):  # a larger group may have thinned the sample of a small one
            held = weights > 0
            units = np.ones(int(held.sum()), dtype=np.intp)
            sketches[group] = Sketch(
                MicroClusters(weights[held], theta[held], units), None, units > 0
            )
        else:
            placed = slice(
                0, cells * _PLACED_PER_CELL
            )  # rows are in the order of their hashes: another sample
            trees[group] = SketchTree.build(theta[placed], weights[placed], problem.psi, cells)
            if drawn:
                sums = trees[group].sums(theta, weights)
                sketches[group] = Sketch(sums.clusters(), trees[group], sums.weight > 0)
    if trees and not drawn:
        for group, sums in _routed(responses, trees, problem.coefficients).items():
            sketches[group] = Sketch(sums.clusters(), trees[group], sums.weight > 0)
    return {group: sketches[group] for group in groups}


def _routed(
    responses: DataFrame, trees: dict[int, SketchTree], coefficients: int
) -> dict[int, SketchSums]:
    names = theta_columns(coefficients)

    def record(rows: pd.DataFrame) -> dict[str, SketchSums]:
        result = {}
        for group, part in parts(rows, "sketch_group"):
            if group in trees:
                sums = trees[group].sums(matrix(part, names), part["weight"].to_numpy(np.float64))
                result[str(group)] = sums
        return result

    total = add_up(responses.select("sketch_group", "weight", *names), record)
    return {group: SketchSums.of_flat(total[str(group)]) for group in trees}
