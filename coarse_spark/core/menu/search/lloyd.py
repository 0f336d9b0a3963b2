"""The adapted Lloyd's algorithm: one loop, whatever units are and however they are assigned.

A step assigns units to given menus and returns segment sums, prices and value; it is chosen before
the loop starts (see ``steps``). Profit is linear in (θ, 1), so the sums tell a segment's profit
under every treatment, and the update gives each segment the treatment that serves it best.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import ClassVar

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.menu import Pass, PricedMenu, all_moved
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.units import SegmentSums
from coarse_spark.errors import RunError

# how much further than a Lloyd step its stretched companion goes: at first, at least and at most.
# Below 2, steps never swing out further than they came in, so rounding in the sums is not
# amplified.
_FIRST_STRETCH, _LEAST_STRETCH, _MOST_STRETCH = 1.5, 1.2, 1.9

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ValuedMenu:
    """A menu at the prices of a step, with what the step found there.

    Attributes
    ----------
    menu : treatments and prices.
    sums : of its segments.
    value : per unit weight: the profit, or with prices of limits the Lagrangian.
    """

    menu: PricedMenu
    sums: SegmentSums
    value: float

    def ordered(self) -> ValuedMenu:
        """Return the same with treatments in ascending order."""
        menu, rows = self.menu.ordered()
        return ValuedMenu(menu, self.sums.ordered(rows), self.value)


class Step(ABC):
    """How units are assigned.

    Attributes
    ----------
    rises : whether the value cannot fall from one call to the next.
    stretches : whether a second menu beside another costs next to nothing.
    """

    rises: ClassVar[bool] = False
    stretches: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self, menus: Sequence[tuple[int, PricedMenu]], known: Mapping[int, ValuedMenu]
    ) -> list[ValuedMenu | None]:
        """Return each menu assigned, None where its treatments cannot keep the limits.

        Parameters
        ----------
        menus : with their keys; a key may come with several.
        known : what the last call found for each key.
        """

    @abstractmethod
    def priced(self, menu: PricedMenu, known: ValuedMenu | None = None) -> PricedMenu | None:
        """Return a menu at the prices that keep its limits, None where there are none."""

    @abstractmethod
    def valued(self, menu: PricedMenu, sums: SegmentSums) -> ValuedMenu:
        """Return a priced menu with its value, from the sums of what units prefer at its prices."""

    @abstractmethod
    def rests(self, found: ValuedMenu) -> bool:
        """Return whether the prices are as good as further calls would make them."""


@dataclass(frozen=True, eq=False)
class Refined:
    """Menus after the loop, by key, and the history of the passes."""

    found: dict[int, ValuedMenu]
    history: tuple[Pass, ...] = ()


def lloyd(
    problem: MenuProblem,
    menus: Mapping[int, ValuedMenu],
    step: Step,
    *,
    max_passes: int,
    tolerance: float,
) -> Refined:
    """Alternate update and assignment until menus rest or passes are used up.

    Parameters
    ----------
    menus : assigned once already, by any key; that was the first pass.
    step : how units are assigned.
    max_passes : at most, the first included.
    tolerance : a menu rests when the next update would gain less, as a share of its profit over the
        control's.

    Raises
    ------
    RunError : profit fell where it cannot, which only a changing population can cause.
    """
    loop = _Loop(problem, step, tolerance, dict(menus), list(menus))
    for number in range(1, max(1, max_passes) + 1):
        proposals = loop.proposed(number)
        if not proposals or number == max_passes:
            break
        loop.take(list(zip(proposals, step(proposals, loop.current), strict=True)))
    found = {k: _in_order(found) for k, found in loop.current.items()}
    return Refined(found, tuple(loop.history))


@dataclass(eq=False)
class _Loop:
    """Where the loop stands.

    Attributes
    ----------
    current : the menus by key, as assigned last.
    active : keys of those that do not rest.
    held : keys whose treatments stay, while their prices may still move.
    stretch : by key, how much further than the update a companion goes.
    values : by key, of the last pass.
    """

    problem: MenuProblem
    step: Step
    tolerance: float
    current: dict[int, ValuedMenu]
    active: list[int]
    held: set[int] = field(default_factory=set)
    stretch: dict[int, float] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)
    history: list[Pass] = field(default_factory=list)

    def proposed(self, number: int) -> list[tuple[int, PricedMenu]]:
        """Note a pass in the history, and return the menus to assign next."""
        updated = update(self.problem, {k: self.current[k] for k in self.active})
        proposals: list[tuple[int, PricedMenu]] = []
        further: dict[int, FloatArray] = {}
        for k in list(self.active):
            found, fresh = self.current[k], updated[k]
            profits = _profits(found, fresh)
            gain = found.value - self.values.get(k, found.value)
            self.values[k] = found.value
            self.history.append(_line(self.problem, k, number, found, gain, fresh, profits))
            least = self.tolerance * scale_of(self.problem, found)
            if k in self.held or profits.sum() <= least:
                if self.step.rests(found):
                    self.active.remove(k)
                else:
                    proposals.append((k, found.menu))
                continue
            proposals.append((k, fresh))
            if self.step.stretches:
                factor = self.stretch.setdefault(k, _FIRST_STRETCH)
                treatments = _stretched(self.problem, found.menu, fresh, factor)
                if treatments is not None:
                    further[k] = treatments
        menus = all_moved(self.problem, [updated[k] for k in further], list(further.values()))
        return [*proposals, *zip(further, menus, strict=True)]

    def take(self, answers: Sequence[tuple[tuple[int, PricedMenu], ValuedMenu | None]]) -> None:
        """Go on with what the step made of the menus."""
        for k in list(self.active):
            tries = [answer for (key, _), answer in answers if key == k]
            chosen, place = _better(self.problem, tries)
            if chosen is None:
                # treatments that are worth more without the limits need not be able to keep them
                self.held.add(k)
            elif _accepted(self.problem, k, self.current[k], chosen, self.step):
                self.current[k] = chosen
            else:
                self.active.remove(k)
            if len(tries) > 1:
                factor = self.stretch[k]
                wider, closer = min(factor * 1.3, _MOST_STRETCH), factor * 0.7
                self.stretch[k] = wider if place else max(closer, _LEAST_STRETCH)


def _in_order(found: ValuedMenu) -> ValuedMenu:
    """Return treatments in ascending order, where it does not matter which takes which place."""
    return found.ordered() if found.menu.limits.symmetric else found


def _accepted(
    problem: MenuProblem, k: int, before: ValuedMenu, after: ValuedMenu, step: Step
) -> bool:
    """Return whether a menu takes the place of another, whose update it is."""
    if not step.rises:
        same = np.array_equal(after.menu.treatments, before.menu.treatments)
        return same or after.value > before.value
    noise = 1e-7 * scale_of(problem, after) + 1e-12 * abs(after.value)
    if after.value < before.value - noise:
        raise RunError(
            f"menu of {k}: profit fell from {before.value:.12g} to {after.value:.12g} in a pass; "
            "it cannot fall over one population, so the rows or weights changed between passes"
        )
    return True


def scale_of(problem: MenuProblem, found: ValuedMenu) -> float:
    """Return a menu's profit over the control's, per unit weight: what gains are measured by."""
    control = found.sums.value_of_all(problem.control_psi)
    return max(abs(found.value - control), 1e-12 * abs(found.value))


def _better(
    problem: MenuProblem, answers: Sequence[ValuedMenu | None]
) -> tuple[ValuedMenu | None, int]:
    """Return the best of a menu and its companion, the plain one of equals, and which it is."""
    plain = answers[0]
    if plain is None:
        return None, 0
    for place, other in enumerate(answers[1:], 1):
        noise = 1e-10 * scale_of(problem, plain) + 1e-12 * abs(plain.value)
        if other is not None and other.value > plain.value + noise:
            return other, place
    return plain, 0


def _profits(found: ValuedMenu, fresh: PricedMenu) -> FloatArray:
    """Return what new treatments add to the profit of each segment (K,), per unit weight of all."""
    more = (fresh.net_psi - found.menu.net_psi) * found.sums.rows
    return np.asarray(more.sum(axis=1) / found.sums.weight.sum())


def _stretched(
    problem: MenuProblem, menu: PricedMenu, fresh: PricedMenu, factor: float
) -> FloatArray | None:
    """Return treatments (K, d) that move further than the update asks for, where they can.

    Lloyd steps are too short near an optimum; where the longer step earns more it saves passes, and
    where not the plain one is taken.
    """
    space, move = problem.space, fresh.treatments - menu.treatments
    straight = (move[:, ~problem.searched] == 0).all(axis=1) & (move != 0).any(axis=1)
    if not straight.any():
        return None
    treatments = fresh.treatments.copy()
    low, high = space.bounds.T
    further = np.clip(menu.treatments + factor * move, low, high)[straight]
    treatments[straight] = np.where(space.allowed(further)[:, None], further, treatments[straight])
    twins = [
        space.same(np.delete(treatments, place, axis=0), row).any()
        for place, row in enumerate(treatments)
    ]
    if any(twins) or np.array_equal(treatments, fresh.treatments):
        return None
    return treatments


def update(problem: MenuProblem, menus: Mapping[int, ValuedMenu]) -> dict[int, PricedMenu]:
    """Give every segment the treatment that maximizes its aggregated profit, at its prices.

    No two treatments become equal. The maximum is exact over the candidates and then located
    between them. Empty segments and required treatments stay, and no segment gets a candidate whose
    own limits its mass does not keep.
    """
    result: dict[int, PricedMenu] = {}
    for prices in dict.fromkeys(found.menu.limit_prices for found in menus.values()):
        part = {k: found for k, found in menus.items() if found.menu.limit_prices == prices}
        # the problem may have prices itself, as inside the search within limits on totals
        both = zip_longest(problem.limit_prices, prices, fillvalue=0.0)
        paid = problem.at_limit_prices(tuple(own + price for own, price in both))
        result |= _updated(problem, paid, part)
    return {k: result[k] for k in menus}


def _updated(
    problem: MenuProblem, paid: MenuProblem, menus: Mapping[int, ValuedMenu]
) -> dict[int, PricedMenu]:
    weight = np.concatenate([found.sums.weight for found in menus.values()])
    rows = np.vstack([found.sums.rows for found in menus.values()])
    means = rows[:, :-1] / np.where(weight > 0, weight, 1.0)[:, None]
    old = np.vstack([found.menu.treatments for found in menus.values()])
    before = np.vstack([found.menu.net_psi for found in menus.values()])
    best, open_ = _best_candidates(paid, means, list(menus.values()))
    # from the best candidates and from where treatments are, in one call
    places, reached = paid.polish_from(
        np.tile(means, (2, 1)), np.vstack([paid.candidates[best], old])
    )
    (fresh, stayed), (profit, kept) = np.split(places, 2), np.split(reached, 2)
    # differences within rounding must not decide between two places
    size = np.abs(paid.psi_at(old))
    noise = 1e-13 * (np.einsum("ij,ij->i", np.abs(means), size[:, :-1]) + size[:, -1])
    same = kept >= profit - noise
    fresh[same] = stayed[same]
    gains = ((paid.psi_at(fresh) - before) * rows).sum(axis=1) + noise * weight
    gains[~open_] = -np.inf
    moved, start = list[FloatArray](), 0
    for found in menus.values():
        end = start + found.menu.k
        wanted, gain, treatments = fresh[start:end], gains[start:end], found.menu.treatments.copy()
        start = end
        may_move = ~found.menu.required & (found.sums.weight > 0) & (gain >= 0)
        for place in np.flatnonzero(may_move):
            others = np.delete(treatments, place, axis=0)
            if not problem.space.same(others, wanted[place]).any():
                treatments[place] = wanted[place]
        moved.append(treatments)
    return dict(
        zip(menus, all_moved(problem, [m.menu for m in menus.values()], moved), strict=True)
    )


def _best_candidates(
    paid: MenuProblem, means: FloatArray, menus: Sequence[ValuedMenu]
) -> tuple[IntArray, BoolArray]:
    """Return the best candidate (m,) of each segment, and where its mass may take one."""
    if not any(found.menu.limits.named for found in menus):
        return paid.best_candidates(means), np.ones(len(means), dtype=bool)
    profits = means @ paid.psi[:, :-1].T + paid.psi[:, -1]
    start = 0
    for found in menus:
        part = profits[start : start + found.menu.k]
        start += found.menu.k
        for row, (least, most) in found.menu.limits.named.items():
            shares = found.sums.shares
            part[(shares < least - 1e-9) | (shares > most + 1e-9), row] = -np.inf
    return profits.argmax(axis=1), np.asarray(np.isfinite(profits).any(axis=1))


def _line(
    problem: MenuProblem,
    k: int,
    number: int,
    found: ValuedMenu,
    gain: float,
    fresh: PricedMenu,
    profits: FloatArray,
) -> Pass:
    old, new, space = found.menu.treatments, fresh.treatments, problem.space
    widths = space.bounds[:, 1] - space.bounds[:, 0]
    steps = np.abs(new - old) / np.maximum(widths, 1e-300)
    moved = ~space.same(new, old)
    what = "nothing moved"
    if moved.any():
        most = int(np.flatnonzero(moved)[profits[moved].argmax()])
        what = f"{space.describe(old[most])} -> {space.describe(new[most])}"
    count, value = int(moved.sum()), found.value
    text = "menu of %d, pass %d: profit %.8g, gain %.3g, %d moved, most %s"
    log.info(text, k, number, value, gain, count, what)
    return Pass(k, number, value, gain, count, float(steps.max(initial=0.0)), what)
