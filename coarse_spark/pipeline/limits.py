"""The limits of a run's menus: what the record says of them, and the published menu within them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settlement import SettledMenu
from coarse_spark.distributed.settle import population_of, population_sample, settle_units
from coarse_spark.lake.step_results import LimitsKept
from coarse_spark.pipeline.run import Run


def limits_kept(bounded: BoundedMenu, problem: MenuProblem, sums: SegmentSums) -> LimitsKept:
    """Return what the run keeps of a menu's limits, from the sums of its segments."""
    budget = None if bounded.spend is None else bounded.budget
    return LimitsKept(
        min_share=bounded.lower.tolist(),
        max_share=bounded.upper.tolist(),
        tie_break=bounded.lottery,
        budget=budget,
        spending=0.0 if budget is None else bounded.spent(sums, problem),
        budget_price=bounded.charge,
    )


def published_menu(
    run: Run, problem: MenuProblem, menu: pd.DataFrame, kept: LimitsKept
) -> BoundedMenu:
    """Return the menu of the table's rows ``menu`` within the limits that ``choose`` kept.

    Parameters
    ----------
    run : the run.
    problem : of the population, with a lottery.
    menu : rows of table ``menu``.
    kept : its limits.
    """
    budget = run.configuration.limits.budget
    bounded = BoundedMenu(
        PricedMenu.build(problem, problem.space.encode(menu)),
        np.asarray(kept.min_share, dtype=np.float64),
        np.asarray(kept.max_share, dtype=np.float64),
        np.inf if budget is None else budget.limit,
        spend=None if budget is None else budget.row_profit,
        lottery=kept.tie_break,
    )
    return bounded.at(problem, menu["shadow_price"].to_numpy(np.float64), kept.budget_price)


def settled_menu(
    problem: MenuProblem, bounded: BoundedMenu, responses: DataFrame
) -> tuple[SettledMenu, DataFrame]:
    """Return the menu with its limits kept to the unit, and who gets what near indifference.

    Parameters
    ----------
    problem : of the population, with a lottery.
    bounded : the menu with its limits.
    responses : unit_id, weight and the coefficients of ``problem``.

    Returns
    -------
    The menu, and unit_id, treatment_id of the units that prices do not decide about.
    """
    everyone = population_of(responses)
    sample = population_sample(responses, everyone, problem.coefficients)
    settled = settle_units(
        responses, problem, {bounded.size: bounded}, everyone=everyone, sample=sample, ids=True
    )[bounded.size]
    rows = pd.DataFrame(
        {"unit_id": settled.near.ids, "treatment_id": settled.chosen.astype(np.int32)}
    )
    kind = responses.schema["unit_id"].dataType.simpleString()
    return settled, responses.sparkSession.createDataFrame(
        rows, f"unit_id {kind}, treatment_id int"
    )
