"""Assign every unit a treatment of the selected menu, and describe the segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pyspark.sql import DataFrame

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.distributed.assign import assign as assign_units
from coarse_spark.distributed.frames import id_parts, population_units, with_id_parts
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.segments import describe_segments
from coarse_spark.errors import TableError
from coarse_spark.lake.contract import ASSIGNMENTS, SEGMENTS
from coarse_spark.lake.step_results import AssignResult, ChooseResult
from coarse_spark.pipeline.limits import deciding_menu, settled_units
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.rules import PopulationRules, count_changes, population_rules
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, unit_weight


def assign(run: Run) -> None:
    """Assign every unit a treatment of the selected menu and describe the segments.

    The tables are ``assignments`` and ``segments``.

    Raises
    ------
    TableError : no menu is selected yet.
    """
    with run.step("assign"):
        menus = read_menus(run.lake, run.run_id)
        menu = menus[menus["selected"]]
        if menu.empty:
            raise TableError(
                "menu.select is auto and no size is selected yet; run 'evaluate' before 'assign', "
                "or set menu.select"
            )
        rules, k = population_rules(run), len(menu)
        setup = experiment_setup(run.configuration)
        table = run.experiment if run.population is None else run.population
        parts = id_parts(table, setup.unit_id)
        limits = run.result(ChooseResult).menus[k].limits
        if limits is None:
            plain = PricedMenu.build(rules.problem, rules.problem.space.encode(menu))
            rows = assignment_rows(rules, rules.population, plain, parts)
            run.replace(ASSIGNMENTS, rows)
        else:
            population = rules.population.told_apart()
            problem = run.search_settings().posed(population.problem)
            deciding = deciding_menu(problem, menu, limits)
            with materialized(population.rows) as kept:
                population = replace(population, rows=kept)
                units = settled_units(population, deciding, limits.deciding.reach)
                rows = assignment_rows(rules, population, deciding, parts, units)
                run.replace(ASSIGNMENTS, rows)
        changes = count_changes(run, rules)
        units = population_units(table, setup, unit_weight(run.configuration))
        landed = run.lake.read("assignments", run.run_id)
        run.replace(SEGMENTS, describe_segments(landed, units, setup.features))
        run.keep(AssignResult(k=k, changes=changes))


def assignment_rows(
    rules: PopulationRules,
    population: ResponseTable,
    menu: PricedMenu,
    parts: Mapping[str, str],
    settled: DataFrame | None = None,
) -> DataFrame:
    """Return rows of table ``assignments`` of units.

    Parameters
    ----------
    rules : of the run.
    population : the units, where limits may divide them told apart.
    menu : with its prices.
    parts : of a composite id, see ``id_parts``.
    settled : unit_id, treatment_id of the units that prices do not decide about.
    """
    changed = rules.changed(menu.treatments)
    assigned = assign_units(
        population.rows, population.problem, menu, changed=changed, settled=settled
    )
    return with_id_parts(assigned, parts)
