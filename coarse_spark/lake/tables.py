"""Reading and writing the Delta tables of runs, in a folder or a catalog schema.

A folder has one sub-folder a table. A run's rows are replaced in one atomic commit and nothing else
is touched. The current assignments are those of the run with the latest ``published_at``: one
commit to ``runs`` moves every reader at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from filelock import FileLock
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import NullType, StructType

from coarse_spark.address import is_local, resolved
from coarse_spark.compatibility import is_absent, works_here
from coarse_spark.errors import InvalidInputError, RunError, TableError, nearest
from coarse_spark.lake.conflicts import retried
from coarse_spark.lake.contract import (
    ALL_TABLES,
    ASSIGNMENTS,
    CURRENT_ASSIGNMENTS,
    RUNS,
    TableSchema,
    holds,
)

log = logging.getLogger(__name__)

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_BROKEN_CHECK = re.compile(r"CHECK constraint (\S+) ")
_BROKEN_NOT_NULL = re.compile(r"NOT NULL constraint violated for column: ([^\n]+?)\.?\s*\n")


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
    return ".".join(quote_part(part) for part in identifier.split("."))


def quote_part(name: str) -> str:
    """Return one name in backticks, dots and all."""
    return "`" + name.replace("`", "``") + "`"


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

    def __post_init__(self) -> None:
        if (self.path is None) == (self.schema is None):
            raise InvalidInputError("output: expected either a path or a schema")
        if self.path is not None:
            object.__setattr__(self, "path", resolved(self.path))
            if ".." in self.path.split("/"):
                raise InvalidInputError(
                    f"output path {self.path} contains '..'; write the folder itself"
                )

    def reference(self, table: str) -> str:
        """Return the SQL name of a table."""
        if self.path is not None:
            return "delta.`" + f"{self.path}/{table}".replace("`", "``") + "`"
        return f"{quote(str(self.schema))}.{quote(table)}"

    def exists(self, table: str) -> bool:
        """Whether the table is there; no run drops one, so that one look is enough.

        One that is there and cannot be read is an error of Spark's, see ``first_contact``.
        """
        if table not in self._found:
            try:
                self.spark.table(self.reference(table)).schema  # noqa: B018  # Connect analyses only on use
            except AnalysisException as error:
                if is_absent(error):
                    return False
                raise
            self._found.add(table)
        return True

    def read(self, table: str, run_id: str | None = None) -> DataFrame:
        """Return a table's rows, of one run where ``run_id`` is given.

        Raises
        ------
        TableError : the table does not exist yet.
        """
        if table not in ALL_TABLES:
            raise TableError(
                f"there is no table '{table}'{nearest(table, ALL_TABLES)}; "
                f"tables: {', '.join(ALL_TABLES)}"
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

    def replace(
        self,
        schema: TableSchema,
        run_id: str,
        rows: DataFrame | pd.DataFrame,
        number: int | None = None,
    ) -> None:
        """Replace the rows of one run by ``rows`` (without a run_id column) in one commit.

        Columns that the table has and the rows have not are null: those of other treatments.

        Parameters
        ----------
        schema : of the table.
        run_id : the run.
        rows : all of its rows in the table.
        number : of the write; where the table has seen this or a larger one of the run, even from
            another process at the same moment, nothing is written and nothing is raised.

        Raises
        ------
        TableError : the table does not exist, or lacks a column of the rows, or has it with a type
            that cannot hold theirs; rows from the driver repeat a key or leave it null. (Rows of
            Spark DataFrames derive from units whose ids were checked at the start of the run.)
        RunError : a row breaks the table's constraint.
        """
        self._write(schema, run_id, rows, number, replaced=True)

    def append(
        self, schema: TableSchema, run_id: str, rows: DataFrame | pd.DataFrame, number: int
    ) -> None:
        """Add rows with keys that a run does not have yet, in one commit; see ``replace``."""
        self._write(schema, run_id, rows, number, replaced=False)

    def _write(
        self,
        schema: TableSchema,
        run_id: str,
        rows: DataFrame | pd.DataFrame,
        number: int | None,
        *,
        replaced: bool,
    ) -> None:
        check_run_id(run_id)
        table = self.read(schema.name).schema
        if isinstance(rows, pd.DataFrame):
            rows = self._from_driver(schema, rows, table)
        rows = _conformed(rows.withColumn("run_id", F.lit(run_id)), table, schema.name)
        options = {} if number is None else {"txnAppId": run_id, "txnVersion": str(number)}
        with self.alone(schema.name):
            _commit(rows, self, schema, run_id if replaced else None, options)

    @contextmanager
    def alone(self, table: str) -> Iterator[None]:
        """Keep other processes of this machine from committing to a table in a local folder.

        On a local file system Delta cannot tell that another process commits the same version: the
        later one would replace the earlier one. Object stores and catalogs see to that themselves.
        A path may also be a server's or a cluster's: here there is no such folder then.
        """
        if self.path is None or not is_local(self.path):
            yield
            return
        folder = Path(self.path)
        lock = FileLock(folder / ".locks" / table)
        with suppress(OSError, NotImplementedError):  # a read-only place, or one without locks
            if works_here(self.spark):  # the first table would create it
                folder.mkdir(parents=True, exist_ok=True)
            if folder.is_dir():
                Path(lock.lock_file).parent.mkdir(exist_ok=True)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _from_driver(self, schema: TableSchema, rows: pd.DataFrame, table: StructType) -> DataFrame:
        keys = rows[list(schema.key)] if schema.key else rows.iloc[:, :0]
        repeated = keys.duplicated().any() if schema.key else len(rows) > 1
        if repeated or keys.isna().any(axis=None):
            raise TableError(
                f"table {schema.name}: the key (run_id, {', '.join(schema.key)}) would be "
                "repeated or null"
            )
        types = {field.name: field.dataType.simpleString() for field in table}
        fields = [f"{quote_part(name)} {types.get(name, 'string')}" for name in rows.columns]
        values = [
            tuple(None if _missing(v) else v for v in row)
            for row in rows.astype(object).itertuples(index=False)
        ]
        # a handful of rows: one file, however many cores the session has
        return self.spark.createDataFrame(values, ", ".join(fields)).coalesce(1)

    @retried()
    def remove(self, table: str, run_ids: Sequence[str]) -> None:
        """Remove the rows of runs from a table in one commit; files stay until VACUUM."""
        if run_ids and self.exists(table):
            # a quoted name, and run ids that hold no quotes
            delete = f"DELETE FROM {self.reference(table)} WHERE {_of_runs(run_ids)}"  # noqa: S608  # nosec
            with self.alone(table):
                self.spark.sql(delete)

    def vacuum_statement(self, table: str) -> str:
        """Return the SQL that frees the files of removed rows."""
        return f"VACUUM {self.reference(table)}"

    def bytes_of(self, table: str, run_ids: Sequence[str]) -> int:
        """Return the size of the files that hold the rows of runs."""
        if not run_ids or not self.exists(table):
            return 0
        files = F.col("_metadata.file_path"), F.col("_metadata.file_size").alias("size")
        rows = self.read(table).where(_of_runs(run_ids)).select(*files).distinct()
        return int(rows.agg(F.coalesce(F.sum("size"), F.lit(0))).collect()[0][0])

    def current_assignments_query(self) -> str:
        """Return the SQL of the view ``current_assignments``."""
        return (
            f"SELECT * FROM {self.reference(ASSIGNMENTS.name)} "  # noqa: S608  # nosec  # quoted by reference
            "WHERE run_id = (SELECT max_by(run_id, published_at) "
            f"FROM {self.reference(RUNS.name)} WHERE published_at IS NOT NULL)"
        )

    def publish_view(self) -> None:
        """Create the view ``current_assignments``: persistent in a catalog, else of this session.

        The view itself never changes, unless the table got columns: it follows ``published_at`` in
        ``runs``. Replacing it could take it from readers for a moment.
        """
        if self.schema is None:
            self.current_assignments().createOrReplaceTempView(CURRENT_ASSIGNMENTS)
        elif not self._has_view():
            self.spark.sql(
                f"CREATE OR REPLACE VIEW {self.reference(CURRENT_ASSIGNMENTS)} AS "
                f"{self.current_assignments_query()}"
            )

    def _has_view(self) -> bool:
        """Whether the persistent view is there, with all columns of the table."""
        try:
            view = self.spark.table(self.reference(CURRENT_ASSIGNMENTS)).columns
        except AnalysisException:
            return False
        return view == self.spark.table(self.reference(ASSIGNMENTS.name)).columns

    def current_assignments(self) -> DataFrame:
        """Return the assignments of the latest published run."""
        return self.spark.sql(self.current_assignments_query())


@retried()
def _commit(
    rows: DataFrame,
    lake: Lake,
    schema: TableSchema,
    replaced: str | None,
    options: Mapping[str, str],
) -> None:
    """Write rows in one commit, in place of those of the run ``replaced`` where there is one."""
    try:
        if lake.path is None:
            # saveAsTable would put a new table in the place of the old one, and several releases of
            # Spark and Delta do not agree on how
            _commit_to_catalog(rows, lake.reference(schema.name), replaced, options)
            return
        writer = rows.write.format("delta").mode("append").options(**options)
        if replaced is not None:
            # run ids hold no quotes
            writer = writer.mode("overwrite").options(replaceWhere=f"run_id = '{replaced}'")
        writer.save(f"{lake.path}/{schema.name}")
    except Exception as error:
        broken = _broken_rule(schema, str(error))
        if broken is None:
            raise
        # without its cause, which prints the row
        raise RunError(f"table {schema.name}: a row breaks {broken}; nothing was written") from None


def _commit_to_catalog(
    rows: DataFrame, table: str, replaced: str | None, options: Mapping[str, str]
) -> None:
    writer = rows.writeTo(table).options(**options)
    if replaced is None:
        writer.append()
    else:
        writer.overwrite(F.col("run_id") == F.lit(replaced))


def _broken_rule(schema: TableSchema, message: str) -> str | None:
    """Return the constraint that a failed write names, without the row that broke it."""
    column, check = _BROKEN_NOT_NULL.search(message), _BROKEN_CHECK.search(message)
    if column is not None:
        return f"its constraint '{column[1]} NOT NULL'"
    if check is None:
        return None
    own = schema.constraint
    rule = f": {own.rule}" if own is not None and own.name == check[1] else ""
    return f"its constraint '{check[1]}'{rule}"


def _conformed(rows: DataFrame, table: StructType, name: str) -> DataFrame:
    """Return rows with the columns of a table, in its order and types."""
    given = {field.name: field.dataType for field in rows.schema}
    strange = [column for column in given if column not in table.names]
    if strange:
        raise TableError(
            f"table {name} has no column '{strange[0]}'{nearest(strange[0], table.names)}; it is "
            "not of this version or configuration: 'coarse-spark validate' says how it differs, "
            "'coarse-spark migrate' brings an older one up to date"
        )
    columns = []
    for target in table:
        wanted = target.dataType.simpleString()
        kind = given.get(target.name, NullType())
        if not isinstance(kind, NullType) and not holds(wanted, kind.simpleString()):
            raise TableError(
                f"table {name}: column '{target.name}' is of type {wanted}, which cannot hold the "
                f"{kind.simpleString()} of this run; 'coarse-spark validate' says more"
            )
        value = F.col(quote_part(target.name)) if target.name in given else F.lit(None)
        columns.append(value.cast(target.dataType).alias(target.name))
    return rows.select(*columns)


def _of_runs(run_ids: Sequence[str]) -> str:
    # ids are letters, digits and signs that need no escape
    names = ", ".join(f"'{check_run_id(run_id)}'" for run_id in run_ids)
    return f"run_id IN ({names})"


def _missing(value: object) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and value != value)
