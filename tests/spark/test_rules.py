"""Rules on Spark: no unit gets what it is not eligible for, or switches for less than it costs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from command_line import started_after
from outputs import rows_of

from coarse_spark.core.policies import COMPARISONS
from coarse_spark.errors import InvalidInputError, TableError
from coarse_spark.lake.step_results import (
    AssignResult,
    ChooseResult,
    EvaluateResult,
    FitResult,
    ScoreResult,
    ValidateResult,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.long]

THETA = [f"theta_{position}" for position in range(6)]


@pytest.fixture(scope="module")
def restricted(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run with two rules; one of them is unknown for some units."""
    from pyspark.sql import functions as F

    from coarse_spark.pipeline import assign, choose, evaluate, score

    folder = tmp_path_factory.mktemp("rules")
    member = F.when(F.col("unit_id") % 3 != 0, F.col("visits") > 4)
    places = promotions.with_columns(
        spark, folder, {"member": member, "close": F.col("distance_km") < 5}
    )
    configuration = promotions.configure(
        **places,
        output__path=folder / "tables",
        menu__eligibility="{member: depth > 6, close: days > 4}",
        menu__previous_run="current",
        menu__select=3,
        evaluation__resamples=4,
    )
    with started_after("fit", finished, configuration, "restricted") as run:
        for step in (score, choose, evaluate, assign):
            step(run)
    return run


def _may(rows: pd.DataFrame, depth: pd.Series, days: pd.Series) -> pd.Series:
    return (rows["eligible_member"] | (depth <= 6)) & (rows["eligible_close"] | (days <= 4))


def test_no_unit_gets_what_it_is_not_eligible_for(restricted: Run) -> None:
    responses, assignments = (
        rows_of(restricted, "responses"),
        rows_of(restricted, "assignments"),
    )
    assert 0.1 < responses["eligible_member"].mean() < 0.9
    assert 0.1 < responses["eligible_close"].mean() < 0.9
    assert _may(responses, assignments["depth"], assignments["days"]).all()
    assert _may(responses, responses["best_depth"], responses["best_days"]).all()
    menu = rows_of(restricted, "menu").query("selected").set_index("treatment_id")
    second = assignments["runner_up_treatment_id"].dropna().astype(int)
    runner_up = menu.loc[second].set_index(second.index)
    assert _may(responses.loc[second.index], runner_up["depth"], runner_up["days"]).all()
    assert (menu["depth"] > 6).any() or (menu["days"] > 4).any(), "the rules should bind"
    # unknown counts as false
    population = restricted.population.toPandas().set_index("unit_id").loc[responses["unit_id"]]
    assert population["member"].isna().any()
    assert not responses["eligible_member"][population["member"].isna().to_numpy()].any()


def test_assignments_and_values_are_the_best_that_the_rules_allow(restricted: Run) -> None:
    responses, assignments = (
        rows_of(restricted, "responses"),
        rows_of(restricted, "assignments"),
    )
    menu = rows_of(restricted, "menu").sort_values(["k", "treatment_id"])
    theta, problem = responses[THETA].to_numpy(), restricted.problem
    menus = restricted.result(ChooseResult).menus
    for k, treatments in menu.groupby("k"):
        psi = problem.psi_at(problem.space.encode(treatments))
        profits = theta @ psi[:, :-1].T + psi[:, -1]
        for place, (_, row) in enumerate(treatments.iterrows()):
            may = _may(
                responses,
                pd.Series(row["depth"], responses.index),
                pd.Series(row["days"], responses.index),
            )
            profits[~may.to_numpy(), place] = -np.inf
        best = profits.max(axis=1)
        assert best.mean() == pytest.approx(menus[k].value, rel=1e-9)
        assert menus[k].value <= menus[k].upper_bound
        # where a unit's learned profit has two peaks, its own best treatment may be the lower one,
        # with rules as without
        assert (best > responses["granular_profit"] + 1e-6).mean() < 0.005
        if treatments["selected"].all():
            np.testing.assert_array_equal(assignments["treatment_id"], profits.argmax(axis=1))
            np.testing.assert_allclose(assignments["expected_profit"], best, rtol=1e-9)
    values = rows_of(restricted, "policy_values")
    assert np.isfinite(values[["value", "se"]]).all(axis=None)
    own = ~values["policy"].isin(COMPARISONS)
    assert np.isfinite(values.loc[own, "plug_in_value"]).all()
    # a penalty that slipped into a value would dwarf it
    assert values["value"].abs().max() < 10 * np.abs(theta[:, 0]).max()
    assert not any("valued under the control" in warning for warning in restricted.record.warnings)


def test_the_choice_is_made_again_and_the_sketch_compared(restricted: Run) -> None:
    from coarse_spark.pipeline.present import report_content
    from coarse_spark.report.page import render_report

    stability = restricted.result(EvaluateResult).stability
    assert (stability.folds, stability.resamples) == (2, 4)
    assert stability.expected_loss is not None
    assert stability.expected_loss >= 0
    table = pd.DataFrame([row.model_dump() for row in stability.treatments])
    assert 1 <= table["published"].sum() <= 3
    assert table["folds"].sum() <= 2 * 3
    assert table["frequency"].between(0, 1).all()
    assert 1 < table["frequency"].sum() <= 3 + 1e-9
    for row in restricted.result(ChooseResult).menus.values():
        # the mean of a cell hides that its units prefer different treatments: the sketch can only
        # undervalue a menu
        assert row.sketch_value <= row.value + 1e-9
        assert row.sketch_value == pytest.approx(row.value, rel=0.02)
    page = render_report(report_content(restricted))
    assert "How sure is the choice?" in page
    assert "The sketch against the full population" in page


def test_the_first_run_of_an_output_has_no_earlier_one(restricted: Run) -> None:
    assert restricted.result(ValidateResult).previous_run is None
    assert rows_of(restricted, "assignments")["changed"].isna().all()


Choice = Callable[..., "Run"]


@pytest.fixture(scope="module")
def choice(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path_factory: pytest.TempPathFactory,
) -> Choice:
    """Choose three treatments and assign them.

    Responses are as they are, or as another draw of the experiment might give them.
    """
    from coarse_spark.lake.contract import MODELS, RESPONSES
    from coarse_spark.pipeline import assign, choose, start_run
    from coarse_spark.pipeline.rules import find_previous

    rows = (
        finished.lake.read("responses", finished.run_id)
        .drop("run_id")
        .orderBy("unit_id")
        .limit(1_000)
        .toPandas()
    )
    rng = np.random.default_rng(8)
    drift = 1 + rng.normal(0, 0.03, 6) + rng.normal(0, 0.03, (len(rows), 6))

    models = finished.lake.read("models", finished.run_id).drop("run_id")
    tables = shutil.copytree(promotions.tables, tmp_path_factory.mktemp("choice") / "tables")

    def run(run_id: str, drifted: bool = True, fitted: bool = False, **overrides: object) -> Run:
        responses = rows.copy()
        if drifted:
            responses[THETA] *= drift
        best, profit = finished.problem.granular(responses[THETA].to_numpy())
        responses[["best_depth", "best_days"]], responses["granular_profit"] = best, profit
        configuration: Configuration = promotions.configure(
            output__path=tables, menu__sizes="[3]", menu__select=3, **overrides
        )
        started = start_run(spark, configuration, run_id)
        previous, known = find_previous(started), finished.result(ValidateResult)
        started.keep(known.model_copy(update={"previous_run": previous}))
        started.keep(finished.result(FitResult))
        started.replace(RESPONSES, responses)
        started.keep(ScoreResult(units=len(responses), granular_value=profit.mean()))
        if fitted:
            started.replace(MODELS, models)
        choose(started)
        assign(started)
        return started

    return run


@pytest.fixture(scope="module")
def before(choice: Choice) -> Run:
    return choice("before", drifted=False)


def _value(run: Run) -> float:
    """Mean profit of the assigned treatments, before switching costs."""
    return float(rows_of(run, "assignments")["expected_profit"].mean())


@pytest.mark.slow
def test_treatments_change_only_where_it_pays(choice: Choice, before: Run) -> None:
    costs = (0.0, 0.05, 100.0)
    runs = {
        cost: choice(f"cost-{cost:g}", menu__previous_run="before", menu__switching_cost=cost)
        for cost in costs
    }
    free = choice("free")
    changes = {cost: run.result(AssignResult).changes for cost, run in runs.items()}
    assert all((found.units, found.new) == (1_000, 0) for found in changes.values())
    assert free.result(AssignResult).changes is None

    earlier = rows_of(before, "assignments")
    assert changes[100.0].changed == 0
    pd.testing.assert_frame_equal(
        rows_of(runs[100.0], "assignments")[["depth", "days"]], earlier[["depth", "days"]]
    )

    # without a cost the earlier menu is only one more start of the search, which ends as high
    one_more, plain = (run.result(ChooseResult).menus[3].value for run in (runs[0.0], free))
    assert one_more == pytest.approx(plain, rel=1e-4)
    assert rows_of(runs[0.0], "assignments")["changed"].sum() == changes[0.0].changed

    assert 0 < changes[0.05].changed < changes[0.0].changed
    for cost, run in runs.items():
        assignments = rows_of(run, "assignments")
        moves = (assignments[["depth", "days"]] - earlier[["depth", "days"]]).abs()
        moved = moves.max(axis=1) > 1e-7
        np.testing.assert_array_equal(assignments["changed"], moved)
        menu = run.result(ChooseResult).menus[3]
        assert menu.switching_cost == pytest.approx(cost * moved.mean(), abs=1e-9)
        assert menu.value == pytest.approx(
            assignments["expected_profit"].mean() - cost * moved.mean(), abs=1e-9
        )
        assert menu.value <= menu.upper_bound + 1e-9
        # what not switching loses is less than what switching as the free run does would have cost
        saved = cost * (changes[0.0].changed - changes[cost].changed) / 1_000
        assert _value(runs[0.0]) - _value(run) <= saved + 1e-9


def test_units_without_an_earlier_treatment_switch_free(spark: SparkSession, finished: Run) -> None:
    from coarse_spark.distributed.rules import PREVIOUS, with_previous, with_rules

    rows = finished.lake.read("responses", finished.run_id).select("unit_id", *THETA)
    some = finished.lake.read("assignments", finished.run_id).where("unit_id % 2 = 0")
    found = with_rules(with_previous(rows, some), 6, [], [0, 1]).toPandas()
    had = found["unit_id"] % 2 == 0
    assert len(found) == 3_000
    assert found.loc[~had, PREVIOUS].isna().all()
    assert (found.loc[~had, ["theta_6", "theta_7"]] == 0).all(axis=None)
    np.testing.assert_array_equal(found.loc[had, "theta_7"], found.loc[had, PREVIOUS] == 1)


def test_earlier_runs_that_cannot_be_compared(finished: Run, promotions: Promotions) -> None:
    from coarse_spark.pipeline.rules import find_previous

    for wanted, message in {
        "frist": r"run 'frist' has no selected menu .*did you mean 'first'",
        "me": "is this run itself",
    }.items():
        run = replace(
            finished,
            declared=promotions.configure(menu__previous_run=wanted),
            record=finished.record.with_changes(run_id="me"),
        )
        with pytest.raises((TableError, InvalidInputError), match=message):
            find_previous(run)


def test_units_that_may_get_nothing_are_counted(spark: SparkSession, finished: Run) -> None:
    from coarse_spark.core.menu.choose import Unserved, choose_menus
    from coarse_spark.core.menu.problem.limits import Limits
    from coarse_spark.core.menu.search.settings import SearchSettings
    from coarse_spark.distributed.population import ResponseTable
    from coarse_spark.distributed.rules import with_eligibility, with_rules

    rows = finished.lake.read("responses", finished.run_id).selectExpr(
        "unit_id", "weight", "unit_id % 10 = 0 AS vip", *THETA
    )
    rows = with_rules(rows, 6, ["vip"])
    deep = np.array([[20.0, 3.0]])
    problem = finished.problem.with_candidates(deep)
    problem = with_eligibility(problem, rows, {"vip": "depth > 5"})
    population = ResponseTable(rows, problem)

    def unserved(sizes: list[int], required: np.ndarray, limits: Limits | None = None) -> Unserved:
        settings = SearchSettings(limits or Limits(), required, starts=1, cells=200, passes=1)
        return choose_menus(population, sizes, settings).unserved()

    found = unserved([1, 2], deep)
    assert found.without == {1: 2_700}
    assert found.without_single == 0
    assert not found.unmet
    # one unit in ten may get the first treatment, and three in ten have to
    both = np.vstack([deep, [[0.0, 0.0]]])
    found = unserved([2], both, Limits(min_share=0.3))
    why = r"depth = 20, days = 3 has a minimum share of 0\.3.*nearest feasible minimum is 0\.1$"
    assert re.search(why, found.unmet[2])
    assert not found.without
