"""Who may change a run: against a lake in memory that keeps Delta's rule for repeated writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import Row

from coarse_spark import cli, pipeline
from coarse_spark.errors import InvalidInputError, RunError, RunTakenError, TableError
from coarse_spark.lake.contract import ASSIGNMENTS, SEGMENTS
from coarse_spark.lake.lease import Lease
from coarse_spark.lake.runs import ABANDONED, OPEN, PUBLISHED, WITHDRAWN, RunRecord
from coarse_spark.lake.step_results import ValidateResult, results_to_json
from coarse_spark.pipeline import operate, plan, present
from coarse_spark.pipeline.operate import give_up
from coarse_spark.pipeline.run import Run

NEW = RunRecord("r", "{}", "hash", datetime(2026, 1, 1, tzinfo=UTC))


class _Rows:
    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def select(self, *_: str) -> _Rows:
        return self

    def take(self, count: int) -> list[Row]:
        return self._rows[:count]

    def collect(self) -> list[Row]:
        return self._rows


class _Lake:
    """Writes that carry a number no larger than one of their run are left out, silently."""

    spark, path, schema = None, "/of/the/test", None

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}
        self._tables: dict[tuple[str, str], pd.DataFrame] = {}

    def reference(self, table: str) -> str:
        return table

    def exists(self, _: str) -> bool:
        return True

    def replace(self, schema: Any, run_id: str, rows: pd.DataFrame, number: int) -> None:
        key = schema.name, run_id
        if number > self._seen.get(key, -1):
            self._seen[key], self._tables[key] = number, rows

    def read(self, table: str, run_id: str) -> _Rows:
        found = self._tables.get((table, run_id), pd.DataFrame())
        return _Rows([Row(run_id=run_id, **row) for row in found.to_dict("records")])

    def publish_view(self) -> None:
        """Nobody reads."""

    def sizes(self) -> list[int]:
        return [row["size"] for row in self.read(SEGMENTS.name, "r").collect()]

    @property
    def record(self) -> RunRecord:
        return RunRecord.load(self, "r")


@pytest.fixture
def lake() -> Any:
    return _Lake()


def _segments(size: int) -> pd.DataFrame:
    return pd.DataFrame({"treatment_id": [0], "size": [size]})


def test_a_run_that_was_given_up_stops_at_the_end_of_its_step(lake: Any) -> None:
    running = Lease(lake, NEW)
    give_up(lake, "r")
    with pytest.raises(RunTakenError, match="taken over or changed"):
        running.save(running.record.with_changes(step_seconds={"score": 1.0}))
    assert running.lost
    with pytest.raises(RunTakenError):
        running.replace(SEGMENTS, _segments(1))
    with pytest.raises(RunTakenError):
        running.release(running.record.with_changes(status=OPEN))
    assert lake.record.status == ABANDONED
    assert lake.record.step_seconds == {}
    assert lake.sizes() == []


def test_a_save_that_cannot_be_read_back_does_not_lose_the_run(
    lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Lease(lake, NEW)

    def out(*_: str) -> None:
        raise OSError("the storage is out")

    with monkeypatch.context() as outage:
        outage.setattr(lake, "read", out)
        with pytest.raises(OSError, match="is out"):
            owner.save(owner.record.with_changes(step_seconds={"score": 1.0}))
    saved = owner.save(owner.record.with_changes(step_seconds={"score": 2.0}))
    assert lake.record == saved
    assert saved.step_seconds == {"score": 2.0}
    # what somebody else wrote in the meantime is not ours
    with monkeypatch.context() as outage:
        outage.setattr(lake, "read", out)
        with pytest.raises(OSError, match="is out"):
            owner.save(owner.record)
    give_up(lake, "r")
    with pytest.raises(RunTakenError):
        owner.save(owner.record)
    assert lake.record.status == ABANDONED


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads as of ``begun``, which knows them by their session."""
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr("coarse_spark.lake.lease.begun", lambda _, work: pool.submit(work))
        yield


def test_nothing_waits_for_a_save_but_the_next_one(
    lake: Any, beside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, goes_on, read = Lease(lake, NEW), threading.Event(), lake.read

    def slow(table: str, run_id: str) -> _Rows:
        assert table != "runs" or goes_on.wait(10)
        return read(table, run_id)

    monkeypatch.setattr(lake, "read", slow)
    owner.begin_save(owner.record.with_changes(step_seconds={"score": 1.0}))
    owner.replace(SEGMENTS, _segments(3))
    assert lake.sizes() == [3]
    goes_on.set()
    saved = owner.save(owner.record.with_changes(step_seconds={"score": 1.0, "choose": 2.0}))
    assert lake.record == saved
    assert saved.revision == 3


def test_what_a_save_beside_the_next_step_met_is_told(
    lake: Any, beside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out(*_: str) -> None:
        raise OSError("the storage is out")

    owner, without = Lease(lake, NEW), SimpleNamespace(privacy=False)
    run = Run(None, without, lake, owner.record, owner)
    with monkeypatch.context() as outage:
        outage.setattr(lake, "read", out)
        owner.begin_save(owner.record.with_changes(step_seconds={"score": 1.0}))
        with pytest.raises(RunError, match=r"record of run r could not be saved: .*is out"):
            run.close()
    saved = owner.save(owner.record.with_changes(step_seconds={"score": 2.0}))
    assert lake.record == saved
    give_up(lake, "r")
    owner.begin_save(owner.record.with_changes(step_seconds={"score": 3.0}))
    with pytest.raises(RunTakenError):
        run.close()
    with pytest.raises(RunTakenError):
        owner.replace(SEGMENTS, _segments(1))
    assert lake.record.status == ABANDONED


def test_an_owner_that_wakes_up_does_not_take_the_run_back(lake: Any) -> None:
    sleeper = Lease(lake, NEW)
    successor = Lease(lake, lake.record)
    for _ in range(3):  # as a process that does not hear of it would save one step after another
        with pytest.raises(RunTakenError):
            sleeper.save(sleeper.record)
    assert lake.record == successor.record
    assert successor.release(successor.record.with_changes(status=OPEN)) == lake.record


@pytest.mark.parametrize("lets_go", [True, False])
def test_a_clock_that_steps_back_loses_no_rows_of_the_next_owner(lake: Any, lets_go: bool) -> None:
    ahead = replace(NEW, heartbeat_at=datetime.now(UTC) + timedelta(minutes=10))
    first = Lease(lake, ahead)  # by the clock of an owner before, which was ahead of ours
    for size in range(5):
        first.replace(SEGMENTS, _segments(size))
        if lets_go:
            first.save(first.record)
    if lets_go:
        first.release(first.record)
    second = Lease(lake, lake.record)
    second.replace(SEGMENTS, _segments(10))
    assert lake.sizes() == [10]
    if not lets_go:
        first.replace(SEGMENTS, _segments(11))
    assert lake.sizes() == [10]


def test_a_run_that_was_given_up_is_not_published(
    lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Lease(lake, NEW)
    before.release(before.record)
    give_up(lake, "r")
    given_up = lake.record
    monkeypatch.setattr(operate, "current_run", lambda _: None)
    with pytest.raises(InvalidInputError, match="run r was given up; start a new run with 'fit'"):
        operate.publish_run(lake, "r")
    assert lake.record == given_up


def test_a_run_that_was_given_up_is_not_resumed(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Lease(lake, NEW)
    give_up(lake, "r")
    found = SimpleNamespace(record=lake.record)
    monkeypatch.setattr(cli, "start", lambda *_: (SimpleNamespace(report=None), None))
    monkeypatch.setattr(pipeline, "read_run", lambda *_: found)
    monkeypatch.setattr(pipeline, "run_all", lambda *_: pytest.fail("it started anew"))
    monkeypatch.setattr(present, "asked_page", lambda *_: None)
    with pytest.raises(InvalidInputError, match="run r was given up"):
        cli.resume(Path("run.yml"), "r")


def test_operators_handle_a_run_of_another_version(
    lake: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What its steps found stays as it was written."""
    monkeypatch.setattr(operate, "current_run", lambda _: None)
    monkeypatch.setattr(operate, "next_publication", lambda _: datetime.now(UTC))
    monkeypatch.setattr(plan, "published_runs", lambda _: ["published"])
    found = ValidateResult(experiment_rows=1, usable_rows=1, population_rows=1, partitions=1)
    text = results_to_json({"validate": found}).replace('"partitions"', '"parts"')
    for run_id, status in (("unfinished", "failed"), ("published", "published")):
        record = replace(NEW, run_id=run_id, status=status, unread=text, package_version="0.1")
        record.save(lake)
    with pytest.raises(TableError, match="another version"):
        RunRecord.load(lake, "published")
    operate.give_up(lake, "unfinished")
    operate._take_from_readers(lake, "published", WITHDRAWN)
    lake.replace(ASSIGNMENTS, "published", pd.DataFrame({"treatment_id": [0]}), 1)
    assert "is the current one again" in operate.publish_run(lake, "published")
    assert "run published is of another version" in caplog.text
    states = {"unfinished": ABANDONED, "published": PUBLISHED}
    for run_id, status in states.items():
        kept = RunRecord.load(lake, run_id, results=False)
        assert (kept.status, kept.unread, kept.done) == (status, text, ["validate"])
        assert kept.package_version == "0.1"
    words = plan._time(lake, 1_000, 1_000)
    assert words.endswith("by measurements elsewhere: run published is of another version")
    lake.replace(ASSIGNMENTS, "published", pd.DataFrame({"treatment_id": []}), 2)
    operate._take_from_readers(lake, "published", WITHDRAWN)
    with pytest.raises(RunError, match="run published has no assignments any more"):
        operate.publish_run(lake, "published")
