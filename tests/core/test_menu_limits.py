from __future__ import annotations

import numpy as np
import pytest
from menus import Budget, budget_price, keeps_shares, spending
from oracles import Limits, integer_program

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

pytestmark = pytest.mark.long

STEPS = TreatmentSpace.from_dict(
    {
        n: {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0}
        for n in ("a", "b")
    }
)
PLANE = TreatmentSpace.from_dict(
    {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")}
)
PROFIT = Profit("1", "0.2 * a + 0.1 * b")
PSI = PROFIT.psi(STEPS.candidates, Basis("quadratic", STEPS))
COSTS = Profit("0", "-(0.2 * a + 0.1 * b)").psi(STEPS.candidates, Basis("quadratic", STEPS))


def _units(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.uniform(0, 2, (n, 2)),
            -rng.uniform(0.5, 1, n),
            np.full(n, 0.1),
            -rng.uniform(0.5, 1, n),
        ]
    )


LIMITS = [
    {"max_share": 0.4},
    {"min_share": 0.3},
    {"min_share": 0.2, "max_share": 0.45},
    {"min_share": [0.2, 0.3, 0.5], "max_share": [0.2, 0.3, 0.5]},
    {"max_share": {7: 0.1, 12: 0.05, 11: 0.1}},
    {"min_share": {0: 0.2, 24: 0.3}},
    {"budget": 0.15},
    {"budget": 0.12, "max_share": 0.5},
    {"always_offer": [{"a": 2.0, "b": 2.0}], "min_share": 0.2},
]


def _oracle_limits(limits: dict, allowed: np.ndarray | None = None) -> Limits:
    """Return the oracle's form of limits as ``choose_menu`` takes them on the steps."""
    required = [
        int(np.flatnonzero((STEPS.candidates == [row["a"], row["b"]]).all(axis=1))[0])
        for row in limits.get("always_offer", ())
    ]
    return Limits(
        lower=limits.get("min_share", 0.0),
        upper=limits.get("max_share", 1.0),
        spending=COSTS,
        budget=limits.get("budget", np.inf),
        required=required,
        allowed=allowed,
    )


def _shares_limited(limits: dict) -> dict:
    return {name: limits[name] for name in ("min_share", "max_share") if name in limits}


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_search_by_transport_reaches_the_integer_program(limits: dict, seed: int) -> None:
    theta = _units(60, seed)
    menu = choose_menu(theta, space=STEPS, basis="quadratic", profit=PROFIT, k=3, **limits)
    oracle = integer_program(theta, PSI, 3, _oracle_limits(limits))
    if "budget" in limits:
        # units are whole: a budget leaves a rest, and which units use it best is not searched
        np.testing.assert_array_equal(menu.encoded, STEPS.candidates[sorted(oracle.rows)])
        gain = menu.granular_value - menu.control_value
        assert oracle.value - 0.005 * gain <= menu.value <= oracle.bound + 1e-9
    else:
        assert menu.value == pytest.approx(oracle.value, abs=1e-9)
    assert menu.upper_bound >= oracle.value - 1e-9
    chosen = menu.assign(theta)
    np.testing.assert_allclose(np.bincount(chosen, minlength=3) / 60, menu.shares, atol=1e-12)
    assert keeps_shares(menu, menu.shares, STEPS, **_shares_limited(limits))
    assert profit_matrix(theta, menu.psi)[np.arange(60), chosen].mean() == pytest.approx(menu.value)
    assert spending(menu) <= limits.get("budget", np.inf) + 1e-12


def test_positions_take_their_masses_exactly() -> None:
    theta = _units(1_000)
    menu = choose_menu(
        theta,
        space=PLANE,
        basis="quadratic",
        profit=PROFIT,
        k=3,
        min_share=[0.5, 0.2, 0.3],
        max_share=[0.5, 0.2, 0.3],
    )
    assert sorted(np.bincount(menu.assign(theta)).tolist()) == [200, 300, 500]
    free = choose_menu(theta, space=PLANE, basis="quadratic", profit=PROFIT, k=3)
    assert menu.value <= free.value
    assert menu.value <= menu.upper_bound
    assert not free.prices.any()
    assert free.limits is None


def test_limits_that_bind_nobody_cost_nothing() -> None:
    theta = _units(800)
    arguments = {"space": PLANE, "basis": "quadratic", "profit": PROFIT, "k": 3}
    free = choose_menu(theta, **arguments)
    loose = choose_menu(theta, min_share=0.01, max_share=0.99, budget=10.0, **arguments)
    assert loose.value == pytest.approx(free.value, rel=1e-6)
    assert not loose.prices.any()
    assert budget_price(loose) == 0


def test_price_of_the_budget_is_what_one_more_unit_of_it_earns() -> None:
    theta = _units(1_500)
    arguments = {"space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": 4}
    menus = [choose_menu(theta, budget=limit, **arguments) for limit in (0.1, 0.102)]
    np.testing.assert_array_equal(menus[0].encoded, menus[1].encoded)
    for menu, limit in zip(menus, (0.1, 0.102), strict=True):
        assert spending(menu) == pytest.approx(limit, abs=1e-3)
    worth = (menus[1].value - menus[0].value) / (spending(menus[1]) - spending(menus[0]))
    assert budget_price(menus[1]) * 0.9 <= worth <= budget_price(menus[0]) * 1.1
    assert "one more of budget" in str(menus[0])


@pytest.mark.parametrize("limit", [0.08, 0.11, 0.13])
def test_budgets_between_two_menus_reach_the_integer_program(limit: float) -> None:
    theta = _units(400, 0)
    menu = choose_menu(theta, space=STEPS, basis="quadratic", profit=PROFIT, k=4, budget=limit)
    oracle = integer_program(theta, PSI, 4, Limits(spending=COSTS, budget=limit))
    assert menu.value >= oracle.value - 1e-3 * (menu.granular_value - menu.control_value)
    assert menu.value <= oracle.bound + 1e-9
    assert menu.upper_bound >= oracle.value


@pytest.mark.parametrize(
    ("paid", "least"),
    [(Profit("0", "0.2 * a + 0.1 * b"), 0.0999), (Profit("0.2 * a", "0"), 0.07)],
)
def test_one_treatment_for_all_keeps_a_budget(paid: Profit, least: float) -> None:
    menu = choose_menu(
        _units(500),
        space=PLANE,
        basis="quadratic",
        profit=PROFIT,
        k=1,
        budget=Budget(0.1, paid),
    )
    # no price leads between two treatments where spending bends the other way than profit
    assert least < spending(menu) <= 0.1 * (1 + 1e-9)
    assert menu.value <= menu.upper_bound


def test_budget_on_what_success_costs() -> None:
    theta = _units(1_000)
    paid = Budget(0.05, Profit("0.2 * a", "0"))
    menu = choose_menu(
        theta, space=STEPS, basis="quadratic", profit=Profit("1 - 0.2 * a", "0"), k=3, budget=paid
    )
    chosen = menu.encoded[menu.assign(theta)]
    expected = np.einsum(
        "ij,ij->i",
        np.column_stack(
            [np.ones(1_000), chosen, chosen[:, 0] ** 2, chosen.prod(axis=1), chosen[:, 1] ** 2]
        ),
        theta,
    )
    assert (0.2 * chosen[:, 0] * expected).mean() == pytest.approx(spending(menu))
    assert spending(menu) <= 0.05 + 1e-12
    assert budget_price(menu) > 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_share": 0.4}, "asks for 1.2 of the population.*nearest feasible minimum is 0.333"),
        ({"max_share": 0.3}, "leaves 0.1 of the population.*k = 3 is 0.333"),
        ({"min_share": 0.3, "max_share": 0.2}, "min_share 0.3 is above max_share 0.2"),
        ({"min_share": [0.2, 0.2]}, "has 2 numbers, expected one, or 3"),
        ({"max_share": 1.5}, "expected a share between 0 and 1"),
        ({"min_share": {99: 0.1}}, "no candidate row 99; rows are 0 to 24"),
        ({"min_share": {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.1}}, "puts 4 candidates on a menu of 3"),
        ({"budget": -0.1}, "budget -0.1 is below 0, .*nearest feasible budget is 0"),
    ],
)
def test_limits_that_cannot_be_met_are_refused_with_the_nearest_that_can(
    limits: dict, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        choose_menu(_units(50), space=STEPS, basis="quadratic", profit=PROFIT, k=3, **limits)


ELIGIBLE_LIMITS = [
    {"max_share": 0.4},
    {"min_share": 0.2, "max_share": 0.45},
    {"min_share": [0.2, 0.3, 0.5], "max_share": [0.2, 0.3, 0.5]},
    {"min_share": {18: 0.2}},
    {"budget": 0.15},
    {"budget": 0.12, "max_share": 0.5},
]


@pytest.mark.parametrize("limits", ELIGIBLE_LIMITS, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eligibility_holds_within_limits_at_about_the_profit_of_the_integer_program(
    limits: dict, seed: int
) -> None:
    theta, rng = _units(60, seed), np.random.default_rng(seed)
    eligible = {"a > 1": rng.random(60) < 0.5, "b > 0.5": rng.random(60) < 0.7}
    arguments = {
        "space": STEPS,
        "basis": "quadratic",
        "profit": PROFIT,
        "k": 3,
        "eligible": eligible,
        **limits,
    }
    menu = choose_menu(theta, **arguments)
    a, b = STEPS.candidates.T
    allowed = (eligible["a > 1"][:, None] | (a <= 1)) & (eligible["b > 0.5"][:, None] | (b <= 0.5))
    oracle = integer_program(theta, PSI, 3, _oracle_limits(limits, allowed))
    # 15 of these 18 are equal; two exchanges at once are not tried
    assert menu.value >= oracle.value - 0.01 * (menu.granular_value - menu.control_value)
    assert menu.value <= oracle.bound + 1e-9
    assert menu.upper_bound >= oracle.value - 1e-9
    chosen = menu.assign(theta, eligible=eligible)
    given = menu.encoded[chosen]
    assert (given[~eligible["a > 1"], 0] <= 1).all()
    assert (given[~eligible["b > 0.5"], 1] <= 0.5).all()
    shares = np.bincount(chosen, minlength=3) / 60
    np.testing.assert_allclose(shares, menu.shares, atol=1e-12)
    assert keeps_shares(menu, shares, STEPS, **_shares_limited(limits))
    assert spending(menu) <= limits.get("budget", np.inf) + 1e-12


def test_exact_masses_and_eligibility_hold_together_between_candidates() -> None:
    theta, rng = _units(3_000), np.random.default_rng(3)
    eligible = {"a > 0.7": rng.random(3_000) < 0.8}
    masses = [0.1, 0.2, 0.3, 0.4]
    menu = choose_menu(
        theta,
        space=PLANE,
        basis="quadratic",
        profit=PROFIT,
        k=4,
        eligible=eligible,
        min_share=masses,
        max_share=masses,
    )
    chosen = menu.assign(theta, eligible=eligible)
    assert sorted(np.bincount(chosen).tolist()) == [300, 600, 900, 1_200]
    assert (menu.encoded[chosen][~eligible["a > 0.7"], 0] <= 0.7).all()
    assert (menu.encoded[:, 0] > 0.7).any()
    assert menu.value <= menu.upper_bound


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        # rows 15 to 24 of the candidates are a = 1.5 and 2
        (
            {"min_share": {24: 0.4}},
            r"a = 2, b = 2 has a minimum share of 0\.4, and 0\.3 .* feasible minimum is 0\.3",
        ),
        (
            {"min_share": 0.3, "always_offer": [{"a": 2.0, "b": 0.0}, {"a": 1.5, "b": 0.0}]},
            "nearest feasible minimum is 0",
        ),
        (
            {"max_share": 0.5, "k": 2, "always_offer": [{"a": 2.0, "b": 0.0}]},
            r"a maximum share of 0\.5.*maximum is 0\.7",
        ),
        (
            {"min_share": {24: 0.3}, "budget": 0.1},
            r"budget 0\.1 is too small on a menu of 3 .*feasible budget is 0\.18$",
        ),
        (
            {"budget": 0.1, "eligible": {"a < 1.5": np.arange(60) % 10 < 3}},
            r"budget 0\.1 is too small.*budget is 0\.21",
        ),
    ],
)
def test_limits_that_eligibility_does_not_allow_are_refused_with_the_nearest_that_it_does(
    limits: dict, message: str
) -> None:
    eligible = {"a > 1": np.arange(60) % 10 < 3}
    arguments = {
        "space": STEPS,
        "basis": "quadratic",
        "profit": PROFIT,
        "k": 3,
        "eligible": eligible,
        **limits,
    }
    with pytest.raises(InvalidInputError, match=message):
        choose_menu(_units(60), **arguments)
