"""A second experiment, a second fit, a second menu.

What a switching cost keeps of the first menu, and what that costs at the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from coarse_spark.core.learners.response import ResponseLearner
from coarse_spark.core.menu.choose import choose_menu
from coarse_spark.core.menu.menu import Menu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError
from coarse_spark.simulate.field import FieldSimulation, field_simulation

NAMES = ("t1", "t2")
SPACE = TreatmentSpace.from_dict(
    {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in NAMES}
)
SETTING = {
    "space": SPACE,
    "basis": "quadratic",
    "profit": Profit("1", "0.3 * t1 + 0.3 * t2"),
    "k": 4,
    "starts": 2,
}
UNITS, ROWS = 600, 3_000


@dataclass(frozen=True)
class Runs:
    """A population before and after a second experiment.

    Attributes
    ----------
    population : with true responses.
    before : its first menu.
    had : (n,) every unit's treatment on that menu.
    later : (n, p) responses as the second experiment tells them.
    """

    population: FieldSimulation
    before: Menu
    had: np.ndarray
    later: np.ndarray

    def value(self, treatments: np.ndarray) -> float:
        """Mean profit of encoded treatments (n, 2) at the true responses."""
        psi = MenuProblem.build(SPACE, "quadratic", SETTING["profit"]).psi_at(treatments)
        return float((self.population.theta * psi[:, :-1]).sum(axis=1).mean() + psi[:, -1].mean())

    def given(self, menu: Menu) -> np.ndarray:
        return menu.encoded[menu.assign(self.later)]

    def changed(self, menu: Menu) -> np.ndarray:
        """Whether a unit (n,) gets another treatment than it had."""
        return (np.abs(self.given(menu) - self.before.encoded[self.had]) > 1e-9).any(axis=1)


@pytest.fixture(scope="module")
def runs() -> Runs:
    population = field_simulation(UNITS, 2, seed=0)

    def learned(seed: int) -> np.ndarray:
        trial = field_simulation(ROWS, 2, seed=seed)
        learner = ResponseLearner(basis="quadratic", learner="sieve", space=SPACE, random_state=0)
        return learner.fit(trial.X, trial.T, trial.y).predict(population.X)

    first, second = learned(1), learned(2)
    before = choose_menu(first, **SETTING)
    return Runs(population, before, before.assign(first), second)


def test_a_switching_cost_keeps_units_where_a_refit_would_move_nearly_all(runs: Runs) -> None:
    fresh = choose_menu(runs.later, **SETTING)
    assert runs.changed(fresh).all(), "the noise of an experiment moves every treatment"
    # and not by hairs that nobody would call another treatment
    far = np.abs(runs.given(fresh) - runs.before.encoded[runs.had]).max(axis=1) > 0.1
    assert far.mean() > 0.7
    shares = [1.0]
    for cost in (0.02, 0.1):
        kept = choose_menu(
            runs.later,
            previous_menu=runs.before,
            previous_rows=runs.had,
            switching_cost=cost,
            **SETTING,
        )
        moved = runs.changed(kept)
        assert kept.changed_share == pytest.approx(moved.mean())
        assert moved.mean() <= shares[-1]
        shares.append(float(moved.mean()))
        # what it expects to give up is less than switching would have cost; so it is at the truth
        saved = cost * (runs.changed(fresh).mean() - moved.mean())
        assert fresh.value - kept.value <= cost * runs.changed(fresh).mean() + 1e-9
        assert runs.value(runs.given(fresh)) - runs.value(runs.given(kept)) <= saved
    assert shares[1] < 0.8
    assert shares[-1] < 0.15


def test_without_a_cost_the_earlier_menu_is_one_more_start_and_changes_are_counted(
    runs: Runs,
) -> None:
    fresh = choose_menu(runs.later, **SETTING)
    warm = choose_menu(runs.later, previous_menu=runs.before, previous_rows=runs.had, **SETTING)
    assert warm.value >= fresh.value - 1e-4 * (fresh.granular_value - fresh.control_value)
    assert warm.changed_share == pytest.approx(runs.changed(warm).mean())


def test_units_in_another_order_say_what_they_had(runs: Runs) -> None:
    kept = choose_menu(
        runs.later, previous_menu=runs.before, previous_rows=runs.had, switching_cost=0.1, **SETTING
    )
    order = np.random.default_rng(0).permutation(UNITS)
    again = kept.assign(runs.later[order], previous_rows=runs.had[order])
    np.testing.assert_array_equal(again, kept.assign(runs.later)[order])
    with pytest.raises(InvalidInputError, match="previous_rows has shape"):
        kept.assign(runs.later, previous_rows=runs.had + 1)


def test_what_units_had_is_not_what_the_earlier_menu_would_give_them_now(runs: Runs) -> None:
    assert (runs.before.assign(runs.later) != runs.had).mean() > 0.1
    switching = {"previous_menu": runs.before, "switching_cost": 100.0, **SETTING}
    guessed = choose_menu(runs.later, **switching)
    assert guessed.changed_share == 0
    assert runs.changed(guessed).mean() > 0.1
    # units without weight keep their places among the rows
    weights = np.where(np.arange(UNITS) % 3 == 0, 0.0, 1.0)
    kept = choose_menu(runs.later, weights=weights, previous_rows=runs.had, **switching)
    assert kept.changed_share == 0
    assert not runs.changed(kept)[weights > 0].any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            np.zeros(3, dtype=int),
            r"shape \(3,\) and type int64, expected 600 whole numbers from 0 to 3",
        ),
        (np.zeros(UNITS), "type float64, expected 600 whole numbers"),
        (np.full(UNITS, 4), "whole numbers from 0 to 3"),
    ],
)
def test_rows_that_are_no_rows_of_the_earlier_menu(
    runs: Runs, rows: np.ndarray, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        choose_menu(runs.later, previous_menu=runs.before, previous_rows=rows, **SETTING)
    with pytest.raises(InvalidInputError, match="there is none"):
        choose_menu(runs.later, previous_rows=rows, **SETTING)
