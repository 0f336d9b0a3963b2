"""Further units for a menu that stays: limits hold over everyone, at the best that is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coarse_spark.core.menu.assignment.assign import AssignmentProblem
from coarse_spark.core.menu.extend import extend
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.limits import Budget, Limit, SizeLimits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.settle import Settled
from coarse_spark.core.menu.units import SegmentSums, assign
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

SPACE = TreatmentSpace.from_dict(
    {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")}
)
COST = "0.2 * a + 0.1 * b"
PROBLEM = MenuProblem.build(SPACE, "quadratic", Profit("1", COST)).with_totals(
    [Budget(0.0, Profit("0", COST)).as_limit]
)
MENU = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, 1.5]])
SERVED, FURTHER = 9_000, 1_000


def _theta(units: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    slopes, curves = rng.uniform(0, 2, (units, 2)), -rng.uniform(0.5, 1, (units, 2))
    return np.column_stack(
        [rng.normal(size=units), slopes, curves[:, 0], np.full(units, 0.1), curves[:, 1]]
    )


def _totals(budget: float) -> tuple[Limit, ...]:
    return (Budget(budget, Profit("0", COST)).as_limit,) if budget < np.inf else ()


def _menu(low: float, high: float, budget: float = np.inf) -> PricedMenu:
    limits = SizeLimits(np.full(3, low), np.full(3, high), totals=_totals(budget))
    return PricedMenu.build(PROBLEM, MENU, limits=limits)


def _served(
    menu: PricedMenu, theta: np.ndarray, weights: np.ndarray
) -> tuple[PricedMenu, SegmentSums]:
    """Return the menu at the prices of the best assignment of units, and its sums."""
    population = ArrayPopulation(PROBLEM, theta, weights)
    best = menu.posed_to(population.sample()).whole(menu.prices, menu.limit_prices)
    assert best is not None
    sums = SegmentSums.of(best.taken, theta, weights, menu.k)
    return menu.at(best.prices, best.limit_prices), sums


def _taken(found: Settled, theta: np.ndarray) -> np.ndarray:
    taken = assign(theta, found.deciding.priced_psi)
    taken[found.boundary.ids] = found.taken
    return taken


@pytest.mark.parametrize("boundary_units", [100_000, 400], ids=["all", "few at the boundary"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "limits",
    [(0.0, 0.36, np.inf), (0.31, 1.0, np.inf), (1 / 3, 1 / 3, np.inf), (0.0, 0.5, 0.2)],
    ids=["max", "min", "exact", "budget"],
)
def test_limits_hold_over_everyone_at_the_best_that_is_left(
    limits: tuple[float, float, float], weighted: bool, boundary_units: int
) -> None:
    rng = np.random.default_rng(0)
    # the further units respond otherwise: at the old prices they would break the limits
    more = -0.5 if limits[1] == 0.36 else 0.5
    old, new = _theta(SERVED, 1), _theta(FURTHER, 2) + np.array([0, more, more, 0, 0, 0])
    weights = [rng.uniform(0.5, 2, n) if weighted else np.ones(n) for n in (SERVED, FURTHER)]
    menu, served = _served(_menu(*limits), old, weights[0])
    everyone = ArrayPopulation(PROBLEM, np.vstack([old, new]), np.concatenate(weights)).size()
    population = ArrayPopulation(
        PROBLEM, new, weights[1], sample_units=500, boundary_units=boundary_units
    )
    found = extend(population, menu, served, everyone)
    assert found.menu is not menu
    taken = _taken(found, new)
    sums = SegmentSums.of(taken, new, weights[1], 3)
    np.testing.assert_allclose(sums.weight, found.sums.weight, rtol=1e-9)

    low, high, budget = limits
    total = sum(map(np.sum, weights))
    mass, slack = served.weight + sums.weight, everyone.heaviest if weighted else 1 - 1e-9
    assert (mass <= high * total + slack).all()
    assert (mass >= low * total - slack).all()
    counted = np.array([profit_matrix(new, rows) for rows in menu.counted])
    counted = counted.reshape(-1, FURTHER, 3)
    used = [(served.rows * rows).sum() for rows in menu.counted]
    for before, rows in zip(used, counted, strict=True):
        spent = rows[np.arange(FURTHER), taken]
        assert before + np.sum(weights[1] * spent) <= budget * total * (1 + 1e-9)
    # no other assignment of the further units within what is left earns more
    posed = AssignmentProblem(
        profit_matrix(new, menu.psi),
        counted,
        weights[1],
        np.maximum(low * total - served.weight, 0),
        high * total - served.weight,
        np.array([budget * total - before for before in used]),
    )
    best = posed.split()
    assert best is not None
    earned = weights[1] @ posed.profits[np.arange(FURTHER), taken]
    assert earned == pytest.approx(best.value, rel=1e-3)  # but for parts of units


def test_units_that_respond_alike_are_told_apart_by_lot() -> None:
    old, new = _theta(SERVED, 1), np.repeat(_theta(2, 2), FURTHER // 2, axis=0)
    population = ArrayPopulation(PROBLEM, new, np.ones(FURTHER), 500, 400).told_apart()
    plain, served = _served(_menu(1 / 3, 1 / 3), old, np.ones(SERVED))
    menu = PricedMenu.build(population.problem, MENU, limits=plain.limits)
    menu = replace(menu.at(plain.prices, ()), tie_break=1e-7)
    everyone = ArrayPopulation(PROBLEM, np.vstack([old, new]), np.ones(SERVED + FURTHER)).size()
    found = extend(population, menu, served, everyone)
    assert len(found.boundary.ids) > 0
    taken = _taken(found, population.theta)
    mass = served.weight + np.bincount(taken, minlength=3)
    np.testing.assert_allclose(mass, (SERVED + FURTHER) / 3, atol=1)


def test_units_follow_the_prices_of_those_before_where_these_keep_the_limits() -> None:
    old, new = _theta(SERVED, 1), _theta(FURTHER, 3)
    menu, served = _served(_menu(0.0, 0.9), old, np.ones(SERVED))
    everyone = ArrayPopulation(PROBLEM, np.vstack([old, new]), np.ones(SERVED + FURTHER)).size()
    found = extend(ArrayPopulation(PROBLEM, new, np.ones(FURTHER)), menu, served, everyone)
    assert found.menu is menu
    assert not len(found.boundary.ids)
    nobody = ArrayPopulation(PROBLEM, new, np.zeros(FURTHER))
    assert extend(nobody, menu, served, everyone).menu is menu


def test_a_budget_that_units_served_before_used_up_is_named_with_the_nearest() -> None:
    old, new = _theta(SERVED, 1), _theta(FURTHER, 2)
    # every treatment spends at least what "a" costs here, and the old ones spend all of it
    limits = SizeLimits(np.array([0.0, 0.0]), np.ones(2), totals=_totals(0.26))
    menu = PricedMenu.build(PROBLEM, MENU[1:], limits=limits)
    menu, served = _served(menu, old, np.ones(SERVED))
    spent = (served.rows * menu.counted[0]).sum()
    tight = replace(menu, limits=replace(limits, totals=_totals(spent / SERVED - 1e-3)))
    everyone = ArrayPopulation(PROBLEM, np.vstack([old, new]), np.ones(SERVED + FURTHER)).size()
    population = ArrayPopulation(PROBLEM, new, np.ones(FURTHER))
    extend(population, menu, served, everyone)
    tight = replace(tight, limits=replace(limits, totals=_totals(0.2505)))
    nearest = (spent + 0.25 * FURTHER) / (SERVED + FURTHER)
    with pytest.raises(InvalidInputError, match=rf"budget 0\.2505 .*nearest .* is {nearest:.6g}"):
        extend(population, tight, served, everyone)


def test_a_share_that_eligibility_forbids_is_named_with_the_nearest() -> None:
    largest = np.abs(_theta(SERVED, 1)).max(axis=0)
    ruled = PROBLEM.with_eligibility(["a > 1.5"], largest, np.array([0.5]))
    old = np.column_stack([_theta(SERVED, 1), np.arange(SERVED) % 3 == 0])
    new = np.column_stack([_theta(FURTHER, 2), np.ones(FURTHER)])
    limits = SizeLimits(np.full(3, 0.3), np.ones(3))
    menu = PricedMenu.build(ruled, MENU, limits=limits)
    sample = ArrayPopulation(ruled, old, np.ones(SERVED)).sample()
    best = menu.posed_to(sample).whole(menu.prices)
    assert best is not None
    menu = menu.at(best.prices, ())
    served = SegmentSums.of(best.taken, old[:, :-1], np.ones(SERVED), 3)
    everyone = ArrayPopulation(ruled, np.vstack([old, new]), np.ones(SERVED + FURTHER)).size()
    share = served.weight[2] / (SERVED + FURTHER)
    assert share < 0.3
    with pytest.raises(
        InvalidInputError,
        match=rf"a = 2, b = 1\.5 has a minimum share of 0\.3, .* minimum is {share:.6g}",
    ):
        extend(ArrayPopulation(ruled, new, np.ones(FURTHER)), menu, served, everyone)
