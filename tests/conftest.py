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

    # small data: Java's quick compiler alone costs less than what the thorough one would save; it stops when its cache is full
    quick = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC"}
    session = open_session(master="local[2]", shuffle_partitions=2, conf=quick)
    yield session
    session.stop()
