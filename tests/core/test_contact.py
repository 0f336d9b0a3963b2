"""An output that cannot be looked at is told in one sentence, whichever way it is first met."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.errors import AnalysisException

from coarse_spark import cli
from coarse_spark.errors import TableError
from coarse_spark.lake.runs import RunRecord, current_run, published_runs
from coarse_spark.lake.tables import Lake
from coarse_spark.pipeline.which import run_to_go_on_with, run_to_look_at

CONFIGURATION: Any = SimpleNamespace(fingerprint=lambda: "hash")
LOOKS: list[Callable[[Lake], object]] = [
    lambda lake: RunRecord.find(lake, "r"),
    lambda lake: RunRecord.load(lake, "r"),
    published_runs,
    current_run,
    lambda lake: run_to_go_on_with(lake, CONFIGURATION),
    lambda lake: run_to_look_at(lake, CONFIGURATION),
]


class _Denied(AnalysisException):
    """Of a condition of Spark's, as all of its versions name it."""

    def __init__(self, condition: str) -> None:
        super().__init__(f"[{condition}] It cannot be used.")
        self.condition = condition

    def getErrorClass(self) -> str:  # noqa: N802
        return self.condition

    getCondition = getErrorClass  # noqa: N815

    def __str__(self) -> str:
        return f"[{self.condition}] It cannot be used."


_Denied.__module__ = AnalysisException.__module__


class Py4JJavaError(Exception):
    """As storage that Hadoop does not know comes to Python."""


Py4JJavaError.__module__ = "py4j.protocol"


def _lake(error: Exception) -> Lake:
    def table(_: str) -> None:
        raise error

    return Lake(SimpleNamespace(table=table), path="s3://bucket/out")  # type: ignore[arg-type]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (_Denied("INSUFFICIENT_PERMISSIONS"), "It cannot be used"),
        (
            Py4JJavaError(
                "An error occurred while calling o25.table.\n"
                ": org.apache.hadoop.fs.UnsupportedFileSystemException: "
                'No FileSystem for scheme "s3"'
            ),
            "this Spark has no connector for s3",
        ),
    ],
)
def test_an_output_that_cannot_be_read_is_one_sentence(
    look: Callable[[Lake], object], error: Exception, told: str
) -> None:
    lake = _lake(error)
    with pytest.raises(TableError, match=f"the output s3://bucket/out cannot be used: .*{told}"):
        look(lake)
    assert cli.guarded(lambda: look(lake)) == 2


@pytest.mark.parametrize(
    "condition", ["TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND"]
)
def test_a_table_that_is_not_there_is_no_failure(condition: str) -> None:
    lake = _lake(_Denied(condition))
    assert not lake.exists("runs")
    assert RunRecord.find(lake, "r") is None
    assert published_runs(lake) == []
    with pytest.raises(TableError, match="does not exist yet; run the step"):
        RunRecord.load(lake, "r")
