"""What differs between versions and sessions is told apart, whatever is installed here."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from coarse_spark import compatibility
from coarse_spark.errors import RuntimeSetupError


def of_class(name: str, module: str, text: str) -> Exception:
    """Return an error of a class of that name, as if it came from that module."""
    return type(name, (Exception,), {"__module__": module})(text)


ADDED = "Files were added to the root of the table by a concurrent update. Please try again."


@pytest.mark.parametrize(
    "error",
    [
        # with delta.exceptions imported, local or on Connect
        of_class("ConcurrentAppendException", "delta.exceptions.captured", ADDED),
        of_class("MetadataChangedException", "delta.connect.exceptions", "The metadata changed."),
        # without it: py4j's, whose text is that of Java
        of_class(
            "Py4JJavaError",
            "py4j.protocol",
            "An error occurred while calling o210.saveAsTable.\n"
            f": io.delta.exceptions.ConcurrentAppendException: [DELTA_CONCURRENT_APPEND] {ADDED}\n"
            "\tat org.apache.spark.sql.delta.DeltaErrorsBase.concurrentAppendException(x.scala)",
        ),
        # Delta 4.0 and later
        of_class(
            "UnknownException",
            "pyspark.errors.exceptions.captured",
            f"[DELTA_CONCURRENT_APPEND.WITH_PARTITION_HINT] {ADDED}",
        ),
        # and on Connect without its classes
        of_class(
            "SparkConnectGrpcException",
            "pyspark.errors.exceptions.connect",
            f"(io.delta.exceptions.ConcurrentAppendException) {ADDED}",
        ),
        of_class(
            "SparkConnectGrpcException",
            "pyspark.errors.exceptions.connect",
            "(org.apache.spark.sql.delta.DeltaConcurrentModificationException) It changed.",
        ),
        RuntimeError("[DELTA_PROTOCOL_CHANGED] The protocol version was changed."),
        RuntimeError("[DELTA_METADATA_CHANGED.GENERAL] The metadata was changed."),
    ],
)
def test_a_conflict_is_one_in_every_guise(error: Exception) -> None:
    assert compatibility.is_conflict(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[DELTA_TABLE_NOT_FOUND] There is no such table."),
        RuntimeError("[CONCURRENT_QUERY] Another instance of this query was just started."),
        RuntimeError("java.util.ConcurrentModificationException"),
        of_class("AnalysisException", "pyspark.errors", "[PATH_NOT_FOUND] no such path"),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert not compatibility.is_conflict(error)


def test_a_condition_has_its_name_in_every_version() -> None:
    old = SimpleNamespace(getErrorClass=lambda: "PATH_NOT_FOUND")
    new = SimpleNamespace(getCondition=lambda: "PATH_NOT_FOUND", getErrorClass=lambda: 1 / 0)
    assert compatibility.condition_of(old) == compatibility.condition_of(new) == "PATH_NOT_FOUND"


@pytest.mark.parametrize(
    ("module", "sparks"),
    [("pyspark.errors", True), ("py4j.protocol", True), ("delta.exceptions", True), ("os", False)],
)
def test_errors_of_spark_are_told_by_where_they_come_from(module: str, sparks: bool) -> None:
    assert compatibility.is_of_spark(of_class("Error", module, "x")) is sparks


def test_refusals_to_keep_results_are_told_from_failures() -> None:
    refused = "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute"
    assert compatibility.keeps_nothing(RuntimeError(refused))
    assert not compatibility.keeps_nothing(RuntimeError("Job aborted due to stage failure"))


def _spark(monkeypatch: pytest.MonkeyPatch, version: str, **more: Any) -> None:
    module = ModuleType("pyspark")
    module.__version__ = version  # type: ignore[attr-defined]
    module.__dict__.update(more)
    monkeypatch.setitem(sys.modules, "pyspark", module)


@pytest.mark.parametrize(
    ("version", "expected", "java"),
    [
        ("3.5.8", (3, 5), (8, 11, 17)),
        ("4.0.2", (4, 0), (17, 21)),
        ("4.1.1", (4, 1), (17, 21)),
        ("4.2.0.dev1", (4, 2), (17, 21, 25)),
    ],
)
def test_versions(
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    expected: tuple[int, int],
    java: tuple[int, ...],
) -> None:
    _spark(monkeypatch, version)
    assert compatibility.spark_version() == expected
    assert compatibility.java_versions() == java


class Session:
    """Stands for one of this process."""


def test_threads_inherit_as_the_version_and_the_session_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote: Any = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    local: Any = Session()
    assert compatibility.is_remote(remote)
    assert not compatibility.is_remote(local)

    def work(item: int) -> int:
        return item + 1

    # before Spark 4 the function that inherits takes no session, and asks for this process' Java
    _spark(monkeypatch, "3.5.8", inheritable_thread_target=lambda f: lambda item: ("3.5", f(item)))
    assert compatibility.in_session(local, work)(1) == ("3.5", 2)  # type: ignore[comparison-overlap]
    assert compatibility.in_session(remote, work) is work

    def inherit(session: object) -> Any:
        return lambda f: lambda item: (session, f(item))

    _spark(monkeypatch, "4.0.0", inheritable_thread_target=inherit)
    for spark in (local, remote):
        assert compatibility.in_session(spark, work)(1) == (spark, 2)  # type: ignore[comparison-overlap]


def test_packages_of_a_configuration_come_beside_those_of_delta() -> None:
    pytest.importorskip("delta")
    from pyspark.sql import SparkSession

    packages = "org.apache.hadoop:hadoop-aws:3.4.2, org.example:more:1"
    builder: Any = compatibility.with_delta(SparkSession.Builder(), packages)
    first, *others = builder._options["spark.jars.packages"].split(",")
    assert first.startswith("io.delta:delta-spark_")
    assert others == ["org.apache.hadoop:hadoop-aws:3.4.2", "org.example:more:1"]
    builder = compatibility.with_delta(SparkSession.Builder())
    assert builder._options["spark.jars.packages"] == first


def test_counting_tasks_leaves_no_trace_in_errors() -> None:
    def fail() -> None:
        with compatibility.tasks_of(None):
            raise RuntimeError("why")

    with pytest.raises(RuntimeError, match="why") as raised:
        fail()
    assert raised.value.__context__ is None


def test_without_spark_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from coarse_spark.lake.java import check_java

    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(RuntimeSetupError, match=r"pyspark is not installed.*coarse-spark\[spark\]"):
        check_java()
