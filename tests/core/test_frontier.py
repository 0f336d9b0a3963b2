"""Frontiers against known responses: their shape, their prices, and intervals that cover."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coarse_spark import Profit, TreatmentSpace
from coarse_spark.config.load import load_configuration
from coarse_spark.config.models import Configuration
from coarse_spark.core.design import corrected, moment_sums, representer, row_moments
from coarse_spark.core.frontier import (
    PROFIT,
    SPENDING,
    FrontierPoint,
    Measures,
    bounded,
    budget_points,
    budget_price,
    control_menu,
    frontier_maps,
    frontier_menus,
    frontier_policies,
    frontier_values,
    least_spending,
    sensible_budgets,
    trade_off_points,
)
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.units import WeightedUnits, assign, segment_sums
from coarse_spark.core.policies import PolicyUnits
from coarse_spark.core.values import ScoreMoments
from coarse_spark.distributed.evaluate import FoldMenus, policy_scores
from coarse_spark.errors import ConfigurationError, InvalidInputError

# a voucher lifts spending, and costs what it is worth to those who redeem it
SPACE = TreatmentSpace.from_dict(
    {"voucher": {"kind": "continuous", "lower": 0, "upper": 4, "control": 0}}
)
PAID = Profit({"spend": "0.45", "redeemed": "-voucher"})
SPENT = Profit({"redeemed": "voucher"})
K = 3
SETTINGS = SearchSettings(starts=1)


def _problem(profit: Profit = PAID, spending: Profit = SPENT) -> MenuProblem:
    totals = bounded(Limits(), spending, 1.0).totals
    return MenuProblem.build(SPACE, "quadratic", profit, totals=totals).with_totals(totals)


def _theta(n: int, seed: int = 0) -> np.ndarray:
    """Return responses of spend and of redeemed, which is a chance."""
    rng = np.random.default_rng(seed)
    lift, bend = rng.uniform(0, 4, n), -rng.uniform(0.2, 0.8, n)
    return np.column_stack(
        [rng.normal(20, 3, n), lift, bend, np.zeros(n), rng.uniform(0.02, 0.12, n), np.zeros(n)]
    )


THETA = _theta(1_500)
UNITS = WeightedUnits.of(THETA, np.ones(len(THETA)))
PROBLEM = _problem()
MEASURES = Measures(PROBLEM, ("spend", "redeemed"))


def _plug_in(menus: list[PricedMenu], theta: np.ndarray = THETA) -> pd.DataFrame:
    rows = {number: menu.priced_psi for number, menu in enumerate(menus)}
    sums = segment_sums(theta, np.ones(len(theta)), rows)
    return pd.DataFrame([MEASURES.plug_in(menu, sums[n]) for n, menu in enumerate(menus)])


def _menus(points: list[FrontierPoint]) -> list[PricedMenu]:
    return frontier_menus(points, PROBLEM, UNITS, [1, 2, K], K, SETTINGS)


@pytest.fixture(scope="module")
def budgets() -> tuple[list[FrontierPoint], list[PricedMenu]]:
    free = search_menus(PROBLEM, UNITS, [K], SETTINGS)[K]
    spent = float(_plug_in([free])[SPENDING][0])
    points = budget_points(PAID, Limits(), SPENT, sensible_budgets(0.0, spent)[1::2])
    return points, _menus(points)


def test_more_budget_earns_more_and_less_and_less_so(
    budgets: tuple[list[FrontierPoint], list[PricedMenu]],
) -> None:
    points, menus = budgets
    found = _plug_in(menus)
    at = np.array([point.at for point in points])
    assert [point.current for point in points] == [False] * 3 + [True]
    np.testing.assert_allclose(at[:-1], found[SPENDING].iloc[-1] * np.array([2, 4, 6]) / 8)
    np.testing.assert_allclose(found[SPENDING][:-1], at[:-1], rtol=2e-3)
    slopes = np.diff(found[PROFIT]) / np.diff(found[SPENDING])
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 0).all()
    # what one more unit of money earns lies between what the steps before and after it earned
    prices = np.array([budget_price(menu) for menu in menus])
    assert prices[-1] == 0
    assert (prices[:-1] > slopes * 0.97).all()
    assert (prices[1:] < slopes * 1.03).all()


def test_without_a_binding_budget_it_is_the_menu_without_one(
    budgets: tuple[list[FrontierPoint], list[PricedMenu]],
) -> None:
    free = search_menus(PROBLEM, UNITS, [1, 2, K], SETTINGS)[K]
    ample = _menus(budget_points(PAID, Limits(), SPENT, [50.0]))
    for menu in (budgets[1][-1], *ample):
        np.testing.assert_allclose(menu.treatments, free.treatments, atol=1e-5)
        assert budget_price(menu) == 0


def test_weights_trade_profit_for_an_outcome_at_their_own_rate() -> None:
    points = trade_off_points(PAID, Limits(), "redeemed", [-2, -1, 1, 2])
    assert [point.at for point in points] == [-2, -1, 0, 1, 2]
    found = _plug_in(_menus(points))
    profit, redeemed = found[PROFIT].to_numpy(), found["outcome redeemed"].to_numpy()
    assert profit.argmax() == 2
    assert (np.diff(redeemed) > 0).all()
    # what is given up for one more lies between the weights of both ends
    rate = -np.diff(profit) / np.diff(redeemed)
    weights = np.array([point.at for point in points])
    assert (rate > weights[:-1] - 0.05).all()
    assert (rate < weights[1:] + 0.05).all()


def test_a_single_outcome_is_traded_for_as_well() -> None:
    (before, own, after) = trade_off_points(Profit("30 - t"), Limits(), "outcome", [-1.5, 1e-05])
    assert [point.profit.margin for point in (before, own, after)] == [
        "(30 - t) + (-1.5)",
        "30 - t",
        "(30 - t) + (1e-05)",
    ]
    assert own.current
    assert not before.current


def test_a_run_with_a_budget_has_it_on_the_frontier() -> None:
    limits = bounded(Limits(max_share=0.8), SPENT, 0.2)
    points = budget_points(PAID, limits, SPENT, [0.1, 0.3])
    assert [(point.at, point.current) for point in points] == [
        (0.1, False),
        (0.2, True),
        (0.3, False),
    ]
    assert {point.limits.max_share for point in points} == {0.8}


def test_what_nothing_is_spent_on_has_no_frontier() -> None:
    with pytest.raises(InvalidInputError, match=r"menu\.spending_per_unit"):
        sensible_budgets(0.0, 0.0)
    nothing = Measures(_problem(spending=Profit("0", "0")), ("a", "b"))
    assert nothing.names == ("profit", "outcome a", "outcome b")
    assert least_spending(PROBLEM, UNITS) == pytest.approx(0, abs=1e-12)


def test_no_weight_is_worth_a_treatment_that_units_may_not_get() -> None:
    barred = (np.arange(len(THETA)) % 4 == 0).astype(float)
    largest = np.abs(THETA).max(axis=0)
    ruled = PROBLEM.with_eligibility(["voucher > 1"], largest, np.array([barred.mean()]))
    units = WeightedUnits.of(np.column_stack([THETA, barred]), UNITS.weights)
    points = trade_off_points(PAID, Limits(), "redeemed", [1e4])
    menus = frontier_menus(points, ruled, units, [K], K, SETTINGS)
    measures = Measures(ruled, ("spend", "redeemed"))
    for menu in menus:
        taken = assign(units.theta, menu.priced_psi)
        got = menu.treatments[taken, 0]
        assert got[barred > 0].max() <= 1
        assert got[barred == 0].max() > 1
    # who may get nothing of a menu is left at the control, by every measure
    asking = replace(menus[1], treatments=menus[1].treatments[[-1]], psi=menus[1].psi[[-1]])
    asking = replace(asking, prices=np.zeros(1), counted=asking.counted[:, [-1]])
    assert asking.treatments[0, 0] > 1
    found = measures.policies(asking)[SPENDING](PolicyUnits(ruled, units.theta))
    control = measures.rows(SPACE.control[None, :])[SPENDING][0]
    np.testing.assert_array_equal(found[barred > 0], np.tile(control, (int(barred.sum()), 1)))
    assert (found[barred == 0] != control).any(axis=1).all()


def _honest(menus: list[PricedMenu], n: int, seed: int) -> pd.DataFrame:
    """Return the values that an experiment on n other units of the same kind finds."""
    theta, rng = _theta(n, seed), np.random.default_rng(seed + 1)
    treatments = rng.uniform(0, 4, (n, 1))
    phi = PROBLEM.basis(treatments)
    means = [(phi * theta[:, part]).sum(axis=1) for part in (slice(0, 3), slice(3, 6))]
    spend = means[0] + rng.normal(0, 4, n)
    redeemed = (rng.uniform(size=n) < means[1]).astype(float)
    # predictions are off, as those of any learner
    predicted = theta + rng.normal(0, [2, 0.4, 0.1, 0.02, 0.02, 0.004], (n, 6))
    turned = representer(phi, row_moments(moment_sums(phi, None, np.ones(n)), None, n))
    debiased = np.hstack(
        [
            corrected(predicted[:, part], phi, y, turned)
            for part, y in ((slice(0, 3), spend), (slice(3, 6), redeemed))
        ]
    )
    policies = frontier_policies(MEASURES.names, len(menus), K)
    chosen = FoldMenus(menus[0], {}, frontier_maps(MEASURES, menus))
    # who gets what is decided by responses that are known, so that the truth is one
    scores, _ = policy_scores(PolicyUnits(PROBLEM, theta), debiased, policies, chosen)
    center = scores.mean(axis=0)
    moments = ScoreMoments.of(ScoreMoments.sums(scores, np.ones(n), center), center)
    return frontier_values(MEASURES.names, moments, 0.95)


def test_intervals_cover_and_neighbours_are_told_apart_better_than_apart(
    budgets: tuple[list[FrontierPoint], list[PricedMenu]],
) -> None:
    menus = [control_menu(PROBLEM), *budgets[1][::2]]
    many = _plug_in(menus, _theta(400_000, 99))
    truth = many[list(MEASURES.names)].to_numpy().ravel()
    steps = np.vstack([np.full(many.shape[1], np.nan), np.diff(many.to_numpy(), axis=0)]).ravel()
    covered, stepped, repetitions = 0.0, 0.0, 120
    for seed in range(repetitions):
        found = _honest(menus, 1_200, 10 * seed)
        inside = (found["ci_low"] <= truth + 1e-9) & (truth - 1e-9 <= found["ci_high"])
        between = (found["difference_low"] <= steps) & (steps <= found["difference_high"])
        # nothing is spent on the control, nor redeemed, for sure
        known = found["se"] > 1e-12
        covered += inside[known].mean() / repetitions
        stepped += between[found["point"] > 0].mean() / repetitions
    assert 0.92 < covered < 0.975
    assert 0.92 < stepped < 0.975
    errors = found.pivot_table(index="point", columns="measure", values="se")[PROFIT]
    paired = found[(found["measure"] == PROFIT) & (found["point"] > 1)]["difference_se"]
    apart = np.sqrt(errors.to_numpy()[1:-1] ** 2 + errors.to_numpy()[2:] ** 2)
    assert (paired.to_numpy() < 0.6 * apart).all()


def test_values_of_a_frontier_are_those_of_the_menu_itself(
    budgets: tuple[list[FrontierPoint], list[PricedMenu]],
) -> None:
    found = _honest(budgets[1][-2:], 2_000, 5)
    assert found["point"].tolist() == [0] * 4 + [1] * 4
    assert found["measure"].tolist() == [PROFIT, SPENDING, "outcome spend", "outcome redeemed"] * 2
    one = found[found["point"] == 1].set_index("measure")
    paid = 0.45 * one.loc["outcome spend", "value"] - one.loc[SPENDING, "value"]
    assert one.loc[PROFIT, "value"] == pytest.approx(paid, rel=1e-9)
    assert found["difference"][:4].isna().all()
    apart = found[found["measure"] == PROFIT]["value"].diff().iloc[1]
    assert one.loc[PROFIT, "difference"] == pytest.approx(apart)


ASKED = """
experiment: {table: trial, unit_id: id, features: [x], outcome: OUTCOME}
treatments: {t: {kind: continuous, lower: 0, upper: 2, control: 0}}
profit: {margin: MARGIN, cost: 0.5 * t}
output: {schema: s}
"""


def _configured(path: Path, frontier: str, outcome: str = "y", margin: str = "1") -> Configuration:
    text = ASKED.replace("OUTCOME", outcome).replace("MARGIN", margin)
    path.write_text(f"{text}frontier: {frontier}\n")
    return load_configuration(path)


@pytest.mark.parametrize(
    ("frontier", "several", "told"),
    [
        ("{outcome: z, weights: [1]}", False, "frontier.outcome: found 'z', expected one of"),
        ("{outcome: y}", False, "frontier.weights: found none, expected money"),
        ("{weights: [1]}", True, "frontier.outcome: found none, expected the one that"),
        ("{budgets: [a]}", False, "frontier.budgets: found"),
        ("{budget: [1]}", False, "did you mean 'budgets'"),
    ],
)
def test_what_cannot_be_asked_is_told(
    frontier: str, several: bool, told: str, tmp_path: Path
) -> None:
    of = ("[y, x2]", "{y: 1, x2: -t}") if several else ("y", "1")
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        _configured(tmp_path / "run.yml", frontier, *of)


def test_spending_may_be_named_for_a_frontier_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    text = ASKED.replace("OUTCOME", "y").replace("MARGIN", "1")
    text = f"{text}menu: {{spending_per_outcome: t}}\n"
    path.write_text(f"{text}frontier: {{budgets: [1]}}\n")
    found = load_configuration(path)
    assert found.limits.budget is None
    assert (found.spending.margin, found.spending.cost) == ("t", "0.5 * t")
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"expected menu\.budget beside it"):
        load_configuration(path)


def test_what_is_asked_besides_makes_no_other_run(tmp_path: Path) -> None:
    plain, asked, other = (
        _configured(tmp_path / "run.yml", text)
        for text in ("{}", "{budgets: [2, 1, 1]}", "{weights: 3}")
    )
    assert plain.fingerprint() == asked.fingerprint() == other.fingerprint()
    assert [one.frontier.given for one in (plain, asked, other)] == [False, True, True]
    assert asked.frontier.budgets == (1, 2)
    assert other.frontier.weights == (3,)
