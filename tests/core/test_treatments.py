"""Treatment spaces: what is offered and refused, and that users' values survive round trips."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark import Profit, choose_menu
from coarse_spark.core.treatments import Categorical, Continuous, TreatmentSpace
from coarse_spark.errors import ExpressionError, InvalidInputError

numbers = st.integers(-1000, 1000).map(lambda n: n / 4)
levels = st.one_of(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(-9, 9), min_size=1, max_size=5, unique=True),
    st.just([True, False]),
    st.just(["none", 5, 2.5]),
)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        choices = draw(levels)
        return {"kind": "categorical", "levels": choices, "control": draw(st.sampled_from(choices))}
    if draw(st.booleans()):
        control = draw(numbers)
        offered = draw(st.lists(numbers, min_size=1, max_size=5, unique=True))
        if offered == [control]:
            offered.append(control + 1)
        return {"kind": "continuous", "values": offered, "control": control}
    lower = draw(numbers)
    width = draw(st.integers(1, 40)) / 4
    step = draw(st.one_of(st.none(), st.sampled_from([width, width / 2, width / 3, width / 7])))
    control = draw(st.one_of(st.just(lower), st.just(lower + width), numbers))
    return {
        "kind": "continuous",
        "lower": lower,
        "upper": lower + width,
        "step": step,
        "control": control,
    }


spaces = st.lists(entries(), min_size=1, max_size=2).map(
    lambda items: TreatmentSpace.from_dict(
        {f"t{position}": entry for position, entry in enumerate(items)}
    )
)


@settings(max_examples=100, deadline=None)
@given(spaces)
def test_candidates_survive_decode_and_encode(space: TreatmentSpace) -> None:
    decoded = space.decode(space.candidates)
    np.testing.assert_array_equal(space.encode(decoded), space.candidates)
    for dimension in space.dimensions:
        if isinstance(dimension, Categorical):
            offered = set(decoded[dimension.name])
            assert {(type(level), level) for level in map(_plain, offered)} == {
                (type(level), level) for level in dimension.levels
            }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@settings(max_examples=100, deadline=None)
@given(spaces)
def test_a_space_survives_json(space: TreatmentSpace) -> None:
    restored = TreatmentSpace.restore(json.loads(json.dumps(space.to_dict())))
    assert restored == space
    np.testing.assert_array_equal(restored.candidates, space.candidates)


@settings(max_examples=100, deadline=None)
@given(spaces)
def test_the_control_is_a_candidate_and_the_others_are_offered(space: TreatmentSpace) -> None:
    is_control = (space.candidates == space.control).all(axis=1)
    assert is_control.sum() == 1
    np.testing.assert_array_equal(
        is_control, np.isclose(space.candidates, space.control, rtol=0, atol=1e-9).all(axis=1)
    )
    others = space.candidates[~is_control]
    assert (others >= space.bounds[:, 0] - 1e-9).all()
    assert (others <= space.bounds[:, 1] + 1e-9).all()
    assert len(np.unique(space.candidates, axis=0)) == len(space.candidates)


def test_steps_are_offered_as_people_write_them() -> None:
    space = TreatmentSpace.from_dict(
        {"tinc": {"kind": "continuous", "lower": 0, "upper": 2.84, "step": 0.1, "control": 0}}
    )
    assert space.candidates[:, 0].tolist() == [round(0.1 * step, 1) for step in range(29)]
    assert not space.continuous.any()
    assert space.spacing.tolist() == [0.0]


def test_only_listed_values_are_offered_in_the_order_of_numbers() -> None:
    ask = {"kind": "continuous", "values": [100, 40, 500, 60], "control": 40}
    space = TreatmentSpace.from_dict({"ask": ask})
    assert space.candidates[:, 0].tolist() == [40.0, 60.0, 100.0, 500.0]
    assert space.bounds.tolist() == [[40.0, 500.0]]
    assert not space.continuous.any()
    assert space.spacing.tolist() == [0.0]
    assert space.describe(space.control) == "ask = 40"
    # a control that is none of the values is a candidate as a whole, not a value of the grid
    cells = TreatmentSpace.from_dict(
        {
            "ratio": {"kind": "continuous", "values": [1, 2, 3], "control": 0},
            "ask": {"kind": "continuous", "values": [40, 100], "control": 0},
        }
    )
    assert cells.candidates.tolist() == [[r, a] for r in (1, 2, 3) for a in (40, 100)] + [[0, 0]]


def test_menus_of_listed_values_are_those_of_the_same_steps() -> None:
    price = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}
    depths = ({"lower": 0, "upper": 30, "step": 10}, {"values": [30, 10, 0, 20]})
    theta = np.random.default_rng(0).normal(size=(400, 6)) * [1, 0.1, 1, -0.005, 0.05, -1]
    menus = [
        choose_menu(
            theta,
            space=TreatmentSpace.from_dict(
                {"depth": {"kind": "continuous", "control": 0} | depth, "price": price}
            ),
            basis="quadratic",
            profit=Profit(margin="1 - price / 2", cost="0.01 * depth"),
            k=3,
        )
        for depth in depths
    ]
    pd.testing.assert_frame_equal(menus[0].treatments, menus[1].treatments)
    assert menus[0].value == menus[1].value
    assert menus[0].upper_bound == menus[1].upper_bound


def test_a_grid_without_steps_leaves_room_for_all_other_dimensions() -> None:
    depth = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}
    many = {"kind": "categorical", "levels": list(range(100)), "control": 0}
    space = TreatmentSpace.from_dict({"depth": depth, "shop": many})
    assert len(space.candidates) == 200 * 100
    assert space.spacing[0] == pytest.approx(1 / 199)
    assert len(TreatmentSpace.from_dict({f"t{j}": depth for j in range(9)}).candidates) == 3**9


def test_a_rounded_step_on_the_control_is_the_control() -> None:
    third = {"kind": "continuous", "lower": 0, "upper": 1, "step": 1 / 3, "control": 1 / 3}
    space = TreatmentSpace.from_dict({"t": third}, exclude="t < 0.5")
    assert space.candidates[:, 0].tolist() == [1 / 3, pytest.approx(2 / 3), 1.0]


def test_an_unstepped_dimension_is_searched_between_candidates() -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}}
    )
    assert len(space.candidates) == 257
    assert space.continuous.all()
    np.testing.assert_allclose(np.diff(space.candidates[:, 0]), space.spacing[0])


def test_an_exclusion_leaves_the_control_and_what_it_lets_through() -> None:
    spec = {
        "depth": {"kind": "continuous", "lower": 0, "upper": 30, "step": 10, "control": 0},
        "channel": {"kind": "categorical", "levels": ["mail", "phone"], "control": "mail"},
    }
    space = TreatmentSpace.from_dict(
        spec, exclude="where(channel == 'phone', depth < 20, depth < 10)"
    )
    assert [tuple(row) for row in space.decode(space.candidates).to_numpy().tolist()] == [
        (0.0, "mail"),
        (10.0, "mail"),
        (20.0, "mail"),
        (20.0, "phone"),
        (30.0, "mail"),
        (30.0, "phone"),
    ]
    assert TreatmentSpace.restore(space.to_dict()) == space


def test_a_finite_list_keeps_its_order_and_gets_the_control() -> None:
    frame = pd.DataFrame({"depth": [20.0, 5.0], "channel": ["mail", "phone"]})
    space = TreatmentSpace.from_candidates(frame, control={"depth": 0, "channel": "none"})
    decoded = space.decode(space.candidates)
    assert decoded["depth"].tolist() == [20.0, 5.0, 0.0]
    assert decoded["channel"].tolist() == ["mail", "phone", "none"]
    assert not space.continuous.any()
    restored = TreatmentSpace.restore(json.loads(json.dumps(space.to_dict())))
    np.testing.assert_array_equal(restored.candidates, space.candidates)
    # the control is not added twice
    again = TreatmentSpace.from_candidates(decoded, control={"depth": 0, "channel": "none"})
    assert len(again.candidates) == 3


def test_a_finite_list_leaves_out_what_is_excluded_but_never_the_control() -> None:
    frame = pd.DataFrame({"price": [9, 8, 7, 5], "gift": ["none", "mug", "none", "mug"]})
    space = TreatmentSpace.from_candidates(
        frame, {"price": 9, "gift": "none"}, exclude="price > 7 and price < 99 or gift == 'mug'"
    )
    assert space.decode(space.candidates).to_numpy().tolist() == [[9.0, "none"], [7.0, "none"]]
    assert TreatmentSpace.restore(json.loads(json.dumps(space.to_dict()))) == space
    assert space.dimensions[0] == Continuous.of_values("price", [5, 7, 8, 9], 9)


def test_arrays_and_frames_encode_alike() -> None:
    space = TreatmentSpace.from_dict(
        {"a": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}}
    )
    np.testing.assert_array_equal(
        space.encode(np.array([0.5, 1.0])),
        space.encode(pd.DataFrame({"a": [0.5, 1.0], "b": [9, 9]})),
    )


def test_describe_reads_as_people_write() -> None:
    space = TreatmentSpace.from_dict(
        {
            "depth": {"kind": "continuous", "lower": 0, "upper": 40, "control": 0},
            "arm": {"kind": "categorical", "levels": ["a", "b"], "control": "a"},
        }
    )
    assert space.describe(np.array([12.5, 1.0])) == "depth = 12.5, arm = b"


CONTINUOUS = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"kind": "continous"},
            "treatment 't': kind is 'continous', expected continuous or categorical (did you mean "
            "'continuous'?)",
        ),
        (CONTINUOUS | {"stepp": 1}, "treatment 't': unknown key 'stepp' (did you mean 'step'?)"),
        (
            {"kind": "continuous", "lower": 0, "upper": 1},
            "treatment 't': 'control' is missing; a continuous dimension needs",
        ),
        (CONTINUOUS | {"upper": 0}, "treatment 't': lower 0 is not below upper 0"),
        (
            CONTINUOUS | {"step": 2},
            "treatment 't': step is 2, expected above 0 and at most upper - lower = 1",
        ),
        (CONTINUOUS | {"step": -1}, "treatment 't': step is -1, expected above 0"),
        (
            CONTINUOUS | {"upper": float("inf")},
            "treatment 't': upper is inf, expected a finite number",
        ),
        (
            CONTINUOUS | {"lower": "low"},
            "treatment 't': lower, upper, control and step must be numbers",
        ),
        (
            {"kind": "continuous", "values": [1, 2, 1], "control": 0},
            "treatment 't': values are [1.0, 2.0, 1.0], expected distinct numbers",
        ),
        (
            {"kind": "continuous", "values": [0], "control": 0},
            "treatment 't': values are [0.0], expected others than the control",
        ),
        (
            {"kind": "continuous", "values": [1, float("nan")], "control": 0},
            "treatment 't': values are [1.0, nan], expected finite numbers",
        ),
        (
            {"kind": "continuous", "values": ["low"], "control": 0},
            "treatment 't': values and control must be numbers, found",
        ),
        (CONTINUOUS | {"values": [0, 1]}, "treatment 't': unknown key 'lower' beside values"),
        (
            {"kind": "categorical", "levels": [], "control": "a"},
            "treatment 't': levels are [], expected distinct values",
        ),
        (
            {"kind": "categorical", "levels": ["a", "a"], "control": "a"},
            "treatment 't': levels are ['a', 'a'], expected distinct",
        ),
        (
            {"kind": "categorical", "levels": ["mail", "phone"], "control": "mial"},
            "treatment 't': control 'mial' is not one of the levels (did you mean 'mail'?)",
        ),
    ],
)
def test_bad_dimensions(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        TreatmentSpace.from_dict({"t": entry})
    assert str(caught.value).startswith(message)


def test_bad_spaces() -> None:
    with pytest.raises(InvalidInputError, match="no dimensions"):
        TreatmentSpace.from_dict({})
    with pytest.raises(InvalidInputError, match="treatment names are not unique: t, t"):
        TreatmentSpace((Continuous("t", 0, 1, 0), Continuous("t", 0, 1, 0)))
    with pytest.raises(ExpressionError, match="unknown name 'dept'"):
        TreatmentSpace.from_dict({"depth": CONTINUOUS}, exclude="dept > 1")
    with pytest.raises(
        InvalidInputError, match=r"the exclusion 'log\(t - 2\)' is not a number at t = 0"
    ):
        len(TreatmentSpace.from_dict({"t": CONTINUOUS}, exclude="log(t - 2)").candidates)
    grid = CONTINUOUS | {"step": 0.01}
    with pytest.raises(
        InvalidInputError,
        match="the treatment grid has 101 x 101 x 101 = 1030301 points, at most 20000",
    ):
        len(TreatmentSpace.from_dict({"a": grid, "b": grid, "c": grid}).candidates)


def test_an_exclusion_of_everything_but_an_outside_control_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match="no treatment is left after the exclusion 't >= 0'"
    ):
        len(
            TreatmentSpace.from_dict(
                {"t": CONTINUOUS | {"control": -1}}, exclude="t >= 0"
            ).candidates
        )


@pytest.mark.parametrize(
    ("frame", "control", "message"),
    [
        (pd.DataFrame(), {}, "the list of candidates is empty"),
        (
            pd.DataFrame({"a": [1.0, 2.0]}),
            {"b": 0},
            "control names b; expected a value for each of a",
        ),
        (
            pd.DataFrame({"a": [1.0, None]}),
            {"a": 0},
            "candidate column 'a' has missing values in rows 1",
        ),
        (pd.DataFrame({"a": [1.0, 2.0, 1.0]}), {"a": 0}, "candidate rows 2 repeat earlier rows"),
        (
            pd.DataFrame({"a": [1.0, 2.0]}),
            {"a": "none"},
            "control is 'none' in column 'a', whose candidates are numbers; expected a number",
        ),
        (
            pd.DataFrame({"a": range(20_001)}),
            {"a": 0},
            "the list of candidates has 20001 rows, at most 20000 are searched",
        ),
    ],
)
def test_bad_candidate_lists(frame: pd.DataFrame, control: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TreatmentSpace.from_candidates(frame, control)


def test_bad_treatments() -> None:
    space = TreatmentSpace.from_dict(
        {
            "depth": CONTINUOUS,
            "arm": {"kind": "categorical", "levels": ["mail", "phone"], "control": "mail"},
        }
    )
    with pytest.raises(
        InvalidInputError, match=r"treatment column 'depth' is missing \(did you mean 'dept'\?\)"
    ):
        space.encode(pd.DataFrame({"dept": [1.0], "arm": ["mail"]}))
    with pytest.raises(
        InvalidInputError,
        match=r"treatment 'arm' has the unknown level 'fone' \(did you mean 'phone'\?\) in rows 1",
    ):
        space.encode(pd.DataFrame({"depth": [1.0, 1.0], "arm": ["mail", "fone"]}))
    with pytest.raises(InvalidInputError, match="treatment 'depth' holds 'high', expected numbers"):
        space.encode(pd.DataFrame({"depth": ["high"], "arm": ["mail"]}))
    with pytest.raises(
        InvalidInputError, match=r"treatments have shape \(3, 1\), expected \(n, 2\)"
    ):
        space.encode(np.zeros(3))


def test_a_grid_of_more_points_than_python_writes_is_one_sentence() -> None:
    many = {
        f"t{number}": {"kind": "categorical", "levels": [0, 1], "control": 0}
        for number in range(14_300)
    }
    space = TreatmentSpace.from_dict(many)
    told = (
        r"^the treatment grid has 2 x 2 x 2 x 2 x 2 x 2 x ... \(14300 treatments\) points, at most"
    )
    with pytest.raises(InvalidInputError, match=told):
        _ = space.candidates


def test_candidates_that_are_decimals_are_numbers() -> None:
    for values in ([Decimal("1.5"), Decimal("2")], [Decimal("1.5"), 2], [1.5, 2.0]):
        space = TreatmentSpace.from_candidates(
            pd.DataFrame({"price": pd.Series(values, dtype=object)}), {"price": Decimal("2")}
        )
        assert space.dimensions == (Continuous.of_values("price", [1.5, 2.0], 2.0),)
    flags = TreatmentSpace.from_candidates(pd.DataFrame({"mail": [True, False]}), {"mail": False})
    assert isinstance(flags.dimensions[0], Categorical)


@pytest.mark.parametrize("name", ["price, net", "price (net)", " price", "price ", ""])
def test_names_that_a_basis_cannot_name(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        TreatmentSpace.from_dict({name: CONTINUOUS})
    assert f"found the name {name!r}, expected one without , ( ) and spaces" in str(caught.value)


def test_whole_numbers_that_no_float_holds() -> None:
    with pytest.raises(InvalidInputError, match="treatment 't': upper is inf, expected a finite"):
        TreatmentSpace.from_dict({"t": CONTINUOUS | {"upper": 10**400}})
    space = TreatmentSpace.from_dict({"t": CONTINUOUS})
    column = pd.Series([10**400], dtype=object)
    with pytest.raises(InvalidInputError, match="treatment 't' holds a number beyond 1e308"):
        space.encode(pd.DataFrame({"t": column}))
