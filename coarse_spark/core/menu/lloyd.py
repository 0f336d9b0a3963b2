"""Adapted Lloyd passes over a population, wherever its rows live.

A pass needs the population only through one small additive record a menu, the segment sums: profit is linear in (θ, 1), so the sums
of weights and of weighted coefficients tell a segment's profit under every treatment. ``refine`` asks for the records of all menus
at once and updates the treatments; whoever calls it says how rows are aggregated (numpy here, Spark elsewhere).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.problem import MenuProblem, row_blocks
from coarse_spark.core.menu.sums import WeightedSums
from coarse_spark.errors import RunError

# how much further than a Lloyd step its stretched companion goes: at first, at least and at most. Below 2, steps never swing out
# further than they came in, so rounding in the sums is not amplified from pass to pass.
_FIRST_STRETCH, _LEAST_STRETCH, _MOST_STRETCH = 1.5, 1.2, 1.9

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PricedMenu:
    """A menu during the search: unit i takes the first treatment that maximizes π_i(t_k) − price_k.

    Attributes
    ----------
    treatments : (K, d) encoded. psi : (K, p + 1) their rows ψ. prices : (K,) per unit of weight.
    fixed : (K,) whether a treatment has to stay as it is.
    charges : (K, p + 1) rows of what a budget charges, subtracted from profit before the choice like the prices.
    found_by : the solver that found it.
    """

    treatments: FloatArray
    psi: FloatArray
    prices: FloatArray
    fixed: BoolArray
    charges: FloatArray | None = None
    found_by: str = "lloyd"

    @staticmethod
    def build(
        problem: MenuProblem,
        treatments: FloatArray,
        prices: FloatArray | None = None,
        fixed: BoolArray | None = None,
    ) -> PricedMenu:
        """Build a menu from encoded treatments (K, d); prices default to 0 and no treatment is fixed."""
        k = len(treatments)
        return PricedMenu(
            treatments,
            problem.psi_at(treatments),
            np.zeros(k) if prices is None else np.asarray(prices, dtype=np.float64),
            np.zeros(k, dtype=bool) if fixed is None else fixed,
        )

    @property
    def priced_psi(self) -> FloatArray:
        """(K, p + 1) rows whose product with (θ, 1) is profit less price: what the assignment maximizes."""
        priced = self.psi.copy() if self.charges is None else self.psi - self.charges
        priced[:, -1] -= self.prices
        return priced

    def ordered(self) -> tuple[PricedMenu, IntArray]:
        """Return the menu with its treatments in ascending order, and that order."""
        rows = np.lexsort(self.treatments.T[::-1])
        charges = None if self.charges is None else self.charges[rows]
        menu = replace(
            self,
            treatments=self.treatments[rows],
            psi=self.psi[rows],
            prices=self.prices[rows],
            fixed=self.fixed[rows],
            charges=charges,
        )
        return menu, rows

    def moved(self, problem: MenuProblem, treatments: FloatArray) -> PricedMenu:
        """Return the menu with other treatments and the same prices."""
        return replace(self, treatments=treatments, psi=problem.psi_at(treatments))


@dataclass(frozen=True, eq=False)
class SegmentSums(WeightedSums):
    """What a pass over the population returns for one menu: sums over the units that take each treatment."""

    def ordered(self, rows: IntArray) -> SegmentSums:
        """Return the sums with segments in another order."""
        return SegmentSums(self.weight[rows], self.theta[rows], self.units[rows])

    @property
    def rows(self) -> FloatArray:
        """(K, p + 1) Σ w (θ, 1) of every segment."""
        return np.column_stack([self.theta, self.weight])

    def value(self, psi: FloatArray) -> float:
        """Return the mean profit per unit weight when segment k gets the treatment of row ``psi[k]``."""
        return float((self.rows * psi).sum() / self.weight.sum())

    def worth(self, menu: PricedMenu) -> float:
        """Return the mean profit per unit weight of a menu, less its prices."""
        return self.value(menu.psi) - float(self.weight @ menu.prices / self.weight.sum())

    def value_of_all(self, psi: FloatArray) -> FloatArray:
        """Return the mean profit per unit weight of giving every unit one treatment, for each row of ``psi`` (J, p + 1)."""
        return np.asarray(psi @ self.rows.sum(axis=0) / self.weight.sum())


@dataclass(frozen=True)
class Pass:
    """One line of the history: what a pass over the population found for the menu of size k and what it changed then.

    value : mean profit per unit weight, less prices where there are any. gain : over the previous pass.
    moved : how many treatments the update then changed. step : the largest move, in shares of its dimension's range.
    what : the treatment that gained most by its move, in words.
    """

    k: int
    number: int
    value: float
    gain: float
    moved: int
    step: float
    what: str


@dataclass(frozen=True, eq=False)
class Refined:
    """Menus after refinement, treatments in ascending order, with the sums that belong to exactly these menus."""

    menus: dict[int, PricedMenu]
    sums: dict[int, SegmentSums]
    history: tuple[Pass, ...] = field(default=())


Aggregate = Callable[[Mapping[int, PricedMenu]], Mapping[int, SegmentSums]]


def refine(
    problem: MenuProblem,
    menus: Mapping[int, PricedMenu],
    aggregate: Aggregate,
    *,
    max_passes: int = 20,
    tolerance: float = 1e-9,
    stretched: bool = True,
) -> Refined:
    """Alternate assignment and update until menus stay, gains fall below tolerance, or passes are used up.

    Parameters
    ----------
    menus : one menu a key (its size, or any other integer).
    aggregate : returns the segment sums of the menus it is given, under the keys it is given (plain numbers, not sizes); one call a
        pass serves all of them.
    max_passes : calls of ``aggregate`` at most; at least one is made, since the sums of the final menus are part of the result.
    tolerance : a menu rests when the next update would gain less, as a share of its profit over the control's.
    stretched : whether each menu comes with a companion whose treatments moved further, the better of the two going on. That about
        halves the passes.

    Raises
    ------
    RunError : profit fell between passes, which only a changing population can cause.
    """
    current, resting = dict(menus), set[int]()
    sums: dict[int, SegmentSums] = {}
    values: dict[int, float] = {}
    tries: dict[int, list[PricedMenu]] = {k: [menu] for k, menu in menus.items()}
    stretch = dict.fromkeys(menus, _FIRST_STRETCH)
    history: list[Pass] = []
    for number in range(1, max(1, max_passes) + 1):
        asked = {
            (k, place): menu
            for k in tries
            if k not in resting
            for place, menu in enumerate(tries[k])
        }
        if not asked:
            break
        records = aggregate(dict(enumerate(asked.values())))
        found = {pair: records[place] for place, pair in enumerate(asked)}
        active = [k for k in tries if k not in resting]
        for k in active:
            worth = [found[k, place].worth(menu) for place, menu in enumerate(tries[k])]
            scale = _scale(problem, found[k, 0], worth[0])
            best = int(worth[-1] > worth[0] + 1e-10 * scale + 1e-12 * abs(worth[0]))
            value, before = worth[best], values.get(k, worth[best])
            if value - before < -1e-7 * scale - 1e-12 * abs(value):
                raise RunError(
                    f"menu of {k}: profit fell from {before:.12g} to {value:.12g} in pass {number}; "
                    "it cannot fall over one population, so the rows or weights changed between passes"
                )
            if len(worth) > 1:
                stretch[k] = (
                    min(stretch[k] * 1.3, _MOST_STRETCH)
                    if best == 1
                    else max(stretch[k] * 0.7, _LEAST_STRETCH)
                )
            current[k], sums[k], values[k] = tries[k][best], found[k, best], value
        proposals = update(problem, {k: current[k] for k in active}, sums)
        for k in active:
            menu, fresh = current[k], proposals[k]
            profits = ((fresh.psi - menu.psi) * sums[k].rows).sum(axis=1) / sums[k].weight.sum()
            earlier = [line.value for line in history if line.k == k][-1:]
            gain = values[k] - earlier[0] if earlier else 0.0
            history.append(describe_pass(problem, k, number, values[k], gain, menu, fresh, profits))
            if profits.sum() <= tolerance * _scale(problem, sums[k], values[k]):
                resting.add(k)
            tries[k] = [fresh, *(_stretched(problem, menu, fresh, stretch[k]) if stretched else [])]
    ordered = {k: menu.ordered() for k, menu in current.items()}
    return Refined(
        {k: menu for k, (menu, _) in ordered.items()},
        {k: sums[k].ordered(rows) for k, (_, rows) in ordered.items()},
        tuple(history),
    )


def _scale(problem: MenuProblem, sums: SegmentSums, value: float) -> float:
    return max(
        abs(value - float(sums.value_of_all(problem.control_psi[None, :])[0])), 1e-12 * abs(value)
    )


def _stretched(
    problem: MenuProblem, menu: PricedMenu, fresh: PricedMenu, factor: float
) -> list[PricedMenu]:
    """Return the menu whose treatments move further than the update asks for, where such treatments exist.

    Lloyd steps are too short near an optimum; where the longer step earns more it saves passes, and where not the plain one is
    taken.
    """
    space, move = problem.space, fresh.treatments - menu.treatments
    straight = (move[:, ~problem.searched] == 0).all(axis=1) & (move != 0).any(axis=1)
    if not straight.any():
        return []
    treatments = fresh.treatments.copy()
    further = np.clip(menu.treatments + factor * move, space.bounds[:, 0], space.bounds[:, 1])[
        straight
    ]
    treatments[straight] = np.where(space.allowed(further)[:, None], further, treatments[straight])
    twins = [
        same_treatment(problem, np.delete(treatments, place, axis=0), row).any()
        for place, row in enumerate(treatments)
    ]
    return (
        []
        if any(twins) or np.array_equal(treatments, fresh.treatments)
        else [fresh.moved(problem, treatments)]
    )


def update(
    problem: MenuProblem, menus: Mapping[int, PricedMenu], sums: Mapping[int, SegmentSums]
) -> dict[int, PricedMenu]:
    """Give every segment the treatment that maximizes its aggregated profit, without ever making two treatments equal.

    The maximum is exact over the candidates and then located between them. Empty segments and fixed treatments stay.
    """
    keys = list(menus)
    means = np.vstack(
        [sums[k].theta / np.where(sums[k].weight > 0, sums[k].weight, 1.0)[:, None] for k in keys]
    )
    old = np.vstack([menus[k].treatments for k in keys])
    fresh, profit = problem.polish(means, problem.best_candidates(means))
    stayed, kept = problem.polish_from(means, old)
    # differences within rounding must not decide between two places
    noise = 1e-13 * (
        np.einsum("ij,ij->i", np.abs(means), np.abs(problem.psi_at(old)[:, :-1]))
        + np.abs(problem.psi_at(old)[:, -1])
    )
    same = kept >= profit - noise
    fresh[same] = stayed[same]
    rows = np.vstack([sums[k].rows for k in keys])
    gains = ((problem.psi_at(fresh) - np.vstack([menus[k].psi for k in keys])) * rows).sum(
        axis=1
    ) + noise * rows[:, -1]
    result, start = {}, 0
    for k in keys:
        menu, size = menus[k], len(menus[k].treatments)
        wanted, gain, treatments = (
            fresh[start : start + size],
            gains[start : start + size],
            menus[k].treatments.copy(),
        )
        start += size
        for position in np.flatnonzero(~menu.fixed & (sums[k].weight > 0) & (gain >= 0)):
            others = np.delete(treatments, position, axis=0)
            if not same_treatment(problem, others, wanted[position]).any():
                treatments[position] = wanted[position]
        result[k] = menu.moved(problem, treatments)
    return result


def same_treatment(
    problem: MenuProblem, treatments: FloatArray, treatment: FloatArray
) -> BoolArray:
    """Return (n,) which of the encoded treatments (n, d) equal one (d,) up to a billionth of each dimension's range."""
    widths = problem.space.bounds[:, 1] - problem.space.bounds[:, 0]
    return np.asarray(
        (np.abs(treatments - treatment) <= 1e-9 * np.maximum(widths, 1e-300)).all(axis=1)
    )


def assign(theta: FloatArray, menu: PricedMenu) -> IntArray:
    """Return the row of the menu that every unit (n, p) takes: the first maximum of profit less price."""
    psi = menu.priced_psi
    chosen = np.empty(len(theta), dtype=np.intp)
    for block in row_blocks(len(theta), len(psi)):
        chosen[block] = first_maximum(psi[:, :-1] @ theta[block].T + psi[:, -1, None])[0]
    return chosen


def first_maximum(profits: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return position and value of the first maximum in every column of (K, n): much faster than argmax where K is small."""
    best, place = profits[0].copy(), np.zeros(profits.shape[1], dtype=np.int16)
    for position in range(1, len(profits)):
        better = profits[position] > best
        np.copyto(place, position, where=better)
        np.maximum(best, profits[position], out=best)
    return place.astype(np.intp), best


def segment_sums(
    theta: FloatArray, weights: FloatArray, menus: Mapping[int, PricedMenu]
) -> dict[int, SegmentSums]:
    """Aggregate units (n, p) with weights (n,) held in memory, all menus in one sweep over blocks of rows."""
    psi = np.vstack([menu.priced_psi for menu in menus.values()])
    ends = np.cumsum([0, *(len(menu.treatments) for menu in menus.values())])
    total = np.zeros((len(psi), theta.shape[1] + 1))
    units = np.zeros(len(psi), dtype=np.intp)
    for block in row_blocks(len(theta), len(psi)):
        profits = psi[:, :-1] @ theta[block].T + psi[:, -1, None]
        taken = np.empty_like(profits)
        for start, end in pairwise(ends):
            np.equal(profits[start:end], profits[start:end].max(axis=0), out=taken[start:end])
        if (
            taken.sum() > len(menus) * profits.shape[1]
        ):  # equal profits: the first treatment takes the unit
            for start, end in pairwise(ends):
                np.equal(
                    taken[start:end].argmax(axis=0),
                    np.arange(end - start)[:, None],
                    out=taken[start:end],
                )
        units += taken.sum(axis=1).astype(np.intp)
        total += taken @ np.column_stack([theta[block] * weights[block, None], weights[block]])
    return {
        k: SegmentSums(total[start:end, -1], total[start:end, :-1], units[start:end])
        for k, (start, end) in zip(menus, pairwise(ends), strict=True)
    }


def describe_pass(
    problem: MenuProblem,
    k: int,
    number: int,
    value: float,
    gain: float,
    old: PricedMenu,
    new: PricedMenu,
    profits: FloatArray,
) -> Pass:
    """Return the history's line for a pass that found ``value`` and exchanges one menu for another, which adds ``profits`` (K,)."""
    widths = problem.space.bounds[:, 1] - problem.space.bounds[:, 0]
    steps = np.abs(new.treatments - old.treatments) / np.maximum(widths, 1e-300)
    moved = steps.max(axis=1) > 1e-9
    what = "nothing moved"
    if moved.any():
        most = int(np.flatnonzero(moved)[profits[moved].argmax()])
        what = f"{problem.space.describe(old.treatments[most])} -> {problem.space.describe(new.treatments[most])}"
    log.info(
        "menu of %d, pass %d: profit %.8g, gain %.3g, %d moved, most %s",
        k,
        number,
        value,
        gain,
        moved.sum(),
        what,
    )
    return Pass(k, number, value, gain, int(moved.sum()), float(steps.max(initial=0.0)), what)
