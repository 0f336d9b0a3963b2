"""What is added to a run that was published: its status and its rows stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from coarse_spark.errors import CoarseSparkError, RunTakenError
from coarse_spark.lake.contact import first_contact
from coarse_spark.lake.contract import TableSchema
from coarse_spark.lake.lease import Lease, worked_on_by
from coarse_spark.lake.workers import check_workers
from coarse_spark.pipeline.run import Run

log = logging.getLogger(__name__)


@contextmanager
def taken(run: Run, tables: Sequence[TableSchema], what: str) -> Iterator[Lease]:
    """Take a published run for the block.

    Parameters
    ----------
    run : as it was read.
    tables : that rows are added to.
    what : is done, in words such as "adding units".

    Raises
    ------
    RunTakenError : another process works on it, or took it since it was read.
    RuntimeSetupError : the workers cannot import this package.
    RunError : the block failed for a reason that is no error of ours.
    """
    before = run.record
    who = worked_on_by(run.lake, before)
    if who is not None:
        raise RunTakenError(f"run {run.run_id} is being worked on ({who}); wait for it")
    check_workers(run.spark)
    with first_contact(run.lake):
        lease = Lease(run.lake, before)
    run.record = taken = lease.record.with_changes(stop_reason=before.stop_reason)
    with lease.working():
        try:
            if before.owner is not None:
                # who was cut short may only seem to be gone: Delta leaves out what it writes after
                # this
                for schema in tables:
                    lease.append(schema, run.lake.read(schema.name, run.run_id).limit(0))
            yield lease
        except BaseException as error:
            try:
                run.record = lease.release(taken)
            except Exception:  # the first failure is the one to report
                log.exception("run %s could not be let go of", run.run_id)
            if not isinstance(error, Exception) or isinstance(error, CoarseSparkError):
                raise
            raise run.failure(f"{what} to run {run.run_id} failed", error) from error
        run.record = lease.release(run.record)
