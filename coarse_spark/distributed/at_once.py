"""Questions to tables that do not wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession

First = TypeVar("First")
Second = TypeVar("Second")


def at_once(
    spark: SparkSession, first: Callable[[], First], second: Callable[[], Second]
) -> tuple[First, Second]:
    """Return what two functions return whose jobs run side by side.

    Short jobs leave most cores idle, and nearly all while Spark plans them.

    Raises
    ------
    Exception : that of the first function that failed, when both are done.
    """
    in_session = inheritable_thread_target(spark)
    with ThreadPoolExecutor(2) as pool:
        one: Future[First] = pool.submit(in_session(first))
        other: Future[Second] = pool.submit(in_session(second))
        return one.result(), other.result()
