"""Tables that small tests write: what they depend on, and their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coarse_spark.lake.contract import OutputLayout

if TYPE_CHECKING:
    import pandas as pd

    from coarse_spark.pipeline import Run

LAYOUT = OutputLayout("bigint", {"depth": "double", "arm": "bigint"}, 3, ("member",))


def rows_of(run: Run, table: str) -> pd.DataFrame:
    """Return the rows of a run, in the order of their units where they are of units."""
    rows = run.lake.read(table, run.run_id).drop("run_id").toPandas()
    return rows.sort_values("unit_id", ignore_index=True) if "unit_id" in rows else rows
