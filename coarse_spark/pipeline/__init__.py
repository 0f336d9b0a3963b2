"""The steps of a run in order: fit, score, choose, evaluate, assign, frontier, publish.

Each reads tables and writes tables, and keeps one record of what it found
(``lake.step_results``), which later steps and the report read.
"""

from coarse_spark.pipeline.new_units import assign_new
from coarse_spark.pipeline.order import STEPS, run_all
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.start import open_run, read_run, start_run
from coarse_spark.pipeline.steps.assign import assign
from coarse_spark.pipeline.steps.choose import choose
from coarse_spark.pipeline.steps.evaluate import evaluate
from coarse_spark.pipeline.steps.fit import fit
from coarse_spark.pipeline.steps.frontier import frontier, look_along
from coarse_spark.pipeline.steps.publish import publish
from coarse_spark.pipeline.steps.score import score

__all__ = [
    "STEPS",
    "Run",
    "assign",
    "assign_new",
    "choose",
    "evaluate",
    "fit",
    "frontier",
    "look_along",
    "open_run",
    "publish",
    "read_run",
    "run_all",
    "score",
    "start_run",
]
