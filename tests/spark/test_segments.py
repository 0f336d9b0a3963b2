"""Descriptions of segments, where features have more levels than a driver should see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

UNITS = 4_000


def test_of_a_level_a_unit_only_the_frequent_ones_leave_spark(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.distributed.frames import unit_hash
    from coarse_spark.distributed.segments import _MAX_LEVELS, describe_segments

    number = F.col("id")
    # half of the units have one of four names, every other one a name of its own
    name = F.when(number % 2 == 0, F.concat(F.lit("usual "), (number % 8).cast("string")))
    units = spark.range(UNITS).select(
        number.alias("unit_id"),
        unit_hash("id").alias("key"),
        F.coalesce(name, F.concat(F.lit("unit "), number.cast("string"))).alias("feature_0"),
        number.cast("double").alias("feature_1"),
    )
    assignments = units.select("unit_id", (F.col("unit_id") % 3).cast("int").alias("treatment_id"))
    kind, collected = type(units), []
    original = kind.toPandas

    def watched(frame: Any) -> pd.DataFrame:
        rows = original(frame)
        collected.append((frame.columns, len(rows)))
        return rows

    monkeypatch.setattr(kind, "toPandas", watched)
    segments = describe_segments(assignments, units, ["name", "number"])
    (levels,) = [rows for columns, rows in collected if "level" in columns]
    # each of the usual ones in every segment, the others in one
    assert levels == 3 * 4 + _MAX_LEVELS - 4
    assert segments["size"].sum() == UNITS
    for means, size in zip(segments["feature_means"], segments["size"], strict=True):
        named = {level: share for level, share in means.items() if "=" in level}
        assert len(named) == _MAX_LEVELS
        usual = [share * size for level, share in named.items() if "usual" in level]
        assert len(usual) == 4
        assert usual == pytest.approx([UNITS / 8 / 3] * 4, abs=1)
