"""The rules of a run's menus: trees over features that say who gets which treatment, as SQL."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.policy_tree.menu_rule import fit_menu_rule
from coarse_spark.core.policy_tree.rule import AssignmentRule, number_text
from coarse_spark.core.policy_tree.sql import to_sql
from coarse_spark.distributed.evaluate import FoldMenus
from coarse_spark.distributed.frames import (
    feature_frame,
    matrix,
    population_units,
    theta_columns,
)
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.rule import ruled_treatment
from coarse_spark.distributed.sample import scored_sample
from coarse_spark.errors import InvalidInputError, TableError
from coarse_spark.lake.step_results import ChooseResult, ScoreResult
from coarse_spark.pipeline.experiment import CrossFitted
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, unit_weight


def population_menu_rules(
    run: Run, population: ResponseTable, menus: Mapping[int, PricedMenu]
) -> dict[int, AssignmentRule]:
    """Return the rules of menus by size.

    None where limits are kept, which no rule keeps, or where there are no features to look at.

    Parameters
    ----------
    run : the run.
    population : unit_id, weight, theta_0 … of its problem.
    menus : of the sizes.
    """
    if not run.configuration.limits.free or not run.configuration.experiment.features:
        return {}
    setup = experiment_setup(run.configuration)
    table = run.experiment if run.population is None else run.population
    columns = ["weight", *theta_columns(population.problem.coefficients)]
    sample = scored_sample(
        population_units(table, setup, unit_weight(run.configuration)),
        population.rows,
        columns,
        run.result(ScoreResult).units,
    )
    return _fitted(run, population.problem, sample, menus)


def fold_menu_rules(
    run: Run, experiment: CrossFitted, fold_menus: Mapping[int, FoldMenus], k: int
) -> dict[int, AssignmentRule]:
    """Return by fold the rule of its menu of k, fitted on the units that this was chosen on."""
    return {
        fold: _fitted(run, experiment.problem, rows, {k: fold_menus[fold].sized[k]})[k]
        for fold, rows in experiment.samples.items()
    }


def _fitted(
    run: Run, problem: MenuProblem, sample: pd.DataFrame, menus: Mapping[int, PricedMenu]
) -> dict[int, AssignmentRule]:
    configuration = run.configuration
    features = feature_frame(sample, configuration.experiment.features)
    theta = matrix(sample, theta_columns(problem.coefficients))
    return {
        k: fit_menu_rule(
            features,
            theta,
            sample["weight"].to_numpy("float64"),
            problem,
            menu,
            depth=configuration.menu.rule_depth,
            eligible=list(configuration.menu.eligibility),
        )
        for k, menu in menus.items()
    }


def published_rule(run: Run, k: int) -> AssignmentRule | None:
    """Return the rule by which units are assigned; None where their own responses decide.

    Raises
    ------
    TableError : an earlier version of coarse_spark chose the menu, without a rule.
    """
    if run.configuration.menu.assignment == "exact":
        return None
    rule = run.result(ChooseResult).menus[k].rule
    if rule is None:
        raise TableError(f"run {run.run_id} has no rule for its menu of {k}; run 'choose' again")
    return rule


def given_by(run: Run, rule: AssignmentRule, table: DataFrame) -> DataFrame:
    """Return unit_id, given_id of units by a rule.

    Parameters
    ----------
    run : of the rule.
    table : one row a unit, as the user has it.
    """
    setup = experiment_setup(run.configuration)
    units = population_units(table, setup, unit_weight(run.configuration))
    treatment = ruled_treatment(rule, setup.features, setup.eligibility)
    return units.select("unit_id", treatment.alias("given_id"))


def selected_rule(run: Run, dialect: str) -> str:
    """Return the rule of the selected menu, as ``rule_text``.

    Raises
    ------
    InvalidInputError : an unknown dialect, or a menu within limits.
    TableError : no menu is selected yet.
    """
    menus = read_menus(run.lake, run.run_id)
    menu = menus[menus["selected"]]
    if menu.empty:
        raise TableError(
            f"run {run.run_id} has no selected menu yet; run 'evaluate', or set menu.select"
        )
    return rule_text(run, menu, dialect)


def rule_text(run: Run, menu: pd.DataFrame, dialect: str = "spark") -> str:
    """Return the rule of a menu as a SQL expression of the treatment_id.

    Behind every treatment_id stands the treatment, as a comment.

    Parameters
    ----------
    run : of the menu.
    menu : rows of the table, by treatment_id.
    dialect : see ``core.policy_tree.sql.to_sql``.

    Raises
    ------
    InvalidInputError : an unknown dialect, or a menu within limits.
    """
    rule = run.result(ChooseResult).menus[len(menu)].rule
    if rule is None:
        if not run.configuration.experiment.features:
            raise InvalidInputError(
                f"run {run.run_id} has no rule: there are no experiment.features to look at"
            )
        raise InvalidInputError(
            f"run {run.run_id} has no rule: its menu keeps limits (menu.min_share, menu.max_share, "
            "menu.budget), which no rule over features can keep, or an earlier version of "
            "coarse_spark chose it"
        )
    labels = [
        ", ".join(f"{name} {_shown(row[name])}" for name in run.configuration.space.names)
        for _, row in menu.iterrows()
    ]
    return to_sql(rule, dialect, labels=labels)


def _shown(value: object) -> str:
    return number_text(float(f"{value:.6g}")) if isinstance(value, float) else str(value)
