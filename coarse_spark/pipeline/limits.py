"""The limits of a run's menus: what the record says of them, and who gets what within them."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.choose import ChosenMenu
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import SizeLimits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.settle import Settled, settle_boundary
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.errors import RunError
from coarse_spark.lake.step_results import DecidingPrices, LimitsKept, TotalKept


def limits_kept(chosen: ChosenMenu, problem: MenuProblem) -> LimitsKept | None:
    """Return what the run keeps of a menu's limits, None without any.

    Parameters
    ----------
    chosen : the menu of one size.
    problem : that it was chosen from.
    """
    menu, deciding = chosen.menu, chosen.settled.deciding
    if menu.free:
        return None
    return LimitsKept(
        min_share=menu.lower.tolist(),
        max_share=menu.upper.tolist(),
        tie_break=menu.tie_break,
        totals=[TotalKept(**asdict(total)) for total in menu.totals_kept(problem, chosen.sums)],
        deciding=DecidingPrices(
            prices=deciding.prices.tolist(),
            limit_prices=deciding.limit_prices,
            reach=chosen.settled.boundary.reach,
        ),
    )


def deciding_menu(problem: MenuProblem, treatments: pd.DataFrame, kept: LimitsKept) -> PricedMenu:
    """Return the menu at the prices that decide about all units but those at the boundary.

    Parameters
    ----------
    problem : that knows what counts against limits and, where limits are kept, the tie-break.
    treatments : rows of table ``menu``, by treatment_id.
    kept : what the step ``choose`` kept of its limits.
    """
    lower, upper = np.array(kept.min_share), np.array(kept.max_share)
    limits = SizeLimits(lower, upper, totals=problem.totals)
    menu = PricedMenu.build(problem, problem.space.encode(treatments), limits=limits)
    menu = menu.at(np.array(kept.deciding.prices), kept.deciding.limit_prices)
    return replace(menu, tie_break=kept.tie_break)


def settled_units(population: ResponseTable, menu: PricedMenu, reach: float) -> DataFrame | None:
    """Return unit_id, treatment_id of the units at the boundary, None where there is none.

    Parameters
    ----------
    menu : at the prices of ``deciding_menu``.
    reach : the boundary's, as the step ``choose`` found it.

    Raises
    ------
    RunError : the responses are no longer those that the menu was chosen on.
    """
    if not reach:
        return None
    sums = population.sums({menu.k: menu})[0][menu.k]
    boundary = population.boundary({menu.k: (menu, reach)})[menu.k]
    found = ValuedMenu(menu, sums, menu.lagrangian(sums))
    settled = settle_boundary(found, boundary, population.size())
    if settled is None or boundary.reach != reach:
        raise RunError(
            f"the limits of the menu of {menu.k} cannot be kept as they were chosen, because the "
            "responses changed since; run the step 'choose' again"
        )
    return boundary_treatments(population, settled)


def boundary_treatments(population: ResponseTable, settled: Settled) -> DataFrame | None:
    """Return unit_id, treatment_id of the units at the boundary as settled, None for none."""
    boundary = settled.boundary
    if not len(boundary.units):
        return None
    rows = pd.DataFrame({"unit_id": boundary.ids, "treatment_id": settled.taken.astype(np.int32)})
    kind = population.rows.schema["unit_id"].dataType.simpleString()
    schema = f"unit_id {kind}, treatment_id int"
    return population.rows.sparkSession.createDataFrame(rows, schema)
