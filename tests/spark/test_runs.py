"""One process works on a run at a time, and what is published never changes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from outputs import LAYOUT
from pyspark.sql import Row

from coarse_spark.errors import InvalidInputError, RunError, RunTakenError, TableError
from coarse_spark.lake.processes import Process

if TYPE_CHECKING:
    from coarse_spark.lake.lease import Lease
    from coarse_spark.lake.runs import RunRecord
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark


def _record(run_id: str = "r", **changes: object) -> RunRecord:
    from coarse_spark.lake.runs import RunRecord

    return replace(RunRecord(run_id, "{}", "hash", datetime(2026, 1, 1, tzinfo=UTC)), **changes)


def _take(lake: Lake, record: RunRecord | None = None) -> Lease:
    from coarse_spark.lake.lease import Lease

    return Lease(lake, _record() if record is None else record)


def _segments(size: int) -> pd.DataFrame:
    return pd.DataFrame({"treatment_id": [0], "size": [size]})


def _run_on(lake: Lake, promotions: Promotions, experiment: str, **changes: object) -> Run:
    """Return a run that works on a table of its own."""
    from coarse_spark.pipeline.run import Run, snapshots

    configuration = promotions.configure(experiment__path=experiment, **changes)
    inputs = snapshots(lake.spark, configuration)
    lease = _take(lake, _record(config_hash=configuration.fingerprint(), inputs=inputs))
    return Run(lake.spark, configuration, lake, lease.record, lease)


def test_of_two_starts_with_one_id_one_gets_the_run(lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord

    _take(lake, _record("other"))  # the table is there
    outcomes: list[Lease | RunTakenError] = []
    together = threading.Barrier(3)

    def start() -> None:
        together.wait()
        try:
            outcomes.append(_take(lake))
        except RunTakenError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [outcome for outcome in outcomes if isinstance(outcome, RunTakenError)]
    assert len(refused) == 2
    (taken,) = (outcome for outcome in outcomes if not isinstance(outcome, RunTakenError))
    found = RunRecord.find(lake, "r")
    assert found is not None
    assert found.change_id == taken.record.change_id
    assert lake.read("runs", "r").count() == 1


def test_an_owner_taken_for_dead_changes_nothing_when_it_wakes_up(lake: Lake) -> None:
    from coarse_spark.lake.contract import SEGMENTS
    from coarse_spark.lake.runs import RunRecord

    sleeper = _take(lake)
    sleeper.replace(SEGMENTS, _segments(1))
    successor = _take(lake, RunRecord.find(lake, "r"))
    successor.replace(SEGMENTS, _segments(2))
    sleeper.replace(SEGMENTS, _segments(3))  # not written: the table has seen a later owner
    assert lake.read("segments", "r").toPandas()["size"].tolist() == [2]
    with pytest.raises(RunTakenError, match="taken over"):
        sleeper.release(sleeper.record.with_changes(status="published"))
    released = successor.release(successor.record.with_changes(status="open"))
    found = RunRecord.find(lake, "r")
    assert found == released
    assert found.owner is None


def test_clocks_that_differ_do_not_change_the_order_of_owners(lake: Lake) -> None:
    from coarse_spark.lake.contract import SEGMENTS
    from coarse_spark.lake.runs import RunRecord

    ahead = datetime.now(UTC) + timedelta(hours=1)
    first = _take(lake, _record(heartbeat_at=ahead))
    first.replace(SEGMENTS, _segments(1))
    second = _take(lake, RunRecord.find(lake, "r"))
    second.replace(SEGMENTS, _segments(2))
    assert lake.read("segments", "r").toPandas()["size"].tolist() == [2]


def test_a_run_whose_record_was_lost_replaces_its_rows(lake: Lake) -> None:
    from coarse_spark.lake.contract import SEGMENTS
    from coarse_spark.lake.output import prepare

    _take(lake).replace(SEGMENTS, _segments(1))
    shutil.rmtree(Path(str(lake.path)) / "runs")
    again = type(lake)(lake.spark, path=lake.path)
    prepare(again, LAYOUT)
    _take(again).replace(SEGMENTS, _segments(2))
    assert again.read("segments", "r").toPandas()["size"].tolist() == [2]


@pytest.mark.long
def test_a_heartbeat_is_saved_and_tells_when_the_run_was_taken(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coarse_spark.lake import lease
    from coarse_spark.lake.contract import SEGMENTS

    monkeypatch.setattr(lease, "HEARTBEAT", timedelta(seconds=0.2))
    taken = _take(lake)
    first = taken.record.heartbeat_at
    with taken.working():
        _wait(lambda: taken.record.heartbeat_at > first)
        monkeypatch.setattr(lease, "HEARTBEAT", timedelta(seconds=10))
        _take_as_it_is(lake)
        monkeypatch.setattr(lease, "HEARTBEAT", timedelta(seconds=0.2))
        _wait(lambda: taken.lost)
    with pytest.raises(RunTakenError):
        taken.replace(SEGMENTS, _segments(1))


def _take_as_it_is(lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord

    for _ in range(3):  # one last beat may be saved while the record is read
        try:
            _take(lake, RunRecord.find(lake, "r"))
            return
        except RunTakenError:
            continue
    raise AssertionError("the run could not be taken")


def _wait(done: object) -> None:
    event = threading.Event()
    for _ in range(300):
        if done():
            return
        event.wait(0.1)
    raise AssertionError("it took too long")


HERE = Process.current()
GONE = replace(HERE, number=2**22 + 1)
ELSEWHERE = replace(HERE, host="elsewhere")


@pytest.mark.parametrize(
    ("owner", "minutes", "works"),
    [
        (None, 0, None),
        (HERE, 0, None),  # this process, between two steps
        (GONE, 0, None),
        (replace(HERE, started=HERE.started - 60), 0, None),  # its number is used again
        (ELSEWHERE, 1, f"process {HERE.number} on elsewhere, last heard of 60 s ago"),
        (ELSEWHERE, 6, None),
        ("of another version", 1, "of another version, last heard of 60 s ago"),
    ],
)
def test_who_works_on_a_run(lake: Lake, owner: object, minutes: int, works: str | None) -> None:
    from coarse_spark.lake.lease import worked_on_by

    heard = datetime.now(UTC) - timedelta(minutes=minutes)
    record = _record(owner=None if owner is None else str(owner), heartbeat_at=heard)
    assert worked_on_by(lake, record) == works


def test_a_step_of_this_process_is_work(lake: Lake) -> None:
    from coarse_spark.lake.lease import worked_on_by

    taken = _take(lake)
    with taken.working():
        assert f"process {HERE.number}" in str(worked_on_by(lake, taken.record))
    assert worked_on_by(lake, taken.record) is None


def test_a_row_of_runs_with_a_column_of_others_or_without_one(lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord

    _take(lake)
    row = lake.read("runs", "r").collect()[0].asDict()
    found = RunRecord.of(Row(**row, owner_team="growth"))
    assert found == RunRecord.load(lake, "r")
    early = {name: value for name, value in row.items() if name not in ("revision", "owner")}
    assert RunRecord.of(Row(**early)).revision == 0
    early["confg"] = early.pop("config")
    with pytest.raises(TableError, match=r"runs has no column 'config' \(did you mean 'confg'\?\)"):
        RunRecord.of(Row(**early))


def test_the_steps_of_a_run_come_in_their_order(lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord

    seconds = {"publish": 1.0, "assign": 2.0, "choose": 3.0, "validate": 4.0}
    row = _record().with_changes(step_seconds=seconds).save(lake)
    assert list(row.step_seconds) == list(seconds)
    found = RunRecord.load(lake, "r").step_seconds
    assert list(found.items()) == list(reversed(seconds.items()))


def test_a_step_that_loses_its_input_says_so(
    lake: Lake, promotions: Promotions, tmp_path: Path
) -> None:
    path = tmp_path / "experiment"
    shutil.copytree(promotions.paths["experiment"], path)
    run = _run_on(lake, promotions, str(path))

    def replaced() -> None:
        rows, old = run.experiment, list(path.glob("*.parquet"))
        rows.limit(10).write.format("delta").mode("overwrite").save(str(path))
        for file in old:
            file.unlink()
        rows.collect()

    with pytest.raises(TableError, match="has lost files of version 0"), run.step("score"):
        replaced()
    record = lake.read("runs", "r").collect()[0]
    assert (record["status"], record["owner"]) == ("failed", None)
    assert "has lost files of version 0" in record["error"]


def test_what_spark_says_of_a_failure_holds_no_values_where_they_are_private(
    lake: Lake, promotions: Promotions
) -> None:
    run = _run_on(lake, promotions, promotions.paths["experiment"], privacy=True)
    # Spark 3.5 makes a null of what is no number, unless it is asked to be strict
    strict = run.spark.conf.get("spark.sql.ansi.enabled")
    run.spark.conf.set("spark.sql.ansi.enabled", "true")
    names = run.spark.createDataFrame([("Zoë 7",)], "name string")
    try:
        with pytest.raises(RunError) as failed, run.step("score"):
            names.selectExpr("int(name)").collect()
    finally:
        run.spark.conf.set("spark.sql.ansi.enabled", strict)
    told = str(failed.value)
    assert told.startswith("step 'score' failed: ")
    assert "cannot be cast" in told
    assert "Zo" not in told
    assert "Zo" not in lake.read("runs", "r").collect()[0]["error"]


@pytest.mark.long
def test_a_run_that_nobody_names_is_one_that_nobody_can_mistake(
    lake: Lake, promotions: Promotions
) -> None:
    from coarse_spark.pipeline.which import run_to_go_on_with, run_to_look_at

    configuration = promotions.configure()
    other = promotions.configure(menu__seed=9)
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def save(run_id: str, hour: int, status: str, **changes: object) -> RunRecord:
        record = _record(
            run_id,
            **{
                "config_hash": configuration.fingerprint(),
                "started_at": moment + timedelta(hours=hour),
                "status": status,
                "step_seconds": {"fit": 1.0},
                **changes,
            },
        )
        return record.save(lake)

    def refused(which: Callable[..., str], kind: type[Exception], *words: str) -> None:
        with pytest.raises(kind) as error:
            which(lake, configuration)
        for word in words:
            assert word in str(error.value)

    save("others", 1, "open", config_hash=other.fingerprint())
    save("given-up", 2, "abandoned")
    for which in (run_to_go_on_with, run_to_look_at):
        assert which(lake, other) == "others"
        refused(which, TableError, "run others was started with another configuration")
    save("lost", 3, "failed", step_seconds={})
    # it has no model to go on with: only its own step says so, where there is no other
    assert run_to_go_on_with(lake, configuration) == "lost"
    first = save("first", 4, "open")
    for which in (run_to_go_on_with, run_to_look_at):
        assert which(lake, configuration) == "first"
    with pytest.raises(InvalidInputError, match=r"2 runs .* lost \(failed, .*, first \(open, "):
        run_to_go_on_with(lake, configuration, fitted=False)
    save("second", 5, "failed")
    for which in (run_to_go_on_with, run_to_look_at):
        words = ("first (open, started 2026-01-01 04:00:00 UTC, last step fit)", "second (failed")
        refused(which, InvalidInputError, "2 runs of this configuration", *words, "--run-id")
    first.with_changes(status="published", published_at=moment + timedelta(days=1)).save(lake)
    # one that started after the published one is still looked at, one before it no more
    assert run_to_look_at(lake, configuration) == "second"
    assert run_to_go_on_with(lake, configuration) == "second"
    save("last", 6, "published", published_at=moment + timedelta(days=2))
    assert run_to_look_at(lake, configuration) == "last"
    assert run_to_go_on_with(lake, configuration) == "second"
