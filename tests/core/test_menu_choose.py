from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from menus import curve
from oracles import enumeration

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.lloyd import lloyd
from coarse_spark.core.menu.search.steps import FreeChoice, sums_of
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

LINE = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}})
STEPS = TreatmentSpace.from_dict(
    {
        "a": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0},
        "b": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0},
    }
)


def _line_units(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bend = rng.uniform(0.5, 1.5, n)
    return np.column_stack([rng.normal(size=n), rng.uniform(0.2, 2.0, n) * bend, -bend / 2])


def _plane_units(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.uniform(0, 2, (n, 2)),
            -rng.uniform(0.5, 1, n),
            np.full(n, 0.1),
            -rng.uniform(0.5, 1, n),
        ]
    )


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_reaches_the_brute_force_optimum_of_a_finite_space(k: int, seed: int) -> None:
    theta, weights = _plane_units(60, seed), np.random.default_rng(seed).uniform(0.1, 3, 60)
    profit = Profit("1", "0.2 * a + 0.1 * b")
    menu = choose_menu(theta, space=STEPS, basis="quadratic", profit=profit, k=k, weights=weights)
    psi = MenuProblem.build(STEPS, "quadratic", profit).psi
    best = enumeration(theta, psi, k, weights=weights)
    assert menu.value == pytest.approx(best.value, abs=1e-9)
    assert menu.shares.sum() == pytest.approx(1)
    taken = profit_matrix(theta, menu.psi)[np.arange(60), menu.assign(theta)]
    assert weights @ taken / weights.sum() == pytest.approx(menu.value, abs=1e-12)


def test_granular_is_above_every_treatment_of_the_space() -> None:
    problem = MenuProblem.build(LINE, "cubic", Profit("2 - t", "0.1 * t"))
    theta = np.column_stack([_line_units(300), np.random.default_rng(3).normal(0, 0.2, 300)])
    treatments, profit = problem.granular(theta)
    fine = np.linspace(0, 2, 20_001)[:, None]
    assert (profit - profit_matrix(theta, problem.psi_at(fine)).max(axis=1)).min() > -1e-12
    at = np.einsum("ij,ij->i", np.column_stack([theta, np.ones(300)]), problem.psi_at(treatments))
    np.testing.assert_allclose(at, profit, atol=1e-12)


def test_treatments_sit_where_the_gradient_of_their_segment_vanishes() -> None:
    theta = _line_units(500)
    menu = choose_menu(theta, space=LINE, basis="quadratic", profit=Profit("1", "0.3 * t"), k=4)
    segments = menu.assign(theta)
    for row in range(4):
        total = theta[segments == row].sum(axis=0)
        best = np.clip((0.3 * (segments == row).sum() - total[1]) / (2 * total[2]), 0, 2)
        assert menu.encoded[row, 0] == pytest.approx(best, abs=1e-9)


def test_curve_rises_and_scales_and_ignores_the_order_of_rows() -> None:
    theta = _plane_units(400)
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")}
    )
    problem = MenuProblem.build(space, "quadratic", Profit("1", "0.2 * a"))
    menus = curve(problem, theta, range(1, 7))
    values = [menus[k].value for k in range(1, 7)]
    assert np.all(np.diff(values) > 0)
    order = np.random.default_rng(0).permutation(400)
    shuffled = curve(problem, theta[order], range(1, 7))
    dearer = curve(
        MenuProblem.build(space, "quadratic", Profit("1000", "200 * a")), theta, range(1, 7)
    )
    for k in range(1, 7):
        np.testing.assert_allclose(shuffled[k].encoded, menus[k].encoded, atol=1e-9)
        np.testing.assert_allclose(dearer[k].encoded, menus[k].encoded, atol=1e-7)
        assert dearer[k].value == pytest.approx(1000 * menus[k].value, rel=1e-9)


def test_lloyd_never_loses_profit_and_tells_what_moved() -> None:
    theta, problem = _line_units(800), MenuProblem.build(LINE, "quadratic", Profit("1", "0.3 * t"))
    start = {
        3: PricedMenu.build(problem, np.array([[0.1], [0.2], [0.3]])),
        2: PricedMenu.build(problem, np.array([[0.0], [2.0]])),
    }
    step = FreeChoice(sums_of(WeightedUnits.of(theta, np.ones(800))))
    first = {
        k: one for (k, _), one in zip(start.items(), step(list(start.items()), {}), strict=True)
    }
    result = lloyd(problem, first, step, max_passes=200, tolerance=1e-9)
    for k in (2, 3):
        lines = [line for line in result.history if line.k == k]
        assert all(later.value >= earlier.value - 1e-12 for earlier, later in pairwise(lines))
        assert lines[0].moved == k
        assert "->" in lines[0].what
        assert result.found[k].value == pytest.approx(lines[-1].value)


def test_always_offered_treatments_stay() -> None:
    menu = choose_menu(
        _line_units(300),
        space=LINE,
        basis="quadratic",
        profit=Profit(),
        k=3,
        always_offer=[{"t": 0.0}, {"t": 0.123}],
    )
    assert {0.0, 0.123} <= set(menu.treatments["t"])
    assert menu.k == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": np.full((5, 3), np.nan)}, "5 of 5 units have missing or infinite"),
        ({"theta": np.ones((5, 2))}, r"expected \(n, 3\)"),
        ({"weights": np.zeros(5)}, "no unit has weight"),
        ({"weights": -np.ones(5)}, "5 weights are negative"),
        ({"k": 0}, "whole number from 1"),
        ({"k": 6}, "for 5 units"),
        (
            {"profit": Profit("log(t - 1)")},
            "the margin .* is .* at t = 0, expected a finite number",
        ),
        ({"profit": Profit("price")}, "unknown name 'price'"),
        ({"always_offer": [{"t": 5.0}]}, "not a treatment of the space"),
        ({"always_offer": [{"t": 0.0}, {"t": 1.0}], "k": 1}, "cannot hold the 2 treatments"),
    ],
)
def test_bad_input_gets_one_clear_error(change: dict[str, object], message: str) -> None:
    arguments = {
        "theta": np.ones((5, 3)),
        "k": 2,
        "space": LINE,
        "basis": "quadratic",
        "profit": Profit(),
        **change,
    }
    with pytest.raises(InvalidInputError, match=message):
        choose_menu(arguments.pop("theta"), **arguments)


def test_degenerate_populations_get_a_menu_without_duplicates() -> None:
    for theta in (
        np.tile([1.0, 1.0, -0.5], (20, 1)),
        np.tile([1.0, 0.0, 0.0], (20, 1)),
        np.zeros((20, 3)),
    ):
        menu = choose_menu(theta, space=LINE, basis="quadratic", profit=Profit(), k=4)
        assert len(menu.treatments.drop_duplicates()) == 4
        assert menu.value == pytest.approx(menu.uniform_value)
        assert menu.gap == pytest.approx(0, abs=1e-9)


def test_arms_choose_among_a_finite_list() -> None:
    space = TreatmentSpace.from_candidates(
        pd.DataFrame({"mail": ["none", "letter", "card"]}), control={"mail": "none"}
    )
    theta = np.random.default_rng(0).normal(size=(50, 3))
    menu = choose_menu(
        theta, space=space, basis="arms", profit=Profit("1", "where(mail == 'letter', 0.1, 0)"), k=2
    )
    profits = theta - np.array([0, 0.1, 0])
    assert menu.value == pytest.approx(
        max(profits[:, list(rows)].max(axis=1).mean() for rows in combinations(range(3), 2))
    )
    assert "Menu of 2 treatments" in str(menu)
    one = replace(menu, value=menu.uniform_value - 1e-13)  # the best single treatment, rounded
    assert one.captured_of_uniform < 0
    assert "-0.00%" not in str(one)


def test_categories_and_numbers_are_chosen_together() -> None:
    space = TreatmentSpace.from_dict(
        {
            "channel": {
                "kind": "categorical",
                "levels": ["mail", "app", "none"],
                "control": "none",
            },
            "price": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0},
        }
    )
    problem = MenuProblem.build(
        space, "levels(channel) * quadratic(price)", Profit("2 - price", "0.1")
    )
    theta = np.random.default_rng(0).normal(size=(300, problem.coefficients))
    menu = curve(problem, theta, [4])[4]
    assert set(menu.treatments["channel"]) <= {"mail", "app", "none"}
    assert menu.treatments["price"].between(0, 1).all()
    assert menu.value <= menu.upper_bound
    # no candidate in the place of any treatment earns more
    base = profit_matrix(theta, menu.psi)
    candidates = profit_matrix(theta, problem.psi)
    for row in range(4):
        others = np.delete(base, row, axis=1).max(axis=1)
        assert np.maximum(candidates, others[:, None]).mean(axis=0).max() <= menu.value + 1e-4


def test_arms_are_never_refined_between_candidates() -> None:
    problem = MenuProblem.build(LINE, "arms", Profit())
    theta = np.random.default_rng(0).normal(size=(40, 257))
    menu = curve(problem, theta, [2])[2]
    assert all(problem.position(row) is not None for row in menu.encoded)
    assert problem.granular(theta)[1] == pytest.approx(theta.max(axis=1))


@pytest.mark.parametrize(
    ("basis", "profit", "gift"),
    [
        (
            "quadratic(price) + any(days) + linear(days)",
            Profit("1", "0.5 * days"),
            [0.0, 2.0, -1.0, 1.0, 0.0],
        ),
        (
            "quadratic(price) + linear(days)",
            Profit("1", "0.5 * days + where(days > 0, -1, 0)"),
            [0.0, 2.0, -1.0, 0.0],
        ),
        (
            "quadratic(price) + linear(days)",
            Profit("1", "0.5 * days + where(days != 0, -1, 0)"),
            [0.0, 2.0, -1.0, 0.0],
        ),
    ],
)
def test_a_jump_in_any_dimension_is_offered_right_beside_it(
    basis: str, profit: Profit, gift: list[float]
) -> None:
    # the least gift of days earns 1 at once and every further day costs 0.5: price 1 with next to
    # no days earns 1 + 1
    space = TreatmentSpace.from_dict(
        {
            "price": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0},
            "days": {"kind": "continuous", "lower": 0, "upper": 30, "control": 0},
        }
    )
    menu = choose_menu(np.tile(gift, (20, 1)), space=space, basis=basis, profit=profit, k=1)
    assert menu.value == pytest.approx(2.0, abs=1e-4)
    assert menu.upper_bound >= 2.0 - 1e-9
    problem = MenuProblem.build(space, basis, profit)
    fresh = problem.candidates[len(space.candidates) :]
    assert len(fresh) == len(np.unique(space.candidates[:, 0])), (
        "one beside every price without days, none where nothing jumps"
    )
    assert len(
        MenuProblem.build(space, "quadratic", Profit("1", "price + days")).candidates
    ) == len(space.candidates)
