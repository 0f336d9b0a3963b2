"""Reading and writing the Delta tables of runs, in a folder or a catalog schema.

A folder has one sub-folder a table. A run's rows are replaced in one atomic commit and nothing else
is touched. The current assignments are those of the run with the latest ``published_at``: one
commit to ``runs`` moves every reader at once.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentWriteException,
    MetadataChangedException,
    ProtocolChangedException,
)
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from coarse_spark.errors import InvalidInputError, TableError, nearest
from coarse_spark.lake.schemas import ASSIGNMENTS, CURRENT_ASSIGNMENTS, RUNS, TABLES, TableSchema

log = logging.getLogger(__name__)

# conflicts of two runs that write one table at a time; nothing was written, so the write may be
# tried again
_CONFLICTS = (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentWriteException,
    MetadataChangedException,
    ProtocolChangedException,
)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_run_id(run_id: str) -> str:
    """Return ``run_id`` when it is safe inside a replaceWhere condition.

    Raises
    ------
    InvalidInputError : other characters than letters, digits, ``_ . -``; or longer than 100.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidInputError(
            f"run id {run_id!r}: expected 1 to 100 letters, digits, '_', '.' or '-', the "
            "first a letter or digit"
        )
    return run_id


def quote(identifier: str) -> str:
    """Return a dotted identifier with every part in backticks."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in identifier.split("."))


@dataclass(frozen=True)
class Lake:
    """Where the tables of runs are.

    Parameters
    ----------
    spark : the session.
    path : folder for path-based tables; or
    schema : ``catalog.schema`` or ``schema`` for catalog tables.
    """

    spark: SparkSession
    path: str | None = None
    schema: str | None = None
    _found: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _unwritten: set[tuple[str, str]] = field(
        default_factory=set, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if (self.path is None) == (self.schema is None):
            raise InvalidInputError("output: expected either a path or a schema")
        if self.path is not None:
            if "://" not in self.path and not self.path.startswith("dbfs:"):
                object.__setattr__(self, "path", str(Path(self.path).resolve()))
            elif ".." in self.path.split("/"):
                raise InvalidInputError(
                    f"output path {self.path} contains '..'; write the folder itself"
                )

    def reference(self, table: str) -> str:
        """Return the SQL name of a table."""
        if self.path is not None:
            return "delta.`" + f"{self.path}/{table}".replace("`", "``") + "`"
        return f"{quote(str(self.schema))}.{quote(table)}"

    def exists(self, table: str) -> bool:
        """Whether the table is there; no run drops one, so that one look is enough."""
        if table not in self._found:
            try:
                self.spark.table(self.reference(table)).schema  # noqa: B018  # Connect analyses only on use
            except AnalysisException:
                return False
            self._found.add(table)
        return True

    def read(self, table: str, run_id: str | None = None) -> DataFrame:
        """Return a table's rows, of one run where ``run_id`` is given.

        Raises
        ------
        TableError : the table does not exist yet.
        """
        if table not in TABLES:
            raise TableError(
                f"there is no table '{table}'{nearest(table, TABLES)}; tables: {', '.join(TABLES)}"
            )
        if not self.exists(table):
            raise TableError(
                f"table {self.reference(table)} does not exist yet; run the step that writes "
                "it first"
            )
        rows = self.spark.table(self.reference(table))
        return (
            rows if run_id is None else rows.where(F.col("run_id") == F.lit(check_run_id(run_id)))
        )

    def begin(self, run_id: str) -> None:
        """Say that no table holds rows of this run.

        The first write to each may then append and need not look for old rows.
        """
        self._unwritten.update((name, check_run_id(run_id)) for name in TABLES)

    def replace(self, schema: TableSchema, run_id: str, rows: DataFrame | pd.DataFrame) -> None:
        """Replace the rows of one run by ``rows`` (without a run_id column) in one commit.

        Raises
        ------
        TableError : rows from the driver repeat a key or leave it null. (Rows of Spark DataFrames
            derive from units whose ids were checked at the start of the run.)
        """
        check_run_id(run_id)
        if isinstance(rows, pd.DataFrame):
            rows = self._from_driver(schema, rows)
        order = ["run_id", *schema.key, *(c for c in rows.columns if c not in schema.key)]
        rows = rows.withColumn("run_id", F.lit(run_id))
        rows = rows.select(
            *(F.col(f"`{c}`").alias(c, metadata={"comment": schema.comment_of(c)}) for c in order)
        )
        if not self.exists(schema.name):
            self._create(schema, rows.schema)
        _write(
            rows,
            self,
            schema.name,
            None if (schema.name, run_id) in self._unwritten else f"run_id = '{run_id}'",
        )
        self._unwritten.discard((schema.name, run_id))

    def _from_driver(self, schema: TableSchema, rows: pd.DataFrame) -> DataFrame:
        keys = rows[list(schema.key)] if schema.key else rows.iloc[:, :0]
        repeated = keys.duplicated().any() if schema.key else len(rows) > 1
        if repeated or keys.isna().any(axis=None):
            raise TableError(
                f"table {schema.name}: the key (run_id, {', '.join(schema.key)}) would be "
                "repeated or null"
            )
        known = {name: sql for name, (sql, _) in schema.columns.items() if name in rows.columns}
        fields = [
            f"{quote(name)} {known.get(name) or _sql_type(rows[name])}" for name in rows.columns
        ]
        values = [
            tuple(None if _missing(v) else v for v in row)
            for row in rows.astype(object).itertuples(index=False)
        ]
        # a handful of rows: one file, however many cores the session has
        return self.spark.createDataFrame(values, ", ".join(fields)).coalesce(1)

    def _create(self, schema: TableSchema, fields: StructType) -> None:
        key = {"run_id", *schema.key}

        def column(name: str, sql_type: str) -> str:
            null = " NOT NULL" if name in key else ""
            return f"{quote(name)} {sql_type}{null} COMMENT {_literal(schema.comment_of(name))}"

        columns = ", ".join(column(f.name, f.dataType.simpleString()) for f in fields)
        # partitioned by run: replacing a run rewrites no file of another
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.reference(schema.name)} ({columns}) USING delta "
            f"PARTITIONED BY (run_id) COMMENT {_literal(schema.comment)}"
        )

    def current_assignments_query(self) -> str:
        """Return the SQL of the view ``current_assignments``."""
        return (
            f"SELECT * FROM {self.reference(ASSIGNMENTS.name)} "  # noqa: S608  # nosec  # quoted by reference
            "WHERE run_id = (SELECT max_by(run_id, published_at) "
            f"FROM {self.reference(RUNS.name)} WHERE published_at IS NOT NULL)"
        )

    def publish_view(self) -> None:
        """Create the view ``current_assignments``: persistent in a catalog, else of this session.

        The view itself never changes: it follows ``published_at`` in ``runs``.
        """
        if self.schema is not None:
            self.spark.sql(
                f"CREATE OR REPLACE VIEW {self.reference(CURRENT_ASSIGNMENTS)} AS "
                f"{self.current_assignments_query()}"
            )
        else:
            self.current_assignments().createOrReplaceTempView(CURRENT_ASSIGNMENTS)

    def current_assignments(self) -> DataFrame:
        """Return the assignments of the latest published run."""
        return self.spark.sql(self.current_assignments_query())

    def delta_version(self, reference: str) -> str:
        """Return the latest version of a Delta table as text, "-" for anything else."""
        try:
            row = self.spark.sql(f"DESCRIBE HISTORY {reference} LIMIT 1").collect()
        except Exception:
            # no Delta table, or no right to read its history: the run goes on without the version
            return "-"
        return str(row[0]["version"]) if row else "-"


@retry(
    retry=retry_if_exception_type(_CONFLICTS),
    stop=stop_after_attempt(6),
    wait=wait_random_exponential(multiplier=0.5, max=10),
    reraise=True,
)
def _write(rows: DataFrame, lake: Lake, table: str, replaced: str | None) -> None:
    writer = rows.write.format("delta").option("mergeSchema", "true")
    writer = (
        writer.mode("append")
        if replaced is None
        else writer.mode("overwrite").option("replaceWhere", replaced)
    )
    if lake.path is not None:
        writer.save(f"{lake.path}/{table}")
    else:
        writer.saveAsTable(lake.reference(table))


def _missing(value: object) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and value != value)


def _sql_type(values: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(values):
        return "boolean"
    if pd.api.types.is_integer_dtype(values):
        return "bigint"
    return "double" if pd.api.types.is_numeric_dtype(values) else "string"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
