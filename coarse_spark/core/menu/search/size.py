"""The search for the menu of one size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import SizeLimits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.lloyd import Step, ValuedMenu, lloyd, scale_of
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.search.starts import Starts
from coarse_spark.core.menu.search.steps import FreeChoice, WithinLimits, sums_of
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

_MOST_PASSES = 300
_CYCLES = 4  # of exchanges on the table and passes between candidates in turn
_SWAP_ROUNDS, _TRIED_SWAPS = 40, 12  # under limits, where each swap is a transport
_FINALISTS = 3  # of a size: what ranks first roughly need not be the best in the end
# of profit over control: what passes may leave open at the end, and while menus are still compared
_FINE, _ROUGH = 1e-10, 1e-5
_LEAST_GAIN = 1e-9  # of profit, that a swap under limits has to bring


@dataclass(frozen=True, eq=False)
class SizeSearch:
    """The search for the menu of one size.

    Attributes
    ----------
    starts : problem, units and required treatments, and where to start.
    k : the size.
    limits : of its places.
    settings : how it is searched.
    given : (k, d) treatments to start from besides the starts that ``settings`` ask for.
    """

    starts: Starts
    k: int
    limits: SizeLimits
    settings: SearchSettings
    given: tuple[FloatArray, ...] = ()

    @property
    def problem(self) -> MenuProblem:
        """What the menu is chosen from."""
        return self.starts.problem

    @property
    def units(self) -> WeightedUnits:
        """Whom it is for."""
        return self.starts.units

    def at_limit_prices(self, prices: tuple[float, ...]) -> SizeSearch:
        """Return the search in which what counts costs its price and nothing limits it."""
        limits = replace(self.limits, totals=())
        return replace(self, starts=self.starts.at_limit_prices(prices), limits=limits)

    def menu(self, treatments: FloatArray) -> PricedMenu:
        """Return the menu of treatments (k, d) in the order of the limits' places."""
        required = self.starts.required
        return PricedMenu.build(self.problem, treatments, required=required, limits=self.limits)

    def step(self, units: WeightedUnits) -> FreeChoice | WithinLimits:
        """Return how units are assigned."""
        return FreeChoice(sums_of(units)) if self.limits.free else WithinLimits(units)

    def best(self, more: Sequence[FloatArray] = ()) -> ValuedMenu:
        """Search thoroughly: coarse starts with swaps, then Lloyd passes on all units.

        Raises
        ------
        InvalidInputError : no candidates meet the limits together.
        """
        settings, starts = self.settings, self.starts
        given = [*self.given, *more]
        drawn = starts.drawn(self.k, settings.starts, settings.seed)
        if self.limits.free:
            return improved(starts, {self.k: [*given, *drawn]})[self.k]
        few = WithinLimits(starts.few)
        rough = [self.menu(self.fitted(menu)) for menu in (*given, *drawn)]
        coarse = refined(self.problem, few, rough)
        swapped = [self._exchanged(few, best_of(coarse))] if coarse else []
        menus = [*rough[: len(given)], *(one.menu for one in swapped)]
        found = refined(self.problem, WithinLimits(self.units), menus)
        if not found:
            raise InvalidInputError(
                f"min_share and max_share cannot be met together by any {self.k} candidates; "
                "loosen the limits of single candidates or choose another k"
            )
        return best_of(found)

    def warm(self, treatments: Sequence[FloatArray]) -> ValuedMenu:
        """Search by Lloyd passes alone from treatments (k, d) in the order of places."""
        step = self.step(self.units)
        return best_of(refined(self.problem, step, [self.menu(menu) for menu in treatments]))

    def assigned(self, treatments: FloatArray) -> ValuedMenu:
        """Return treatments (k, d) in the order of places with the prices that keep their limits.

        Raises
        ------
        InvalidInputError : their limits contradict each other.
        """
        found = self.step(self.units)([(0, self.menu(treatments))], {})[0]
        if found is None:
            names = self.problem.space.decode(treatments).to_dict("records")
            raise InvalidInputError(f"the share limits of {names} contradict each other")
        return found

    def swaps(
        self, found: ValuedMenu, units: WeightedUnits, tried: int = _TRIED_SWAPS
    ) -> Iterator[PricedMenu]:
        """Yield the menu with one treatment exchanged for a coarse candidate, best promise first.

        An exchange promises the dual at the menu's prices, an upper bound on its profit: only those
        come that may pay, and so many at most.
        """
        menu, problem, mass = found.menu, self.problem, units.weights / units.total
        columns = np.union1d(self.starts.columns, self.limits.required).astype(np.intp)
        columns = columns[~np.isin(columns, problem.positions(menu.treatments))]
        net = profit_matrix(units.theta, menu.psi) - menu.prices
        profits = profit_matrix(units.theta, problem.psi[columns])
        bounds = np.full((menu.k, len(columns)), -np.inf)
        for place in np.flatnonzero(~menu.required):
            others = np.delete(net, place, axis=1).max(axis=1, initial=-np.inf)
            bounds[place] = mass @ np.maximum(profits - menu.prices[place], others[:, None])
        current = float(mass @ net.max(axis=1))
        for flat in np.argsort(-bounds, axis=None, kind="stable")[:tried]:
            place, column = divmod(int(flat), bounds.shape[1])
            if bounds[place, column] <= current + 1e-10 * abs(current):
                return
            treatments = menu.treatments.copy()
            treatments[place] = problem.candidates[columns[column]]
            yield menu.moved(problem, treatments)

    def _exchanged(self, step: WithinLimits, best: ValuedMenu) -> ValuedMenu:
        """Swap while that pays."""
        for _ in range(_SWAP_ROUNDS):
            least = best.value + _LEAST_GAIN * abs(best.value)
            for menu in self.swaps(best, step.units):
                found = step.assigned(menu)
                if found is not None and found.value > least:
                    better = refined(self.problem, step, [menu])[0]
                    if better.value > least:
                        best = better
                        break
            else:
                break
        return best

    def fitted(self, treatments: FloatArray) -> FloatArray:
        """Return treatments (k, d) in the order of places in which they earn most.

        Larger masses go to the more wanted, then places are exchanged while that pays. Candidates
        that a minimum share puts on the menu come in first.
        """
        treatments, step = self._with_required(treatments), WithinLimits(self.starts.few)
        if self.limits.symmetric:
            return treatments
        taken = profit_matrix(step.units.theta, self.menu(treatments).psi).argmax(axis=1)
        wanted = np.bincount(taken, step.units.weights, minlength=self.k)
        order = np.empty(self.k, dtype=np.intp)
        places = np.argsort(self.limits.lower + self.limits.upper, kind="stable")
        order[places] = np.argsort(wanted, kind="stable")
        best = step.assigned(self.menu(treatments[order]))
        improved = True
        while improved:
            improved = False
            for pair in combinations(range(self.k), 2):
                trial = order.copy()
                trial[list(pair)] = trial[list(pair[::-1])]
                found = step.assigned(self.menu(treatments[trial]))
                if found is not None and (
                    best is None or found.value > best.value + 1e-10 * abs(best.value)
                ):
                    order, best, improved = trial, found, True
        return np.asarray(treatments[order])

    def _with_required(self, treatments: FloatArray) -> FloatArray:
        """Exchange treatments for the candidates that a minimum share puts on the menu."""
        space, result = self.problem.space, treatments.copy()
        wanted = self.problem.candidates[self.limits.required]
        kept = np.vstack([wanted, self.starts.required])
        for treatment in wanted:
            if not space.same(result, treatment).any():
                spare = [not space.same(kept, row).any() for row in result]
                result[np.flatnonzero(spare)[-1]] = treatment
        return result


def refined(
    problem: MenuProblem, step: Step, menus: Sequence[PricedMenu], *, tolerance: float = _FINE
) -> list[ValuedMenu]:
    """Return the menus that Lloyd's loop makes of menus in common passes.

    Those that cannot keep their limits are left out.
    """
    found = step(list(enumerate(menus)), {})
    start = {place: menu for place, menu in enumerate(found) if menu is not None}
    most = _MOST_PASSES
    return list(lloyd(problem, start, step, max_passes=most, tolerance=tolerance).found.values())


def improved(starts: Starts, given: Mapping[int, Sequence[FloatArray]]) -> dict[int, ValuedMenu]:
    """Refine menus without limits, all sizes in common passes, and improve them while that pays.

    The best menu of a size is improved by exchanging treatments for candidates. The next size is
    tried from it with the candidates of largest gain added, the one before without the treatments
    of smallest loss.

    Parameters
    ----------
    given : treatments (k, d) to start from, by size k.
    """
    problem, sizes = starts.problem, sorted(given)
    step = FreeChoice(sums_of(starts.units))
    after, before = dict(pairwise(sizes)), dict(pairwise(sizes[::-1]))
    tried = [treatments for k in sizes for treatments in given[k]]
    best: dict[int, list[ValuedMenu]] = {k: [] for k in sizes}
    for _ in range(_CYCLES + len(sizes)):
        menus = [PricedMenu.build(problem, menu, required=starts.required) for menu in tried]
        better = set[int]()
        for found in refined(problem, step, menus, tolerance=_ROUGH):
            k, least = found.menu.k, _ROUGH * scale_of(problem, found)
            if not best[k] or found.value > best[k][0].value + least:
                better.add(k)
            if all(abs(found.value - other.value) > 1e-2 * least for other in best[k]):
                best[k] = sorted([*best[k], found], key=lambda one: -one.value)[:_FINALISTS]
        tried = []
        for k in sorted(better):
            menu = best[k][0].menu
            exchanged = _with_candidates(starts, menu)
            tried += [] if exchanged is None else [exchanged]
            tried += [starts.grown(menu.treatments, after[k])] if k in after else []
            tried += [starts.shrunk(menu.treatments, before[k])] if k in before else []
        if not tried:
            break
    finalists = [one.menu for k in sizes for one in best[k]]
    done = refined(problem, step, finalists)
    return {k: best_of([one for one in done if one.menu.k == k]) for k in sizes}


def _with_candidates(starts: Starts, menu: PricedMenu) -> FloatArray | None:
    """Return the treatments (k, d) after exchanges for candidates; None where none gains."""
    candidates = starts.problem.candidates
    own = len(candidates) + np.arange(menu.k)
    table = replace(starts.table, required=tuple(own[menu.required].tolist()))
    swapped = table.swap(own, profit_matrix(starts.units.theta, menu.psi))
    if np.array_equal(swapped, own):
        return None
    return np.asarray(np.vstack([candidates, menu.treatments])[swapped])


def best_of(found: Sequence[ValuedMenu]) -> ValuedMenu:
    """Return the menu of largest value, the first of equals."""
    return max(found, key=lambda menu: menu.value)
