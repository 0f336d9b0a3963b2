"""Spark's plans of the queries that read or write most, without running them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress

from pyspark.sql import DataFrame, SparkSession

from coarse_spark.config.models import Configuration
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.distributed.frames import experiment_units, id_parts
from coarse_spark.errors import TableError
from coarse_spark.lake.contract import RUNS
from coarse_spark.lake.step_results import ChooseResult, FitResult, ScoreResult
from coarse_spark.pipeline.limits import deciding_menu
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.menu_rule import given_by, published_rule
from coarse_spark.pipeline.rules import population_rules
from coarse_spark.pipeline.run import Run, lake_of
from coarse_spark.pipeline.settings import experiment_setup
from coarse_spark.pipeline.start import new_record, read_run
from coarse_spark.pipeline.steps.assign import assignment_rows
from coarse_spark.pipeline.steps.score import response_rows


def explained(
    spark: SparkSession, configuration: Configuration, run_id: str | None = None
) -> Iterator[str]:
    """Yield the formatted plan of every step's main query below a line that says what it is.

    Those of score, choose and assign need what the steps before them found: they are of a run that
    did these, and are left out with a sentence where there is none.

    Parameters
    ----------
    spark : the session.
    configuration : of the run.
    run_id : see ``read_run``; by default a run of this configuration, if there is any.

    Raises
    ------
    TableError : an input cannot be read; there is no such run.
    InvalidInputError : the named run was of another configuration, or several may be meant.
    """
    run = _run(spark, configuration, run_id)
    found = run.record.results
    table = run.experiment if run.population is None else run.population
    setup = experiment_setup(configuration)
    yield _plan("fit: the experiment's units", experiment_units(run.experiment, setup))
    missing = "no plan before a run has done step"
    if FitResult.step not in found:
        yield f"== score, choose, assign: {missing} '{FitResult.step}'"
        return
    yield _plan("score: into responses", response_rows(run, table))
    if ScoreResult.step not in found:
        yield f"== choose, assign: {missing} '{ScoreResult.step}'"
        return
    rules = population_rules(run)
    yield _plan("choose: what a pass over all units reads", rules.population.rows)
    menus = read_menus(run.lake, run.run_id) if ChooseResult.step in found else None
    if menus is None or not menus["selected"].any():
        yield "== assign: no plan before a run has selected a menu"
        return
    menu = menus[menus["selected"]]
    limits = run.result(ChooseResult).menus[len(menu)].limits
    population, given = rules.population, None
    if limits is None:
        deciding = PricedMenu.build(rules.problem, rules.problem.space.encode(menu))
        rule = published_rule(run, len(menu))
        given = None if rule is None else given_by(run, rule, table)
    else:  # without the few units that prices do not decide about
        population = population.told_apart()
        deciding = deciding_menu(run.search_settings().posed(population.problem), menu, limits)
    parts = id_parts(table, setup.unit_id)
    rows = assignment_rows(rules, population, deciding, parts, given=given)
    yield _plan("assign: into assignments", rows)


def _run(spark: SparkSession, configuration: Configuration, run_id: str | None) -> Run:
    """Return the run to look at, or one that has done nothing yet."""
    if run_id is not None:
        return read_run(spark, configuration, run_id)
    lake = lake_of(spark, configuration)
    if lake.exists(RUNS.name):
        with suppress(TableError):  # no run of this configuration
            return read_run(spark, configuration)
    return Run(spark, configuration, lake, new_record(spark, configuration, "none", None, None))


def _plan(what: str, rows: DataFrame) -> str:
    text = io.StringIO()
    with redirect_stdout(text):  # where Spark prints it
        rows.explain(mode="formatted")
    return f"== {what}\n{text.getvalue().strip()}\n"
