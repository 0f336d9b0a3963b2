import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.errors import InvalidInputError


def frame(n: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    income = rng.lognormal(size=n)
    income[::7] = np.nan
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": income,
            "region": rng.choice(["north", "south", "east"], n),
            "vip": rng.random(n) < 0.3,
            "flat": 3.0,
            "price": [Decimal(str(round(v, 2))) for v in rng.random(n)],
            "small": rng.random(n).astype(np.float32),
        }
    )


def test_columns_are_centred_and_the_constant_feature_is_dropped():
    X = frame()
    encoder = FeatureEncoder.fit(X)
    f = encoder.transform(X)
    assert f.shape == (400, len(encoder.columns))
    assert (f[:, 0] == 1).all()
    np.testing.assert_allclose(
        f[:, 1:].mean(axis=0), 0, atol=0.02
    )  # clamping moves a mean a little where values are missing
    assert encoder.dropped == ["flat"]
    assert ("income missing", "level", "income") in encoder.columns


def test_a_row_is_encoded_the_same_whatever_rows_are_beside_it():
    X = frame(5_000)
    X.loc[::3, "region"] = None
    encoder = FeatureEncoder.fit(X.iloc[:400])
    X.loc[::5, "region"] = "unseen"
    encoder = encoder.with_products(encoder.pairs[::3])
    f = encoder.transform(X)
    for rows in ([4_999, 0, 7, 2_048], [2_047, 5, 4_096]):
        np.testing.assert_array_equal(encoder.transform(X.iloc[rows]), f[rows])
    blocks = list(encoder.blocks(X))
    assert [block.start for block, _ in blocks[1:]] == [block.stop for block, _ in blocks[:-1]]
    np.testing.assert_array_equal(np.vstack([part for _, part in blocks]), f)
    assert encoder.transform(X.iloc[:0]).shape == (0, f.shape[1])


def test_a_missing_value_sits_at_the_centre_of_its_splines():
    X = frame()
    encoder = FeatureEncoder.fit(X)
    labels = [label for label, _, _ in encoder.columns]
    f = encoder.transform(X.iloc[:1])
    income = [
        j
        for j, label in enumerate(labels)
        if label.startswith("income") and label != "income missing"
    ]
    assert (f[0, income] == 0).all()
    assert f[0, labels.index("income missing")] > 0.5


def test_survives_json_and_ignores_row_order():
    X = frame()
    encoder = FeatureEncoder.fit(X)
    again = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    shuffled = FeatureEncoder.fit(X.sample(frac=1, random_state=1))
    np.testing.assert_allclose(shuffled.transform(X), encoder.transform(X), atol=1e-12)


def test_rare_levels_share_other_with_unseen_ones():
    levels = ["a"] * 100 + ["b"] * 80 + ["rare1"] * 3 + ["rare2"] * 2
    encoder = FeatureEncoder.fit(pd.DataFrame({"c": levels}), min_level_rows=10)
    assert [label for label, _, _ in encoder.columns] == ["1", "c = a", "c = b", "c = other"]
    f = encoder.transform(pd.DataFrame({"c": ["rare1", "never seen"]}))
    np.testing.assert_array_equal(f[0], f[1])


def test_an_unseen_level_without_other_is_the_average_unit():
    encoder = FeatureEncoder.fit(pd.DataFrame({"c": ["a", "b"] * 50}))
    np.testing.assert_array_equal(encoder.transform(pd.DataFrame({"c": ["z"]})), [[1, 0, 0]])


def test_whole_number_levels_do_not_depend_on_missing_neighbours():
    encoder = FeatureEncoder.fit(pd.DataFrame({"c": pd.Series([1, 2] * 50, dtype="category")}))
    with_gap = pd.DataFrame({"c": pd.Series([1.0, np.nan, 2.0]).astype(object).astype("category")})
    f = encoder.transform(with_gap)
    np.testing.assert_array_equal(f[0], encoder.transform(pd.DataFrame({"c": [1]}))[0])


@settings(deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_float_gives_finite_clamped_columns(value):
    X = pd.DataFrame({"x": np.linspace(-1, 1, 101)})
    encoder = FeatureEncoder.fit(X)
    f = encoder.transform(pd.DataFrame({"x": [value]}))
    assert np.isfinite(f).all()
    assert np.abs(f).max() <= np.abs(encoder.transform(X)).max() + 1e-12


def test_bad_frames_are_named():
    encoder = FeatureEncoder.fit(frame())
    with pytest.raises(InvalidInputError, match="feature 'income' is missing"):
        encoder.transform(frame().drop(columns="income"))
    with pytest.raises(InvalidInputError, match="feature 'age' holds 'old'"):
        encoder.transform(frame().assign(age="old"))
    with pytest.raises(InvalidInputError, match=r"feature 'income' holds '0\.5', expected numbers"):
        encoder.transform(frame().assign(income="0.5"))
    for dates in (pd.date_range("2024", periods=400), pd.timedelta_range("1 day", periods=400)):
        with pytest.raises(
            InvalidInputError, match=r"feature 'age' holds Time.*, expected numbers"
        ):
            encoder.transform(frame().assign(age=dates))
    huge = pd.DataFrame({"age": pd.Series([10**400, 1, 2], dtype=object)})
    with pytest.raises(InvalidInputError, match="feature 'age' holds a number beyond 1e308"):
        FeatureEncoder.fit(huge)
    with pytest.raises(InvalidInputError, match="'when'"):
        FeatureEncoder.fit(pd.DataFrame({"when": pd.date_range("2024-01-01", periods=3)}))


@pytest.mark.parametrize("dtype", [object, "string", "category", "float64", "Int64"])
def test_a_feature_that_nobody_has_is_missing_whatever_holds_it(dtype):
    encoder = FeatureEncoder.fit(frame())
    expected = encoder.transform(frame().assign(income=np.nan))
    column = pd.Series([None] * 400, dtype=dtype)
    np.testing.assert_array_equal(encoder.transform(frame().assign(income=column)), expected)
