"""Every kind of limits with every rule, with and without a required treatment, beside an oracle.

A switching cost is one more coefficient of the unit for the oracle too, and of every treatment
but the one it had. Eligibility is told to it as what each unit may get.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from menus import keeps_shares, spending
from oracles import Best, Infeasible, Limits, integer_program

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

pytestmark = pytest.mark.long

SPACE = TreatmentSpace.from_dict(
    {
        "a": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.5, "control": 0},
        "b": {"kind": "continuous", "lower": 0, "upper": 2, "step": 1, "control": 0},
    }
)
CANDIDATES = SPACE.candidates
PROFIT = Profit("1", "0.2 * a + 0.1 * b")
PSI = PROFIT.psi(CANDIDATES, Basis("quadratic", SPACE))
COSTS = Profit("0", "-(0.2 * a + 0.1 * b)").psi(CANDIDATES, Basis("quadratic", SPACE))
UNITS, K, SWITCHING = 40, 3, 0.15
DEAREST = 0.6  # what a unit costs at most
REQUIRED = {"a": 2.0, "b": 1.0}
RULE = "a > 0.5"

LIMITS: dict[str, dict[str, Any]] = {
    "free": {},
    "max_share": {"max_share": 0.4},
    "min_share, max_share": {"min_share": 0.25, "max_share": 0.45},
    "places": {"min_share": [0.2, 0.3, 0.5], "max_share": [0.2, 0.3, 0.5]},
    "budget": {"budget": 0.15},
    "budget, max_share": {"budget": 0.15, "max_share": 0.5},
}
RULES = {
    "no rule": (False, False),
    "eligible": (True, False),
    "switching": (False, True),
    "eligible, switching": (True, True),
}


@dataclass(frozen=True)
class Problem:
    """Units with the rules that concern them.

    Attributes
    ----------
    theta : (n, p) response coefficients.
    may : (n,) whether a unit is eligible where ``RULE`` holds; None without that rule.
    arguments : of ``choose_menu``, rules included.
    had : (n, d) the treatments that units had; None without a switching cost.
    rows : (n,) the rows of these treatments on the earlier menu.
    """

    theta: np.ndarray
    may: np.ndarray | None
    arguments: dict[str, Any]
    had: np.ndarray | None
    rows: np.ndarray | None

    def given_rules(self, order: np.ndarray) -> dict[str, Any]:
        """Return what ``Menu.assign`` is told of the units in another order."""
        return {
            "eligible": None if self.may is None else {RULE: self.may[order]},
            "previous_rows": None if self.rows is None else self.rows[order],
        }

    def allowed(self) -> np.ndarray | None:
        """Return (n, J) which candidates a unit may get."""
        if self.may is None:
            return None
        return self.may[:, None] | (CANDIDATES[:, 0] <= 0.5)

    def profits(self, treatments: np.ndarray) -> np.ndarray:
        """Return (n, K) what units earn under treatments, switching costs included."""
        psi = PROFIT.psi(treatments, Basis("quadratic", SPACE))
        profits = profit_matrix(self.theta, psi)
        if self.had is not None:
            changed = (self.had[:, None, :] != treatments[None, :, :]).any(axis=2)
            profits -= SWITCHING * changed
        return profits

    def best(self, limits: dict[str, Any], required: bool) -> Best:
        """Return the oracle's menu."""
        theta, psi, costs = self.theta, PSI, COSTS
        if self.had is not None:
            earlier = np.unique(self.had, axis=0)
            theta = np.column_stack([theta, *[(self.had == row).all(axis=1) for row in earlier]])
            effects = [-SWITCHING * (row != CANDIDATES).any(axis=1) for row in earlier]
            psi = np.column_stack([psi[:, :-1], *effects, psi[:, -1]])
            nothing = np.zeros((len(psi), len(earlier)))
            costs = np.column_stack([costs[:, :-1], nothing, costs[:, -1]])
        place = (list(REQUIRED.values()) == CANDIDATES).all(axis=1)
        told = Limits(
            lower=limits.get("min_share", 0.0),
            upper=limits.get("max_share", 1.0),
            spending=costs if "budget" in limits else None,
            budget=limits.get("budget", np.inf),
            required=np.flatnonzero(place).tolist() if required else (),
            allowed=self.allowed(),
        )
        return integer_program(theta, psi, K, told)


def _units(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.normal(size=UNITS),
            rng.uniform(0, 2, (UNITS, 2)),
            -rng.uniform(0.5, 1, UNITS),
            np.full(UNITS, 0.1),
            -rng.uniform(0.5, 1, UNITS),
        ]
    )


def _problem(eligible: bool, switching: bool, seed: int = 0) -> Problem:
    theta, rng = _units(seed), np.random.default_rng(seed + 100)
    may = rng.random(UNITS) < 0.7
    arguments: dict[str, Any] = {"space": SPACE, "basis": "quadratic", "profit": PROFIT, "k": K}
    had = rows = None
    if switching:
        earlier = theta + rng.normal(0, 0.3, theta.shape)
        before = choose_menu(earlier, **arguments)
        rows = before.assign(earlier)
        had = before.encoded[rows]
        arguments |= {
            "previous_menu": before, "previous_rows": rows, "switching_cost": SWITCHING,
        }  # fmt: skip
    if eligible:
        arguments["eligible"] = {RULE: may}
    return Problem(theta, may if eligible else None, arguments, had, rows)


@pytest.mark.parametrize("required", [False, True], ids=["free places", "required"])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("limits", LIMITS)
def test_limits_and_rules_hold_together(limits: str, rules: str, required: bool) -> None:
    given, problem = LIMITS[limits], _problem(*RULES[rules])
    kept = {"always_offer": [REQUIRED]} if required else {}
    menu = choose_menu(problem.theta, **problem.arguments, **given, **kept)
    oracle = problem.best(given, required)
    chosen = menu.assign(problem.theta, **problem.given_rules(np.arange(UNITS)))
    shares = np.bincount(chosen, minlength=K) / UNITS
    taken = menu.encoded[chosen]

    # what is promised
    assert menu.k == K
    assert len(np.unique(menu.encoded, axis=0)) == K
    share_limits = {name: given[name] for name in ("min_share", "max_share") if name in given}
    # a budget's price leaves one unit indifferent, which ``assign`` may put on the other side
    border = 1 / UNITS if "budget" in given and not share_limits else 0.0
    np.testing.assert_allclose(shares, menu.shares, rtol=0, atol=border + 1e-12)
    assert keeps_shares(menu, shares, SPACE, **share_limits)
    if "budget" in given:
        spent = float((taken @ [0.2, 0.1]).mean())
        assert spending(menu) <= given["budget"] + 1e-12
        assert spending(menu) == pytest.approx(spent, abs=border * DEAREST + 1e-12)
    if required:
        assert (menu.encoded == list(REQUIRED.values())).all(axis=1).any()
    if problem.may is not None:
        assert (taken[~problem.may, 0] <= 0.5).all()
    if problem.had is not None:
        assert menu.changed_share == pytest.approx((taken != problem.had).any(axis=1).mean())
    profits = problem.profits(menu.encoded)
    value = profits[np.arange(UNITS), chosen].mean()
    assert value == pytest.approx(menu.value, abs=border * np.ptp(profits, axis=1).max() + 1e-9)
    order = np.random.default_rng(1).permutation(UNITS)
    again = menu.assign(problem.theta[order], **problem.given_rules(order))
    np.testing.assert_array_equal(again, chosen[order])

    # what it earns
    gain = menu.granular_value - menu.control_value
    assert menu.value <= menu.upper_bound
    assert menu.value <= oracle.bound + 1e-9
    assert menu.upper_bound >= oracle.value - 1e-9
    # whole units leave a rest of a budget, and which of them use it best is not searched
    rest = 0.005 * gain if "budget" in given else 0.0
    assert menu.value >= oracle.value - rest - 1e-9


@pytest.mark.parametrize("rules", RULES)
def test_assigned_units_spend_what_the_menu_says(rules: str) -> None:
    problem = _problem(*RULES[rules])
    menu = choose_menu(problem.theta, **problem.arguments, budget=0.15)
    chosen = menu.assign(problem.theta, **problem.given_rules(np.arange(UNITS)))
    spent = float((menu.encoded[chosen] @ [0.2, 0.1]).mean())
    assert spent == pytest.approx(spending(menu), abs=1e-12)
    assert spent <= 0.15 + 1e-12


@pytest.mark.parametrize(
    ("limits", "eligible", "required", "name", "message"),
    [
        ({"min_share": 0.4}, False, False, "min_share", "feasible minimum is"),
        ({"max_share": 0.3}, False, False, "max_share", "feasible maximum for k = 3 is"),
        ({"max_share": 0.34}, True, True, "max_share", "feasible maximum is"),
        ({"min_share": 0.325}, True, True, "min_share", "feasible minimum is"),
        ({"budget": -0.01}, False, False, "budget", "feasible budget is"),
        ({"budget": 0.02, "max_share": 0.4}, True, False, "budget", "feasible budget is"),
        ({"budget": 0.05, "min_share": 0.25}, False, True, "budget", "feasible budget is"),
        ({"budget": 0.05, "min_share": 0.25}, True, True, "budget", "feasible budget is"),
        ({"budget": 0.02, "max_share": 0.4}, False, True, "budget", "feasible budget is"),
    ],
)
def test_limits_that_no_menu_keeps_are_refused_with_the_nearest_that_one_does(
    limits: dict[str, Any], eligible: bool, required: bool, name: str, message: str
) -> None:
    problem = _problem(eligible, switching=False)
    if eligible:
        # fewer than a third may get what is required
        may = np.arange(UNITS) % 10 < 3
        problem = replace(
            problem, may=may, arguments={**problem.arguments, "eligible": {RULE: may}}
        )
    kept = {"always_offer": [REQUIRED]} if required else {}
    with pytest.raises(Infeasible):
        problem.best(limits, required)
    with pytest.raises(InvalidInputError, match=message) as refused:
        choose_menu(problem.theta, **problem.arguments, **limits, **kept)
    nearest = float(re.search(message + r" ([\d.]*\d)", str(refused.value))[1])
    # the message shows six digits
    nearest += {"min_share": -1e-6, "max_share": 1e-6, "budget": 1e-6}[name]
    menu = choose_menu(problem.theta, **problem.arguments, **{**limits, name: nearest}, **kept)
    oracle = problem.best({**limits, name: nearest}, required)
    if np.isfinite(oracle.value):
        assert menu.value <= oracle.bound + 1e-9
    else:
        # whole units cannot keep the limit: each treatment is off by less than one
        off = {"min_share": nearest - menu.shares, "max_share": menu.shares - nearest}[name]
        assert off.max() * UNITS < 1
