"""Limits on Spark: kept to the unit, as profitable as in memory, whatever the partitions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from command_line import started_after

from coarse_spark.core.menu.assignment.transport import exact_assignment, whole_limits
from coarse_spark.core.menu.choose import ChosenMenu, MenuCurve, choose_menus
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.limits import Budget, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError
from coarse_spark.lake.step_results import AssignResult, ChooseResult, EvaluateResult
from coarse_spark.report.limits import limit_sentences

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions


pytestmark = pytest.mark.spark

UNITS = 20_000
SPACE = TreatmentSpace.from_dict(
    {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")}
)
SPENDING = Profit("0", "0.2 * a + 0.1 * b")
PROBLEM = MenuProblem.build(SPACE, "quadratic", Profit("1", "0.2 * a + 0.1 * b"))


def _theta() -> np.ndarray:
    rng = np.random.default_rng(0)
    slopes, curves = (
        rng.uniform(0, 2, (UNITS, 2)) + np.array([0.8, 0]),
        -rng.uniform(0.5, 1, (UNITS, 2)),
    )
    return np.column_stack(
        [rng.normal(size=UNITS), slopes, curves[:, 0], np.full(UNITS, 0.1), curves[:, 1]]
    )


@dataclass(frozen=True)
class Assigned:
    """The menu of one size, its curve, and the assignments by unit_id."""

    curve: MenuCurve
    chosen: ChosenMenu
    rows: pd.DataFrame


def _assigned(
    table: pd.DataFrame,
    spark: SparkSession,
    limits: Limits,
    k: int,
    partitions: int,
    units: tuple[int, int] = (4_000, 6_000),
) -> Assigned:
    """Choose a menu of k within limits and assign all units, with the pipeline's steps.

    ``units`` are those that may come to the driver: of the sample, and at the boundary.
    """
    from coarse_spark.distributed.assign import assign
    from coarse_spark.distributed.population import ResponseTable
    from coarse_spark.distributed.rules import with_eligibility, with_rules
    from coarse_spark.pipeline.limits import deciding_menu, limits_kept, settled_units

    shuffled = spark.createDataFrame(table.sample(frac=1, random_state=partitions))
    rules = {"member": "a > 0.7"} if "member" in table else {}
    rows = with_rules(shuffled.repartition(partitions), 6, list(rules)).persist()
    problem = with_eligibility(PROBLEM, rows, rules)
    population = ResponseTable(rows, problem, *units)
    settings = SearchSettings(limits, starts=2, cells=400, passes=3, tolerance=1e-4)
    curve = choose_menus(population, [k], settings)
    chosen = curve.chosen[k]
    assert not curve.unserved().unmet
    assert chosen.value <= chosen.upper_bound
    # another command goes on from the table and the record alone
    kept = limits_kept(chosen, curve.problem)
    told = population.told_apart()
    menu = deciding_menu(settings.posed(told.problem), SPACE.decode(chosen.menu.treatments), kept)
    settled = settled_units(told, menu, kept.deciding.reach)
    assigned = assign(told.rows, told.problem, menu, settled=settled).toPandas()
    rows.unpersist()
    return Assigned(curve, chosen, assigned.sort_values("unit_id", ignore_index=True))


def _table(theta: np.ndarray) -> pd.DataFrame:
    names = [f"theta_{position}" for position in range(theta.shape[1])]
    return pd.DataFrame(theta, columns=names).assign(
        unit_id=np.arange(len(theta)), weight=1.0, granular_profit=9.0
    )


@pytest.mark.long
def test_shares_hold_to_the_unit_at_the_profit_of_the_transport_in_memory(
    spark: SparkSession,
) -> None:
    theta = _theta()
    found = _assigned(_table(theta), spark, Limits(max_share=0.21), 5, partitions=3)
    menu, sums = found.chosen.menu, found.chosen.sums
    assert 0 < len(found.chosen.settled.boundary.ids) < UNITS / 2
    gain = found.chosen.value - found.curve.control_value
    assert found.chosen.upper_bound - found.chosen.value < 0.05 * gain
    chosen, weights = found.rows["treatment_id"].to_numpy(), np.ones(UNITS)
    counts = np.bincount(chosen, minlength=5)
    np.testing.assert_array_equal(counts, sums.units)
    assert counts.max() == 0.21 * UNITS
    profits = profit_matrix(theta, PROBLEM.psi_at(menu.treatments))
    lower, upper = whole_limits(weights, np.zeros(5), np.full(5, 0.21 * UNITS))
    best, _ = exact_assignment(profits, weights, lower, upper, np.zeros(5))
    every = np.arange(UNITS)
    assert profits[every, chosen].mean() == pytest.approx(profits[every, best].mean(), abs=1e-9)
    assert found.rows["expected_profit"].mean() == pytest.approx(found.chosen.value, rel=1e-12)
    # a price where a limit binds, 0 where none does
    np.testing.assert_array_equal(menu.prices > 0, counts == 0.21 * UNITS)
    again = _assigned(_table(theta), spark, Limits(max_share=0.21), 5, partitions=5)
    np.testing.assert_allclose(again.chosen.menu.treatments, menu.treatments, atol=1e-7)
    np.testing.assert_array_equal(again.rows["treatment_id"], found.rows["treatment_id"])


def test_units_that_all_respond_alike_are_drawn_by_lot(spark: SparkSession) -> None:
    theta, masses = np.repeat(_theta()[:1], UNITS, axis=0), [0.5, 0.2, 0.3]
    limits = Limits(min_share=masses, max_share=masses)
    found = _assigned(_table(theta), spark, limits, 3, partitions=4)
    assert len(found.chosen.settled.boundary.ids) < UNITS
    taken = found.rows["treatment_id"]
    assert sorted(taken.value_counts()) == [4_000, 6_000, 10_000]
    # a lot, not a range of ids
    for half in (taken[: UNITS // 2], taken[UNITS // 2 :]):
        shares = np.sort(half.value_counts(normalize=True))
        np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=0.02)


def test_exact_masses_and_eligibility_hold_together_to_the_unit(spark: SparkSession) -> None:
    theta, units, masses = _theta()[:4_000], 4_000, [0.2, 0.3, 0.5]
    member = np.random.default_rng(7).random(units) < 0.6
    limits = Limits(min_share=masses, max_share=masses)
    table = _table(theta).assign(member=member)
    found = _assigned(table, spark, limits, 3, partitions=2, units=(40_000, 100_000))
    menu, chosen = found.chosen.menu, found.rows["treatment_id"].to_numpy()
    assert sorted(np.bincount(chosen).tolist()) == [800, 1_200, 2_000]
    assert (menu.treatments[:, 0] > 0.7).any()
    assert (menu.treatments[chosen[~member], 0] <= 0.7).all()
    # no assignment that keeps both earns more
    profits = profit_matrix(theta, PROBLEM.psi_at(menu.treatments))
    allowed = profits - 1e3 * (menu.treatments[:, 0] > 0.7) * ~member[:, None]
    sizes = np.bincount(chosen).astype(np.float64)
    best, _ = exact_assignment(allowed, np.ones(units), sizes, sizes, np.zeros(3))
    every = np.arange(units)
    assert profits[every, chosen].mean() == pytest.approx(allowed[every, best].mean(), abs=1e-6)


KINDS = {
    "free": Limits(),
    "shares": Limits(min_share=0.2, max_share=0.45),
    "places": Limits([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
    "budget": Limits(budget=Budget(0.25, SPENDING)),
    "both": Limits(max_share=0.45, budget=Budget(0.25, SPENDING)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "required"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_arrays_and_spark_choose_the_same_menus(
    spark: SparkSession, rule: bool, required: bool
) -> None:
    from coarse_spark.distributed.population import ResponseTable
    from coarse_spark.distributed.rules import with_eligibility, with_rules

    units, rules = 600, {"member": "a > 0.7"} if rule else {}
    theta = _theta()[:units]
    member = np.random.default_rng(7).random(units) < 0.6
    table = spark.createDataFrame(_table(theta).assign(member=member)).repartition(3)
    rows = with_rules(table, 6, list(rules)).persist()
    problem = with_eligibility(PROBLEM, rows, rules)
    extended = np.column_stack([theta, *[1.0 - member] * len(rules)])
    populations = ArrayPopulation(problem, extended, np.ones(units)), ResponseTable(rows, problem)
    always = np.array([[0.0, 0.0]]) if required else None
    for name, limits in KINDS.items():
        settings = SearchSettings(limits, always, starts=1, passes=4)
        here, there = (choose_menus(one, [3], settings).chosen[3] for one in populations)
        found, expected = there.menu.treatments, here.menu.treatments
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=name)
        # menus use their budget up: a hair of spending decides who gets the last of it
        last = 0 if limits.budget is None else 1
        assert there.value == pytest.approx(here.value, abs=1e-6 + last / units), name
        # each search for a bound may leave 2e-4 of what there is to gain open
        for one in (here, there):
            assert one.upper_bound >= one.value - 1e-9, name
        assert there.upper_bound == pytest.approx(here.upper_bound, abs=4e-4), name
        np.testing.assert_allclose(there.sums.units, here.sums.units, rtol=0, atol=last)
    for refused, nearest in (
        (Limits(max_share=0.3), "nearest feasible maximum for k = 3"),
        (Limits(budget=Budget(-0.1, SPENDING)), "nearest feasible budget is"),
    ):
        with pytest.raises(InvalidInputError, match=nearest):
            choose_menus(populations[1], [3], SearchSettings(refused))
    rows.unpersist()


def test_best_single_treatment_keeps_the_budget_where_one_can() -> None:
    units = WeightedUnits.of(_theta()[:400], np.ones(400))
    counted = PROBLEM.with_totals([Budget(0.0, Profit("1", "0")).as_limit])
    outcomes = profit_matrix(units.theta, counted.counted_at(PROBLEM.candidates)[0])
    # units whose outcome is lowest under different treatments: two can keep what no single one can
    least = float((outcomes.mean(axis=0).min() + outcomes.min(axis=1).mean()) / 2)
    spent = {}
    for name, budget in {
        "kept": Budget(0.1, SPENDING),
        "none": Budget(least, Profit("1", "0")),
        "free": None,
    }.items():
        single = best_single(PROBLEM, units, SearchSettings(Limits(budget=budget)))
        spent[name] = float(single.treatments[0] @ [0.2, 0.1])
    assert spent["kept"] == pytest.approx(0.1, rel=1e-4)
    assert spent["none"] == pytest.approx(spent["free"])
    assert spent["free"] > 0.1


@pytest.mark.slow
def test_a_run_within_limits_publishes_what_it_keeps(
    spark: SparkSession, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import assign, choose, evaluate
    from coarse_spark.pipeline.menu_rule import selected_rule
    from coarse_spark.pipeline.present import report_content

    spending = {"menu__spending_per_outcome": "depth / 100", "menu__spending_per_unit": "0"}
    steps = {"treatments__depth__step": 10, "treatments__days__step": 7}
    configuration = promotions.configure(
        output__path=tmp_path / "tables", menu__sizes="[3]", menu__budget=0.3,
        menu__max_share=0.4, menu__min_share=0.25,
        **spending, **steps, menu__sketch_cells=200, menu__starts=1, evaluation__resamples=3,
    )  # fmt: skip
    run = started_after("score", finished, configuration, "limited")
    for step in (choose, evaluate, assign):
        step(run)

    menu, responses, assignments, segments = (
        run.lake.read(name, "limited").drop("run_id").toPandas()
        for name in ("menu", "responses", "assignments", "segments")
    )
    counts = assignments["treatment_id"].value_counts().sort_index()
    units = len(responses)
    assert counts.max() <= 0.4 * units
    assert counts.min() >= 0.25 * units
    menu = menu.sort_values("treatment_id")
    np.testing.assert_allclose(menu["share"], counts / units, rtol=1e-12)
    assert segments.set_index("treatment_id")["size"].sort_index().tolist() == counts.tolist()
    together = assignments.merge(responses, on="unit_id")
    theta = together[[f"theta_{position}" for position in range(6)]].to_numpy()
    treatments = run.problem.space.encode(together)
    spent = float(
        (
            np.einsum("ij,ij->i", theta, run.problem.basis(treatments)) * treatments[:, 0] / 100
        ).mean()
    )
    assert run.result(AssignResult).k == 3
    chosen = run.result(ChooseResult).menus[3]
    limits = chosen.limits
    assert limits is not None
    (budget,) = limits.totals
    assert (budget.name, budget.allowed) == ("budget", 0.3)
    assert spent == pytest.approx(budget.used)
    assert 0.29 < spent <= 0.3 + 1e-9
    assert budget.price > 0
    assert together["expected_profit"].mean() == pytest.approx(chosen.value)
    # redraws are searched and valued within the limits, where no menu does better than the one
    # chosen on the mean responses
    stability = run.result(EvaluateResult).stability
    assert stability.resamples == 3
    assert stability.expected_loss is not None
    assert 0 <= stability.expected_loss < 0.5 * chosen.value
    assert any("budget" in sentence for sentence in limit_sentences(report_content(run)))
    values = run.lake.read("policy_values", "limited").toPandas().set_index("policy")
    assert values.loc["menu", "plug_in_value"] < values.loc["granular", "plug_in_value"]
    # no rule over features can keep limits
    assert "rule" not in values.index
    with pytest.raises(InvalidInputError, match="run limited has no rule: its menu keeps limits"):
        selected_rule(run, "spark")


@pytest.mark.long
def test_a_run_within_several_limits_keeps_them_all(
    spark: SparkSession, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import assign, choose

    mailed = "{name: treated, per_unit: 'where(depth > 0, 1, 0)', at_most: 0.15}"
    floor = "{name: orders, per_outcome: '1', at_least: %s, relative_to: control}"
    common = {
        "output__path": tmp_path / "tables", "menu__sizes": "[3]", "menu__select": 3,
        "menu__budget": 0.3, "menu__spending_per_outcome": "depth / 100",
        "menu__spending_per_unit": "0", "treatments__depth__step": 10,
        "treatments__days__step": 7, "menu__sketch_cells": 200, "menu__starts": 1,
    }  # fmt: skip
    within = promotions.configure(menu__limits=f"[{mailed}, {floor % 1.02}]", **common)
    run = started_after("score", finished, within, "guarded")
    for step in (choose, assign):
        step(run)
    responses, assignments = (
        run.lake.read(name, "guarded").drop("run_id").toPandas().sort_values("unit_id")
        for name in ("responses", "assignments")
    )
    theta = responses[[f"theta_{position}" for position in range(6)]].to_numpy()
    treatments = run.problem.space.encode(assignments)
    expected = np.einsum("ij,ij->i", theta, run.problem.basis(treatments))
    control = theta @ run.problem.basis(run.problem.space.control[None, :])[0]
    counted = {
        "budget": (expected * treatments[:, 0] / 100).mean(),
        "treated": (treatments[:, 0] > 0).mean(),
        "orders": expected.mean(),
    }
    limits = run.result(ChooseResult).menus[3].limits
    assert limits is not None
    allowed = {"budget": 0.3, "treated": 0.15, "orders": 1.02 * control.mean()}
    for total in limits.totals:
        name, sign = total.name, 1 if total.at_most else -1
        assert total.allowed == pytest.approx(allowed[name], rel=1e-9)
        assert total.used == pytest.approx(counted[name], rel=1e-9)
        assert sign * counted[name] <= sign * allowed[name] + 1e-9
        assert total.price >= 0
    assert [total.name for total in limits.totals] == ["budget", "treated", "orders"]
    assert limits.total("treated").price > 0
    assert counted["treated"] > 0.15 - 2e-3
    # a floor beyond what anything reaches is named, with the nearest
    beyond = promotions.configure(menu__limits=f"[{mailed}, {floor % 9}]", **common)
    refused = started_after("score", finished, beyond, "refused")
    with pytest.raises(InvalidInputError, match=r"limit 'orders' .at_least 9 of the control's. is"):
        choose(refused)
