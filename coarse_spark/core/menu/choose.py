"""The public entry: choose one menu, or the whole curve of menu sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.budget import BudgetSearch, Settled, settle
from coarse_spark.core.menu.certificate import bounds_of, dual_prices, dual_sums
from coarse_spark.core.menu.constrained import ConstrainedSearch
from coarse_spark.core.menu.curve import CandidateSearch, rising, search_curve
from coarse_spark.core.menu.earlier import EarlierRows
from coarse_spark.core.menu.feasible import eligible_treatments, unmet_limits
from coarse_spark.core.menu.inputs import always_offered, validated_units
from coarse_spark.core.menu.limited_certificate import LimitedDual
from coarse_spark.core.menu.limits import Budget, MenuLimits, Shares
from coarse_spark.core.menu.lloyd import PricedMenu, Refined, SegmentSums, refine, segment_sums
from coarse_spark.core.menu.milp import milp_menu
from coarse_spark.core.menu.problem import MenuProblem, row_blocks
from coarse_spark.core.menu.result import Constraints, Menu, menus_of
from coarse_spark.core.menu.rounding import Rounding
from coarse_spark.core.menu.rules import (
    Loyalty,
    UnitRules,
    barred,
    barred_units,
    restrictions,
    widest_range,
)
from coarse_spark.core.menu.settings import SearchSettings
from coarse_spark.core.menu.sketch import DEFAULT_CELLS, MicroClusters, SketchSums, SketchTree
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

METHODS = ("auto", "exact", "lloyd", "greedy", "milp")
_TREE_ROWS = 100_000
_BOUND_TOLERANCE = 2e-4  # of granular − control: what the search for a bound may leave open


def choose_menu(
    theta: npt.ArrayLike | pd.DataFrame,
    *,
    space: TreatmentSpace,
    basis: Basis | str,
    profit: Profit,
    k: int,
    weights: npt.ArrayLike | None = None,
    min_share: Shares = None,
    max_share: Shares = None,
    budget: float | Budget | None = None,
    always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
    eligible: Mapping[str, npt.ArrayLike] | None = None,
    previous_menu: Menu | None = None,
    previous_rows: npt.ArrayLike | None = None,
    switching_cost: float = 0.0,
    cost_per_treatment: float = 0.0,
    method: str = "auto",
    starts: int = 12,
    invalid: str = "raise",
    seed: int = 0,
) -> Menu:
    """Choose k treatments and the assignment that maximize profit, with a bound on what any menu can earn.

    Parameters
    ----------
    theta : (n, p) response coefficients of the units, in the order of the basis's columns. weights : (n,), default 1.
    space, basis, profit : what may be offered, how responses depend on it, and what a response is worth.
    k : number of treatments; with ``cost_per_treatment`` the largest number.
    min_share, max_share : a share for every treatment; or k shares, one a position of the menu (which treatment takes which is part
        of the choice); or {candidate row: share}, where a minimum puts the candidate on the menu.
    budget : most that may be spent per unit weight, counted by the profit's cost, or a ``Budget`` that says what counts as
        spending.
    always_offer : treatments that stay on the menu.
    eligible : {expression in the treatment names: (n,) booleans}: treatments where the expression is not 0 go to these units only.
    previous_menu, switching_cost : an earlier menu, and what it costs per unit that gets another treatment than it had.
    previous_rows : (n,) the row of the earlier menu that each unit has. Give it where responses were learned again since: by
        default a unit has what the earlier menu assigns to ``theta``.
    cost_per_treatment : per unit weight; the size of largest value less cost is chosen.
    method : "auto", "exact" (one dimension), "lloyd", "greedy", or "milp" (small finite spaces).
    starts, seed : random starts of the search and their seed. invalid : "raise" or "drop", for units with missing numbers.

    Raises
    ------
    InvalidInputError : anything above that cannot be used; limits that cannot be met, with the nearest that can.
    """
    problem = MenuProblem.build(space, basis, profit)
    if cost_per_treatment < 0 or switching_cost < 0:
        raise InvalidInputError("cost_per_treatment and switching_cost cannot be negative")
    if not isinstance(k, int | np.integer) or k < 1:
        raise InvalidInputError(f"k is {k!r}, expected a whole number from 1")
    population = Population.of(
        problem, theta, weights, always_offer=always_offer, eligible=eligible, previous_menu=previous_menu,
        previous_rows=previous_rows, switching_cost=switching_cost, invalid=invalid,
    )  # fmt: skip
    least = max(1, len(population.fixed))
    sizes = range(least, int(k) + 1) if cost_per_treatment and k >= least else [int(k)]
    if isinstance(budget, int | float):
        budget = Budget(float(budget), Profit("0", profit.cost))
    limits = MenuLimits(min_share, max_share, budget)
    curve = population.curve(sizes, population.settings(limits, method, starts, seed))
    return curve[best_size({size: menu.value for size, menu in curve.items()}, cost_per_treatment)]


def choose_curve(
    problem: MenuProblem,
    theta: npt.ArrayLike | pd.DataFrame,
    sizes: Iterable[int],
    *,
    weights: npt.ArrayLike | None = None,
    always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
    eligible: Mapping[str, npt.ArrayLike] | None = None,
    previous_menu: Menu | None = None,
    previous_rows: npt.ArrayLike | None = None,
    switching_cost: float = 0.0,
    method: str = "auto",
    starts: int = 12,
    max_passes: int = 100,
    tolerance: float = 1e-9,
    invalid: str = "raise",
    seed: int = 0,
) -> dict[int, Menu]:
    """Choose a menu of every size in ``sizes``, each started from the one before; value never falls with size.

    Parameters are those of ``choose_menu``; max_passes and tolerance belong to the refinement on all units (``lloyd.refine``).
    """
    population = Population.of(
        problem, theta, weights, always_offer=always_offer, eligible=eligible, previous_menu=previous_menu,
        previous_rows=previous_rows, switching_cost=switching_cost, invalid=invalid,
    )  # fmt: skip
    settings = population.settings(MenuLimits(), method, starts, seed)
    return population.curve(sizes, settings, max_passes=max_passes, tolerance=tolerance)


def best_size(values: Mapping[int, float], cost_per_treatment: float) -> int:
    """Return the menu size of largest value less ``cost_per_treatment`` times size, the smaller one of equals."""
    return max(values, key=lambda size: (values[size] - cost_per_treatment * size, -size))


@dataclass(frozen=True, eq=False)
class Population:
    """Units in memory with the problem they pose, rules included, and their sketch.

    Attributes
    ----------
    theta : (n, p) coefficients, those of rules after those of the basis. weights : (n,). kept : rows of the user's data they are.
    fixed : (f, d) treatments on every menu. previous : the earlier menu. had : (n,) its row that each unit has.
    clusters : their micro-clusters. cells : (n,) micro-cluster of every unit.
    """

    problem: MenuProblem
    rules: UnitRules
    theta: FloatArray
    weights: FloatArray
    fixed: FloatArray
    previous: Menu | None
    had: IntArray | None
    clusters: MicroClusters
    cells: IntArray

    @staticmethod
    def of(
        problem: MenuProblem,
        theta: npt.ArrayLike | pd.DataFrame,
        weights: npt.ArrayLike | None,
        *,
        always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
        eligible: Mapping[str, npt.ArrayLike] | None = None,
        previous_menu: Menu | None = None,
        previous_rows: npt.ArrayLike | None = None,
        switching_cost: float = 0.0,
        invalid: str = "raise",
    ) -> Population:
        """Check what the user handed over, add rules to problem and units, and sketch the units."""
        units, mass, kept = validated_units(problem, theta, weights, invalid)
        fixed = always_offered(problem, always_offer)
        extra = fixed
        rules = UnitRules()
        if eligible:
            columns = {
                name: np.asarray(column)[kept] if np.shape(column) == kept.shape else column
                for name, column in eligible.items()
            }
            shares = mass @ barred(columns, list(columns), len(units)) / mass.sum()
            worth = widest_range(np.abs(units).max(axis=0), problem.psi)
            rules = replace(rules, restrictions=restrictions(columns, problem.space, worth, shares))
            eligible = columns
        had = None
        if previous_menu is None:
            if previous_rows is not None:
                raise InvalidInputError(
                    "previous_rows are rows of previous_menu, and there is none"
                )
        else:
            if previous_menu.encoded.shape[1] != len(problem.space.dimensions):
                raise InvalidInputError(
                    f"previous_menu has {previous_menu.encoded.shape[1]} treatment dimensions, the space has others"
                )
            inside = [
                row
                for row in previous_menu.encoded
                if problem.position(row) is not None or problem.searched.any()
            ]
            extra = np.vstack([extra, *[row[None, :] for row in inside]])
            earlier = EarlierRows.of(previous_menu, previous_rows, kept)
            had = earlier(units)
            if switching_cost > 0:
                loyalty = tuple(Loyalty(row, switching_cost) for row in previous_menu.encoded)
                rules = replace(rules, loyalty=loyalty, previous=earlier)
        problem = MenuProblem.build(problem.space, problem.basis, problem.profit, extra, rules.all)
        units = rules.extended(units, eligible)
        clusters, cells = sketch_units(problem, units, mass)
        return Population(problem, rules, units, mass, fixed, previous_menu, had, clusters, cells)

    def settings(self, limits: MenuLimits, method: str, starts: int, seed: int) -> SearchSettings:
        """Return the settings of a search for menus of these units."""
        previous = None if self.previous is None else self.previous.encoded
        return SearchSettings(limits, self.fixed, previous, method, starts, seed)

    def curve(
        self,
        sizes: Iterable[int],
        settings: SearchSettings,
        *,
        max_passes: int = 100,
        tolerance: float = 1e-9,
    ) -> dict[int, Menu]:
        """Choose menus of all sizes; max_passes and tolerance belong to the refinement without limits."""
        wanted = self._checked(sizes, settings.method)
        if settings.method == "milp" or not settings.limits.free:
            return {k: self._constrained(k, settings) for k in wanted}

        def aggregate(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
            return segment_sums(self.theta, self.weights, asked)

        found = search_curve(self.problem, self.clusters, wanted, settings)
        refined = refine(self.problem, found, aggregate, max_passes=max_passes, tolerance=tolerance)
        refined = rising(
            self.problem,
            self.clusters,
            refined,
            aggregate,
            max_passes=max_passes,
            tolerance=tolerance,
        )
        granular = self._granular(refined.menus.values())
        control = float(
            next(iter(refined.sums.values())).value_of_all(self.problem.control_psi[None, :])[0]
        )
        # one pass over all units gives bounds that hold for all of them
        rounding, held = Rounding.of(self.problem), self._held()
        slack = _BOUND_TOLERANCE * max(granular - control, 1e-12 * abs(granular))
        duals = dual_prices(rounding, refined.menus, self.clusters, slack, held)
        sums = dual_sums(rounding, duals, self.theta, self.weights, self.cells)
        total = next(iter(refined.sums.values())).rows.sum(axis=0)
        bounds = {
            k: min(bound, granular)
            for k, bound in bounds_of(wanted, sums, rounding, total, held).items()
        }
        menus = menus_of(self.problem, refined, granular, bounds)
        return {k: self._finished(menu) for k, menu in menus.items()}

    def _constrained(self, k: int, settings: SearchSettings) -> Menu:
        """Choose the menu of one size under share limits and a budget."""
        method, budget = settings.method, settings.limits.budget
        if method in ("exact", "greedy"):
            raise InvalidInputError(
                f"method '{method}' knows neither share limits nor a budget; use 'auto', 'lloyd' or 'milp'"
            )
        limits = settings.limits.shares(k, self.problem)
        free = search_curve(self.problem, self.clusters, [k], replace(settings, method="auto"))[k]
        candidates = CandidateSearch.prepare(self.problem, self.clusters, self.fixed)
        earlier = [] if settings.previous is None else [candidates.resized(settings.previous, k)]
        search = ConstrainedSearch(candidates, k, limits, settings, (free.treatments, *earlier))
        charge = 0.0
        if method == "milp":
            menu = milp_menu(search, budget)
        elif budget is not None:
            within = BudgetSearch(search, budget)
            found = within.run()
            menu, charge = within.priced(found), found.charge
        else:
            menu = search.best()
        settled = settle(search, budget, menu, charge, self.theta, self.weights)
        priced = PricedMenu.build(self.problem, settled.treatments, settled.prices)
        priced = replace(priced, found_by="milp" if method == "milp" else "transport")
        if budget is not None:
            priced = replace(
                priced,
                charges=settled.charge * BudgetSearch(search, budget).rows(settled.treatments),
            )
        self._require_eligible(search, settled, budget)
        sums = SegmentSums.of(settled.assignment, self.theta, self.weights, k)
        lower, upper = search.share_bounds(settled.treatments)
        limit = np.inf if budget is None else budget.limit
        constraints = Constraints(
            lower, upper, limit, settled.charge, settled.spending, len(self.theta)
        )
        if budget is not None:
            search = BudgetSearch(search, budget).charged(settled.charge)
        granular = self._granular([priced])
        bound = min(self._constrained_bound(search, priced, constraints), granular)
        refined = Refined({k: priced}, {k: sums})
        return self._finished(
            menus_of(self.problem, refined, granular, {k: bound}, {k: constraints})[k]
        )

    def _require_eligible(
        self, search: ConstrainedSearch, settled: Settled, budget: Budget | None
    ) -> None:
        psi, rules = self.problem.psi_at(settled.treatments), self.problem.rules
        if not barred_units(self.theta, psi[settled.assignment], rules).any():
            return
        within = None if budget is None else BudgetSearch(search, budget)
        why = unmet_limits(
            eligible_treatments(self.theta, psi, rules),
            self.weights,
            *search.share_bounds(settled.treatments),
            [self.problem.space.describe(row) for row in settled.treatments],
            None if within is None else profit_matrix(self.theta, within.rows(settled.treatments)),
            np.inf if budget is None else budget.limit,
        )
        if why is not None:
            raise InvalidInputError(f"eligible: {why}")

    def _constrained_bound(
        self, search: ConstrainedSearch, menu: PricedMenu, constraints: Constraints
    ) -> float:
        dual = LimitedDual.search(
            search.problem,
            menu,
            self.clusters,
            lower=constraints.lower,
            upper=constraints.upper,
            candidates=search.candidate_bounds(len(search.problem.psi)),
            paid=constraints.budget_price * constraints.budget if constraints.budget_price else 0.0,
            held=np.union1d(self._held(), search.limits.forced),
        )
        sums = dual_sums(
            dual.rounding,
            {search.k: (menu, dual.corrections)},
            self.theta,
            self.weights,
            self.cells,
        )
        return dual.bound(sums[search.k])

    def _granular(self, menus: Iterable[PricedMenu]) -> float:
        """Return the mean profit when every unit gets the best treatment found for it, alone or on a menu."""
        best = self.problem.granular(self.theta)[1]
        psi = np.vstack([menu.psi for menu in menus])
        for block in row_blocks(len(best), len(psi)):
            np.maximum(
                best[block],
                (psi[:, :-1] @ self.theta[block].T + psi[:, -1, None]).max(axis=0),
                out=best[block],
            )
        return float(self.weights @ best / self.weights.sum())

    def _held(self) -> IntArray:
        return np.array([self.problem.position(row) for row in self.fixed], dtype=np.intp)

    def _checked(self, sizes: Iterable[int], method: str) -> list[int]:
        if method not in METHODS:
            raise InvalidInputError(
                f"unknown method '{method}'{nearest(method, METHODS)}; known: {', '.join(METHODS)}"
            )
        wanted = sorted({int(k) for k in sizes})
        if wanted and wanted[-1] > len(self.theta):
            raise InvalidInputError(
                f"a menu of {wanted[-1]} treatments for {len(self.theta)} units with weight; choose k of at most {len(self.theta)}"
            )
        return wanted

    def _finished(self, menu: Menu) -> Menu:
        """Add the rules, and how many units the menu gives another treatment than the earlier one."""
        for position, rule in enumerate(self.rules.restrictions):
            column = self.problem.basis.size + position
            taken = menu.assign_extended(self.theta, self.weights)
            restricted = rule.restricts(menu.encoded, self.problem.space)
            without = int((restricted[taken] & (self.theta[:, column] > 0)).sum())
            if without:
                raise InvalidInputError(
                    f"eligible: {without} units may get none of the {menu.k} treatments because of '{rule.expression.text}'; "
                    "allow a larger k, or add a treatment that everyone may get to always_offer"
                )
        changed = None
        if self.previous is not None:
            before = self.previous.encoded[self.had]
            widths = np.maximum(
                self.problem.space.bounds[:, 1] - self.problem.space.bounds[:, 0], 1e-300
            )
            after = menu.encoded[menu.assign_extended(self.theta, self.weights)]
            other = (np.abs(after - before) > 1e-9 * widths).any(axis=1)
            changed = float(self.weights @ other / self.weights.sum())
        return replace(menu, rules=self.rules, changed_share=changed)


def sketch_units(
    problem: MenuProblem, theta: FloatArray, weights: FloatArray, cells: int = DEFAULT_CELLS
) -> tuple[MicroClusters, IntArray]:
    """Return units (n, p) with weights (n,) as at most ``cells`` micro-clusters, and the cluster (n,) of every unit.

    Few units are their own clusters.
    """
    if len(theta) <= cells:
        return MicroClusters(weights, theta, np.ones(len(theta), dtype=np.intp)), np.arange(
            len(theta)
        )
    sample = np.arange(len(theta))
    if len(theta) > _TREE_ROWS:
        # every so many-th in the order of values, not of rows: the sample does not depend on the order of rows
        sample = np.lexsort(np.column_stack([weights, theta]).T)[:: -(-len(theta) // _TREE_ROWS)]
    tree = SketchTree.build(theta[sample], weights[sample], problem.psi, cells)
    routed = tree.cells(theta)
    # every cell holds units of the sample, and all of them have weight
    return SketchSums.of(routed, theta, weights, tree.count).clusters(), routed
