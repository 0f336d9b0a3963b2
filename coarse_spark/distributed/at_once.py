"""Questions to tables, and writes of them, that do not wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyspark
from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession

First = TypeVar("First")
Second = TypeVar("Second")
Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = 4  # more only wait for the driver, which plans every job


def at_once(
    spark: SparkSession, first: Callable[[], First], second: Callable[[], Second]
) -> tuple[First, Second]:
    """Return what two functions return whose jobs run side by side; errors as of ``for_each``."""
    tasks: list[Callable[[], Any]] = [first, second]
    one, other = for_each(spark, tasks, lambda task: task())
    return one, other


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
        found = [pool.submit(_in_session(spark, work), item) for item in items]
    return [future.result() for future in found]


def _in_session(spark: SparkSession, work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """Return a function for one thread, with this thread's settings of the session."""
    inherit: Callable[[Callable[[Item], Result]], Callable[[Item], Result]]
    # before Spark 4 it takes no session
    old = int(pyspark.__version__.partition(".")[0]) < 4
    inherit = inheritable_thread_target if old else inheritable_thread_target(spark)
    return inherit(work)
