"""Comparisons with levels that can never hold are refused, wherever expressions are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarse_spark import Profit, TreatmentSpace
from coarse_spark.core.expressions import Expression
from coarse_spark.core.menu.problem.limits import Limit
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import eligibility_rules
from coarse_spark.errors import ExpressionError

SPEC: dict[str, dict[str, Any]] = {
    "arm": {"kind": "categorical", "levels": ["0", "10", "20"], "control": "0"},
    "gift": {"kind": "categorical", "levels": ["none", "mug"], "control": "none"},
    "share": {"kind": "categorical", "levels": [0.0, 0.1, 0.3], "control": 0.0},
    "price": {"kind": "continuous", "values": [40, 60, 100], "control": 0},
    "depth": {"kind": "continuous", "lower": 0, "upper": 30, "step": 15, "control": 0},
}
SPACE = TreatmentSpace.from_dict(SPEC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "where(arm == 10, 5, 0)",
            "'where(arm == 10, 5, 0)' compares 'arm' with 10, which is none of its levels (did you "
            "mean '10'?); its levels: '0', '10', '20'",
        ),
        ("arm != 0", "compares 'arm' with 0, which is none of its levels (did you mean '0'?)"),
        ("0 != arm", "compares 'arm' with 0, which is none of its levels (did you mean '0'?)"),
        ("gift == 'mgu'", "compares 'gift' with 'mgu', which is none of its levels (did you mean"),
        ("gift == '10'", "compares 'gift' with '10', which is none of its levels; its levels"),
        ("share == '0.1'", "compares 'share' with '0.1', which is none of its levels"),
        ("share == 0.1 + 0.2", "with 0.1 + 0.2, which is none of its levels (did you mean 0.3?)"),
        ("price == 50", "compares 'price' with 50, which is none of its levels (did you mean"),
        ("gift == arm", "compares names that have no level in common, in 'gift == arm'"),
        ("arm == depth", "compares 'arm', whose levels are texts, with a number"),
        ("depth == 'mug'", "compares a number with the text 'mug', in 'depth == 'mug''"),
        ("arm > 5", "orders the levels of arm, which are texts, in 'arm > 5'"),
        ("0 < depth == arm", "compares 'arm', whose levels are texts, with a number"),
        ("where(gift, 1, 0)", "takes 'gift' for a number or a condition, whose levels are texts"),
        ("not gift", "takes 'gift' for a number or a condition, whose levels are texts"),
        ("2 * arm", "takes 'arm' for a number or a condition, whose levels are texts"),
    ],
)
def test_what_can_never_hold_is_refused_wherever_it_is_given(text: str, message: str) -> None:
    def refused(call: Any) -> None:
        with pytest.raises(ExpressionError) as caught:
            call()
        assert message in str(caught.value)

    refused(lambda: TreatmentSpace.from_dict(SPEC, exclude=text))
    refused(lambda: eligibility_rules([text], SPACE, 1.0, [0.5]))
    refused(lambda: MenuProblem.build(SPACE, "levels * linear", Profit(cost=text)))
    refused(lambda: MenuProblem.build(SPACE, "levels * linear", Profit(margin=text)))
    problem = MenuProblem.build(SPACE, "levels * linear", Profit())
    refused(lambda: problem.with_totals([Limit("x", Profit(cost=text), at_most=1.0)]))


@pytest.mark.parametrize(
    "text",
    [
        "where(arm == '10', 5, 0) + 0.1 * depth",
        "'10' != arm and gift == 'mug'",
        "share == 0.3 or share > 0.2",
        "2 * share + (share == 1 / 10)",
        "price == 60 or price == 0",
        "depth == 7.123",
        "share == depth / 100",
        "(gift == 'mug') * (price > 50)",
    ],
)
def test_what_can_hold_is_taken(text: str) -> None:
    SPACE.check(Expression(text))


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5, unique=True),
    st.text(max_size=5),
)
def test_equality_is_refused_exactly_where_no_treatment_is_equal(
    levels: list[str], value: str
) -> None:
    space = TreatmentSpace.from_dict(
        {"arm": {"kind": "categorical", "levels": levels, "control": levels[0]}}
    )
    expression = Expression(f"arm == {value!r}")
    holds = expression.evaluate(space.columns(space.candidates), len(levels)).any()
    if holds:
        space.check(expression)
        return
    with pytest.raises(ExpressionError, match="which is none of its levels"):
        space.check(expression)
    np.testing.assert_equal(value in levels, False)
