"""The population as a table of responses on Spark: its answers to the five questions.

What reaches the driver is bounded: a hash sample, one small record a read, and the units at the
boundary. A read is one matrix product a batch for all treatments of all menus. As native
expressions the same sums of ten menus make generated code too large to compile, and one menu at a
time costs a read each; ``tests/benchmarks/bench_scale.py`` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, StructField, StructType
from threadpoolctl import threadpool_limits

from coarse_spark.core.additive import Additive, Flat
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import (
    BOUNDARY_UNITS,
    SAMPLE_UNITS,
    Boundary,
    PopulationSize,
    Records,
)
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import TieBreak
from coarse_spark.core.menu.sketch import Sketch
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, preferred, segment_sums
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import column, hash_limit, matrix, theta_columns, unit_hash
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.sketch import sketches
from coarse_spark.errors import RunError

_HALVINGS = 20


@dataclass(frozen=True, eq=False)
class ResponseTable:
    """Units on Spark; hand over a table or a materialized frame, since every question reads it.

    Attributes
    ----------
    rows : unit_id, weight, theta_0 … theta_{p−1}, those of rules last.
    problem : with the rules that the coefficients know.
    sample_units : that prices of limits are found on.
    boundary_units : that are looked at one by one, all menus together; twice as many at most.
    """

    rows: DataFrame
    problem: MenuProblem
    sample_units: int = SAMPLE_UNITS
    boundary_units: int = BOUNDARY_UNITS

    def told_apart(self) -> ResponseTable:
        """Return the population with a hash of the unit's id in [0, 1) as one more coefficient."""
        # its own purpose: samples and folds are drawn by other hashes, and must not be early or
        # late here
        number = unit_hash("unit_id", "lottery").cast("double") / F.lit(2.0**64) + F.lit(0.5)
        rows = self.rows.withColumn(f"theta_{self.problem.coefficients}", number)
        return replace(self, rows=rows, problem=self.problem.with_rules([TieBreak()]))

    def size(self) -> PopulationSize:
        """Return the number of units with weight and the range of weights.

        Raises
        ------
        RunError : no unit has weight.
        """
        return self._size

    def sample(self) -> WeightedUnits:
        """Return the units with weight of the smallest hashes, or all of fewer."""
        names = theta_columns(self.problem.coefficients)
        limit = hash_limit(self.sample_units, self.size().units)
        drawn = self._weighted.withColumn("key", unit_hash()).where(F.col("key") <= limit)
        rows = drawn.select("key", "weight", *names).toPandas().sort_values("key", kind="stable")
        return WeightedUnits.of(matrix(rows, names), rows["weight"].to_numpy(np.float64))

    def sketch(self, cells: int) -> Sketch:
        """Return the sketch of a larger sample: no read is needed, the first sums its cells."""
        names = theta_columns(self.problem.coefficients)
        group = F.lit(0).alias("sketch_group")
        units = self.rows.select(group, unit_hash().alias("key"), "weight", *names)
        return sketches(units, self.problem, cells=cells, groups=[0], drawn=True)[0]

    def sums(
        self, menus: Mapping[int, PricedMenu], further: Records | None = None
    ) -> tuple[dict[int, SegmentSums], dict[str, Flat]]:
        """Return the segment sums of every menu, and the records of ``further``, in one read."""
        names = theta_columns(self.problem.coefficients)
        psi = {k: menu.priced_psi for k, menu in menus.items()}

        def record(batch: pd.DataFrame) -> dict[str, Additive]:
            theta, weights = matrix(batch, names), batch["weight"].to_numpy(np.float64)
            sums = segment_sums(theta, weights, psi)
            more = {} if further is None else further(theta, weights)
            return {**{f"menu {k}": part for k, part in sums.items()}, **more}

        total = add_up(self.rows.select("weight", *names), record)
        return {k: SegmentSums.of_flat(total.pop(f"menu {k}")) for k in menus}, total

    def boundary(self, menus: Mapping[int, tuple[PricedMenu, float]]) -> dict[int, Boundary]:
        """Return the units that prefer their treatment by less than a reach, with their ids.

        Their order does not depend on partitioning. Reaches are halved until at most twice
        ``boundary_units`` are within them: the sample that reaches come from tells how many to
        expect, but a population of many alike may hold more.

        Raises
        ------
        RunError : units that even their hashes do not tell apart.
        """
        names = theta_columns(self.problem.coefficients)
        units = self._weighted.select(*(column(name) for name in ("unit_id", "weight", *names)))
        numbers = [StructField("menu", IntegerType()), StructField("taken", IntegerType())]
        fields = (StructField(field.name, field.dataType) for field in units.schema)
        schema = StructType([*numbers, *fields])
        reach = {k: within for k, (_, within) in menus.items()}
        most = 2 * self.boundary_units
        for _ in range(_HALVINGS):
            psi = {k: (menu.priced_psi, reach[k]) for k, (menu, _) in menus.items()}
            # counted before they come: looking for them is what costs, and is done once
            with materialized(units.mapInArrow(_boundary_rows(psi, names), schema)) as found:
                if self.size().units * len(menus) <= most or found.count() <= most:
                    rows = found.toPandas().sort_values(["menu", *names], kind="stable")
                    return {k: _boundary(rows[rows["menu"] == k], names, reach[k]) for k in menus}
            reach = {k: within / 2 for k, within in reach.items()}
        raise RunError(
            f"more than {most} units are indifferent between treatments and nothing tells them "
            "apart"
        )

    @property
    def _weighted(self) -> DataFrame:
        return self.rows.where(F.col("weight") > 0)

    @cached_property
    def _size(self) -> PopulationSize:
        least, most = F.min("weight").alias("least"), F.max("weight").alias("most")
        row = self._weighted.agg(F.count("*").alias("units"), least, most).collect()[0]
        if not row["units"]:
            raise RunError("no unit of the population has weight; check population.weight")
        return PopulationSize(int(row["units"]), float(row["least"]), float(row["most"]))


def _boundary(rows: pd.DataFrame, names: Sequence[str], reach: float) -> Boundary:
    units = WeightedUnits.of(matrix(rows, names), rows["weight"].to_numpy(np.float64))
    return Boundary(units, rows["taken"].to_numpy(np.intp), reach, rows["unit_id"].to_numpy(object))


def _boundary_rows(
    menus: Mapping[int, tuple[FloatArray, float]], names: Sequence[str]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches:
                theta = matrix(batch.select(list(names)).to_pandas(), names)
                for key, (psi, reach) in menus.items():
                    taken, gap = preferred(theta, psi)
                    # two treatments that are one leave no next best to differ from
                    near = np.flatnonzero((gap < reach) | np.isinf(reach))
                    part = batch.take(pa.array(near))
                    columns = [
                        pa.array(np.full(near.size, key), pa.int32()),
                        pa.array(taken[near], pa.int32()),
                    ]
                    numbers = ["menu", "taken"]
                    yield pa.RecordBatch.from_arrays(
                        [*columns, *part.columns], [*numbers, *part.schema.names]
                    )

    return rows
