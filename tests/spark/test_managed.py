"""Sessions that are not ours: used as they are, without caching where that is refused.

And workers of other machines, which are asked for the package; and pages of tables elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil
import pytest
from command_line import Outcome, run_command

from coarse_spark import __version__
from coarse_spark.errors import RuntimeSetupError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark


def test_a_session_that_is_there_is_used_as_it_is(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coarse_spark.lake.session import open_session

    before = dict(spark.conf.getAll)
    given = {"shuffle_partitions": 77, "conf": {"spark.sql.session.timeZone": "Asia/Tokyo"}}
    assert open_session(master="local[7]", **given) is spark
    # the platform's, where nobody has it yet
    monkeypatch.setattr(type(spark), "getActiveSession", classmethod(lambda _: None))
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert open_session(master="local[7]", **given) is spark
    assert dict(spark.conf.getAll) == before


@pytest.mark.usefixtures("spark")
def test_java_of_a_session_of_ours_maps_the_archived_classes() -> None:
    from coarse_spark.lake.java import check_java
    from coarse_spark.lake.java_classes import shared_classes

    found = re.search(r'"(.+)"', shared_classes(check_java()))
    if found is None:
        pytest.skip("no archive: make java makes one")
    own = psutil.Process().children(recursive=True)
    maps = [Path(f"/proc/{one.pid}/maps").read_text() for one in own if one.name() == "java"]
    assert any(found[1] in mapped for mapped in maps)


def test_workers_of_other_machines_are_asked_for_the_package(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coarse_spark.lake import workers

    monkeypatch.setattr(workers, "_NEEDED", ("no_such_module",))
    workers.check_workers(spark)  # processes of this machine: whatever they answer
    monkeypatch.setattr(workers, "works_here", lambda _: False)
    with pytest.raises(RuntimeSetupError, match="No module named 'no_such_module'; bring it to"):
        workers.check_workers(spark)
    monkeypatch.undo()
    monkeypatch.setattr(workers, "works_here", lambda _: False)
    workers.check_workers(spark)
    monkeypatch.setattr(workers, "__version__", "0.0.1")
    with pytest.raises(RuntimeSetupError, match=rf"has coarse_spark {__version__}, but this is 0"):
        workers.check_workers(spark)


def test_the_page_of_tables_elsewhere_goes_where_it_was_declared_or_nowhere(
    spark: SparkSession,
    published: Outcome,
    finished: Run,
    promotions: Promotions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from coarse_spark.lake.contract import TABLES

    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    spark.sql("CREATE DATABASE pages")
    try:
        for table in TABLES.values():
            place = f"{finished.lake.path}/{table.name}"
            spark.sql(f"CREATE TABLE pages.{table.name} USING DELTA LOCATION '{place}'")
        catalog = ("--set", "output.path=null", "--set", "output.schema=pages")
        options = ("--config", promotions.config, "--run-id", "first", *catalog)
        summary = published.out.partition("tables:")[0]
        found = run_command("report", *options)
        assert found.code == 0, found.err
        assert found.out.startswith(summary)
        assert "page:   none, because the tables are in no folder of this machine; set output" in (
            found.out
        )
        pages = tmp_path / "pages"
        declared = run_command("report", *options, "--set", f"output.page={pages}")
        assert f"page:   {pages / 'report.html'}" in declared.out
        page = (pages / "report.html").read_text()
        assert run_command("report", *options, "--report", "one.html").code == 0
        assert (working / "one.html").read_text() == page
        # what cannot be written is told before a run begins
        options = ("--config", promotions.config, *catalog)
        refused = run_command("run", *options, "--set", "output.page=dbfs:/pages")
        assert refused.code == 2
        assert "output.page: /dbfs/pages/report.html cannot be written, because this machine" in (
            refused.err
        )
    finally:
        spark.sql("DROP DATABASE pages CASCADE")
    assert [path.name for path in working.iterdir()] == ["one.html"]


@pytest.mark.slow
def test_a_run_without_caching_has_the_same_results(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyspark.errors import AnalysisException

    from coarse_spark.pipeline import run_all

    refused = []

    def refuse(self: object, *_: object, **__: object) -> None:
        refused.append(True)
        raise AnalysisException(
            "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute. "
            "SQLSTATE: 0A000"
        )

    for name in ("persist", "cache", "checkpoint", "localCheckpoint"):
        monkeypatch.setattr(type(spark.range(1)), name, refuse)
    run = run_all(spark, promotions.configure(output__path=tmp_path / "tables"), "without")
    assert len(refused) >= 5
    for table, key in (
        ("menu", ["k", "treatment_id"]),
        ("assignments", ["unit_id"]),
        ("policy_values", ["policy", "k"]),
        ("responses", ["unit_id"]),
        ("segments", ["treatment_id"]),
    ):
        one, other = (
            each.lake.read(table, each.run_id)
            .drop("run_id")
            .toPandas()
            .sort_values(key, ignore_index=True)
            for each in (run, finished)
        )
        if table == "segments":  # sums in another order: the last digits of means may differ
            for means, before in zip(
                one.pop("feature_means"), other.pop("feature_means"), strict=True
            ):
                assert means == pytest.approx(before, rel=1e-12)
        pd.testing.assert_frame_equal(one, other, check_exact=True)
