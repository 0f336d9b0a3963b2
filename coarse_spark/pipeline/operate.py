"""What operators do with runs: look, publish again, take back, give up, remove.

Everything needs the output alone: what a run was made with stands in its record.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import functions as F

from coarse_spark.config.models import Configuration
from coarse_spark.errors import (
    InvalidInputError,
    RunError,
    RunFinalError,
    RunTakenError,
    TableError,
)
from coarse_spark.lake.contract import ALL_TABLES, ASSIGNMENTS, RUNS
from coarse_spark.lake.lease import Lease, worked_on_by
from coarse_spark.lake.runs import (
    ABANDONED,
    PRUNED,
    PUBLISHED,
    RUNNING,
    WITHDRAWN,
    RunRecord,
    current_run,
    published_runs,
)
from coarse_spark.lake.step_results import ValidateResult
from coarse_spark.lake.tables import Lake
from coarse_spark.pipeline.checks import check_publishable
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.steps.publish import next_publication, publish
from coarse_spark.text import REDACTED, redact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunLine:
    """A run in a list.

    Attributes
    ----------
    record : its row.
    current : whether readers see its assignments now.
    owner : who works on it, in words; None where nobody does.
    """

    record: RunRecord
    current: bool
    owner: str | None

    @property
    def state(self) -> str:
        """The status, as far as it is true: a process that is gone runs no more."""
        if self.current:
            return "current"
        if self.record.status == RUNNING and self.owner is None:
            return "died"
        return self.record.status


def list_runs(lake: Lake, most: int = 50) -> list[RunLine]:
    """Return the runs that started last, the newest first.

    Raises
    ------
    TableError : the output has no runs.
    """
    current = current_run(lake)
    rows = lake.read(RUNS.name).orderBy(F.col("started_at").desc()).limit(most).collect()
    records = [RunRecord.of(row, results=False) for row in rows]
    return [
        RunLine(record, record.run_id == current, worked_on_by(lake, record)) for record in records
    ]


def find_run(lake: Lake, run_id: str) -> RunLine:
    """Return one run, without what its steps found; errors as in ``RunRecord.load``."""
    record = RunRecord.load(lake, run_id, results=False)
    current = current_run(lake) == record.run_id
    return RunLine(record, current, worked_on_by(lake, record))


def publish_run(lake: Lake, run_id: str, configuration: Configuration | None = None) -> str:
    """Make a run the current one after checking its tables, and return a sentence.

    A run that was published before, or whose steps are all done.

    Parameters
    ----------
    lake : that has the run.
    run_id : of the run.
    configuration : its own, which holds the credentials of addresses; by default the stored one,
        which does not.

    Raises
    ------
    RunError : its tables are not what may be published.
    RunTakenError : another process works on it.
    InvalidInputError : it was given up.
    TableError : there is no such run, a step of it is missing, or its rows were removed.
    """
    line = find_run(lake, run_id)
    record = line.record
    if line.current:
        return f"run {run_id} is the current one already"
    if record.status == PRUNED:
        raise TableError(f"run {run_id} was pruned: its rows are gone")
    record.refuse_given_up()
    if not record.final:
        if line.owner is not None:
            raise RunTakenError(f"run {run_id} is being worked on ({line.owner})")
        run = run_of(lake, RunRecord.load(lake, run_id), configuration)
        run.lease = Lease(lake, run.record)
        run.record = run.lease.record
        with run:
            publish(run)
        return f"run {run_id} is published"
    _check_again(lake, run_id)
    lake.publish_view()
    again = record.with_changes(
        status=PUBLISHED, published_at=next_publication(lake), stop_reason="published again"
    )
    again.save(lake)
    return f"run {run_id} is the current one again"


def rollback(lake: Lake) -> str:
    """Take back the current run: the one that was published before it becomes the current one.

    Raises
    ------
    RunError : the tables of the run before are not what may be published.
    TableError : no run was published before it.
    """
    runs = published_runs(lake)
    if len(runs) < 2:
        raise TableError(
            f"there is no earlier published run in {lake.reference(RUNS.name)} to go back to"
        )
    _check_again(lake, runs[1])
    _take_from_readers(lake, runs[0], WITHDRAWN)
    return f"run {runs[1]} is the current one again; run {runs[0]} is withdrawn"


def _check_again(lake: Lake, run_id: str) -> None:
    """Check the tables of a run that was published before; errors as in ``check_publishable``.

    Of a run of another version, whose results cannot be read, only that it has assignments.
    """
    try:
        run = run_of(lake, RunRecord.load(lake, run_id))
    except ValueError:
        if not lake.read(ASSIGNMENTS.name, run_id).take(1):
            raise RunError(f"run {run_id} has no assignments any more") from None
        log.warning(
            "run %s is of another version of coarse_spark: its tables were checked when it was "
            "published, and are not checked again",
            run_id,
        )
        return
    # the population may have moved on since: it was compared when the run was published first
    check_publishable(run, population=False)


def give_up(lake: Lake, run_id: str) -> str:
    """Say that a run will not be gone on with; a process that works on it stops.

    Raises
    ------
    RunFinalError : readers saw it; take it back instead.
    TableError : there is no such run.
    """
    record = RunRecord.load(lake, run_id, results=False)
    if record.final:
        raise RunFinalError(
            f"run {run_id} is {record.status}; 'coarse-spark runs rollback' takes the current run "
            "back"
        )
    given_up = record.with_changes(
        status=ABANDONED, owner=None, stop_reason="given up by an operator"
    )
    given_up.save(lake)
    return f"run {run_id} is given up; its id may be used for a new start"


@dataclass(frozen=True)
class Pruned:
    """What pruning removes.

    Attributes
    ----------
    runs : whose rows are removed from all tables but ``runs``.
    freed : bytes that VACUUM will free, by table.
    """

    runs: tuple[str, ...]
    freed: dict[str, int]


def prune(lake: Lake, keep: int, *, dry: bool = False) -> Pruned:
    """Remove the rows of old runs; their rows in ``runs`` stay, for audits.

    Kept are the ``keep`` runs that were published last, and everything that started after the
    oldest of these or that a process works on. The files stay until VACUUM removes them.

    Parameters
    ----------
    lake : where the tables are.
    keep : at least 1.
    dry : only say what would be removed.

    Raises
    ------
    TableError : the output has no published run.
    """
    published = published_runs(lake)
    if not published:
        raise TableError(f"no run in {lake.reference(RUNS.name)} is published; nothing is pruned")
    kept = set(published[:keep])
    rows = lake.read(RUNS.name).collect()
    records = [RunRecord.of(row, results=False) for row in rows]
    oldest = min(record.started_at for record in records if record.run_id in kept)
    old = [
        record
        for record in records
        if record.run_id not in kept
        and (record.run_id in published or record.started_at < oldest)
        and worked_on_by(lake, record) is None
    ]
    names = tuple(record.run_id for record in old)
    tables = [name for name in ALL_TABLES if name != RUNS.name]
    freed = {name: lake.bytes_of(name, names) for name in tables}
    if not dry:
        for record in old:
            if record.status != PRUNED:  # readers lose the run before it loses its rows
                _take_from_readers(lake, record.run_id, PRUNED)
        for name in tables:
            lake.remove(name, names)
    return Pruned(tuple(r.run_id for r in old if r.status != PRUNED), freed)


def _take_from_readers(lake: Lake, run_id: str, status: str) -> None:
    record = RunRecord.load(lake, run_id, results=False)
    was = record.published_at
    told = status if was is None else f"{status}; it was published at {was:%Y-%m-%d %H:%M:%S} UTC"
    record.with_changes(status=status, published_at=None, stop_reason=told).save(lake)


def run_of(lake: Lake, record: RunRecord, configuration: Configuration | None = None) -> Run:
    """Return a run with its configuration, by default the one that its record holds."""
    declared = configuration or Configuration.model_validate_json(record.config)
    return Run(lake.spark, declared, lake, record)


def repeated(
    lake: Lake, configuration: Configuration, run_id: str
) -> tuple[Configuration, dict[str, str]]:
    """Return the configuration with which a run is repeated, and the snapshots of its inputs.

    Parameters
    ----------
    lake : that has the run.
    configuration : says where the new run goes, and holds the credentials, which are not stored.
    run_id : of the run to repeat.

    Raises
    ------
    InvalidInputError : an input has credentials that only the run's own configuration holds.
    TableError : there is no such run, or it stopped before it knew its inputs.
    """
    record = RunRecord.load(lake, run_id)
    validated = record.results.get(ValidateResult.step)
    if not isinstance(validated, ValidateResult):
        raise TableError(f"run {run_id} stopped before its tables were checked; start a new run")
    stored = run_of(lake, record).declared
    own, given = stored.model_dump(by_alias=True), configuration.model_dump(by_alias=True)
    for block in ("output", "spark", "privacy"):
        own[block] = given[block]
    for block in ("experiment", "population"):
        mine = getattr(configuration, block).path
        own[block]["path"] = _with_credentials(run_id, block, own[block]["path"], mine)
    for name in ("experiment", "population"):
        own["responses"][name] = _with_credentials(
            run_id, f"responses.{name}", own["responses"][name], given["responses"][name]
        )
    # the earlier run that it was compared with, not the one that is current now
    own["menu"]["previous_run"] = validated.previous_run
    return Configuration.model_validate(own), record.inputs


def _with_credentials(run_id: str, what: str, stored: str | None, mine: str | None) -> str | None:
    """Return the address of an input as it was read, which is stored without credentials."""
    if stored is None or REDACTED not in stored:
        return stored
    if mine is None or redact(mine) != stored:
        raise InvalidInputError(
            f"run {run_id} read {what} from {stored}, whose credentials are not stored; "
            "give the run's own configuration"
        )
    return mine
