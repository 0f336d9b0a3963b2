from __future__ import annotations

import numpy as np
import pytest

from coarse_spark.core.menu.assignment.transport import exact_assignment
from coarse_spark.core.menu.choose import choose_menu
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import Budget, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.stability import fold_noise, menu_stability, merged_counts
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

STEPS = TreatmentSpace.from_dict(
    {"t": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.25, "control": 0}}
)
LINE = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}})


def _two_kinds(n: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    peak = np.where(np.arange(n) % 2, 0.5, 1.5) + rng.normal(0, noise, n)
    return np.column_stack([np.zeros(n), peak, np.full(n, -0.5)])


def _menu(problem: MenuProblem, treatments: np.ndarray) -> PricedMenu:
    return PricedMenu.build(problem, treatments)


def test_a_clear_choice_is_always_made_again() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit())
    units = WeightedUnits.of(_two_kinds(500, 0.01), np.ones(500))
    result = menu_stability(problem, units, _menu(problem, np.array([[0.5], [1.5]])), resamples=20)
    assert result.chosen.to_dict("records") == [
        {"t": 0.5, "frequency": 1.0},
        {"t": 1.5, "frequency": 1.0},
    ]
    assert result.expected_loss == pytest.approx(0, abs=1e-12)


def test_uncertain_responses_spread_the_choice_and_cost_value() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit())
    theta = _two_kinds(200, 0.4)
    menu = choose_menu(theta, space=STEPS, basis="quadratic", profit=Profit(), k=2)
    units = WeightedUnits.of(theta, np.ones(200))
    chosen = _menu(problem, menu.encoded)
    sure = menu_stability(problem, units, chosen, resamples=30)
    unsure = menu_stability(
        problem, units, chosen, covariance=np.diag([0.0, 0.5, 0.0]), resamples=30
    )
    assert (sure.lost >= -1e-12).all()  # the menu is the best one on the original sketch
    assert unsure.expected_loss > sure.expected_loss
    assert len(unsure.chosen) > 2
    assert sure.chosen["frequency"].sum() == pytest.approx(2)
    again = menu_stability(problem, units, chosen, resamples=30)
    np.testing.assert_array_equal(again.lost, sure.lost)
    with pytest.raises(InvalidInputError, match="covariance has shape"):
        menu_stability(problem, units, chosen, covariance=np.eye(2))


def test_redrawn_menus_keep_the_limits() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit())
    theta = _two_kinds(300, 0.3)
    units = WeightedUnits.of(theta, np.ones(300))
    noise = np.diag([0.0, 0.3, 0.0])
    frugal = SearchSettings(Limits(budget=Budget(0.6, Profit("0", "t"))))
    best = search_menus(problem, units, [1], frugal)[1]
    within = menu_stability(problem, units, best, frugal, covariance=noise, resamples=12)
    free = menu_stability(
        problem, units, _menu(problem, np.array([[1.0]])), covariance=noise, resamples=12
    )
    assert within.chosen["t"].max() == 0.5
    assert free.chosen["t"].min() > 0.6
    assert within.value == pytest.approx((theta @ [1, 0.5, 0.25]).mean())

    masses = SearchSettings(Limits([0.2, 0.8], [0.2, 0.8]))
    best = search_menus(problem, units, [2], masses)[2]
    result = menu_stability(problem, units, best, masses, covariance=noise, resamples=12)
    profits = profit_matrix(theta, best.psi)
    chosen, _ = exact_assignment(
        profits, np.ones(300), 300 * best.lower, 300 * best.upper, np.zeros(2)
    )
    assert result.value == pytest.approx(profits[np.arange(300), chosen].mean())
    assert (result.lost >= -1e-9).all()
    # freely assigned, other menus would seem to earn more than the one that is bound to the masses
    loose = menu_stability(problem, units, best, covariance=noise, resamples=12)
    assert loose.expected_loss < 0


def test_noise_of_refits_is_common_to_all_units() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit())
    theta, shifts = (
        _two_kinds(300, 0.2),
        np.array([[0, 0.3, 0], [0, -0.1, 0.05], [0, 0, 0], [0, -0.2, -0.05]]),
    )
    units, directions = fold_noise(problem, theta + shifts[:, None, :], np.ones(300), cells=50)
    assert units.behind.sum() == 300
    # (F − 1)/F Σ_f (θ^(−f) − mean)², the same for every cluster as the shifts are
    expected = 3 / 4 * ((shifts - shifts.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(
        (directions**2).sum(axis=0), np.broadcast_to(expected, units.theta.shape), atol=1e-12
    )

    menu = _menu(problem, np.array([[0.5], [1.5]]))
    sure = menu_stability(problem, units, menu, directions=0 * directions, resamples=20)
    unsure = menu_stability(problem, units, menu, directions=directions, resamples=20)
    assert unsure.expected_loss > sure.expected_loss
    # a common shift moves both treatments alike: independent noise would average out
    assert len(unsure.chosen) > len(sure.chosen)
    with pytest.raises(InvalidInputError, match="at least 2 refits"):
        fold_noise(problem, theta[None], np.ones(300))
    with pytest.raises(InvalidInputError, match="directions have shape"):
        menu_stability(problem, units, menu, directions=directions[:, :5])


def test_published_treatments_come_first_however_rarely_they_are_chosen() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", Profit())
    tables = {
        "folds": STEPS.decode(np.array([[0.5], [0.75]])).assign(folds=[3, 1]),
        "frequency": STEPS.decode(np.array([[0.75], [1.0]])).assign(frequency=[0.9, 0.2]),
    }
    table = merged_counts(problem, np.array([[0.5], [1.5]]), tables)
    assert table["t"].tolist() == [0.5, 1.5, 0.75, 1.0]
    assert table["published"].tolist() == [True, True, False, False]
    assert table["folds"].tolist() == [3, 0, 1, 0]
    assert table["frequency"].tolist() == [0, 0, 0.9, 0.2]
