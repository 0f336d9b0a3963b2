"""The tables of an output beside the contract: created at once, compared, migrated."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from command_line import ROOT, own_environment, run_command
from outputs import LAYOUT
from tenacity import wait_none

from coarse_spark.errors import RunError, TableError
from coarse_spark.lake.contract import (
    ASSIGNMENTS,
    MENU,
    MODELS,
    RESPONSES,
    RUNS,
    TABLES,
    VERSION,
    OutputLayout,
    columns_of,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.lake.tables import Lake

    from .conftest import Promotions

pytestmark = pytest.mark.spark


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause for other processes that may be about to create the tables."""
    from coarse_spark.lake.output import prepare

    monkeypatch.setattr(prepare.retry, "wait", wait_none())


@pytest.fixture
def nowhere(spark: SparkSession, tmp_path: Path) -> Lake:
    from coarse_spark.lake.tables import Lake

    return Lake(spark, path=str(tmp_path / "tables"))


def _assigned(**changes: object) -> pd.DataFrame:
    row = {
        "unit_id": 1, "treatment_id": 0, "depth": 1.5, "arm": 2, "expected_profit": 1.0,
        "expected_incremental_profit": 0.5, "regret": 0.0, "runner_up_treatment_id": None,
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}])


def _told(lake: Lake, layout: OutputLayout) -> list[str]:
    """Return the lines with which a run on this output is refused."""
    from coarse_spark.lake.output import prepare

    with pytest.raises(TableError) as refused:
        prepare(lake, layout)
    assert refused.value.exit_code == 2
    return [line.strip() for line in str(refused.value).splitlines()]


def _properties(lake: Lake, table: str) -> dict[str, str]:
    rows = lake.spark.sql(f"SHOW TBLPROPERTIES {lake.reference(table)}").collect()
    return {row["key"]: row["value"] for row in rows}


# --- creation -------------------------------------------------------------------------------------


def test_a_new_output_has_every_table_of_the_contract_in_one_commit_each(lake: Lake) -> None:
    from coarse_spark.lake.output import difference

    for schema in TABLES.values():
        table = lake.spark.table(lake.reference(schema.name)).schema
        found = [
            (f.name, f.dataType.simpleString(), f.metadata["comment"], f.nullable) for f in table
        ]
        assert found == [
            (c.name, c.sql_type, c.comment, c.nullable) for c in columns_of(schema, LAYOUT)
        ]
        properties = _properties(lake, schema.name)
        assert properties["coarse_spark.contract"] == str(VERSION)
        assert properties["delta.minReaderVersion"] == "1", "every reader can read it"
        if schema.constraint is not None:
            assert properties[f"delta.constraints.{schema.constraint.name}"]
        log = Path(str(lake.path), schema.name, "_delta_log")
        assert len(list(log.glob("*.json"))) == 1
    assert _properties(lake, "runs")["delta.isolationLevel"] == "Serializable"
    state = difference(lake, LAYOUT)
    assert (state.absent, state.differences) == ((), [])


def test_comparing_a_new_output_creates_nothing(nowhere: Lake, tmp_path: Path) -> None:
    from coarse_spark.lake.output import difference

    state = difference(nowhere, LAYOUT)
    assert [schema.name for schema in state.absent] == list(TABLES)
    assert str(state).endswith(f"segments would be created in {nowhere.path}")
    assert not (tmp_path / "tables").exists()


def test_a_table_that_is_lost_comes_back_and_the_others_stay(lake: Lake) -> None:
    from coarse_spark.lake.output import prepare

    lake.replace(ASSIGNMENTS, "r", _assigned())
    shutil.rmtree(Path(str(lake.path), "menu"))
    prepare(lake, LAYOUT)
    assert lake.spark.table(lake.reference("menu")).count() == 0
    assert lake.read("assignments").count() == 1


def test_empty_folders_of_an_interrupted_creation_are_no_obstacle(
    nowhere: Lake, at_once: None
) -> None:
    from coarse_spark.lake.output import difference, prepare

    Path(str(nowhere.path), "runs", "_delta_log").mkdir(parents=True)
    prepare(nowhere, LAYOUT)
    assert difference(nowhere, LAYOUT).absent == ()


_PREPARE = """
import sys
from coarse_spark.lake.contract import OutputLayout
from coarse_spark.lake.output import prepare
from coarse_spark.lake.session import open_session
from coarse_spark.lake.tables import Lake
spark = open_session(master="local[1]", driver_memory="1g")
for folder in sys.argv[1:]:
    sys.stdin.readline()
    prepare(Lake(spark, path=folder), OutputLayout("bigint", {"depth": "double", "arm": "bigint"}, 3, ("member",)))
    print("done", flush=True)
"""  # noqa: E501


@pytest.mark.slow
def test_two_processes_create_an_output_at_the_same_moment(
    spark: SparkSession, tmp_path: Path
) -> None:
    from coarse_spark.lake.output import difference
    from coarse_spark.lake.tables import Lake

    folders = [str(tmp_path / f"tables{number}") for number in range(4)]
    command = [sys.executable, "-c", _PREPARE, *folders]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            command, env=own_environment(), cwd=ROOT, stdin=pipe, stdout=pipe, text=True
        )
        for _ in range(2)
    ]
    try:
        for folder in folders:
            for process in started:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            for process in started:
                assert process.stdout is not None
                assert process.stdout.readline() == "done\n"
            state = difference(Lake(spark, path=folder), LAYOUT)
            assert (state.absent, state.differences) == ((), [])
        assert [process.wait(timeout=60) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()


def test_two_threads_create_an_output_at_the_same_moment(nowhere: Lake) -> None:
    from coarse_spark.lake.output import difference, prepare

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: prepare(nowhere, LAYOUT), range(2)))
    assert difference(nowhere, LAYOUT).absent == ()


# --- rows -----------------------------------------------------------------------------------------


def test_rows_without_columns_of_other_configurations_leave_them_null(lake: Lake) -> None:
    from pyspark.sql import functions as F

    lake.replace(ASSIGNMENTS, "driver", _assigned().drop(columns=["arm", "depth"]))
    rows = lake.read("assignments", "driver").drop("run_id", "depth")
    lake.replace(ASSIGNMENTS, "spark", rows.withColumn("arm", F.lit(3)))
    found = lake.read("assignments").orderBy("run_id").select("run_id", "depth", "arm").collect()
    assert [tuple(row) for row in found] == [("driver", None, None), ("spark", None, 3)]


def test_columns_and_types_that_the_table_has_not_are_refused(lake: Lake) -> None:
    from pyspark.sql import functions as F

    rows = lake.read("assignments").drop("run_id")
    with pytest.raises(TableError, match=r"assignments has no column 'dept'.*'depth'.*validate"):
        lake.replace(ASSIGNMENTS, "r", rows.withColumnRenamed("depth", "dept"))
    with pytest.raises(TableError, match=r"'unit_id' is of type bigint.*cannot hold the string"):
        lake.replace(ASSIGNMENTS, "r", rows.withColumn("unit_id", F.lit("a")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.25])
def test_a_row_that_breaks_the_constraint_is_told_without_its_values(
    lake: Lake, value: float
) -> None:
    from pyspark.sql import functions as F

    lake.replace(ASSIGNMENTS, "r", _assigned())
    rows = lake.read("assignments", "r").drop("run_id").withColumn("regret", F.lit(value))
    with pytest.raises(RunError) as broken:
        lake.replace(ASSIGNMENTS, "r", rows.withColumn("unit_id", F.lit(7_654_321)))
    assert ASSIGNMENTS.constraint is not None
    assert str(broken.value) == (
        "table assignments: a row breaks its constraint 'finite_profits_and_no_negative_regret': "
        f"{ASSIGNMENTS.constraint.rule}; nothing was written"
    )
    assert broken.value.__cause__ is None
    assert [row["regret"] for row in lake.read("assignments", "r").collect()] == [0.0]


def test_a_null_key_of_spark_is_told_by_its_name(lake: Lake) -> None:
    from pyspark.sql import functions as F

    lake.replace(MODELS, "r", pd.DataFrame([{"partition": "all", "fold": 0, "member": 0}]))
    rows = lake.read("models", "r").drop("run_id").withColumn("partition", F.lit(None))
    with pytest.raises(RunError, match=r"models: .* its constraint 'partition NOT NULL'; nothing"):
        lake.replace(MODELS, "r", rows)


def test_an_unknown_status_is_refused(lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord

    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(RunError, match="'known_status': status IN"):
        RunRecord("r", "{}", "hash", started_at=now, status="sleeping").save(lake)


# --- another schema -------------------------------------------------------------------------------


def test_an_output_of_other_ids_and_treatments_is_refused_column_by_column(lake: Lake) -> None:
    other = replace(
        LAYOUT, unit_id="string", treatments={"depth": "string", "price": "double"}, coefficients=5
    )
    head, *lines = _told(lake, other)
    assert head == (
        f"the tables of the output {lake.path} are not those that this configuration writes, "
        "10 differences:"
    )
    needs, mends = "needs another output", "coarse-spark migrate mends it"
    assert lines == [
        f"responses.unit_id: found bigint, expected string ({needs})",
        f"responses.theta_3: found no such column, expected double ({mends})",
        f"responses.theta_4: found no such column, expected double ({mends})",
        f"responses.best_depth: found double, expected string ({needs})",
        f"responses.best_price: found no such column, expected double ({mends})",
        f"menu.depth: found double, expected string ({needs})",
        f"menu.price: found no such column, expected double ({mends})",
        f"assignments.unit_id: found bigint, expected string ({needs})",
        f"assignments.depth: found double, expected string ({needs})",
        f"assignments.price: found no such column, expected double ({mends})",
    ]


def test_fewer_columns_and_narrower_types_fit(lake: Lake) -> None:
    from coarse_spark.lake.output import prepare

    prepare(lake, OutputLayout("int", {"arm": "bigint"}, 2))


def test_columns_of_others_are_left_alone_unless_they_must_not_be_null(lake: Lake) -> None:
    from coarse_spark.lake.output import prepare

    lake.spark.sql(f"ALTER TABLE {lake.reference('menu')} ADD COLUMNS (note string)")
    prepare(lake, LAYOUT)
    segments = lake.reference("segments")
    shutil.rmtree(Path(str(lake.path), "segments"))
    columns = "run_id string, treatment_id int, Size bigint, x int NOT NULL"
    lake.spark.sql(f"CREATE TABLE {segments} ({columns}) USING delta")
    lines = _told(lake, LAYOUT)
    assert "segments.x: found NOT NULL, expected a column that may be null" in " ".join(lines)
    assert "segments.Size: found this spelling, expected 'size' (needs another" in " ".join(lines)


def test_another_treatment_comes_with_a_migration(lake: Lake) -> None:
    from coarse_spark.lake.migrate import migrate
    from coarse_spark.lake.output import difference

    lake.replace(ASSIGNMENTS, "r", _assigned())
    more = replace(LAYOUT, treatments={**LAYOUT.treatments, "price": "double"})
    assert migrate(lake, more) == [
        "table responses: added best_price",
        "table menu: added price",
        "table assignments: added price",
    ]
    assert difference(lake, more).differences == []
    assert migrate(lake, more) == []
    row = lake.read("assignments", "r").collect()[0]
    assert (row["depth"], row["price"]) == (1.5, None)
    field = lake.spark.table(lake.reference("assignments")).schema["price"]
    assert field.metadata["comment"] == "Treatment dimension price of the offered treatment"


# --- tables of version 1 --------------------------------------------------------------------------

# columns by table before there was a version, keys first, of integer levels `arm`
V1 = {
    "runs": "run_id string, status string, started_at timestamp, ended_at timestamp, published_at "
    "timestamp, step_seconds map<string,double>, config string, config_hash string, "
    "package_version string, inputs map<string,string>, stop_reason string, error string, "
    "warnings array<string>, diagnostics string",
    "models": "run_id string, partition string, fold int, member int, learner string, "
    "format_version int, specification string, arrays map<string,array<double>>, shapes "
    "map<string,array<int>>, rows bigint, seconds double, status string, error string, warnings "
    "array<string>, diagnostics map<string,double>",
    "responses": "run_id string, unit_id int, partition string, theta_0 double, theta_1 double, "
    "theta_2 double, weight double, served_by string, granular_profit double, best_depth double, "
    "best_arm int",
    "menu": "run_id string, k int, treatment_id int, depth double, arm bigint, share double, "
    "shadow_price double, expected_profit double, extrapolates boolean, selected boolean",
    "assignments": "run_id string, unit_id int, treatment_id int, depth double, arm int, "
    "expected_profit double, expected_incremental_profit double, regret double, "
    "runner_up_treatment_id int, changed boolean",
    "policy_values": "run_id string, policy string, k int, value double, se double, ci_low double, "
    "ci_high double, captured_of_control double, captured_of_uniform double, plug_in_value double, "
    "upper_bound double, n bigint",
}
V1_ROWS = {
    "runs": "'old', 'published', timestamp'2025-01-01', timestamp'2025-01-01', "
    "timestamp'2025-01-01', map('fit', 1.5D), '{}', 'hash', '0.1', map('t', '3'), 'all steps "
    "done', null, array('w'), '{}'",
    "responses": "'old', 1, 'all', 1D, 2D, 3D, 1D, 'all', 2.5D, 1.5D, 2",
    "menu": "'old', 1, 0, 1.5D, 2, 1D, 0D, null, false, true",
    "assignments": "'old', 1, 0, 1.5D, 2, 2.25D, 0.5D, 0.25D, null, null",
    "policy_values": "'old', 'menu', 1, 2.25D, 0.5D, 1.25D, 3.25D, 0.75D, null, 2.5D, null, 1",
}


@pytest.fixture(scope="module")
def version_1(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published run, as the package wrote it before there was a version."""
    from coarse_spark.lake.tables import Lake

    nowhere = Lake(spark, path=str(tmp_path_factory.mktemp("version_1") / "tables"))
    for name, columns in V1.items():
        reference, schema = nowhere.reference(name), TABLES[name]
        comments = {c.name: c.comment for c in columns_of(schema, LAYOUT)}
        comments["status"] = "running, published or failed"
        fields = []
        for column in columns.split(", "):
            field = column.split()[0]
            null = " NOT NULL" if field in ("run_id", *schema.key) else ""
            fields.append(f'{column}{null} COMMENT "{comments[field]}"')
        nowhere.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {reference} ({', '.join(fields)}) USING delta "
            f"PARTITIONED BY (run_id) COMMENT '{schema.comment}'"
        )
        if name in V1_ROWS:
            nowhere.spark.sql(f"INSERT INTO {reference} VALUES ({V1_ROWS[name]})")  # noqa: S608
    return Path(str(nowhere.path))


@pytest.fixture
def old(spark: SparkSession, version_1: Path, tmp_path: Path) -> Lake:
    from coarse_spark.lake.tables import Lake

    return Lake(spark, path=str(shutil.copytree(version_1, tmp_path / "old")))


@pytest.mark.long
def test_tables_of_version_1_are_refused_and_migrate(old: Lake) -> None:
    from coarse_spark.lake.migrate import migrate
    from coarse_spark.lake.output import prepare
    from coarse_spark.lake.runs import RunRecord

    before = {name: old.read(name).toPandas() for name in V1}
    lines = _told(old, LAYOUT)
    mends = "(coarse-spark migrate mends it)"
    for line in (
        f"runs: found contract version 1, expected 4 {mends}",
        f"runs.revision: found no such column, expected bigint {mends}",
        f"responses.eligible_member: found no such column, expected boolean {mends}",
        f"assignments.unit_id: found int, expected bigint {mends}",
        f"assignments.arm: found int, expected bigint {mends}",
    ):
        assert line in lines

    done = migrate(old, LAYOUT)
    for sentence in (
        "table menu: added untried",
        "table policy_values: added captured_of_control_low, captured_of_control_high, "
        "captured_of_uniform_low, captured_of_uniform_high, model_free_value, model_free_se",
        "table policy_values: every row keeps 'finite_values' from now on",
        "table runs: added revision, change_id, owner, heartbeat_at",
        "table runs: every row keeps 'known_status' from now on",
        "table runs: contract version 4 (was 1)",
        "table models: contract version 4 (was 1)",
        "table assignments: column unit_id is now bigint (was int)",
        "table assignments: column arm is now bigint (was int)",
    ):
        assert sentence in done
    prepare(old, LAYOUT)
    assert migrate(old, LAYOUT) == []
    for name, rows in before.items():
        after = old.read(name).toPandas()
        pd.testing.assert_frame_equal(after[rows.columns], rows, check_dtype=False)
    record = RunRecord.load(old, "old")
    assert (record.status, record.revision, record.owner) == ("published", 0, None)
    # what an earlier version could tell of support
    assert not old.read("menu").collect()[0]["untried"]
    # nor could it tell how sure a share is
    assert old.read("policy_values").collect()[0]["captured_of_control_low"] is None
    assert [row["depth"] for row in old.current_assignments().collect()] == [1.5]
    status = old.spark.table(old.reference("runs")).schema["status"]
    assert status.metadata["comment"].startswith("running, open (its last command ended")
    # what a rewrite cannot keep, the constraint says
    null = _assigned().assign(unit_id=2)
    old.replace(ASSIGNMENTS, "new", null)
    from pyspark.sql import functions as F

    rows = old.read("assignments", "new").drop("run_id").withColumn("unit_id", F.lit(None))
    with pytest.raises(RunError, match="finite_profits_and_no_negative_regret"):
        old.replace(ASSIGNMENTS, "new", rows)


@pytest.mark.slow
def test_a_migration_that_was_interrupted_goes_on(old: Lake) -> None:
    from coarse_spark.lake.migrate import migrate
    from coarse_spark.lake.output import difference

    runs, menu = old.reference("runs"), old.reference("menu")
    old.spark.sql(f"ALTER TABLE {runs} ADD COLUMNS (revision bigint, change_id string)")
    assert MENU.constraint is not None
    name, rule = MENU.constraint.name, MENU.constraint.rule
    old.spark.sql(f"ALTER TABLE {menu} ADD CONSTRAINT {name} CHECK ({rule})")
    done = migrate(old, LAYOUT)
    assert "table runs: added owner, heartbeat_at" in done
    assert not [sentence for sentence in done if name in sentence]
    assert difference(old, LAYOUT).differences == []
    assert old.read("runs").collect()[0]["revision"] == 0


def test_rows_that_break_the_constraint_stop_a_migration_before_it_starts(old: Lake) -> None:
    from coarse_spark.lake.migrate import migrate

    old.spark.sql(f"UPDATE {old.reference('assignments')} SET regret = double('NaN')")  # noqa: S608
    with pytest.raises(TableError, match=r"assignments: 1 row breaks .*of the runs old \(1\)"):
        migrate(old, LAYOUT)
    assert "revision" not in old.read("runs").columns


def test_what_cannot_be_migrated_is_told_and_left(old: Lake) -> None:
    from coarse_spark.lake.migrate import migrate

    with pytest.raises(TableError, match=r"be migrated:\n  responses\.unit_id: found int, expe"):
        migrate(old, replace(LAYOUT, unit_id="string"))
    assert "revision" not in old.read("runs").columns


# --- first contact --------------------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write, not even root."""
    folder = tmp_path / "locked"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _lock(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def _refused(*arguments: object) -> str:
    """Return the one sentence of a command that is refused."""
    done = run_command(*arguments)
    assert done.code == 2, done.err
    sentences = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    assert not [word for word in ("Traceback", "org.apache", "Py4J", "\tat ") if word in done.err]
    return sentences[0]


def test_a_schema_that_does_not_exist(spark: SparkSession, promotions: Promotions) -> None:
    command = ("--config", promotions.config, "--set", "output.path=null", "--set")
    for step in ("validate", "run", "migrate"):
        told = _refused(step, *command, "output.schema=defualt")
        assert told.startswith(
            "error: output: there is no schema 'defualt' (did you mean 'default'?)"
        )


def test_a_folder_that_cannot_be_written(
    promotions: Promotions, read_only: Path, empty: Path
) -> None:
    config = ("--config", promotions.config, "--set")
    shutil.copytree(empty, read_only / "there")
    _lock(read_only)
    for folder in ("new", "there"):
        told = _refused("run", *config, f"output.path={read_only / folder}")
        assert "cannot be written; check the rights to it" in told


def test_a_file_in_the_way(promotions: Promotions, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = ("--config", promotions.config, "--set")
    told = _refused("run", *config, f"output.path={tmp_path / 'file'}")
    assert (
        "cannot be written; check the rights to it, and that nothing else is in its place" in told
    )


def test_something_that_is_no_table_in_the_way(nowhere: Lake, at_once: None) -> None:
    folder = Path(str(nowhere.path))
    folder.mkdir()
    (folder / "models").write_text("")
    (line,) = _told(nowhere, LAYOUT)
    assert "something that is no Delta table is in the place of" in line
    assert f"{folder / 'models'}" in line


def _append_commit(lake: Lake, table: str, text: str) -> None:
    Path(str(lake.path), table, "_delta_log", f"{1:020}.json").write_text(text)


def test_tables_that_are_newer_or_damaged(lake: Lake) -> None:
    newer = '{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["later"],"writerFeatures":["later"]}}'  # noqa: E501
    _append_commit(lake, "models", newer)
    (line,) = _told(lake, LAYOUT)
    assert line.startswith(lake.reference("models"))
    assert "was written by a newer Delta Lake, which this one cannot read" in line
    shutil.rmtree(Path(str(lake.path), "models"))
    _append_commit(lake, "menu", "garbage")
    (line,) = _told(lake, LAYOUT)
    assert line.startswith(f"{lake.reference('menu')} has a damaged log")


def test_a_table_of_a_newer_contract(lake: Lake) -> None:
    runs = lake.reference(RUNS.name)
    newer = VERSION + 1
    lake.spark.sql(f"ALTER TABLE {runs} SET TBLPROPERTIES ('coarse_spark.contract' = '{newer}')")
    (line,) = _told(lake, LAYOUT)
    assert f"found contract version {newer}, expected at most {VERSION}" in line
    assert "written by a newer coarse_spark" in line


def test_a_table_that_is_not_of_delta(spark: SparkSession) -> None:
    from coarse_spark.lake.tables import Lake

    spark.sql("CREATE SCHEMA IF NOT EXISTS contract_test")
    try:
        spark.sql(f"CREATE TABLE contract_test.{RESPONSES.name} (run_id string) USING parquet")
        (line,) = _told(Lake(spark, schema="contract_test"), LAYOUT)
        assert line.endswith("is no Delta table; use another output")
    finally:
        spark.sql("DROP SCHEMA contract_test CASCADE")


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.long
def test_validate_says_what_of_the_output_is_there(
    promotions: Promotions, empty: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(empty, tmp_path / "tables")
    config = ("--config", promotions.config, "--set")
    there = run_command("validate", *config, f"output.path={folder}")
    assert f"output: the tables in {folder} are those that a run writes" in there.out
    missing = run_command("validate", *config, f"output.path={tmp_path / 'none'}")
    assert f"segments would be created in {tmp_path / 'none'}" in missing.out
    told = run_command(
        "validate", *config, f"output.path={folder}", "--set", "response.basis=cubic"
    )
    assert told.code == 2
    assert "responses.theta_6: found no such column, expected double" in told.err
    assert run_command("migrate", *config, f"output.path={folder}").out == (
        "the tables are as a run writes them: nothing to migrate\n"
    )


@pytest.mark.slow
def test_a_catalog_output_migrates_too(spark: SparkSession) -> None:
    from coarse_spark.lake.migrate import migrate
    from coarse_spark.lake.output import difference, prepare
    from coarse_spark.lake.tables import Lake

    spark.sql("CREATE SCHEMA IF NOT EXISTS contract_test")
    try:
        lake = Lake(spark, schema="contract_test")
        prepare(lake, replace(LAYOUT, unit_id="int"))
        lake.replace(ASSIGNMENTS, "r", _assigned())
        assert migrate(lake, LAYOUT) == [
            "table responses: column unit_id is now bigint (was int)",
            "table assignments: column unit_id is now bigint (was int)",
        ]
        assert difference(lake, LAYOUT).differences == []
        assert lake.read("assignments").collect()[0]["unit_id"] == 1
        assert lake.read(MENU.name).count() == 0
    finally:
        spark.sql("DROP SCHEMA contract_test CASCADE")
