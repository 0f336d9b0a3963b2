"""Limits on a population that does not come to the driver: sampled prices, passes, and the units near indifference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from coarse_spark.core.menu.bounded import BoundedMenu, lottery_size, with_lottery
from coarse_spark.core.menu.bounded_curve import search_within
from coarse_spark.core.menu.choose import sketch_units
from coarse_spark.core.menu.clearing import Offers
from coarse_spark.core.menu.limits import Budget, MenuLimits
from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums, segment_sums
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settings import SearchSettings
from coarse_spark.core.menu.settlement import (
    Everyone,
    Near,
    Sample,
    SettledMenu,
    indifference,
    refine_within,
    settle_within,
)
from coarse_spark.core.menu.transport import exact_assignment, whole_limits
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

STEPS = TreatmentSpace.from_dict(
    {
        n: {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0}
        for n in ("a", "b")
    }
)
PLANE = TreatmentSpace.from_dict(
    {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")}
)
COST = "0.2 * a + 0.1 * b"
UNITS = 40_000


def _theta(n: int = UNITS) -> np.ndarray:
    rng = np.random.default_rng(0)
    slopes, curves = rng.uniform(0, 2, (n, 2)), -rng.uniform(0.5, 1, (n, 2))
    return np.column_stack(
        [
            rng.normal(size=n),
            slopes + np.array([1.0, 0.0]),
            curves[:, 0],
            np.full(n, 0.1),
            curves[:, 1],
        ]
    )


def _settled(
    theta: np.ndarray,
    limits: MenuLimits,
    sizes: list[int],
    weights: np.ndarray | None = None,
    seen: int = 4_000,
    most: int = 8_000,
) -> tuple[MenuProblem, np.ndarray, dict[int, SettledMenu], dict[int, np.ndarray]]:
    """Choose and settle menus while only ``seen`` + ``most`` units are ever in sight; also returns everybody's treatment."""
    n = len(theta)
    mass = np.ones(n) if weights is None else weights
    problem = with_lottery(MenuProblem.build(PLANE, "quadratic", Profit("1", COST)))
    units = np.column_stack([theta, np.random.default_rng(5).random(n)])
    clusters, _ = sketch_units(problem, units, mass, 500)
    found = search_within(problem, clusters, sizes, SearchSettings(limits, starts=2))
    lottery = lottery_size(problem, clusters.theta)
    drawn = {
        k: replace(m, lottery=lottery).at(problem, m.menu.prices, m.charge)
        for k, m in found.items()
    }
    sample = Sample(units[::7][:seen], mass[::7][:seen])

    def aggregate(menus: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(units, mass, menus)

    def collect(asked: Mapping[int, tuple[BoundedMenu, float]]) -> dict[int, Near]:
        result = {}
        for k, (bounded, reach) in asked.items():
            taken, gap = indifference(units, bounded)
            rows = np.flatnonzero((gap < reach) & (mass > 0))
            assert len(rows) < 2 * most
            result[k] = Near(units[rows], mass[rows], taken[rows], reach, rows.astype(object))
        return result

    passed = refine_within(problem, drawn, aggregate, sample, max_passes=4)
    held = mass[mass > 0]
    everyone = Everyone(len(held), float(held.min()), float(held.max()))
    settled = settle_within(problem, passed.menus, aggregate, collect, sample, everyone, most=most)
    chosen = {}
    for k, menu in settled.items():
        chosen[k] = indifference(units, menu.asked)[0]
        chosen[k][menu.near.ids.astype(np.intp)] = menu.chosen
        np.testing.assert_allclose(
            np.bincount(chosen[k], mass, minlength=k), menu.sums.weight, rtol=1e-9
        )
    return problem, units, settled, chosen


@pytest.mark.parametrize(
    "limits",
    [
        MenuLimits(max_share=0.26),
        MenuLimits(min_share=0.24),
        MenuLimits([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ],
    ids=["max", "min", "masses"],
)
def test_whole_population_is_served_as_by_the_transport_of_all_units(limits: MenuLimits) -> None:
    theta = _theta()
    problem, _, settled, chosen = _settled(theta, limits, [4])
    bounded, taken = settled[4].bounded, chosen[4]
    assert 0 < len(settled[4].near.ids) < UNITS / 3
    lower, upper = whole_limits(np.ones(UNITS), bounded.lower * UNITS, bounded.upper * UNITS)
    counts = np.bincount(taken, minlength=4)
    assert (counts >= lower).all()
    assert (counts <= upper).all()
    profits = profit_matrix(theta, np.delete(bounded.menu.psi, -2, axis=1))
    best, _ = exact_assignment(profits, np.ones(UNITS), lower, upper, np.zeros(4))
    every = np.arange(UNITS)
    assert profits[every, taken].sum() == pytest.approx(profits[every, best].sum(), rel=1e-10)
    # the Lagrangian at the prices proves it, and prices are 0 where nothing binds
    assert bounded.dual(settled[4].sums, problem) == pytest.approx(
        settled[4].sums.value(bounded.menu.psi), rel=1e-9
    )
    loose = (counts > lower) & (counts < upper)
    assert not bounded.menu.prices[loose].any()


def test_limits_of_all_sizes_at_once_cost_more_the_tighter_they_are() -> None:
    theta = _theta()
    values = {}
    for share in (0.34, 0.4, 1.0):
        _, _, settled, _ = _settled(theta, MenuLimits(max_share=share), [3, 4])
        values[share] = [settled[k].sums.value(settled[k].bounded.menu.psi) for k in (3, 4)]
        for k in (3, 4):
            assert settled[k].sums.units.max() <= share * UNITS
    assert values[0.34][0] < values[0.4][0] <= values[1.0][0] + 1e-9
    assert values[0.34][0] < values[0.34][1]


def test_units_that_respond_alike_are_told_apart_by_lot() -> None:
    theta = np.repeat(_theta(3), [10_000, 20_000, 10_000], axis=0)
    _, _, settled, chosen = _settled(theta, MenuLimits(max_share=0.26), [4])
    assert np.bincount(chosen[4], minlength=4).max() == 0.26 * UNITS
    assert len(settled[4].near.ids) < UNITS
    alike = chosen[4][10_000:30_000]
    halves = [np.bincount(half, minlength=4) / 10_000 for half in (alike[:10_000], alike[10_000:])]
    np.testing.assert_allclose(*halves, atol=0.03)


@pytest.mark.parametrize("most", [None, 0.4])
def test_budget_is_kept_and_used_up(most: float | None) -> None:
    theta, spending = _theta(), Profit("0.1 * a", COST)
    problem, units, settled, chosen = _settled(
        theta, MenuLimits(max_share=most, budget=Budget(0.2, spending)), [3]
    )
    bounded = settled[3].bounded
    every = np.arange(UNITS)
    spent = profit_matrix(units, bounded.spending(problem))[every, chosen[3]].mean()
    assert spent == pytest.approx(bounded.spent(settled[3].sums, problem))
    assert 0.1999 < spent <= 0.2 * (1 + 1e-12)
    assert bounded.charge > 0
    assert np.bincount(chosen[3]).max() <= (most or 1.0) * UNITS
    # no assignment of all units to these treatments does better within the budget
    profits = profit_matrix(units, bounded.menu.psi)
    spending, masses = (
        profit_matrix(units, bounded.spending(problem)),
        (bounded.lower * UNITS, bounded.upper * UNITS),
    )
    best = Offers(profits, spending, np.ones(UNITS), *masses, 0.2 * UNITS).assign(
        bounded.menu.prices, bounded.charge
    )
    assert best is not None
    assert profits[every, chosen[3]].mean() == pytest.approx(
        profits[every, best.assignment].mean(), abs=1e-5
    )


def test_one_treatment_for_all_spends_what_the_budget_allows() -> None:
    problem, _, settled, chosen = _settled(
        _theta(), MenuLimits(budget=Budget(0.2, Profit("0", COST))), [1, 2]
    )
    assert not chosen[1].any()
    spent = [settled[k].bounded.spent(settled[k].sums, problem) for k in (1, 2)]
    np.testing.assert_allclose(spent, 0.2, rtol=1e-3)
    assert max(spent) <= 0.2 * (1 + 1e-12)
    values = [settled[k].sums.value(settled[k].bounded.menu.psi) for k in (1, 2)]
    assert values[0] < values[1]


def test_unequal_weights_miss_a_limit_by_one_unit_at_most_and_zero_weights_follow_prices() -> None:
    weights = np.random.default_rng(1).uniform(0.5, 2, UNITS)
    weights[::10] = 0.0
    _, _, settled, chosen = _settled(_theta(), MenuLimits(max_share=0.26), [4], weights)
    masses = np.bincount(chosen[4], weights)
    assert (masses <= 0.26 * weights.sum() + weights.max()).all()
    assert settled[4].sums.weight.sum() == pytest.approx(weights.sum())


def test_limits_that_bind_nobody_need_no_prices_and_nobody_to_look_at() -> None:
    _, _, settled, _ = _settled(
        _theta(),
        MenuLimits(min_share=0.01, max_share=0.9, budget=Budget(9.0, Profit("0", COST))),
        [3],
    )
    assert not settled[3].bounded.menu.prices.any()
    assert settled[3].bounded.charge == 0
    assert not len(settled[3].near.ids)


@pytest.mark.parametrize(
    "limits",
    [MenuLimits(), MenuLimits(max_share=0.4), MenuLimits(budget=Budget(0.15, Profit("0", COST)))],
)
def test_integer_program_by_name_on_a_small_finite_space(limits: MenuLimits) -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit("1", COST))
    clusters, _ = sketch_units(problem, _theta(80), np.ones(80))
    oracle, ours = (
        search_within(problem, clusters, [3], SearchSettings(limits, method=method))[3]
        for method in ("milp", "auto")
    )
    assert oracle.menu.found_by == "milp"
    value = []
    for bounded in (oracle, ours):
        profits, spending = (
            profit_matrix(clusters.theta, rows)
            for rows in (bounded.menu.psi, bounded.spending(problem))
        )
        masses = bounded.lower * 80, bounded.upper * 80
        kept = Offers(profits, spending, np.ones(80), *masses, bounded.budget * 80).assign(
            np.zeros(3), 0.0
        )
        assert kept is not None
        np.testing.assert_allclose(bounded.menu.prices, kept.prices, atol=1e-6)
        value.append(profits[np.arange(80), kept.assignment].mean())
    # a budget is met by whole units here, which the program may split
    assert value[1] == pytest.approx(value[0], abs=1e-9 if limits.budget is None else 5e-3)


def test_methods_that_know_no_limits_are_refused() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit("1", COST))
    clusters, _ = sketch_units(problem, _theta(80), np.ones(80))
    for method in ("exact", "greedy"):
        with pytest.raises(InvalidInputError, match="knows neither share limits nor a budget"):
            search_within(
                problem, clusters, [3], SearchSettings(MenuLimits(max_share=0.5), method=method)
            )
    with pytest.raises(InvalidInputError, match=r"nearest feasible maximum for k = 2 is 0\.5"):
        search_within(problem, clusters, [2, 3], SearchSettings(MenuLimits(max_share=0.4)))
