"""Limits on what a menu comes to at their edges: single treatments, equal profits, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.menu.assignment.feasible import NamedTotals
from coarse_spark.core.menu.choose import choose_menus
from coarse_spark.core.menu.menu import Menu
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.limits import Limit, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.errors import InvalidInputError

UNITS = 60
STEPS = TreatmentSpace.from_dict(
    {"v": {"kind": "continuous", "lower": 0, "upper": 3, "step": 1, "control": 0}}
)
VALUES = np.arange(4.0)
PROFIT = Profit({"spend": "0.45", "red": "-v"}, "0")
MAILED = Limit("mailed", Profit("0", "where(v > 0, 1, 0)"), at_most=0.5)
FLOOR = Limit("red", Profit({"red": "1"}), at_least=0.9, relative_to="control")


def _theta(n: int = UNITS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    spend = [rng.normal(5, 1, n), rng.normal(2, 1, n), -rng.uniform(0.1, 0.5, n)]
    red = [rng.uniform(0.2, 0.6, n), rng.normal(0.05, 0.1, n), rng.normal(0, 0.02, n)]
    return {"spend": np.column_stack(spend), "red": np.column_stack(red)}


def _outcome(theta: dict[str, np.ndarray], name: str) -> np.ndarray:
    """(n, 4) what units come to at every candidate."""
    return np.asarray(theta[name] @ np.column_stack([np.ones(4), VALUES, VALUES**2]).T)


def _chosen(theta: dict[str, np.ndarray], *limits: Limit, k: int = 2, **more: Any) -> Menu:
    given = {"space": STEPS, "basis": "quadratic", "profit": PROFIT, "k": k, "limits": limits}
    return choose_menu(theta, **{**given, **more})


def test_one_treatment_keeps_several_limits_where_it_can() -> None:
    theta = _theta()
    earned = (0.45 * _outcome(theta, "spend") - VALUES * _outcome(theta, "red")).mean(axis=0)
    red = _outcome(theta, "red").mean(axis=0)
    # only the control mails nobody more than half of the units: it earns least, and that is best
    menu = _chosen(theta, MAILED, FLOOR, k=1)
    assert menu.encoded.tolist() == [[0.0]]
    assert menu.value == pytest.approx(earned[0], rel=1e-12)
    # where any may be mailed, the best of those that keep the floor
    floor = replace(FLOOR, at_least=1.15)
    reached = red >= 1.15 * red[0]
    assert 0 < reached.sum() < 4
    menu = _chosen(theta, replace(MAILED, at_most=1.0), floor, k=1)
    assert menu.value == pytest.approx(earned[reached].max(), rel=1e-12)


def test_the_best_single_treatment_keeps_several_limits() -> None:
    theta = _theta()
    earned = (0.45 * _outcome(theta, "spend") - VALUES * _outcome(theta, "red")).mean(axis=0)
    menu = _chosen(theta, MAILED, FLOOR)
    assert menu.uniform_value == pytest.approx(earned[0], rel=1e-12)
    assert earned[0] < earned.max() - 0.1
    with_one = _chosen(theta, MAILED)
    assert menu.uniform_value == pytest.approx(with_one.uniform_value, rel=1e-12)


@pytest.mark.parametrize("level", [-5.0, 0.0, 2e8])
def test_limits_are_kept_where_all_treatments_earn_the_same(level: float) -> None:
    floor = Limit("mailed too", MAILED.amount, at_least=0.3)
    profit = Profit({"spend": "0", "red": "0"}, f"0 - ({level})")
    menu = _chosen(_theta(), MAILED, floor, profit=profit)
    assert menu.limits is not None
    assert 0.3 <= menu.limits.total("mailed").used <= 0.5
    assert menu.value == pytest.approx(level)


def test_the_unit_of_money_does_not_matter() -> None:
    theta, dear = _theta(), Profit({"spend": "0.45 * 1e8", "red": "-v * 1e8"}, "0")
    floor = replace(FLOOR, at_least=1.1)
    one, other = _chosen(theta, MAILED, floor), _chosen(theta, MAILED, floor, profit=dear)
    assert other.value == pytest.approx(1e8 * one.value, rel=1e-6)
    np.testing.assert_allclose(other.encoded, one.encoded)


def _refused(theta: dict[str, np.ndarray], *limits: Limit, **more: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        _chosen(theta, *limits, **more)
    return str(caught.value)


def _told(message: str, name: str = "") -> float:
    """The value that a refusal tells, of the limit of a name where there are several."""
    pattern = rf"of {name} (-?[\d.e+-]+)" if name else r"nearest feasible value is (-?[\d.e+-]+)"
    found = re.search(pattern, message)
    assert found is not None
    return float(found[1])


def test_a_refusal_names_the_nearest_that_a_menu_keeps_not_a_poor_one() -> None:
    theta, floor = _theta(), replace(FLOOR, at_least=5.0)
    red = _outcome(theta, "red")
    # two treatments reach nearly what every unit's best of all does
    pairs = [np.maximum(red[:, a], red[:, b]).mean() for a in range(4) for b in range(a)]
    alone = _refused(theta, floor)
    assert "is beyond 1.47082, what every unit's best treatment" in alone
    assert _told(alone) == pytest.approx(max(pairs) / red[:, 0].mean(), rel=1e-5)
    _chosen(theta, replace(floor, at_least=_told(alone)))
    # half of the units mailed: those who redeem most more for it
    beside = _refused(theta, MAILED, floor)
    assert "value beside the others is of red" in beside
    assert "of mailed" not in beside
    top = [np.sort(red[:, b] - red[:, 0])[-UNITS // 2 :].clip(0).sum() / UNITS for b in range(4)]
    assert _told(beside, "red") == pytest.approx(1 + max(top) / red[:, 0].mean(), rel=1e-5)
    menu = _chosen(theta, MAILED, replace(floor, at_least=_told(beside, "red") * 0.999))
    assert menu.limits is not None
    assert menu.limits.total("mailed").used <= 0.5


def test_a_refusal_says_what_a_sketch_can_tell() -> None:
    theta = _theta(3_000)
    red = _outcome(theta, "red")
    most = float(np.maximum(red[:, 0], red[:, 3]).mean() / red[:, 0].mean())
    floor = replace(FLOOR, at_least=0.999 * most)
    problem = MenuProblem.build(STEPS, "quadratic", PROFIT, totals=[floor])
    units = problem.of_profit.side_by_side(theta)
    population = ArrayPopulation(problem, units, np.ones(len(units)))
    given = SearchSettings(Limits(limits=(floor,)), starts=1, cells=20)
    with pytest.raises(InvalidInputError, match=r"as far as 20 cells of units .*sketch_cells"):
        choose_menus(population, [2], given)
    # units themselves tell more: it can be kept
    closer = replace(given, cells=5_000)
    assert choose_menus(population, [2], closer).chosen[2].value > 0
    assert "sketch_cells" not in _refused(theta, replace(floor, at_least=9.0))


def test_a_size_that_cannot_keep_limits_says_that_larger_ones_can() -> None:
    theta, floor = _theta(), Limit("mailed too", MAILED.amount, at_least=0.3)
    said = "; or leave small sizes out: larger menus may keep them"
    assert _refused(theta, MAILED, floor, k=1).endswith(said)
    _chosen(theta, MAILED, floor, k=2)
    assert _refused(theta, replace(MAILED, at_most=0.3), k=1, always_offer=[{"v": 1}]).endswith(
        said
    )
    # no size helps where limits contradict each other
    assert said not in _refused(theta, replace(MAILED, at_most=0.2), floor)


def test_a_refusal_is_in_words_where_nothing_nearer_is_known() -> None:
    told = NamedTotals((MAILED, FLOOR), np.ones(2)).refusal(None, "on a menu of 2 treatments")
    assert told == (
        "limit 'mailed' (at_most 0.5) and limit 'red' (at_least 0.9 of the control's) cannot be "
        "kept together on a menu of 2 treatments"
    )


def test_nothing_is_no_measure_of_a_limit() -> None:
    theta = _theta()
    told = "under the control nothing counts, so that no multiple of it limits anything; write"
    for side in ({"at_least": 1.1}, {"at_most": 2.0}):
        limit = Limit("mailed", MAILED.amount, relative_to="control", **side)
        assert told in _refused(theta, limit)
        assert f"limit 'mailed' ({next(iter(side))}" in _refused(theta, FLOOR, limit)


@pytest.mark.parametrize("side", ["at_most", "at_least"])
def test_the_nearest_multiple_of_what_is_below_0_is_kept_as_it_is_told(side: str) -> None:
    theta = _theta()
    theta["red"] = theta["red"] - np.array([1.0, 0.2, 0.0])  # all lose by it
    bound = 9.0 if side == "at_most" else -9.0
    limit = Limit("lost", FLOOR.amount, relative_to="control", **{side: bound})
    nearest = _told(_refused(theta, limit, k=1))
    assert 0 < nearest < 9
    menu = _chosen(theta, replace(limit, **{side: nearest}), k=1)
    assert menu.limits is not None
    kept = menu.limits.total("lost")
    assert kept.used == pytest.approx(kept.allowed, rel=1e-5)
    further = nearest + (1e-5 if side == "at_most" else -1e-5)
    assert _told(_refused(theta, replace(limit, **{side: further}), k=1)) == nearest


def test_limits_that_only_divided_units_keep_are_to_be_loosened() -> None:
    # of 61 units just one half
    theta, half = _theta(61), Limit("mailed too", MAILED.amount, at_least=0.5)
    told = _refused(theta, MAILED, half)
    assert told == (
        "no assignment of whole units to the menu of 2 treatments was found that keeps limit "
        "'mailed' (at_most 0.5) and limit 'mailed too' (at_least 0.5); loosen one of them a "
        "little, or leave small sizes out"
    )
    menu = _chosen(theta, MAILED, replace(half, at_least=0.49))
    assert menu.limits is not None
    assert menu.limits.total("mailed").used == pytest.approx(30 / 61)
