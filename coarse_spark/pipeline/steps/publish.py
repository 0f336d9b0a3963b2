"""Make a finished run the current one."""

from __future__ import annotations

from datetime import UTC, datetime

from coarse_spark.errors import RunError
from coarse_spark.lake.runs import PUBLISHED
from coarse_spark.lake.step_results import ScoreResult
from coarse_spark.pipeline.run import Run


def publish(run: Run) -> None:
    """Check that every unit got one treatment, then make the run current.

    One commit to ``runs`` moves the view.

    Raises
    ------
    RunError : units are missing from the assignments.
    """
    with run.step("publish"):
        expected = run.result(ScoreResult).units
        landed = run.lake.read("assignments", run.run_id).count()
        if landed != expected:
            raise RunError(
                f"{landed} units have an assignment, expected {expected}; nothing was published"
            )
        run.lake.publish_view()
        now = datetime.now(UTC)
        done = {
            "status": PUBLISHED,
            "published_at": now,
            "ended_at": now,
            "stop_reason": "all steps done",
            "error": None,
        }
        run.record = run.record.with_changes(**done)
        run.save()
