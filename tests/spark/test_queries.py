"""Every query of docs/queries.md answers what it says, in Spark SQL and in DuckDB."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from reading import PAGE, Reader, blocks, duckdb_reader, spark_reader

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from coarse_spark.pipeline import Run

pytestmark = pytest.mark.spark

TREATMENT = ["depth", "days"]
BEFORE, AFTER = (["depth_before", "days_before"], ["depth_after", "days_after"])


@dataclass(frozen=True)
class Twice:
    """A folder with the runs "first" and "second", which is current, and its tables in pandas."""

    folder: Path
    runs: pd.DataFrame
    first: pd.DataFrame
    second: pd.DataFrame

    def table(self, name: str, run_id: str) -> pd.DataFrame:
        rows = DeltaTable(str(self.folder / name)).to_pandas()
        return rows[rows["run_id"] == run_id].drop(columns="run_id")


@pytest.fixture(scope="module")
def twice(spark: SparkSession, finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """The first run and one a day later: some units moved, one in 100 is gone, as many are new."""
    from pyspark.sql import functions as F

    folder = tmp_path_factory.mktemp("twice") / "tables"
    shutil.copytree(str(finished.lake.path), folder)

    def add(name: str, change: Callable[[DataFrame], DataFrame]) -> None:
        rows = spark.read.format("delta").load(str(folder / name))
        first = rows.where(F.col("run_id") == finished.run_id)
        change(first.withColumn("run_id", F.lit("second"))).select(rows.columns).write.format(
            "delta"
        ).mode("append").save(str(folder / name))

    unit = F.col("unit_id")
    deeper = F.when(unit % 7 == 0, F.col("depth") + 5).otherwise(F.col("depth"))
    renamed = F.when(unit % 100 == 1, unit + 1_000_000).otherwise(unit)
    add("assignments", lambda rows: rows.withColumn("depth", deeper).withColumn("unit_id", renamed))
    add("segments", lambda rows: rows.withColumn("rule", F.lit("later")))
    add("menu", lambda rows: rows)
    add(
        "runs",
        lambda rows: rows.withColumn("published_at", F.col("published_at") + timedelta(days=1)),
    )
    runs = DeltaTable(str(folder / "runs")).to_pandas()
    known = Twice(folder, runs, pd.DataFrame(), pd.DataFrame())
    return Twice(
        folder, runs, known.table("assignments", "first"), known.table("assignments", "second")
    )


@pytest.fixture(scope="module", params=["spark", "duckdb"])
def ask(request: pytest.FixtureRequest, spark: SparkSession, twice: Twice) -> Reader:
    return (
        spark_reader(spark, twice.folder)
        if request.param == "spark"
        else duckdb_reader(twice.folder)
    )


def _same(found: pd.DataFrame, expected: pd.DataFrame, order: list[str]) -> None:
    assert len(found) == len(expected) > 0
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True),
        expected.sort_values(order, ignore_index=True)[list(found.columns)],
        check_dtype=False,
        rtol=1e-12,
    )


def test_who_gets_what(ask: Reader, twice: Twice) -> None:
    (query,) = blocks("Who gets what", "sql")
    found = ask(query)
    assert found["unit_id"].is_monotonic_increasing
    _same(found, twice.second, ["unit_id"])


def test_changes_since_the_last_run(ask: Reader, twice: Twice) -> None:
    rows, counts = blocks("Changes since the last run", "sql")
    both = twice.first.merge(
        twice.second, on="unit_id", how="outer", suffixes=("_before", "_after"), indicator=True
    )[["unit_id", *BEFORE, *AFTER, "_merge"]]
    moved = (both[BEFORE].to_numpy() != both[AFTER].to_numpy()).any(axis=1)
    # as many are gone as are new, and one in seven of the others moved
    kinds = both[moved]["_merge"].value_counts()
    assert kinds["left_only"] == kinds["right_only"] == (twice.first["unit_id"] % 100 == 1).sum()
    assert kinds["both"] > 300
    found = ask(rows)
    _same(found, both[moved].drop(columns="_merge"), ["unit_id"])
    expected = both.groupby([*BEFORE, *AFTER], dropna=False).size().reset_index(name="units")
    counted = ask(counts)
    assert counted["units"].is_monotonic_decreasing
    assert counted["units"].sum() == len(both)
    _same(counted, expected, [*BEFORE, *AFTER])


def test_value_by_segment(ask: Reader, twice: Twice) -> None:
    (query,) = blocks("Value by segment", "sql")
    found = ask(query)
    expected = (
        twice.second.groupby(["treatment_id", *TREATMENT])
        .agg(
            units=("unit_id", "size"),
            mean_profit=("expected_profit", "mean"),
            mean_incremental_profit=("expected_incremental_profit", "mean"),
            incremental_profit=("expected_incremental_profit", "sum"),
        )
        .reset_index()
        .assign(rule="later")
    )
    assert found["units"].sum() == len(twice.second)
    _same(found, expected, ["treatment_id", *TREATMENT])


def test_history_of_a_unit(ask: Reader, twice: Twice) -> None:
    (query,) = blocks("History of a unit", "sql")
    unit = int(twice.first["unit_id"][twice.first["unit_id"] % 7 == 0].min())
    history = ask(query.replace("17", str(unit)))
    assert history["run_id"].tolist() == ["first", "second"]
    published = pd.to_datetime(history["published_at"], utc=True)
    assert published.diff().iloc[1] == timedelta(days=1)
    kept = twice.first.set_index("unit_id").loc[unit]
    np.testing.assert_allclose(history["depth"], [kept["depth"], kept["depth"] + 5])
    np.testing.assert_allclose(history["days"], [kept["days"]] * 2)
    assert len(ask(query.replace("17", str(unit + 1_000_000)))) == 0


def test_audit_of_a_run(ask: Reader, twice: Twice) -> None:
    audit, menu = blocks("Audit of a run", "sql")
    selected = twice.table("menu", "first").query("selected")
    _same(ask(menu), selected, ["treatment_id"])
    (found,) = ask(audit).to_dict("records")
    run = twice.runs.set_index("run_id").loc["first"]
    for column in ("status", "package_version", "config_hash"):
        assert found[column] == run[column]
    assert pd.Timestamp(found["published_at"]).tz_localize(None) == run["published_at"].tz_localize(
        None
    )
    assert dict(found["inputs"]) == dict(run["inputs"])
    assert len(found["inputs"]) == 2
    (k,) = selected["k"].unique()
    assert found["k"] == k
    (value,) = (
        twice.table("policy_values", "first")
        .query("policy == 'menu' and k == @k")
        .to_dict("records")
    )
    for column in ("value", "se", "ci_low", "ci_high", "captured_of_uniform"):
        np.testing.assert_equal(found[column], value[column])
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_no_block_of_the_page_is_left_out() -> None:
    tested = {
        "Spark SQL on a folder",
        "Who gets what",
        "Changes since the last run",
        "Value by segment",
        "History of a unit",
        "Audit of a run",
    }
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("```sql") == sum(len(blocks(heading, "sql")) for heading in tested)
