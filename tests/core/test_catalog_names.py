"""What the first contact with an output says, of catalogs that answer otherwise than Spark."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coarse_spark.errors import TableError
from coarse_spark.lake.contact import require_schema
from coarse_spark.lake.tables import Lake

ASKED = {
    "SHOW CATALOGS": [("main",), ("dev-catalog",)],
    "SHOW SCHEMAS IN `dev-catalog`": [("shop-1",), ("default",)],
}


def _lake(schema: str) -> Lake:
    """Return an output in a catalog whose rows tell their fields by place alone."""
    spark: Any = SimpleNamespace(
        catalog=SimpleNamespace(databaseExists=lambda name: name == "`dev-catalog`.`shop-1`"),
        sql=lambda statement: SimpleNamespace(collect=lambda: ASKED[statement]),
    )
    return Lake(spark, schema=schema)


def test_names_that_need_quotes_are_quoted() -> None:
    require_schema(_lake("dev-catalog.shop-1"))


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("dev-catalog.shop-2", r"no schema 'dev-catalog.shop-2' \(did you mean 'shop-1'\?\)"),
        ("dev_catalog.shop-1", r"no catalog 'dev_catalog' \(did you mean 'dev-catalog'\?\)"),
    ],
)
def test_what_there_is_is_named_whatever_the_columns_are_called(schema: str, told: str) -> None:
    with pytest.raises(TableError, match=told):
        require_schema(_lake(schema))
