"""Search for menus under share limits on a sketch: optimal transport takes the place of the free choice of every unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.limits import ShareLimits
from coarse_spark.core.menu.lloyd import same_treatment
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.menu.transport import Transport, transport
from coarse_spark.core.profit import profit_matrix

_LLOYD_PASSES, _SWAP_ROUNDS, _TRIED_SWAPS = 60, 40, 12


@dataclass(frozen=True, eq=False)
class LimitedMenu:
    """treatments (K, d) in the order of the limits' positions, prices (K,) and the mean profit of the transport plan."""

    treatments: FloatArray
    prices: FloatArray
    value: float


@dataclass(frozen=True, eq=False)
class LimitedSearch:
    """Menus of one size on one sketch under limits; ``fixed`` (f, d) treatments stay on the menu."""

    problem: MenuProblem
    sketch: MicroClusters
    limits: ShareLimits
    fixed: FloatArray

    def solve(self, treatments: FloatArray) -> tuple[Transport, float] | None:
        """Return the transport to given treatments and its mean profit, or None where their limits cannot be met together."""
        lower, upper = self.limits.bounds(self.rows(treatments))
        total = float(self.sketch.weights.sum())
        if (lower > upper + 1e-12).any() or lower.sum() > 1 + 1e-9 or upper.sum() < 1 - 1e-9:
            return None
        profits = profit_matrix(self.sketch.theta, self.problem.psi_at(treatments))
        solved = transport(
            profits, self.sketch.weights, lower * total, np.maximum(lower, upper) * total
        )
        return solved, solved.value / total

    def lloyd(self, treatments: FloatArray) -> LimitedMenu | None:
        """Alternate transport and update until the menu rests."""
        found = self.solve(treatments)
        if found is None:
            return None
        for _ in range(_LLOYD_PASSES):
            fresh = self.update(
                treatments,
                found[0].plan.T
                @ np.column_stack([self.sketch.theta, np.ones(len(self.sketch.theta))]),
            )
            if np.array_equal(fresh, treatments):
                break
            better = self.solve(fresh)
            if better is None or better[1] <= found[1] + 1e-10 * abs(found[1]):
                break
            treatments, found = fresh, better
        return LimitedMenu(treatments, found[0].prices, found[1])

    def update(self, treatments: FloatArray, sums: FloatArray) -> FloatArray:
        """Return the treatments that serve segments with sums (K, p + 1) of w (θ, 1) best, as far as their masses allow."""
        mass = sums[:, -1] / self.sketch.weights.sum()
        profits = sums @ self.problem.psi.T
        outside = (self.limits.candidate_lower[None, :] > mass[:, None] + 1e-9) | (
            self.limits.candidate_upper[None, :] < mass[:, None] - 1e-9
        )
        profits[outside] = -np.inf
        means = sums[:, :-1] / np.where(sums[:, -1] > 0, sums[:, -1], 1.0)[:, None]
        wanted, _ = self.problem.polish(means, profits.argmax(axis=1).astype(np.intp))
        gain = ((self.problem.psi_at(wanted) - self.problem.psi_at(treatments)) * sums).sum(axis=1)
        gain[~np.isfinite(profits).any(axis=1)] = 0.0
        result = treatments.copy()
        for k in np.argsort(-gain, kind="stable"):
            others = np.delete(result, k, axis=0)
            if (
                gain[k] > 0
                and not self.stays(treatments[k])
                and not same_treatment(self.problem, others, wanted[k]).any()
            ):
                result[k] = wanted[k]
        return result

    def best(self, pool: list[FloatArray], columns: IntArray) -> LimitedMenu | None:
        """Return the best menu that starts from the pool reach by Lloyd passes and swaps with the candidates ``columns``."""
        menus = [
            menu
            for treatments in pool
            for menu in [self.lloyd(self._placed(treatments))]
            if menu is not None
        ]
        if not menus:
            return None
        best = max(menus, key=lambda menu: menu.value)
        for _ in range(_SWAP_ROUNDS):
            better = self._swapped(best, columns)
            if better is None:
                break
            best = better
        return best

    def _swapped(self, menu: LimitedMenu, columns: IntArray) -> LimitedMenu | None:
        """Return the first swap that pays."""
        for treatments in self.swaps(menu, columns):
            found = self.solve(treatments)
            if found is not None and found[1] > menu.value + 1e-9 * abs(menu.value):
                improved = self.lloyd(treatments)
                if improved is not None and improved.value > menu.value + 1e-9 * abs(menu.value):
                    return improved
        return None

    def swaps(self, menu: LimitedMenu, columns: IntArray) -> Iterator[FloatArray]:
        """Yield the menu's treatments (K, d) with one of them exchanged for one of the candidates ``columns``, best promise first.

        An exchange promises the dual at the menu's prices, an upper bound on its profit: only those come that may pay.
        """
        theta, mass = self.sketch.theta, self.sketch.weights / self.sketch.weights.sum()
        columns = columns[~np.isin(columns, self.rows(menu.treatments))]
        net = profit_matrix(theta, self.problem.psi_at(menu.treatments)) - menu.prices
        offered = profit_matrix(theta, self.problem.psi[columns])
        bounds = np.full((len(menu.treatments), len(columns)), -np.inf)
        for k, treatment in enumerate(menu.treatments):
            if not self.stays(treatment):
                others = np.delete(net, k, axis=1).max(axis=1, initial=-np.inf)
                bounds[k] = mass @ np.maximum(offered - menu.prices[k], others[:, None])
        current = float(mass @ net.max(axis=1))
        for flat in np.argsort(-bounds, axis=None, kind="stable")[:_TRIED_SWAPS]:
            k, column = divmod(int(flat), bounds.shape[1])
            if bounds[k, column] <= current + 1e-10 * abs(current):
                return
            treatments = menu.treatments.copy()
            treatments[k] = self.problem.candidates[columns[column]]
            yield treatments

    def _placed(self, treatments: FloatArray) -> FloatArray:
        """Put treatments in the order of positions in which they earn most: larger masses to the more wanted, then exchanges."""
        if self.limits.symmetric:
            return treatments
        profits = profit_matrix(self.sketch.theta, self.problem.psi_at(treatments))
        wanted = np.bincount(profits.argmax(axis=1), self.sketch.weights, minlength=len(treatments))
        placed = np.empty_like(treatments)
        placed[np.argsort(self.limits.lower + self.limits.upper, kind="stable")] = treatments[
            np.argsort(wanted, kind="stable")
        ]
        found = self.solve(placed)
        improved = True
        while improved:
            improved = False
            for a in range(len(placed)):
                for b in range(a):
                    trial = placed.copy()
                    trial[[a, b]] = trial[[b, a]]
                    result = self.solve(trial)
                    if result is not None and (
                        found is None or result[1] > found[1] + 1e-10 * abs(found[1])
                    ):
                        placed, found, improved = trial, result, True
        return placed

    def rows(self, treatments: FloatArray) -> IntArray:
        """Return the candidate row (K,) of each treatment, −1 for one between candidates."""
        rows = [self.problem.position(treatment) for treatment in treatments]
        return np.array([-1 if row is None else row for row in rows], dtype=np.intp)

    def stays(self, treatment: FloatArray) -> bool:
        """Return whether a treatment (d,) may not leave the menu: it is fixed, or has a minimum share of its own."""
        row = self.problem.position(treatment)
        held = (
            row is not None
            and row < len(self.limits.candidate_lower)
            and self.limits.candidate_lower[row] > 0
        )
        return bool(held or same_treatment(self.problem, self.fixed, treatment).any())
