"""Make a finished run the current one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pyspark.sql import functions as F

from coarse_spark.lake.contract import FRONTIER
from coarse_spark.lake.runs import PUBLISHED
from coarse_spark.lake.step_results import FrontierResult
from coarse_spark.lake.tables import Lake
from coarse_spark.pipeline.checks import check_publishable
from coarse_spark.pipeline.run import Run


def publish(run: Run) -> None:
    """Check the run's tables, then make the run current and final.

    One commit to ``runs`` moves the view.

    Raises
    ------
    RunError : the tables are not what may be published, see ``check_publishable``.
    """
    with run.step("publish"):
        _forget_frontiers(run)
        check_publishable(run)
        run.lake.publish_view()
        run.record = run.record.with_changes(
            status=PUBLISHED,
            published_at=next_publication(run.lake),
            stop_reason="all steps done",
            error=None,
        )


def _forget_frontiers(run: Run) -> None:
    """Remove frontiers of menus that were chosen anew since: no step replaces them unasked."""
    if FrontierResult.step in run.record.results or not run.lake.exists(FRONTIER.name):
        return
    rows = run.lake.read(FRONTIER.name, run.run_id)
    if rows.take(1):
        run.replace(FRONTIER, rows.limit(0))


def next_publication(lake: Lake) -> datetime:
    """Return the present moment, or one after the last publication where clocks differ."""
    last = lake.read("runs").agg(F.max("published_at")).collect()[0][0]
    now = datetime.now(UTC)
    return now if last is None else max(now, last.astimezone(UTC) + timedelta(microseconds=1))
