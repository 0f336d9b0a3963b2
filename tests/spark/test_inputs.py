"""A run reads one snapshot of its inputs: versions of Delta tables, files that must not change."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from coarse_spark.config.models import Configuration, Experiment, Population
from coarse_spark.errors import TableError
from coarse_spark.lake.inputs import (
    NOT_PINNED,
    change_feed,
    check_unchanged,
    read_input,
    snapshot_of,
)
from coarse_spark.pipeline.settings import read_source, read_tables

pytestmark = pytest.mark.spark

PIN = r"\d+@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ODD = "we ird[1]{a}*?%20+é=`x"  # what patterns, addresses and SQL take for something else


def source(
    path: Path | str | None = None, kind: str = "delta", *, table: str | None = None
) -> Population:
    return Population(path=None if path is None else str(path), format=kind, table=table)


def units(spark: SparkSession, count: int, outcome: str = "1.0") -> DataFrame:
    """One file of units, few enough that nothing takes time."""
    return spark.range(0, count, 1, 1).selectExpr("id as unit_id", f"{outcome} as y")


def assert_refused(spark: SparkSession, place: Population, snapshot: str, *words: str) -> None:
    """Reading or checking raises one sentence with these words and no name of Java."""
    check = check_unchanged if snapshot.startswith("files:") else read_input
    with pytest.raises(TableError, match="population: ") as refused:
        check(spark, place, "population", snapshot)
    message = str(refused.value)
    assert "\n" not in message
    assert not any(name in message for name in ("java.", "org.apache", "Py4J", "calling o"))
    for word in (*words, "start a new run"):
        assert word in message


@pytest.fixture(scope="module", autouse=True)
def schema(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    spark.sql(f"CREATE SCHEMA inputs_test LOCATION '{tmp_path_factory.mktemp('schema')}'")
    yield
    spark.sql("DROP SCHEMA inputs_test CASCADE")


def test_a_delta_input_stays_at_its_version(spark: SparkSession, tmp_path: Path) -> None:
    name, folder = "inputs_test.stays", tmp_path / ODD

    def write(rows: DataFrame, mode: str) -> None:
        rows.write.format("delta").mode(mode).option("path", str(folder)).saveAsTable(name)

    write(units(spark, 5).withMetadata("y", {"comment": "first"}), "overwrite")
    places = source(table=name), source(folder)
    snapshots = [snapshot_of(spark, place, "population") for place in places]
    pinned = [read_input(spark, places[i], "population", snapshots[i]) for i in (0, 1)]
    write(units(spark, 3), "append")
    # another type of the outcome and one more column
    other = units(spark, 5, "'9'").selectExpr("*", "true as new").write.format("delta")
    other.mode("overwrite").option("overwriteSchema", "true").save(str(folder))
    for i in (0, 1):
        again = read_input(spark, places[i], "population", snapshots[i])
        for frame in (pinned[i], again):
            assert [row["y"] for row in frame.collect()] == [1] * 5
            assert frame.columns == ["unit_id", "y"]
        assert again.schema["y"].metadata["comment"] == "first"
        assert read_input(spark, places[i], "population").columns == ["unit_id", "y", "new"]
        check_unchanged(spark, places[i], "population", snapshots[i])
        assert re.fullmatch(PIN, snapshots[i])
        assert snapshots[i].startswith("0@")
        assert snapshot_of(spark, places[i], "population").startswith("2@")


def test_a_replaced_table_keeps_its_versions_and_a_recreated_one_is_noticed(
    spark: SparkSession,
) -> None:
    name = "inputs_test.again"
    place = source(table=name)
    for count in (1, 3):
        units(spark, count).write.format("delta").mode("append").saveAsTable(name)
    snapshot = snapshot_of(spark, place, "population")
    # another id of the table, the same history
    spark.sql(f"CREATE OR REPLACE TABLE {name} USING delta AS SELECT 1L AS unit_id, 7.0 AS y")
    assert read_input(spark, place, "population", snapshot).count() == 4
    spark.sql(f"DROP TABLE {name}")
    assert_refused(spark, place, snapshot, name, "version 1@", "cannot be read")
    for version in (0, 1):
        units(spark, 4).write.format("delta").mode("append").saveAsTable(name)
        assert_refused(
            spark, place, snapshot, name, "version 1@", "created again", f"at {version}@"
        )
    spark.sql(f"DROP TABLE {name}")
    units(spark, 4).write.format("parquet").saveAsTable(name)
    assert_refused(spark, place, snapshot, name, "version 1@", "Delta")


@pytest.mark.slow
def test_a_version_whose_files_or_log_are_gone_is_refused(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = source(Path("here"))  # relative to the current directory, wherever Spark started
    snapshots = []
    for count in (2, 4):
        writer = units(spark, count).write.format("delta").mode("overwrite")
        writer.option("delta.checkpointInterval", 3).save(str(tmp_path / "here"))
        snapshots.append(snapshot_of(spark, place, "population"))
    assert read_input(spark, place, "population", snapshots[0]).count() == 2
    # as runs recorded it that knew no times
    assert read_input(spark, place, "population", "0").count() == 2
    settings = {
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
        # VACUUM starts as many tasks as this, 10,000 where nobody says otherwise
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    }
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        spark.sql(f"VACUUM delta.`{tmp_path}/here` RETAIN 0 HOURS").collect()
    finally:
        for name in settings:
            spark.conf.unset(name)
    assert_refused(spark, place, snapshots[0], "here", "version 0@", "VACUUM")
    assert read_input(spark, place, "population", snapshots[1]).count() == 4
    # VACUUM made two commits and with the second a checkpoint, all that Delta's cleaning leaves
    for version in (0, 1, 2):
        for file in (tmp_path / "here" / "_delta_log").glob(f"*{version:020}*"):
            file.unlink()
    assert_refused(spark, place, snapshots[0], "here", "version 0@", "log was cleaned")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_that_change_are_refused(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / ODD.replace("=", "")
    rows = units(spark, 6).selectExpr("*", "concat('a b/%', unit_id % 2) as path")
    rows.write.partitionBy("path").format(kind).option("header", "true").save(str(folder))
    place = Population(path=str(folder), format=kind)
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


@pytest.mark.long
@pytest.mark.parametrize("kind", ["delta", "parquet", "csv"])
def test_a_path_is_what_is_read_whatever_its_signs(
    spark: SparkSession, tmp_path: Path, kind: str
) -> None:
    def written(name: str, count: int) -> Population:
        units(spark, count).write.format(kind).save(str(tmp_path / name), header=True)
        return source(tmp_path / name, kind)

    # beside each what a reader that takes its name for a pattern would find
    signs = {"a[bc]d": "abd", "e*": "ef", "g?": "gh", "{i,j}": "i", "k\\*": "k*", "l:m": "lm"}
    for number, (name, other) in enumerate(signs.items()):
        place, beside = written(name, number + 1), written(other, 90 + number)
        snapshot = snapshot_of(spark, place, "population")
        for pin in (None, snapshot):
            assert read_input(spark, place, "population", pin).count() == number + 1, name
        assert read_input(spark, beside, "population").count() == 90 + number
        check_unchanged(spark, place, "population", snapshot)
    for read in (read_input, snapshot_of):
        with pytest.raises(TableError) as refused:
            read(spark, source(tmp_path / "ab*", kind), "population")
        told = "signs of patterns stand for themselves: name the folder that holds the files"
        assert str(refused.value).endswith(f"; {told}")


CSV = """\ufeffid, market ,arm,age ,spend,flag
000012,01,010,7,1.5,true
12,1,10,8,2.5,false
012e3,1.0,1e1,9,,true
123456789012345678901234567890123456789,01,010,10,4,false
"""


def test_csv_files_keep_names_as_texts(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "trial.csv").write_text(CSV, encoding="utf-8")
    arm = {"kind": "categorical", "levels": ["010", "10", "1e1"], "control": "010"}
    config = Configuration.model_validate(
        {
            "experiment": {
                "path": str(tmp_path / "trial.csv"),
                "format": "csv",
                "unit_id": "id",
                "partition_by": ["market"],
                "features": ["age", "flag"],
                "outcome": "spend",
            },
            "treatments": {"arm": arm},
            "menu": {"sizes": [1]},
            "population": {"path": str(tmp_path / "trial.csv"), "format": "csv"},
            "output": {"path": str(tmp_path / "output")},
        }
    )
    assert config.text_columns == {"id", "market", "arm"}
    for table in read_tables(spark, config):
        assert table is not None
        types = {field.name: field.dataType.simpleString() for field in table.schema}
        kinds = {"age": "int", "spend": "double", "flag": "boolean"}
        assert types == dict.fromkeys(("id", "market", "arm"), "string") | kinds
        rows = [tuple(row) for row in table.collect()]
        assert rows == [
            ("000012", "01", "010", 7, 1.5, True),
            ("12", "1", "10", 8, 2.5, False),
            ("012e3", "1.0", "1e1", 9, None, True),
            ("123456789012345678901234567890123456789", "01", "010", 10, 4.0, False),
        ]
    # digits are levels of texts where the experiment has other texts
    (tmp_path / "people.csv").write_text("id,market,age\n1,01,0012\n")
    for experiment, kind in (("id string, age string", "string"), ("age double", "int")):
        people = read_source(
            spark,
            config.model_copy(update={"population": source(tmp_path / "people.csv", "csv")}),
            "population",
            experiment=spark.createDataFrame([], experiment),
        )
        assert people.schema["age"].dataType.simpleString() == kind
    # of folders too: a key of the path is no number either
    folder = tmp_path / "folder"
    spark.createDataFrame([("1", "01"), ("2", "1")], "id string, market string").write.partitionBy(
        "market"
    ).csv(str(folder), header=True)
    table = read_input(spark, source(folder, "csv"), "population", texts=config.text_columns)
    assert {tuple(row) for row in table.collect()} == {("1", "01"), ("2", "1")}

    (tmp_path / "semicolons.csv").write_text("id;age\n1;2\n")
    with pytest.raises(TableError, match=r"columns are separated by ';', expected commas$"):
        read_input(spark, source(tmp_path / "semicolons.csv", "csv"), "population")
    (tmp_path / "twice.csv").write_text("id,age,age \n1,2,3\n")
    table = read_input(spark, source(tmp_path / "twice.csv", "csv"), "population")
    assert table.columns == ["id", "age", "age "]


def test_files_of_catalog_tables_and_of_views_over_them(spark: SparkSession) -> None:
    table, view = source(table="inputs_test.plain"), source(table="inputs_test.plain_view")
    units(spark, 3).write.format("parquet").saveAsTable("inputs_test.plain")
    spark.sql("CREATE VIEW inputs_test.plain_view AS SELECT unit_id FROM inputs_test.plain")
    before = {place.table: snapshot_of(spark, place, "population") for place in (table, view)}
    for place in (table, view):
        assert before[place.table].startswith("files:")
        check_unchanged(spark, place, "population", before[place.table])
    # by another program: this session's own listing of the table stays as it was
    folder = Path(spark.table("inputs_test.plain").inputFiles()[0].removeprefix("file:")).parent
    units(spark, 3).write.format("parquet").mode("append").save(str(folder))
    for place in (table, view):
        assert_refused(spark, place, before[place.table], "changed since the run started")
        assert read_input(spark, place, "population").count() == 6


def test_a_view_over_delta_is_noticed_when_its_table_or_its_text_changes(
    spark: SparkSession,
) -> None:
    # data files in folders of their own, and deletions that leave the list of files as it is
    spark.sql(
        "CREATE TABLE inputs_test.below USING delta PARTITIONED BY (y) TBLPROPERTIES "
        "(delta.columnMapping.mode = 'name', delta.enableDeletionVectors = true) "
        "AS SELECT /*+ COALESCE(1) */ id AS unit_id, 'a b/%' AS y FROM range(6)"
    )
    place = source(table="inputs_test.above")
    spark.sql("CREATE VIEW inputs_test.above AS SELECT unit_id FROM inputs_test.below")
    first, files = (
        snapshot_of(spark, place, "population"),
        spark.table(str(place.table)).inputFiles(),
    )
    assert first.startswith("files:")
    check_unchanged(spark, place, "population", first)
    spark.sql("DELETE FROM inputs_test.below WHERE unit_id = 3")
    assert spark.table(str(place.table)).inputFiles() == files
    assert_refused(spark, place, first, "inputs_test.above changed since the run started")
    second = snapshot_of(spark, place, "population")
    spark.sql(
        "ALTER VIEW inputs_test.above AS SELECT unit_id + 1L AS unit_id FROM inputs_test.below"
    )
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
            with pytest.raises(TableError, match=r"^population: .* cannot be read: ") as refused:
                read(spark, place, "population")
            assert "\n" not in str(refused.value)
            assert not any(word in str(refused.value) for word in ("java.", "org.", "calling o"))


def test_the_change_feed_tells_rows_between_two_snapshots(spark: SparkSession) -> None:
    table = source(table="inputs_test.fed")
    snapshots = []

    def sql(text: str) -> None:
        spark.sql(text)
        snapshots.append(snapshot_of(spark, table, "population"))

    sql(
        "CREATE TABLE inputs_test.fed USING delta TBLPROPERTIES (delta.enableChangeDataFeed = true)"
        " AS SELECT /*+ COALESCE(1) */ id AS unit_id, 2.0D * id AS y FROM range(4)"
    )
    sql("UPDATE inputs_test.fed SET y = 9 WHERE unit_id = 1")
    sql("DELETE FROM inputs_test.fed WHERE unit_id = 2")
    folder = spark.sql("DESCRIBE DETAIL inputs_test.fed").first()["location"]
    places = table, source(folder)

    def changes(place: Population, first: int, last: int) -> set[tuple[object, ...]] | None:
        feed = change_feed(spark, place, snapshots[first], snapshots[last])
        rows = None if feed is None else feed.select("_change_type", "unit_id", "y").collect()
        return None if rows is None else {tuple(row) for row in rows}

    for place in places:
        assert changes(place, 0, 2) == {("update_postimage", 1, 9.0), ("delete", 2, 4.0)}
        assert changes(place, 1, 1) == set()
        assert changes(place, 2, 0) is None
    # the number of a version, in another table of that name
    assert change_feed(spark, table, "0@2001-01-01T00:00:00.000Z", snapshots[2]) is None
    assert change_feed(spark, table, "files:0123456789abcdef", snapshots[2]) is None
    assert change_feed(spark, source(folder, "parquet"), snapshots[0], snapshots[2]) is None
    sql("ALTER TABLE inputs_test.fed SET TBLPROPERTIES (delta.enableChangeDataFeed = false)")
    sql("INSERT INTO inputs_test.fed VALUES (5, 5.0)")
    for place in places:
        assert changes(place, 0, 4) is None
