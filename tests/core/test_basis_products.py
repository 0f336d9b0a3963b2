import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.basis import Basis, default_bases, place_knots
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

PRICE = TreatmentSpace.from_dict(
    {"price": {"kind": "continuous", "lower": 80, "upper": 100, "control": 100}}
)
OFFER = TreatmentSpace.from_dict(
    {
        "price": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0},
        "channel": {"kind": "categorical", "levels": ["post", "mail", "app"], "control": "mail"},
    }
)


def test_levels_leave_out_the_control():
    basis = Basis("levels + linear", OFFER)
    assert basis.columns == ("1", "channel = post", "channel = app", "price")
    np.testing.assert_array_equal(
        basis(np.array([[0.5, 0], [0.5, 1], [2, 2]])),
        [[1, 1, 0, 0.5], [1, 0, 0, 0.5], [1, 0, 1, 2]],
    )


def test_products_hold_both_factors_and_every_cross_term():
    basis = Basis("levels(channel) * quadratic(price)", OFFER)
    assert basis.columns[:5] == ("1", "channel = post", "channel = app", "price", "price^2")
    assert basis.columns[5:] == (
        "channel = post * price",
        "channel = post * price^2",
        "channel = app * price",
        "channel = app * price^2",
    )
    row = basis(np.array([[1.5, 2.0]]))[0]
    np.testing.assert_allclose(row, [1, 0, 1, 1.5, 2.25, 0, 0, 1.5, 2.25])


def test_arms_and_saturated_levels_span_the_same_responses():
    space = TreatmentSpace.from_dict(
        {n: {"kind": "categorical", "levels": [0, 1, 2], "control": 0} for n in ("a", "b")}
    )
    saturated, arms = Basis("levels(a) * levels(b)", space), Basis("arms", space)
    assert saturated.size == arms.size == 9
    assert np.linalg.matrix_rank(saturated(space.candidates)) == 9


@settings(deadline=None)
@given(st.lists(st.floats(81, 99), min_size=1, max_size=4, unique=True).map(sorted))
def test_splines_are_cubic_between_knots_and_linear_at_the_ends(knots):
    if min(np.diff([80, *knots, 100])) < 0.5:
        return
    basis = Basis(f"spline(price, {', '.join(str(k) for k in knots)})", PRICE)
    assert basis.size == len(knots) + 2
    step = 0.05
    for place in (80.0, 100.0):
        inside = place + np.array([0, 1, 2]) * (step if place == 80 else -step)
        phi = basis(inside[:, None])
        # the second derivative vanishes at the boundary, so the second difference is of third order
        # in the step
        assert np.abs(phi[0] - 2 * phi[1] + phi[2]).max() < 30 * (step / 20) ** 3 * 20
    grid = basis(np.linspace(80, 100, 60)[:, None])
    assert np.linalg.matrix_rank(grid / np.linalg.norm(grid, axis=0), tol=1e-9) == basis.size


def test_knots_are_placed_at_quantiles_of_the_observed_treatments():
    observed = np.linspace(80, 90, 101)[:, None]
    name = place_knots("any + spline", PRICE, observed)
    assert name == "any(price) + spline(price, 82.575, 85.05, 87.525)"
    assert Basis(name, PRICE).size == 6
    assert place_knots("quadratic", PRICE, observed) == "quadratic"
    assert place_knots(name, PRICE, observed) == name
    assert place_knots("spline", PRICE, np.array([[80.0], [90.0], [100.0]])) == "spline(price, 90)"


def test_knots_of_single_precision_are_those_that_were_meant() -> None:
    space = TreatmentSpace.from_dict(
        {"rate": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}}
    )
    observed = np.float32([0.0, 0.1, 0.3, 0.7, 0.9, 1.0])[:, None].astype(float)
    assert observed[2, 0] != 0.3
    assert place_knots("spline", space, observed) == "spline(rate, 0.25, 0.5, 0.75)"
    observed = np.float32([0.0, 0.3, 0.6, 1.0])[:, None].astype(float)
    assert place_knots("spline", space, observed) == "spline(rate, 0.375, 0.45)"
    assert place_knots("spline", PRICE, np.array([[80.0], [100.0]])) == "linear(price)"


def test_knots_of_several_dimensions_keep_products():
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": 1, "control": 0} for n in ("a", "b")}
    )
    observed = np.random.default_rng(0).random((200, 2))
    name = place_knots("spline + linear", space, observed)
    assert [term.split("(")[0] for term in Basis(name, space).terms] == [
        "spline",
        "spline",
        "linear",
    ]


def test_auto_has_bases_for_every_kind_of_space():
    for space in (PRICE, OFFER):
        for name in default_bases(space):
            Basis(name, space)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("linear", "treatment 'channel' is categorical; use basis 'arms' or 'levels \\* linear'"),
        ("levels", "treatment 'price' is in no term"),
        ("levels + quadratic(prise)", "names 'prise' \\(did you mean 'price'"),
        ("levels(price) + linear", "levels of treatment 'price', expected a categorical treatment"),
        (
            "levels + spline(price, 1, 0.5)",
            "knots are \\[1.0, 0.5\\], expected ascending numbers between 0 and 2",
        ),
        ("levels + spline(price, 2)", "expected ascending numbers between 0 and 2"),
        ("levels * ", "unknown term ''"),
    ],
)
def test_bad_names_are_explained(name, message):
    with pytest.raises(InvalidInputError, match=message):
        Basis(name, OFFER)


def numeric(*names: str) -> TreatmentSpace:
    dimension = {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}
    return TreatmentSpace.from_dict(dict.fromkeys(names, dimension))


def letters(*levels: object, names: str = "a") -> TreatmentSpace:
    dimension = {"kind": "categorical", "levels": list(levels), "control": levels[0]}
    return TreatmentSpace.from_dict(dict.fromkeys(names, dimension))


@pytest.mark.parametrize(
    ("name", "space", "label"),
    [
        ("linear", numeric("1", "b"), "1"),  # the constant is called 1
        ("quadratic", numeric("a", "b", "a b"), "a b"),
        ("levels", letters("none", 1, "1"), "a = 1"),
        ("spline(a, 0.5, 1, 1.5) + spline(a, 0.5, 1, 1.8)", numeric("a"), "spline(a, 0)"),
    ],
)
def test_no_column_is_lost_to_another_of_its_name(name, space, label):
    with pytest.raises(InvalidInputError) as caught:
        Basis(name, space)
    assert f"two different columns are called '{label}'" in str(caught.value)


def test_columns_are_the_same_by_what_they_are():
    space = numeric("a", "b")
    assert Basis("linear + quadratic(b, a)", space).columns == ("1", "a", "b", "b^2", "b a", "a^2")
    assert Basis("quadratic + quadratic(b, a)", space).size == 6
    assert Basis("quadratic + any(a, b) + any(b, a)", space).size == 7
    assert Basis("spline(a, 0.5, 1, 1.5) + spline", space).size == 9
    # names that look like columns, where there are none such
    assert Basis("linear", numeric("a", "b", "a b")).columns == ("1", "a", "b", "a b")


def test_knots_close_beside_their_size_are_kept():
    dimension = {"kind": "continuous", "lower": 1_000_000, "upper": 1_000_001, "control": 1_000_000}
    basis = Basis("spline", TreatmentSpace.from_dict({"t": dimension}))
    assert basis.columns[2:] == tuple(f"spline(t, {k})" for k in (1000000, 1000000.25, 1000000.5))


def test_auto_has_no_column_for_each_of_many_candidates():
    assert default_bases(letters(*range(50))) == ("arms",)
    assert default_bases(letters(*range(16), names="ab")) == ("levels", "arms")
    assert default_bases(letters(*range(17), names="ab")) == ("any", "levels")
    # more than are searched
    assert default_bases(letters(*range(16), names="abcdefgh")) == ("any", "levels")
