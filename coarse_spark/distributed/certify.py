"""Upper bounds on what any menu can earn on the full population: one record of it beside the segment sums of a pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.certificate import DualSums, bounds_of, dual_prices, dual_sums
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rounding import Rounding
from coarse_spark.distributed.aggregate import FloatArray
from coarse_spark.distributed.sketch import Sketch

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Dual prices found on a sketch, ready for a pass over all units: the bounds hold for these, see ``core.menu.certificate``.

    Attributes
    ----------
    rounding : rows of the candidates and what is lost between them.
    found : by size, the menu and the corrections of the sketch's cells. held : candidates that every menu holds.
    sketch : whose tree says in which cell a unit is.
    """

    rounding: Rounding
    found: dict[int, tuple[PricedMenu, FloatArray]]
    held: IntArray
    sketch: Sketch

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
        rounding = Rounding.of(problem)
        positions = [problem.position(row) for row in (always_offered if always_offered is not None else [])]
        held = np.array([position for position in positions if position is not None], dtype=np.intp)
        found = dual_prices(rounding, menus, sketch.clusters, tolerance, held)
        return Certificate(
            rounding, {k: (menu, sketch.by_cell(correction)) for k, (menu, correction) in found.items()}, held, sketch
        )

    def record(self, theta: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
        """Return additive arrays of units (n, p) with weights (n,), by name."""
        sums = dual_sums(self.rounding, self.found, theta, weights, self.sketch.cells(theta))
        return {f"bound {k}": np.concatenate([[s.base, s.rounding, s.weight], s.gains]) for k, s in sums.items()}

    def bounds(self, sizes: Iterable[int], records: Mapping[str, FloatArray], total: FloatArray) -> dict[int, float]:
        """Return for every size a profit per unit weight that no menu of this size exceeds.

        Parameters
        ----------
        records : of all units, added up. total : (p + 1,) Σ w (θ, 1) of all units.
        """
        arrays = {k: records[f"bound {k}"] for k in self.found}
        sums = {k: DualSums(values[0], values[3:], values[1], values[2]) for k, values in arrays.items()}
        return bounds_of(sizes, sums, self.rounding, total, self.held)
