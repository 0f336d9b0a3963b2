"""The steps of a run in order: fit, score, choose, evaluate, assign, publish. Each reads tables and writes tables."""

from coarse_spark.pipeline.run import Run, open_run, start_run
from coarse_spark.pipeline.steps import STEPS, assign, choose, evaluate, fit, publish, run_all, score

__all__ = ["STEPS", "Run", "assign", "choose", "evaluate", "fit", "open_run", "publish", "run_all", "score", "start_run"]
