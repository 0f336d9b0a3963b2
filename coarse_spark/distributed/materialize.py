"""The one place that keeps an intermediate result.

UDF results are computed once, whatever reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame

from coarse_spark.compatibility import keeps_nothing


@contextmanager
def materialized(frame: DataFrame) -> Iterator[DataFrame]:
    """Yield the frame persisted for the block, or as it is where the platform refuses that.

    Serverless runtimes refuse caching: the result is the same there, computed again by each reader,
    because every function of this package gives the same rows for the same input.
    """
    try:
        kept = frame.persist()
    except Exception as error:
        if not keeps_nothing(error):
            raise
        yield frame
        return
    try:
        yield kept
    finally:
        kept.unpersist()
