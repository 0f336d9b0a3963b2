from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from menus import curve
from oracles import enumeration

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

GRID = TreatmentSpace.from_dict(
    {
        n: {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0}
        for n in ("a", "b")
    }
)
PLANE = TreatmentSpace.from_dict(
    {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")}
)
MIXED = TreatmentSpace.from_dict(
    {
        "depth": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0},
        "days": {"kind": "continuous", "lower": 1, "upper": 5, "step": 2, "control": 1},
    }
)


def _units(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.uniform(-1, 3, (n, 2)),
            -rng.uniform(0.1, 1, n),
            rng.normal(0, 0.5, n),
            -rng.uniform(0.1, 1, n),
        ]
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(3, 40))
def test_auto_reaches_brute_force_in_two_dimensions(seed: int, k: int, units: int) -> None:
    theta, weights = _units(units, seed), np.random.default_rng(seed).uniform(0.1, 3, units)
    menu = choose_menu(
        theta, space=GRID, basis="quadratic", profit=Profit("1", "0.1 * a"), k=k, weights=weights
    )
    psi = MenuProblem.build(GRID, "quadratic", Profit("1", "0.1 * a")).psi
    assert menu.value >= enumeration(theta, psi, k, weights=weights).value - 1e-6
    assert menu.value <= menu.upper_bound <= menu.granular_value + 1e-9


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e4), st.floats(1e-3, 1e4), st.floats(-1e3, 1e3))
def test_order_scale_and_shift_change_nothing(
    seed: int, money: float, mass: float, shift: float
) -> None:
    theta = _units(60, seed)
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", "0.2 * b"))
    menu = curve(problem, theta, [3])[3]
    order = np.random.default_rng(seed).permutation(60)
    shifted = theta[order] * money + shift * money * np.eye(6)[0]
    dearer = MenuProblem.build(PLANE, "quadratic", Profit("1", f"{money * 0.2!r} * b"))
    again = curve(dearer, shifted, [3], weights=np.full(60, mass))[3]
    assert again.value == pytest.approx(money * (menu.value + shift), rel=1e-6, abs=1e-6 * money)
    assert again.captured_of_uniform == pytest.approx(menu.captured_of_uniform, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_curve_never_falls_and_stays_under_its_bounds(seed: int) -> None:
    theta = _units(80, seed)
    menus = curve(
        MenuProblem.build(MIXED, "quadratic", Profit("2 - depth", "0.05 * days")),
        theta,
        range(1, 6),
    )
    for smaller, larger in pairwise(menus.values()):
        assert larger.value >= smaller.value - 1e-12
    for k, menu in menus.items():
        assert menu.value <= menu.upper_bound
        assert len(menu.treatments.drop_duplicates()) == k
        assert set(menu.treatments["days"]) <= {1.0, 3.0, 5.0}
        assert menu.treatments["depth"].between(0, 1).all()
        assert menu.shares.sum() == pytest.approx(1)


def test_excluded_combinations_are_never_offered() -> None:
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")},
        exclude="a + b > 1.7",
    )
    theta = _units(200, 0)
    menu = choose_menu(theta, space=space, basis="quadratic", profit=Profit(), k=5)
    assert (menu.encoded.sum(axis=1) <= 1.7).all()
    assert menu.encoded.sum(axis=1).max() > 1.69  # refined up to the edge
    granular, profit = MenuProblem.build(space, "quadratic", Profit()).granular(theta)
    assert (granular.sum(axis=1) <= 1.7).all()
    assert (profit >= profit_matrix(theta, menu.psi).max(axis=1) - 1e-9).all()


def test_weights_count_like_repeated_units() -> None:
    theta, repeats = _units(40, 1), np.random.default_rng(0).integers(1, 5, 40)
    arguments = {"space": GRID, "basis": "quadratic", "profit": Profit(), "k": 3}
    weighted = choose_menu(theta, weights=repeats, **arguments)
    repeated = choose_menu(np.repeat(theta, repeats, axis=0), **arguments)
    np.testing.assert_allclose(weighted.encoded, repeated.encoded)
    assert weighted.value == pytest.approx(repeated.value)
    zeros = choose_menu(
        np.vstack([theta, theta + 9]), weights=[*repeats, *np.zeros(40)], **arguments
    )
    assert zeros.value == pytest.approx(weighted.value)


def test_rows_with_missing_numbers_are_left_out_on_request() -> None:
    theta = _units(40, 1)
    theta[3, 2] = np.nan
    arguments = {"space": GRID, "basis": "quadratic", "profit": Profit(), "k": 2}
    with pytest.raises(InvalidInputError, match=r"1 of 40 units .* rows 3"):
        choose_menu(theta, **arguments)
    assert choose_menu(theta, invalid="drop", **arguments).value == pytest.approx(
        choose_menu(np.delete(theta, 3, axis=0), **arguments).value
    )


def test_a_menu_of_all_candidates_is_granular() -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 1, "step": 0.25, "control": 0}}
    )
    theta = np.column_stack([np.zeros(30), np.linspace(0, 2, 30), np.full(30, -1.0)])
    menu = choose_menu(theta, space=space, basis="quadratic", profit=Profit(), k=5)
    assert menu.captured_of_control == pytest.approx(1)
    assert menu.gap == pytest.approx(0, abs=1e-9)
    with pytest.raises(InvalidInputError, match="from 5 candidates"):
        choose_menu(theta, space=space, basis="quadratic", profit=Profit(), k=6)


def test_search_runs_on_weighted_units_alone() -> None:
    problem = MenuProblem.build(GRID, "quadratic", Profit())
    units = WeightedUnits.of(_units(100, 0), np.ones(100))
    settings = SearchSettings(required=np.array([[2.0, 2.0]]))
    menus = search_menus(problem, units, [2, 4], settings)
    for k in (2, 4):
        assert menus[k].k == k
        assert menus[k].required.sum() == 1
        np.testing.assert_array_equal(menus[k].treatments[menus[k].required], [[2.0, 2.0]])


def test_flat_profits_do_not_let_rounding_choose_the_place() -> None:
    theta = _units(3_000, 2)
    # profit hardly depends on b, beside a baseline a million times as large
    theta[:, 0] += 1_000.0
    theta[:, [2, 4, 5]] *= 1e-3
    problem = MenuProblem.build(PLANE, "quadratic", Profit())
    order = np.random.default_rng(0).permutation(len(theta))
    one, two = (curve(problem, units, [2, 4]) for units in (theta, theta[order]))
    for k in (2, 4):
        np.testing.assert_allclose(two[k].encoded, one[k].encoded, rtol=0, atol=1e-7)
