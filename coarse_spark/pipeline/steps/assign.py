"""Assign every unit a treatment of the selected menu, and describe the segments."""

from __future__ import annotations

import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.bounded import with_lottery
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.observed import ObservedTreatments
from coarse_spark.distributed.assign import assign as assign_units
from coarse_spark.distributed.frames import population_units
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.segments import describe_segments
from coarse_spark.distributed.settle import with_tickets
from coarse_spark.errors import TableError
from coarse_spark.lake.schemas import ASSIGNMENTS, MENU, SEGMENTS
from coarse_spark.lake.step_results import AssignResult, ChooseResult, FitResult, LimitsKept
from coarse_spark.pipeline.limits import limits_kept, published_menu, settled_menu
from coarse_spark.pipeline.menu_rows import menu_rows, read_menus
from coarse_spark.pipeline.rules import PopulationRules, count_changes, population_rules
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup


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
        chosen = run.result(ChooseResult).menus[k]
        value, limits = chosen.value, chosen.limits
        if limits is not None:
            value, limits = _assign_within_limits(run, menus, rules, limits)
        else:
            plain = PricedMenu.build(rules.problem, rules.problem.space.encode(menu))
            _write(run, rules, rules.problem, rules.responses, plain)
        changes = count_changes(run, rules)
        table = run.experiment if run.population is None else run.population
        setup = experiment_setup(run.configuration)
        units = population_units(table, setup, None)
        landed = run.lake.read("assignments", run.run_id)
        run.lake.replace(SEGMENTS, run.run_id, describe_segments(landed, units, setup.features))
        run.keep(AssignResult(k=k, value=value, limits=limits, changes=changes))


def _assign_within_limits(
    run: Run, menus: pd.DataFrame, rules: PopulationRules, limits: LimitsKept
) -> tuple[float, LimitsKept]:
    """Assign units with the limits kept to the unit and return the value and limits of just these.

    The menu's shares and prices become those of exactly these assignments.
    """
    menu, problem = menus[menus["selected"]], with_lottery(rules.problem)
    bounded = published_menu(run, problem, menu, limits)
    with materialized(with_tickets(rules.responses, rules.problem.coefficients)) as kept:
        settled, units = settled_menu(problem, bounded, kept)
        _write(run, rules, problem, kept, settled.asked.menu, units)
    final, sums = settled.bounded, settled.sums
    observed = ObservedTreatments(problem.space, run.result(FitResult).observed_treatments)
    rows = menu_rows(run.problem, final.menu, sums, observed, selected=True)
    run.lake.replace(
        MENU, run.run_id, pd.concat([menus[~menus["selected"]], rows], ignore_index=True)
    )
    return sums.value(final.menu.psi), limits_kept(final, problem, sums)


def _write(
    run: Run,
    rules: PopulationRules,
    problem: MenuProblem,
    responses: DataFrame,
    menu: PricedMenu,
    settled: DataFrame | None = None,
) -> None:
    assigned = assign_units(
        responses,
        menu=menu,
        control_psi=run.problem.control_psi,
        space=run.configuration.space,
        rules=problem.rules,
        changed=rules.changed(menu.treatments),
        settled=settled,
    )
    run.lake.replace(ASSIGNMENTS, run.run_id, assigned)
