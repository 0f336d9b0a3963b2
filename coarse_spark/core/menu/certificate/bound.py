"""Upper bounds on what any menu of a size can earn within its limits.

Giving every unit exactly one treatment is relaxed at a price u_i a unit (the Lagrangian of the
p-median problem [1]_). Whatever u is, no menu of K candidates earns more than

    Σ_i w_i u_i + sum of the K largest over candidates j of ρ_j,     ρ_j = Σ_i w_i (π_ij − u_i)⁺,

and the rounding loss (see ``rounding``) extends that to the treatments between the candidates.
Limits on shares add a price to every candidate (see ``dual``), what counts against a budget or
another limit on totals is paid for at its price and paid back; without limits all of these are 0. u
is searched on a sketch. It carries to every unit of the population as u_i = (its own best on the
menu, after prices) − (the correction found for its cell), so that one pass over all units gives a
bound that is valid for all of them, not only for the sketch.

.. [1] Cornuéjols, Fisher & Nemhauser (1977), Location of bank accounts to optimize float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.certificate.dual import Relaxation, largest_sum
from coarse_spark.core.menu.certificate.rounding import Rounding
from coarse_spark.core.menu.certificate.single_precision import SINGLE
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix

_TOLERANCE = 2e-4  # of granular − control: what the search for a bound may leave open
_GIVEN_AWAY = 0.4  # of its gap: by how much that of a size may grow to spare its own relaxation
_TILE = 256  # units whose profits under all treatments are held at once: they stay in the cache


@dataclass(frozen=True, eq=False)
class DualSums(Additive):
    """What a pass over units adds up for one relaxation.

    Attributes
    ----------
    base : Σ w u.
    gains : (J',) Σ w (π_ij − u_i)⁺.
    rounding : Σ w loss.
    weight : Σ w.
    """

    base: float
    gains: FloatArray
    rounding: float
    weight: float


@dataclass(frozen=True, eq=False)
class Dual:
    """A relaxation of menus: its prices, and what they add to the bound.

    Attributes
    ----------
    psi : (K, p + 1) priced rows of the menu it was found for.
    corrections : (cells,) by which a unit's price is below its best of these rows.
    constants : (J',) what prices of candidates pay back at most.
    paid_back : prices of limits on totals times the limits.
    required : rows of candidates that every menu holds.
    distinct : whether a candidate counts once only: in a finite space, and where nothing is paid
        back for its share, so that two treatments moved onto one candidate earn what it earns
        alone.
    """

    psi: FloatArray
    corrections: FloatArray
    constants: FloatArray
    paid_back: float
    required: IntArray
    distinct: bool

    def bound(self, sums: DualSums, k: int) -> float:
        """Return the most that a menu of k treatments earns per unit weight."""
        gains = sums.gains / sums.weight + self.constants
        if self.distinct:
            most = largest_sum(gains, k, self.required)
        else:
            rest = max(k - len(self.required), 0)
            most = float(gains[self.required].sum()) + rest * float(gains.max())
        return (sums.base + sums.rounding) / sums.weight + most + self.paid_back


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Relaxations whose candidates have the same prices: a pass computes their profits once.

    Attributes
    ----------
    rounding : rows of the candidates less their prices.
    duals : by size of the menu they were found for.
    bounds : the sizes that they bound.
    """

    rounding: Rounding
    duals: dict[int, Dual]
    bounds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Relaxations for the menus of all sizes, ready for a pass over all units.

    Attributes
    ----------
    relaxed : groups that share a computation: one without limits, one a size within limits.
    single : what bounds menus of one treatment for all, where there are any.
    """

    relaxed: tuple[Relaxed, ...]
    single: Relaxed | None

    @staticmethod
    def search(
        problem: MenuProblem, menus: Mapping[int, PricedMenu], units: WeightedUnits
    ) -> Certificate:
        """Search the prices of the menus of all sizes on weighted units."""
        control = profit_matrix(units.theta, problem.control_psi[None, :])[:, 0]
        gain = float(np.average(problem.granular(units.theta)[1] - control, weights=units.weights))
        size = float(np.abs(control).max(initial=0.0))
        tolerance = _TOLERANCE * max(gain, 1e-12 * size, 1e-300)
        rounded: dict[tuple[float, ...], Rounding] = {}
        for menu in menus.values():
            if menu.limit_prices not in rounded:
                priced = problem.at_limit_prices(menu.limit_prices)
                rounded[menu.limit_prices] = Rounding.of(priced)
        single = None
        if 1 in menus:
            dual = _dual(problem, menus[1], np.empty(0), np.empty(0))
            single = Relaxed(rounded[menus[1].limit_prices], {1: dual}, (1,))
        several = {k: menu for k, menu in menus.items() if k > 1}
        relaxed = []
        for prices, rounding in rounded.items():
            free = {k: m for k, m in several.items() if m.free and m.limit_prices == prices}
            if free:
                relaxed.append(_without_limits(problem, rounding, free, units, tolerance))
            for k, menu in several.items():
                if not menu.free and menu.limit_prices == prices:
                    relaxed.append(_within_limits(problem, rounding, (k, menu), units, tolerance))
        return Certificate(tuple(relaxed), single)

    def by_cell(self, spread: Callable[[FloatArray], FloatArray]) -> Certificate:
        """Return the certificate with the corrections spread over the cells of a sketch."""

        def spread_out(part: Relaxed) -> Relaxed:
            duals = part.duals.items()
            moved = {k: replace(d, corrections=spread(d.corrections)) for k, d in duals}
            return replace(part, duals=moved)

        return replace(self, relaxed=tuple(map(spread_out, self.relaxed)))

    def sums(self, theta: FloatArray, weights: FloatArray, cells: IntArray) -> dict[int, DualSums]:
        """Add up what bounds need over units (n, p), weights (n,), in cells (n,) of the sketch."""
        found: dict[int, DualSums] = {}
        for part in self.relaxed:
            found |= dual_sums(part, theta, weights, cells)
        return found

    @property
    def keys(self) -> list[int]:
        """The sizes that ``sums`` are by."""
        return [k for part in self.relaxed for k in part.duals]

    def bounds(self, sums: Mapping[int, DualSums], total: FloatArray) -> dict[int, float]:
        """Return for every size a profit per unit weight that no menu within the limits exceeds.

        Parameters
        ----------
        sums : of all units.
        total : (p + 1,) Σ w (θ, 1) of all units: a single treatment for all earns what the mean
            says.
        """
        result: dict[int, float] = {}
        for part in self.relaxed:
            for k in part.bounds:
                result[k] = min(dual.bound(sums[key], k) for key, dual in part.duals.items())
        if self.single is not None:
            mean, rounding = total / total[-1], self.single.rounding
            dual = self.single.duals[1]
            rows = rounding.psi[dual.required] if len(dual.required) else rounding.psi
            loss = float(rounding.loss(mean[None, :-1])[0])
            result[1] = float((rows @ mean).max()) + loss + dual.paid_back
        return result


def _dual(
    problem: MenuProblem, menu: PricedMenu, corrections: FloatArray, constants: FloatArray
) -> Dual:
    return Dual(
        menu.priced_psi,
        corrections,
        constants,
        menu.paid_back,
        problem.positions(menu.treatments[menu.required]),
        not constants.any() or not problem.searched.any(),
    )


def _relaxation(
    problem: MenuProblem,
    profits: FloatArray,
    menu: PricedMenu,
    units: WeightedUnits,
    tolerance: float,
) -> Relaxation:
    best = profit_matrix(units.theta, menu.priced_psi).max(axis=1)
    back = np.maximum(menu.prices * menu.upper, menu.prices * menu.lower)
    required = problem.positions(menu.treatments[menu.required])
    mass = units.weights / units.total
    return Relaxation(profits, mass, best, menu.k, required, float(back.sum()), tolerance)


def _without_limits(
    problem: MenuProblem,
    rounding: Rounding,
    menus: Mapping[int, PricedMenu],
    units: WeightedUnits,
    tolerance: float,
) -> Relaxed:
    """Return relaxations that bound all sizes of menus without limits.

    Any prices bound menus of any size, and a pass over all units takes in proportion to how many
    there are: a size to which those of its neighbours give a bound within the tolerance of its own,
    or a gap that is larger by a part of it at most, is left out.
    """
    profits, none = profit_matrix(units.theta, rounding.psi), np.zeros(len(rounding.psi))
    duals = {}
    for k, menu in menus.items():
        found = _relaxation(problem, profits, menu, units, tolerance).corrections(0.0, 0.0)
        duals[k] = _dual(problem, menu, found, none)
    sizes, each = tuple(duals), np.arange(len(units))
    sums = dual_sums(Relaxed(rounding, duals, sizes), units.theta, units.weights, each)
    bound = {(k, key): dual.bound(sums[key], k) for k in sizes for key, dual in duals.items()}
    value = {
        k: float(units.weights @ _best(duals[k].psi, units.theta)) / units.total for k in sizes
    }
    least = {k: min(bound[k, key] for key in sizes) for k in sizes}
    limit = {k: least[k] + max(tolerance, _GIVEN_AWAY * (least[k] - value[k])) for k in sizes}
    kept = set(sizes)
    while len(kept) > 1:
        # without each of them, the bounds that the others give
        without = {
            key: {k: min(bound[k, other] for other in kept - {key}) for k in sizes} for key in kept
        }
        enough = [key for key in sorted(kept) if all(without[key][k] <= limit[k] for k in sizes)]
        if not enough:
            break
        kept.remove(min(enough, key=lambda key: fsum(without[key].values())))
    return Relaxed(rounding, {key: duals[key] for key in sorted(kept)}, sizes)


def _within_limits(
    problem: MenuProblem,
    rounding: Rounding,
    sized: tuple[int, PricedMenu],
    units: WeightedUnits,
    tolerance: float,
) -> Relaxed:
    """Return the relaxation of menus of one size within limits, whose candidates have prices."""
    k, menu = sized
    lower, upper = menu.limits.of_candidates(len(problem.psi))
    # rows next to a jump or an exclusion stand for treatments of any place
    beyond = np.ones(len(rounding.psi) - len(problem.psi))
    lower = np.append(lower, menu.limits.lower.min() * beyond)
    upper = np.append(upper, menu.limits.upper.max() * beyond)
    profits = profit_matrix(units.theta, rounding.psi)
    relaxation = _relaxation(problem, profits, menu, units, tolerance)
    prices, constants, corrections = relaxation.limit_prices(lower, upper)
    psi = rounding.psi.copy()
    psi[:, -1] -= prices
    dual = _dual(problem, menu, corrections, constants)
    return Relaxed(replace(rounding, psi=psi), {k: dual}, (k,))


def dual_sums(
    relaxed: Relaxed, theta: FloatArray, weights: FloatArray, cells: IntArray
) -> dict[int, DualSums]:
    """Add up what the bounds of relaxations need; the records of disjoint units add up.

    Parameters
    ----------
    theta : (n, p) units.
    weights : (n,).
    cells : (n,) cell of every unit in the corrections.
    """
    rounding, duals = relaxed.rounding, relaxed.duals
    view = rounding.single_precision
    best = [_best(dual.psi, theta) for dual in duals.values()]
    # relative to the best of all menus, so that single precision resolves the differences that
    # matter
    reference = np.max(best, axis=0)
    along, doubt = view.along(theta, reference)
    prices = [
        own - reference - dual.corrections[cells]
        for own, dual in zip(best, duals.values(), strict=True)
    ]
    levels, light = np.array(prices, dtype=np.float32), weights.astype(np.float32)
    rows = len(view.rows)
    above = np.zeros((len(duals), rows))
    # fresh pages for every tile would cost more than the arithmetic
    memory = np.empty((2, rows * _TILE), dtype=np.float32)
    for start in range(0, len(theta), _TILE):
        tile = slice(start, start + _TILE)
        mass = light[tile]
        profits, raised = memory[:, : rows * len(mass)].reshape(2, rows, len(mass))
        np.matmul(view.rows, along[:, tile], out=profits)
        for total, level in zip(above, levels[:, tile], strict=True):
            np.maximum(profits, level, out=raised)
            total += raised @ mass
    exact = levels.astype(np.float64)
    shift, size = exact @ weights, np.abs(exact) @ weights
    gains = above - shift[:, None]
    # the last terms outweigh what single precision can lose in adding up a tile, and in the profits
    gains += (_TILE + 3) * SINGLE * (np.abs(gains) + 2 * size[:, None]) + float(weights @ doubt)
    common, loss = float(weights @ reference), float(weights @ rounding.loss(theta))
    return {
        key: DualSums(float(shift[place]) + common, gains[place], loss, float(weights.sum()))
        for place, key in enumerate(duals)
    }


def _best(psi: FloatArray, theta: FloatArray) -> FloatArray:
    return np.asarray((psi[:, :-1] @ theta.T + psi[:, -1, None]).max(axis=0))
