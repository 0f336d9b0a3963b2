"""The steps in their order, and all of them as one run."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pyspark.sql import SparkSession

from coarse_spark.config.models import Configuration
from coarse_spark.errors import RunFinalError
from coarse_spark.lake.runs import PUBLISHED, RunRecord
from coarse_spark.pipeline.run import Run, lake_of
from coarse_spark.pipeline.start import read_run, start_run
from coarse_spark.pipeline.steps.assign import assign
from coarse_spark.pipeline.steps.choose import choose
from coarse_spark.pipeline.steps.evaluate import evaluate
from coarse_spark.pipeline.steps.fit import fit
from coarse_spark.pipeline.steps.frontier import frontier
from coarse_spark.pipeline.steps.publish import publish
from coarse_spark.pipeline.steps.score import score

log = logging.getLogger(__name__)

STEPS: dict[str, Callable[[Run], None]] = {
    "fit": fit,
    "score": score,
    "choose": choose,
    "evaluate": evaluate,
    "assign": assign,
    "frontier": frontier,
    "publish": publish,
}


def run_all(
    spark: SparkSession,
    configuration: Configuration,
    run_id: str | None = None,
    *,
    publish: bool = True,
    inputs: dict[str, str] | None = None,
) -> Run:
    """Run all steps that a run has not done yet, and return the finished run.

    A published run is returned as it is; one that stopped goes on after its last finished step.

    Parameters
    ----------
    spark : the session.
    configuration : of the run.
    run_id : see ``start_run``.
    publish : whether its assignments become the current ones.
    inputs : see ``start_run``.

    Raises
    ------
    CoarseSparkError : of the step that failed; the run is recorded as failed and nothing is
        published. Or of the start, see ``start_run``.
    """
    try:
        started = start_run(spark, configuration, run_id, resume=True, inputs=inputs)
    except RunFinalError:
        if run_id is None:
            raise
        record = RunRecord.load(lake_of(spark, configuration), run_id, results=False)
        if record.status != PUBLISHED:
            raise
        log.info("run %s is published already", run_id)
        return read_run(spark, configuration, run_id)
    with started as run:
        run.in_sequence = True
        left_out = {"publish": not publish, "frontier": not configuration.frontier.given}
        for name, step in STEPS.items():
            if name not in run.record.results and not left_out.get(name):
                step(run)
    return run
