"""The search for menus of all sizes on weighted units, within limits or without."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.exact import exact_menus, is_small_enough, is_unimodal
from coarse_spark.core.menu.search.settings import DEFAULTS, SearchSettings
from coarse_spark.core.menu.search.size import SizeSearch, improved, refined
from coarse_spark.core.menu.search.starts import Starts
from coarse_spark.core.menu.search.steps import FreeChoice, sums_of
from coarse_spark.core.menu.search.totals import within_totals
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.errors import InvalidInputError

log = logging.getLogger(__name__)


def search_menus(
    problem: MenuProblem,
    units: WeightedUnits,
    sizes: Iterable[int],
    settings: SearchSettings = DEFAULTS,
) -> dict[int, PricedMenu]:
    """Find the menus of all ``sizes`` within the limits, treatments in ascending order.

    Raises
    ------
    InvalidInputError : sizes or limits that cannot be met, with the nearest that can.
    """
    problem, limits = settings.posed(problem), settings.limits
    wanted = sorted(set(sizes))
    starts = Starts.of(problem, units, settings.required)
    _check_sizes(wanted, len(problem.psi), len(starts.required))
    size_limits = {k: limits.of_size(k, problem) for k in wanted}
    if limits.free:
        return _free_menus(starts, wanted, settings)
    # the first size starts from the menu without limits, each other one from the size before
    up_to = range(max(1, len(starts.required)), wanted[0] + 1)
    smaller = _free_menus(starts, up_to, settings)[wanted[0]].treatments
    menus: dict[int, PricedMenu] = {}
    prices: tuple[float, ...] | None = None
    for k in wanted:
        others = [smaller] if settings.previous is None else [smaller, settings.previous]
        given = tuple(starts.resized(menu, k) for menu in others)
        search = SizeSearch(starts, k, size_limits[k], settings, given)
        if limits.totals:
            found, prices = within_totals(search, prices)
        else:
            found = search.best().menu
        menus[k] = replace(found, found_by="transport").ordered()[0]
        smaller = menus[k].treatments
    return menus


def best_single(
    problem: MenuProblem, units: WeightedUnits, settings: SearchSettings = DEFAULTS
) -> PricedMenu:
    """Return the best single treatment, the reference of all menus.

    It is within limits on totals where one treatment keeps them, else the best of all; limits on
    shares are not for one treatment. What all units earn by it is what their mean response says.
    """
    free, limits = SearchSettings(starts=1, seed=settings.seed), settings.limits
    try:
        within = replace(free, limits=Limits(budget=limits.budget, limits=limits.limits))
        found = search_menus(problem, units.mean, [1], within)[1]
    except InvalidInputError as error:
        if not limits.totals:
            raise
        log.info("the best single treatment is found without limits on totals: %s", error)
        found = search_menus(problem, units.mean, [1], free)[1]
    return PricedMenu.build(problem, found.treatments)


def _free_menus(
    starts: Starts, sizes: Sequence[int], settings: SearchSettings
) -> dict[int, PricedMenu]:
    """Return the menus of all sizes without limits."""
    problem, required = starts.problem, starts.required
    exact = _exact(starts, sizes[-1])
    if exact is not None:
        menus = [
            PricedMenu.build(problem, exact[k], required=required, found_by="exact") for k in sizes
        ]
        done = refined(problem, FreeChoice(sums_of(starts.units)), menus)
        return {k: found.menu for k, found in zip(sizes, done, strict=True)}
    given = {k: starts.drawn(k, settings.starts, settings.seed) for k in sizes}
    if settings.previous is not None:
        for k in sizes:
            given[k].append(starts.resized(settings.previous, k))
    return {k: found.menu for k, found in improved(starts, given).items()}


def _exact(starts: Starts, largest: int) -> dict[int, FloatArray] | None:
    """Return the treatments of the best menus of candidates of all sizes.

    None where the dynamic program does not apply.
    """
    profits, problem = starts.table.profits, starts.problem
    if len(problem.space.dimensions) > 1 or not is_small_enough(*profits.shape):
        return None
    order = np.argsort(problem.candidates[:, 0], kind="stable")
    ordered = profits[:, order]
    if not is_unimodal(ordered):
        return None
    required = np.flatnonzero(np.isin(order, starts.rows))
    menus = exact_menus(ordered, starts.units.weights, largest, required)
    return {k: problem.candidates[order[menu]] for k, menu in menus.items()}


def _check_sizes(sizes: list[int], candidates: int, required: int) -> None:
    if not sizes or sizes[0] < 1:
        raise InvalidInputError(f"menu sizes are {sizes}, expected whole numbers from 1")
    if sizes[0] < required:
        raise InvalidInputError(
            f"a menu of {sizes[0]} cannot hold the {required} treatments of always_offer; "
            f"choose k of at least {required}"
        )
    if sizes[-1] > candidates:
        raise InvalidInputError(
            f"a menu of {sizes[-1]} treatments from {candidates} candidates; "
            f"choose k of at most {candidates}"
        )
