"""Look at menus beside those of a run: at other budgets, or with another worth of an outcome."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import SparkSession
from threadpoolctl import threadpool_limits

from coarse_spark import progress
from coarse_spark.config.models import Configuration
from coarse_spark.errors import RunFinalError
from coarse_spark.lake.contract import FRONTIER
from coarse_spark.lake.output import prepare
from coarse_spark.lake.runs import PRUNED
from coarse_spark.lake.step_results import EvaluateResult, FrontierResult, Sweep
from coarse_spark.pipeline.afterwards import taken
from coarse_spark.pipeline.frontiers import frontier_rows, wanted_sweeps
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import output_layout
from coarse_spark.pipeline.start import open_run, read_run


def frontier(run: Run) -> None:
    """Look along the frontiers that the configuration asks for, into table ``frontier``.

    Raises
    ------
    InvalidInputError : budgets that no menu keeps, or nothing that counts as spending.
    """
    with run.step(FrontierResult.step):
        _prepare(run)
        sweeps = wanted_sweeps(run)
        run.replace(FRONTIER, frontier_rows(run, sweeps))
        run.keep(FrontierResult(sweeps=sweeps))


def look_along(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Look along the frontiers that a configuration asks for, of a run that may be published.

    What was asked of a published run before stays, and is not computed again.

    Parameters
    ----------
    spark : the session.
    configuration : of the run; its block ``frontier`` may be another than when the run was made.
    run_id : see ``read_run``.

    Returns
    -------
    The run, to look at.

    Raises
    ------
    CoarseSparkError : as ``read_run``, ``open_run`` and ``frontier``; the run was pruned, or has
        no honest values yet.
    """
    run = read_run(spark, configuration, run_id)
    run.result(EvaluateResult)  # before the run is taken: asking too early leaves it as it is
    if not run.record.final:
        with open_run(spark, configuration, run.run_id) as opened:
            frontier(opened)
        return opened
    if run.record.status == PRUNED:
        raise RunFinalError(f"run {run.run_id} was pruned: nothing of it is left to look along")
    sweeps, before = wanted_sweeps(run), run.record.results.get(FrontierResult.step)
    known = before.sweeps if isinstance(before, FrontierResult) else ()
    if known[-len(sweeps) :] == sweeps:  # the last ones are shown
        return run
    _prepare(run)
    with (
        progress.of(FrontierResult.step, spark),
        taken(run, [FRONTIER], "adding frontiers") as lease,
        threadpool_limits(limits=1),
    ):
        # rows of a call that was cut short before the record knew of them are there already
        landed = run.lake.read(FRONTIER.name, run.run_id).select("sweep").distinct().collect()
        names = {row["sweep"] for row in landed}
        missing = [sweep for sweep in sweeps if sweep.name not in names]
        if missing:
            run.check_inputs()
            rows = frontier_rows(run, missing)
            run.check_inputs()
            lease.append(FRONTIER, rows)
        earlier = [sweep for sweep in known if sweep not in sweeps]
        run.keep(FrontierResult(sweeps=(*earlier, *sweeps)))
    return run


def frontier_table(run: Run) -> pd.DataFrame:
    """Return the rows of the last frontier of everything that moves, empty without any."""
    found = run.record.results.get(FrontierResult.step)
    sweeps: Sequence[Sweep] = found.sweeps if isinstance(found, FrontierResult) else ()
    last = {sweep.moved: sweep.name for sweep in sweeps}
    if not last:
        return pd.DataFrame()
    rows = run.lake.read(FRONTIER.name, run.run_id).drop("run_id").toPandas()
    rows = rows[rows["sweep"].isin(list(last.values()))]
    return rows.sort_values(["moved", "point"], kind="stable", ignore_index=True)


def _prepare(run: Run) -> None:
    layout = output_layout(run.declared, run.experiment, run.population)
    prepare(run.lake, layout, [FRONTIER])
