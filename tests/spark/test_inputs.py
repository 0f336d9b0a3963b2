"""A run reads one snapshot of its inputs: versions of Delta tables, files that must not change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from coarse_spark.config.models import Experiment, Population
from coarse_spark.errors import TableError
from coarse_spark.lake.inputs import (
    NOT_PINNED,
    change_feed,
    check_unchanged,
    read_input,
    snapshot_of,
)

pytestmark = pytest.mark.spark

PIN = r"\d+@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ODD = "we ird[1]{a}*?%20+é=`x"  # what patterns, addresses and SQL take for something else


def source(
    path: Path | None = None, kind: str = "delta", *, table: str | None = None
) -> Population:
    return Population(path=None if path is None else str(path), format=kind, table=table)


def units(spark: SparkSession, count: int, outcome: str = "1.0") -> DataFrame:
    """One file of units, few enough that nothing takes time."""
    return spark.range(0, count, 1, 1).selectExpr("id as unit_id", f"{outcome} as y")


def assert_refused(spark: SparkSession, place: Population, snapshot: str, *words: str) -> None:
    """Reading or checking raises one sentence with these words and no name of Java."""
    with pytest.raises(TableError, match="population: ") as refused:
        read_input(spark, place, "population", snapshot)
        check_unchanged(spark, place, "population", snapshot)
    message = str(refused.value)
    assert "\n" not in message
    assert not any(name in message for name in ("java.", "org.apache", "Py4J", "calling o"))
    for word in (*words, "start a new run"):
        assert word in message


@pytest.fixture(scope="module")
def schema(spark: SparkSession) -> Iterator[str]:
    spark.sql("CREATE SCHEMA IF NOT EXISTS inputs_test")
    yield "inputs_test"
    spark.sql("DROP SCHEMA inputs_test CASCADE")


@pytest.mark.parametrize("catalog", [False, True])
def test_a_delta_input_stays_at_its_version(
    spark: SparkSession, schema: str, tmp_path: Path, catalog: bool
) -> None:
    name, folder = f"{schema}.stays", tmp_path / ODD
    place = source(table=name) if catalog else source(folder)

    def write(rows: DataFrame, mode: str) -> None:
        writer = rows.write.format("delta").mode(mode).option("overwriteSchema", mode != "append")
        writer.saveAsTable(name) if catalog else writer.save(str(folder))

    write(units(spark, 5).withMetadata("y", {"comment": "first"}), "overwrite")
    snapshot = snapshot_of(spark, place, "population")
    pinned = read_input(spark, place, "population", snapshot)
    assert pinned.count() == 5
    write(units(spark, 3), "append")
    assert pinned.count() == 5
    # other outcomes, another column, another comment
    write(units(spark, 5, "9.0").selectExpr("*", "true as new"), "overwrite")
    again = read_input(spark, place, "population", snapshot)
    for frame in (pinned, again):
        assert {row["y"] for row in frame.collect()} == {1}
        assert frame.columns == ["unit_id", "y"]
    assert again.schema["y"].metadata["comment"] == "first"
    assert read_input(spark, place, "population").columns == ["unit_id", "y", "new"]
    check_unchanged(spark, place, "population", snapshot)
    assert snapshot.startswith("0@")
    assert snapshot_of(spark, place, "population").startswith("2@")


def test_a_replaced_table_keeps_its_versions_and_a_recreated_one_is_noticed(
    spark: SparkSession, schema: str
) -> None:
    name = f"{schema}.again"
    place = source(table=name)
    units(spark, 2).write.format("delta").saveAsTable(name)
    units(spark, 2).write.format("delta").mode("append").saveAsTable(name)
    snapshot = snapshot_of(spark, place, "population")
    # another id of the table, the same history
    spark.sql(f"CREATE OR REPLACE TABLE {name} USING delta AS SELECT 1L AS unit_id, 7.0 AS y")
    assert read_input(spark, place, "population", snapshot).count() == 4
    spark.sql(f"DROP TABLE {name}")
    assert_refused(spark, place, snapshot, name, "version 1@", "cannot be read")
    units(spark, 9).write.format("delta").saveAsTable(name)
    assert_refused(spark, place, snapshot, name, "version 1@", "created again", "at 0@")
    for count in (8, 7):
        units(spark, count).write.format("delta").mode("append").saveAsTable(name)
        assert_refused(spark, place, snapshot, name, "version 1@", "created again")
    spark.sql(f"DROP TABLE {name}")
    units(spark, 9).write.format("parquet").saveAsTable(name)
    assert_refused(spark, place, snapshot, name, "version 1@", "Delta")


def test_versions_recorded_without_their_time_are_read(spark: SparkSession, tmp_path: Path) -> None:
    for count in (2, 3):
        units(spark, count).write.format("delta").mode("append").save(str(tmp_path / "t"))
    assert read_input(spark, source(tmp_path / "t"), "population", "0").count() == 2
    assert read_input(spark, source(tmp_path / "t"), "population", "1").count() == 5


def test_a_version_whose_files_or_log_are_gone_is_refused(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = source(tmp_path / "t")
    for count in (2, 3, 4):
        mode = "append" if count == 3 else "overwrite"
        units(spark, count).write.format("delta").mode(mode).save(str(tmp_path / "t"))
        if count == 2:
            first = snapshot_of(spark, place, "population")
    latest = snapshot_of(spark, place, "population")
    assert read_input(spark, place, "population", first).count() == 2
    settings = {
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
        # VACUUM starts as many tasks as this, 10,000 where nobody says otherwise
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    }
    before = {name: spark.conf.get(name) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        spark.sql(f"VACUUM delta.`{tmp_path}/t` RETAIN 0 HOURS").collect()
    finally:
        for name, value in before.items():
            spark.conf.set(name, str(value))
    assert_refused(spark, place, first, str(tmp_path / "t"), "version 0@", "VACUUM")
    assert read_input(spark, place, "population", latest).count() == 4
    # Delta's cleaning of a log leaves a checkpoint and what came after it
    spark.sql(f"ALTER TABLE delta.`{tmp_path}/t` SET TBLPROPERTIES (delta.checkpointInterval = 1)")
    units(spark, 1).write.format("delta").mode("append").save(str(tmp_path / "t"))
    for version in (0, 1, 2):
        for file in (tmp_path / "t" / "_delta_log").glob(f"*{version:020}*"):
            file.unlink()
    assert_refused(spark, place, first, str(tmp_path / "t"), "version 0@", "log was cleaned")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_that_change_are_refused(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / ODD.replace("=", "")
    rows = units(spark, 6).selectExpr("*", "concat('a b/%', unit_id % 2) as path")
    rows.write.partitionBy("path").format(kind).option("header", "true").save(str(folder))
    # the configuration takes patterns, so that these signs are escaped in it
    pattern = "".join(f"\\{sign}" if sign in "[]{}*?" else sign for sign in str(folder))
    place = Population(path=pattern, format=kind)
    snapshot = snapshot_of(spark, place, "population")
    assert snapshot.startswith("files:")
    assert read_input(spark, place, "population", snapshot).count() == 6
    check_unchanged(spark, place, "population", snapshot)
    assert snapshot_of(spark, place, "population") == snapshot

    file = next(folder.rglob("*." + kind))
    status, content = file.stat(), file.read_bytes()
    file.write_bytes(content)  # other bytes of the same length would look the same
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 2_000_000))
    assert_refused(spark, place, snapshot, folder.name[:6], "changed since the run started")
    file.write_bytes(content + b"\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(TableError, match="changed since"):
        check_unchanged(spark, place, "population", snapshot)
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    check_unchanged(spark, place, "population", snapshot)
    file.unlink()
    with pytest.raises(TableError, match="changed since"):
        check_unchanged(spark, place, "population", snapshot)


def test_files_of_catalog_tables_and_of_views_over_them(spark: SparkSession, schema: str) -> None:
    table, view = source(table=f"{schema}.plain"), source(table=f"{schema}.plain_view")
    units(spark, 3).write.format("parquet").saveAsTable(f"{schema}.plain")
    spark.sql(f"CREATE VIEW {schema}.plain_view AS SELECT unit_id FROM {schema}.plain")
    before = {place.table: snapshot_of(spark, place, "population") for place in (table, view)}
    for place in (table, view):
        assert before[place.table].startswith("files:")
        check_unchanged(spark, place, "population", before[place.table])
    # by another program: this session's own listing of the table stays as it was
    folder = Path(spark.table(f"{schema}.plain").inputFiles()[0].removeprefix("file:")).parent
    units(spark, 3).write.format("parquet").mode("append").save(str(folder))
    for place in (table, view):
        assert_refused(spark, place, before[place.table], "changed since the run started")
        assert read_input(spark, place, "population").count() == 6


def test_a_view_over_delta_is_noticed_when_its_table_or_its_text_changes(
    spark: SparkSession, schema: str
) -> None:
    name, place = f"{schema}.below", source(table=f"{schema}.above")
    # data files in folders of their own, and deletions that leave the list of files as it is
    spark.sql(
        f"CREATE TABLE {name} (unit_id BIGINT, y DOUBLE) USING delta PARTITIONED BY (y) "
        "TBLPROPERTIES (delta.columnMapping.mode = 'name', delta.enableDeletionVectors = true)"
    )
    units(spark, 6).write.format("delta").mode("append").saveAsTable(name)
    spark.sql(f"CREATE VIEW {place.table} AS SELECT unit_id FROM {name}")

    def now() -> str:
        return snapshot_of(spark, place, "population")

    first, files = now(), spark.table(name).inputFiles()
    assert first == now()
    assert first.startswith("files:")
    spark.sql(f"DELETE FROM {name} WHERE unit_id = 3")
    assert spark.table(name).inputFiles() == files
    assert_refused(spark, place, first, f"{place.table} changed since the run started")
    second = now()
    check_unchanged(spark, place, "population", second)
    spark.sql(f"ALTER VIEW {place.table} AS SELECT unit_id FROM {name} WHERE unit_id > 1")
    assert_refused(spark, place, second, "changed since the run started")


def test_inputs_without_files_and_of_packages(spark: SparkSession, tmp_path: Path) -> None:
    spark.range(3).createOrReplaceTempView("of_memory")
    memory = source(table="of_memory")
    assert snapshot_of(spark, memory, "population") == NOT_PINNED
    check_unchanged(spark, memory, "population", NOT_PINNED)
    assert read_input(spark, memory, "population", NOT_PINNED).count() == 3

    bundled = Experiment(bundled="thornton", unit_id="unit_id", features=["age"], outcome="got")
    snapshot = snapshot_of(spark, bundled, "experiment")
    assert snapshot.startswith("content:")
    check_unchanged(spark, bundled, "experiment", snapshot)
    with pytest.raises(TableError, match="experiment: thornton changed since"):
        check_unchanged(spark, bundled, "experiment", "content:0123456789abcdef")


def test_a_relative_path_is_of_the_current_directory(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    units(spark, 4).write.format("delta").save(str(tmp_path / "here"))
    place = source(Path("here"))
    snapshot = snapshot_of(spark, place, "population")
    assert snapshot.startswith("0@")
    assert read_input(spark, place, "population", snapshot).count() == 4


@pytest.mark.parametrize("kind", ["delta", "parquet", "csv"])
def test_what_is_missing_or_broken_is_one_sentence(
    spark: SparkSession, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.parquet").write_text("no parquet file")
    places = [source(tmp_path / "missing", kind), source(table="no_such.table_at_all")]
    if kind != "csv":
        places.append(source(tmp_path / "broken", kind))
    for place in places:
        reads = [read_input, snapshot_of] if "broken" not in str(place.path) else [read_input]
        for read in reads:
            with pytest.raises(TableError, match="^population: .* cannot be read: ") as refused:
                read(spark, place, "population")
            assert "\n" not in str(refused.value)
            assert not any(word in str(refused.value) for word in ("java.", "org.", "calling o"))


@pytest.mark.parametrize("catalog", [False, True])
def test_the_change_feed_tells_rows_between_two_snapshots(
    spark: SparkSession, schema: str, tmp_path: Path, catalog: bool
) -> None:
    name = f"{schema}.fed" if catalog else f"delta.`{tmp_path}/fed`"
    place = source(table=name) if catalog else source(tmp_path / "fed")
    snapshots = []

    def sql(text: str) -> None:
        spark.sql(text)
        snapshots.append(snapshot_of(spark, place, "population"))

    fed = "TBLPROPERTIES (delta.enableChangeDataFeed = true)"
    sql(f"CREATE TABLE {name} (unit_id BIGINT, y DOUBLE) USING delta {fed}")
    sql(f"INSERT INTO {name} VALUES (1, 1.0), (2, 2.0), (3, 3.0)")
    sql(f"UPDATE {name} SET y = 9.0 WHERE unit_id = 1")
    sql(f"DELETE FROM {name} WHERE unit_id = 2")

    def changes(first: int, last: int) -> set[tuple[str, int, float]] | None:
        feed = change_feed(spark, place, snapshots[first], snapshots[last])
        rows = None if feed is None else feed.select("_change_type", "unit_id", "y").collect()
        return None if rows is None else {tuple(row) for row in rows}

    assert changes(1, 3) == {("update_postimage", 1, 9.0), ("delete", 2, 2.0)}
    assert changes(2, 2) == set()
    assert changes(3, 1) is None
    sql(f"ALTER TABLE {name} SET TBLPROPERTIES (delta.enableChangeDataFeed = false)")
    sql(f"INSERT INTO {name} VALUES (5, 5.0)")
    assert changes(1, 5) is None
    # the number of a version in another table of that name
    other = snapshots[1].replace("1@", "1@1")
    assert change_feed(spark, place, other, snapshots[3]) is None
    assert change_feed(spark, source(tmp_path, "parquet"), snapshots[1], snapshots[3]) is None
    assert change_feed(spark, place, "files:0123456789abcdef", snapshots[3]) is None
