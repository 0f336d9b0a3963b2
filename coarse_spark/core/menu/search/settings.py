"""What a choice of menus is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.problem.limits import Limits
from coarse_spark.core.menu.problem.problem import MenuProblem


@dataclass(frozen=True, eq=False)
class SearchSettings:
    """What a choice of menus of any size is told.

    Attributes
    ----------
    limits : what every menu keeps.
    required : (f, d) encoded treatments that every menu holds; they have to be candidates.
    previous : (l, d) encoded treatments of an earlier menu, the most used first: one more start.
    starts : random starts for every size.
    seed : of the starts.
    cells : of the sketch at most.
    passes : over the population at most.
    tolerance : a pass is made for more than so much, as a share of the profit over the control's.
    """

    limits: Limits = field(default_factory=Limits)
    required: FloatArray | None = None
    previous: FloatArray | None = None
    starts: int = 12
    seed: int = 0
    cells: int = 4_000
    passes: int = 100
    tolerance: float = 1e-9

    def posed(self, problem: MenuProblem) -> MenuProblem:
        """Return the problem that knows what counts against the limits."""
        return problem.with_totals(self.limits.totals)


DEFAULTS = SearchSettings()
