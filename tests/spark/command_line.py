"""The command line inside the tests' own process and session, and in a process of its own."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from coarse_spark.cli import main

if TYPE_CHECKING:
    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

ROOT = Path(__file__).parents[2]
THORNTON = ROOT / "conf" / "thornton.yml"
QUICK = {
    # small data: Java's quick compiler alone costs less than what the thorough one would save; it
    # stops when its cache is full
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m "
    "-XX:+UseParallelGC",
    # and planning a query again after each of its stages, or compiling it, costs more than running
    # it; the run on tables in another order (test_pipeline.py) and a run in a process of its own
    # (thornton) have both
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # nor are files of a few rows skipped by their statistics
    "spark.databricks.delta.stats.collect": "false",
    # without Hadoop's native library every new file costs processes (chmod, readlink), and so does
    # the file of its checksum
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def run_command(*arguments: object, terminal: TextIO | None = None) -> Outcome:
    """Run ``coarse-spark`` in this process, on the session that is there.

    Parameters
    ----------
    arguments : of the command.
    terminal : takes what it says of errors and progress, which is then none of the outcome.
    """
    out, err = io.StringIO(), terminal or io.StringIO()
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code)  # none but a failure ends the process
    told = err.getvalue() if isinstance(err, io.StringIO) else ""
    return Outcome(code, out.getvalue(), told)


def own_environment(**changes: str | None) -> dict[str, str]:
    """Return the environment of a process of its own, with changes; None takes a variable out."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: value for name, value in environment.items() if value is not None}


def thornton_command(tables: Path) -> list[str]:
    """Return the command line of a small run "process" on the field experiment of Thornton."""
    settings = [
        f"output.path={tables}",
        "response.learner=sieve",
        "menu.sizes=1-2",
        "menu.starts=1",
        "response.folds=2",
        "evaluation.resamples=2",
    ]
    command = [sys.executable, "-m", "coarse_spark.cli", "run", "--run-id", "process"]
    return [
        *command,
        "--config",
        str(THORNTON),
        *[part for setting in settings for part in ("--set", setting)],
    ]


def started_after(step: str, finished: Run, configuration: Configuration, run_id: str) -> Run:
    """Return a run for which the steps up to ``step`` are done, with what they found for another.

    Parameters
    ----------
    step : fit or score.
    finished : the other run.
    configuration : of the new one.
    run_id : of the new one.
    """
    from coarse_spark.lake.contract import MODELS, RESPONSES
    from coarse_spark.lake.step_results import STEPS_WITH_RESULTS
    from coarse_spark.pipeline import start_run

    run = start_run(finished.spark, configuration, run_id)
    for schema in (MODELS, RESPONSES)[: 1 + (step == "score")]:
        run.replace(schema, finished.lake.read(schema.name, finished.run_id).drop("run_id"))
    for done in STEPS_WITH_RESULTS[: STEPS_WITH_RESULTS.index(step) + 1]:
        run.keep(finished.record.results[done])
    return run


def on_the_same_responses(finished: Run, configuration: Configuration, run_id: str) -> Run:
    """Return a run with menus and assignments of its own; it is not published."""
    from coarse_spark.pipeline import assign, choose

    run = started_after("score", finished, configuration, run_id)
    choose(run)
    assign(run)
    return run
