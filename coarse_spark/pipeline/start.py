"""How a run begins: a new one, one that goes on where it stopped, or one that is looked at."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from coarse_spark import progress
from coarse_spark.config.models import Configuration
from coarse_spark.errors import InvalidInputError, RunFinalError, RunTakenError
from coarse_spark.lake.contact import first_contact
from coarse_spark.lake.lease import Lease, worked_on_by
from coarse_spark.lake.output import prepare
from coarse_spark.lake.runs import ABANDONED, PUBLISHED, RunRecord, new_run_id
from coarse_spark.lake.tables import Lake, check_run_id
from coarse_spark.lake.workers import check_workers
from coarse_spark.pipeline.run import Run, lake_of, snapshots
from coarse_spark.pipeline.settings import output_layout
from coarse_spark.pipeline.which import run_to_go_on_with, run_to_look_at

log = logging.getLogger(__name__)

_LOOKS = 5  # at a run that others take and let go of at the same moment


def start_run(
    spark: SparkSession,
    configuration: Configuration,
    run_id: str | None = None,
    *,
    resume: bool = False,
    inputs: dict[str, str] | None = None,
) -> Run:
    """Start a run, or take an unfinished one again, of which readers have seen nothing.

    Parameters
    ----------
    spark : the session.
    configuration : of the run.
    run_id : of the run; of two processes that start one with the same id at the same moment one
        gets it. By default a new one.
    resume : whether an unfinished run goes on after its last finished step; otherwise it starts
        anew.
    inputs : snapshots of the inputs, such as those of an earlier run; by default the present ones.

    Raises
    ------
    RunFinalError : the run was published.
    RunTakenError : another process works on it.
    InvalidInputError : it would go on, and was made with another configuration.
    TableError : inputs that cannot be read, or an output that cannot be written or was made for
        other columns.
    RuntimeSetupError : the workers cannot import this package.
    """
    run_id = new_run_id() if run_id is None else check_run_id(run_id)
    with progress.of("start", spark):
        check_workers(spark)
        return _started(spark, configuration, run_id, resume=resume, inputs=inputs)


def _started(
    spark: SparkSession,
    configuration: Configuration,
    run_id: str,
    *,
    resume: bool,
    inputs: dict[str, str] | None,
) -> Run:
    lake = lake_of(spark, configuration)
    for _ in range(_LOOKS):
        found = RunRecord.find(lake, run_id)
        if found is not None:
            _require_free(lake, found)
        record = _going_on(found, configuration) if resume else None
        goes_on = record is not None
        if record is None:
            record = new_record(spark, configuration, run_id, found, inputs)
        run = Run(spark, configuration, lake, record)
        prepare(lake, output_layout(configuration, run.experiment, run.population))
        try:
            with first_contact(lake):
                run.lease = Lease(lake, run.record)
        except RunTakenError:
            continue  # somebody else was faster: look again who
        run.record = run.lease.record
        if goes_on:
            log.info("run %s goes on after: %s", run_id, ", ".join(run.record.results))
        return run
    raise RunTakenError(f"run {run_id} changed hands {_LOOKS} times while it was looked at")


def open_run(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Go on with a run whose first steps are done: the one named, or else the only unfinished one.

    Raises
    ------
    TableError : there is no such run, or another version of the package wrote it.
    InvalidInputError : the run was made with another configuration, or was given up; or none is
        named, and there are several (see ``run_to_go_on_with``).
    RunFinalError : the run was published.
    RunTakenError : another process works on it.
    RuntimeSetupError : the workers cannot import this package.
    """
    if run_id is None:
        run_id = run_to_go_on_with(lake_of(spark, configuration), configuration)
    run = read_run(spark, configuration, run_id)
    _require_free(run.lake, run.record)
    run.record.refuse_given_up()
    check_workers(spark)
    with first_contact(run.lake):
        run.lease = Lease(run.lake, run.record)
    run.record = run.lease.record
    return run


def read_run(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Return a run to look at: nothing of it can be changed.

    By default the one of the configuration that was published last, or the only unfinished one that
    started after it.

    Raises
    ------
    TableError : there is no such run, or another version of the package wrote it.
    InvalidInputError : the run was made with another configuration; or none is named, and there are
        several (see ``run_to_look_at``).
    """
    lake = lake_of(spark, configuration)
    if run_id is None:
        run_id = run_to_look_at(lake, configuration)
    record = RunRecord.load(lake, run_id)
    _require_own(record, configuration)
    return Run(spark, configuration, lake, record)


def _require_free(lake: Lake, record: RunRecord) -> None:
    if record.final:
        done = "was published" if record.status == PUBLISHED else f"is {record.status}"
        raise RunFinalError(
            f"run {record.run_id} {done}; it is final, and no step changes it any more: start a "
            "new run with another --run-id, or with none"
        )
    who = worked_on_by(lake, record)
    if who is not None:
        raise RunTakenError(
            f"run {record.run_id} is being worked on ({who}); wait for it, or give it up with "
            f"'coarse-spark runs fail {record.run_id}'"
        )


def _going_on(found: RunRecord | None, configuration: Configuration) -> RunRecord | None:
    """Return the record of a run that can go on where it stopped.

    Raises
    ------
    InvalidInputError : it was made with another configuration.
    """
    if found is None or found.status == ABANDONED or not found.results:
        return None
    _require_own(found, configuration)
    return found


def _require_own(record: RunRecord, configuration: Configuration) -> None:
    if record.config_hash != configuration.fingerprint():
        raise InvalidInputError(
            f"run {record.run_id} was started with another configuration "
            f"(hash {record.config_hash[:12]}, this file's is {configuration.fingerprint()[:12]}); "
            "start a new run with 'fit' or use the run's own configuration"
        )


def new_record(
    spark: SparkSession,
    configuration: Configuration,
    run_id: str,
    earlier: RunRecord | None,
    inputs: dict[str, str] | None,
) -> RunRecord:
    """Return the record of a run that has done nothing yet, not written anywhere.

    Parameters
    ----------
    spark : the session.
    configuration : of the run.
    run_id : of the run.
    earlier : the record of a run of this id, None without one.
    inputs : snapshots by name; None for the inputs as they are now.
    """
    return RunRecord(
        run_id,
        configuration.to_json(),
        configuration.fingerprint(),
        started_at=datetime.now(UTC),
        inputs=snapshots(spark, configuration) if inputs is None else inputs,
        # a run of this id that starts anew follows the one before, whose owner may wake up
        revision=0 if earlier is None else earlier.revision,
        heartbeat_at=None if earlier is None else earlier.heartbeat_at,
    )
