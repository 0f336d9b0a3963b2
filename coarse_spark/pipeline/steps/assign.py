"""Assign every unit a treatment of the selected menu, and describe the segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.distributed.assign import assign as assign_units
from coarse_spark.distributed.frames import id_parts, population_units, with_id_parts
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.published import segment_sums
from coarse_spark.distributed.segments import describe_segments
from coarse_spark.errors import TableError
from coarse_spark.lake.contract import ASSIGNMENTS, MENU, SEGMENTS
from coarse_spark.lake.step_results import AssignResult, ChooseResult
from coarse_spark.pipeline.limits import deciding_menu, settled_units
from coarse_spark.pipeline.menu_rows import menu_rows, read_menus
from coarse_spark.pipeline.menu_rule import given_by, published_rule, rule_text
from coarse_spark.pipeline.rules import (
    PopulationRules,
    count_changes,
    population_rules,
    profit_responses,
)
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
        chosen, rule = run.result(ChooseResult).menus[k], published_rule(run, k)
        limits = chosen.limits
        if limits is None:
            plain = PricedMenu.build(rules.problem, rules.problem.space.encode(menu))
            given = None if rule is None else given_by(run, rule, table)
            rows = assignment_rows(rules, rules.population, plain, parts, given=given)
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
        segments = describe_segments(landed, units, setup.features, seed=setup.seed, rule=rule)
        run.replace(SEGMENTS, segments)
        run.keep(
            AssignResult(
                k=k,
                changes=changes,
                by_rule=rule is not None,
                rule=None if chosen.rule is None else rule_text(run, menu),
                segment_theta=() if rule is None else _served(run, menus, landed, k),
            )
        )


def _served(
    run: Run, menus: pd.DataFrame, assignments: DataFrame, k: int
) -> tuple[tuple[float, ...], ...]:
    """Put into ``menu`` whom a rule serves with the menu of k; return their mean coefficients."""
    sums = segment_sums(assignments, profit_responses(run), k, run.problem.coefficients)
    own = menus["k"] == k
    menu = PricedMenu.build(run.problem, run.problem.space.encode(menus[own]))
    rows = menu_rows(run.problem, menu, sums, selected=True)
    for name in ("share", "expected_profit"):
        menus.loc[own, name] = rows[name].to_numpy()
    run.replace(MENU, menus)
    weight = sums.weight[:, None]
    means = np.divide(sums.theta, weight, out=np.zeros_like(sums.theta), where=weight > 0)
    return tuple(map(tuple, means.tolist()))


def assignment_rows(
    rules: PopulationRules,
    population: ResponseTable,
    menu: PricedMenu,
    parts: Mapping[str, str],
    settled: DataFrame | None = None,
    given: DataFrame | None = None,
) -> DataFrame:
    """Return rows of table ``assignments`` of units.

    Parameters
    ----------
    rules : of the run.
    population : the units, where limits may divide them told apart.
    menu : with its prices.
    parts : of a composite id, see ``id_parts``.
    settled : unit_id, treatment_id of the units that prices do not decide about.
    given : unit_id, given_id of all units where a rule decides.
    """
    changed, rows, decided = rules.changed(menu.treatments), population.rows, None
    if given is not None:
        rows, decided = rows.join(given, "unit_id", "left"), F.col("given_id")
    assigned = assign_units(
        rows, population.problem, menu, changed=changed, settled=settled, given=decided
    )
    return with_id_parts(assigned, parts)
