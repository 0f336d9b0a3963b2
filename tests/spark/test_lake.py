"""Delta tables of runs: replaced per run, commented, keyed, and never reached by free text."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from outputs import LAYOUT

from coarse_spark.errors import InvalidInputError, TableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.lake.tables import Lake

pytestmark = pytest.mark.spark


def _assignments(unit_ids: list[int], depth: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit_id": unit_ids,
            "treatment_id": 0,
            "depth": depth,
            "expected_profit": 1.0,
            "expected_incremental_profit": 0.5,
            "regret": 0.0,
            "runner_up_treatment_id": None,
        }
    )


def _publish(lake: Lake, run_id: str, when: datetime) -> None:
    from coarse_spark.lake.runs import RunRecord

    found = RunRecord.find(lake, run_id) or RunRecord(run_id, "{}", "hash", started_at=when)
    found.with_changes(status="published", published_at=when).save(lake)


def test_replacing_a_run_touches_no_other_run(lake: Lake) -> None:
    from coarse_spark.lake.contract import ASSIGNMENTS

    lake.replace(ASSIGNMENTS, "first", _assignments([1, 2], depth=10.0))
    lake.replace(ASSIGNMENTS, "second", _assignments([1, 2, 3], depth=20.0))
    lake.replace(ASSIGNMENTS, "first", _assignments([7], depth=30.0))
    rows = lake.read("assignments").toPandas()
    assert sorted(zip(rows["run_id"], rows["unit_id"], rows["depth"], strict=True)) == [
        ("first", 7, 30.0),
        ("second", 1, 20.0),
        ("second", 2, 20.0),
        ("second", 3, 20.0),
    ]


def test_view_follows_the_latest_published_run(lake: Lake) -> None:
    from coarse_spark.lake.contract import ASSIGNMENTS

    start = datetime(2026, 1, 1, tzinfo=UTC)
    lake.replace(ASSIGNMENTS, "a", _assignments([1], depth=1.0))
    _publish(lake, "a", start)
    lake.replace(ASSIGNMENTS, "b", _assignments([1], depth=2.0))
    assert [row.run_id for row in lake.current_assignments().collect()] == ["a"]
    _publish(lake, "b", start + timedelta(hours=1))
    assert [row.run_id for row in lake.current_assignments().collect()] == ["b"]
    _publish(lake, "a", start + timedelta(hours=2))
    assert [row.run_id for row in lake.current_assignments().collect()] == ["a"]


def test_run_record_survives_the_round_trip(lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord
    from coarse_spark.lake.step_results import ScoreResult

    record = RunRecord(
        "r1",
        '{"a": 1}',
        "hash",
        started_at=datetime(2026, 1, 1, 12, 30, tzinfo=UTC),
        step_seconds={"fit": 1.5},
        inputs={"experiment": "3"},
        warnings=["one"],
        results={"score": ScoreResult(units=3, granular_value=float("inf"))},
    )
    saved = record.save(lake)
    assert saved == replace(record, revision=1, change_id=saved.change_id)
    assert RunRecord.load(lake, "r1") == saved
    with pytest.raises(TableError, match=r"no run 'r2' .*did you mean 'r1'"):
        RunRecord.load(lake, "r2")


def test_a_run_of_another_version_is_refused_in_a_sentence(lake: Lake) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.lake.contract import RUNS
    from coarse_spark.lake.runs import RunRecord

    started = datetime(2026, 1, 1, tzinfo=UTC)
    RunRecord("r1", "{}", "hash", started_at=started, package_version="0.0.7").save(lake)
    row = lake.read("runs", "r1").drop("run_id")
    for text in ('{"selected_k": 3, "curve": {}}', '{"score": {"rows": 3}}', "[]", "{"):
        lake.replace(RUNS, "r1", row.withColumn("diagnostics", F.lit(text)))
        with pytest.raises(TableError, match=r"run r1 .* another version .*0\.0\.7.* with 'fit'"):
            RunRecord.load(lake, "r1")


def test_repeated_or_null_keys_are_refused_before_anything_is_written(lake: Lake) -> None:
    from coarse_spark.lake.contract import SEGMENTS

    with pytest.raises(TableError, match="repeated or null"):
        lake.replace(SEGMENTS, "r", pd.DataFrame({"treatment_id": [0, 0], "size": [1, 2]}))
    assert lake.read("segments").count() == 0


@pytest.mark.parametrize("run_id", ["x' OR '1'='1", "", "-leading", "a b", "a" * 101])
def test_run_ids_that_could_leave_the_condition_are_refused(lake: Lake, run_id: str) -> None:
    from coarse_spark.lake.contract import SEGMENTS

    with pytest.raises(InvalidInputError, match="run id"):
        lake.replace(SEGMENTS, run_id, pd.DataFrame({"treatment_id": [0], "size": [1]}))


def test_unknown_and_missing_tables_are_named(lake: Lake) -> None:
    with pytest.raises(TableError, match="did you mean 'assignments'"):
        lake.read("assignment")
    shutil.rmtree(Path(str(lake.path), "menu"))
    with pytest.raises(TableError, match="does not exist yet"):
        lake.read("menu")


def test_catalog_output_has_a_persistent_view(spark: SparkSession) -> None:
    from coarse_spark.lake.contract import ASSIGNMENTS
    from coarse_spark.lake.output import prepare
    from coarse_spark.lake.tables import Lake

    spark.sql("CREATE SCHEMA IF NOT EXISTS promotions_test")
    try:
        lake = Lake(spark, schema="promotions_test")
        prepare(lake, LAYOUT)
        lake.replace(ASSIGNMENTS, "a", _assignments([1, 2], depth=1.0))
        _publish(lake, "a", datetime(2026, 1, 1, tzinfo=UTC))
        lake.publish_view()
        assert spark.table("promotions_test.current_assignments").count() == 2
    finally:
        spark.sql("DROP SCHEMA promotions_test CASCADE")


@pytest.mark.long
def test_writers_of_one_run_at_one_time_lose_nothing(spark: SparkSession) -> None:
    """In a schema, where no lock of ours keeps them apart: conflicts are tried again."""
    from concurrent.futures import ThreadPoolExecutor

    from coarse_spark.lake.contract import ASSIGNMENTS
    from coarse_spark.lake.output import prepare
    from coarse_spark.lake.tables import Lake

    spark.sql("CREATE SCHEMA conflicts")
    try:
        lake = Lake(spark, schema="conflicts")
        prepare(lake, LAYOUT)

        def write(writer: int) -> None:
            for turn in range(4):
                units = [100 * writer + turn, 100 * writer + turn + 50]
                lake.replace(ASSIGNMENTS, "same", _assignments(units, depth=10.0 * writer + turn))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        reference = lake.reference("assignments")
        history = spark.sql(f"DESCRIBE HISTORY {reference}").where("operation = 'WRITE'")
        assert history.count() == 16
        rows = lake.read("assignments", "same").toPandas()
        assert len(rows) == 2  # of the last write, whole
        assert len(set(rows["depth"])) == 1
    finally:
        spark.sql("DROP SCHEMA conflicts CASCADE")
