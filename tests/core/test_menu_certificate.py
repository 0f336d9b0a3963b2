from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from menus import curve
from oracles import enumeration, greedy
from scipy.optimize import linprog

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.menu.certificate import bound
from coarse_spark.core.menu.certificate.bound import Certificate, Dual, Relaxed, dual_sums
from coarse_spark.core.menu.certificate.rounding import Rounding
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.sketch import Sketch, SketchTree
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits
from coarse_spark.core.profit import profit_matrix

PLANE = TreatmentSpace.from_dict(
    {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")}
)
CUT = TreatmentSpace.from_dict(
    {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")},
    exclude="a + b > 2.51",
)
LINE = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}})


def _units(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bend = rng.uniform(0.5, 1.0, (n, 2))
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.uniform(0, 2, (n, 2)),
            -bend[:, 0],
            rng.normal(0, 0.2, n),
            -bend[:, 1],
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 3))
def test_no_menu_of_candidates_is_above_the_bound(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    steps = TreatmentSpace.from_dict(
        {
            name: {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0}
            for name in ("a", "b")
        }
    )
    theta, weights = _units(12, seed), rng.uniform(0.1, 2, 12)
    menu = choose_menu(
        theta,
        space=steps,
        basis="quadratic",
        profit=Profit(),
        k=k,
        weights=weights,
    )
    psi = MenuProblem.build(steps, "quadratic", Profit()).psi
    assert menu.upper_bound >= enumeration(theta, psi, k, weights=weights).value - 1e-9
    assert menu.value >= greedy(theta, psi, k, weights=weights)[0] - 1e-9
    assert menu.upper_bound >= menu.value


def test_sizes_share_relaxations_for_a_part_of_their_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    units = WeightedUnits.of(_units(800), np.ones(800))
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", "0.2 * a"))
    settings_ = SearchSettings(starts=2)
    menus = search_menus(problem, units, range(2, 9), settings_)
    found, each = {}, np.arange(len(units))
    for given_away in (0.0, 0.4):
        monkeypatch.setattr(bound, "_GIVEN_AWAY", given_away)
        certificate = Certificate.search(problem, menus, units)
        sums = certificate.sums(units.theta, units.weights, each)
        total = np.append(units.theta.sum(axis=0), len(units))
        found[given_away] = certificate.keys, certificate.bounds(sums, total)
    (own, tight), (shared, bounds) = found.values()
    assert len(shared) < len(own) <= len(menus)
    profits = {
        k: profit_matrix(units.theta, menu.psi).max(axis=1).mean() for k, menu in menus.items()
    }
    gain = problem.granular(units.theta)[1].mean() - units.theta[:, 0].mean()
    for k, value in profits.items():
        gap = tight[k] - value
        assert value <= tight[k] + 1e-9
        assert bounds[k] - value <= gap + max(0.4 * gap, 3e-4 * gain)


RULES = {
    "a > 0.7": lambda a, _: a > 0.7,
    "a + b > 1.5": lambda a, b: a + b > 1.5,
    "a - b > 0.53": lambda a, b: a - b > 0.53,
    "a * b > 0.9": lambda a, b: a * b > 0.9,
}


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.sampled_from(sorted(RULES)))
def test_no_menu_under_a_rule_is_above_the_bound(seed: int, k: int, rule: str) -> None:
    rng = np.random.default_rng(seed)
    theta, weights, called = _units(12, seed), rng.uniform(0.1, 2, 12), rng.random(12) < 0.5
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", "0.1 * a"))
    arguments = {"space": PLANE, "basis": "quadratic", "profit": problem.profit, "weights": weights}
    menu = choose_menu(theta, k=k, eligible={rule: called}, starts=2, **arguments)
    assert menu.upper_bound >= menu.value
    # random menus, improved treatment by treatment over a grid between the candidates
    fine = np.stack(np.meshgrid(*[np.linspace(0, 2, 62)] * 2), axis=-1).reshape(-1, 2)
    profits = profit_matrix(theta, problem.psi_at(fine))
    profits[np.ix_(~called, RULES[rule](*fine.T))] = -1e3
    for _ in range(10):
        rows = rng.integers(len(fine), size=k)
        for place in [*range(k), *range(k)]:
            rest = np.delete(profits[:, rows], place, axis=1).max(axis=1)
            rows[place] = (weights @ np.maximum(profits, rest[:, None])).argmax()
        assert weights @ profits[:, rows].max(axis=1) / weights.sum() <= menu.upper_bound + 1e-9


def test_a_menu_without_a_free_place_has_a_bound() -> None:
    theta = _units(40)
    menu = choose_menu(
        theta,
        space=PLANE,
        basis="quadratic",
        profit=Profit("1", "a + b"),
        k=1,
        always_offer=[{"a": 2.0, "b": 2.0}],
    )
    assert menu.treatments.to_numpy().tolist() == [[2.0, 2.0]]
    assert menu.upper_bound >= menu.value - 1e-9


def _slack(
    problem: MenuProblem, rounding: Rounding, theta: np.ndarray, treatment: np.ndarray
) -> float:
    """Return by how much the loss exceeds what every unit loses when a treatment moves nearby.

    One distribution over the rows, the likeliest best, has to serve all units at once: a linear
    programme finds it.
    """
    cell = problem.space.spacing
    near = (np.abs(problem.candidates - treatment) <= cell + 1e-9).all(axis=1)
    rows = np.vstack([problem.psi[near], rounding.psi[len(problem.psi) :]])
    target = problem.psi_at(treatment[None, :])
    rows = rows[
        (rows[:, problem.basis.size : -1] >= target[:, problem.basis.size : -1]).all(axis=1)
    ]
    gains = (
        profit_matrix(theta, rows) - profit_matrix(theta, target) + rounding.loss(theta)[:, None]
    )
    found = linprog(
        np.append(np.zeros(len(rows)), -1.0),
        A_ub=np.column_stack([-gains, np.ones(len(theta))]),
        b_ub=np.zeros(len(theta)),
        A_eq=[[1.0] * len(rows) + [0.0]],
        b_eq=[1.0],
        bounds=[(0, None)] * len(rows) + [(None, None)],
    )
    return float(-found.fun)


@pytest.mark.parametrize(
    ("space", "basis", "profit", "rules"),
    [
        (LINE, "quadratic", Profit("1", "0.2 * t"), []),
        (LINE, "quadratic", Profit("1", "0.2 * t"), ["t > 0.7341"]),
        (LINE, "cubic", Profit("2 - t", "0.1 * t"), []),
        (LINE, "log1p", Profit("3 - t", "0"), []),
        (LINE, "any+quadratic", Profit("3 - t", "0"), ["t > 0"]),
        (PLANE, "quadratic", Profit("3 - a", "0.1 * b"), []),
        (PLANE, "quadratic", Profit("1", "0.3 * abs(a - 1)"), []),
        (PLANE, "quadratic", Profit(), ["a > 0.7"]),
        (PLANE, "quadratic", Profit(), ["a > 0.73", "b > 1.11"]),
        (PLANE, "quadratic", Profit(), ["a + b > 1.5"]),
        (PLANE, "quadratic", Profit(), ["a - b > 0.53"]),
        (PLANE, "quadratic", Profit(), ["a**2 + b**2 > 2.3", "a * b > 0.9"]),
        (PLANE, "quadratic", Profit(), ["(a - 0.6)**2 + (b - 0.6)**2 < 0.3"]),
        (PLANE, "any+quadratic", Profit(), ["a + b > 0"]),
        (CUT, "quadratic", Profit(), []),
        (CUT, "quadratic", Profit("1", "where(a > 0, 0.5, 0)"), ["a - b > 0.2"]),
    ],
)
def test_rounding_covers_every_treatment_between_candidates(
    space: TreatmentSpace, basis: str, profit: Profit, rules: list[str]
) -> None:
    problem = MenuProblem.build(space, basis, profit)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(60, problem.coefficients))
    problem = problem.with_eligibility(rules, np.abs(theta).max(axis=0), np.full(len(rules), 0.5))
    theta = np.column_stack([theta, rng.random((60, len(rules))) < 0.5])
    rounding = Rounding.of(problem)
    treatments = rng.uniform(0, 2, (120, len(space.dimensions)))
    # on the lines between candidates too, and along the edges of rules
    lines = rng.random(treatments.shape) < 0.2
    treatments[lines] = np.round(treatments[lines] / space.spacing.max()) * space.spacing.max()
    edges = problem.candidates[len(space.candidates) :]
    if len(edges):
        pairs = edges[rng.integers(len(edges), size=(60, 2))]
        close = (np.abs(pairs[:, 0] - pairs[:, 1]) <= 1.5 * space.spacing).all(axis=1)
        treatments = np.vstack([treatments, pairs[close].mean(axis=1), edges[:5]])
    for treatment in treatments[space.allowed(treatments)]:
        assert _slack(problem, rounding, theta, treatment) >= -1e-6


def test_loss_of_quadratic_profits_is_the_textbook_interpolation_error() -> None:
    problem = MenuProblem.build(LINE, "quadratic", Profit())
    theta = np.array([[1.0, 2.0, -3.0], [0.0, 1.0, 2.0]])
    spacing = 2 / 256
    np.testing.assert_allclose(
        Rounding.of(problem).loss(theta), [spacing**2 / 8 * 6.0, 0.0], rtol=1e-6
    )


def test_finite_spaces_round_nothing() -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.1, "control": 0}}
    )
    assert (
        not Rounding.of(MenuProblem.build(space, "quadratic", Profit())).loss(np.ones((3, 3))).any()
    )


def test_bound_from_a_sketch_holds_on_all_units_and_adds_up_over_blocks() -> None:
    theta, weights = _units(3_000), np.random.default_rng(1).uniform(0.5, 2, 3_000)
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", "0.2 * a"))
    tree = SketchTree.build(WeightedUnits.of(theta, weights), problem.psi, 500)
    cells = tree.cells(theta)
    sketch = Sketch.of_cells(tree, SegmentSums.of(cells, theta, weights, tree.count))
    menu = PricedMenu.build(problem, np.array([[0.4, 0.6], [1.2, 0.5], [1.5, 1.7]]))
    certificate = Certificate.search(problem, {3: menu}, sketch.units).by_cell(sketch.by_cell)
    sums = certificate.sums(theta, weights, cells)
    parts = [
        certificate.sums(theta[rows], weights[rows], cells[rows])[3]
        for rows in np.array_split(np.arange(3_000), 5)
    ]
    total = np.append(weights @ theta, weights.sum())
    bound = certificate.bounds(sums, total)[3]
    added = certificate.bounds({3: reduce(add, parts)}, total)[3]
    assert added == pytest.approx(bound, rel=1e-6)
    best = choose_menu(
        theta, space=PLANE, basis="quadratic", profit=problem.profit, k=3, weights=weights
    )
    assert bound >= best.value
    # even from a poor menu the bound comes near what a good one earns
    gain = best.granular_value - best.control_value
    assert bound <= best.value + 0.02 * gain


@pytest.mark.parametrize(
    ("space", "basis", "tolerance"), [(LINE, "quadratic", 0.001), (PLANE, "quadratic", 0.005)]
)
def test_gaps_reach_their_targets(space: TreatmentSpace, basis: str, tolerance: float) -> None:
    theta = _units(1_000) if len(space.dimensions) == 2 else _units(1_000)[:, [0, 1, 3]]
    menus = curve(MenuProblem.build(space, basis, Profit("1", "0.0")), theta, range(1, 11))
    for menu in menus.values():
        assert 0 <= menu.gap <= tolerance
    bounds = [menus[k].upper_bound for k in range(1, 11)]
    assert all(menu.value <= bound for menu, bound in zip(menus.values(), bounds, strict=True))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_single_precision_only_ever_raises_the_bound(scale: float) -> None:
    rng = np.random.default_rng(0)
    space = TreatmentSpace.from_dict(
        {
            name: {"kind": "continuous", "lower": 0, "upper": 2 * scale, "control": 0}
            for name in ("a", "b")
        }
    )
    problem = MenuProblem.build(space, "quadratic", Profit("1", f"{0.2 / scale} * a"))
    theta = (
        _units(700) / np.array([1, scale, scale, scale**2, scale**2, scale**2]) + np.eye(1, 6) * 1e3
    )
    weights, menu = (
        rng.uniform(0.1, 5, 700),
        PricedMenu.build(problem, scale * np.array([[0.4, 0.6], [1.2, 0.5], [1.5, 1.7]])),
    )
    rounding, correction = Rounding.of(problem), rng.uniform(0, 0.2, 700)
    none = np.zeros(len(rounding.psi))
    dual = Dual(menu.priced_psi, correction, none, 0.0, np.empty(0, dtype=np.intp), distinct=True)
    relaxed = Relaxed(rounding, {3: dual}, (3,))
    found = dual_sums(relaxed, theta, weights, np.arange(700))[3]
    profits = profit_matrix(theta, rounding.psi)
    u = profit_matrix(theta, menu.psi).max(axis=1) - correction
    exact = weights @ np.maximum(profits - u[:, None], 0.0)
    assert found.base == pytest.approx(weights @ u, rel=1e-6)
    # base and gains are rounded together: what is missing in one is in the other
    slack = found.base - weights @ u + found.gains - exact
    assert (slack >= 0).all()
    assert slack.max() <= 1e-3 * weights.sum()


def test_one_treatment_for_all_is_bounded_by_the_mean_response() -> None:
    theta = _units(2_000)
    menu = choose_menu(theta, space=PLANE, basis="quadratic", profit=Profit("1", "0.2 * a"), k=1)
    assert 0 <= menu.gap < 2e-3
    fine = np.stack(np.meshgrid(*[np.linspace(0, 2, 401)] * 2), axis=-1).reshape(-1, 2)
    problem = MenuProblem.build(PLANE, "quadratic", Profit("1", "0.2 * a"))
    assert (
        profit_matrix(theta.mean(axis=0, keepdims=True), problem.psi_at(fine)).max()
        <= menu.upper_bound
    )
