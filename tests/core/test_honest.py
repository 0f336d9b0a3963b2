"""Honest values in memory: by hand, at the truth, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu, honest_values
from coarse_spark.core.menu.menu import Menu
from coarse_spark.errors import InvalidInputError
from coarse_spark.simulate.field import field_simulation

SPACE = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "letter"], "control": "none"}}
)
ARMS = {"space": SPACE, "basis": "arms", "profit": Profit(cost="where(arm == 'letter', 0.2, 0)")}
BOX = TreatmentSpace.from_dict({"t1": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}})
PRICE = TreatmentSpace.from_dict(
    {"t": {"kind": "continuous", "lower": 0, "upper": 100, "control": 0}}
)
FIELD = {"space": BOX, "basis": "quadratic", "profit": Profit(cost="0.3 * t1")}


def arms(units: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Menu]]:
    """Predictions, arms, outcomes, and menus of one and two arms."""
    rng = np.random.default_rng(seed)
    theta = np.column_stack([np.ones(units), 1 + rng.normal(0.3, 0.5, units)])
    arm = rng.integers(0, 2, units)
    y = theta[np.arange(units), arm] + rng.normal(size=units)
    return theta, arm, y, [choose_menu(theta, k=k, **ARMS) for k in (1, 2)]


def names(arm: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"arm": np.array(["none", "letter"])[arm]})


def test_with_one_column_an_arm_they_are_augmented_inverse_propensity_weighting() -> None:
    theta, arm, y, menus = arms(400, seed=0)
    given = menus[1].treatments["arm"].eq("letter").to_numpy()[menus[1].assign(theta)].astype(int)
    rows = np.arange(len(y))
    share = np.array([np.mean(arm == number) for number in (0, 1)])
    residual = (y - theta[rows, arm]) / share[arm] * (arm == given)
    score = theta[rows, given] + residual - 0.2 * given

    found = honest_values(theta, names(arm), y, menus, **ARMS)

    value = found.policy_values.query("policy == 'menu' and k == 2").iloc[0]
    assert value["value"] == pytest.approx(score.mean())
    assert value["se"] == pytest.approx(score.std(ddof=1) / 20)
    assert value["n"] == 400
    # full personalization has nothing beyond the two arms
    granular = found.contrasts.query("policy == 'menu' and versus == 'granular' and k == 2")
    assert granular["difference"].iloc[0] == pytest.approx(0, abs=1e-12)


def test_intervals_of_a_learned_menu_hold_the_truth() -> None:
    covered = []
    for seed in range(12):
        trial = field_simulation(1_200, dimensions=1, seed=seed)
        learn, judge = np.arange(1_200) < 600, np.arange(1_200) >= 600
        learner = ResponseLearner(learner="sieve", space=BOX, scale="additive")
        learner.fit(trial.X[learn], trial.T[learn], trial.y[learn])
        theta = learner.predict(trial.X[judge])
        menu = choose_menu(theta, k=3, **FIELD)
        found = honest_values(theta, trial.T[judge], trial.y[judge], [menu], **FIELD)
        given = menu.treatments["t1"].to_numpy()[menu.assign(theta)]
        phi = np.column_stack([np.ones_like(given), given, given**2])
        earned = float(np.mean((phi * trial.theta[judge]).sum(axis=1) - 0.3 * given))
        row = found.policy_values.query("policy == 'menu'").iloc[0]
        covered.append(row["ci_low"] < earned < row["ci_high"])
    assert sum(covered) >= 9  # of 12; fewer has a chance of 2 in 1,000 at 95 %


def test_strata_and_weights_count_as_repeated_rows_do() -> None:
    theta, arm, y, menus = arms(300, seed=1)
    strata = np.where(theta[:, 1] > 1.3, "high", "low")
    twice = np.repeat(np.arange(300), 2)
    options = {"strata": strata[twice], **ARMS}
    weighted = honest_values(
        theta, names(arm), y, menus, weights=np.full(300, 2.0), strata=strata, **ARMS
    )
    repeated = honest_values(
        theta[twice], names(arm[twice]), y[twice], menus, groups=twice, **options
    )
    columns = ["value", "se"]
    assert np.allclose(weighted.policy_values[columns], repeated.policy_values[columns])
    # the same rows taken for independent ones look surer than they are
    alone = honest_values(theta[twice], names(arm[twice]), y[twice], menus, **options)
    assert (alone.policy_values["se"] < 0.75 * repeated.policy_values["se"]).all()


def test_rows_of_weight_0_are_no_rows() -> None:
    theta, arm, y, menus = arms(300, seed=1)
    labels = {"strata": np.where(theta[:, 1] > 1.3, "high", "low"), "groups": np.arange(300) // 2}
    counts = np.arange(300) >= 20
    zero = honest_values(
        theta,
        names(arm),
        np.where(counts, y, np.nan),
        menus,
        weights=counts.astype(float),
        **labels,
        **ARMS,
    )
    some = {name: column[counts] for name, column in labels.items()}
    without = honest_values(theta[counts], names(arm)[counts], y[counts], menus, **some, **ARMS)
    pd.testing.assert_frame_equal(zero.policy_values, without.policy_values)


def test_a_basis_that_misses_the_response_is_told() -> None:
    trial = field_simulation(4_000, dimensions=1, seed=0)
    fits, y = {}, trial.y - 2 * trial.T["t1"].to_numpy() ** 2
    for basis in ("linear", "quadratic"):
        learner = ResponseLearner(basis=basis, learner="sieve", space=BOX, scale="additive")
        theta = learner.fit(trial.X[::2], trial.T[::2], y[::2]).predict(trial.X[1::2])
        problem = {**FIELD, "basis": basis}
        menus = [choose_menu(theta, k=2, **problem)]
        for groups in (None, np.arange(2_000)):
            found = honest_values(theta, trial.T[1::2], y[1::2], menus, groups=groups, **problem)
            fits[basis, groups is None] = found.lack_of_fit.p_value
    assert fits["linear", True] < 1e-6
    assert fits["linear", False] < 1e-6
    assert fits["quadratic", True] > 0.05
    assert fits["quadratic", False] > 0.05


def test_the_best_single_treatment_needs_no_menu_of_one() -> None:
    theta, arm, y, menus = arms(300, seed=2)
    both, one = (honest_values(theta, names(arm), y, some, **ARMS) for some in (menus, menus[1:]))
    alone, beside = (
        found.policy_values.query("policy == 'uniform'").reset_index(drop=True)
        for found in (one, both)
    )
    # of another number of policies, matrix products may add up in another order
    pd.testing.assert_frame_equal(alone, beside, rtol=1e-12, atol=0)


@pytest.mark.parametrize("prices", [(50.0, 50.0), (50.0, 50.001)])
def test_a_stratum_that_does_not_identify_the_basis_is_merged_and_told(
    prices: tuple[float, float], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    T, strata = rng.uniform(0, 100, 2_000), np.arange(2_000) // 50
    T[:2], strata[:2] = prices, 999
    x = rng.normal(size=2_000)
    theta = np.column_stack([np.ones(2_000), 0.03 + 0.01 * x])
    y = 1 + theta[:, 1] * T + rng.normal(size=2_000)
    problem = {"space": PRICE, "basis": "linear", "profit": Profit(cost="0.03 * t")}
    menus = [choose_menu(theta, k=1, **problem)]
    found = honest_values(theta, T, y, menus, strata=strata, **problem).policy_values
    control = found.set_index("policy").loc["control"]
    assert abs(control["value"] - 1) < 3 * control["se"] < 0.2
    (told,) = caplog.messages
    assert told.startswith("honest values: 1 of 41 strata does not identify 'linear' (999 (2 uni")


def test_too_few_units_for_a_standard_error_are_refused() -> None:
    theta, arm, y, menus = arms(50, seed=3)
    with pytest.raises(InvalidInputError, match="1 cluster in groups, expected at least 2"):
        honest_values(theta, names(arm), y, menus, groups=np.zeros(50), **ARMS)
    groups, weights = np.arange(50) // 49, np.arange(50) < 49
    with pytest.raises(InvalidInputError, match="1 cluster in groups, expected at least 2"):
        honest_values(theta, names(arm), y, menus, groups=groups, weights=weights, **ARMS)
    with pytest.raises(InvalidInputError, match="1 unit, expected at least 2"):
        honest_values(theta[:1], names(arm[:1]), y[:1], menus, **ARMS)


def test_what_cannot_be_judged_is_refused() -> None:
    theta, arm, y, menus = arms(50, seed=3)
    T = names(arm)
    with pytest.raises(InvalidInputError, match=r"y has 49 rows and theta 50"):
        honest_values(theta, T, y[1:], menus, **ARMS)
    with pytest.raises(InvalidInputError, match="missing or infinite outcomes"):
        honest_values(theta, T, np.where(y > 0, y, np.nan), menus, **ARMS)
    with pytest.raises(InvalidInputError, match=r"K = \[1, 2, 2\], expected different sizes"):
        honest_values(theta, T, y, [*menus, menus[1]], **ARMS)
    few = choose_menu(theta, k=2, eligible={"arm == 'letter'": np.arange(50) > 9}, **ARMS)
    with pytest.raises(InvalidInputError, match="eligibility or a switching cost"):
        honest_values(theta, T, y, [few], **ARMS)


@pytest.mark.parametrize(("apart", "spread"), [(30, 0), (0, 0), (0, 10)])
def test_a_basis_is_not_blamed_for_what_responses_miss_of_strata(apart: int, spread: int) -> None:
    """The basis is right. Baselines of strata are half learned, and treatments may go with them."""
    rng = np.random.default_rng(0)
    stratum = rng.integers(0, 3, 6_000)
    T = rng.normal(50 + apart * (stratum - 1), 6 + spread * (stratum == 1))
    T = np.clip(T, 0, 100)
    base = np.array([0, 3.0, 0])[stratum]
    theta = np.column_stack([1 + 0.5 * base, np.full(6_000, 0.03)])
    y = 1 + base + 0.03 * T + rng.normal(size=6_000)
    problem = {"space": PRICE, "basis": "linear", "profit": Profit(cost="0.03 * t")}
    menus = [choose_menu(theta, k=1, **problem)]
    fit = honest_values(theta, T, y, menus, strata=stratum, **problem).lack_of_fit
    if apart or spread:
        assert fit.untested.startswith("strata were treated differently")
        assert fit.degrees == 0
        assert np.isnan(fit.p_value)
    else:
        assert fit.degrees == 28
        assert fit.p_value > 0.01
        curved = y + 0.01 * (T - 50) ** 2
        found = honest_values(theta, T, curved, menus, strata=stratum, **problem)
        assert found.lack_of_fit.p_value < 1e-6
