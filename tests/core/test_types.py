"""Numbers and levels of whatever type numpy and pandas have: a result, or one sentence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu
from coarse_spark.core.arrays import numbers, relative

SPACE = TreatmentSpace.from_dict(
    {"d": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0}}
)
RNG = np.random.default_rng(0)
THETA = np.c_[RNG.normal(5, 1, 200), RNG.normal(2, 0.5, 200), RNG.normal(-0.5, 0.05, 200)]
AGE = RNG.uniform(20, 60, 600)
DISCOUNT = RNG.uniform(0, 2, 600).round(2)
SPEND = 5 + AGE / 20 * DISCOUNT - 0.5 * DISCOUNT**2 + 0.1 * RNG.normal(size=600)


def menu(theta: Any = THETA, weights: Any = None, **given: Any) -> Any:
    return choose_menu(
        theta,
        space=SPACE,
        basis="quadratic",
        profit=Profit("1", "d"),
        k=2,
        weights=weights,
        **given,
    )


def learned(
    X: Any = None, T: Any = DISCOUNT, y: Any = SPEND, weight: Any = None, basis: str = "quadratic"
) -> Any:
    features = pd.DataFrame({"age": AGE}) if X is None else X
    learner = ResponseLearner(basis=basis, learner="sieve")
    return learner.fit(features, T, y, sample_weight=weight).predict(features)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-20, 1e20, 1e150, 1e300])
@pytest.mark.parametrize("limits", [{}, {"max_share": 0.6}, {"budget": 0.5}])
def test_only_ratios_of_weights_count(scale: float, limits: dict[str, float]) -> None:
    weights = np.where(np.arange(200) < 100, 1.0, 0.5)
    expected, found = menu(weights=weights, **limits), menu(weights=weights * scale, **limits)
    pd.testing.assert_frame_equal(found.treatments, expected.treatments)
    np.testing.assert_allclose(found.shares, expected.shares, rtol=1e-4)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-6)
    np.testing.assert_allclose(
        found.upper_bound, expected.upper_bound, rtol=1e-5
    )  # of single precision
    assert 0 <= found.gap < 1e-3


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300])
def test_only_ratios_of_weights_count_in_a_fit(scale: float) -> None:
    weights = np.where(np.arange(600) < 300, 1.0, 0.5)
    np.testing.assert_allclose(
        learned(weight=weights * scale), learned(weight=weights), rtol=1e-3, atol=1e-3
    )


@given(st.lists(st.floats(0, allow_infinity=False, allow_nan=False), min_size=1, max_size=6))
def test_relative_weights_keep_their_ratios(weights: list[float]) -> None:
    array = np.array(weights)
    found = relative(array)
    if not array.any():
        np.testing.assert_array_equal(found, array)
        return
    assert 1 <= found.max() < 2
    assert found.argmax() == array.argmax()
    if array.min() >= 1e-300:  # beyond that digits are lost before
        np.testing.assert_allclose(
            found / found.max(), array / array.max(), rtol=1e-12, atol=1e-300
        )


TYPES = [
    lambda values: pd.Series(values, dtype="Float64"),
    lambda values: pd.Series(values).astype("category"),
    lambda values: pd.Series([Decimal(str(value)) for value in values]),
    lambda values: pd.Series(values, dtype="double[pyarrow]"),
    lambda values: pd.Series(values, dtype=object),
    lambda values: list(map(float, values)),
]


@pytest.mark.parametrize("typed", TYPES)
def test_numbers_of_any_type_give_the_same(typed: Any) -> None:
    weights = np.round(1 + np.arange(200) % 3 / 4, 2)
    assert menu(weights=typed(weights)).value == menu(weights=weights).value
    frame = pd.DataFrame({name: typed(column) for name, column in enumerate(THETA.T)})
    assert menu(frame).value == pytest.approx(menu().value)
    expected = learned()
    weight = typed(np.ones(600))
    np.testing.assert_allclose(learned(y=typed(SPEND), weight=weight), expected, rtol=1e-6)
    treated = pd.DataFrame({"d": typed(DISCOUNT)})
    if not isinstance(treated["d"].dtype, pd.CategoricalDtype):  # whose values are levels
        np.testing.assert_allclose(learned(T=treated), expected, rtol=1e-6)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(), st.integers(-9, 9), st.floats(-1e9, 1e9), st.decimals(-9, 9, places=2)
        ),
        max_size=6,
    )
)
def test_missing_numbers_are_nan_whatever_holds_them(values: list[Any]) -> None:
    expected = [float("nan") if pd.isna(value) else float(value) for value in values]
    found = numbers(pd.Series(values, dtype=object), "weights")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "levels",
    [
        np.array([0.1, 0.3], "float32"),
        pd.Series([0.1, 0.3], dtype="float32"),
        pd.array([0.1, 0.3], dtype="Float64"),
        pd.Categorical([0.1, 0.3]),
        (level for level in (0.1, 0.3)),
    ],
)
def test_levels_are_their_shortest_digits(levels: Any) -> None:
    spec = {"a": {"kind": "categorical", "levels": levels, "control": np.float32(0.1)}}
    space = TreatmentSpace.from_dict(spec, exclude="a == 0.3")
    assert space.levels == {"a": (0.1, 0.3)}
    for column in (np.array([0.3, 0.1], "float32"), [0.3, 0.1], pd.Categorical([0.3, 0.1])):
        assert space.encode(pd.DataFrame({"a": column})).tolist() == [[1.0], [0.0]]


def test_candidates_in_single_precision_are_those_that_are_written() -> None:
    offers = pd.DataFrame({"price": np.array([0.1, 0.2], "float32")})
    space = TreatmentSpace.from_candidates(offers, {"price": 0.1})
    assert [space.describe(row) for row in space.candidates] == ["price = 0.1", "price = 0.2"]
