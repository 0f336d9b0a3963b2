"""Profit with columns of the units on Spark: choices, values and tables count each unit's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from command_line import started_after
from outputs import rows_of

from coarse_spark.core.menu.choose import choose_menu
from coarse_spark.errors import TableError
from coarse_spark.lake.step_results import AssignResult, ChooseResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark

THETA = [f"theta_{position}" for position in range(6)]
SETTINGS = {
    "profit__unit_columns": "[unit_margin, cost_to_serve]",
    "profit__margin": "unit_margin - depth / 100",
    "profit__cost": "where(depth + days > 0, cost_to_serve, 0) + 0.01 * days",
    "menu__select": 3,
    "menu__budget": 1.2,
    "menu__spending_per_unit": "where(depth + days > 0, 1 / cost_to_serve, 0)",
}


@pytest.fixture(scope="module")
def places(
    spark: SparkSession, promotions: Promotions, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Both tables with what a unit brings and costs."""
    from pyspark.sql import functions as F

    own = F.pmod(F.col("unit_id"), F.lit(7))
    columns = {"unit_margin": 0.3 + own / 20, "cost_to_serve": 0.05 + own / 10}
    return promotions.with_columns(spark, tmp_path_factory.mktemp("unit_columns"), columns)


@pytest.fixture(scope="module")
def run(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    places: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run with the models of another, whose profit is of each unit's own numbers."""
    from coarse_spark.pipeline import assign, choose, evaluate, publish, score

    folder = tmp_path_factory.mktemp("tables")
    configuration = promotions.configure(**places, **SETTINGS, output__path=folder)
    with started_after("fit", finished, configuration, "own") as found:
        for step in (score, choose, evaluate, assign, publish):
            step(found)
    return found


def _units(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Responses, and what their units bring and cost, in one order."""
    responses = rows_of(run, "responses")
    own = responses["unit_id"].to_numpy() % 7
    return responses, pd.DataFrame(
        {"unit_margin": 0.3 + own / 20, "cost_to_serve": 0.05 + own / 10}
    )


def _profit(
    run: Run, responses: pd.DataFrame, units: pd.DataFrame, treatments: pd.DataFrame
) -> np.ndarray:
    """Profit by the formula itself."""
    problem = run.problem
    depth, days = (treatments[name].to_numpy() for name in ("depth", "days"))
    outcome = (problem.basis(problem.space.encode(treatments)) * responses[THETA]).sum(axis=1)
    cost = np.where(depth + days > 0, units["cost_to_serve"], 0) + 0.01 * days
    return np.asarray((units["unit_margin"] - depth / 100) * outcome - cost)


def test_assignments_earn_what_the_formula_says(run: Run) -> None:
    responses, units = _units(run)
    given = rows_of(run, "assignments")
    expected = _profit(run, responses, units, given)
    np.testing.assert_allclose(given["expected_profit"], expected, rtol=1e-9, atol=1e-9)
    nothing = pd.DataFrame({"depth": 0.0, "days": 0.0}, index=range(len(given)))
    gained = expected - _profit(run, responses, units, nothing)
    np.testing.assert_allclose(given["expected_incremental_profit"], gained, atol=1e-9)
    best = responses[["best_depth", "best_days"]].set_axis(["depth", "days"], axis=1)
    own = _profit(run, responses, units, best)
    np.testing.assert_allclose(responses["granular_profit"], own, rtol=1e-6, atol=1e-6)
    assert (own >= expected - 1e-6).all()


def test_the_budget_counts_each_units_own_spending(run: Run) -> None:
    _, units = _units(run)
    given = rows_of(run, "assignments")
    treated = (given["depth"] + given["days"]).to_numpy() > 0
    spent = np.where(treated, 1 / units["cost_to_serve"], 0).mean()
    limits = run.result(ChooseResult).menus[3].limits
    assert limits is not None
    assert spent <= 1.2 + 1e-9
    assert limits.spending == pytest.approx(spent, abs=2e-3)
    assert limits.budget_price > 0


def test_the_menu_is_the_one_of_arrays(run: Run) -> None:
    responses, units = _units(run)
    configuration = run.configuration
    menu = choose_menu(
        responses[THETA],
        space=run.problem.space,
        basis=run.problem.basis,
        profit=configuration.profit_function,
        k=3,
        units=units,
        budget=configuration.limits.budget,
    )
    found = run.result(ChooseResult).menus[3]
    assert found.value == pytest.approx(menu.value, rel=5e-3)
    assert found.upper_bound >= menu.value - 1e-9


def test_honest_values_are_of_the_same_profit(run: Run) -> None:
    values = rows_of(run, "policy_values").set_index(["policy", "k"])
    menu = values.loc[("menu", 3)]
    assert (
        abs(menu["value"] - menu["plug_in_value"]) < 4 * menu["se"] + 0.05 * menu["plug_in_value"]
    )
    control = values.loc[("control", 1)]
    assert menu["value"] > control["value"]
    assert run.result(AssignResult).k == 3


def test_the_page_can_be_drawn(run: Run, tmp_path: object) -> None:
    from coarse_spark.pipeline.present import report, report_content

    content = report_content(run)
    page = report(run, content, tmp_path / "page.html")  # type: ignore[operator]
    assert "unit_margin - depth / 100" in page.read_text()
    menu = rows_of(run, "menu").query("k == 3").sort_values("treatment_id")
    earned = content.segment_profits[:, :-1].diagonal()
    np.testing.assert_allclose(earned, menu["expected_profit"], rtol=1e-9)


def test_tables_without_the_numbers_are_refused(
    spark: SparkSession, promotions: Promotions, places: dict[str, str], tmp_path: object
) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.pipeline.settings import check_tables, read_tables

    configuration = promotions.configure(**places, **SETTINGS)
    experiment, population = read_tables(spark, configuration)
    assert population is not None
    with pytest.raises(TableError, match=r"population: the profit\.unit_columns column 'unit_m"):
        check_tables(configuration, experiment, population.drop("unit_margin"))
    unknown = F.when(F.col("unit_id") % 2 == 0, F.col("unit_margin"))
    with pytest.raises(TableError, match=r"'unit_margin' of profit\.unit_columns that is null"):
        check_tables(configuration, experiment, population.withColumn("unit_margin", unknown))
    text = experiment.withColumn("cost_to_serve", F.lit("much"))
    with pytest.raises(TableError, match="'cost_to_serve' is of type string, expected a numeric"):
        check_tables(configuration, text, population)
