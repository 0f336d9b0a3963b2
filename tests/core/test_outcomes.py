"""Profit of two outcomes with a cost of each unit: menus and honest values at the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from oracles import enumeration

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu, honest_values
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.problem.limits import Budget
from coarse_spark.errors import InvalidInputError

SPACE = TreatmentSpace.from_dict(
    {"voucher": {"kind": "continuous", "lower": 0, "upper": 10, "step": 2, "control": 0}}
)
BASIS = Basis("quadratic", SPACE)
PROFIT = Profit(
    margin={"spend": "rate", "redeemed": "-voucher"},
    cost="where(voucher > 0, postage, 0)",
    unit_columns=["rate", "postage"],
)
COMMON = {"space": SPACE, "basis": "quadratic", "profit": PROFIT}


@dataclass(frozen=True)
class Trial:
    """An experiment whose truth is known."""

    X: pd.DataFrame
    units: pd.DataFrame
    theta: dict[str, np.ndarray]
    T: np.ndarray
    y: dict[str, np.ndarray]

    @property
    def profits(self) -> np.ndarray:
        """(n, J) at the truth, by the formula."""
        phi, voucher = BASIS(SPACE.candidates), SPACE.candidates[:, 0]
        rate, postage = self.units[["rate"]].to_numpy(), self.units[["postage"]].to_numpy()
        paid = voucher * (self.theta["redeemed"] @ phi.T)
        return rate * (self.theta["spend"] @ phi.T) - paid - postage * (voucher > 0)


def trial(count: int, seed: int) -> Trial:
    """Spend rises with the voucher, and who spends more for one also redeems it."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.uniform(-1, 1, (count, 3)), columns=["a", "b", "c"])
    a, b, c = X.to_numpy().T
    units = pd.DataFrame({"rate": 0.35 + 0.15 * b, "postage": rng.uniform(0.2, 1.0, count)})
    spend = np.column_stack([30 + 5 * c, 2.6 + 2.2 * a, -0.10 - 0.04 * a])
    redeemed = np.column_stack([np.zeros(count), 0.04 + 0.02 * a, np.zeros(count)])
    T = SPACE.candidates[rng.integers(0, len(SPACE.candidates), count), 0]
    phi = BASIS(T[:, None])
    bought = rng.random(count) < (phi * redeemed).sum(axis=1)
    y = (
        (phi * spend).sum(axis=1)
        + rng.normal(0, 4, count)
        + 6 * (bought - (phi * redeemed).sum(axis=1))
    )
    return Trial(
        X,
        units,
        {"spend": spend, "redeemed": redeemed},
        T,
        {"spend": y, "redeemed": bought.astype(float)},
    )


@pytest.fixture(scope="module")
def learned() -> tuple[Trial, dict[str, np.ndarray]]:
    """New units, and what was learned of each outcome from an experiment with others."""
    past, new = trial(20_000, seed=1), trial(6_000, seed=2)
    found = {}
    for name, y in past.y.items():
        learner = ResponseLearner(space=SPACE, basis="quadratic", learner="sieve", scale="additive")
        found[name] = learner.fit(past.X, pd.DataFrame({"voucher": past.T}), y).predict(new.X)
    return new, found


@pytest.mark.parametrize("k", [2, 3])
def test_learned_menus_earn_nearly_what_the_best_one_does(
    learned: tuple[Trial, dict[str, np.ndarray]], k: int
) -> None:
    new, theta = learned
    menu = choose_menu(theta, k=k, units=new.units, **COMMON)
    rows = [SPACE.candidates[:, 0].tolist().index(v) for v in menu.encoded[:, 0]]
    taken = np.array(rows)[menu.assign(theta, units=new.units)]
    earned = new.profits[np.arange(len(taken)), taken].mean()
    best = enumeration(new.profits, np.eye(len(SPACE.candidates), len(SPACE.candidates) + 1), k)
    assert best.value * 0.995 <= earned <= best.value
    # ... of which a good part is there only for who looks at both outcomes and at costs
    revenue = choose_menu(
        theta["spend"], k=k, space=SPACE, basis="quadratic", profit=Profit("0.35")
    )
    others = [SPACE.candidates[:, 0].tolist().index(v) for v in revenue.encoded[:, 0]]
    without = new.profits[np.arange(len(taken)), np.array(others)[revenue.assign(theta["spend"])]]
    assert without.mean() < best.value * 0.97


def test_honest_values_of_two_outcomes_hold_the_truth_and_count_them_together(
    learned: tuple[Trial, dict[str, np.ndarray]],
) -> None:
    new, theta = learned
    menus = [choose_menu(theta, k=k, units=new.units, **COMMON) for k in (1, 3)]
    T = pd.DataFrame({"voucher": new.T})
    found = honest_values(theta, T, new.y, menus, units=new.units, **COMMON)
    menu = found.policy_values.query("policy == 'menu' and k == 3").iloc[0]
    rows = np.array([SPACE.candidates[:, 0].tolist().index(v) for v in menus[1].encoded[:, 0]])
    taken = rows[menus[1].assign(theta, units=new.units)]
    truth = new.profits[np.arange(len(taken)), taken].mean()
    assert abs(menu["value"] - truth) < 4 * menu["se"]
    assert found.lack_of_fit.p_value > 1e-4
    # by hand: scores of both outcomes are added up before the error is taken
    phi, voucher = BASIS(new.T[:, None]), SPACE.candidates[taken, 0]
    turned = phi @ np.linalg.inv(phi.T @ phi / len(phi))
    outcome = {}
    for name, y in new.y.items():
        residual = y - (phi * theta[name]).sum(axis=1)
        debiased = theta[name] + turned * residual[:, None]
        outcome[name] = (BASIS(voucher[:, None]) * debiased).sum(axis=1)
    earned = new.units["rate"].to_numpy() * outcome["spend"], -voucher * outcome["redeemed"]
    score = sum(earned) - new.units["postage"].to_numpy() * (voucher > 0)
    assert menu["value"] == pytest.approx(score.mean())
    assert menu["se"] == pytest.approx(score.std(ddof=1) / np.sqrt(len(score)), rel=1e-6)
    # who redeems spends more, which pays for a part of what it costs
    apart = np.sqrt(sum(np.var(part) for part in earned) / len(score))
    assert menu["se"] < 0.995 * apart


def test_an_outcome_that_some_lack_counts_by_those_who_have_it(
    learned: tuple[Trial, dict[str, np.ndarray]],
) -> None:
    new, theta = learned
    menu = choose_menu(theta, k=2, units=new.units, **COMMON)
    rows = np.array([SPACE.candidates[:, 0].tolist().index(v) for v in menu.encoded[:, 0]])
    taken = rows[menu.assign(theta, units=new.units)]
    truth = new.profits[np.arange(len(taken)), taken].mean()
    T = pd.DataFrame({"voucher": new.T})
    strata = np.where(new.X["a"] > 0, "high", "low")
    # a bad prediction, so that the corrections count; who is known depends on treatment and stratum
    guess = {**theta, "redeemed": 0.5 * theta["redeemed"]}
    chance = np.where(strata == "high", 0.9, 0.4) - 0.02 * new.T
    known = np.random.default_rng(6).random(len(chance)) < chance
    y = {**new.y, "redeemed": np.where(known, new.y["redeemed"], np.nan)}
    common = {**COMMON, "units": new.units, "strata": strata}
    whole, part = (
        honest_values(guess, T, one, [menu], **common).policy_values.query("k == 2").iloc[0]
        for one in (new.y, y)
    )
    for found in (whole, part):
        assert abs(found["value"] - truth) < 4 * found["se"]
    assert whole["se"] < part["se"] < 2 * whole["se"]
    # who lacks the outcome has not one of 0
    zeros = {**y, "redeemed": np.nan_to_num(y["redeemed"])}
    naive = honest_values(guess, T, zeros, [menu], **common).policy_values.query("k == 2").iloc[0]
    assert abs(naive["value"] - truth) > 6 * naive["se"]
    nobody = {**y, "redeemed": np.full(len(T), np.nan)}
    with pytest.raises(InvalidInputError, match="missing or infinite outcomes"):
        honest_values(guess, T, nobody, [menu], **common)


def test_outcomes_have_to_be_those_of_the_margin() -> None:
    few = trial(30, seed=3)
    menu = choose_menu(few.theta, k=1, units=few.units, **COMMON)
    T = pd.DataFrame({"voucher": few.T})
    with pytest.raises(InvalidInputError, match=r"y is of \['spend'\], expected the outcomes"):
        honest_values(few.theta, T, {"spend": few.y["spend"]}, [menu], units=few.units, **COMMON)
    with pytest.raises(InvalidInputError, match=r"shape \(30,\), expected \(n, 2\)"):
        honest_values(few.theta, T, few.y["spend"], [menu], units=few.units, **COMMON)
    with pytest.raises(InvalidInputError, match="theta of redeemed has shape"):
        choose_menu({**few.theta, "redeemed": few.T}, k=1, units=few.units, **COMMON)
    with pytest.raises(InvalidInputError, match="names no outcome"):
        Profit(margin={})
    budget = Budget(1.0, Profit({"redeemd": "voucher"}))
    with pytest.raises(InvalidInputError, match=r"unknown outcome 'redeemd' .did you mean 'redee"):
        choose_menu(few.theta, k=1, units=few.units, budget=budget, **COMMON)
    with pytest.raises(InvalidInputError, match="per unit of outcome, and there are several"):
        choose_menu(few.theta, k=1, units=few.units, budget=Budget(1.0, Profit("1")), **COMMON)


def test_outcomes_come_in_any_table_that_names_them() -> None:
    few = trial(60, seed=3)
    T = pd.DataFrame({"voucher": few.T})
    one, bare = Profit({"spend": "0.5"}), Profit("0.5")
    known = np.array([*few.y["spend"]])
    missing = pd.DataFrame({name: pd.array(y, dtype="Float64") for name, y in few.y.items()})
    missing.loc[3, "redeemed"] = pd.NA
    whole = missing.astype(object)  # with pd.NA in it

    def control(profit: Profit, y: object) -> float:
        of = {"space": COMMON["space"], "basis": COMMON["basis"], "profit": profit}
        units = few.units if profit.unit_columns else None
        theta = few.theta if len(profit.outcomes) > 1 else few.theta["spend"]
        menu = choose_menu(theta, k=1, units=units, **of)
        found = honest_values(theta, T, y, [menu], units=units, **of)
        return float(found.policy_values.set_index("policy").loc["control", "value"])

    expected = control(one, known)
    for profit, y in (
        (one, {"spend": known}),
        (one, pd.DataFrame({"spend": known})),
        (bare, known),
        (bare, {"spend": known}),
        (bare, pd.DataFrame({"other": known})),
        (bare, known.astype(object)),
    ):
        assert control(profit, y) == expected
    both = COMMON["profit"]
    by_hand = {**few.y, "redeemed": np.where(np.arange(60) == 3, np.nan, few.y["redeemed"])}
    assert control(both, whole) == control(both, missing) == control(both, by_hand)
    with pytest.raises(InvalidInputError, match=r"y is of \['other'\], expected .* \['spend'\]"):
        control(one, pd.DataFrame({"other": known}))
    with pytest.raises(InvalidInputError, match=r"y has outcomes of the shapes \(60,\), \(59,\)"):
        control(both, {**few.y, "redeemed": few.y["redeemed"][1:]})
    with pytest.raises(InvalidInputError, match="y of spend: found 'much', expected real numbers"):
        control(both, {**few.y, "spend": ["much"] * 60})
