"""Sketches of groups of units that differ much in size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

LARGE, SMALL, CELLS = 20_000, 5, 10
SPACE = TreatmentSpace.from_dict(
    {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
)
PROBLEM = MenuProblem.build(SPACE, "quadratic", Profit("1", "0.2 * t"))


@pytest.mark.parametrize("drawn", [False, True])
def test_a_group_much_smaller_than_another_is_not_lost(spark: SparkSession, *, drawn: bool) -> None:
    from coarse_spark.distributed.frames import unit_hash
    from coarse_spark.distributed.sketch import sketches

    rng, units = np.random.default_rng(0), LARGE + SMALL
    theta = np.column_stack([rng.normal(size=units), rng.uniform(0, 2, units), -rng.random(units)])
    rows = pd.DataFrame(theta, columns=["theta_0", "theta_1", "theta_2"]).assign(
        unit_id=np.arange(units), weight=1.0, sketch_group=np.repeat([3, 7], [LARGE, SMALL])
    )
    table = spark.createDataFrame(rows).withColumn("key", unit_hash())
    found = sketches(table, PROBLEM, cells=CELLS, groups=[3, 5, 7], drawn=drawn)
    # one without units has none
    assert list(found) == [3, 7]
    assert len(found[3].units) == CELLS
    # few units are there one by one
    np.testing.assert_array_equal(
        np.sort(found[7].units.theta, axis=0), np.sort(theta[LARGE:], axis=0)
    )
    if not drawn:
        assert found[3].units.total == LARGE
