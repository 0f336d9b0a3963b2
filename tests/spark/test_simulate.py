from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from coarse_spark.errors import InvalidInputError
from coarse_spark.simulate.promotions import (
    EXPERIMENT_COLUMNS,
    TRUTH_COLUMNS,
    UNIT_COLUMNS,
    simulate_promotions_block,
)

pytestmark = pytest.mark.spark


def test_tables_equal_the_blocks_whatever_the_partitions(spark, tmp_path: Path) -> None:
    from coarse_spark.simulate.tables import write_promotions

    paths = write_promotions(spark, 23_000, str(tmp_path), experiment_units=12_000, seed=9)
    tables = {
        name: spark.read.format("delta").load(path).toPandas().sort_values("unit_id")
        for name, path in paths.items()
    }

    def blocks(units: int, experiment: bool, columns: tuple[str, ...]) -> pd.DataFrame:
        sizes = [min(10_000, units - start) for start in range(0, units, 10_000)]
        parts = [
            simulate_promotions_block(b, 9, rows, experiment=experiment)
            for b, rows in enumerate(sizes)
        ]
        return pd.concat(parts)[list(columns)]

    expected = {
        "experiment": blocks(12_000, True, EXPERIMENT_COLUMNS),
        "population": blocks(23_000, False, UNIT_COLUMNS),
        "truth": pd.concat(
            [blocks(23_000, False, TRUTH_COLUMNS), blocks(12_000, True, TRUTH_COLUMNS)]
        ),
    }
    for name, table in tables.items():
        pd.testing.assert_frame_equal(
            table.reset_index(drop=True), expected[name].reset_index(drop=True), check_exact=True
        )

    # a gap is NULL in the table, not NaN: NaN would pass every SQL filter on missing values
    population = spark.read.format("delta").load(paths["population"])
    assert population.where("age is null").count() == expected["population"]["age"].isna().sum() > 0
    assert population.where("isnan(age)").count() == 0


def test_no_units_are_refused(spark, tmp_path: Path) -> None:
    from coarse_spark.simulate.tables import write_promotions

    with pytest.raises(InvalidInputError, match="experiment_units is 0"):
        write_promotions(spark, 5, str(tmp_path), experiment_units=0)
