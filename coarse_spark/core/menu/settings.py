"""How menus are searched."""

from __future__ import annotations

from dataclasses import dataclass

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.limits import MenuLimits

FREE = MenuLimits()


@dataclass(frozen=True, eq=False)
class SearchSettings:
    """What a search for menus of any size is told.

    Attributes
    ----------
    limits : what every menu keeps.
    fixed : (f, d) encoded treatments that every menu holds; they have to be candidates.
    previous : (l, d) encoded treatments of an earlier menu, the most used first: one more start.
    method : "exact" (ordered candidates, see ``exact``), "lloyd" (starts, swaps, Lloyd passes), "greedy" (the smaller menu and the
        best single addition), "milp" (see ``milp``), or "auto": exact where it applies. "exact" and "greedy" know no limits.
    starts, seed : random starts for every size, and their seed.
    """

    limits: MenuLimits = FREE
    fixed: FloatArray | None = None
    previous: FloatArray | None = None
    method: str = "auto"
    starts: int = 12
    seed: int = 0


DEFAULTS = SearchSettings()
