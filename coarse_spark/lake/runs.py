"""The record of a run: what it read, what it did, how it ended."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from pyspark.sql import functions as F

from coarse_spark import __version__
from coarse_spark.errors import TableError
from coarse_spark.lake.contract import RUNS
from coarse_spark.lake.step_results import StepResult, results_from_json, results_to_json
from coarse_spark.lake.tables import Lake, check_run_id

RUNNING, PUBLISHED, FAILED = "running", "published", "failed"


def new_run_id() -> str:
    """Return an id that sorts by time and never repeats."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class RunRecord:
    """One row of ``runs``; immutable, each step saves a changed copy.

    ``results`` holds what each step found, by its name; column ``diagnostics`` is its JSON.
    """

    run_id: str
    config: str
    config_hash: str
    started_at: datetime
    status: str = RUNNING
    ended_at: datetime | None = None
    published_at: datetime | None = None
    step_seconds: dict[str, float] = field(default_factory=dict)
    package_version: str = __version__
    inputs: dict[str, str] = field(default_factory=dict)
    stop_reason: str | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    revision: int = 0
    change_id: str | None = None
    owner: str | None = None
    heartbeat_at: datetime | None = None
    results: Mapping[str, StepResult] = field(default_factory=dict)

    def with_changes(self, **changes: Any) -> RunRecord:
        """Return a copy with other values."""
        return replace(self, **changes)

    def save(self, lake: Lake) -> None:
        """Replace this run's row in one commit."""
        row = {name: getattr(self, name) for name in RUNS.columns if name != "diagnostics"}
        row["diagnostics"] = results_to_json(self.results)
        lake.replace(RUNS, self.run_id, pd.DataFrame([row], dtype=object))

    @staticmethod
    def load(lake: Lake, run_id: str | None = None) -> RunRecord:
        """Return the record of a run, by default of the one that started last.

        Raises
        ------
        TableError : there is no such run, or another version of the package wrote it.
        """
        rows = lake.read(RUNS.name, None if run_id is None else check_run_id(run_id))
        found = rows.orderBy(F.col("started_at").desc()).limit(1).collect()
        if not found:
            raise TableError(
                f"there is no run{'' if run_id is None else f' {run_id!r}'} "
                f"in {lake.reference(RUNS.name)}"
            )
        values = found[0].asDict()
        try:
            values["results"] = results_from_json(values.pop("diagnostics") or "{}")
        except ValueError:
            raise TableError(
                f"run {values['run_id']} holds step results of another version of coarse_spark "
                f"(written by {values['package_version']}, this is {__version__}), which cannot be "
                "read; start a new run with 'fit'"
            ) from None
        for name in ("started_at", "ended_at", "published_at", "heartbeat_at"):
            # Spark hands timestamps over as naive local times
            values[name] = None if values[name] is None else values[name].astimezone(UTC)
        values["warnings"] = list(values["warnings"] or [])
        for name in ("step_seconds", "inputs"):
            values[name] = values[name] or {}
        return RunRecord(**values)


def latest_published(lake: Lake, other_than: str) -> str | None:
    """Return the run that was published last, leaving one out; None where there is no other."""
    if not lake.exists(RUNS.name):
        return None
    rows = lake.read(RUNS.name).where(
        F.col("published_at").isNotNull() & (F.col("run_id") != other_than)
    )
    found = rows.orderBy(F.col("published_at").desc()).select("run_id").first()
    return None if found is None else str(found["run_id"])
