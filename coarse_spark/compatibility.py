"""All that differs between the versions of Spark and Delta Lake, and between kinds of sessions.

A session is of this process (Spark 3.5 to 4.2, with a Java of its own) or a client of Spark
Connect, which may have neither ``delta`` nor a Java. What else is done with one is the same
everywhere. Spark is imported when a session asks for it: the mathematics tells its progress
through here, and knows no Spark.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Item = TypeVar("Item")
Result = TypeVar("Result")
Tasks = Callable[[], tuple[int, int]]
"""Returns the finished tasks of the stages that run, and all of theirs."""

# Depending on versions, on Spark Connect, and on what was imported before, a conflict comes as a
# class of Delta's Python package, of pyspark, py4j or gRPC. All of them name Delta's own class, or
# its condition.
_CONFLICT = re.compile(
    r"\b(?:Concurrent(?:Write|Append|DeleteRead|DeleteDelete|Transaction)"
    r"|DeltaConcurrentModification|MetadataChanged|ProtocolChanged)Exception\b"
    r"|\bDELTA_(?:CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED)\b"
)
# what Spark and Delta raise of a table that is not there, or whose schema or catalog is not
_ABSENT = {
    "TABLE_OR_VIEW_NOT_FOUND",
    "PATH_NOT_FOUND",
    "DELTA_TABLE_NOT_FOUND",
    "DELTA_PATH_DOES_NOT_EXIST",
    "SCHEMA_NOT_FOUND",
    "CATALOG_NOT_FOUND",
    "REQUIRES_SINGLE_PART_NAMESPACE",  # the catalog of a session has no others
}
# variables that spark-submit, a client's user and a managed runtime set
_PLATFORMS = {"PYSPARK_GATEWAY_PORT", "SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION"}
# serverless runtimes keep no intermediate results
_NOT_KEPT = re.compile(r"PERSIST|CACHE", re.IGNORECASE)
# local properties by which Spark's pages group jobs
_GROUP, _DESCRIPTION = "spark.jobGroup.id", "spark.job.description"


# --- what is installed ----------------------------------------------------------------------------


def spark_version() -> tuple[int, int]:
    """Return the major and minor version of the Spark that is installed here.

    Examples
    --------
    >>> spark_version() >= (3, 5)
    True
    """
    import pyspark

    major, minor = pyspark.__version__.split(".")[:2]
    return int(major), int(minor)


def java_versions() -> tuple[int, ...]:
    """Return the versions of Java that this Spark runs on."""
    version = spark_version()
    if version >= (4, 2):
        return (17, 21, 25)
    return (17, 21) if version >= (4, 0) else (8, 11, 17)


def is_client_alone() -> bool:
    """Whether there is only Spark Connect's client: it needs a server."""
    try:
        from pyspark.util import is_remote_only
    except ImportError:  # Spark 3.5, whose client comes with all of it
        return False
    return bool(is_remote_only())


def has_platform_session() -> bool:
    """Whether spark-submit, Spark Connect or a managed runtime has a session for this process."""
    return not _PLATFORMS.isdisjoint(os.environ)


def with_delta(builder: SparkSession.Builder, packages: str = "") -> SparkSession.Builder:
    """Return the builder of a session with the jars of the delta-spark that is installed.

    Parameters
    ----------
    builder : of the session; its own ``spark.jars.packages`` are replaced.
    packages : further ones, as ``spark.jars.packages`` names them, separated by commas.

    Raises
    ------
    ImportError : none is.
    """
    from delta import configure_spark_with_delta_pip

    configured: SparkSession.Builder = configure_spark_with_delta_pip(
        builder, [name for name in map(str.strip, packages.split(",")) if name]
    )
    return configured


# --- sessions -------------------------------------------------------------------------------------


def is_remote(spark: SparkSession) -> bool:
    """Whether a session is a client of Spark Connect."""
    return ".connect." in f"{type(spark).__module__}."


def works_here(spark: SparkSession) -> bool:
    """Whether a session's Java is a process of this one, and its workers are processes of that."""
    if is_remote(spark):
        return False
    try:
        master = spark.conf.get("spark.master", "")
    except Exception:  # managed runtimes keep some settings to themselves
        return False
    return re.fullmatch(r"local(\[[^\]]*\])?", str(master)) is not None


def in_session(spark: SparkSession, work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """Return a function for one other thread, with this thread's settings of the session."""
    from pyspark import inheritable_thread_target

    inherit: Callable[[Callable[[Item], Result]], Callable[[Item], Result]]
    if spark_version() >= (4, 0):
        inherit = inheritable_thread_target(spark)
    elif is_remote(spark):  # it only asks for the session's Java, which is elsewhere
        return work
    else:
        inherit = inheritable_thread_target
    return inherit(work)


@contextmanager
def tasks_of(spark: Any) -> Iterator[Tasks]:
    """Count tasks by what a session of this kind has: a handler on Connect, else a tracker.

    Parameters
    ----------
    spark : the session; of None, and of one that tells nothing, no task is counted.
    """
    stages: dict[str, tuple[int, int]] = {}  # of Connect, by operation

    def hear(**told: Any) -> None:
        running = [] if told["done"] else [stage for stage in told["stages"] if not stage.done]
        done, total = (
            sum(getattr(stage, name) for stage in running)
            for name in ("num_completed_tasks", "num_tasks")
        )
        stages[str(told["operation_id"])] = done, total

    def heard() -> tuple[int, int]:
        found = list(stages.values())
        return sum(done for done, _ in found), sum(total for _, total in found)

    hears = False
    with suppress(Exception):  # a session in this process, one of Spark 3.5, or none
        spark.registerProgressHandler(hear)
        hears = True
    try:
        yield heard if hears else _tracked(spark)
    finally:
        if hears:
            with suppress(Exception):  # the session ended
                spark.removeProgressHandler(hear)


def _tracked(spark: Any) -> Tasks:
    try:
        tracker = spark.sparkContext.statusTracker()
    except Exception:
        return lambda: (0, 0)

    def asked() -> tuple[int, int]:
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        known = [stage for stage in stages if stage is not None]
        return (
            sum(stage.numCompletedTasks for stage in known),
            sum(stage.numTasks for stage in known),
        )

    return asked


@contextmanager
def jobs_named(spark: Any, group: str, description: str) -> Iterator[None]:
    """Let Spark's pages show the jobs of the block under a name.

    In a session of this process as a job group with a description; a group that is there already
    stays, as notebooks stop their cells by it. On Connect as a tag of the operations. Where neither
    is to be had nothing happens.

    Parameters
    ----------
    spark : the session.
    group : such as a run.
    description : what the jobs are for.
    """
    before: dict[str, str | None] = {}
    tag = f"{group}: {description}".replace(",", ";")
    tagged = False
    try:
        context = spark.sparkContext
        before = {name: context.getLocalProperty(name) for name in (_GROUP, _DESCRIPTION)}
        context.setLocalProperty(_GROUP, before[_GROUP] or group)
        context.setLocalProperty(_DESCRIPTION, f"{group}: {description}")
    except Exception:  # Connect
        with suppress(Exception):
            spark.addTag(tag)
            tagged = True
    try:
        yield
    finally:
        with suppress(Exception):  # the session ended
            for name, value in before.items():
                context.setLocalProperty(name, value)
            if tagged:
                spark.removeTag(tag)


# --- errors ---------------------------------------------------------------------------------------


def is_of_spark(error: BaseException) -> bool:
    """Whether an error comes from Spark, Delta, or the Java below them."""
    # Java's own come as py4j's, which a client of Spark Connect does not have
    return type(error).__module__.partition(".")[0] in ("pyspark", "py4j", "delta")


def condition_of(error: Any) -> str | None:
    """Return the name that Spark or Delta gives an error of pyspark, None where it has none.

    Spark calls it otherwise since 4.0.
    """
    found: str | None = (
        error.getCondition() if hasattr(error, "getCondition") else error.getErrorClass()
    )
    return found


def is_absent(error: BaseException) -> bool:
    """Whether a table is not there, rather than that it cannot be read."""
    return hasattr(error, "getErrorClass") and condition_of(error) in _ABSENT


def is_conflict(error: BaseException) -> bool:
    """Whether another process committed to the table first: this one wrote nothing.

    Examples
    --------
    >>> is_conflict(RuntimeError("[DELTA_CONCURRENT_APPEND] Files were added by another one."))
    True
    >>> is_conflict(RuntimeError("[DELTA_TABLE_NOT_FOUND] There is no such table."))
    False
    """
    return _CONFLICT.search(f"{type(error).__name__}: {error}") is not None


def keeps_nothing(error: BaseException) -> bool:
    """Whether the platform refuses to keep intermediate results."""
    return _NOT_KEPT.search(str(error)) is not None
