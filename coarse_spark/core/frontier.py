"""Frontiers: what menus earn, spend and bring about as a budget, or the worth of an outcome, moves.

Along a frontier of the budget the price of spending says what one more unit of money would earn.
Along a trade-off menus maximize profit plus so much for every unit of an outcome, on top of its
margin, and are still valued by profit alone: that weight is what one more unit of the outcome costs
in profit. Either way menus are chosen anew at every point, and everything that is measured of them
is linear in the same coefficients of the units, so that one read of the units values all points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import BUDGET, Budget, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import Eligibility, Layout, refused, widest_range
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, assign
from coarse_spark.core.policies import PolicyMap, PolicyUnits
from coarse_spark.core.profit import Profit
from coarse_spark.core.values import WITH_DIFFERENCE, Policy, ScoreMoments
from coarse_spark.errors import InvalidInputError

PROFIT, SPENDING = "profit", "spending"
_STEPS = 8  # between the least that can be spent and what menus without a budget spend


@dataclass(frozen=True, eq=False)
class FrontierPoint:
    """What the menu of one point is chosen by.

    Attributes
    ----------
    at : the budget per unit weight, inf for none; or the weight of the outcome.
    current : whether it is what the run's own menus are chosen by.
    profit : what menus maximize.
    limits : that they keep.
    """

    at: float
    current: bool
    profit: Profit
    limits: Limits

    def problem(self, problem: MenuProblem, units: WeightedUnits) -> MenuProblem:
        """Return a problem with the point's profit; ``units`` tell what rules have to weigh."""
        if self.profit == problem.profit:
            return problem
        moved = replace(problem, profit=self.profit, rules=())
        moved = replace(moved, psi=moved.psi_at(moved.candidates))
        largest = np.abs(units.theta[:, : moved.coefficients]).max(axis=0)
        was = replace(problem, rules=()).psi_at(problem.candidates)
        dearer = 1 + widest_range(largest, moved.psi) / widest_range(largest, was)
        rules = tuple(
            replace(rule, penalty=rule.penalty * dearer) if isinstance(rule, Eligibility) else rule
            for rule in problem.rules
        )
        moved = replace(moved, rules=rules)
        return replace(moved, psi=moved.psi_at(moved.candidates))


def bounded(limits: Limits, spending: Profit, bound: float) -> Limits:
    """Return limits with another bound of the spending, inf for none: what a frontier moves."""
    budget = Budget(bound, spending) if np.isfinite(bound) else None
    return replace(limits, budget=budget)


def bound_of(limits: Limits) -> float:
    """Return the bound that ``bounded`` moves, inf where there is none."""
    return np.inf if limits.budget is None else limits.budget.limit


def budget_points(
    profit: Profit, limits: Limits, spending: Profit, budgets: Iterable[float]
) -> list[FrontierPoint]:
    """Return the points of a frontier of the budget, the own one of ``limits`` among them."""
    own = bound_of(limits)
    return [
        FrontierPoint(at, at == own, profit, bounded(limits, spending, at))
        for at in sorted({*map(float, budgets), own})
    ]


def trade_off_points(
    profit: Profit, limits: Limits, outcome: str, weights: Iterable[float]
) -> list[FrontierPoint]:
    """Return the points of a trade-off between profit and an outcome, weight 0 among them.

    Parameters
    ----------
    outcome : one of ``profit.outcomes``.
    weights : money that a unit of the outcome counts for beside profit.
    """
    return [
        FrontierPoint(at, at == 0, profit if at == 0 else _moved(profit, outcome, at), limits)
        for at in sorted({*map(float, weights), 0.0})
    ]


def _moved(profit: Profit, outcome: str, weight: float) -> Profit:
    """Return profit with so much more for every unit of an outcome."""
    if not isinstance(profit.margin, Mapping):
        return replace(profit, margin=f"({profit.margin}) + ({weight!r})")
    moved = f"({profit.margin[outcome]}) + ({weight!r})"
    return replace(profit, margin={**profit.margin, outcome: moved})


def spending_at(problem: MenuProblem, treatments: FloatArray) -> FloatArray:
    """Return the rows (n, p + 1) of spending at encoded treatments (n, d), 0 where none counts."""
    for limit in problem.totals:
        if limit.name == BUDGET:
            return problem.amounts_at(limit, treatments)
    return np.zeros((len(treatments), problem.coefficients + 1))


def budget_price(menu: PricedMenu) -> float:
    """Return what one more unit of budget would earn, 0 without a budget."""
    names = [limit.name for limit in menu.limits.totals]
    prices = dict(zip(names, menu.limit_prices, strict=False))
    return prices.get(BUDGET, 0.0)


def least_spending(problem: MenuProblem, units: WeightedUnits) -> float:
    """Return what is spent per unit weight where every unit gets what it spends least by."""
    rows = spending_at(problem, problem.candidates)
    spent = units.theta @ rows[:, :-1].T + rows[:, -1]
    return float(units.weights @ spent.min(axis=1)) / units.total


def sensible_budgets(least: float, free: float) -> list[float]:
    """Return budgets above the least that can be spent, up to what menus without one spend.

    Raises
    ------
    InvalidInputError : there is nothing between.
    """
    if free - least <= 1e-9 * max(abs(free), abs(least), 1e-300):
        raise InvalidInputError(
            f"frontier: menus without a budget spend {free:.6g} per unit, which is the least that "
            "can be spent, so that no budget changes them; say in menu.spending_per_unit or "
            "menu.spending_per_outcome what counts, beside frontier.budgets, or name "
            "frontier.outcome and frontier.weights"
        )
    shares = np.arange(1, _STEPS) / _STEPS
    return [*(least + (free - least) * shares).tolist(), np.inf]


def frontier_menus(
    points: Sequence[FrontierPoint],
    problem: MenuProblem,
    units: WeightedUnits,
    sizes: Iterable[int],
    k: int,
    settings: SearchSettings,
) -> list[PricedMenu]:
    """Choose the menu of k treatments of every point on the same units.

    Those of the current point are found as in a choice of menus of all ``sizes``, the others from
    the treatments of their neighbour too.

    Parameters
    ----------
    points : in ascending order.
    problem : with the run's own profit, and with all coefficients that spending needs.
    units : weighted, such as a sketch, with the coefficients of the rules.
    sizes : that menus of the run have, k among them.
    k : number of treatments.
    settings : of the search; their limits are those of the points.

    Raises
    ------
    InvalidInputError : a budget that no menu can keep, with the nearest that can.
    """
    own = next(number for number, point in enumerate(points) if point.current)
    found: dict[int, PricedMenu] = {}

    def search(number: int, sizes: Iterable[int], previous: FloatArray | None) -> PricedMenu:
        point = points[number]
        searched = replace(settings, limits=point.limits, previous=previous)
        return search_menus(point.problem(problem, units), units, sizes, searched)[k]

    found[own] = search(own, sizes, settings.previous)
    for number in (*range(own + 1, len(points)), *range(own - 1, -1, -1)):
        beside = number - 1 if number > own else number + 1
        found[number] = search(number, [k], found[beside].treatments)
    return [found[number] for number in range(len(points))]


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of menus: profit, spending and the mean of every outcome.

    Attributes
    ----------
    problem : with the run's own profit, the rules, and what counts as spending, if anything.
    outcomes : what the outcomes are called, in the order of the responses.
    """

    problem: MenuProblem
    outcomes: tuple[str, ...]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        spends = bool(spending_at(self.problem, self.problem.candidates).any())
        outcomes = [f"outcome {name}" for name in self.outcomes]
        object.__setattr__(self, "names", (PROFIT, *([SPENDING] if spends else []), *outcomes))

    def rows(self, treatments: FloatArray) -> dict[str, FloatArray]:
        """Return the rows (n, p + 1) of encoded treatments (n, d) by measure."""
        problem = self.problem
        of_profit, phi = problem.of_profit, problem.basis(treatments)
        none = [np.zeros(len(treatments))] * len(problem.rules)
        found = {PROFIT: problem.psi_at(treatments), SPENDING: spending_at(problem, treatments)}
        for name, outcome in zip(self.outcomes, of_profit.outcomes, strict=True):
            amounts = of_profit.amounts(Profit({outcome: "1"}), treatments, problem.space)
            found[f"outcome {name}"] = of_profit.psi(amounts, phi, *none)
        return {name: found[name] for name in self.names}

    def plug_in(self, menu: PricedMenu, sums: SegmentSums) -> dict[str, float]:
        """Return what the responses themselves say of a menu, per unit weight."""
        return {name: sums.value(rows) for name, rows in self.rows(menu.treatments).items()}

    def policies(self, menu: PricedMenu) -> dict[str, PolicyMap]:
        """Return by measure what turns units into the rows that measure what they get."""
        rows, layout = self.rows(menu.treatments), self.problem.layout
        control = self.rows(self.problem.space.control[None, :])
        return {
            name: partial(
                _measured, rows[name], control[name][0], menu.psi, menu.priced_psi, layout
            )
            for name in self.names
        }


def _measured(
    rows: FloatArray,
    control: FloatArray,
    psi: FloatArray,
    priced: FloatArray,
    layout: Layout,
    units: PolicyUnits,
) -> FloatArray:
    taken = assign(units.theta, priced)
    measured = rows[taken]
    # as in every evaluation, units that may get nothing of the menu are left at the control
    measured[refused(units.theta, psi[taken], layout)] = control
    return measured


def control_menu(problem: MenuProblem) -> PricedMenu:
    """Return the menu of the control alone, where a frontier of the budget begins."""
    return PricedMenu.build(problem, problem.space.control[None, :])


def frontier_policies(measures: Sequence[str], menus: int, k: int) -> list[Policy]:
    """Return the policies to score: every measure of the first menu, of the second and so on."""
    return [Policy(f"{name} {number}", k) for number in range(menus) for name in measures]


def frontier_maps(measures: Measures, menus: Sequence[PricedMenu]) -> dict[str, PolicyMap]:
    """Return the maps of ``frontier_policies`` by their names."""
    return {
        f"{name} {number}": policy
        for number, menu in enumerate(menus)
        for name, policy in measures.policies(menu).items()
    }


def frontier_values(
    measures: Sequence[str], moments: ScoreMoments, confidence: float
) -> pd.DataFrame:
    """Return one row a menu and measure: honest value and paired difference to the menu before.

    Parameters
    ----------
    measures : of ``frontier_policies``.
    moments : of the scores of these, over the same units.
    confidence : of the intervals, such as 0.95.

    Returns
    -------
    point, measure, value, se, ci_low, ci_high, difference, difference_se, difference_low,
    difference_high; the differences of the first menu are NaN.
    """
    records: list[list[object]] = []
    count = len(measures)
    for position in range(len(moments.mean)):
        number, before = position // count, position - count
        change = (np.nan,) * 4 if before < 0 else moments.interval(confidence, position, before)
        own = moments.interval(confidence, position)
        records.append([number, measures[position % count], *own, *change])
    return pd.DataFrame(records, columns=["point", "measure", *WITH_DIFFERENCE])
