"""Menus within limits on totals: a search of prices around the search in which all is paid for.

Profit less prices times what counts against limits is again linear in (θ, 1), so at any prices the
search is the one without limits on totals, and less counts against a limit as its price rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.assignment.assign import AssignmentProblem
from coarse_spark.core.menu.assignment.feasible import NamedTotals, least_counts
from coarse_spark.core.menu.assignment.limit_price import free_price, price_scale
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import BUDGET
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.prices import price_search
from coarse_spark.core.menu.search.size import SizeSearch
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

_SEARCHES, _PRICES = 3, 12
_SWAP_ROUNDS, _TRIED_SWAPS = 20, 60
# of profit: what prices may leave open, and what another search has to promise
_GAP, _GAIN = 1e-8, 1e-6
_STUCK = 4  # prices without a menu that keeps the limits
_DEAR = 1e6  # times a small price of what counts: next to it profits hardly matter

Prices = tuple[float, ...]


def within_totals(search: SizeSearch, start: Prices | None = None) -> tuple[PricedMenu, Prices]:
    """Return the best menu found within the limits on totals of the search, at its prices.

    Also returns the prices of what counts at which the search found its treatments, a good
    ``start`` for another size.

    Raises
    ------
    InvalidInputError : limits that no menu can keep; the message names the nearest that one can.
    """
    outer = TotalsSearch(search)
    found = outer.run(start)
    priced = outer.at(found.prices).assigned(found.treatments).menu.prices
    return search.menu(found.treatments).at(priced, found.prices), found.found_at


@dataclass(frozen=True, eq=False)
class Affordable:
    """Treatments within limits on totals.

    Attributes
    ----------
    treatments : (K, d) in the order of the limits' places.
    value : the most they earn within the limits, per unit weight; −inf where they cannot keep them.
    prices : (L,) of what counts, the lowest at which they keep the limits.
    found_at : the prices at which the search found them, where they are worth what they count.
    """

    treatments: FloatArray
    value: float
    prices: Prices
    found_at: Prices


@dataclass(frozen=True, eq=False)
class TotalsSearch:
    """The outer search; ``search`` has limits on totals."""

    search: SizeSearch

    @property
    def most(self) -> FloatArray:
        """(L,) most that counts per unit weight."""
        return self.search.limits.most

    def at(self, prices: Prices) -> SizeSearch:
        """Return the search in which what counts costs its price."""
        return self.search.at_limit_prices(prices)

    def run(self, start: Prices | None = None) -> Affordable:
        """Return the best menu; ``start`` are prices of what counts to begin with."""
        self._check()
        found_at = self._prices_of_all() if start is None else start
        best = self._balanced(self.at(found_at).best().menu.treatments, found_at)
        for number in range(1, _SEARCHES):
            # again at the prices that the first search led to, from starts of another draw
            search = self.at(best.found_at)
            settings = replace(search.settings, seed=search.settings.seed + number)
            found = replace(search, settings=settings).best([best.treatments])
            least = best.value + _GAIN * abs(best.value)
            if self._bound(found, best.found_at) <= least:
                break
            fresh = self._balanced(found.menu.treatments, best.found_at)
            if fresh.value <= least:
                break
            best = fresh
        # the best menu within limits need not be the best at any prices: look among its neighbours
        for _ in range(_SWAP_ROUNDS):
            better = self._exchanged(best)
            if better is None:
                break
            best = better
        return best

    def _bound(self, found: ValuedMenu, prices: Prices) -> float:
        """Return what a menu valued at prices earns at most when the limits are paid back."""
        back = (p * m for p, m in zip(prices, self.most.tolist(), strict=True))
        return float(found.value + sum(back))

    def _used(self, found: ValuedMenu) -> FloatArray:
        """Return what counts (L,) per unit weight of a menu of the search at prices."""
        rows = self.search.problem.counted_at(found.menu.treatments)
        return np.array([found.sums.value(row) for row in rows])

    def _balanced(self, treatments: FloatArray, found_at: Prices) -> Affordable:
        """Let treatments follow the prices until the best at them counts just the limits."""
        prices = price_search(found_at, self._scales)
        below, above = [treatments], list[FloatArray]()
        bound, best = np.inf, Affordable(treatments, -np.inf, found_at, found_at)
        for number in range(_PRICES * len(self.most)):
            tried = prices.following
            search = self.at(tried)
            stuck = [self._least.menu.treatments] if number >= _STUCK and not above else []
            found = search.warm([*below, *above, *stuck])
            treatments, excess = found.menu.treatments, self._used(found) - self.most
            paid = self._bound(found, tried)
            prices.add(tried, excess, paid)
            if (excess > 0).any():
                below = [treatments]
            else:
                above = [treatments]
            bound = min(bound, paid)
            best = max(best, self._affordable(treatments, tried), key=lambda one: one.value)
            if prices.closed or best.value >= bound - _GAP * abs(bound):
                break
        if not np.isfinite(best.value) and len(self.most) > 1:
            best = self._affordable(self._least.menu.treatments, found_at)
        if not np.isfinite(best.value):
            raise InvalidInputError(self._refusal())
        return best

    def _exchanged(self, best: Affordable) -> Affordable | None:
        """Return the first swap that pays."""
        search = self.at(best.prices)
        # several limits: what a swap promises at the prices of others says less
        tried = {} if len(self.most) == 1 else {"tried": _TRIED_SWAPS}
        for menu in search.swaps(search.assigned(best.treatments), search.units, **tried):
            found = self._affordable(menu.treatments, best.found_at)
            if found.value > best.value + 1e-9 * abs(best.value):
                balanced = self._balanced(menu.treatments, best.found_at)
                return max(found, balanced, key=lambda one: one.value)
        return None

    def _affordable(self, treatments: FloatArray, found_at: Prices) -> Affordable:
        """Return given treatments at the lowest prices at which they keep the limits."""
        units = self.search.units
        split = self.search.menu(treatments).posed_to(units).split(found_at)
        if split is None:
            return Affordable(treatments, -np.inf, found_at, found_at)
        return Affordable(treatments, split.value / units.total, split.limit_prices, found_at)

    @cached_property
    def _coarse(self) -> AssignmentProblem:
        """The coarse units, who may take all coarse candidates, within the limits on totals."""
        starts = self.search.starts
        few, columns = starts.few, starts.columns
        rows = starts.problem.counted_at(starts.problem.candidates[columns])
        counted = np.array([profit_matrix(few.theta, row) for row in rows])
        total = float(few.weights.sum())
        free = np.zeros(len(columns)), np.full(len(columns), total)
        return AssignmentProblem(
            starts.coarse.profits, counted, few.weights, *free, self.most * total
        )

    @cached_property
    def _scales(self) -> Prices:
        coarse = self._coarse
        return tuple(price_scale(coarse.profits, counted) for counted in coarse.counted)

    def _prices_of_all(self) -> Prices:
        """Return the prices at which units keep the limits that may take all candidates."""
        coarse = self._coarse
        if len(self.most) == 1:
            limit, scale = float(coarse.most[0]), self._scales[0]
            price = free_price(coarse.profits, coarse.counted[0], coarse.weights, limit, scale)
            return self._scales if price is None else (price,)
        split = coarse.split()
        return self._scales if split is None else split.limit_prices

    @cached_property
    def _least(self) -> ValuedMenu:
        """The menu that counts least: of one limit the candidates that cost least on average."""
        if len(self.most) > 1:
            return self._least_short()
        search = self.at(tuple(_DEAR * scale for scale in self._scales))
        problem, starts, units = search.problem, search.starts, search.units
        rows = problem.counted_at(problem.candidates)
        spent = profit_matrix(units.theta, rows[0])
        cheapest = np.argsort(units.weights @ spent, kind="stable")
        others = cheapest[~np.isin(cheapest, starts.rows)]
        chosen = [*starts.rows, *others][: search.k]
        return search.assigned(search.fitted(problem.candidates[chosen]))

    def _least_short(self) -> ValuedMenu:
        """The menu found that comes nearest to keeping several limits, by swaps alone."""
        start = self.at(tuple(_DEAR * scale for scale in self._scales)).best()
        best, (short, parts) = start, self._shortage(start.menu.treatments)
        for _ in range(_SWAP_ROUNDS):
            if short <= 0:
                break
            # next to such prices profits do not matter, and each limit as much as it is broken
            dear = zip(self._scales, parts.tolist(), strict=True)
            search = self.at(tuple(_DEAR * scale * part for scale, part in dear))
            tried = [search.best()] if best is start else []
            swaps = search.swaps(search.assigned(best.menu.treatments), search.units)
            for menu in (*(one.menu for one in tried), *swaps):
                found, shares = self._shortage(menu.treatments)
                if found < short - 1e-9:
                    best, short, parts = search.assigned(menu.treatments), found, shares
                    break
            else:
                break
        return best

    def _shortage(self, treatments: FloatArray) -> tuple[float, FloatArray]:
        return self.search.menu(treatments).posed_to(self.search.units).programme.shortage()

    def _check(self) -> None:
        """Raise where not even units that may take all candidates keep a limit."""
        problem, units = self.search.problem, self.search.units
        named, every = self._named, problem.counted_at(problem.candidates)
        for limit, control in zip(named.limits, named.control, strict=True):
            if limit.relative_to and not control:
                raise InvalidInputError(
                    f"{limit}: under the control nothing counts, so that no multiple of it limits "
                    "anything; write the number itself, without relative_to"
                )
        for place, (limit, rows) in enumerate(zip(self.search.limits.totals, every, strict=True)):
            least = float(units.weights @ profit_matrix(units.theta, rows).min(axis=1))
            least /= units.total
            if self.most[place] >= least - 1e-12:
                continue
            if limit.name == BUDGET:
                why = (
                    f"{limit} is below {least:.6g}, what the cheapest treatment of every unit "
                    "costs on average"
                )
            else:
                reached = limit.written(least, float(named.control[place]))
                why = (
                    f"{limit} is beyond {reached:.6g}, what every unit's best treatment for it "
                    "comes to on average"
                )
            if units.behind.max() > 1 and rows[:, :-1].any():
                # the best for a mean is no better than the best of each
                why += (
                    f", as far as {len(units)} cells of units alike tell "
                    "(more of them, menu.sketch_cells, tell more)"
                )
            raise InvalidInputError(self._refusal(why))

    @property
    def _named(self) -> NamedTotals:
        units, problem = self.search.units, self.search.problem
        mean = np.append(units.mean.theta[0], 1.0)
        return NamedTotals.of(problem, self.search.limits.totals, mean)

    def _refusal(self, why: str = "") -> str:
        """Return that no menu keeps the limits, ``why``, with the nearest that one found keeps."""
        k, units = self.search.k, self.search.units
        menu = self.search.menu(self._nearest_found)
        least = least_counts(menu.posed_to(units))
        told = self._named.refusal(least, f"on a menu of {k} treatments", why)
        if not why and self._larger_may:
            told += "; or leave small sizes out: larger menus may keep them"
        return told

    @property
    def _larger_may(self) -> bool:
        """Whether a menu of all coarse candidates keeps the limits."""
        limits, coarse, columns = self.search.limits, self._coarse, self.search.starts.columns
        lower, upper = limits.named_shares(len(self.search.problem.candidates))
        total = float(coarse.weights.sum())
        posed = replace(coarse, lower=lower[columns] * total, upper=upper[columns] * total)
        # a minimum for every place is harder for more of them
        return not limits.lower.any() and least_counts(posed) is None

    @property
    def _nearest_found(self) -> FloatArray:
        """The treatments (K, d) found that come nearest to keeping the limits."""
        treatments = self._least.menu.treatments
        if len(self.most) > 1:
            return treatments
        # what is cheapest on average need not be what each unit's cheapest are
        search = self.at(tuple(_DEAR * scale for scale in self._scales))
        found = [search.best([treatments]), self._least]
        return min(found, key=lambda one: float(self._used(one)[0])).menu.treatments
