"""The readers and queries of docs/queries.md, as the page has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"

# answers a query
Reader = Callable[[str], pd.DataFrame]


def blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of code below a heading of the page, up to the next one."""
    found: list[str] = []
    here, inside = False, False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = here and line == f"```{language}"
            if inside:
                found.append("")
        elif inside:
            found[-1] += f"{line}\n"
        elif line.startswith("#"):
            here = line.lstrip("# ") == heading
    assert found, f"{PAGE.name}: no block of {language} below {heading}"
    return found


def python_of(heading: str, folder: Path) -> dict[str, Any]:
    """Return the names that the page's Python for the tables in a folder defines."""
    (code,) = blocks(heading, "python")
    names: dict[str, Any] = {}
    exec(code.replace("/path/to/output", str(folder)), names)  # noqa: S102  # the page's own
    return names


def spark_reader(spark: SparkSession, folder: Path) -> Reader:
    """Return Spark SQL in a session of its own, with the page's views of a folder."""
    session = spark.newSession()
    (script,) = blocks("Spark SQL on a folder", "sql")
    for statement in script.replace("/path/to/output", str(folder)).split(";"):
        session.sql(statement)
    return lambda query: session.sql(query).toPandas()


def duckdb_reader(folder: Path) -> Reader:
    """Return DuckDB with the page's views of a folder."""
    connection = python_of("DuckDB", folder)["connection"]
    return lambda query: connection.execute(query).df()
