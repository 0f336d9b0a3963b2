"""Questions to tables, and writes of them, that do not wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from pyspark.sql import SparkSession

from coarse_spark.compatibility import in_session

First = TypeVar("First")
Second = TypeVar("Second")
Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = 4  # more only wait for the driver, which plans every job


def at_once(
    spark: SparkSession, first: Callable[[], First], second: Callable[[], Second]
) -> tuple[First, Second]:
    """Return what two functions return whose jobs run side by side; errors as of ``for_each``.

    The first stays in this thread: what computes with OpenMP, as scikit-learn does, goes there, as
    its limits are a thread's own.
    """
    other = begun(spark, second)
    try:
        one = first()
    finally:
        wait([other])
    return one, other.result()


def begun(spark: SparkSession, work: Callable[[], Result]) -> Future[Result]:
    """Start a function whose jobs run beside what this thread goes on with; return what it will."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(in_session(spark, lambda _: work()), None)
    finally:
        pool.shutdown(wait=False)


def for_each(
    spark: SparkSession, items: Iterable[Item], work: Callable[[Item], Result]
) -> list[Result]:
    """Return what a function returns for every item, whose jobs run side by side.

    Short jobs leave most cores idle, and nearly all while Spark plans them.

    Raises
    ------
    Exception : that of the first item that failed, when all are done.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = [pool.submit(in_session(spark, work), item) for item in items]
    return [future.result() for future in found]
