from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coarse_spark.core.menu.assignment.transport import (
    exact_assignment,
    improve_prices,
    transport,
    whole_limits,
)


def _oracle(
    profits: np.ndarray, weights: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> float:
    """The same transport as a linear program."""
    n, k = profits.shape
    columns = np.kron(np.ones((1, n)), np.eye(k)) * np.repeat(weights, k)
    solved = linprog(
        -(profits * weights[:, None]).ravel(),
        A_ub=np.vstack([columns, -columns]),
        b_ub=np.concatenate([upper, -lower]),
        A_eq=np.kron(np.eye(n), np.ones((1, k))),
        b_eq=np.ones(n),
        method="highs",
    )
    assert solved.status == 0
    return -float(solved.fun)


def _limits(kind: str, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    masses = rng.dirichlet(np.full(k, 5.0))
    return {
        "none": (np.zeros(k), np.ones(k)),
        "upper": (np.zeros(k), np.full(k, 1.2 / k)),
        "lower": (np.full(k, 0.7 / k), np.ones(k)),
        "both": (np.full(k, 0.5 / k), np.full(k, 1.4 / k)),
        "masses": (masses, masses),
        "one position closed": (np.zeros(k), np.concatenate([[0.0], np.ones(k - 1)])),
    }[kind]


KINDS = ["none", "upper", "lower", "both", "masses", "one position closed"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.integers(2, 5), st.booleans())
def test_plan_and_prices_are_optimal_and_complementary(
    seed: int, kind: str, k: int, even: bool
) -> None:
    rng = np.random.default_rng(seed)
    profits = rng.normal(size=(30, k))
    weights = np.ones(30) if even else rng.uniform(0.2, 3, 30)
    lower, upper = (limit * weights.sum() for limit in _limits(kind, k, rng))
    solved = transport(profits, weights, lower, upper)
    masses = solved.plan.sum(axis=0)
    np.testing.assert_allclose(solved.plan.sum(axis=1), weights, rtol=1e-9)
    assert (masses >= lower - 1e-8).all()
    assert (masses <= upper + 1e-8).all()
    assert solved.value == pytest.approx(
        _oracle(profits, weights, lower, upper), rel=1e-8, abs=1e-8
    )
    # weak duality is tight at the prices
    dual = (
        weights @ (profits - solved.prices).max(axis=1)
        + np.maximum(solved.prices * upper, solved.prices * lower).sum()
    )
    assert dual == pytest.approx(solved.value, rel=1e-7, abs=1e-7)
    slack = (masses > lower + 1e-6) & (masses < upper - 1e-6)
    assert not solved.prices[slack].any()
    assert (solved.prices[masses > lower + 1e-6] >= 0).all() or kind == "masses"
    assert (solved.prices[masses < upper - 1e-6] <= 0).all() or kind == "masses"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_whole_units_are_assigned_at_the_optimum(kind: str) -> None:
    rng = np.random.default_rng(3)
    profits, weights = (
        rng.normal(size=(20_000, 5)) + np.array([0, 0.3, 0, -0.2, 0.1]),
        np.ones(20_000),
    )
    lower, upper = (limit * 20_000 for limit in _limits(kind, 5, rng))
    chosen, prices = exact_assignment(profits, weights, lower, upper, np.zeros(5))
    least, most = whole_limits(weights, lower, upper)
    counts = np.bincount(chosen, minlength=5)
    assert (counts >= least).all()
    assert (counts <= most).all()
    best = transport(profits, weights, least, most).value  # min-cost flow on all units
    assert profits[np.arange(20_000), chosen].sum() == pytest.approx(best, rel=1e-9)
    assert np.isfinite(prices).all()


def test_shares_are_exact_for_a_million_units() -> None:
    rng = np.random.default_rng(0)
    profits, weights = rng.normal(size=(1_000_000, 3)), np.ones(1_000_000)
    masses = np.array([0.15, 0.25, 0.6]) * 1_000_000
    chosen, prices = exact_assignment(profits, weights, masses, masses, np.zeros(3))
    np.testing.assert_array_equal(np.bincount(chosen), [150_000, 250_000, 600_000])
    dual = (profits - prices).max(axis=1).sum() + prices @ masses
    assert profits[np.arange(1_000_000), chosen].sum() == pytest.approx(dual, rel=1e-9)


def test_unequal_weights_miss_a_share_by_one_unit_at_most() -> None:
    rng = np.random.default_rng(1)
    profits, weights = rng.normal(size=(3_000, 4)), rng.uniform(0.5, 2, 3_000)
    upper = np.full(4, 0.26) * weights.sum()
    chosen, _ = exact_assignment(profits, weights, np.zeros(4), upper, np.zeros(4))
    assert (np.bincount(chosen, weights) <= upper + weights.max()).all()


def test_masses_that_are_no_whole_numbers_are_rounded_by_largest_remainders() -> None:
    low, high = whole_limits(np.ones(10), np.array([3.4, 3.4, 3.2]), np.array([3.4, 3.4, 3.2]))
    np.testing.assert_array_equal(low, high)
    np.testing.assert_array_equal(high, [4, 3, 3])
    low, high = whole_limits(np.ones(10), np.zeros(3), np.full(3, 1 / 3) * 10)
    assert high.sum() >= 10


def test_improved_prices_clear_the_shares() -> None:
    rng = np.random.default_rng(2)
    profits, weights = rng.normal(size=(50_000, 4)), np.ones(50_000)
    upper = np.full(4, 0.25) * 50_000
    prices = improve_prices(
        profits + np.array([1.0, 0, 0, 0]), weights, np.zeros(4), upper, np.zeros(4)
    )
    counts = np.bincount((profits + np.array([1.0, 0, 0, 0]) - prices).argmax(axis=1), minlength=4)
    np.testing.assert_allclose(counts, 12_500, atol=100)
    assert prices[0] == pytest.approx(prices[1:].mean() + 1, abs=0.05)
