"""Profit with columns of the units: the expansion, and menus that it makes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import enumeration

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.basis import Basis
from coarse_spark.core.expressions import Expression
from coarse_spark.core.menu.problem.limits import Budget
from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.core.separable import ONE, expanded
from coarse_spark.errors import ExpressionError, InvalidInputError

TREATMENTS = st.sampled_from(["t", "s"])
UNITS = st.sampled_from(["v", "w"])
NUMBERS = st.floats(0.5, 3.0).map(lambda value: f"{value:.3g}")


def _of(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Any expression in some names."""
    return st.recursive(
        names | NUMBERS,
        lambda part: st.one_of(
            st.builds("({} {} {})".format, part, st.sampled_from("+-*/"), part),
            st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), part, part),
            st.builds("exp(-abs({}))".format, part),
            st.builds("({} > {})".format, part, part),
        ),
        max_leaves=4,
    )


ONE_SIDED = _of(TREATMENTS) | _of(UNITS)
SEPARABLE = st.recursive(
    ONE_SIDED,
    lambda part: st.one_of(
        st.builds("({} {} {})".format, part, st.sampled_from("+-*"), part),
        st.builds("(-{})".format, part),
        st.builds("({} / {})".format, part, ONE_SIDED),
        st.builds("({})**2".format, part),
        st.builds("where({}, {}, {})".format, ONE_SIDED, part, part),
    ),
    max_leaves=5,
)


@given(text=SEPARABLE)
@settings(max_examples=80, deadline=None)
def test_the_terms_of_an_expression_add_up_to_it(text: str) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(0.5, 2, 20) for name in "tsvw"}
    expression = Expression(text)
    terms = expanded(expression, ["v", "w"])
    total = np.zeros(20)
    size = np.zeros(20)
    for term in terms:
        assert term.treatment.names <= {"t", "s"}
        assert term.unit.names <= {"v", "w"}
        with np.errstate(all="ignore"):
            part = term.treatment.evaluate(columns, 20) * term.unit.evaluate(columns, 20)
        total, size = total + part, size + np.abs(part)
    direct = expression.evaluate(columns, 20)
    finite = np.isfinite(direct) & np.isfinite(size)
    assert (np.abs(total - direct)[finite] <= 1e-9 * (1 + size[finite])).all()
    assert len({term.unit.text for term in terms}) == len(terms)


def test_an_expression_without_columns_stays_as_it_is() -> None:
    expression = Expression("where(t > 1, 2 * t, 0) - 3")
    (term,) = expanded(expression, ["v"])
    assert term.treatment is expression
    assert term.unit == ONE


@pytest.mark.parametrize("text", ["max(price, floor)", "exp(price * floor)", "price > floor"])
def test_what_does_not_expand_is_refused_with_the_column_to_prepare(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"prepare .* floor_at_5 .*where\(price == 5, floor"):
        Profit(margin=text, unit_columns=["floor"])


def best_value(profits: np.ndarray, k: int) -> float:
    """What the best k of the candidates earn a unit, by enumeration of profits (n, J)."""
    return enumeration(profits, np.eye(profits.shape[1], profits.shape[1] + 1), k).value


SPACE = TreatmentSpace.from_dict(
    {
        "tech_support": {"kind": "categorical", "levels": [0, 1], "control": 0},
        "discount": {"kind": "categorical", "levels": [0, 1], "control": 0},
    }
)
SOFTWARE = Profit(
    margin="1",
    cost="100 * pc_count * tech_support + 0.1 * size * discount",
    unit_columns=["pc_count", "size"],
)


def customers(count: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Expected revenue by arm, and what treatments cost depends on."""
    rng = np.random.default_rng(seed)
    units = pd.DataFrame(
        {"pc_count": rng.poisson(9, count), "size": rng.gamma(2, 30_000, count).round()}
    )
    size = units["size"].to_numpy()
    base = 3_000 + 0.02 * size
    support = rng.gamma(2, 500, count)
    discount = 0.1 * size * rng.uniform(0.2, 2.0, count)
    both = support + discount - 300
    return np.column_stack([base, base + discount, base + support, base + both]), units


def test_two_yes_or_no_treatments_with_a_cost_of_each_customer() -> None:
    theta, units = customers(600, seed=1)
    arms = SPACE.decode(SPACE.candidates)
    pcs, size = (units[[name]].to_numpy() for name in ("pc_count", "size"))
    support, cut = (arms[name].to_numpy()[None, :] for name in ("tech_support", "discount"))
    profits = theta - 100 * pcs * support - 0.1 * size * cut
    for k in (1, 2, 3):
        menu = choose_menu(theta, space=SPACE, basis="arms", profit=SOFTWARE, k=k, units=units)
        truth = best_value(profits, k)
        assert menu.value == pytest.approx(truth, rel=1e-9)
        assert menu.upper_bound >= menu.value - 1e-9
        taken = menu.assign(theta, units=units)
        columns = SPACE.candidates.tolist()
        position = [columns.index(row) for row in menu.encoded.tolist()]
        assert profits[np.arange(600), np.array(position)[taken]].mean() == pytest.approx(truth)
    assert menu.granular_value == pytest.approx(profits.max(axis=1).mean())


def test_margins_of_units_make_the_menu_that_scaled_responses_make() -> None:
    rng = np.random.default_rng(2)
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
    )
    theta = np.column_stack([np.ones(300), rng.normal(1.5, 0.5, 300), np.full(300, -0.5)])
    units = pd.DataFrame({"margin": rng.uniform(0.5, 2, 300)})
    profit = Profit(margin="margin * (1 - t / 10)", cost="0.3 * t", unit_columns=["margin"])
    common = {"space": space, "basis": "quadratic", "k": 3}
    mine = choose_menu(theta, profit=profit, units=units, **common)
    scaled = theta * units.to_numpy()
    theirs = choose_menu(scaled, profit=Profit("1 - t / 10", "0.3 * t"), **common)
    assert mine.value == pytest.approx(theirs.value, rel=1e-9)
    np.testing.assert_allclose(mine.encoded, theirs.encoded, atol=1e-6)
    assert mine.assign(theta, units=units).tolist() == theirs.assign(scaled).tolist()


def test_a_budget_counts_what_each_unit_costs() -> None:
    theta, units = customers(500, seed=3)
    common = {"space": SPACE, "basis": "arms", "profit": SOFTWARE, "k": 3, "units": units}
    open_ = choose_menu(theta, **common)
    menu = choose_menu(theta, budget=400.0, **common)
    taken = menu.treatments.iloc[menu.assign(theta, units=units)].reset_index(drop=True)
    spent = 100 * units["pc_count"] * taken["tech_support"].astype(int)
    spent += 0.1 * units["size"] * taken["discount"].astype(int)
    assert spent.mean() <= 400 + 1e-6
    assert menu.value < open_.value
    assert menu.limits is not None
    assert menu.limits.spending == pytest.approx(spent.mean(), abs=1e-6)
    only = Budget(3.0, Profit("0", "pc_count * tech_support", unit_columns=["pc_count"]))
    menu = choose_menu(theta, budget=only, **{**common, "profit": Profit()})
    taken = menu.treatments.iloc[menu.assign(theta, units=units)].reset_index(drop=True)
    assert (units["pc_count"] * taken["tech_support"].astype(int)).mean() <= 3.0 + 1e-9


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, r"units is missing: profit speaks of the columns \['rate'\]"),
        (pd.DataFrame({"rat": [1.0, 2.0]}), r"'rate' of profit is missing.*did you mean 'rat'"),
        (pd.DataFrame({"rate": [1.0, np.nan]}), r"'rate' is missing or infinite for 1 of 2.*row 1"),
        (pd.DataFrame({"rate": ["1", "2"]}), r"'rate': found '1', expected real numbers"),
        (pd.DataFrame({"rate": [1.0]}), r"'rate' has shape \(1,\), expected \(2,\)"),
    ],
)
def test_columns_of_units_that_cannot_be_used(units: pd.DataFrame | None, message: str) -> None:
    space = TreatmentSpace.from_dict({"a": {"kind": "categorical", "levels": [0, 1], "control": 0}})
    profit = Profit(cost="rate * a", unit_columns=["rate"])
    with pytest.raises(InvalidInputError, match=message):
        choose_menu(np.eye(2), space=space, basis="arms", profit=profit, k=1, units=units)


def test_names_of_treatments_and_columns_are_told_apart() -> None:
    with pytest.raises(InvalidInputError, match="'discount' is a treatment and among the unit_col"):
        Profit(unit_columns=["discount"]).check(SPACE)
    with pytest.raises(ExpressionError, match=r"unknown name 'pc_cont'.*known names: disc"):
        Profit(cost="pc_cont * discount", unit_columns=["pc_count"]).check(SPACE)


def test_profit_of_several_outcomes_is_that_of_each_together() -> None:
    space = TreatmentSpace.from_dict(
        {"voucher": {"kind": "continuous", "lower": 0, "upper": 10, "step": 1, "control": 0}}
    )
    rng = np.random.default_rng(4)
    spend = np.column_stack(
        [rng.gamma(2, 20, 400), rng.normal(2, 1, 400), -rng.uniform(0, 0.2, 400)]
    )
    redeemed = np.column_stack([np.zeros(400), rng.uniform(0.02, 0.1, 400), np.zeros(400)])
    profit = Profit(
        margin={"spend": "rate", "redeemed": "-voucher"}, cost="0.1", unit_columns=["rate"]
    )
    units = pd.DataFrame({"rate": rng.uniform(0.2, 0.6, 400)})
    phi = Basis("quadratic", space)(space.candidates)
    paid = space.candidates[:, 0] * (redeemed @ phi.T)
    profits = units.to_numpy() * (spend @ phi.T) - paid - 0.1
    theta = {"redeemed": redeemed, "spend": spend}
    for k in (1, 2, 3):
        menu = choose_menu(theta, space=space, basis="quadratic", profit=profit, k=k, units=units)
        assert menu.value == pytest.approx(best_value(profits, k), rel=1e-9)
    side = choose_menu(
        np.hstack([spend, redeemed]),
        space=space,
        basis="quadratic",
        profit=profit,
        k=3,
        units=units,
    )
    assert side.value == menu.value
    with pytest.raises(InvalidInputError, match="expected those of the profit's margin"):
        menu.assign({"spend": spend}, units=units)


def test_coefficients_begin_with_the_responses() -> None:
    profit = Profit(margin="price * (1 - fee)", cost="fee * price + 2", unit_columns=["fee"])
    found = ProfitCoefficients.of(2, [profit])
    theta, fee = np.array([[3.0, 4.0]]), np.array([[0.25]])
    values = found.extended(theta, found.factor_values(fee))
    assert values.tolist() == [[3.0, 4.0, 0.75 * 3, 0.75 * 4, 0.25]]
    assert ProfitCoefficients.of(2, [Profit("price")]).plain


def test_units_whose_factor_is_no_number_are_left_out_on_request() -> None:
    profit = Profit(margin="2 - 0 * t", cost="t / size", unit_columns=["size"])
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
    )
    theta = np.tile([[0, 1.0, -0.5], [0, 2.0, -0.5]], (4, 1))
    size = np.array([np.nan, 1, 2, 3, 0, 1, 2, 3])
    arguments = {"space": space, "basis": "quadratic", "profit": profit, "k": 2}
    units = pd.DataFrame({"size": size})
    found = choose_menu(theta, units=units, invalid="drop", **arguments)
    kept = size > 0
    expected = choose_menu(theta[kept], units=units[kept], **arguments)
    assert found.value == expected.value
    with pytest.raises(InvalidInputError, match=r"'1 / size' of profit .* the first in row 3;"):
        choose_menu(theta[1:], units=units[1:], **arguments)
