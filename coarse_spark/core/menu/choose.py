"""Choose menus: ``choose_menu`` for arrays, and the one driver for a population wherever it is.

Search on a sketch, passes over everyone, limits settled to the unit, and a bound that certifies the
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray, IntArray, number
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.assignment.feasible import NamedTotals, unmet_limits
from coarse_spark.core.menu.certificate.bound import Certificate, DualSums
from coarse_spark.core.menu.menu import LimitsKept, Menu, Pass, PricedMenu, TotalKept
from coarse_spark.core.menu.population import (
    ArrayPopulation,
    EarlierTreatments,
    Population,
    required_treatments,
    validated_units,
)
from coarse_spark.core.menu.problem.limits import Budget, Limit, Limits, Shares
from coarse_spark.core.menu.problem.problem import MenuProblem, row_blocks
from coarse_spark.core.menu.problem.rules import (
    Switching,
    UnitRules,
    eligibility_rules,
    ineligible,
    rows_of_menu,
    widest_range,
)
from coarse_spark.core.menu.search.lloyd import Refined, Step, lloyd
from coarse_spark.core.menu.search.search import best_single, search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.search.starts import Starts
from coarse_spark.core.menu.search.steps import FreeChoice, PricedPass, WithinLimits, kept
from coarse_spark.core.menu.settle import Settled, settle, unsettled
from coarse_spark.core.menu.sketch import Sketch
from coarse_spark.core.menu.units import (
    KnownUnits,
    SegmentSums,
    WeightedUnits,
    assign,
    segment_sums,
)
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_TIE_BREAK = 1e-7  # of the spread of profits: far below what responses are known to, above rounding


@dataclass(frozen=True, eq=False)
class ChosenMenu:
    """The menu of one size, valued on everyone.

    Attributes
    ----------
    settled : the menu, its segment sums, and the units that its prices do not decide about.
    upper_bound : no menu of as many treatments within the limits earns more per unit weight.
    sketch_value : what the sketch takes the menu to earn: units of one cell that prefer different
        treatments are told apart less finely there.
    """

    settled: Settled
    upper_bound: float
    sketch_value: float

    @property
    def menu(self) -> PricedMenu:
        """Treatments and final prices."""
        return self.settled.menu

    @property
    def sums(self) -> SegmentSums:
        """Of the segments over everyone."""
        return self.settled.sums

    @property
    def value(self) -> float:
        """Profit per unit weight."""
        return self.sums.value(self.menu.psi)


@dataclass(frozen=True, eq=False)
class MenuCurve:
    """Menus of all sizes for a population.

    Attributes
    ----------
    problem : that menus and sums belong to; where limits may have to divide units that respond
        alike its last coefficient is the tie-break.
    chosen : by size.
    uniform : the best single treatment, within limits on totals where one keeps them.
    total : (p + 1,) Σ w (θ, 1) of everyone.
    units : the sketch of everyone.
    history : the passes over everyone.
    """

    problem: MenuProblem
    chosen: dict[int, ChosenMenu]
    uniform: PricedMenu
    total: FloatArray
    units: WeightedUnits
    history: tuple[Pass, ...]

    @property
    def control_value(self) -> float:
        """Profit per unit weight when nobody is treated."""
        return float(self.problem.control_psi @ self.total / self.total[-1])

    @property
    def uniform_value(self) -> float:
        """Profit per unit weight when everybody gets the best single treatment."""
        return float(self.uniform.psi[0] @ self.total / self.total[-1])

    def totals_kept(self, k: int) -> tuple[TotalKept, ...]:
        """Return what the menu of a size comes to beside its limits on totals."""
        chosen = self.chosen[k]
        return chosen.menu.totals_kept(self.problem, chosen.sums)

    def unserved(self) -> Unserved:
        """Return whom menus have nothing for because of eligibility, and limits that it breaks."""
        unmet, without = dict[int, str](), dict[int, int]()
        for k, one in self.chosen.items():
            if not self._asks_too_much(one.menu, one.sums.rows):
                continue
            why = None
            if not one.menu.free:
                names = [self.problem.space.describe(row) for row in one.menu.treatments]
                allowed = self._refused(one.menu) < 0.5
                mean = self.total / self.total[-1]
                totals = NamedTotals.of(self.problem, one.menu.limits.totals, mean)
                why = unmet_limits(one.menu.posed_to(self.units), allowed, names, totals)
            if why is not None:
                unmet[k] = why
            else:
                without[k] = self._without(one.menu)
        single = 0
        if self._asks_too_much(self.uniform, self.total[None, :]):
            single = self._without(self.uniform)
        return Unserved(unmet, without, single)

    def _asks_too_much(self, menu: PricedMenu, sums: FloatArray) -> bool:
        rules = self.problem.layout.eligibility
        return bool(((menu.psi[:, rules] < 0) & (sums[:, rules] > 0)).any())

    def _refused(self, menu: PricedMenu) -> FloatArray:
        """Return the share (m, K) of each cell's units that are not eligible for a treatment."""
        rules = self.problem.layout.eligibility
        ineligible_for = (menu.psi[:, rules] < 0)[None, :, :]
        return np.asarray((self.units.theta[:, None, rules] * ineligible_for).max(axis=2))

    def _without(self, menu: PricedMenu) -> int:
        # cells tell units of other eligibility apart before anything else
        return max(round(float(self.units.behind @ self._refused(menu).min(axis=1))), 1)


@dataclass(frozen=True)
class Unserved:
    """What eligibility makes impossible.

    Attributes
    ----------
    unmet : by size, which limits cannot be kept, with the nearest that can.
    without : by size, how many units may get none of the treatments.
    without_single : how many may not get the best single treatment.
    """

    unmet: dict[int, str]
    without: dict[int, int]
    without_single: int


def choose_menus(
    population: Population, sizes: Iterable[int], settings: SearchSettings
) -> MenuCurve:
    """Choose a menu of every size for a population.

    Raises
    ------
    InvalidInputError : sizes or limits that cannot be met, with the nearest that can.
    RunError : limits that no prices come near to; a population that changes while it is read.
    """
    sizes = sorted(set(sizes))
    if not settings.limits.free:
        population = population.told_apart()
    problem = settings.posed(population.problem)
    sketch = population.sketch(settings.cells)
    with threadpool_limits(limits=1):  # matrices are small: threads of BLAS would wait for others
        menus = search_menus(problem, sketch.units, sizes, settings)
    if problem.rules and not settings.limits.free:
        menus = with_tie_break(problem, menus, sketch.units)
    certificate = Certificate.search(problem, menus, sketch.units).by_cell(sketch.by_cell)
    sample = None if settings.limits.free else population.sample()
    step = _step(population, sample)
    priced = {k: kept(step.priced(menu), menu) for k, menu in menus.items()}
    # one pass over everyone carries the sums, the sketch and the bounds, which hold whatever menus
    # become
    first = FirstPass.read(population, priced, sketch, certificate)
    start = {k: step.valued(menu, first.sums[k]) for k, menu in priced.items()}
    passes, tolerance = settings.passes, settings.tolerance
    refined = lloyd(problem, start, step, max_passes=passes, tolerance=tolerance)
    if sample is None:
        refined = _risen(problem, sketch.units, refined, step, settings)
        settled = {k: unsettled(found) for k, found in refined.found.items()}
    else:
        # ties are broken by place on the menu, so places are final before anybody is settled
        final = {k: found.menu.ordered()[0] for k, found in refined.found.items()}
        settled = settle(population, final, sample)
    units, bounds = first.sketch.means, certificate.bounds(first.duals, first.total)
    rows = {k: one.menu.priced_psi for k, one in settled.items()}
    on_sketch = segment_sums(units.theta, units.weights, rows)
    chosen = {
        k: ChosenMenu(one, bounds[k], on_sketch[k].value(one.menu.psi))
        for k, one in settled.items()
    }
    mean = WeightedUnits.of(first.total[None, :-1] / first.total[-1], np.ones(1))
    uniform = best_single(problem, mean, settings)
    return MenuCurve(problem, chosen, uniform, first.total, units, refined.history)


@dataclass(frozen=True, eq=False)
class FirstPass:
    """What the first pass over everyone found.

    Attributes
    ----------
    sums : of the menus' segments, by size.
    sketch : sums over the cells.
    duals : what the bounds need, by size.
    """

    sums: dict[int, SegmentSums]
    sketch: SegmentSums
    duals: dict[int, DualSums]

    @staticmethod
    def read(
        population: Population,
        menus: Mapping[int, PricedMenu],
        sketch: Sketch,
        certificate: Certificate,
    ) -> FirstPass:
        """Read the population."""

        def further(theta: FloatArray, weights: FloatArray) -> dict[str, Additive]:
            cells = sketch.cells(theta)
            duals = certificate.sums(theta, weights, cells)
            records: dict[str, Additive] = {f"bound {k}": sums for k, sums in duals.items()}
            return {"sketch": sketch.sums(theta, weights, cells), **records}

        sums, more = population.sums(menus, further)
        duals = {k: DualSums.of_flat(more[f"bound {k}"]) for k in certificate.keys}
        return FirstPass(sums, SegmentSums.of_flat(more["sketch"]), duals)

    @property
    def total(self) -> FloatArray:
        """(p + 1,) Σ w (θ, 1) of everyone."""
        return np.asarray(next(iter(self.sums.values())).rows.sum(axis=0))


def _step(population: Population, sample: WeightedUnits | None) -> Step:
    """Return how units are assigned: freely, exactly where all are in memory, else at prices."""

    def sums(menus: Mapping[int, PricedMenu]) -> Mapping[int, SegmentSums]:
        return population.sums(menus)[0]

    if sample is None:
        return FreeChoice(sums)
    if len(sample) == population.size().units:
        return WithinLimits(sample, whole=True)
    return PricedPass(sums, sample)


def _risen(
    problem: MenuProblem,
    units: WeightedUnits,
    refined: Refined,
    step: Step,
    settings: SearchSettings,
) -> Refined:
    """Replace menus that earn less than a smaller one, which a coarse sketch can cause.

    What takes their place is the smaller one with more treatments.
    """
    found, history = dict(refined.found), refined.history
    sizes = sorted(found)
    for smaller, k in pairwise(sizes):
        least = found[smaller].value
        if found[k].value >= least - 1e-12 * abs(least):
            continue
        starts = Starts.of(problem, units, settings.required)
        treatments = starts.grown(found[smaller].menu.treatments, k)
        menu = PricedMenu.build(problem, treatments, required=settings.required)
        passes, tolerance = settings.passes, settings.tolerance
        start = kept(step([(k, menu)], {})[0], menu)
        again = lloyd(problem, {k: start}, step, max_passes=passes, tolerance=tolerance)
        found[k], history = again.found[k], (*history, *again.history)
    return Refined(found, history)


def with_tie_break(
    problem: MenuProblem, menus: Mapping[int, PricedMenu], units: WeightedUnits
) -> dict[int, PricedMenu]:
    """Return menus under whose limits units that respond alike are told apart by their number."""
    if problem.layout.tie_break.start == problem.layout.tie_break.stop:
        return dict(menus)
    profits = profit_matrix(units.theta[:: max(1, len(units) // 2_000)], problem.psi)
    spread = float(np.ptp(profits, axis=1).mean())
    size = _TIE_BREAK * max(spread, 1e-6 * float(np.abs(profits).max()), 1e-300)
    return {k: m if m.free else replace(m, tie_break=size) for k, m in menus.items()}


def best_size(values: Mapping[int, float], cost_per_treatment: float) -> int:
    """Return the size of largest value less its ``cost_per_treatment``, the first of equals."""
    return max(values, key=lambda size: (values[size] - cost_per_treatment * size, -size))


def choose_menu(
    theta: npt.ArrayLike | pd.DataFrame | Mapping[str, npt.ArrayLike],
    *,
    space: TreatmentSpace,
    basis: Basis | str,
    profit: Profit,
    k: int,
    units: pd.DataFrame | None = None,
    weights: npt.ArrayLike | None = None,
    min_share: Shares = None,
    max_share: Shares = None,
    budget: float | Budget | None = None,
    limits: Limit | Iterable[Limit] | None = (),
    always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
    eligible: Mapping[str, npt.ArrayLike] | None = None,
    previous_menu: Menu | None = None,
    previous_rows: npt.ArrayLike | None = None,
    switching_cost: float = 0.0,
    cost_per_treatment: float = 0.0,
    starts: int = 12,
    invalid: str = "raise",
    seed: int = 0,
) -> Menu:
    """Choose k treatments and the assignment that maximize profit, with a bound on any menu's.

    Parameters
    ----------
    theta : (n, p) response coefficients of the units, in the order of the basis's columns. Of
        several outcomes a mapping from each to its own, or all side by side in the order of
        ``profit.outcomes``.
    space : what may be offered.
    basis : how responses depend on it.
    profit : what a response is worth.
    k : number of treatments; with ``cost_per_treatment`` the largest number.
    units : n rows with the ``unit_columns`` of the profit, in the order of ``theta``.
    weights : (n,), default 1.
    min_share, max_share : a share for every treatment; or k shares, one a position of the menu
        (which treatment takes which is part of the choice); or {candidate row: share}, where a
        minimum puts the candidate on the menu.
    budget : most that may be spent per unit weight, counted by the profit's cost, or a ``Budget``
        that says what counts as spending.
    limits : one or more further limits on what the menu comes to: other budgets, stock, or
        a floor on an outcome.
    always_offer : treatments that stay on the menu.
    eligible : {expression in the treatment names: (n,) booleans}: treatments where the expression
        is not 0 go to these units only.
    previous_menu : an earlier menu.
    previous_rows : (n,) the row of the earlier menu that each unit has. Give it where responses
        were learned again since: by default a unit has what the earlier menu assigns to ``theta``.
    switching_cost : what it costs per unit that gets another treatment than it had.
    cost_per_treatment : per unit weight; the size of largest value less cost is chosen.
    starts, seed : random starts of the search and their seed.
    invalid : "raise" or "drop", for units with missing numbers.

    Raises
    ------
    InvalidInputError : anything above that cannot be used; limits that cannot be met, with the
        nearest that can.
    RunError : limits that no prices come near to.

    Examples
    --------
    >>> space = TreatmentSpace.from_dict(
    ...     {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
    ... )
    >>> theta = np.array([[0, 1.0, -0.5], [0, 2.0, -0.5], [0, 2.0, -0.5]])  # best at 1 and 2
    >>> menu = choose_menu(theta, space=space, basis="quadratic", profit=Profit(), k=2)
    >>> menu.treatments["t"].round(6).tolist(), menu.shares.round(3).tolist()
    ([1.0, 2.0], [0.333, 0.667])
    >>> menu.assign(theta).tolist()
    [0, 1, 1]

    Where a unit's own numbers tell what a treatment costs:

    >>> profit = Profit(cost="rate * t", unit_columns=["rate"])
    >>> units = pd.DataFrame({"rate": [0.0, 0.0, 1.0]})
    >>> menu = choose_menu(theta, space=space, basis="quadratic", profit=profit, k=2, units=units)
    >>> menu.assign(theta, units=units).tolist()
    [0, 1, 0]
    """
    cost_per_treatment = number(cost_per_treatment, "cost_per_treatment")
    switching_cost = number(switching_cost, "switching_cost")
    if cost_per_treatment < 0 or switching_cost < 0:
        raise InvalidInputError("cost_per_treatment and switching_cost cannot be negative")
    if not isinstance(k, int | np.integer) or k < 1:
        raise InvalidInputError(f"k is {k!r}, expected a whole number from 1")
    if budget is not None and not isinstance(budget, Budget):
        by_cost = Profit("0", profit.cost, profit.unit_columns)
        budget = Budget(number(budget, "budget"), by_cost)
    within = Limits(min_share, max_share, budget, Limits.listed(limits))
    problem = MenuProblem.build(space, basis, profit, totals=within.totals)
    coefficients, mass, kept = validated_units(problem, theta, weights, invalid, units)
    if k > len(coefficients):
        raise InvalidInputError(
            f"a menu of {k} treatments for {len(coefficients)} units with weight; "
            f"choose k of at most {len(coefficients)}"
        )
    required = required_treatments(problem, always_offer)
    if eligible:
        eligible = {
            name: np.asarray(column)[kept] if np.shape(column) == kept.shape else column
            for name, column in eligible.items()
        }
    earlier = _earlier(problem, previous_menu, previous_rows, coefficients, kept)
    rules = _rules(problem, coefficients, mass, eligible, earlier, switching_cost)
    rows = [] if previous_menu is None else list(previous_menu.encoded)
    old = [row for row in rows if problem.position(row) is not None or problem.searched.any()]
    extra = [*required, *old]
    ruled = MenuProblem.build(space, problem.basis, profit, extra, rules.all, within.totals)
    population = ArrayPopulation(ruled, rules.extended(coefficients, eligible), mass)
    settings = SearchSettings(
        within,
        required,
        None if previous_menu is None else previous_menu.encoded,
        starts,
        seed,
    )
    least = max(1, len(required))
    sizes = range(least, int(k) + 1) if cost_per_treatment and k >= least else [int(k)]
    curve = choose_menus(population, sizes, settings)
    best = best_size({size: one.value for size, one in curve.chosen.items()}, cost_per_treatment)
    _require_served(curve, best)
    before = None if earlier is None else (earlier.menu, earlier(coefficients))
    return _result(curve, best, population, rules, before)


def _earlier(
    problem: MenuProblem,
    menu: Menu | None,
    rows: npt.ArrayLike | None,
    coefficients: FloatArray,
    kept: npt.NDArray[np.bool_],
) -> EarlierTreatments | None:
    """Return which treatment of the earlier menu units have, ``kept`` of them by coefficients."""
    if menu is None:
        if rows is not None:
            raise InvalidInputError("previous_rows are rows of previous_menu, and there is none")
        return None
    if menu.encoded.shape[1] != len(problem.space.dimensions):
        raise InvalidInputError(
            f"previous_menu has {menu.encoded.shape[1]} treatment dimensions, the space has others"
        )
    if rows is None:
        earlier = EarlierTreatments(menu, None, problem.of_profit)
        earlier.require_alike()
        return earlier
    had = rows_of_menu(rows, len(kept), menu.k)
    known = KnownUnits.of(coefficients, had[kept])
    return EarlierTreatments(menu, known, problem.of_profit)


def _rules(
    problem: MenuProblem,
    units: FloatArray,
    mass: FloatArray,
    eligible: Mapping[str, npt.ArrayLike] | None,
    earlier: EarlierTreatments | None,
    switching_cost: float,
) -> UnitRules:
    """Return the rules of units (n, p) with weights ``mass`` (n,)."""
    rules = UnitRules()
    if eligible:
        names = list(eligible)
        shares = mass @ ineligible(eligible, names, len(units)) / mass.sum()
        worth = widest_range(np.abs(units).max(axis=0), problem.psi)
        found = eligibility_rules(names, problem.space, worth, shares.tolist())
        rules = replace(rules, eligibility=found)
    if earlier is not None and switching_cost > 0:
        switching = tuple(Switching(row, switching_cost) for row in earlier.menu.encoded)
        rules = replace(rules, switching=switching, had=earlier)
    return rules


def _require_served(curve: MenuCurve, k: int) -> None:
    found = curve.unserved()
    if k in found.unmet:
        raise InvalidInputError(f"eligible: {found.unmet[k]}")
    if k in found.without:
        raise InvalidInputError(
            f"eligible: {found.without[k]} units may get none of the {k} treatments; "
            "allow a larger k, or add a treatment that everyone may get to always_offer"
        )


def _result(
    curve: MenuCurve,
    k: int,
    population: ArrayPopulation,
    rules: UnitRules,
    earlier: tuple[Menu, IntArray] | None,
) -> Menu:
    """Return the public result for the menu of one size."""
    chosen, problem, theta = curve.chosen[k], population.problem, population.theta
    final, sums, mass = chosen.menu, chosen.sums, population.weights
    # without the tie-break of a large population: the units that it decides about are known by
    # content
    menu = PricedMenu.build(problem, final.treatments, limits=final.limits)
    menu = replace(menu.at(final.prices, final.limit_prices), found_by=final.found_by)
    taken = assign(theta, menu.priced_psi)
    limits, known = None, None
    if not final.free:
        usual, taken = taken, _taken(chosen.settled, population)
        known = KnownUnits.exceptions(theta, taken, usual)
        limits = LimitsKept(final.lower, final.upper, curve.totals_kept(k))
    changed = None
    if earlier is not None:
        before = earlier[0].encoded[earlier[1]]
        same = problem.space.same(menu.treatments[taken], before)
        changed = float(mass @ ~same / mass.sum())
    own = problem.granular(theta)[1]
    for block in row_blocks(len(own), menu.k):
        best = profit_matrix(theta[block], menu.psi).max(axis=1)
        np.maximum(own[block], best, out=own[block])
    value, uniform = chosen.value, curve.uniform_value
    granular = max(float(mass @ own / mass.sum()), value, uniform)
    return Menu(
        treatments=problem.space.decode(menu.treatments),
        encoded=menu.treatments,
        psi=menu.psi,
        shares=sums.shares,
        prices=menu.prices,
        value=value,
        # rounding alone can put an exact bound below the value it proves optimal
        upper_bound=max(min(chosen.upper_bound, granular), value),
        uniform_value=uniform,
        control_value=curve.control_value,
        granular_value=granular,
        found_by=menu.found_by,
        priced=menu,
        of_profit=problem.of_profit,
        limits=limits,
        rules=rules,
        known=known,
        changed_share=changed,
        history=tuple(line for line in curve.history if line.k == k),
    )


def _taken(settled: Settled, population: ArrayPopulation) -> IntArray:
    """Return the treatment (n,) of every unit: the boundary's as settled, the others' by prices."""
    units = population if settled.deciding.tie_break == 0 else population.told_apart()
    taken = assign(units.theta, settled.deciding.priced_psi)
    taken[settled.boundary.ids] = settled.taken
    return taken
