"""The steps in their order, and all of them as one run."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import SparkSession

from coarse_spark.config.models import Configuration
from coarse_spark.pipeline.run import Run, start_run
from coarse_spark.pipeline.steps.assign import assign
from coarse_spark.pipeline.steps.choose import choose
from coarse_spark.pipeline.steps.evaluate import evaluate
from coarse_spark.pipeline.steps.fit import fit
from coarse_spark.pipeline.steps.publish import publish
from coarse_spark.pipeline.steps.score import score

STEPS: dict[str, Callable[[Run], None]] = {
    "fit": fit,
    "score": score,
    "choose": choose,
    "evaluate": evaluate,
    "assign": assign,
    "publish": publish,
}


def run_all(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Run all steps and return the finished run.

    Raises
    ------
    CoarseSparkError : of the step that failed; the run is recorded as failed and nothing is
        published.
    """
    run = start_run(spark, configuration, run_id)
    for step in STEPS.values():
        step(run)
    return run
