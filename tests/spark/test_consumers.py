"""The tables as programs that are not this one read them: same rows, same sums, plain types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from reading import Reader, blocks, duckdb_reader, python_of, spark_reader
from spark_processes import LOOPBACK, PROGRAMS, free_port, listening, running, settings, wait_until

if TYPE_CHECKING:
    from pyhive.hive import Connection

    from coarse_spark.pipeline import Run

pytestmark = pytest.mark.spark

CURRENT = "SELECT unit_id, depth, days, expected_profit FROM current_assignments"


def checksum(rows: Iterable[Iterable[Any]]) -> tuple[int, str]:
    """Return the number of rows and a sum of their hashes: the same in any order of rows."""
    hashes = []
    for unit, *numbers in rows:
        text = f"{int(unit)} {[float(number).hex() for number in numbers]}"
        hashes.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()))
    return len(hashes), f"{sum(hashes) % 2**64:016x}"


@pytest.fixture(scope="module")
def folder(finished: Run) -> Path:
    return Path(str(finished.lake.path))


@pytest.fixture(scope="module")
def expected(finished: Run) -> tuple[int, str]:
    rows = finished.lake.read("assignments", finished.run_id)
    return checksum(rows.select("unit_id", "depth", "days", "expected_profit").collect())


@pytest.fixture(scope="module", params=["spark", "duckdb"])
def ask(request: pytest.FixtureRequest, finished: Run, folder: Path) -> Reader:
    return (
        spark_reader(finished.spark, folder) if request.param == "spark" else duckdb_reader(folder)
    )


def test_the_checksum_sees_every_change_but_that_of_the_order() -> None:
    rows = [(1, 5.0, 2.0, 0.1), (2, 5.0, 2.0, 0.2)]
    assert checksum(rows) == checksum(rows[::-1])
    others = [rows[:1], [*rows, rows[0]], [rows[0], (2, 5.0, 2.0, 0.2 + 1e-16)], [rows[0], rows[0]]]
    assert len({checksum(rows), *map(checksum, others)}) == 5


def test_sql_engines_read_the_current_assignments(ask: Reader, expected: tuple[int, str]) -> None:
    assert checksum(ask(CURRENT).itertuples(index=False)) == expected


def test_deltalake_reads_the_current_assignments(
    folder: Path, finished: Run, expected: tuple[int, str]
) -> None:
    names = python_of("deltalake", folder)
    assert names["current"] == finished.run_id
    rows = names["assignments"][["unit_id", "depth", "days", "expected_profit"]]
    assert checksum(rows.itertuples(index=False)) == expected
    run = names["runs"].set_index("run_id", drop=False).loc[finished.run_id]
    _assert_is_the_run(run.to_dict(), finished)


def test_sql_engines_read_runs_menu_and_values(ask: Reader, finished: Run) -> None:
    runs = ask("SELECT * FROM runs").set_index("run_id", drop=False)
    _assert_is_the_run(runs.loc[finished.run_id].to_dict(), finished)
    _assert_menu_and_values(
        ask("SELECT * FROM menu").to_dict("records"),
        ask("SELECT * FROM policy_values").to_dict("records"),
        finished,
    )


def _assert_is_the_run(row: dict[str, Any], run: Run) -> None:
    """Check every column of a row of ``runs``: texts, times, maps and arrays."""
    rows = run.lake.read("runs", run.run_id)
    (expected,) = rows.toPandas().to_dict("records")
    types = {field.name: field.dataType.typeName() for field in rows.schema}
    assert {"string", "timestamp", "map", "array"} <= set(types.values())
    assert row.keys() == types.keys()
    for name, kind in types.items():
        assert _plain(row[name], kind) == _plain(expected[name], kind), name
    assert row["status"] == "published"
    assert len(_plain(row["inputs"], "map")) == 2


def _plain(value: Any, kind: str) -> Any:
    """Return a value in Python's own types, whatever a reader has for it."""
    if kind in ("map", "array"):
        value = json.loads(value) if isinstance(value, str) else value
        return None if value is None else dict(value) if kind == "map" else list(value)
    if pd.isna(value):
        return None
    if kind == "timestamp":
        # a time without a zone is in the session's, UTC
        time = pd.Timestamp(value)
        return time.tz_localize(UTC) if time.tzinfo is None else time.tz_convert(UTC)
    return value


def _assert_menu_and_values(
    menu: list[dict[str, Any]], values: list[dict[str, Any]], run: Run
) -> None:
    for name, rows, order in (
        ("menu", menu, ["k", "treatment_id"]),
        ("policy_values", values, ["policy", "k"]),
    ):
        expected = run.lake.read(name).toPandas()
        found = pd.DataFrame(rows).astype(expected.dtypes)
        pd.testing.assert_frame_equal(
            found.sort_values(order, ignore_index=True),
            expected.sort_values(order, ignore_index=True),
            check_exact=True,
        )
    assert {type(row["selected"]) for row in menu} == {bool}


# --- through a Thrift server: a catalog, and a client without Spark -------------------------------


@pytest.fixture(scope="module")
def catalog(
    finished: Run, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """A client of a Thrift server whose schema "promotions" holds the tables and the view."""
    from pyhive import hive

    from coarse_spark.lake.contract import TABLES
    from coarse_spark.lake.tables import Lake

    port, home = free_port(), tmp_path_factory.mktemp("thrift")
    log = home / "server.log"
    hiveconf = {"hive.server2.thrift.port": port, "hive.server2.thrift.bind.host": LOOPBACK}
    command = [
        *(PROGRAMS / "spark-submit", "--master", "local[2]"),
        *settings(
            spark__sql__warehouse__dir=home / "warehouse", spark__sql__session__timeZone="UTC"
        ),
        *("--class", "org.apache.spark.sql.hive.thriftserver.HiveThriftServer2", "spark-internal"),
        *(
            part
            for setting in hiveconf.items()
            for part in ("--hiveconf", "{}={}".format(*setting))
        ),
    ]
    view = Lake(finished.spark, schema="promotions").current_assignments_query()
    statements = [
        "CREATE SCHEMA promotions",
        *(
            f"CREATE TABLE promotions.{table} USING delta LOCATION '{folder / table}'"
            for table in TABLES
        ),
        f"CREATE VIEW promotions.current_assignments AS {view}",
    ]
    with running(command, log) as process:
        wait_until(lambda: listening(port), process, log)
        # stays open: with the first session that ends, Spark closes the loader of its packages
        with closing(hive.connect(LOOPBACK, port=port, auth="NONE")) as owner:
            for statement in statements:
                with closing(owner.cursor()) as cursor:
                    cursor.execute(statement)
            reader = hive.connect(LOOPBACK, port=port, database="promotions", auth="NONE")
            with closing(reader):
                yield reader


@pytest.mark.slow
def test_a_database_client_reads_a_catalog(
    catalog: Connection, finished: Run, expected: tuple[int, str]
) -> None:
    def ask(query: str) -> list[dict[str, Any]]:
        with closing(catalog.cursor()) as cursor:
            cursor.execute(query)
            # of SELECT *, names of columns come with their table
            names = [column[0].rpartition(".")[2] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    assert checksum(row.values() for row in ask(CURRENT)) == expected
    runs = {row["run_id"]: row for row in ask("SELECT * FROM runs")}
    run = runs[finished.run_id]
    # as the page says
    assert all(isinstance(run[name], str) for name in ("inputs", "step_seconds", "warnings"))
    _assert_is_the_run(run, finished)
    _assert_menu_and_values(ask("SELECT * FROM menu"), ask("SELECT * FROM policy_values"), finished)
    described = {row["col_name"]: row for row in ask("DESCRIBE assignments")}
    assert described["unit_id"]["data_type"] == "bigint"
    assert described["regret"]["comment"].startswith("Expected profit lost")
    (query,) = blocks("Value by segment", "sql")
    assert sum(row["units"] for row in ask(query)) == expected[0]
