"""What an experiment supports: near in all dimensions together, whatever the units of measurement.

What some unit got is never untried.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from causaldata import thornton_hiv
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark import Profit, choose_menu
from coarse_spark.core import support as module
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.menu import Menu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.support import (
    BIN_KEY,
    BIN_SUMS,
    Support,
    offered_space,
    support_problems,
    tried_levels,
    value_bins,
)
from coarse_spark.core.treatments import TreatmentSpace

CHANNEL = {"kind": "categorical", "levels": ["mail", "app", "visit"], "control": "mail"}


def amount(
    upper: float = 20, step: float | None = None, control: float = 0, lower: float = 0
) -> dict:
    return {
        "kind": "continuous",
        "lower": lower,
        "upper": upper,
        "step": step,
        "control": control,
    }


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def repeated(*values: float) -> np.ndarray:
    """Levels that many units got each."""
    return column(*values).repeat(50, axis=0)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_all_between_random_draws_is_tried(scale: float, seed: int) -> None:
    space = TreatmentSpace.from_dict({"t": amount(20 * scale)})
    draws = np.random.default_rng(seed).uniform(4, 16, (400, 1)) * scale
    support = Support.of(draws, Basis("quadratic", space))
    assert support.tried(np.linspace(4, 16, 500)[:, None] * scale).all()
    assert not support.tried(column(0, 3.7, 16.3, 20) * scale).any()


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_between_few_levels_lies_a_gap(scale: float) -> None:
    space = TreatmentSpace.from_dict({"t": amount(20 * scale)})
    support = Support.of(repeated(0, 5, 10) * scale, Basis("quadratic", space))
    assert support.tried(column(0, 0.1, 5, 4.9, 10) * scale).all()
    assert not support.tried(column(1, 2, 4, 7, 11, 20) * scale).any()


def test_many_levels_are_as_good_as_a_continuum() -> None:
    space = TreatmentSpace.from_dict({"t": amount(20)})
    support = Support.of(repeated(*range(21)), Basis("quadratic", space))
    assert support.tried(np.linspace(0, 20, 99)[:, None]).all()


def test_beside_a_jump_nothing_is_offered_that_is_nearer_to_the_control_than_what_was_tried() -> (
    None
):
    space = TreatmentSpace.from_dict({"t": amount(10, 1)})
    jump, smooth = Basis("any + quadratic", space), Basis("quadratic", space)
    support = Support.of(repeated(0, 5, 10), jump)
    assert offered_space(jump, support, "auto").candidates[:, 0].tolist() == [0, *range(5, 11)]
    assert offered_space(jump, support, "observed").candidates[:, 0].tolist() == [0, 5, 10]
    assert offered_space(jump, support, "marked") == space
    assert offered_space(smooth, support, "auto") == space
    np.testing.assert_array_equal(support.tried(space.candidates), np.isin(range(11), [0, 5, 10]))
    assert support_problems(jump, support, "auto") == [
        "4 of 11 candidates are not offered (menu.support: auto): basis 'any + quadratic' jumps "
        "off the control, and they are nearer to it than what anybody in the experiment got"
    ]
    assert support_problems(jump, support, "marked") == []


def test_a_level_beside_a_jump_is_the_last_however_many_there_are() -> None:
    space = TreatmentSpace.from_dict({"t": amount(500)})
    basis = Basis("any + linear", space)
    support = Support.of(repeated(*range(0, 501, 5)), basis)
    problem = MenuProblem.build(
        offered_space(basis, support, "auto"),
        Basis(basis.name, offered_space(basis, support, "auto")),
        Profit("1", "t"),
    )
    assert np.sort(problem.candidates[:, 0])[:2].tolist() == [0, pytest.approx(5, abs=1e-6)]
    # no side of the control, where a whole jump would be had for nothing
    assert not problem.space.allowed(column(1e-6, 1, 4.99)).any()
    assert support.tried(column(0, 5, 7, 498)).all()


def test_no_incentive_of_nothing_is_offered_at_the_whole_jump_of_a_real_experiment() -> None:
    """Thornton (2008) gave 0 or at least 0.0946 dollars; collecting jumps with any of them."""
    given = thornton_hiv.load_pandas().data["tinc"].dropna().to_numpy(float)[:, None]
    space = TreatmentSpace.from_dict({"tinc": amount(2.84)})
    basis, profit = Basis("any + quadratic", space), Profit("4 - tinc", "0")
    support = Support.of(given, basis)
    offered = offered_space(basis, support, "auto")
    least = given[given > 0].min()
    before, now = (
        np.sort(MenuProblem.build(of, Basis(basis.name, of), profit, extra).candidates[:, 0])
        for of, extra in ((space, ()), (offered, tried_levels(offered)))
    )
    assert 0 < before[1] < 1e-5
    assert now[:2].tolist() == [0, pytest.approx(least, abs=1e-8)]
    # in steps of 0.1, as the example offers them, nothing is left out
    stepped = TreatmentSpace.from_dict({"tinc": amount(2.84, 0.1)})
    basis = Basis(basis.name, stepped)
    support = Support.of(given, basis)
    assert len(offered_space(basis, support, "auto").candidates) == 29
    untried = stepped.candidates[~support.tried(stepped.candidates), 0]
    assert untried.tolist() == [1.8, 2.5, 2.6, 2.7, 2.8]


def test_random_draws_beside_a_jump_leave_no_gap() -> None:
    space = TreatmentSpace.from_dict({"t": amount(20)})
    basis = Basis("any + linear", space)
    draws = (
        np.random.default_rng(0).uniform(0, 20, (1_000, 1)) * (np.arange(1_000) % 4 > 0)[:, None]
    )
    support = Support.of(draws, basis)
    offered = offered_space(basis, support, "auto")
    np.testing.assert_array_equal(offered.candidates, space.candidates)
    assert offered.allowed(column(0, 2e-5)).all()
    assert support_problems(basis, support, "observed") == []
    # draws that begin at 5 do
    support = Support.of(np.where(draws > 0, 5 + 0.75 * draws, 0), basis)
    offered = offered_space(basis, support, "auto")
    assert offered.allowed(column(0, 2e-5, 4.7, 4.9, 12)).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_a_jump_of_two_dimensions_leaves_a_gap_around_both_controls_only() -> None:
    space = TreatmentSpace.from_dict({"a": amount(10, 1), "b": amount(10, 1)})
    basis = Basis("any(a, b) + linear", space)
    levels = np.array([[a, b] for a in (0.0, 5, 10) for b in (0.0, 5, 10)]).repeat(20, axis=0)
    support = Support.of(levels, basis)
    offered = offered_space(basis, support, "auto")
    places = np.array([[0.0, 0], [1, 0], [0, 4], [4, 4], [1, 5], [5, 1], [7, 7]])
    expected = [True, False, False, False, True, True, True]
    assert offered.allowed(places).tolist() == expected
    assert support.tried(places).tolist() == [True] + [False] * 6
    # a jump of each alone leaves one around each control
    basis = Basis("any(a) + any(b) + linear", space)
    offered = offered_space(basis, Support.of(levels, basis), "auto")
    assert offered.allowed(places).tolist() == [True] + [False] * 5 + [True]


def test_a_combination_that_nobody_got_is_untried() -> None:
    space = TreatmentSpace.from_dict({"t": amount(20, 10), "channel": CHANNEL})
    basis = Basis("levels + linear", space)
    given = np.array([row for row in space.candidates if tuple(row) != (20, 1)])
    support = Support.of(given, basis)
    missing = (space.candidates == (20, 1)).all(axis=1)
    np.testing.assert_array_equal(support.tried(space.candidates), ~missing)
    assert len(offered_space(basis, support, "observed").candidates) == 8
    assert len(offered_space(basis, support, "auto").candidates) == 9
    (told,) = support_problems(basis, support, "observed")
    assert told.startswith("1 of 9 candidates are not offered (menu.support: observed): nobody")


def test_a_level_is_its_own_range_of_what_was_tried() -> None:
    space = TreatmentSpace.from_dict({"t": amount(20), "channel": CHANNEL})
    rng = np.random.default_rng(1)
    channel = rng.integers(0, 2, 2_000)
    given = np.column_stack([rng.uniform(0, np.where(channel == 1, 10, 20)), channel])
    support = Support.of(given, Basis("levels * linear", space))
    places = np.array([[18.0, 0], [9, 1], [18, 1], [9, 2]])
    assert support.tried(places).tolist() == [True, True, False, False]


def test_a_corner_that_nobody_got_is_untried_between_random_draws() -> None:
    space = TreatmentSpace.from_dict({"a": amount(1), "b": amount(1)})
    draws = np.random.default_rng(2).uniform(0, 1, (4_000, 2))
    basis = Basis("quadratic", space)
    assert Support.of(draws, basis).tried(space.candidates).all()
    inside = ((space.candidates > 0.04) & (space.candidates < 0.96)).all(axis=1)
    assert Support.of(draws[:200], basis).tried(space.candidates[inside]).all()
    support = Support.of(draws[draws.sum(axis=1) < 1.2], basis)
    grid = space.candidates
    assert support.tried(grid[grid.sum(axis=1) <= 1.2]).all()
    assert not support.tried(grid[grid.sum(axis=1) > 1.65]).any()


def test_a_finite_list_is_judged_by_its_rows() -> None:
    rows = pd.DataFrame({"match": [1, 1, 2, 3, 3], "ask": [10, 40, 40, 10, 40]})
    space = TreatmentSpace.from_candidates(rows, {"match": 0, "ask": 0})
    basis = Basis("linear", space)
    support = Support.of(space.candidates[[0, 1, 3, 4, 5]], basis)
    assert support.tried(space.candidates).tolist() == [True, True, False, True, True, True]
    assert len(offered_space(basis, support, "observed").candidates) == 5


def test_a_control_that_nobody_got_is_told_and_stays() -> None:
    space = TreatmentSpace.from_dict({"t": amount(10, 1, control=0, lower=2)})
    basis = Basis("linear", space)
    support = Support.of(repeated(*range(2, 11)), basis)
    assert not support.tried(space.control[None, :])[0]
    for rule in ("auto", "observed", "marked"):
        assert (offered_space(basis, support, rule).candidates == 0).any()
        (told,) = support_problems(basis, support, rule)
        assert told == (
            "nobody in the experiment got the control (t = 0) or anything near it: what treatments "
            "earn above it is extrapolated"
        )


def test_of_one_level_one_thing_is_told() -> None:
    # nobody got the control: that is told, and not also that a dimension is offered down to it
    space = TreatmentSpace.from_dict({"t": amount(10, 1, control=0, lower=2)})
    basis = Basis("linear", space)
    tried = Support.of(repeated(*range(2, 11)), basis)
    assert len(support_problems(basis, tried, "marked")) == 1
    assert tried.observed(space).problems() == []
    # nobody got more than 5: where that is not offered, it is not extrapolated either
    narrow = Support.of(repeated(0, *range(2, 6)), basis)
    for rule, told in (("marked", 1), ("observed", 0)):
        offered = offered_space(basis, narrow, rule)
        assert len(narrow.observed(offered).problems()) == told
        assert len(support_problems(basis, narrow, rule)) == 1 - told


def test_one_column_a_candidate_keeps_all_of_them() -> None:
    space = TreatmentSpace.from_dict({"channel": CHANNEL})
    basis = Basis("arms", space)
    support = Support.of(column(0, 1), basis)
    assert support.tried(space.candidates).tolist() == [True, True, False]
    assert offered_space(basis, support, "observed") == space


def test_levels_between_the_grid_become_candidates() -> None:
    space = TreatmentSpace.from_dict({"a": amount(20), "b": amount(1), "channel": CHANNEL})
    basis = Basis("levels + quadratic", space)
    levels = [[a, b, c] for a in (0, 3.3, 7.7, 20) for b in (0, 0.234, 1) for c in (0, 1)]
    given = np.array(levels)[:-1].repeat(10, axis=0)
    support = Support.of(given, basis)
    offered = offered_space(basis, support, "observed")
    found = tried_levels(offered)
    assert sorted(map(tuple, found)) == sorted(map(tuple, levels[:-1]))
    problem = MenuProblem.build(
        offered, Basis(basis.name, offered), Profit("1", "0.1 * a"), list(found)
    )
    assert support.tried(problem.candidates).all()
    for level in levels[:-1]:
        assert (problem.candidates == level).all(axis=1).any()
    assert not (problem.candidates == levels[-1]).all(axis=1).any()
    assert len(tried_levels(space)) == 0
    assert len(tried_levels(offered_space(basis, support, "auto"))) == 0


def test_of_too_many_cells_each_dimension_is_judged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    space = TreatmentSpace.from_dict({"t": amount(20, 10), "channel": CHANNEL})
    basis = Basis("levels + linear", space)
    monkeypatch.setattr(module, "MOST_CELLS", 3)
    support = Support.of(space.candidates[[0, 1, 3, 8]], basis)
    assert support.cells is None
    assert support.tried(np.array([[20.0, 1], [10, 2], [15, 1]])).tolist() == [True, True, False]


values = st.one_of(
    st.floats(-3, 12), st.sampled_from([0.0, 0.1, 0.2, 0.1 + 0.2, 1.0, 2.0, 5.0, 10.0])
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(values, values, st.integers(0, 2)), min_size=1, max_size=60),
    st.sampled_from(
        ["linear + levels", "any + quadratic + levels", "any(a) + any(b, c) + linear + levels"]
    ),
    st.sampled_from([0.0, 10.0, 1.0, -2.0]),
    st.integers(0, 60),
)
def test_what_some_unit_got_is_never_untried(
    rows: list[tuple[float, float, int]], name: str, control: float, cut: int
) -> None:
    a, b = amount(10, control=control), amount(10, step=0.5)
    space = TreatmentSpace.from_dict({"a": a, "b": b, "c": CHANNEL})
    given_, basis = np.array(rows, dtype=float), Basis(name, space)
    support = Support.of(given_, basis)
    assert support.tried(given_).all()
    offered = offered_space(basis, support, "observed")
    assert offered.allowed(given_).all()
    assert offered_space(basis, support, "auto").allowed(given_).all()
    # whatever is offered by what was tried is offered by the gap beside the jump as well
    tried, no_leap = (
        offered_space(basis, support, rule).allowed(space.candidates[::50])
        for rule in ("observed", "auto")
    )
    assert (no_leap | ~tried).all()
    # parts of the units add up
    parts = [value_bins(part, space) for part in (given_[:cut], given_[cut:]) if len(part)]
    bins = pd.concat(parts).groupby(BIN_KEY, as_index=False).agg(BIN_SUMS)
    again = Support.cut(bins, basis)
    assert again.with_cells(again.cells_of(given_)) == support


def _menus(space: TreatmentSpace, name: str, theta: np.ndarray, k: int, profit: Profit) -> Menu:
    return choose_menu(theta, space=space, basis=Basis(name, space), profit=profit, k=k)


def test_menus_take_no_whole_jump_for_less_than_was_paid_for_it() -> None:
    space = TreatmentSpace.from_dict({"t": amount(20)})
    basis, profit = Basis("any + linear", space), Profit("1", "0.2 * t")
    support = Support.of(repeated(0, 5, 10), basis)
    rng = np.random.default_rng(3)
    jump, slope = rng.uniform(0, 3, 300), rng.uniform(0, 0.3, 300)
    theta = np.column_stack([np.ones(300), jump, slope])
    free = _menus(space, basis.name, theta, 2, profit)
    assert free.treatments["t"].between(0, 0.01, inclusive="neither").any()
    offered = offered_space(basis, support, "auto")
    assert tried_levels(offered)[:, 0].tolist() == [0, 5, 10]
    menu = _menus(offered, basis.name, theta, 2, profit)
    assert not menu.treatments["t"].between(0, 4.9999, inclusive="neither").any()
    # no menu of two of a fine grid outside the gap earns more, nor than the bound
    grid = np.append(0, np.linspace(5, 20, 301))
    psi = MenuProblem.build(space, basis, profit).psi_at(grid[:, None])
    profits = np.column_stack([theta, np.ones(300)]) @ psi.T
    best = max(
        np.maximum(profits[:, [i]], profits[:, i:]).mean(axis=0).max() for i in range(len(grid))
    )
    assert menu.value >= best - 1e-6
    assert best <= menu.upper_bound + 1e-9
    assert menu.granular_value == pytest.approx(profits.max(axis=1).mean(), abs=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_menus_of_what_was_tried_hold_nothing_else_and_are_the_best_of_it(k: int) -> None:
    space = TreatmentSpace.from_dict({"a": amount(2), "b": amount(2)})
    name, profit = "quadratic", Profit("1", "0")
    rng = np.random.default_rng(4)
    levels = np.array([[a, b] for a in (0, 0.5, 1.3, 2) for b in (0, 0.7, 2)])[:-1]
    support = Support.of(levels.repeat(9, axis=0), Basis(name, space))
    offered = offered_space(Basis(name, space), support, "observed")
    peak = rng.uniform(0.2, 2.2, (200, 2))
    theta = np.column_stack([np.zeros(200), 2 * peak, -np.ones(200), np.zeros(200), -np.ones(200)])
    problem = MenuProblem.build(offered, Basis(name, offered), profit, list(tried_levels(offered)))
    menus = search_menus(problem, WeightedUnits.of(theta, np.ones(200)), [k], SearchSettings())
    found = menus[k].treatments
    assert support.tried(found).all()
    assert np.abs(found[:, None] - levels).max(axis=2).min(axis=1).max() <= 0.021
    psi = problem.psi_at(levels)
    profits = np.column_stack([theta, np.ones(200)]) @ psi.T
    of_levels = max(
        profits[:, list(rows)].max(axis=1).mean() for rows in combinations(range(len(levels)), k)
    )
    value = (np.column_stack([theta, np.ones(200)]) @ problem.psi_at(found).T).max(axis=1).mean()
    assert value >= of_levels - 1e-9
