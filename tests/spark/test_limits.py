"""Share limits and budgets on Spark: kept to the unit, as profitable as the same transport in memory, whatever the partitions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.menu.assignment.transport import exact_assignment, whole_limits
from coarse_spark.core.menu.problem.limits import Budget, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.lake.step_results import AssignResult, EvaluateResult
from coarse_spark.report.limits import limit_sentences

if TYPE_CHECKING:
    from coarse_spark.core.menu.settlement import SettledMenu
    from pyspark.sql import DataFrame, SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions


pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

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


def _assigned(
    spark: SparkSession, theta: np.ndarray, limits: Limits, k: int, partitions: int
) -> tuple[SettledMenu, pd.DataFrame]:
    """Choose a menu of k within limits and assign all units, with the steps that the pipeline takes."""
    from coarse_spark.distributed.choose import choose_menus
    from coarse_spark.distributed.settle import with_tickets

    from coarse_spark.distributed.assign import assign
    from coarse_spark.pipeline.limits import settled_menu

    names = [f"theta_{position}" for position in range(theta.shape[1])]
    table = pd.DataFrame(theta, columns=names).assign(
        unit_id=np.arange(len(theta)), weight=1.0, granular_profit=9.0
    )
    responses: DataFrame = (
        spark.createDataFrame(table.sample(frac=1, random_state=partitions))
        .repartition(partitions)
        .persist()
    )
    found = choose_menus(
        responses, PROBLEM, [k], SearchSettings(limits, starts=2), cells=400, passes=3
    )
    settled, units = settled_menu(
        found.problem, found.bounded[k], with_tickets(responses, PROBLEM.coefficients)
    )
    drawn = with_tickets(responses, PROBLEM.coefficients)
    rows = assign(
        drawn, menu=settled.asked.menu, control_psi=PROBLEM.control_psi, space=SPACE, settled=units
    ).toPandas()
    responses.unpersist()
    value = found.refined.sums[k].value(found.bounded[k].menu.psi)
    assert value <= found.bounds[k]
    assert found.bounds[k] - value < 0.05 * (value - found.control_value)
    np.testing.assert_allclose(settled.sums.weight, found.refined.sums[k].weight, rtol=1e-12)
    return settled, rows.sort_values("unit_id", ignore_index=True)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only a part of the units come to the driver, as of a large population."""
    from coarse_spark.distributed import settle

    monkeypatch.setattr(settle, "SAMPLE_UNITS", 4_000)
    monkeypatch.setattr(settle, "NEAR_UNITS", 6_000)


@pytest.mark.usefixtures("few")
def test_shares_hold_to_the_unit_at_the_profit_of_the_transport_in_memory(
    spark: SparkSession,
) -> None:
    theta = _theta()
    settled, rows = _assigned(spark, theta, Limits(max_share=0.21), 5, partitions=3)
    assert 0 < len(settled.near.ids) < UNITS / 2
    chosen, weights = rows["treatment_id"].to_numpy(), np.ones(UNITS)
    counts = np.bincount(chosen, minlength=5)
    np.testing.assert_array_equal(counts, settled.sums.units)
    assert counts.max() == 0.21 * UNITS
    menu = settled.bounded.menu
    profits = profit_matrix(theta, PROBLEM.psi_at(menu.treatments))
    lower, upper = whole_limits(weights, np.zeros(5), np.full(5, 0.21 * UNITS))
    best, _ = exact_assignment(profits, weights, lower, upper, np.zeros(5))
    every = np.arange(UNITS)
    assert profits[every, chosen].mean() == pytest.approx(profits[every, best].mean(), abs=1e-9)
    assert rows["expected_profit"].mean() == pytest.approx(settled.sums.value(menu.psi), rel=1e-12)
    # a price where a limit binds, 0 where none does
    np.testing.assert_array_equal(menu.prices > 0, counts == 0.21 * UNITS)
    again, others = _assigned(spark, theta, Limits(max_share=0.21), 5, partitions=5)
    np.testing.assert_allclose(again.bounded.menu.treatments, menu.treatments, atol=1e-7)
    np.testing.assert_array_equal(others["treatment_id"], rows["treatment_id"])


@pytest.mark.usefixtures("few")
def test_units_that_all_respond_alike_are_drawn_by_lot(spark: SparkSession) -> None:
    theta = np.repeat(_theta()[:1], UNITS, axis=0)
    settled, rows = _assigned(
        spark,
        theta,
        Limits(min_share=[0.5, 0.2, 0.3], max_share=[0.5, 0.2, 0.3]),
        3,
        partitions=4,
    )
    assert len(settled.near.ids) < UNITS
    assert sorted(rows["treatment_id"].value_counts()) == [4_000, 6_000, 10_000]
    # a lot, not a range of ids
    for half in (rows.iloc[: UNITS // 2], rows.iloc[UNITS // 2 :]):
        np.testing.assert_allclose(
            np.sort(half["treatment_id"].value_counts(normalize=True)), [0.2, 0.3, 0.5], atol=0.02
        )


def test_exact_masses_and_eligibility_hold_together_to_the_unit(spark: SparkSession) -> None:
    from coarse_spark.distributed.choose import choose_menus
    from coarse_spark.distributed.settle import with_tickets

    from coarse_spark.distributed.assign import assign
    from coarse_spark.distributed.rules import require_eligible, restricted, with_rules
    from coarse_spark.pipeline.limits import settled_menu

    theta, names, units, masses = (
        _theta()[:4_000],
        [f"theta_{position}" for position in range(6)],
        4_000,
        [0.2, 0.3, 0.5],
    )
    member = np.random.default_rng(7).random(units) < 0.6
    table = pd.DataFrame(theta, columns=names).assign(
        unit_id=np.arange(units), weight=1.0, granular_profit=9.0, member=member
    )
    rows = with_rules(spark.createDataFrame(table), 6, ["member"]).persist()
    problem = restricted(PROBLEM, rows, ["member"], ["a > 0.7"])
    limits = Limits(min_share=masses, max_share=masses)
    found = choose_menus(rows, problem, [3], SearchSettings(limits, starts=1), cells=200, passes=1)
    drawn = with_tickets(rows, problem.coefficients)
    require_eligible(drawn, found.problem, ["member"], found.refined, found.bounded)
    settled, near = settled_menu(found.problem, found.bounded[3], drawn)
    menu = settled.asked.menu
    assigned = assign(
        drawn, menu=menu, control_psi=PROBLEM.control_psi, space=SPACE, rules=found.problem.rules, settled=near
    ).toPandas()  # fmt: skip
    rows.unpersist()
    chosen = assigned.sort_values("unit_id")["treatment_id"].to_numpy()
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


def test_best_single_treatment_keeps_the_budget_where_one_can() -> None:
    from coarse_spark.distributed.choose import UNIFORM, search_menus

    from coarse_spark.core.menu.choose import sketch_units

    clusters, _ = sketch_units(PROBLEM, _theta()[:400], np.ones(400))
    outcomes = profit_matrix(clusters.theta, PROBLEM.spend_at(PROBLEM.candidates, Profit("1", "0")))
    # units whose outcome is lowest under different treatments: two treatments can keep what no single one can
    least = float((outcomes.mean(axis=0).min() + outcomes.min(axis=1).mean()) / 2)
    spent = {}
    for name, budget in {
        "kept": Budget(0.1, SPENDING),
        "none": Budget(least, Profit("1", "0")),
        "free": None,
    }.items():
        menus = search_menus(
            PROBLEM, clusters, [3], SearchSettings(Limits(budget=budget), starts=2)
        )
        single = menus[UNIFORM]
        assert single.free
        assert single.menu.fixed.all() == (name == "kept")
        spent[name] = float(single.menu.treatments[0] @ [0.2, 0.1])
    assert spent["kept"] == pytest.approx(0.1, rel=1e-4)
    assert spent["none"] == pytest.approx(spent["free"])
    assert spent["free"] > 0.1


@pytest.mark.slow
def test_a_run_within_limits_publishes_what_it_keeps(
    spark: SparkSession, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.lake.schemas import MODELS, RESPONSES
    from coarse_spark.pipeline import assign, choose, evaluate, start_run
    from coarse_spark.pipeline.present import report_content

    spending = {"menu__spending_per_outcome": "depth / 100", "menu__spending_per_unit": "0"}
    steps = {"treatments__depth__step": 10, "treatments__days__step": 7}
    configuration = promotions.configure(
        output__path=tmp_path / "tables", menu__sizes="[3]", menu__max_share=0.4, menu__min_share=0.25, menu__budget=0.3,
        **spending, **steps, menu__sketch_cells=200, menu__starts=1, evaluation__resamples=3,
    )  # fmt: skip
    run = start_run(spark, configuration, "limited")
    for schema in (MODELS, RESPONSES):
        run.lake.replace(
            schema, run.run_id, finished.lake.read(schema.name, finished.run_id).drop("run_id")
        )
    for result in finished.record.results.values():
        run.keep(result)
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
    assigned = run.result(AssignResult)
    limits = assigned.limits
    assert limits is not None
    assert spent == pytest.approx(limits.spending)
    assert 0.29 < spent <= 0.3 + 1e-9
    assert limits.budget_price > 0
    assert together["expected_profit"].mean() == pytest.approx(assigned.value)
    # redraws are searched and valued within the limits, where no menu does better than the one chosen on the mean responses
    stability = run.result(EvaluateResult).stability
    assert stability.resamples == 3
    assert stability.expected_loss is not None
    assert 0 <= stability.expected_loss < 0.5 * assigned.value
    assert any("budget" in sentence for sentence in limit_sentences(report_content(run)))
    values = run.lake.read("policy_values", "limited").toPandas().set_index("policy")
    assert values.loc["menu", "plug_in_value"] < values.loc["granular", "plug_in_value"]
