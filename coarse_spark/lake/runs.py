"""The record of a run: what it read, what it did, how it ended, and who works on it.

The table ``runs`` is changed one revision at a time: a change names the revision before it, and of
two that name the same one Delta keeps the first (``Lake.replace``). That is all that processes need
to agree on who owns a run and which run is current, whatever the order in which they come.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from pyspark.sql import Row
from pyspark.sql import functions as F

from coarse_spark import __version__
from coarse_spark.errors import InvalidInputError, RunTakenError, TableError, nearest
from coarse_spark.lake.contact import first_contact
from coarse_spark.lake.contract import RUNS
from coarse_spark.lake.step_results import (
    STEPS_WITH_RESULTS,
    StepResult,
    results_from_json,
    results_to_json,
)
from coarse_spark.lake.tables import Lake, check_run_id

RUNNING, OPEN, FAILED, ABANDONED = "running", "open", "failed", "abandoned"
PUBLISHED, WITHDRAWN, PRUNED = "published", "withdrawn", "pruned"
FINAL = (PUBLISHED, WITHDRAWN, PRUNED)  # what readers saw once, no step changes

_ALWAYS = ("run_id", "config", "config_hash", "started_at", "status", "diagnostics")
_COLUMNS = ("run_id", *RUNS.columns)
_LOOKED_AT = 1_000  # run ids that a misspelt one is compared with


def new_run_id() -> str:
    """Return an id that sorts by time and never repeats."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class RunRecord:
    """One row of ``runs``; immutable, each step saves a changed copy.

    ``results`` holds what each step found, by its name; column ``diagnostics`` is its JSON. A
    record that was read without results has that text in ``unread``, and is saved with it.
    """

    run_id: str
    config: str
    config_hash: str
    started_at: datetime
    status: str = RUNNING
    revision: int = 0
    change_id: str = ""
    owner: str | None = None
    heartbeat_at: datetime | None = None
    ended_at: datetime | None = None
    published_at: datetime | None = None
    step_seconds: dict[str, float] = field(default_factory=dict)
    package_version: str = __version__
    inputs: dict[str, str] = field(default_factory=dict)
    stop_reason: str | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    results: Mapping[str, StepResult] = field(default_factory=dict)
    unread: str | None = None

    @property
    def final(self) -> bool:
        """Whether readers may have seen the run's rows, so that no step may change them."""
        return self.status in FINAL

    @property
    def done(self) -> list[str]:
        """Names of the steps that left results, whether these were read or not."""
        return list(self.results if self.unread is None else json.loads(self.unread))

    def refuse_given_up(self) -> None:
        """Raise InvalidInputError where an operator gave the run up: nothing goes on with it."""
        if self.status == ABANDONED:
            raise InvalidInputError(f"run {self.run_id} was given up; start a new run with 'fit'")

    def with_changes(self, **changes: Any) -> RunRecord:
        """Return a copy with other values."""
        return replace(self, **changes)

    def save(self, lake: Lake) -> RunRecord:
        """Replace this run's row in one commit and return the record of the next revision.

        Nothing is written where somebody else changed the row since it was read. Delta does not
        tell, so that the row is read back.

        Raises
        ------
        RunTakenError : somebody else changed the row.
        """
        saved = self.with_changes(revision=self.revision + 1, change_id=secrets.token_hex(8))
        row = {name: getattr(saved, name) for name in RUNS.columns if name != "diagnostics"}
        row["diagnostics"] = saved.unread or results_to_json(saved.results)
        lake.replace(RUNS, saved.run_id, pd.DataFrame([row], dtype=object), saved.revision)
        found = lake.read(RUNS.name, saved.run_id).select("change_id").collect()
        if [row["change_id"] for row in found] != [saved.change_id]:
            raise RunTakenError(
                f"run {saved.run_id} was taken over or changed by somebody else in the "
                "meantime; 'coarse-spark runs show' says by whom"
            )
        return saved

    @staticmethod
    def find(lake: Lake, run_id: str, *, results: bool = True) -> RunRecord | None:
        """Return the record of a run, None where there is none; otherwise as ``load``."""
        with first_contact(lake):
            if not lake.exists(RUNS.name):
                return None
            found = lake.read(RUNS.name, check_run_id(run_id)).collect()
        return RunRecord.of(found[0], results=results) if found else None

    @staticmethod
    def load(lake: Lake, run_id: str, *, results: bool = True) -> RunRecord:
        """Return the record of a run.

        Parameters
        ----------
        lake : where the tables are.
        run_id : of the run.
        results : whether to read what its steps found, which another version may have written
            otherwise.

        Raises
        ------
        TableError : there is no such run, or another version of the package wrote its results; or
            the output cannot be read.
        """
        with first_contact(lake):
            found = lake.read(RUNS.name, check_run_id(run_id)).collect()
        if not found:
            with first_contact(lake):
                known = lake.read(RUNS.name).select("run_id").limit(_LOOKED_AT).collect()
            hint = nearest(run_id, [row["run_id"] for row in known])
            raise TableError(f"there is no run {run_id!r} in {lake.reference(RUNS.name)}{hint}")
        return RunRecord.of(found[0], results=results)

    @staticmethod
    def of(row: Row, *, results: bool = True) -> RunRecord:
        """Return the record of a row of the table, without what its steps found if not wanted.

        Columns of others are left out; those that an earlier version did not have are as in a new
        record.

        Raises
        ------
        TableError : the table lacks a column of all versions, or another version of the package
            wrote the results.
        """
        given = row.asDict()
        lacking = [name for name in _ALWAYS if name not in given]
        if lacking:
            raise TableError(
                f"table {RUNS.name} has no column '{lacking[0]}'{nearest(lacking[0], given)}; it "
                "is none that coarse_spark wrote, or was changed since: restore it, or use another "
                "output"
            )
        values = {name: value for name, value in given.items() if name in _COLUMNS}
        text = values.pop("diagnostics") or "{}"
        if not results:
            values["unread"] = text
        try:
            values["results"] = results_from_json(text) if results else {}
        except ValueError:
            version = values.get("package_version")
            raise TableError(
                f"run {values['run_id']} holds step results of another version of coarse_spark "
                f"(written by {version}, this is {__version__}), which cannot be "
                "read; start a new run with 'fit'"
            ) from None
        for name in ("started_at", "ended_at", "published_at", "heartbeat_at"):
            # Spark hands timestamps over as naive local times
            found = values.get(name)
            values[name] = None if found is None else found.astimezone(UTC)
        values["warnings"] = list(values.get("warnings") or [])
        values["inputs"] = values.get("inputs") or {}
        seconds = values.get("step_seconds") or {}
        # a map has no order of its own; steps without results come last, as publication does
        order = {step: place for place, step in enumerate(STEPS_WITH_RESULTS)}
        values["step_seconds"] = dict(
            sorted(seconds.items(), key=lambda taken: order.get(taken[0], len(order)))
        )
        return RunRecord(**values)


def published_runs(lake: Lake) -> list[str]:
    """Return the published runs, the one that was published last, the current one, first.

    Raises
    ------
    TableError : the output cannot be read.
    """
    with first_contact(lake):
        if not lake.exists(RUNS.name):
            return []
        rows = lake.read(RUNS.name).where(F.col("published_at").isNotNull())
        found = rows.orderBy(F.col("published_at").desc()).select("run_id").collect()
    return [str(row["run_id"]) for row in found]


def current_run(lake: Lake) -> str | None:
    """Return the run whose assignments readers see, None where nothing is published."""
    return next(iter(published_runs(lake)), None)
