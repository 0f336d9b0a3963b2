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

    from coarse_spark.distributed.frames import unit_key
    from coarse_spark.distributed.segments import _MAX_LEVELS, describe_segments

    number = F.col("id")
    # half of the units have one of four names, every other one a name of its own
    name = F.when(number % 2 == 0, F.concat(F.lit("usual "), (number % 8).cast("string")))
    units = spark.range(UNITS).select(
        number.alias("unit_id"),
        unit_key(F.col("id"), 0).alias("key"),
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
    segments = describe_segments(assignments, units, ["name", "number"], seed=0)
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


def test_of_many_units_a_sample_tells_all_but_the_sizes(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.distributed import segments
    from coarse_spark.distributed.frames import unit_key

    monkeypatch.setattr(segments, "_DESCRIBED_UNITS", 1_000)
    number = F.col("id")
    units = spark.range(UNITS).select(
        number.cast("int").alias("unit_id"),
        unit_key(number, 7).alias("key"),
        (number % 10).cast("double").alias("feature_0"),
        F.when(number % 4 == 0, "few").otherwise("many").alias("feature_1"),
    )
    # the table of assignments may hold the same ids in another type
    assignments = units.select(
        F.col("unit_id").cast("long").alias("unit_id"),
        F.when(F.col("unit_id") % 10 < 8, 0)
        .when(F.col("unit_id") < UNITS - 1, 1)
        .otherwise(2)
        .alias("treatment_id"),
    )
    found = segments.describe_segments(assignments, units, ["number", "level"], seed=7)
    assert found["size"].tolist() == [3_200, 799, 1]
    rows = units.join(assignments, "unit_id").toPandas().sort_values("key")
    first = rows[rows["key"] <= (2 * 1_000 / UNITS - 1) * 2**63]
    assert 900 < len(first) < 1_100
    for treatment, means in zip(found["treatment_id"], found["feature_means"], strict=True):
        own = first[first["treatment_id"] == treatment]
        if own.empty:
            assert not means
            continue
        assert means["number"] == pytest.approx(own["feature_0"].mean())
        assert means["level=few"] == pytest.approx((own["feature_1"] == "few").mean())
    assert found["distinguishing"][1][0].startswith("number higher")
