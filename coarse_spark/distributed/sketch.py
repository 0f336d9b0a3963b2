"""Responses of any number of units compressed into weighted micro-clusters, in one distributed pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters, SketchSums, SketchTree
from coarse_spark.distributed.units import matrix, parts, theta_columns

_SAMPLE_PER_CELL = 10  # sampled units a cell: enough to place cuts, small enough for the driver


def sketch(responses: DataFrame, problem: MenuProblem, *, cells: int, groups: Sequence[int]) -> dict[int, MicroClusters]:
    """Return the micro-clusters of every group of responses.

    Parameters
    ----------
    responses : columns sketch_group (int), key (hash of the unit), weight, theta_0 … theta_{p−1}.
    cells : micro-clusters a group at most; a group with no more units than that is returned unit by unit.
    groups : the values of sketch_group.

    A sample by hash grows one tree a group on the driver; the trees then route all units on the executors. The result does not
    depend on partitioning or order beyond the rounding of sums.
    """
    names = theta_columns(problem.coefficients)
    sizes = {int(row["sketch_group"]): int(row["count"]) for row in responses.groupBy("sketch_group").count().collect()}
    wanted = cells * _SAMPLE_PER_CELL
    # keys are uniform on the 64-bit integers: the units with the smallest ones are a sample that no shuffling changes
    largest = max(sizes.values(), default=0)
    limit = 2**63 - 1 if largest <= wanted else round((2 * wanted / largest - 1) * 2**63)
    sample = responses.where(F.col("key") <= limit).select("sketch_group", "key", "weight", *names).toPandas()
    sample = sample.sort_values(["sketch_group", "key"], kind="stable")
    rows = dict(parts(sample, "sketch_group"))
    trees, clusters = {}, {}
    for group in groups:
        part = rows[group]
        theta, weights = matrix(part, names), part["weight"].to_numpy(np.float64)
        if sizes[group] <= cells:
            held = weights > 0
            clusters[group] = MicroClusters(weights[held], theta[held], np.ones(int(held.sum()), dtype=np.intp))
        else:
            trees[group] = SketchTree.build(theta, weights, problem.psi, cells)
    if trees:
        clusters |= _routed(responses, trees, problem.coefficients)
    return {group: clusters[group] for group in groups}


def _routed(responses: DataFrame, trees: dict[int, SketchTree], coefficients: int) -> dict[int, MicroClusters]:
    names = theta_columns(coefficients)
    schema = ", ".join(["sketch_group int", "cell int", "weight double", "units bigint", *(f"{name} double" for name in names)])
    columns = ["sketch_group", "cell", "weight", "units", *names]
    partial = responses.select("sketch_group", "weight", *names).mapInPandas(_router(trees, names, columns), schema)
    sums = partial.groupBy("sketch_group", "cell").agg(*(F.sum(name).alias(name) for name in columns[2:])).toPandas()
    result = {}
    for group, tree in trees.items():
        own = sums[sums["sketch_group"] == group]
        cell = own["cell"].to_numpy(np.intp)
        weight, units, theta = np.zeros(tree.count), np.zeros(tree.count, dtype=np.intp), np.zeros((tree.count, coefficients))
        weight[cell], units[cell], theta[cell] = own["weight"], own["units"], matrix(own, names)
        result[group] = SketchSums(weight, theta, units).clusters()
    return result


def _router(
    trees: dict[int, SketchTree], names: Sequence[str], columns: Sequence[str]
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    def route(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        total: dict[int, SketchSums] = {}
        with threadpool_limits(limits=1):
            for rows in batches:
                for group, part in parts(rows, "sketch_group"):
                    if group in trees:
                        sums = trees[group].sums(matrix(part, names), part["weight"].to_numpy(np.float64))
                        total[group] = total[group] + sums if group in total else sums
        for group, sums in total.items():
            filled = np.flatnonzero(sums.units > 0)
            values = [np.full(len(filled), group), filled, sums.weight[filled], sums.units[filled], *sums.theta[filled].T]
            yield pd.DataFrame(dict(zip(columns, values, strict=True)))

    return route
