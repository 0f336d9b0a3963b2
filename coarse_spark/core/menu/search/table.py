"""Search for the best menu among finitely many candidates, on profits (units x candidates).

Swaps exchange one treatment of the menu for one candidate. All of them are valued together from
each unit's best and second best treatment (the removal-loss decomposition of FastPAM [1]_), so that
a round costs a few sweeps over the matrix.

.. [1] Schubert & Rousseeuw (2021), Fast and eager k-medoids clustering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import row_blocks
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import profit_matrix

_MAX_ROUNDS = 200


@dataclass(frozen=True, eq=False)
class ProfitTable:
    """Profits of weighted units under candidates.

    Attributes
    ----------
    profits : (m, J).
    weights : (m,).
    required : columns that every menu holds.
    """

    profits: FloatArray
    weights: FloatArray
    required: tuple[int, ...] = ()

    def value(self, menu: IntArray) -> float:
        """Return Σ w max over the menu's columns."""
        return float(self.weights @ self.profits[:, menu].max(axis=1))

    def extended(self, columns: FloatArray) -> ProfitTable:
        """Return the table with further columns (m, c)."""
        return ProfitTable(np.hstack([self.profits, columns]), self.weights, self.required)

    def greedy(self, k: int, start: IntArray) -> IntArray:
        """Add to ``start`` the column of largest gain until the menu holds k."""
        menu = [int(column) for column in start]
        while len(menu) < k:
            best = self.profits
            if menu:
                best = np.maximum(best, self.profits[:, menu].max(axis=1)[:, None])
            value = self.weights @ best
            value[menu] = -np.inf
            menu.append(int(value.argmax()))
        return np.array(menu, dtype=np.intp)

    def spread(self, k: int, rng: np.random.Generator) -> IntArray:
        """Draw a menu as k-means++ does.

        Adds the favourite of a unit drawn with probability of its weighted regret so far.
        """
        menu = list(self.required)
        granular = self.profits.max(axis=1)
        while len(menu) < k:
            regret = self.weights
            if menu:
                regret = regret * (granular - self.profits[:, menu].max(axis=1))
            total = regret.sum()
            if total <= 0:
                return self.greedy(k, np.array(menu, dtype=np.intp))
            drawn = np.searchsorted(np.cumsum(regret), rng.random() * total, side="right")
            unit = int(drawn.clip(0, len(regret) - 1))
            column = int(self.profits[unit].argmax())
            if column in menu:
                return self.greedy(k, np.array(menu, dtype=np.intp))
            menu.append(column)
        return np.array(menu, dtype=np.intp)

    def random(self, k: int, rng: np.random.Generator) -> IntArray:
        """Draw a menu uniformly."""
        free = np.setdiff1d(np.arange(self.profits.shape[1]), self.required)
        return np.concatenate(
            [
                np.array(self.required, dtype=np.intp),
                rng.choice(free, k - len(self.required), replace=False),
            ]
        )

    def swap(self, menu: IntArray, rounds: int = _MAX_ROUNDS) -> IntArray:
        """Exchange treatments, best exchange first, until none gains; required ones stay."""
        menu = menu.copy()
        removable = ~np.isin(menu, self.required)
        rows = np.arange(len(self.profits))
        floor = 1e-12 * float(self.weights @ np.abs(self.profits[:, menu].max(axis=1)))
        for _ in range(rounds):
            profits = self.profits[:, menu]
            chosen = profits.argmax(axis=1)
            first = profits[rows, chosen]
            if len(menu) > 1:
                profits[rows, chosen] = -np.inf
                second = profits.max(axis=1)
            else:
                second = np.full(len(rows), -np.inf)
            owner = np.zeros((len(menu), len(rows)))
            owner[chosen, rows] = self.weights
            exchange = np.tile(-(self.weights @ first), (len(menu), self.profits.shape[1]))
            for block in row_blocks(*self.profits.shape):
                with_first = np.maximum(self.profits[block], first[block, None])
                exchange += self.weights[block] @ with_first
                with_first -= np.maximum(self.profits[block], second[block, None])
                exchange -= owner[:, block] @ with_first
            exchange[~removable] = -np.inf
            exchange[:, menu] = -np.inf
            position, column = np.unravel_index(int(exchange.argmax()), exchange.shape)
            if exchange[position, column] <= floor:
                break
            menu[position] = column
        return menu


def spanning_candidates(
    psi: FloatArray, units: WeightedUnits, count: int, keep: IntArray
) -> IntArray:
    """Return ``count`` of the candidates, profit rows ``psi`` (J, p + 1), that stand for all.

    Each next one is the farthest from those chosen, in the root mean square difference of profits
    over the units; ``keep`` are always among them.
    """
    if count >= len(psi):
        return np.arange(len(psi))
    extended = np.column_stack([units.theta, np.ones(len(units))])
    moment = extended.T @ (extended * (units.weights / units.total)[:, None])
    values, vectors = np.linalg.eigh(moment)
    points = psi @ (vectors * np.sqrt(np.maximum(values, 0.0)))
    favourite = int((units.weights @ profit_matrix(units.theta, psi)).argmax())
    chosen = list(dict.fromkeys([*keep.tolist(), favourite]))
    distance = np.full(len(psi), np.inf)
    for column in chosen:
        distance = np.minimum(distance, ((points - points[column]) ** 2).sum(axis=1))
    while len(chosen) < count and distance.max() > 0:
        column = int(distance.argmax())
        chosen.append(column)
        distance = np.minimum(distance, ((points - points[column]) ** 2).sum(axis=1))
    return np.sort(np.array(chosen, dtype=np.intp))
