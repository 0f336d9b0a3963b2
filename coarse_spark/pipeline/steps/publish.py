"""Make a finished run the current one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pyspark.sql import functions as F

from coarse_spark.lake.runs import PUBLISHED
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
        check_publishable(run)
        run.lake.publish_view()
        run.record = run.record.with_changes(
            status=PUBLISHED,
            published_at=next_publication(run.lake),
            stop_reason="all steps done",
            error=None,
        )


def next_publication(lake: Lake) -> datetime:
    """Return the present moment, or one after the last publication where clocks differ."""
    last = lake.read("runs").agg(F.max("published_at")).collect()[0][0]
    now = datetime.now(UTC)
    return now if last is None else max(now, last.astimezone(UTC) + timedelta(microseconds=1))
