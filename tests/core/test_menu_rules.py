from __future__ import annotations

import numpy as np
import pytest

from coarse_spark.core.menu.choose import choose_menu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import eligibility_rules, refused, widest_range
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import ExpressionError, InvalidInputError

LINE = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}})
STEPS = TreatmentSpace.from_dict(
    {"t": {"kind": "continuous", "lower": 0, "upper": 2, "step": 0.25, "control": 0}}
)
PROFIT = Profit("1", "0.1 * t")


def _units(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bend = rng.uniform(0.5, 1.5, n)
    return np.column_stack([rng.normal(size=n), rng.uniform(0.2, 2.0, n) * bend, -bend / 2])


@pytest.mark.parametrize("space", [LINE, STEPS])
def test_units_never_get_what_they_are_not_eligible_for(space: TreatmentSpace) -> None:
    theta, adult = _units(400), np.random.default_rng(1).random(400) < 0.5
    eligible = {"t > 1": adult}
    menu = choose_menu(theta, space=space, basis="quadratic", profit=PROFIT, k=3, eligible=eligible)
    chosen = menu.encoded[menu.assign(theta, eligible=eligible), 0]
    assert (chosen[~adult] <= 1).all()
    assert (chosen[adult] > 1).any()
    psi = np.column_stack([np.ones(3), menu.encoded, menu.encoded**2, -0.1 * menu.encoded])
    profits = profit_matrix(theta, psi)
    profits[np.ix_(~adult, menu.encoded[:, 0] > 1)] = -np.inf
    assert profits.max(axis=1).mean() == pytest.approx(menu.value, rel=1e-9)
    assert menu.value <= menu.upper_bound
    free = choose_menu(theta, space=space, basis="quadratic", profit=PROFIT, k=3)
    assert menu.value < free.value


def test_eligibility_reaches_brute_force() -> None:
    from itertools import combinations

    theta, adult = _units(50), np.arange(50) % 3 > 0
    menu = choose_menu(
        theta, space=STEPS, basis="quadratic", profit=PROFIT, k=3, eligible={"t >= 1": adult}
    )
    t = np.arange(9) * 0.25
    profits = profit_matrix(theta, np.column_stack([np.ones(9), t, t**2, -0.1 * t]))
    profits[np.ix_(~adult, t >= 1)] = -np.inf
    best = max(profits[:, rows].max(axis=1).mean() for rows in map(list, combinations(range(9), 3)))
    assert menu.value == pytest.approx(best, abs=1e-9)


def test_units_without_any_eligible_treatment_are_reported() -> None:
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 1, "upper": 2, "step": 0.5, "control": 1}}
    )
    with pytest.raises(InvalidInputError, match="20 units may get none"):
        choose_menu(
            _units(40),
            space=space,
            basis="quadratic",
            profit=PROFIT,
            k=2,
            eligible={"t >= 1": np.arange(40) < 20},
        )


def test_rules_need_one_boolean_a_unit_and_known_names() -> None:
    arguments = {"space": LINE, "basis": "quadratic", "profit": PROFIT, "k": 2}
    with pytest.raises(InvalidInputError, match="expected 40 booleans"):
        choose_menu(_units(40), eligible={"t > 1": np.ones(3)}, **arguments)
    with pytest.raises(ExpressionError, match="unknown name 'depth'"):
        choose_menu(_units(40), eligible={"depth > 1": np.ones(40)}, **arguments)
    menu = choose_menu(_units(40), eligible={"t > 1": np.ones(40, dtype=bool)}, **arguments)
    with pytest.raises(InvalidInputError, match="rule 't > 1' is missing"):
        menu.assign(_units(40))


def test_switching_costs_keep_treatments_and_assignments() -> None:
    theta, later = (
        _units(600, 0),
        _units(600, 0) + np.random.default_rng(5).normal(0, 0.05, (600, 3)),
    )
    arguments = {"space": LINE, "basis": "quadratic", "profit": PROFIT, "k": 3}
    before = choose_menu(theta, **arguments)
    free = choose_menu(later, previous_menu=before, **arguments)
    loyal = choose_menu(later, previous_menu=before, switching_cost=0.02, **arguments)
    bound = choose_menu(later, previous_menu=before, switching_cost=100.0, **arguments)
    assert free.changed_share == 1.0  # every treatment moved a little
    assert loyal.changed_share < 0.2
    assert bound.changed_share == 0.0
    np.testing.assert_allclose(bound.encoded, before.encoded)
    moved = loyal.encoded[loyal.assign(later)] - before.encoded[before.assign(later)]
    assert (np.abs(moved[:, 0]) > 1e-9).mean() == pytest.approx(loyal.changed_share)
    assert loyal.value <= loyal.upper_bound
    assert loyal.value >= bound.value
    assert "get another treatment than before" in str(loyal)


def test_cost_of_a_treatment_chooses_the_size() -> None:
    theta = _units(500)
    arguments = {"space": LINE, "basis": "quadratic", "profit": PROFIT}
    values = {k: choose_menu(theta, k=k, **arguments).value for k in range(1, 7)}
    for cost in (0.0005, 0.005, 0.5):
        best = max(values, key=lambda k: values[k] - cost * k)
        assert choose_menu(theta, k=6, cost_per_treatment=cost, **arguments).k == best
    with pytest.raises(InvalidInputError, match="cannot be negative"):
        choose_menu(theta, k=6, cost_per_treatment=-1.0, **arguments)


def test_a_few_units_that_may_get_nothing_else_keep_the_control_on_every_menu() -> None:
    theta, called = _units(5_000), np.arange(5_000) >= 3
    free = choose_menu(theta, space=LINE, basis="quadratic", profit=PROFIT, k=1)
    assert free.encoded[0, 0] > 0.3
    for k in (1, 2, 3):
        arguments = {"space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": k}
        menu = choose_menu(theta, eligible={"t > 0": called}, **arguments)
        assert menu.encoded[0, 0] == 0
        if k > 1:
            # what the three are worth cannot decide about the other treatments
            np.testing.assert_array_equal(
                menu.encoded, choose_menu(theta, always_offer=[{"t": 0}], **arguments).encoded
            )
        # the rule's penalty costs the bound no digits
        assert 0 <= menu.gap < 0.06


def test_own_best_treatments_under_a_rule_are_those_of_the_space_without_what_it_restricts() -> (
    None
):
    theta = _units(2_000)
    problem = MenuProblem.build(LINE, "quadratic", PROFIT)
    ruled = problem.with_eligibility(["t > 0.7341"], np.abs(theta).max(axis=0), np.ones(1))
    without = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}, exclude="t > 0.7341"
    )
    oracle = MenuProblem.build(without, "quadratic", PROFIT)
    for barred, expected in ((1.0, oracle), (0.0, problem)):
        treatments, profit = ruled.granular(np.column_stack([theta, np.full(2_000, barred)]))
        best, most = expected.granular(theta)
        np.testing.assert_allclose(profit, most, atol=1e-9)
        np.testing.assert_allclose(treatments, best, atol=1e-5)


def test_own_best_treatments_do_not_depend_on_how_many_units_are_asked_at_once() -> None:
    """Few units are evaluated at many points in one call, many at one point after the other."""
    rng, n = np.random.default_rng(3), 6_000
    plane = TreatmentSpace.from_dict(
        {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")}
    )
    problem = MenuProblem.build(plane, "quadratic", Profit("1", "0.1 * a + where(b > 0, 0.2, 0)"))
    theta = np.column_stack(
        [
            np.zeros(n),
            rng.uniform(0, 2, (n, 2)),
            -rng.uniform(0.3, 1, n),
            rng.uniform(-0.3, 0.3, n),
            -rng.uniform(0.3, 1, n),
        ]
    )
    ruled = problem.with_eligibility(["a + b > 1.2345"], np.abs(theta).max(axis=0), np.full(1, 0.5))
    theta = np.column_stack([theta, rng.random(n) < 0.5])
    together = ruled.granular(theta)
    in_parts = [ruled.granular(part) for part in np.array_split(theta, 12)]
    for whole, parts in zip(together, zip(*in_parts, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)


def test_penalties_outweigh_what_the_others_gain() -> None:
    psi = np.array([[1.0, 0, 0], [1.0, 2.0, -0.5]])
    worth = widest_range(np.array([5.0, 3.0]), psi)
    assert worth == pytest.approx(6.5)
    rules = eligibility_rules(["t > 1", "t > 0", "t > 0.5"], LINE, worth, [1.0, 0.01, 0.0])
    assert [rule.penalty for rule in rules] == pytest.approx([13, 1_300, 13])


def test_refused_are_found() -> None:
    problem = MenuProblem.build(STEPS, "quadratic", PROFIT).with_eligibility(
        ["t > 1", "t > 0"], np.ones(3), np.full(2, 0.5)
    )
    taken = problem.psi_at(np.array([[2.0], [0.5], [0.5], [0.0]]))
    theta = np.column_stack([np.ones((4, 3)), [[1, 0], [1, 0], [0, 1], [1, 1]]])
    assert refused(theta, taken, problem.layout).tolist() == [True, False, True, False]
    free = MenuProblem.build(STEPS, "quadratic", PROFIT)
    assert not refused(theta[:, :3], taken, free.layout).any()


def test_corners_of_several_rules_are_offered() -> None:
    plane = TreatmentSpace.from_dict(
        {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")}
    )
    problem = MenuProblem.build(plane, "linear", Profit())
    ruled = problem.with_eligibility(["a > 0.7", "b > 1.1"], np.ones(3), np.ones(2))
    treatments, profit = ruled.granular(
        np.array([[0, 1.0, 1.0, 1, 1], [0, 1.0, 1.0, 1, 0], [0, 1.0, 1.0, 0, 0]])
    )
    np.testing.assert_allclose(treatments, [[0.7, 1.1], [0.7, 2], [2, 2]], atol=1e-9)
    np.testing.assert_allclose(profit, [1.8, 2.7, 4.0], atol=1e-9)
