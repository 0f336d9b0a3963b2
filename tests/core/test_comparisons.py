"""What a menu is compared with: each does what it says, and loses what theory says it loses."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.comparisons import best_columns, fit_comparisons, grid_of
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single, search_menus
from coarse_spark.core.menu.sketch import SketchTree
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.policies import COMPARISONS, ON_FEATURES, PolicyMap, PolicyUnits, menu_policy
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace

ARMS = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "letter", "visit"], "control": "none"}}
)
PROBLEM = MenuProblem.build(ARMS, "arms", Profit())


def units_of(size: int = 4_000, seed: int = 0) -> PolicyUnits:
    """Half of the units earn 1 by a letter, the others 1 by a visit, as ``taste`` says.

    Age, which says nothing about that, is what tells units apart.
    """
    rng = np.random.default_rng(seed)
    taste, old = rng.permutation(size) % 2, rng.integers(0, 2, size)
    theta = np.column_stack([np.zeros(size), taste, 1 - taste]).astype(float)
    features = pd.DataFrame(
        {
            "age": np.where(old, 70.0, 20.0) + rng.normal(size=size),
            "birth_year": np.where(old, 1950.0, 2000.0) + rng.normal(size=size),
            "taste": taste + 0.1 * rng.normal(size=size),
        }
    )
    return PolicyUnits(PROBLEM, theta, features)


def fitted(units: PolicyUnits, k: int = 2, seed: int = 0) -> dict[str, PolicyMap]:
    weights = np.ones(len(units.theta))
    return fit_comparisons(
        COMPARISONS,
        k,
        sketch=WeightedUnits.of(units.theta, weights),
        sample=units,
        weights=weights,
        grid_points=5,
        seed=seed,
    )


def value(policy: PolicyMap, units: PolicyUnits) -> float:
    psi = policy(units)
    return float((units.theta * psi[:, :-1]).sum(axis=1).mean() + psi[:, -1].mean())


def test_segments_on_what_says_nothing_lose_all_that_a_menu_gains() -> None:
    known, new = units_of(), units_of(seed=1)
    policies = fitted(known)
    # every unit its own arm earns 1; one arm for a segment of old or young units serves half
    assert value(policies["segments_features_kmeans"], new) == pytest.approx(0.5, abs=0.03)
    # the tree is grown on profits, k-means of responses and of own best arms on what matters
    for name in (
        "segments_features_tree",
        "segments_responses_kmeans",
        "segments_treatments_kmeans",
        "best_of_grid",
    ):
        assert value(policies[name], new) == 1, name


def test_policies_that_serve_alike_score_alike() -> None:
    known, new = units_of(), units_of(seed=1)
    weighted = WeightedUnits.of(known.theta, np.ones(len(known.theta)))
    menu = menu_policy(search_menus(PROBLEM, weighted, [2])[2])(new)
    policies = fitted(known)
    for name in ("segments_responses_kmeans", "segments_treatments_kmeans", "best_of_grid"):
        assert (policies[name](new) == menu).all(), name


def test_with_one_treatment_every_segmentation_is_the_best_single_one() -> None:
    known, new = units_of(4_001), units_of(seed=1)
    weighted = WeightedUnits.of(known.theta, np.ones(len(known.theta)))
    single = menu_policy(best_single(PROBLEM, weighted))(new)
    for name, policy in fitted(known, k=1).items():
        if name != "random_menu":
            assert (policy(new) == single).all(), name


def test_features_that_are_all_alike_make_one_segment() -> None:
    known = units_of(4_001)
    alike = PolicyUnits(PROBLEM, known.theta, pd.DataFrame({"age": np.ones(4_001)}))
    weighted = WeightedUnits.of(known.theta, np.ones(4_001))
    single = menu_policy(best_single(PROBLEM, weighted))(alike)
    policies = fitted(alike)
    for name in ON_FEATURES:
        assert (policies[name](alike) == single).all(), name


def test_random_menus_differ_by_seed_and_serve_units_as_well_as_they_can() -> None:
    units = units_of()
    values = {round(value(fitted(units, seed=seed)["random_menu"], units), 3) for seed in range(8)}
    assert values == {0.5, 1.0}, "two of three arms hold one or both that earn"


def test_segments_never_earn_less_than_the_best_single_treatment() -> None:
    """On the units that they are tuned on; what varies without a say in profits misleads no one."""
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}}
    )
    problem, rng, size = (
        MenuProblem.build(space, "quadratic", Profit()),
        np.random.default_rng(5),
        6_000,
    )
    peaks, bend = rng.uniform(0, 1, size), rng.uniform(0.5, 1, size)
    theta = np.column_stack([rng.normal(0, 5, size), 2 * bend * peaks, -bend])
    known = WeightedUnits.of(theta, np.ones(size))
    sketch = SketchTree.build(known, problem.psi, 100).merged(known)
    tuned, new = (
        PolicyUnits(problem, theta[rows], pd.DataFrame({"peak": peaks[rows]}))
        for rows in (slice(3_000), slice(3_000, None))
    )
    policies = fit_comparisons(
        COMPARISONS, 4, sketch=sketch, sample=tuned, weights=np.ones(3_000), grid_points=5, seed=0
    )
    single = menu_policy(best_single(problem, WeightedUnits.of(tuned.theta, np.ones(3_000))))
    for name in COMPARISONS[:-1]:
        assert value(policies[name], tuned) > value(single, tuned), name
        assert value(policies[name], new) > value(single, new) - 0.005, name


def test_weights_decide_what_a_segment_gets() -> None:
    theta = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.9]])
    units = PolicyUnits(PROBLEM, theta, pd.DataFrame({"x": [1.0, 2.0]}))
    for weights, arm in ((np.ones(2), 1), (np.array([1.0, 2.0]), 2)):
        policy = fit_comparisons(
            ["segments_responses_kmeans"],
            1,
            sketch=WeightedUnits.of(theta, weights),
            sample=units,
            weights=weights,
            grid_points=5,
            seed=0,
        )["segments_responses_kmeans"]
        assert policy(units)[:, arm].tolist() == [1, 1]


def test_a_segment_gets_what_earns_most_from_those_who_may_have_it() -> None:
    worth = np.array([0.0, 1.0, 0.7])
    theta = np.tile(worth, (10, 1))

    def given(ineligible: int) -> np.ndarray:
        ruled = PROBLEM.with_eligibility(["arm == 'letter'"], worth, np.array([ineligible / 10]))
        coefficients = np.column_stack([theta, np.arange(10) < ineligible])
        units = PolicyUnits(ruled, coefficients)
        return fit_comparisons(
            ["segments_responses_kmeans"],
            1,
            sketch=WeightedUnits.of(coefficients, np.ones(10)),
            sample=units,
            weights=np.ones(10),
            grid_points=5,
            seed=0,
        )["segments_responses_kmeans"](units)[0, :3]

    assert given(2).tolist() == [0, 1, 0], "8 letters earn more than 10 visits"
    assert given(4).tolist() == [0, 0, 1]


def test_best_columns_are_those_of_enumeration() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        profits, weights = rng.normal(size=(40, 9)), rng.uniform(0.5, 2, 40)
        best = max(
            combinations(range(9), 3), key=lambda c: float(weights @ profits[:, c].max(axis=1))
        )
        assert sorted(best_columns(profits, weights, 3)) == list(best)
    # many points: greedy with swaps, never worse than greedy and near the best of many draws
    profits, weights = rng.normal(size=(300, 60)), np.ones(300)

    def earned(columns: list[int]) -> float:
        return float(profits[:, columns].max(axis=1).sum())

    found = best_columns(profits, weights, 6)
    assert len(set(found)) == 6
    assert earned(found) > max(
        earned(rng.choice(60, 6, replace=False).tolist()) for _ in range(2_000)
    )


def test_grids_hold_few_points_a_dimension_and_the_control() -> None:
    space = TreatmentSpace.from_dict(
        {
            "depth": {"kind": "continuous", "lower": 10, "upper": 30, "step": 1, "control": 10},
            "days": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0},
            "channel": {"kind": "categorical", "levels": ["mail", "web"], "control": "web"},
        }
    )
    grid = grid_of(MenuProblem.build(space, "levels * linear", Profit()), 5)
    assert np.unique(grid[:, 0]).tolist() == [10, 15, 20, 25, 30]
    assert np.unique(grid[:, 1]).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert len(grid) == 5 * 5 * 2
    listed = TreatmentSpace.from_candidates(
        pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [0.0, 5.0, 9.0]}), control={"a": 0.0, "b": 0.0}
    )
    problem = MenuProblem.build(listed, "linear", Profit())
    assert grid_of(problem, 5).tolist() == [[0, 0], [1, 5], [2, 9]]
    few = pd.DataFrame({"a": np.arange(11.0)})
    listed = TreatmentSpace.from_candidates(few, control={"a": 0.0})
    problem = MenuProblem.build(listed, "linear", Profit())
    assert grid_of(problem, 3).ravel().tolist() == [0, 5, 10]


def test_continuous_treatments_of_segments_are_searched_between_candidates() -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}}
    )
    problem = MenuProblem.build(space, "quadratic", Profit())
    peaks = np.where(np.arange(200) % 2, 0.21234, 0.81234)
    theta = np.column_stack([np.zeros(200), 2 * peaks, -np.ones(200)])
    units = PolicyUnits(problem, theta, pd.DataFrame({"x": peaks}))
    best = np.mean(peaks**2)
    for name, policy in fitted(units).items():
        if name.startswith("segments"):
            assert value(policy, units) == pytest.approx(best, abs=1e-9), name
    assert value(fitted(units)["best_of_grid"], units) == pytest.approx(
        best - np.mean((peaks - np.where(peaks < 0.5, 0.25, 0.75)) ** 2)
    )
