from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from menus import curve
from oracles import enumeration
from scipy.stats import norm

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.exact import exact_menus, is_unimodal


def _brute_force(
    profits: np.ndarray, weights: np.ndarray, k: int, fixed: tuple[int, ...] = ()
) -> float:
    others = [column for column in range(profits.shape[1]) if column not in fixed]
    menus = ([*fixed, *rest] for rest in combinations(others, k - len(fixed)))
    return max(float(weights @ profits[:, menu].max(axis=1)) for menu in menus)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 8), st.booleans())
def test_equals_brute_force_for_units_with_one_peak(
    seed: int, units: int, candidates: int, lumpy: bool
) -> None:
    rng = np.random.default_rng(seed)
    rises = rng.exponential(size=(units, candidates)) * (
        rng.random((units, candidates)) < 0.8
    )  # with plateaus
    places = np.arange(candidates)
    peak = rng.integers(candidates, size=units)
    steps = np.where(places[None, 1:] <= peak[:, None], rises[:, 1:], -rises[:, 1:])
    profits = rng.normal(size=(units, 1)) + np.hstack(
        [np.zeros((units, 1)), np.cumsum(steps, axis=1)]
    )
    weights = rng.integers(1, 4, units).astype(float) if lumpy else rng.uniform(0.1, 2, units)
    assert is_unimodal(profits)
    fixed = np.unique(rng.integers(candidates, size=rng.integers(0, 3)))
    menus = exact_menus(profits, weights, candidates, fixed)
    assert set(menus) == set(range(max(1, len(fixed)), candidates + 1))
    for k, menu in menus.items():
        assert len(set(menu.tolist())) == k
        assert set(fixed.tolist()) <= set(menu.tolist())
        best = _brute_force(profits, weights, k, tuple(fixed.tolist()))
        assert weights @ profits[:, menu].max(axis=1) == pytest.approx(best, abs=1e-9)


def test_two_peaks_are_noticed() -> None:
    assert is_unimodal(np.array([[0.0, 1, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1]]))
    assert not is_unimodal(np.array([[0.0, 1, 0, 1]]))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("bend", [-1.0, 1.0], ids=["peaks", "valleys"])
def test_one_dimension_reaches_brute_force_with_or_without_one_peak(bend: float, k: int) -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.1, "control": 0}}
    )
    rng = np.random.default_rng(4)
    points, weights = rng.uniform(0, 2, 80), rng.uniform(0.1, 2, 80)
    theta = bend * np.column_stack([points**2, -2 * points, np.ones(80)])
    menu = choose_menu(theta, space=space, basis="quadratic", profit=Profit(), k=k, weights=weights)
    psi = MenuProblem.build(space, "quadratic", Profit()).psi
    assert is_unimodal(theta @ psi[:, :-1].T) == (bend < 0)
    assert menu.value == pytest.approx(enumeration(theta, psi, k, weights=weights).value, abs=1e-9)


def _ideal_points(points: np.ndarray) -> np.ndarray:
    # profit −(x − t)², the expected squared distance of unit x from its treatment
    return np.column_stack([-(points**2), 2 * points, np.full(len(points), -1.0)])


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(norm.ppf((np.arange(40_000) + 0.5) / 40_000), id="quantiles"),
        pytest.param(
            np.random.default_rng(7).normal(size=1_000_000),
            id="a million drawn",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_normal_ideal_points_give_the_lloyd_max_quantizers(points: np.ndarray) -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": -5, "upper": 5, "control": 0}}
    )
    menus = curve(
        MenuProblem.build(space, "quadratic", Profit()), _ideal_points(points), [2, 4, 5, 8]
    )
    for k, distortion in {2: 0.3634, 4: 0.1175, 5: 0.07994, 8: 0.03454}.items():
        assert -menus[k].value == pytest.approx(distortion, rel=0.005)
        assert menus[k].gap < 0.001
        assert menus[k].upper_bound >= menus[k].value
    assert menus[2].encoded[:, 0] == pytest.approx([-0.7979, 0.7979], abs=0.005)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_uniform_ideal_points_give_the_midpoints(k: int) -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}}
    )
    points = (np.arange(3_600) + 0.5) / 3_600
    menu = choose_menu(_ideal_points(points), space=space, basis="quadratic", profit=Profit(), k=k)
    assert menu.encoded[:, 0] == pytest.approx((2 * np.arange(1, k + 1) - 1) / (2 * k), abs=2e-4)
    assert -menu.value == pytest.approx(1 / (12 * k**2), rel=1e-4)
    np.testing.assert_allclose(menu.shares, 1 / k, atol=1e-3)
