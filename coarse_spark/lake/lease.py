"""One process works on a run at a time: it takes the run, says that it is alive, and lets go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.distributed.at_once import begun
from coarse_spark.errors import RunFinalError, RunTakenError
from coarse_spark.lake.contract import TableSchema
from coarse_spark.lake.processes import Process
from coarse_spark.lake.runs import RUNNING, RunRecord
from coarse_spark.lake.tables import Lake

log = logging.getLogger(__name__)

HEARTBEAT = timedelta(seconds=60)  # a commit each
MARGIN = timedelta(seconds=1)  # between owners: in microseconds more than writes between two beats
SILENT = 5 * HEARTBEAT  # an owner that cannot be looked at is gone when it said nothing for so long

_EPOCH, _TICK = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_steps: set[tuple[str, str]] = set()  # runs of which a step is being done in this process


def worked_on_by(lake: Lake, record: RunRecord) -> str | None:
    """Return who works on a run, in words; None where nobody does any more.

    A run that this process holds between two steps is free: a notebook takes up its own again.
    """
    if record.owner is None:
        return None
    owner = Process.parse(record.owner)
    if owner == Process.current() and _key(lake, record) not in _steps:
        return None
    alive = None if owner is None else owner.alive()
    heard = record.heartbeat_at or record.started_at
    silent = datetime.now(UTC) - heard
    if alive is False or (alive is None and silent > SILENT):
        return None
    who = record.owner if owner is None else f"process {owner.number} on {owner.host}"
    return f"{who}, last heard of {max(silent.total_seconds(), 0):.0f} s ago"


def _key(lake: Lake, record: RunRecord) -> tuple[str, str]:
    return lake.reference("runs"), record.run_id


class Lease:
    """The right of this process to change a run, and the only way to do so.

    Every write carries a number that is larger than all those of earlier owners, and Delta leaves
    out a write that carries a smaller one than the table has seen of this run. An owner that was
    taken for dead and wakes up can therefore change nothing that the next one wrote.
    """

    def __init__(self, lake: Lake, record: RunRecord) -> None:
        """Take a run.

        Parameters
        ----------
        lake : where its tables are.
        record : as it was read, or of a new run; nobody works on it.

        Raises
        ------
        RunTakenError : somebody else took or changed it since it was read.
        """
        self.lake = lake
        now = datetime.now(UTC)
        if record.heartbeat_at is not None:  # clocks differ, the order of owners must not
            now = max(now, record.heartbeat_at + MARGIN)
        taken = record.with_changes(
            status=record.status if record.final else RUNNING,
            owner=str(Process.current()),
            heartbeat_at=now,
            error=None,
            stop_reason=None,
        )
        self._saved = taken.save(lake)
        self._number = (now - _EPOCH) // _TICK
        self._numbering = threading.Lock()
        self._saving = threading.RLock()
        self._begun: Future[RunRecord] | None = None
        self._lost: RunTakenError | None = None
        self._unsure = False  # whether an outage kept from us if a save got through
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the run was let go of."""
        return self._ended

    @property
    def lost(self) -> bool:
        """Whether a heartbeat or a save found that somebody else took the run."""
        return self._lost is not None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Do a step of the run in the block: others see by heartbeats that this process lives."""
        key, done = _key(self.lake, self._saved), threading.Event()
        beat = threading.Thread(target=self._beat, args=(done,), name="heartbeat", daemon=True)
        _steps.add(key)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()
            _steps.discard(key)

    @property
    def record(self) -> RunRecord:
        """The record as it was saved last."""
        return self._saved

    def replace(self, schema: TableSchema, rows: DataFrame | pd.DataFrame) -> None:
        """Replace the run's rows in a table; see ``Lake.replace``.

        Raises
        ------
        RunFinalError : readers may have seen the rows.
        RunTakenError : somebody else took the run.
        """
        if self._saved.final:
            raise RunFinalError(f"run {self._saved.run_id} is {self._saved.status}: it is final")
        self.lake.replace(schema, self._saved.run_id, rows, self._next_number())

    def append(self, schema: TableSchema, rows: DataFrame | pd.DataFrame) -> None:
        """Add rows with keys that the run does not have yet; see ``Lake.append``.

        Raises
        ------
        RunTakenError : somebody else took the run.
        """
        self.lake.append(schema, self._saved.run_id, rows, self._next_number())

    def _next_number(self) -> int:
        self._check()
        with self._numbering:
            self._number += 1
            return self._number

    def save(self, record: RunRecord) -> RunRecord:
        """Save a changed record and return it as saved.

        Raises
        ------
        RunTakenError : somebody else took the run or gave it up; nothing was saved, and nothing is
            written by this process from here on.
        Exception : what a save that was begun before has met.
        """
        self._end_begun()
        return self._save(record)

    def begin_save(self, record: RunRecord) -> None:
        """Save a changed record beside what follows; the next save tells when that failed.

        Errors as in ``save``.
        """
        self._end_begun()
        self._begun = begun(self.lake.spark, lambda: self._save(record))

    def _end_begun(self) -> None:
        saving, self._begun = self._begun, None
        if saving is not None:
            saving.result()

    def _save(self, record: RunRecord) -> RunRecord:
        with self._saving:
            self._check()
            if self._unsure:
                self._take_up_own()
            # what the next owner counts from never goes back, whatever the clock does
            before = self._saved.heartbeat_at or _EPOCH
            beat = max(datetime.now(UTC), before + _TICK, _EPOCH + self._number * _TICK)
            changed = record.with_changes(revision=self._saved.revision, heartbeat_at=beat)
            self._unsure = True
            try:
                self._saved = changed.save(self.lake)
            except RunTakenError as error:
                self._lost = error
                raise
            self._unsure = False
            return self._saved

    def _take_up_own(self) -> None:
        """Go on from a save of ours that got through and could not be read back."""
        found = RunRecord.find(self.lake, self._saved.run_id, results=False)
        if found is not None and found.owner == self._saved.owner:
            self._saved = self._saved.with_changes(revision=found.revision)

    def release(self, record: RunRecord) -> RunRecord:
        """Save a record that nobody works on any more, and return it.

        Raises
        ------
        RunTakenError : somebody else took the run; nothing was saved.
        """
        self._end_begun()
        self._ended = True
        return self._save(record.with_changes(owner=None))

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(HEARTBEAT.total_seconds()):
            with self._saving:
                if self._ended:
                    return
                try:
                    self._save(self._saved)
                except RunTakenError:
                    return
                except Exception:  # an outage: the next beat may get through
                    log.debug("no heartbeat", exc_info=True)
