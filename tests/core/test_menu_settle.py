"""Limits on a population beyond one process: sampled prices, passes, and the boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coarse_spark.core.menu.assignment.assign import AssignmentProblem
from coarse_spark.core.menu.assignment.transport import exact_assignment, whole_limits
from coarse_spark.core.menu.choose import ChosenMenu, choose_menus
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.limits import Budget, Limit, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.settle import Settled, _drift, settle_boundary
from coarse_spark.core.menu.units import WeightedUnits, assign
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace

pytestmark = pytest.mark.long

PLANE = TreatmentSpace.from_dict(
    {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")}
)
COST = "0.2 * a + 0.1 * b"
UNITS = 40_000


def _theta(n: int = UNITS) -> np.ndarray:
    rng = np.random.default_rng(0)
    slopes, curves = rng.uniform(0, 2, (n, 2)), -rng.uniform(0.5, 1, (n, 2))
    columns = [rng.normal(size=n), slopes + np.array([1.0, 0.0]), curves[:, 0]]
    return np.column_stack([*columns, np.full(n, 0.1), curves[:, 1]])


def _settled(
    theta: np.ndarray, limits: Limits, sizes: list[int], weights: np.ndarray | None = None
) -> tuple[np.ndarray, dict[int, ChosenMenu], dict[int, np.ndarray]]:
    """Choose menus while few units are ever in sight; also returns all with their treatments."""
    mass = np.ones(len(theta)) if weights is None else weights
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", COST))
    population = ArrayPopulation(problem, theta, mass, sample_units=4_000, boundary_units=8_000)
    settings = SearchSettings(limits, starts=2, cells=500, passes=4)
    curve = choose_menus(population, sizes, settings)
    units, chosen = population.told_apart().theta, {}
    for k, found in curve.chosen.items():
        settled = found.settled
        assert len(settled.boundary.ids) < 16_000
        chosen[k] = assign(units, settled.deciding.priced_psi)
        chosen[k][settled.boundary.ids] = settled.taken
        np.testing.assert_allclose(
            np.bincount(chosen[k], mass, minlength=k), found.sums.weight, rtol=1e-9
        )
        assert found.value <= found.upper_bound
    return units, curve.chosen, chosen


def _settled_again(theta: np.ndarray, told: Settled) -> Settled:
    """Settle by what a run keeps of a menu: its prices and how near its boundary is."""
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", COST))
    units = ArrayPopulation(problem, theta, np.ones(len(theta)), boundary_units=8_000).told_apart()
    menu = told.deciding
    sums = units.sums({menu.k: menu})[0][menu.k]
    boundary = units.boundary({menu.k: (menu, told.boundary.reach)})[menu.k]
    assert set(boundary.ids) == set(told.boundary.ids)
    found = ValuedMenu(menu, sums, menu.lagrangian(sums))
    settled = settle_boundary(found, boundary, units.size())
    assert settled is not None
    return settled


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_share=0.26),
        Limits(min_share=0.24),
        Limits([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ],
    ids=["max", "min", "masses"],
)
def test_whole_population_is_served_as_by_the_transport_of_all_units(limits: Limits) -> None:
    theta = _theta()
    _, settled, chosen = _settled(theta, limits, [4])
    menu, taken = settled[4].menu, chosen[4]
    # the final prices decide about all but the few that they leave indifferent
    told = settled[4].settled
    assert 0 < len(told.boundary.ids) < 20
    np.testing.assert_array_equal(told.deciding.prices, menu.prices)
    again = _settled_again(theta, told)
    np.testing.assert_array_equal(again.sums.units, told.sums.units)
    assert again.sums.value(menu.psi) == pytest.approx(told.sums.value(menu.psi), rel=1e-12)
    lower, upper = whole_limits(np.ones(UNITS), menu.lower * UNITS, menu.upper * UNITS)
    counts = np.bincount(taken, minlength=4)
    assert (counts >= lower).all()
    assert (counts <= upper).all()
    profits = profit_matrix(theta, np.delete(menu.psi, -2, axis=1))
    best, _ = exact_assignment(profits, np.ones(UNITS), lower, upper, np.zeros(4))
    every = np.arange(UNITS)
    assert profits[every, taken].sum() == pytest.approx(profits[every, best].sum(), rel=1e-10)
    # the Lagrangian at the prices proves it, and prices are 0 where nothing binds
    assert menu.lagrangian(settled[4].sums) == pytest.approx(settled[4].value, rel=1e-9)
    loose = (counts > lower) & (counts < upper)
    assert not menu.prices[loose].any()


def test_limits_of_all_sizes_at_once_cost_more_the_tighter_they_are() -> None:
    theta = _theta()
    values = {}
    for share in (0.34, 0.4, 1.0):
        _, settled, _ = _settled(theta, Limits(max_share=share), [3, 4])
        values[share] = [settled[k].value for k in (3, 4)]
        for k in (3, 4):
            assert settled[k].sums.units.max() <= share * UNITS
    assert values[0.34][0] < values[0.4][0] <= values[1.0][0] + 1e-9
    assert values[0.34][0] < values[0.34][1]


def test_units_that_respond_alike_are_told_apart_by_lot() -> None:
    theta = np.repeat(_theta(3), [10_000, 20_000, 10_000], axis=0)
    _, settled, chosen = _settled(theta, Limits(max_share=0.26), [4])
    assert np.bincount(chosen[4], minlength=4).max() == 0.26 * UNITS
    assert len(settled[4].settled.boundary.ids) < UNITS
    alike = chosen[4][10_000:30_000]
    halves = [np.bincount(half, minlength=4) / 10_000 for half in (alike[:10_000], alike[10_000:])]
    np.testing.assert_allclose(*halves, atol=0.03)


@pytest.mark.parametrize("most", [None, 0.4])
def test_budget_is_kept_and_used_up(most: float | None) -> None:
    theta, spending = _theta(), Profit("0.1 * a", COST)
    limits = Limits(max_share=most, budget=Budget(0.2, spending))
    units, settled, chosen = _settled(theta, limits, [3])
    menu, every = settled[3].menu, np.arange(UNITS)
    spent = profit_matrix(units, menu.counted[0])
    used = spent[every, chosen[3]].mean()
    assert used == pytest.approx(menu.used(settled[3].sums)[0])
    assert 0.1999 < used <= 0.2 * (1 + 1e-12)
    assert menu.limit_prices[0] > 0
    assert np.bincount(chosen[3]).max() <= (most or 1.0) * UNITS
    # no assignment of all units to these treatments does better within the budget
    profits, masses = profit_matrix(units, menu.psi), (menu.lower * UNITS, menu.upper * UNITS)
    posed = AssignmentProblem(
        profits, spent[None], np.ones(UNITS), *masses, np.array([0.2 * UNITS])
    )
    best = posed.whole(menu.prices, menu.limit_prices)
    assert best is not None
    mine, theirs = profits[every, chosen[3]].mean(), profits[every, best.taken].mean()
    assert mine == pytest.approx(theirs, abs=1e-5)


def test_one_treatment_for_all_spends_what_the_budget_allows() -> None:
    limits = Limits(budget=Budget(0.2, Profit("0", COST)))
    _, settled, chosen = _settled(_theta(), limits, [1, 2])
    assert not chosen[1].any()
    spent = [settled[k].menu.used(settled[k].sums)[0] for k in (1, 2)]
    np.testing.assert_allclose(spent, 0.2, rtol=1e-3)
    assert max(spent) <= 0.2 * (1 + 1e-12)
    assert settled[1].value < settled[2].value


def test_unequal_weights_miss_a_limit_by_one_unit_at_most_and_zero_weights_follow_prices() -> None:
    weights = np.random.default_rng(1).uniform(0.5, 2, UNITS)
    weights[::10] = 0.0
    _, settled, chosen = _settled(_theta(), Limits(max_share=0.26), [4], weights)
    masses = np.bincount(chosen[4], weights)
    assert (masses <= 0.26 * weights.sum() + weights.max()).all()
    assert settled[4].sums.weight.sum() == pytest.approx(weights.sum())


def test_limits_that_bind_nobody_need_no_prices_and_nobody_to_look_at() -> None:
    _, settled, _ = _settled(
        _theta(),
        Limits(min_share=0.01, max_share=0.9, budget=Budget(9.0, Profit("0", COST))),
        [3],
    )
    assert not settled[3].menu.prices.any()
    assert settled[3].menu.limit_prices == (0.0,)
    assert not len(settled[3].settled.boundary.ids)


STEPS = TreatmentSpace.from_dict(
    {"v": {"kind": "continuous", "lower": 0, "upper": 3, "step": 1, "control": 0}}
)
PAID = Profit({"spend": "0.45", "red": "-v"}, "0")
PAYMENT = Profit({"red": "v"}, "0")
TREATED = Limit("treated", Profit("0", "where(v > 0, 1, 0)"), at_most=0.6)


def _heavy(seed: int, spread: float, n: int = 6_000) -> dict[str, np.ndarray]:
    """Units of whom few come to as much as thousands of others."""
    rng = np.random.default_rng(seed)
    spend = [rng.normal(5, 1, n), rng.normal(2, 1, n), -rng.uniform(0.1, 0.5, n)]
    red = [rng.uniform(0.2, 0.6, n), rng.normal(0.05, 0.1, n), rng.normal(0, 0.02, n)]
    size = np.exp(np.random.default_rng(seed + 100).normal(0, spread, n))[:, None]
    return {"spend": np.column_stack(spend) * size, "red": np.column_stack(red) * size}


FLOOR = Limit("redeemed", Profit({"red": "1"}), at_least=1.06, relative_to="control")


@pytest.mark.parametrize(
    ("seed", "spread", "sample", "boundary", "more", "close"),
    [
        (1, 1.5, 1_000, 1_500, {"limits": (TREATED,)}, 1e-4),
        (2, 1.5, 300, 500, {}, 1e-3),
        (0, 2.2, 300, 1_500, {}, 1e-4),
        (2, 2.2, 1_000, 1_500, {}, 0.05),
        (1, 1.5, 300, 1_500, {"limits": (TREATED, FLOOR), "max_share": 0.6}, 1e-3),
    ],
    ids=["two", "a sample that cannot keep it", "a small sample", "one very large", "all kinds"],
)
def test_prices_are_enclosed_where_few_units_outweigh_many(
    seed: int, spread: float, sample: int, boundary: int, more: dict[str, Any], close: float
) -> None:
    theta, n = _heavy(seed, spread), 6_000
    money = Budget(0.4 * theta["red"].sum(axis=1).mean(), PAYMENT)
    limits = Limits(**{"budget": money, **more})
    problem = MenuProblem.build(STEPS, "quadratic", PAID, totals=limits.totals)
    units = problem.of_profit.side_by_side(theta)
    population = ArrayPopulation(problem, units, np.ones(n), sample, boundary)
    curve = choose_menus(population, [2], SearchSettings(limits, starts=1, cells=200, passes=3))
    chosen = curve.chosen[2]
    menu = chosen.menu
    assert (menu.used(chosen.sums) <= menu.limits.most + 1e-12).all()
    assert (chosen.sums.shares <= menu.upper + 1e-12).all()
    # the optimum of everyone at once, units divided at will
    posed = problem.with_totals(limits.totals)
    whole = PricedMenu.build(posed, menu.treatments, limits=limits.of_size(2, posed))
    split = whole.posed_to(WeightedUnits.of(units, np.ones(n))).split()
    assert split is not None
    best = split.value / n
    assert chosen.value >= best - close * (best - curve.control_value)
    assert menu.limit_prices == pytest.approx(split.limit_prices, rel=0.01, abs=1e-6)
    assert max(split.limit_prices) > 0.4


def test_a_menu_without_prices_is_as_far_from_others_as_one_at_prices_of_0() -> None:
    theta = _heavy(1, 0.5, 400)
    limits = Limits(budget=Budget(0.1, PAYMENT), limits=(TREATED,))
    problem = MenuProblem.build(STEPS, "quadratic", PAID, totals=limits.totals)
    units = WeightedUnits.of(problem.of_profit.side_by_side(theta), np.ones(400))
    posed = problem.with_totals(limits.totals)
    given = limits.of_size(2, posed)
    menu = PricedMenu.build(posed, np.array([[0.0], [2.0]]), limits=given)
    priced = menu.at(menu.prices, (0.7, 0.0))
    moved = _drift(menu, priced, units)
    most = 0.7 * np.abs(np.diff(profit_matrix(units.theta, menu.counted[0]), axis=1)).max()
    assert moved == pytest.approx(most, rel=1e-12)
    assert moved == _drift(menu.at(menu.prices, (0.0, 0.0)), priced, units)
    assert _drift(priced, priced, units) == 0


def test_units_without_weight_are_no_units() -> None:
    n = 3_000
    theta = _heavy(0, 0.0, n)
    limits = Limits(max_share=0.6)
    problem = MenuProblem.build(STEPS, "quadratic", PAID)
    units = problem.of_profit.side_by_side(theta)
    settings, found = SearchSettings(limits, starts=2, cells=300, passes=4), []
    for rows in (slice(None), slice(600, None)):
        weights = np.ones(n)
        weights[:600] = 0.0
        population = ArrayPopulation(problem, units[rows], weights[rows], 1_000, 1_000)
        chosen = choose_menus(population, [2], settings).chosen[2]
        assert chosen.sums.units.sum() == n - 600
        assert chosen.sums.shares.max() <= 0.6 + 1e-12
        found.append(chosen.value)
    assert found[0] == pytest.approx(found[1], rel=1e-6)
