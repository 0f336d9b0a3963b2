"""The treatment basis and the profit on it.

Column order, known values, linearity in the coefficients, and refusals.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import PolynomialFeatures

from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import ExpressionError, InvalidInputError


def box(*names: str, control: float = 0.0) -> TreatmentSpace:
    return TreatmentSpace.from_dict(
        {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": control} for name in names}
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.sampled_from(["linear", "quadratic", "cubic"]), st.integers(0, 2**32 - 1)
)
def test_polynomials_follow_scikit_learn(dimensions: int, name: str, seed: int) -> None:
    treatments = np.random.default_rng(seed).uniform(0, 2, (5, dimensions))
    degree = {"linear": 1, "quadratic": 2, "cubic": 3}[name]
    basis = Basis(name, box(*(f"t{j}" for j in range(dimensions))))
    expected = PolynomialFeatures(degree).fit(treatments)
    np.testing.assert_allclose(basis(treatments), expected.transform(treatments), rtol=1e-12)
    assert basis.columns == tuple(
        expected.get_feature_names_out([f"t{j}" for j in range(dimensions)])
    )
    assert basis.size == basis(treatments).shape[1]


def test_column_order_in_two_dimensions() -> None:
    assert Basis("quadratic", box("t1", "t2")).columns == ("1", "t1", "t2", "t1^2", "t1 t2", "t2^2")


def test_jump_and_logarithm() -> None:
    basis = Basis("any+log1p+linear", box("t", control=0.5))
    assert basis.columns == ("1", "any(t)", "log1p(t)", "t")
    np.testing.assert_allclose(
        basis(np.array([[0.5], [0.0], [2.0]])),
        [[1, 0, 0, 0.5], [1, 1, np.log(1.5), 0.0], [1, 1, np.log(2.5), 2.0]],
    )


def test_a_jump_counts_any_dimension_once() -> None:
    basis = Basis("any", box("a", "b"))
    np.testing.assert_array_equal(
        basis(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]))[:, 1], [0, 1, 1, 1]
    )


def test_shared_columns_come_once() -> None:
    basis = Basis("linear + quadratic", box("t"))
    assert basis.columns == ("1", "t", "t^2")
    np.testing.assert_array_equal(basis(np.array([[2.0]])), [[1, 2, 4]])


def test_arms_pick_their_candidate() -> None:
    space = TreatmentSpace.from_dict(
        {
            "depth": {"kind": "continuous", "lower": 0, "upper": 20, "step": 10, "control": 0},
            "arm": {"kind": "categorical", "levels": ["mail", "phone"], "control": "mail"},
        }
    )
    basis = Basis("arms", space)
    np.testing.assert_array_equal(basis(space.candidates), np.eye(6))
    assert basis.columns[3] == "depth = 10, arm = phone"
    # validation takes what single precision makes of a step, and so does the basis
    tenths = {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.1, "control": 0}
    fine = Basis("arms", TreatmentSpace.from_dict({"depth": tenths}))
    stored = fine.space.candidates.astype(np.float32).astype(float)
    assert (stored != fine.space.candidates).any()
    np.testing.assert_array_equal(fine(stored), np.eye(21))
    with pytest.raises(
        InvalidInputError,
        match="basis 'arms': depth = 5, arm = mail is not one of the 6 candidates",
    ):
        basis(np.array([[5.0, 0.0]]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quadratc", r"basis 'quadratc': unknown term 'quadratc' \(did you mean 'quadratic'\?\)"),
        ("any+", r"basis 'any\+': unknown term ''"),
        (
            "arms+linear",
            r"basis 'arms\+linear': arms has one column a candidate and cannot be joined",
        ),
    ],
)
def test_unknown_terms(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Basis(name, box("t"))


def test_categorical_treatments_need_arms() -> None:
    space = TreatmentSpace.from_dict(
        {"arm": {"kind": "categorical", "levels": ["a", "b"], "control": "a"}}
    )
    with pytest.raises(InvalidInputError, match="treatment 'arm' is categorical; use basis 'arms'"):
        Basis("linear", space)
    np.testing.assert_array_equal(Basis("arms", space)(space.candidates), np.eye(2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_profit_is_margin_times_response_minus_cost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis = Basis("any+quadratic", box("depth", "days"))
    profit = Profit(
        margin="0.45 - depth / 100", cost="where(depth + days > 0, 0.15, 0) + 0.01 * days"
    )
    treatments = np.vstack([rng.uniform(0, 2, (6, 2)), [[0.0, 0.0]]])
    theta = rng.normal(size=(9, basis.size))
    depth, days = treatments.T
    expected = (0.45 - depth / 100) * (theta @ basis(treatments).T) - (
        0.15 * (depth + days > 0) + 0.01 * days
    )
    np.testing.assert_allclose(
        profit_matrix(theta, profit.psi(treatments, basis)), expected, rtol=1e-12, atol=1e-12
    )
    margin, cost = profit.terms(treatments, basis.space)
    np.testing.assert_allclose(margin, 0.45 - depth / 100)
    np.testing.assert_allclose(cost, 0.15 * (depth + days > 0) + 0.01 * days)


def test_profit_says_where_it_is_no_number() -> None:
    basis = Basis("linear", box("t"))
    with pytest.raises(
        InvalidInputError,
        match=r"profit: the margin '1 / t' is inf at t = 0, expected a finite number",
    ):
        Profit(margin="1 / t").psi(np.array([[1.0], [0.0]]), basis)
    with pytest.raises(
        InvalidInputError, match=r"profit: the cost 'log\(t - 1\)' is nan at t = 0.5"
    ):
        Profit(cost="log(t - 1)").psi(np.array([[2.0], [0.5]]), basis)
    with pytest.raises(ExpressionError, match="unknown name 'price'"):
        Profit(margin="price").check(basis.space)
    with pytest.raises(ExpressionError, match="unknown name 'cst'"):
        Profit(cost="cst").check(basis.space)
