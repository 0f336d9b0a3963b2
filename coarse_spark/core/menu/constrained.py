"""Menus under share limits: search on a sketch, and settlement on every unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.curve import CandidateSearch, best_refined
from coarse_spark.core.menu.limited import LimitedMenu, LimitedSearch
from coarse_spark.core.menu.limits import ShareLimits
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settings import DEFAULTS, SearchSettings
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class ConstrainedSearch:
    """The search for one size of menu; with limits that bind nobody it is the search without limits.

    Attributes
    ----------
    candidates : problem, sketch and fixed treatments. pool : menus to start from besides the starts that ``settings`` ask for.
    """

    candidates: CandidateSearch
    k: int
    limits: ShareLimits
    settings: SearchSettings = DEFAULTS
    pool: tuple[FloatArray, ...] = ()

    @property
    def problem(self) -> MenuProblem:
        """What the menu is chosen from."""
        return self.candidates.problem

    @property
    def sketch(self) -> MicroClusters:
        """Whom it is for."""
        return self.candidates.sketch

    @property
    def fixed(self) -> FloatArray:
        """(f, d) treatments that it holds."""
        return self.candidates.fixed

    @property
    def limited(self) -> LimitedSearch:
        """The search by transport on the whole sketch."""
        return LimitedSearch(self.problem, self.sketch, self.limits, self.fixed)

    def charged(self, charge: float, spend: Profit) -> ConstrainedSearch:
        """Return the search in which every unit of spending costs ``charge``."""
        return replace(self, candidates=self.candidates.charged(charge, spend))

    def best(self, pool: tuple[FloatArray, ...] = ()) -> LimitedMenu:
        """Search thoroughly: coarse starts with swaps, then Lloyd passes on the sketch.

        Raises
        ------
        InvalidInputError : no candidates meet the limits together.
        """
        search = self.candidates
        menus = [*self.pool, *pool, *search.starts(self.k, self.settings)]
        if not menus:
            menus = [
                search.grow(self.fixed if len(self.fixed) else self.problem.candidates[:1], self.k)
            ]
        given = [self._with_forced(start) for start in (*self.pool, *pool)]
        if self.limits.free:
            return self.warm([search.improve(menus).treatments, *given])
        columns = np.union1d(search.columns, self.limits.forced)
        coarse = LimitedSearch(self.problem, search.few, self.limits, self.fixed)
        rough = coarse.best([self._with_forced(menu) for menu in menus], columns)
        found = [
            menu
            for start in [*given, *([] if rough is None else [rough.treatments])]
            if (menu := self.limited.lloyd(start))
        ]
        if not found:
            raise InvalidInputError(
                f"min_share and max_share cannot be met together by any {self.k} candidates; "
                "loosen the limits of single candidates or choose another k"
            )
        return max(found, key=lambda menu: menu.value)

    def warm(self, pool: list[FloatArray]) -> LimitedMenu:
        """Search by Lloyd passes from given menus only."""
        if self.limits.free:
            return self.priced(
                best_refined(self.problem, self.sketch, pool, self.fixed)[0].treatments
            )
        found = [
            menu
            for treatments in pool
            for menu in [self.limited.lloyd(treatments)]
            if menu is not None
        ]
        return max(found, key=lambda menu: menu.value)

    def priced(self, treatments: FloatArray) -> LimitedMenu:
        """Return given treatments with the prices that their limits ask for."""
        plan, prices = self.solve(treatments)
        value = float(
            (plan * profit_matrix(self.sketch.theta, self.problem.psi_at(treatments))).sum()
            / self.sketch.weights.sum()
        )
        return LimitedMenu(treatments, prices, value)

    def solve(self, treatments: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the plan (m, K) and the prices (K,) of the sketch's transport to given treatments."""
        if not self.limits.free:
            solved = self.limited.solve(treatments)
            if solved is None:
                raise InvalidInputError(
                    f"the share limits of {self.problem.space.decode(treatments).to_dict('records')} contradict each other"
                )
            return solved[0].plan, solved[0].prices
        profits = profit_matrix(self.sketch.theta, self.problem.psi_at(treatments))
        plan = np.zeros_like(profits)
        plan[np.arange(len(plan)), profits.argmax(axis=1)] = self.sketch.weights
        return plan, np.zeros(len(treatments))

    def share_bounds(self, treatments: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper shares (K,) of treatments in the order of positions."""
        lower, upper = self.limits.bounds(self.limited.rows(treatments))
        return lower, np.maximum(lower, upper)

    def candidate_bounds(self, rows: int) -> tuple[FloatArray, FloatArray]:
        """Return the widest lower and upper shares (rows,) that any position allows a candidate, or a row beyond the candidates."""
        lower, upper = (
            np.full(rows, self.limits.lower.min()),
            np.full(rows, self.limits.upper.max()),
        )
        named = len(self.limits.candidate_lower)
        lower[:named] = np.maximum(lower[:named], self.limits.candidate_lower)
        upper[:named] = np.minimum(upper[:named], self.limits.candidate_upper)
        return lower, upper

    def _with_forced(self, treatments: FloatArray) -> FloatArray:
        """Exchange treatments for the candidates that a minimum share puts on the menu."""
        result = list(treatments)
        kept = [
            self.problem.candidates[row].tolist() for row in self.limits.forced
        ] + self.fixed.tolist()
        for row in self.limits.forced:
            wanted = self.problem.candidates[row]
            if not any(np.array_equal(treatment, wanted) for treatment in result):
                spare = next(
                    place
                    for place in reversed(range(len(result)))
                    if result[place].tolist() not in kept
                )
                result[spare] = wanted
        return np.array(result)
