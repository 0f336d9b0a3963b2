"""Search for the menus of all sizes on a sketch, each size started from the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.exact import exact_menus, is_small_enough, is_unimodal
from coarse_spark.core.menu.lloyd import (
    Aggregate,
    PricedMenu,
    Refined,
    SegmentSums,
    refine,
    same_treatment,
    segment_sums,
)
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.search import ProfitTable, spanning_candidates
from coarse_spark.core.menu.settings import DEFAULTS, SearchSettings
from coarse_spark.core.menu.sketch import MicroClusters, SketchTree
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.errors import InvalidInputError

# starts and their swaps run on a coarse table; the best few are then refined on the sketch itself
_COARSE_UNITS, _COARSE_CANDIDATES, _REFINED_STARTS = 1_000, 256, 6
_SWAP_CYCLES = 4
_FINE = 1e-10
_ROUGH = (
    1e-5  # of profit over control: what refinement may leave open while menus are still compared
)


def search_curve(
    problem: MenuProblem,
    sketch: MicroClusters,
    sizes: Iterable[int],
    settings: SearchSettings = DEFAULTS,
) -> dict[int, PricedMenu]:
    """Find the menus of all ``sizes`` on a sketch, continuous dimensions refined; limits are left to ``search_within``.

    Raises
    ------
    InvalidInputError : a size below 1, below the number of fixed treatments or above the number of candidates.
    """
    method = settings.method
    fixed = np.empty((0, problem.candidates.shape[1])) if settings.fixed is None else settings.fixed
    wanted = sorted(set(sizes))
    _check_sizes(wanted, len(problem.psi), len(fixed))
    search = CandidateSearch.prepare(problem, sketch, fixed)
    if method in ("auto", "exact"):
        found = search.exact(wanted[-1])
        if found is None and method == "exact":
            raise InvalidInputError(
                "method 'exact' needs one treatment dimension along which every unit's profit rises and then falls; use 'auto'"
            )
        if found is not None:
            menus = {k: replace(_built(problem, found[k], fixed), found_by="exact") for k in wanted}
            return refined_on(problem, sketch, menus, tolerance=_FINE).menus
    menus = {}
    grown: FloatArray | None = fixed if len(fixed) else None
    for k in range(max(1, len(fixed)), wanted[-1] + 1):
        pool = [] if grown is None else [search.grow(grown, k)]
        if grown is None or (k in wanted and method != "greedy"):
            pool += search.starts(k, settings)
            if settings.previous is not None:
                pool.append(search.resized(settings.previous, k))
        best = search.improve(pool, cycles=0 if method == "greedy" else _SWAP_CYCLES)
        grown = best.treatments
        if k in wanted:
            menus[k] = replace(best, found_by="greedy" if method == "greedy" else "lloyd")
    return refined_on(problem, sketch, menus, tolerance=_FINE).menus


def rising(
    problem: MenuProblem,
    sketch: MicroClusters,
    refined: Refined,
    aggregate: Aggregate,
    *,
    max_passes: int = 20,
    tolerance: float = 1e-9,
) -> Refined:
    """Replace every menu that earns less than a smaller one, which a coarse sketch can cause, by that one with more treatments."""
    menus, sums, history = dict(refined.menus), dict(refined.sums), refined.history
    smaller: int | None = None
    for k in sorted(menus):
        value = sums[k].value(menus[k].psi)
        if smaller is not None and value < sums[smaller].value(menus[smaller].psi) - 1e-12 * abs(
            value
        ):
            search = CandidateSearch.prepare(problem, sketch, menus[k].treatments[menus[k].fixed])
            grown = search.grow(menus[smaller].treatments, k)
            mask = np.array(
                [same_treatment(problem, search.fixed, row).any() for row in grown], dtype=bool
            )
            again = refine(
                problem,
                {k: PricedMenu.build(problem, grown, fixed=mask)},
                aggregate,
                max_passes=max_passes,
                tolerance=tolerance,
            )
            menus[k], sums[k], history = again.menus[k], again.sums[k], (*history, *again.history)
        smaller = k
    return Refined(menus, sums, history)


@dataclass(frozen=True, eq=False)
class CandidateSearch:
    """Starts, additions and swaps on one sketch.

    Attributes
    ----------
    fixed : (f, d) treatments that every menu holds. held : (f,) their rows among the candidates.
    few, columns : the coarse units and candidates that starts use.
    """

    problem: MenuProblem
    sketch: MicroClusters
    fixed: FloatArray
    held: IntArray
    few: MicroClusters
    columns: IntArray

    @staticmethod
    def prepare(problem: MenuProblem, sketch: MicroClusters, fixed: FloatArray) -> CandidateSearch:
        """Set up a search in which every menu holds the candidates ``fixed`` (f, d)."""
        held = np.array([problem.position(row) for row in fixed], dtype=np.intp)
        few = sketch
        if len(sketch.weights) > _COARSE_UNITS:
            few = SketchTree.build(sketch.theta, sketch.weights, problem.psi, _COARSE_UNITS).merged(
                sketch
            )
        columns = spanning_candidates(problem.psi, few.theta, few.weights, _COARSE_CANDIDATES, held)
        return CandidateSearch(problem, sketch, fixed, held, few, columns)

    @cached_property
    def table(self) -> ProfitTable:
        """Profits of the sketch under all candidates."""
        profits = profit_matrix(self.sketch.theta, self.problem.psi)
        return ProfitTable(profits, self.sketch.weights, tuple(self.held.tolist()))

    @cached_property
    def coarse(self) -> ProfitTable:
        """Profits of the coarse units under the coarse candidates."""
        profits = profit_matrix(self.few.theta, self.problem.psi[self.columns])
        return ProfitTable(
            profits, self.few.weights, tuple(np.searchsorted(self.columns, self.held).tolist())
        )

    def charged(self, charge: float, spend: Profit) -> CandidateSearch:
        """Return the search in which every unit of spending costs ``charge``, on the same coarse units and candidates."""
        return replace(self, problem=self.problem.charged(charge, spend))

    def exact(self, largest: int) -> dict[int, FloatArray] | None:
        """Return the treatments of the best candidate menus of all sizes, or None where the dynamic program does not apply."""
        profits = self.table.profits
        if len(self.problem.space.dimensions) > 1 or not is_small_enough(*profits.shape):
            return None
        order = np.argsort(self.problem.candidates[:, 0], kind="stable")
        ordered = profits[:, order]
        if not is_unimodal(ordered):
            return None
        menus = exact_menus(
            ordered, self.table.weights, largest, np.flatnonzero(np.isin(order, self.table.fixed))
        )
        return {k: self.problem.candidates[order[menu]] for k, menu in menus.items()}

    def starts(self, k: int, settings: SearchSettings) -> list[FloatArray]:
        """Return the treatments (k, d) of the best few coarse menus."""
        coarse, rng = self.coarse, np.random.default_rng([settings.seed, k])
        if k > coarse.profits.shape[1]:
            return []
        drawn = [coarse.greedy(k, np.array(coarse.fixed, dtype=np.intp))]
        drawn += [
            coarse.random(k, rng) if number % 4 == 3 else coarse.spread(k, rng)
            for number in range(settings.starts)
        ]
        found = {tuple(sorted(coarse.swap(menu).tolist())) for menu in drawn}
        ranked = sorted(found, key=lambda menu: (-coarse.value(np.array(menu)), menu))
        return [
            self.problem.candidates[self.columns[list(menu)]] for menu in ranked[:_REFINED_STARTS]
        ]

    def grow(self, treatments: FloatArray, k: int) -> FloatArray:
        """Add the candidates of largest gain until the menu holds k."""
        psi = self.problem.psi_at(treatments)
        size, count = len(self.problem.psi), len(treatments)
        if count >= k:
            return treatments
        table = self.table.extended(profit_matrix(self.sketch.theta, psi))
        # candidates that equal a treatment of the menu must not be added again
        twins = [row for row in (self.problem.position(t) for t in treatments) if row is not None]
        menu = table.greedy(
            k + len(twins), np.array([*range(size, size + count), *twins], dtype=np.intp)
        )
        return np.vstack([treatments, self.problem.candidates[menu[count + len(twins) :]]])

    def resized(self, treatments: FloatArray, k: int) -> FloatArray:
        """Return a menu of k that holds what every menu holds, then treatments (l, d) as far as there is room, then additions."""
        menu = self.fixed
        for row in treatments:
            if len(menu) < k and not same_treatment(self.problem, menu, row).any():
                menu = np.vstack([menu, row])
        return self.grow(menu, k)

    def improve(self, pool: list[FloatArray], cycles: int = _SWAP_CYCLES) -> PricedMenu:
        """Refine all menus of the pool on the sketch, then the best one by swaps and refinement in turn."""
        best, value = best_refined(self.problem, self.sketch, pool, self.fixed, tolerance=_ROUGH)
        for _ in range(cycles):
            size, k = len(self.problem.psi), len(best.treatments)
            table = self.table.extended(profit_matrix(self.sketch.theta, best.psi))
            own = np.arange(size, size + k)
            fixed = own[best.fixed]
            swapped = ProfitTable(table.profits, table.weights, tuple(fixed.tolist())).swap(own)
            if (swapped >= size).all():
                break
            everything = np.vstack([self.problem.candidates, best.treatments])
            fresh, gained = best_refined(
                self.problem, self.sketch, [everything[swapped]], self.fixed, tolerance=_ROUGH
            )
            if gained <= value + 1e-12 * abs(value):
                break
            best, value = fresh, gained
        return best


def best_refined(
    problem: MenuProblem,
    sketch: MicroClusters,
    pool: list[FloatArray],
    fixed: FloatArray,
    *,
    tolerance: float = _FINE,
) -> tuple[PricedMenu, float]:
    """Refine all menus of a pool, treatments (K, d) each, on the sketch; return the best one and its value."""
    refined = refined_on(
        problem,
        sketch,
        dict(enumerate(_built(problem, menu, fixed) for menu in pool)),
        tolerance=tolerance,
    )
    values = {
        number: refined.sums[number].value(menu.psi) for number, menu in refined.menus.items()
    }
    best = max(values, key=lambda number: (values[number], -number))
    return refined.menus[best], values[best]


def refined_on(
    problem: MenuProblem,
    sketch: MicroClusters,
    menus: Mapping[int, PricedMenu],
    *,
    tolerance: float,
) -> Refined:
    """Refine menus on the sketch, all of them in common passes."""

    def aggregate(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(sketch.theta, sketch.weights, asked)

    return refine(problem, menus, aggregate, max_passes=300, tolerance=tolerance)


def _built(problem: MenuProblem, treatments: FloatArray, fixed: FloatArray) -> PricedMenu:
    mask = np.array([same_treatment(problem, fixed, row).any() for row in treatments], dtype=bool)
    return PricedMenu.build(problem, treatments, fixed=mask)


def _check_sizes(sizes: list[int], candidates: int, fixed: int) -> None:
    if not sizes or sizes[0] < 1:
        raise InvalidInputError(f"menu sizes are {sizes}, expected whole numbers from 1")
    if sizes[0] < fixed:
        raise InvalidInputError(
            f"a menu of {sizes[0]} cannot hold the {fixed} treatments of always_offer; choose k of at least {fixed}"
        )
    if sizes[-1] > candidates:
        raise InvalidInputError(
            f"a menu of {sizes[-1]} treatments from {candidates} candidates; choose k of at most {candidates}"
        )
