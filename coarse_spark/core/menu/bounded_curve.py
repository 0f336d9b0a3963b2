"""Search for menus of all sizes on a sketch, with limits or without, by whatever method was named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.budget import BudgetSearch
from coarse_spark.core.menu.constrained import ConstrainedSearch
from coarse_spark.core.menu.curve import CandidateSearch, search_curve
from coarse_spark.core.menu.limits import MenuLimits
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.milp import milp_menu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settings import DEFAULTS, SearchSettings
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.errors import InvalidInputError


def search_within(
    problem: MenuProblem,
    sketch: MicroClusters,
    sizes: Iterable[int],
    settings: SearchSettings = DEFAULTS,
) -> dict[int, BoundedMenu]:
    """Find the menus of all ``sizes`` within the limits of ``settings`` on a sketch, each started from the one before.

    Raises
    ------
    InvalidInputError : sizes or limits that cannot be met, with the nearest that can; a method that does not know the limits.
    """
    wanted, limits, method = sorted(set(sizes)), settings.limits, settings.method
    if limits.free and method != "milp":
        found = search_curve(problem, sketch, wanted, settings)
        return {k: BoundedMenu.free_of_limits(menu) for k, menu in found.items()}
    if method in ("exact", "greedy"):
        raise InvalidInputError(
            f"method '{method}' knows neither share limits nor a budget; use 'auto', 'lloyd' or 'milp'"
        )
    fixed = np.empty((0, problem.candidates.shape[1])) if settings.fixed is None else settings.fixed
    candidates = CandidateSearch.prepare(problem, sketch, fixed)
    menus: dict[int, BoundedMenu] = {}
    smaller: FloatArray | None = None
    asked: float | None = None
    for k in wanted:
        started = [menu for menu in (smaller, settings.previous) if menu is not None]
        pool = tuple(candidates.resized(menu, k) for menu in started)
        search = ConstrainedSearch(candidates, k, limits.shares(k, problem), settings, pool)
        menus[k], asked = _found(search, limits, method, asked)
        smaller = menus[k].menu.treatments
    return menus


def _found(
    search: ConstrainedSearch, limits: MenuLimits, method: str, asked: float | None
) -> tuple[BoundedMenu, float | None]:
    """Return the menu, and the price of spending at which it was found."""
    problem, charge = search.problem, 0.0
    if method == "milp":
        menu = milp_menu(search, limits.budget)
    elif limits.budget is not None:
        within = BudgetSearch(search, limits.budget)
        found = within.run(asked)
        menu, charge, asked = within.priced(found), found.charge, found.asked
    else:
        menu = search.best()
    stays = np.array([search.limited.stays(row) for row in menu.treatments], dtype=bool)
    priced = replace(
        PricedMenu.build(problem, menu.treatments, fixed=stays),
        found_by="milp" if method == "milp" else "transport",
    )
    lower, upper = search.share_bounds(menu.treatments)
    spend = None if limits.budget is None else limits.budget.row_profit
    most = np.inf if limits.budget is None else limits.budget.limit
    bounded = BoundedMenu(priced, lower, upper, most, spend=spend)
    if method != "milp":
        return bounded.at(problem, menu.prices, charge).ordered(problem), asked
    # the integer program has no prices: those of the transport to its menu
    solved = bounded.offers(problem, search.sketch).assign(menu.prices, 0.0)
    # micro-clusters that the program splits may have no whole assignment within the budget
    if solved is not None:
        bounded = bounded.at(problem, solved.prices, solved.charge)
    return bounded.ordered(problem), asked
