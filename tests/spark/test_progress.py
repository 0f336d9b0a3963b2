"""A small real run on a terminal tells how far it is; a log of it stays a log."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import run_command, thornton_command

from coarse_spark import progress
from coarse_spark.compatibility import jobs_named
from coarse_spark.distributed.at_once import at_once

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo terminals"),
]


def settings(tables: Path) -> list[str]:
    """Return the options of the small run on the field experiment of Thornton."""
    command = thornton_command(tables)
    return command[command.index("--run-id") :]


@pytest.mark.long
def test_a_terminal_shows_how_far_every_step_is(
    spark: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SHOWN", 0.05)  # this run is one of seconds
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 4096):
                parts.append(part)
        except OSError:  # closed at the other end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        done = run_command("fit", *settings(tmp_path / "tables"), terminal=terminal)
    assert done.code == 0
    assert "run process: fit and score done" in done.out
    reader.join(timeout=20)
    os.close(ours)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", b"".join(parts).decode())
    for step in ("validate", "fit", "score"):
        assert re.search(rf"{step}: (\d+ of \d+ tasks?, )?\d+ s", text), text
        assert re.search(rf"\d\d:\d\d:\d\d  {step} done in", text)
    assert re.search(r"fit: \d+ of \d+ tasks?, \d+ s", text), text
    assert re.search(r"fit: 0 of 1 partition, \d+ s", text), text
    assert [thread for thread in threading.enumerate() if thread.name == "progress"] == []
    logged = run_command("fit", *settings(tmp_path / "others"))
    assert logged.code == 0
    assert "\r" not in logged.err
    assert "\x1b" not in logged.err
    assert re.search(r"\d\d:\d\d:\d\d  fit done in", logged.err)


def test_spark_knows_whose_its_jobs_are(spark: SparkSession) -> None:
    tracker = spark.sparkContext.statusTracker()
    with jobs_named(spark, "run of this test", "count"):
        spark.range(10).count()
        alone = tracker.getJobIdsForGroup("run of this test")
        at_once(spark, lambda: spark.range(5).count(), lambda: spark.range(6).count())
        together = tracker.getJobIdsForGroup("run of this test")
    assert alone
    assert len(together) == 3 * len(alone)
    spark.range(10).count()
    assert len(tracker.getJobIdsForGroup("run of this test")) == len(together)


def test_of_two_tasks_the_first_stays_in_its_thread_and_its_error_comes_first(
    spark: SparkSession,
) -> None:
    here, ended = threading.get_ident(), []

    def fails(name: str) -> None:
        ended.append((name, threading.get_ident() == here))
        raise ValueError(name)

    with pytest.raises(ValueError, match="first"):
        at_once(spark, lambda: fails("first"), lambda: fails("second"))
    assert sorted(ended) == [("first", True), ("second", False)]
    with pytest.raises(ValueError, match="second"):
        at_once(spark, lambda: 1, lambda: fails("second"))
