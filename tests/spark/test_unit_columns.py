"""Profit of two outcomes and of columns of the units in a run: fit to published, by the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from outputs import rows_of

from coarse_spark.core.menu.choose import choose_menu
from coarse_spark.errors import TableError
from coarse_spark.lake.step_results import ChooseResult, FitResult

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(400)]

UNITS, LATER = 4_000, 3_900
SPEND, REDEEMED = (
    [f"theta_{position}" for position in range(start, start + 3)] for start in (0, 3)
)


def trial() -> pd.DataFrame:
    """Spend rises with the voucher, whose cost is redeemed; rate and postage are of the unit."""
    rng = np.random.default_rng(5)
    a, b = rng.uniform(-1, 1, (2, UNITS))
    voucher = 2.0 * rng.integers(0, 6, UNITS)
    spend = 30 + (2.6 + 2.2 * a) * voucher - 0.1 * voucher**2 + rng.normal(0, 4, UNITS)
    redeemed = (rng.random(UNITS) < (0.04 + 0.02 * a) * voucher).astype(np.int32)
    return pd.DataFrame(
        {
            "unit_id": np.arange(UNITS),
            "a": a,
            "b": b,
            "rate": 0.35 + 0.15 * b,
            "postage": rng.uniform(0.2, 1.0, UNITS),
            "voucher": voucher,
            "spend": spend,
            "redeemed": redeemed,
        }
    )


@pytest.fixture(scope="module")
def configuration(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    from coarse_spark.config.models import Configuration

    folder = tmp_path_factory.mktemp("vouchers")
    rows = spark.createDataFrame(trial()).coalesce(2)
    rows.write.format("delta").save(str(folder / "trial"))
    rows.where(f"unit_id < {LATER}").write.format("delta").save(str(folder / "people"))
    return Configuration.model_validate(
        {
            "experiment": {
                "path": str(folder / "trial"),
                "unit_id": "unit_id",
                "features": ["a", "b"],
                "outcome": ["spend", "redeemed"],
            },
            "population": {"path": str(folder / "people")},
            "treatments": {
                "voucher": {"kind": "continuous", "lower": 0, "upper": 10, "step": 2, "control": 0}
            },
            "response": {
                "basis": "quadratic",
                "learner": "sieve",
                "scale": {"spend": "additive", "redeemed": "additive"},
                "folds": 2,
            },
            "profit": {
                "unit_columns": ["rate", "postage"],
                "margin": {"spend": "rate", "redeemed": "-voucher"},
                "cost": "where(voucher > 0, postage, 0)",
            },
            "menu": {
                "sizes": [2],
                "select": 2,
                "sketch_cells": 300,
                "starts": 2,
                "budget": 0.6,
                "spending_per_unit": "where(voucher > 0, 0.1 / postage, 0)",
                "spending_per_outcome": {"redeemed": "voucher"},
            },
            "evaluation": {"resamples": 2},
            "output": {"path": str(folder / "tables")},
        }
    )


@pytest.fixture(scope="module")
def run(spark: SparkSession, configuration: Configuration) -> Run:
    from coarse_spark.pipeline import assign, choose, evaluate, fit, publish, score, start_run

    with start_run(spark, configuration, "vouchers") as found:
        for step in (fit, score, choose, evaluate, assign, publish):
            step(found)
    return found


def _earned(responses: pd.DataFrame, voucher: pd.Series, run: Run) -> pd.DataFrame:
    """Profit and spending of units under a voucher, by the formulas themselves."""
    units = trial().loc[responses["unit_id"]].reset_index(drop=True)
    phi = run.problem.basis(voucher.to_numpy(np.float64)[:, None])
    spend, redeemed = ((phi * responses[names]).sum(axis=1) for names in (SPEND, REDEEMED))
    postage = np.where(voucher > 0, units["postage"], 0)
    return pd.DataFrame(
        {
            "profit": units["rate"] * spend - voucher * redeemed - postage,
            "spending": voucher * redeemed + np.where(voucher > 0, 0.1 / units["postage"], 0),
        }
    )


def test_a_published_run_earns_and_spends_what_the_formulas_say(run: Run) -> None:
    responses, given = rows_of(run, "responses"), rows_of(run, "assignments")
    assert len(given) == LATER
    earned = _earned(responses, given["voucher"], run)
    control = _earned(responses, 0 * given["voucher"], run)
    np.testing.assert_allclose(given["expected_profit"], earned["profit"], rtol=1e-9)
    gained = earned["profit"] - control["profit"]
    np.testing.assert_allclose(given["expected_incremental_profit"], gained, atol=1e-9)
    own = _earned(responses, responses["best_voucher"], run)["profit"]
    np.testing.assert_allclose(responses["granular_profit"], own, rtol=1e-9)
    limits = run.result(ChooseResult).menus[2].limits
    assert limits is not None
    assert limits.total("budget").price > 0
    assert earned["spending"].mean() <= 0.6 + 1e-9
    assert earned["spending"].mean() == pytest.approx(0.6, abs=0.005)


def test_each_outcome_has_models_of_its_own(run: Run) -> None:
    assert rows_of(run, "models").groupby("outcome").size().to_dict() == {0: 6, 1: 6}
    assert run.result(FitResult).scale == "additive"
    responses, units = rows_of(run, "responses"), trial().head(LATER)
    mean = np.column_stack([30 + 0 * units["a"], 2.6 + 2.2 * units["a"]])
    assert np.abs(responses[SPEND[:2]].to_numpy() - mean).mean() < 1.0
    rate = 0.04 + 0.02 * units["a"]
    at_five = responses[REDEEMED].to_numpy() @ [1, 5, 25]
    assert np.abs(at_five - 5 * rate).mean() < 0.03


def test_the_menu_is_the_one_of_arrays(run: Run) -> None:
    responses = rows_of(run, "responses")
    found = run.result(ChooseResult).menus[2]
    menu = choose_menu(
        {"spend": responses[SPEND], "redeemed": responses[REDEEMED]},
        space=run.problem.space,
        basis="quadratic",
        profit=run.declared.profit_function,
        k=2,
        units=trial().head(LATER),
        budget=run.declared.limits.budget,
    )
    assert found.value == pytest.approx(menu.value, rel=2e-3)
    assert found.upper_bound >= menu.value - 1e-9


def test_honest_values_hold_the_truth(run: Run) -> None:
    values = rows_of(run, "policy_values").set_index(["policy", "k"])
    units = trial()
    control = values.loc[("control", 1)]
    assert abs(control["value"] - (30 * units["rate"]).mean()) < 4 * control["se"]
    given = rows_of(run, "assignments")["voucher"]
    a, rate, postage = (units[name].head(LATER) for name in ("a", "rate", "postage"))
    spend = 30 + (2.6 + 2.2 * a) * given - 0.1 * given**2
    paid = given * (0.04 + 0.02 * a) * given
    truth = (rate * spend - paid - np.where(given > 0, postage, 0)).mean()
    menu = values.loc[("menu", 2)]
    assert abs(menu["value"] - truth) < 5 * menu["se"]
    assert abs(menu["model_free_value"] - truth) < 5 * menu["model_free_se"]


def test_the_page_names_both(run: Run, tmp_path: Path) -> None:
    from coarse_spark.pipeline.present import report, report_content

    content = report_content(run)
    page = report(run, content, tmp_path / "page.html").read_text()
    assert "rate for spend, -voucher for redeemed" in page
    menu = rows_of(run, "menu").sort_values("treatment_id")
    earned = content.segment_profits[:, :-1].diagonal()
    np.testing.assert_allclose(earned, menu["expected_profit"], rtol=1e-9)


def test_tables_without_the_numbers_are_refused(
    spark: SparkSession, configuration: Configuration
) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.pipeline.settings import check_tables, read_tables

    experiment, population = read_tables(spark, configuration)
    assert population is not None
    with pytest.raises(TableError, match=r"population: the profit\.unit_columns column 'rate' is"):
        check_tables(configuration, experiment, population.drop("rate"))
    with pytest.raises(TableError, match="outcome column 'redeemed' is missing"):
        check_tables(configuration, experiment.drop("redeemed"), population)
    text = experiment.withColumn("postage", F.lit("much"))
    with pytest.raises(TableError, match="'postage' is of type string, expected a numeric"):
        check_tables(configuration, text, population)
    unknown = F.when(F.col("unit_id") % 2 == 0, F.col("rate"))
    with pytest.raises(TableError, match=r"'rate' of profit\.unit_columns that is null"):
        check_tables(configuration, experiment, population.withColumn("rate", unknown))
    free = F.when(F.col("unit_id") % 1_000 == 7, 0.0).otherwise(F.col("postage"))
    with pytest.raises(TableError) as caught:
        check_tables(
            configuration, *(rows.withColumn("postage", free) for rows in (experiment, population))
        )
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        f"{label}: 4 rows have a '1 / postage' of profit that is NaN or infinite, though its "
        "columns are numbers, such as 1007, expected a finite number in every row"
        for label in ("experiment", "population")
    ]


def test_units_that_join_are_served_alike(spark: SparkSession, run: Run) -> None:
    from coarse_spark.pipeline import assign_new

    people = spark.createDataFrame(trial()).where(f"unit_id >= {LATER}")
    people.write.format("delta").mode("append").save(str(run.declared.population.path))
    assert assign_new(spark, run.declared).extensions[-1].added == UNITS - LATER
    responses, given = rows_of(run, "responses"), rows_of(run, "assignments")
    assert len(given) == UNITS
    earned = _earned(responses, given["voucher"], run)
    np.testing.assert_allclose(given["expected_profit"], earned["profit"], rtol=1e-9)
    assert earned["spending"].mean() <= 0.6 + 1e-6
