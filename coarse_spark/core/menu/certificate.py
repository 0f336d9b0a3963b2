"""Upper bounds on what any menu can earn.

Giving every unit exactly one treatment is relaxed at a price u_i a unit (the Lagrangian of the p-median problem: Cornuéjols,
Fisher & Nemhauser, 1977). Whatever u is, no menu of K candidates earns more than

    Σ_i w_i u_i + sum of the K largest over candidates j of ρ_j,     ρ_j = Σ_i w_i (π_ij − u_i)⁺,

and the rounding loss (see ``rounding``) extends that to the treatments between the candidates. u is searched on a sketch. It
carries to every unit of the population as u_i = (its own best offer of the menu) − (the correction found for its cell), so that
one pass over all units gives a bound that is valid for all of them, not only for the sketch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import row_blocks
from coarse_spark.core.menu.rounding import Rounding
from coarse_spark.core.menu.single_precision import SINGLE
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.profit import profit_matrix

_ITERATIONS, _PRICE_ROUNDS = 150, 4
_DEFLECTION = 0.7  # of the last direction that is kept: damps the zigzag of subgradients (Camerini, Fratta & Maffioli, 1975)
_PATIENCE = 10  # iterations without progress before the step is halved
_TILE = 256  # units whose profits under all treatments are held at once: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class LimitPrices:
    """What share limits and a budget add to the bound: a price λ_j a candidate, chosen freely like u.

    A candidate that serves a share s within [lower, upper] of the units earns at most Σ w (π_ij − λ_j − u_i)⁺ + λ_j s, and λ_j s
    is at most λ_j⁺ upper − λ_j⁻ lower.

    Attributes
    ----------
    prices : (J',) λ. constants : (J',) λ⁺ upper − λ⁻ lower. budget : price of the budget times the budget.
    distinct : whether a candidate can be on the menu once only, as in a finite space.
    """

    prices: FloatArray
    constants: FloatArray
    budget: float
    distinct: bool

    @staticmethod
    def none(candidates: int, budget: float, distinct: bool) -> LimitPrices:
        """Prices 0 of so many candidates."""
        return LimitPrices(np.zeros(candidates), np.zeros(candidates), budget, distinct)

    def shifted(self, rounding: Rounding) -> Rounding:
        """Return the rows of a problem less the prices of its candidates: what ``dual_sums`` takes."""
        psi = rounding.psi.copy()
        psi[:, -1] -= self.prices
        return replace(rounding, psi=psi)


@dataclass(frozen=True, eq=False)
class DualSums(Additive):
    """Additive record of the pass for one menu: base Σ w u, gains (J',) Σ w (π_ij − u_i)⁺, rounding Σ w loss, weight Σ w."""

    base: float
    gains: FloatArray
    rounding: float
    weight: float

    def bound(
        self, k: int, held: IntArray | None = None, limits: LimitPrices | None = None
    ) -> float:
        """Return the most that a menu of k treatments, ``held`` among them, earns per unit weight.

        ``limits`` are the prices under which the sums were taken.
        """
        limits = LimitPrices.none(len(self.gains), 0.0, True) if limits is None else limits
        fixed = np.empty(0, dtype=np.intp) if held is None else held
        gains = self.gains / self.weight + limits.constants
        most = (
            _largest(gains, k, fixed)
            if limits.distinct
            else gains[fixed].sum() + max(k - len(fixed), 0) * gains.max()
        )
        return float((self.base + self.rounding) / self.weight + most + limits.budget)


def _largest(gains: FloatArray, k: int, fixed: IntArray) -> float:
    others = np.delete(gains, fixed)
    free = min(max(k - len(fixed), 0), len(others))
    return float(gains[fixed].sum() + np.sort(others)[len(others) - free :].sum())


def corrections(
    profits: FloatArray,
    weights: FloatArray,
    offers: FloatArray,
    k: int,
    tolerance: float,
    held: IntArray | None = None,
    constants: FloatArray | None = None,
    aim: float = 0.0,
) -> FloatArray:
    """Search the corrections (m,) whose u = offers − corrections give the lowest bound.

    Parameters
    ----------
    profits : (m, J') of micro-clusters under all rows of ``Rounding.psi``. weights : (m,). offers : (m,) best profit on the menu.
    tolerance : stop when the bound is within this much of the menu's value, per unit weight.
    constants : (J',) added to every candidate's gain (see ``LimitPrices``). aim : what the menu is worth more than the offers.
    """
    mass = weights / weights.sum()
    # relative to the offer, so that single precision resolves the small differences that matter
    relative = (profits - offers[:, None]).astype(np.float32)
    light = mass.astype(np.float32)
    fixed = np.empty(0, dtype=np.intp) if held is None else held
    added = np.zeros(profits.shape[1]) if constants is None else constants
    u = np.full(len(mass), -max(float(mass @ relative.max(axis=1).astype(np.float64)), tolerance))
    best, best_u = np.inf, u
    direction, step, stale = np.zeros(len(u)), 1.0, 0
    for _ in range(_ITERATIONS):
        gains = _gains(relative, light, u) + added
        ranked = gains.copy()
        ranked[fixed] = np.inf
        top = np.argpartition(-ranked, k - 1)[:k]
        bound = float(mass @ u + gains[top].sum())
        if bound < best - 1e-3 * tolerance:
            best, best_u, stale = bound, u, 0
        else:
            stale += 1
        if best <= aim + tolerance:
            break
        if stale >= _PATIENCE:
            step, stale, u, direction = step / 2, 0, best_u, np.zeros(len(u))
            continue
        direction = 1.0 - (relative[:, top] > u[:, None]).sum(axis=1) + _DEFLECTION * direction
        norm = float(mass @ direction**2)
        if norm == 0:
            break
        u = (
            u - step * (bound - aim) / norm * direction
        )  # Polyak's step: what the menu earns is the aim
    return -best_u


def limit_prices(
    profits: FloatArray,
    weights: FloatArray,
    offers: FloatArray,
    k: int,
    tolerance: float,
    lower: FloatArray,
    upper: FloatArray,
    template: LimitPrices,
    held: IntArray | None = None,
    aim: float = 0.0,
) -> tuple[LimitPrices, FloatArray]:
    """Search prices of candidates and corrections (m,) in turn, for a menu under share limits.

    Parameters
    ----------
    profits, weights, offers, tolerance, held, aim : as in ``corrections``. lower, upper : (J',) shares of the candidates.
    template : holds what does not change with the shares: the budget's part, and whether candidates are distinct.
    """
    mass = weights / weights.sum()
    u = offers - max(float(mass @ (profits.max(axis=1) - offers)), tolerance)
    best = np.inf, template, np.zeros(len(mass))
    for _ in range(_PRICE_ROUNDS):
        prices = _clearing_prices(profits - u[:, None], mass, lower, upper)
        limits = replace(
            template,
            prices=prices,
            constants=np.maximum(prices, 0) * upper + np.minimum(prices, 0) * lower,
        )
        found = corrections(
            profits - prices, weights, offers, k, tolerance, held, limits.constants, aim
        )
        u = offers - found
        gains = _gains(
            (profits - prices - offers[:, None]).astype(np.float32), mass.astype(np.float32), -found
        )
        bound = float(mass @ u) + _largest(
            gains + limits.constants, k, np.empty(0, dtype=np.intp) if held is None else held
        )
        if bound < best[0]:
            best = bound, limits, found
    return best[1], best[2]


def _clearing_prices(
    surplus: FloatArray, mass: FloatArray, lower: FloatArray, upper: FloatArray
) -> FloatArray:
    """Return the price (J',) at which the units with surplus (m, J') above it weigh upper, or lower where they weigh less at price
    0.
    """
    prices = np.zeros(surplus.shape[1])
    for column in range(surplus.shape[1]):
        order = np.argsort(-surplus[:, column])
        heavy = np.cumsum(mass[order])
        most = surplus[
            order[min(int(np.searchsorted(heavy, upper[column] - 1e-12)), len(order) - 1)], column
        ]
        least = surplus[
            order[min(int(np.searchsorted(heavy, lower[column] - 1e-12)), len(order) - 1)], column
        ]
        if upper[column] < 1 - 1e-12 and most > 0:
            prices[column] = most
        elif lower[column] > 1e-12 and least < 0:
            prices[column] = least
    return prices


def dual_prices(
    rounding: Rounding,
    menus: Mapping[int, PricedMenu],
    clusters: MicroClusters,
    tolerance: float,
    held: IntArray | None = None,
) -> dict[int, tuple[PricedMenu, FloatArray]]:
    """Return menus with their corrections (m,) on a sketch: what ``dual_sums`` takes, once spread over the cells.

    Parameters
    ----------
    menus : by size. tolerance : of the bounds, per unit weight; see ``corrections``. held : rows of candidates that every menu
        holds.

    The prices of one size bound the others too (see ``bounds_of``): a size to which those of its neighbours give a bound within
    ``tolerance`` of its own is left out.
    """
    profits = profit_matrix(clusters.theta, rounding.psi)
    found = {}
    # a single treatment for all needs no prices
    sizes = [k for k in menus if k > 1] or list(menus)
    for k in sizes:
        menu = menus[k]
        offers = profit_matrix(clusters.theta, menu.priced_psi).max(axis=1)
        found[k] = (
            menu,
            corrections(profits, clusters.weights, offers, len(menu.treatments), tolerance, held),
        )
    sums = dual_sums(
        rounding, found, clusters.theta, clusters.weights, np.arange(len(clusters.weights))
    )
    bound = {(k, key): sums[key].bound(k, held) for k in sizes for key in sums}
    limit = {k: min(bound[k, key] for key in sums) + tolerance for k in sizes}
    kept = sorted(sums)
    for key in sorted(sums):
        others = [other for other in kept if other != key]
        if others and all(min(bound[k, other] for other in others) <= limit[k] for k in sizes):
            kept = others
    return {key: found[key] for key in kept}


def bounds_of(
    sizes: Iterable[int],
    sums: Mapping[int, DualSums],
    rounding: Rounding,
    total: FloatArray,
    held: IntArray | None = None,
) -> dict[int, float]:
    """Return for every size the most that a menu of so many treatments, ``held`` among them, earns per unit weight.

    Parameters
    ----------
    sums : of all units, by the size whose prices they were taken under. total : (p + 1,) Σ w (θ, 1) of all units.

    Any prices bound menus of any size, so the lowest bound counts. One treatment for all earns what the mean response says.
    """
    result = {
        k: min((record.bound(k, held) for record in sums.values()), default=np.inf) for k in sizes
    }
    if 1 in result:
        mean = total / total[-1]
        rows = rounding.psi if held is None or not len(held) else rounding.psi[held]
        result[1] = min(result[1], float((rows @ mean).max() + rounding.loss(mean[None, :-1])[0]))
    return result


def _gains(
    profits: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], u: FloatArray
) -> FloatArray:
    total = np.zeros(profits.shape[1])
    level = u.astype(np.float32)
    for block in row_blocks(*profits.shape):
        total += weights[block] @ np.maximum(profits[block], level[block, None])
    return total - float(weights.astype(np.float64) @ level.astype(np.float64))


def dual_sums(
    rounding: Rounding,
    menus: Mapping[int, tuple[PricedMenu, FloatArray]],
    theta: FloatArray,
    weights: FloatArray,
    cells: IntArray,
) -> dict[int, DualSums]:
    """Add up what the bounds of several menus need over units (n, p) with weights (n,); the records of disjoint rows add up.

    Parameters
    ----------
    menus : for every key the menu and the corrections of its cells (m,). cells : (n,) cell of every unit in the corrections.
    """
    view = rounding.single_precision
    offers = [_offers(menu, theta) for menu, _ in menus.values()]
    # relative to the best offer of all menus, so that single precision resolves the small differences that matter
    reference = np.max(offers, axis=0)
    along, doubt = view.along(theta, reference)
    prices = [
        offer - reference - correction[cells]
        for offer, (_, correction) in zip(offers, menus.values(), strict=True)
    ]
    levels, light = np.array(prices, dtype=np.float32), weights.astype(np.float32)
    above = np.zeros((len(menus), len(view.rows)))
    # fresh pages for every tile would cost more than the arithmetic
    memory = np.empty((2, len(view.rows) * _TILE), dtype=np.float32)
    for start in range(0, len(theta), _TILE):
        tile = slice(start, start + _TILE)
        mass = light[tile]
        profits, raised = memory[:, : len(view.rows) * len(mass)].reshape(
            2, len(view.rows), len(mass)
        )
        np.matmul(view.rows, along[:, tile], out=profits)
        for total, level in zip(above, levels[:, tile], strict=True):
            np.maximum(profits, level, out=raised)
            total += raised @ mass
    exact = levels.astype(np.float64)
    shift, size = exact @ weights, np.abs(exact) @ weights
    gains = above - shift[:, None]
    # the last terms outweigh what single precision can lose in adding up a tile, and in the profits
    gains += (_TILE + 3) * SINGLE * (np.abs(gains) + 2 * size[:, None]) + float(weights @ doubt)
    common, loss, weight = (
        float(weights @ reference),
        float(weights @ rounding.loss(theta)),
        float(weights.sum()),
    )
    return {
        key: DualSums(float(shift[place]) + common, gains[place], loss, weight)
        for place, key in enumerate(menus)
    }


def _offers(menu: PricedMenu, units: FloatArray) -> FloatArray:
    priced = menu.priced_psi
    return np.asarray((priced[:, :-1] @ units.T + priced[:, -1, None]).max(axis=0))
