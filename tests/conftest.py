"""Fixtures that every suite shares: one Spark session, started by the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from coarse_spark.lake.session import open_session

    quick = {
        # small data: Java's quick compiler alone costs less than what the thorough one would save; it stops when its cache is full
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC",
        # and planning a query again after each of its stages, or compiling it, costs more than running it; the run on tables in
        # another order (test_pipeline.py) and all processes of their own have both
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
    }
    session = open_session(master="local[2]", shuffle_partitions=2, conf=quick)
    yield session
    session.stop()
