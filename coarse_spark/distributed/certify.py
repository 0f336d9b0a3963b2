"""Upper bounds on what any menu can earn on the full population: one record of it beside the segment sums of a pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from coarse_spark.core.additive import Flat
from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.certificate import DualSums, bounds_of, dual_prices, dual_sums
from coarse_spark.core.menu.limited_certificate import LimitedDual
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rounding import Rounding
from coarse_spark.distributed.sketch import Sketch


@dataclass(frozen=True, eq=False)
class Certificate:
    """Dual prices found on a sketch, ready for a pass over all units: the bounds hold for these, see ``core.menu.certificate``.

    Attributes
    ----------
    rounding : rows of the candidates and what is lost between them.
    found : by size, the menu and the corrections of the sketch's cells. held : candidates that every menu holds.
    """

    rounding: Rounding
    found: dict[int, tuple[PricedMenu, FloatArray]]
    held: IntArray

    @staticmethod
    def prepare(
        problem: MenuProblem,
        menus: Mapping[int, PricedMenu],
        sketch: Sketch,
        *,
        tolerance: float,
        always_offered: FloatArray | None = None,
    ) -> Certificate:
        """Search the dual prices of menus, by size, on the sketch.

        Parameters
        ----------
        tolerance : stop the search within this much of the menu's value. always_offered : encoded (f, d), on every menu.
        """
        rounding, held = Rounding.of(problem), _held(problem, always_offered)
        found = dual_prices(rounding, menus, sketch.clusters, tolerance, held)
        return Certificate(
            rounding,
            {k: (menu, sketch.by_cell(correction)) for k, (menu, correction) in found.items()},
            held,
        )

    def record(
        self, theta: FloatArray, weights: FloatArray, cells: IntArray
    ) -> dict[str, DualSums]:
        """Return additive arrays of units (n, p) with weights (n,) in cells (n,) of the sketch, by name."""
        sums = dual_sums(self.rounding, self.found, theta, weights, cells)
        return {f"bound {k}": part for k, part in sums.items()}

    def bounds(
        self, sizes: Iterable[int], records: Mapping[str, Flat], total: FloatArray
    ) -> dict[int, float]:
        """Return for every size a profit per unit weight that no menu of this size exceeds.

        Parameters
        ----------
        records : of all units, added up. total : (p + 1,) Σ w (θ, 1) of all units.
        """
        sums = {k: DualSums.of_flat(records[f"bound {k}"]) for k in self.found}
        return bounds_of(sizes, sums, self.rounding, total, self.held)


@dataclass(frozen=True, eq=False)
class LimitedCertificate:
    """The same within limits: their prices belong to one size of menu, so every size has a dual of its own."""

    duals: dict[int, LimitedDual]

    @staticmethod
    def prepare(
        problem: MenuProblem,
        menus: Mapping[int, BoundedMenu],
        sketch: Sketch,
        *,
        always_offered: FloatArray | None = None,
    ) -> LimitedCertificate:
        """Search the dual prices of menus, by size, on the sketch. always_offered : encoded (f, d), on every menu."""
        held, size = _held(problem, always_offered), len(problem.psi)
        duals = {}
        for k, bounded in menus.items():
            dual = LimitedDual.search(
                bounded.charged(problem),
                bounded.menu,
                sketch.clusters,
                lower=bounded.lower,
                upper=bounded.upper,
                candidates=(np.full(size, bounded.lower.min()), np.full(size, bounded.upper.max())),
                paid=bounded.charge * bounded.budget if bounded.charge else 0.0,
                held=held,
            )
            duals[k] = replace(dual, corrections=sketch.by_cell(dual.corrections))
        return LimitedCertificate(duals)

    def record(
        self, theta: FloatArray, weights: FloatArray, cells: IntArray
    ) -> dict[str, DualSums]:
        """Return additive arrays of units (n, p) with weights (n,) in cells (n,) of the sketch, by name."""
        result = {}
        for k, dual in self.duals.items():
            sums = dual_sums(
                dual.rounding, {k: (dual.menu, dual.corrections)}, theta, weights, cells
            )
            result[f"bound {k}"] = sums[k]
        return result

    def bounds(self, records: Mapping[str, Flat]) -> dict[int, float]:
        """Return for every size a profit per unit weight that no menu of this size within the limits exceeds.

        ``records`` : of all units, added up.
        """
        return {
            k: dual.bound(DualSums.of_flat(records[f"bound {k}"])) for k, dual in self.duals.items()
        }


def _held(problem: MenuProblem, always_offered: FloatArray | None) -> IntArray:
    positions = [
        problem.position(row) for row in (always_offered if always_offered is not None else [])
    ]
    return np.array([position for position in positions if position is not None], dtype=np.intp)
