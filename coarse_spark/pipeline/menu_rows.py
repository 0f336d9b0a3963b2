"""The rows of the table ``menu``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.units import SegmentSums
from coarse_spark.lake.tables import Lake


def menu_rows(
    problem: MenuProblem,
    menu: PricedMenu,
    sums: SegmentSums,
    *,
    selected: bool,
) -> pd.DataFrame:
    """Return one row a treatment of a menu.

    Parameters
    ----------
    problem : the one without rules.
    menu : its treatments and prices.
    sums : of its segments.
    selected : whether it is the one to publish.
    """
    frame = problem.space.decode(menu.treatments)
    frame.insert(0, "treatment_id", np.arange(len(frame)))
    frame.insert(0, "k", len(frame))
    # what its units earn: what switching to it costs is not the treatment's
    earned = np.column_stack([sums.theta[:, : problem.coefficients], sums.weight]) * problem.psi_at(
        menu.treatments
    )
    profits = earned.sum(axis=1)
    return frame.assign(
        share=sums.weight / sums.weight.sum(),
        shadow_price=menu.prices,
        expected_profit=np.divide(
            profits, sums.weight, out=np.full(len(frame), np.nan), where=sums.weight > 0
        ),
        selected=selected,
    )


def read_menus(lake: Lake, run_id: str) -> pd.DataFrame:
    """Return a run's rows of the table, of all sizes, by k and treatment_id."""
    # a handful of rows: sorting them on Spark would cost two more jobs
    return (
        lake.read("menu", run_id)
        .drop("run_id")
        .toPandas()
        .sort_values(["k", "treatment_id"], ignore_index=True)
    )
