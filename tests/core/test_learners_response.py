"""What users hand to a ResponseLearner: rows that repeat, names of any type, no features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.response import ResponseLearner
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

SEGMENTS = pd.DataFrame({"seg": ["a", "b"]})
PLAIN: dict[str, Any] = {"basis": "linear", "learner": "sieve", "scale": "additive"}


def purchases(n: int = 4000) -> tuple[pd.DataFrame, Any, Any]:
    """Rows of which eight are distinct, with effects 0.15 and −0.1 on a baseline of 0.3."""
    rng = np.random.default_rng(0)
    seg, t = rng.choice(["a", "b"], n), rng.integers(0, 2, n)
    y = (rng.random(n) < 0.3 + np.where(seg == "a", 0.15, -0.10) * t).astype(float)
    return pd.DataFrame({"seg": seg}), t, y


@pytest.mark.parametrize("scale", ["auto", "relative"])
def test_rows_that_repeat_are_learned_from_as_any_others(scale: str) -> None:
    theta = ResponseLearner(basis="linear", scale=scale).fit(*purchases()).predict(SEGMENTS)
    np.testing.assert_allclose(theta, [[0.3, 0.15], [0.3, -0.10]], atol=0.04)


def test_the_order_of_rows_that_repeat_changes_nothing() -> None:
    X, t, y = purchases(1200)
    rng = np.random.default_rng(1)
    beside = {
        "sample_weight": rng.choice([1.0, 2.0], 1200),
        "strata": rng.choice(["north", "south"], 1200),
        "groups": rng.choice([*(f"house {number}" for number in range(400)), None], 1200),
    }
    order = rng.permutation(1200)
    for names in ([], ["sample_weight"], ["strata"], ["groups"], list(beside)):
        first = ResponseLearner(**PLAIN).fit(X, t, y, **{name: beside[name] for name in names})
        second = ResponseLearner(**PLAIN).fit(
            X.iloc[order], t[order], y[order], **{name: beside[name][order] for name in names}
        )
        np.testing.assert_allclose(
            second.predict(SEGMENTS), first.predict(SEGMENTS), rtol=1e-6, err_msg=str(names)
        )


def test_without_features_there_is_one_response() -> None:
    _, t, y = purchases()
    learner = ResponseLearner(basis="linear").fit(pd.DataFrame(index=range(4000)), t, y)
    theta = learner.predict(pd.DataFrame(index=range(2)))
    means = [y[t == 0].mean(), y[t == 1].mean() - y[t == 0].mean()]
    np.testing.assert_allclose(theta, [means, means], atol=0.02)


def test_names_of_columns_may_be_numbers_or_tuples() -> None:
    X, t, y = purchases(600)
    expected = ResponseLearner(**PLAIN).fit(X, t, y).predict(SEGMENTS)
    T = pd.DataFrame({0: t})
    fitted = ResponseLearner(**PLAIN).fit(X.set_axis([7], axis=1), T, y)
    assert fitted.basis_.columns == ("1", "0")
    np.testing.assert_array_equal(fitted.predict(SEGMENTS.set_axis([7], axis=1)), expected)
    levels = pd.MultiIndex.from_tuples([("unit", "seg")])
    fitted = ResponseLearner(**PLAIN).fit(X.set_axis(levels, axis=1), T, y)
    np.testing.assert_array_equal(fitted.predict(SEGMENTS.set_axis(levels, axis=1)), expected)
    space = TreatmentSpace.from_candidates(pd.DataFrame({0: [1.0, 2.0]}), {0: 1.0})
    np.testing.assert_array_equal(space.encode(pd.DataFrame({0: [2.0]})), [[2.0]])


def test_two_treatments_of_one_name() -> None:
    X, t, y = purchases(600)
    T = pd.DataFrame(np.column_stack([t, t]), columns=["mail", "mail"])
    with pytest.raises(InvalidInputError, match="treatment 'mail' occurs twice, expected it once"):
        ResponseLearner(basis="linear").fit(X, T, y)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("strata", np.zeros(601), "600 outcomes, 600 weights, 601 strata"),
        ("strata", np.zeros(599), "600 outcomes, 600 weights, 599 strata"),
        ("strata", np.zeros((600, 2)), r"strata have shape \(600, 2\), expected one for every row"),
        ("key", np.arange(599), "600 weights, 599 keys, 599 clusters"),
        ("fold", np.zeros(601, int), "600 weights, 601 folds"),
        ("cluster", np.zeros(601, int), "600 weights, 601 clusters"),
    ],
)
def test_labels_of_other_rows(name: str, labels: Any, message: str) -> None:
    X, t, y = purchases(600)
    with pytest.raises(InvalidInputError, match=message):
        TrialRows(X, t[:, None], y, **{name: labels})
    if name == "strata":
        with pytest.raises(InvalidInputError, match=message):
            ResponseLearner(basis="linear").fit(X, t, y, strata=labels)


def test_many_combinations_of_levels_are_learned_by_level() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 16, (3000, 3)) * (rng.random(3000) < 0.7)[:, None]
    T = pd.DataFrame(codes.astype(str), columns=["size", "ratio", "ask"])
    y = (codes[:, 0] > 7) + 0.1 * rng.normal(size=3000)
    learner = ResponseLearner("auto", "constant", scale="additive").fit(np.ones((3000, 1)), T, y)
    assert set(learner.basis_losses_) == {"any", "levels"}
    phi = learner.basis_(
        learner.basis_.space.encode(pd.DataFrame([["15", "3", "3"]], columns=T.columns))
    )
    np.testing.assert_allclose(phi @ learner.predict(np.ones((1, 1)))[0], 1, atol=0.1)


def test_an_outcome_that_no_float_holds() -> None:
    X, t, _ = purchases(3)
    with pytest.raises(InvalidInputError, match="outcomes: found a number beyond 1e308"):
        ResponseLearner(basis="linear").fit(X, t, [10**400, 1, 2])


@pytest.mark.parametrize(
    ("T", "columns"),
    [
        (np.arange(600) % 2, ("1", "t1")),
        (np.arange(600) % 3, ("1", "t1", "t1^2")),
        (np.column_stack([np.arange(600) % 2, np.arange(600) % 5]), ("1", "t1", "t2")),
        (pd.DataFrame({"arm": ["a", "b", "c"] * 200}), ("arm = a", "arm = b", "arm = c")),
        (
            pd.DataFrame({"arm": ["a", "b", "c"] * 200, "t": np.arange(600) % 2}),
            ("1", "arm = b", "arm = c", "t", "arm = b * t", "arm = c * t"),
        ),
        (
            pd.DataFrame({"arm": ["-", "b", "c", "b"] * 150, "ask": ["-", "d", "d", "e"] * 150}),
            ("1", "any(arm, ask)", "arm = c rather than b", "ask = e rather than d"),
        ),
    ],
)
def test_a_basis_that_nobody_asked_for_is_nobodys_mistake(T: Any, columns: Any) -> None:
    X, y = pd.DataFrame({"x": np.arange(600) % 7}), np.random.default_rng(0).normal(size=600)
    learner = ResponseLearner(learner="constant", scale="additive").fit(X, T, y)
    assert learner.basis_.columns == columns
    assert learner.basis_losses_ == {}


def test_one_cluster_is_not_outside_of_a_fold() -> None:
    X, t, y = purchases(600)
    message = "1 validation parts with rows, expected at least 2; use more rows, of more clusters"
    with pytest.raises(InvalidInputError, match=message):
        ResponseLearner(**PLAIN).fit(X, t, y, groups=np.zeros(600))
