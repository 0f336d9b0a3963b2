"""The limits of a run's menus: what the record says of them, and the published menu within them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settlement import SettledMenu
from coarse_spark.distributed.settle import population_of, population_sample, settle_units
from coarse_spark.pipeline.run import Run
from coarse_spark.report.content import LimitsKept


def limits_note(bounded: BoundedMenu, problem: MenuProblem, sums: SegmentSums) -> dict[str, Any]:
    """Return what the record keeps of a menu's limits: shares, lottery, and budget with its price and the spending."""
    note: dict[str, Any] = {
        "min_share": bounded.lower.tolist(),
        "max_share": bounded.upper.tolist(),
        "lottery": bounded.lottery,
        "budget_price": bounded.charge,
    }
    if bounded.spend is not None:
        note |= {"budget": bounded.budget, "spending": bounded.spent(sums, problem)}
    return note


def limits_kept(note: dict[str, Any] | None) -> LimitsKept | None:
    """Return what the report says of the limits that ``limits_note`` recorded."""
    if note is None:
        return None
    shares = max(note["min_share"]) > 0 or min(note["max_share"]) < 1
    return LimitsKept(shares, note.get("budget"), note.get("spending", 0.0), note["budget_price"])


def published_menu(
    run: Run, problem: MenuProblem, menu: pd.DataFrame, note: dict[str, Any]
) -> BoundedMenu:
    """Return the menu of the table's rows ``menu`` within the limits that ``choose`` noted; ``problem`` has a lottery."""
    budget = run.configuration.limits.budget
    bounded = BoundedMenu(
        PricedMenu.build(problem, problem.space.encode(menu)),
        np.asarray(note["min_share"], dtype=np.float64),
        np.asarray(note["max_share"], dtype=np.float64),
        np.inf if budget is None else budget.limit,
        spend=None if budget is None else budget.row_profit,
        lottery=float(note["lottery"]),
    )
    return bounded.at(
        problem, menu["shadow_price"].to_numpy(np.float64), float(note["budget_price"])
    )


def settled_menu(
    problem: MenuProblem, bounded: BoundedMenu, responses: DataFrame
) -> tuple[SettledMenu, DataFrame]:
    """Return the menu with its limits kept to the unit, and unit_id, treatment_id of the units that prices do not decide about.

    ``responses`` : unit_id, weight and the coefficients of ``problem``.
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
