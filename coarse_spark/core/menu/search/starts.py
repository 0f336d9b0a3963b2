"""Where searches start: menus drawn on a coarse table, smaller and earlier menus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.table import ProfitTable, spanning_candidates
from coarse_spark.core.menu.sketch import SketchTree
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix

# starts and their swaps run on a coarse table; the best few are then refined on all units
_COARSE_UNITS, _COARSE_CANDIDATES, _REFINED_STARTS = 1_000, 256, 6


@dataclass(frozen=True, eq=False)
class Starts:
    """Menus to start from, for units in memory.

    Attributes
    ----------
    problem : what menus are chosen from.
    units : whom they are for.
    required : (f, d) encoded treatments that every menu holds.
    rows : (f,) their rows among the candidates.
    few : the coarse units.
    columns : the coarse candidates.
    """

    problem: MenuProblem
    units: WeightedUnits
    required: FloatArray
    rows: IntArray
    few: WeightedUnits
    columns: IntArray

    @staticmethod
    def of(problem: MenuProblem, units: WeightedUnits, required: FloatArray | None) -> Starts:
        """Set up starts of menus that hold the candidates ``required`` (f, d)."""
        kept = np.empty((0, problem.candidates.shape[1])) if required is None else required
        rows, few = problem.positions(kept), units
        if len(units) > _COARSE_UNITS:
            few = SketchTree.build(units, problem.psi, _COARSE_UNITS).merged(units)
        columns = spanning_candidates(problem.psi, few, _COARSE_CANDIDATES, rows)
        return Starts(problem, units, kept, rows, few, columns)

    def at_limit_prices(self, prices: tuple[float, ...]) -> Starts:
        """Return the starts where what counts costs its price, with the same coarse units."""
        return replace(self, problem=self.problem.at_limit_prices(prices))

    @cached_property
    def table(self) -> ProfitTable:
        """Profits of the units under all candidates."""
        profits = profit_matrix(self.units.theta, self.problem.psi)
        return ProfitTable(profits, self.units.weights, tuple(self.rows.tolist()))

    @cached_property
    def coarse(self) -> ProfitTable:
        """Profits of the coarse units under the coarse candidates."""
        profits = profit_matrix(self.few.theta, self.problem.psi[self.columns])
        required = np.searchsorted(self.columns, self.rows)
        return ProfitTable(profits, self.few.weights, tuple(required.tolist()))

    def drawn(self, k: int, starts: int, seed: int) -> list[FloatArray]:
        """Return the treatments (k, d) of the best few menus that so many random starts lead to.

        One grown on all candidates where the coarse ones are fewer than k.
        """
        coarse, rng = self.coarse, np.random.default_rng([seed, k])
        if k > coarse.profits.shape[1]:
            return [self.grown(self.required, k)]
        menus = [coarse.greedy(k, np.array(coarse.required, dtype=np.intp))]
        menus += [
            coarse.random(k, rng) if number % 4 == 3 else coarse.spread(k, rng)
            for number in range(starts)
        ]
        found = {tuple(sorted(coarse.swap(menu).tolist())) for menu in menus}
        ranked = sorted(found, key=lambda menu: (-coarse.value(np.array(menu)), menu))
        rows = [self.columns[list(menu)] for menu in ranked[:_REFINED_STARTS]]
        return [self.problem.candidates[menu] for menu in rows]

    def grown(self, treatments: FloatArray, k: int) -> FloatArray:
        """Return treatments (l, d) with the candidates of largest gain added until there are k."""
        if len(treatments) >= k:
            return treatments
        # candidates that equal a treatment of the menu must not be added again
        twins = self.problem.positions(treatments)
        held = profit_matrix(self.units.theta, self.problem.psi_at(treatments))
        menu = self.table.greedy(k - len(treatments) + len(twins), twins, held)
        return np.vstack([treatments, self.problem.candidates[menu[len(twins) :]]])

    def shrunk(self, treatments: FloatArray, k: int) -> FloatArray:
        """Return treatments (l, d) without those of smallest loss until there are k."""
        held = profit_matrix(self.units.theta, self.problem.psi_at(treatments))
        kept = np.array([self.problem.space.same(self.required, row).any() for row in treatments])
        while len(treatments) > k:
            left = np.array(
                [
                    self.units.weights @ np.delete(held, place, axis=1).max(axis=1)
                    for place in range(len(treatments))
                ]
            )
            place = int(np.where(kept, -np.inf, left).argmax())
            treatments, kept = np.delete(treatments, place, axis=0), np.delete(kept, place)
            held = np.delete(held, place, axis=1)
        return treatments

    def resized(self, treatments: FloatArray, k: int) -> FloatArray:
        """Return k treatments: those required, of (l, d) as many as have room, and additions."""
        menu = self.required
        for row in treatments:
            if len(menu) < k and not self.problem.space.same(menu, row).any():
                menu = np.vstack([menu, row])
        return self.grown(menu, k)
