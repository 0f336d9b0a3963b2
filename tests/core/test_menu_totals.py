"""Several limits on what a menu comes to: budgets, stock and floors, against linear programmes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, kron, vstack

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.assignment.programme import Programme
from coarse_spark.core.menu.choose import choose_menus
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.limits import Budget, Limit, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.search.steps import PricedPass
from coarse_spark.core.menu.settle import settle, settle_boundary
from coarse_spark.core.menu.units import assign
from coarse_spark.errors import InvalidInputError

pytestmark = pytest.mark.long

UNITS = 160
STEPS = TreatmentSpace.from_dict(
    {
        n: {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0}
        for n in ("a", "b")
    }
)
MARGIN = {"spend": "1", "redeemed": "-0.1 * a"}
PROFIT = Profit(MARGIN, "0.2 * a + 0.1 * b")
SPENDING = Profit({"spend": "0"}, "0.2 * a + 0.1 * b")
MAIL = Limit("mail", Profit({"spend": "0"}, "where(b > 0, 1, 0)"), at_most=0.5)
FLOOR = Limit("redeemed", Profit({"redeemed": "1"}), at_least=1.4, relative_to="control")
STOCK = Limit("stock", Profit({"redeemed": "0.5 * a"}), at_most=0.08)


def _theta(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    bend = rng.uniform(0.5, 1, (n, 2))
    spend = np.column_stack(
        [rng.normal(size=n), rng.uniform(0, 2, (n, 2)), -bend[:, 0], np.full(n, 0.1), -bend[:, 1]]
    )
    rise = rng.uniform(0, 0.2, (n, 2))
    none = np.zeros((n, 3))
    return {"spend": spend, "redeemed": np.column_stack([rng.uniform(0.1, 0.4, n), rise, none])}


def _counted(theta: dict[str, np.ndarray], treatments: np.ndarray, amount: Profit) -> np.ndarray:
    """What counts (n, K), from the outcomes themselves: no row ψ is asked."""
    phi, values = Basis("quadratic", STEPS)(treatments), STEPS.columns(treatments)
    total = amount._cost.evaluate(values, len(treatments))[None, :]
    for name, margin in amount._margin.items():
        rate = margin.evaluate(values, len(treatments))
        total = total + (theta[name] @ phi.T if name in theta else 0.0) * rate
    return np.asarray(total)


def _earned(theta: dict[str, np.ndarray], treatments: np.ndarray) -> np.ndarray:
    paid = Profit(PROFIT.margin, "0")
    cost = _counted(theta, treatments, Profit({"spend": "0"}, PROFIT.cost))
    return _counted(theta, treatments, paid) - cost


def _bound(theta: dict[str, np.ndarray], limit: Limit) -> float:
    """What a limit allows, per unit."""
    control = _counted(theta, STEPS.control[None, :], limit.amount).mean()
    return limit.bound * (control if limit.relative_to else 1.0)


def _best(
    theta: dict[str, np.ndarray], k: int, limits: Sequence[Limit], most_share: float
) -> tuple[float, np.ndarray]:
    """The best menu of k candidates by enumeration, units divided at will."""
    earned = _earned(theta, STEPS.candidates)
    counted = np.array([one.sign * _counted(theta, STEPS.candidates, one.amount) for one in limits])
    n, shares = len(earned), (np.zeros(k), np.full(k, most_share * len(earned)))
    most = np.array([one.sign * _bound(theta, one) for one in limits]) * n
    best, menu = -np.inf, np.empty(0)
    for rows in map(list, combinations(range(len(STEPS.candidates)), k)):
        if earned[:, rows].max(axis=1).mean() > best:
            posed = Programme(earned[:, rows], counted[:, :, rows], np.ones(n), *shares, most)
            found = posed.solved()
            if found is not None and (found.mass * earned[:, rows]).sum() / n > best:
                best, menu = float((found.mass * earned[:, rows]).sum() / n), np.array(rows)
    return best, menu


CASES: dict[str, dict[str, Any]] = {
    "two budgets": {"budget": Budget(0.12, SPENDING), "limits": [MAIL]},
    "budget and floor": {"budget": Budget(0.12, SPENDING), "limits": [FLOOR]},
    "three": {"budget": Budget(0.15, SPENDING), "limits": [MAIL, STOCK]},
    "three and shares": {
        "budget": Budget(0.15, SPENDING),
        "limits": [MAIL, STOCK],
        "max_share": 0.45,
    },
    "a floor alone": {"limits": [replace(FLOOR, at_least=1.6)]},
}


@pytest.mark.parametrize("case", CASES)
def test_menus_within_several_limits_reach_the_best_of_all_menus(case: str) -> None:
    theta, given = _theta(UNITS, 1), CASES[case]
    menu = choose_menu(theta, space=STEPS, basis="quadratic", profit=PROFIT, k=3, **given)
    limits = Limits(budget=given.get("budget"), limits=tuple(given["limits"])).totals
    best, _ = _best(theta, 3, limits, given.get("max_share", 1.0))
    gain = best - menu.control_value
    assert menu.value >= best - 0.005 * gain  # units are whole, those of the enumeration are not
    assert menu.upper_bound >= best - 1e-9
    assert menu.value <= menu.upper_bound
    # what is told, counted anew from the outcomes
    taken = menu.assign(theta)
    assert menu.shares.max() <= given.get("max_share", 1.0) + 1e-12
    every = np.arange(UNITS)
    earned = _earned(theta, menu.encoded)[every, taken].mean()
    assert earned == pytest.approx(menu.value, rel=1e-12)
    assert menu.limits is not None
    for limit, kept in zip(limits, menu.limits.totals, strict=True):
        used = _counted(theta, menu.encoded, limit.amount)[every, taken].mean()
        allowed = _bound(theta, limit)
        assert (kept.name, kept.at_most) == (limit.name, limit.at_least is None)
        assert kept.used == pytest.approx(used, rel=1e-9)
        assert kept.allowed == pytest.approx(allowed, rel=1e-9)
        assert limit.sign * used <= limit.sign * allowed + 1e-12
        assert kept.price >= 0
        assert kept.name in str(menu) or kept.name == "budget"
    assert menu.prices.any() or any(kept.price > 0 for kept in menu.limits.totals)


def test_prices_are_what_one_more_is_worth() -> None:
    theta = _theta(3_000)
    common = {"space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": 3}
    tight = [replace(MAIL, at_most=0.3), replace(STOCK, at_most=0.05)]
    menu = choose_menu(theta, limits=tight, **common)
    assert menu.limits is not None
    limits, value = list(tight), _linear(theta, menu.encoded, tight)
    assert menu.value == pytest.approx(value, rel=1e-3)
    for place, kept in enumerate(menu.limits.totals):
        assert kept.price > 0
        more = list(limits)
        more[place] = replace(limits[place], at_most=limits[place].bound * 1.01)
        worth = (_linear(theta, menu.encoded, more) - value) / (0.01 * limits[place].bound)
        assert worth == pytest.approx(kept.price, rel=0.1)


@pytest.mark.parametrize("whole_share", [1.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_programme_of_few_units_is_that_of_all(whole_share: float, weighted: bool) -> None:
    rng = np.random.default_rng(3)
    n, k, count = 2_000, 5, 3
    profits = rng.normal(size=(n, k)) + np.linspace(0, 1, k)
    counted = rng.uniform(0, 1, (count, n, k)) * np.linspace(0, 1, k)
    weights = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    free = profits.argmax(axis=1)
    most = 0.6 * (counted[:, np.arange(n), free] @ weights)
    upper = np.full(k, whole_share * weights.sum())
    posed = Programme(profits, counted, weights, np.zeros(k), upper, most)
    found = posed.solved()
    assert found is not None
    rows = [
        csr_array(np.tile(np.eye(k), n) * np.repeat(weights, k)),
        csr_array((counted * weights[:, None]).reshape(count, -1)),
    ]
    peer = linprog(
        -(profits * weights[:, None]).ravel(),
        vstack(rows),
        np.concatenate([upper, most]),
        kron(eye_array(n), np.ones((1, k))),
        np.ones(n),
        method="highs",
    )
    assert (found.mass * profits).sum() == pytest.approx(-peer.fun, rel=1e-9)
    dual = weights @ posed.net(found.prices, found.limit_prices).max(axis=1)
    dual += found.prices @ upper + found.limit_prices @ most
    assert dual == pytest.approx(-peer.fun, rel=1e-9)
    whole = posed.whole()
    assert whole is not None
    taken, every = whole[0], np.arange(n)
    assert (counted[:, every, taken] @ weights <= most * (1 + 1e-12)).all()
    masses = np.bincount(taken, weights, minlength=k)
    assert (masses <= upper + (weights.max() if weighted else 1e-9)).all()
    assert weights @ profits[every, taken] >= -peer.fun * (1 - 1e-4)


def test_limits_hold_on_a_population_that_is_read_in_passes() -> None:
    share = 0.4
    theta = _theta(5_000, 5)
    limits = Limits(None, share, Budget(0.15, SPENDING), (MAIL, replace(FLOOR, at_least=1.35)))
    problem = MenuProblem.build(STEPS, "quadratic", PROFIT, totals=limits.totals)
    units = problem.of_profit.extended(problem.of_profit.side_by_side(theta), np.empty((5_000, 0)))
    population = ArrayPopulation(problem, units, np.ones(5_000), 1_000, 1_500)
    settings = SearchSettings(limits, starts=1, cells=200, passes=3)
    curve = choose_menus(population, [3], settings)
    chosen = curve.chosen[3]
    menu, k = chosen.menu, 3
    kept = curve.totals_kept(k)
    for limit, total in zip(limits.totals, kept, strict=True):
        assert limit.sign * total.used <= limit.sign * total.allowed + 1e-12
        assert total.allowed == pytest.approx(_bound(theta, limit), rel=1e-9)
    assert (chosen.sums.shares <= (share) + 1e-12).all()
    best = _linear(theta, menu.treatments, list(limits.totals), share)
    assert chosen.value >= best - 1e-4 * (best - curve.control_value)
    assert chosen.value <= chosen.upper_bound
    # who is not at the boundary follows the prices
    told = population.told_apart()
    taken = assign(told.theta, chosen.settled.deciding.priced_psi)
    taken[chosen.settled.boundary.ids] = chosen.settled.taken
    np.testing.assert_array_equal(np.bincount(taken, minlength=3), chosen.sums.units)


@pytest.mark.parametrize(
    ("budget", "limits", "found"),
    [
        (0.01, [FLOOR], "budget 0.01 and limit 'redeemed' (at_least 1.4 of the control's) cannot"),
        (None, [replace(MAIL, at_most=-0.1)], "limit 'mail' (at_most -0.1) is beyond 0"),
        (None, [replace(FLOOR, at_least=4.0)], "limit 'redeemed' (at_least 4 of the control's) is"),
    ],
)
def test_limits_that_cannot_be_kept_are_named_with_the_nearest(
    budget: float | None, limits: list[Limit], found: str
) -> None:
    theta = _theta(200)
    common = {"space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": 3}
    given = None if budget is None else Budget(budget, SPENDING)
    with pytest.raises(InvalidInputError) as caught:
        choose_menu(theta, budget=given, limits=limits, **common)
    message = str(caught.value)
    assert found in message
    if budget is None:
        nearest = float(message.rsplit(" ", 1)[1])
        limit = limits[0]
        name = "at_most" if limit.at_least is None else "at_least"
        choose_menu(theta, limits=[replace(limit, **{name: nearest})], **common)
        return
    # a nearest value is of units that may be divided
    values = dict(re.findall(r"of (\w+) (-?[\d.e+-]+)", message))
    choose_menu(
        theta, budget=Budget(float(values["budget"]) * 1.01, SPENDING), limits=limits, **common
    )
    lower = [replace(limits[0], at_least=float(values["redeemed"]) * 0.99)]
    choose_menu(theta, budget=given, limits=lower, **common)


def test_what_units_may_not_get_is_no_way_to_keep_a_limit() -> None:
    theta, member = _theta(300), np.arange(300) % 10 < 3
    common = {
        "space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": 3,
        "eligible": {"a > 0.4 or b > 0.4": member}, "budget": Budget(0.15, SPENDING),
    }  # fmt: skip
    with pytest.raises(InvalidInputError, match="redeemed") as caught:
        choose_menu(theta, limits=[replace(FLOOR, at_least=1.6)], **common)
    assert "cannot be kept together on the menu of" in str(caught.value)
    nearest = dict(re.findall(r"of (budget|redeemed) (-?[\d.e+-]+)", str(caught.value)))
    assert list(nearest) == ["redeemed"]  # no budget would do
    floor = replace(FLOOR, at_least=float(nearest["redeemed"]) * 0.98)
    menu = choose_menu(theta, limits=[floor], **common)
    taken = menu.assign(theta, eligible=common["eligible"])
    assert not (menu.encoded[taken][~member] > 0.4).any()
    assert menu.limits is not None
    for total in menu.limits.totals:
        assert (total.used - total.allowed) * (1 if total.at_most else -1) <= 1e-12


def test_a_limit_says_what_is_wrong_with_it() -> None:
    amount = Profit({"redeemed": "1"})
    for arguments, message in (
        ({}, "limit 'x': found neither of at_most and at_least, expected one"),
        ({"at_most": 1, "at_least": 0}, "found both of at_most and at_least"),
        ({"at_most": np.nan}, "limit 'x': found nan, expected one finite number"),
        ({"at_most": 1, "relative_to": "granular"}, "relative_to is 'granular', expected"),
        ({"at_most": "a lot"}, "limit 'x': found 'a lot', expected real numbers"),
        ({"at_most": 1, "name": " "}, "a limit has the name ' ', expected a text"),
        ({"at_most": 1, "name": None}, "a limit has the name None, expected a text"),
        ({"at_most": 1, "amount": "a"}, "limit 'x': amount is 'a', expected a Profit whose"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Limit(**{"name": "x", "amount": amount, **arguments})
    with pytest.raises(InvalidInputError, match="the name 'budget' stands twice"):
        Limits(budget=Budget(1.0, SPENDING), limits=(replace(MAIL, name="budget"),))
    with pytest.raises(InvalidInputError, match="the name 'budget' is that of the budget"):
        Limits(limits=(replace(MAIL, name="budget"),))
    common = {"space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": 2}
    for limits in ([{"name": "mail"}], {"mail": 1}, 0.5):
        with pytest.raises(InvalidInputError, match=r"limits: found .*, expected a"):
            choose_menu(_theta(20), limits=limits, **common)
    alone = choose_menu(_theta(20), limits=MAIL, **common)
    assert alone.limits is not None
    assert alone.limits.total("mail").used <= 0.5
    assert choose_menu(_theta(20), limits=None, **common).limits is None
    unknown = Limit("x", Profit({"redeemd": "1"}), at_most=1.0)
    with pytest.raises(InvalidInputError, match="unknown outcome 'redeemd'"):
        MenuProblem.build(STEPS, "quadratic", PROFIT, totals=[unknown])


def _linear(
    theta: dict[str, np.ndarray],
    treatments: np.ndarray,
    limits: list[Limit],
    most_share: float = 1.0,
) -> float:
    """The optimum of HiGHS on the whole linear programme, profit per unit."""
    earned = _earned(theta, treatments)
    n, k = earned.shape
    control = STEPS.control[None, :]
    rows, right = [np.tile(np.eye(k), n) / n], [np.full(k, most_share)]
    for limit in limits:
        counted = _counted(theta, treatments, limit.amount)
        bound = limit.bound
        if limit.relative_to:
            bound *= _counted(theta, control, limit.amount).mean()
        rows.append(limit.sign * counted.reshape(1, -1) / n)
        right.append(np.array([limit.sign * bound]))
    found = linprog(
        -earned.ravel() / n,
        csr_array(np.vstack(rows)),
        np.concatenate(right),
        kron(eye_array(n), np.ones((1, k))),
        np.ones(n),
        method="highs",
    )
    assert found.status == 0
    return float(-found.fun)


@pytest.mark.parametrize("seed", [1, 5])
def test_units_at_the_boundary_are_settled_alike_when_others_ask_again(seed: int) -> None:
    units, theta = 6_000, _theta(6_000, seed)
    totals = (replace(MAIL, at_most=0.4), replace(STOCK, at_most=0.06))
    limits = Limits(None, 0.42, Budget(0.12, SPENDING), totals)
    problem = MenuProblem.build(STEPS, "quadratic", PROFIT, totals=limits.totals)
    problem = problem.with_totals(limits.totals)
    coefficients = problem.of_profit.side_by_side(theta)
    extended = problem.of_profit.extended(coefficients, np.empty((units, 0)))
    population = ArrayPopulation(problem, extended, np.ones(units), 1_000, 1_500).told_apart()
    treatments = np.array([[0, 0], [0.5, 1], [1, 0]])
    given = limits.of_size(3, population.problem)
    menu = PricedMenu.build(population.problem, treatments, limits=given)
    sample = population.sample()
    priced = PricedPass(lambda menus: population.sums(menus)[0], sample).priced(menu)
    assert priced is not None
    found = settle(population, {3: priced}, sample)[3]
    assert 0 < len(found.boundary.ids) < 100
    assert (np.array(found.menu.limit_prices) > 0).sum() == 2
    # another command knows the prices that decide and the boundary's reach alone
    sums = population.sums({3: found.deciding})[0][3]
    boundary = population.boundary({3: (found.deciding, found.boundary.reach)})[3]
    again = settle_boundary(ValuedMenu(found.deciding, sums, 0.0), boundary, population.size())
    assert again is not None
    np.testing.assert_array_equal(again.taken, found.taken)
    np.testing.assert_array_equal(again.sums.units, found.sums.units)
    assert (again.menu.used(again.sums) <= given.most * (1 + 1e-12)).all()
