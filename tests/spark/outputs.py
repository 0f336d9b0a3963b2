"""What the tables of small tests depend on."""

from __future__ import annotations

from coarse_spark.lake.contract import OutputLayout

LAYOUT = OutputLayout("bigint", {"depth": "double", "arm": "bigint"}, 3, ("member",))
