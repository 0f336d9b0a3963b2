"""Search for the best menu among finitely many candidates, on profits (units x candidates).

Swaps exchange one treatment of the menu for one candidate. All of them are valued together from
each unit's best and second best treatment (the removal-loss decomposition of FastPAM [1]_), so that
a round costs a few sweeps over the matrix.

.. [1] Schubert & Rousseeuw (2021), Fast and eager k-medoids clustering.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def _granular(self) -> FloatArray:
        return np.asarray(self.profits.max(axis=1))

    def value(self, menu: IntArray) -> float:
        """Return Σ w max over the menu's columns."""
        return float(self.weights @ self.profits[:, menu].max(axis=1))

    def greedy(self, k: int, start: IntArray, more: FloatArray | None = None) -> IntArray:
        """Add to ``start`` the column of largest gain until the menu holds k.

        ``more`` (m, c) are profits of treatments that the menu holds besides.
        """
        menu = [int(column) for column in start]
        held = self.profits[:, menu] if more is None else np.hstack([self.profits[:, menu], more])
        best = held.max(axis=1, initial=-np.inf)
        blocks = list(row_blocks(*self.profits.shape))
        memory = np.empty((blocks[0].stop, self.profits.shape[1]))
        while len(menu) < k:
            value = np.zeros(self.profits.shape[1])
            for block in blocks:
                table, least = self.profits[block], best[block, None]
                value += self.weights[block] @ np.maximum(table, least, out=memory[: len(table)])
            value[menu] = -np.inf
            menu.append(int(value.argmax()))
            best = np.maximum(best, self.profits[:, menu[-1]])
        return np.array(menu, dtype=np.intp)

    def spread(self, k: int, rng: np.random.Generator) -> IntArray:
        """Draw a menu as k-means++ does.

        Adds the favourite of a unit drawn with probability of its weighted regret so far.
        """
        menu = list(self.required)
        while len(menu) < k:
            regret = self.weights
            if menu:
                regret = regret * (self._granular - self.profits[:, menu].max(axis=1))
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

    def swap(self, menu: IntArray, more: FloatArray | None = None) -> IntArray:
        """Exchange treatments while that gains; required ones stay.

        A round tries the best exchange of every place, best first: one sweep over the table serves
        several exchanges. What is left cannot be improved by any single one.

        Parameters
        ----------
        menu : (K,) columns, those of ``more`` numbered after those of the table.
        more : (m, c) profits of treatments that only the menu may hold.
        """
        menu, count = menu.copy(), self.profits.shape[1]
        held = self.profits[:, np.minimum(menu, count - 1)]
        if more is not None:
            held[:, menu >= count] = more[:, menu[menu >= count] - count]
        fixed = np.isin(menu, self.required)
        value = float(self.weights @ held.max(axis=1))
        floor = 1e-12 * float(self.weights @ np.abs(held.max(axis=1)))
        for _ in range(_MAX_ROUNDS):
            gains = self._exchanges(held) - value
            gains[fixed], gains[:, menu[menu < count]] = -np.inf, -np.inf
            columns = gains.argmax(axis=1)
            best = gains[np.arange(len(menu)), columns]
            before = value
            for place in np.argsort(-best, kind="stable"):
                if best[place] <= floor:
                    break
                trial = held.copy()
                trial[:, place] = self.profits[:, columns[place]]
                reached = float(self.weights @ trial.max(axis=1))
                if reached > value + floor:
                    menu[place], held, value = columns[place], trial, reached
            if value == before:
                break
        return menu

    def _exchanges(self, held: FloatArray) -> FloatArray:
        """Return the value (K, J) of a menu, profits (m, K), each place given to each column."""
        held, rows = held.copy(), np.arange(len(held))
        chosen = held.argmax(axis=1)
        first = held[rows, chosen]
        held[rows, chosen] = -np.inf
        second = held.max(axis=1)
        # Σ over a place's units, which keep its treatment beside the column's, or lose it
        kept, lost = np.zeros((2, held.shape[1], self.profits.shape[1]))
        blocks = list(row_blocks(*self.profits.shape))
        # fresh memory would cost more than what is computed in it
        memory = np.empty((2, blocks[0].stop, self.profits.shape[1]))
        for place in range(held.shape[1]):
            owned = np.flatnonzero(chosen == place)
            for block in row_blocks(len(owned), self.profits.shape[1]):
                part = owned[block]
                weights, (with_first, table) = self.weights[part], memory[:, : len(part)]
                np.take(self.profits, part, axis=0, out=table, mode="clip")
                kept[place] += weights @ np.maximum(table, first[part, None], out=with_first)
                lost[place] += weights @ np.maximum(table, second[part, None], out=table)
        return np.asarray(kept.sum(axis=0) - kept + lost)


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
