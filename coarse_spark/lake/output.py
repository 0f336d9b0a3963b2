"""The tables of an output beside the contract: compared, and created where there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql.types import StructType
from tenacity import RetryCallState

from coarse_spark.compatibility import condition_of, is_absent
from coarse_spark.distributed.at_once import for_each
from coarse_spark.errors import TableError
from coarse_spark.lake.conflicts import retried
from coarse_spark.lake.contact import first_contact, require_schema
from coarse_spark.lake.contract import (
    ALL_TABLES,
    TABLES,
    VERSION,
    VERSION_PROPERTY,
    Column,
    OutputLayout,
    TableSchema,
    columns_of,
    holds,
)
from coarse_spark.lake.tables import Lake, quote_part

CONSTRAINT_PREFIX = "delta.constraints."
# another process was first, or is at it; what is there then is looked at
_RACED = {
    "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION",
    "DELTA_TABLE_ALREADY_EXISTS",
    "LOCATION_ALREADY_EXISTS",
    "TABLE_OR_VIEW_ALREADY_EXISTS",
}
_PATIENT = 3  # attempts that another process gets for a table that it may be about to create


@dataclass(frozen=True)
class Difference:
    """One thing in which a table differs from the contract.

    Attributes
    ----------
    place : the table, or table.column.
    found, expected : what it is and should be.
    mendable : whether ``migrate`` can change the table without loss.
    """

    place: str
    found: str
    expected: str
    mendable: bool

    def __str__(self) -> str:
        mend = "coarse-spark migrate mends it" if self.mendable else "needs another output"
        return f"{self.place}: found {self.found}, expected {self.expected} ({mend})"


@dataclass(frozen=True)
class TableState:
    """A table as it is, beside what a layout expects of it.

    Attributes
    ----------
    schema : its contract.
    expected : the columns of the contract.
    found : its own.
    properties : its own, with Delta's.
    """

    schema: TableSchema
    expected: tuple[Column, ...]
    found: StructType
    properties: Mapping[str, str]

    @property
    def version(self) -> int:
        """Version of the contract that the table follows."""
        return int(self.properties.get(VERSION_PROPERTY, "1"))

    @property
    def missing(self) -> list[Column]:
        """Columns that the table lacks."""
        names = {name.casefold() for name in self.found.names}
        return [column for column in self.expected if column.name.casefold() not in names]

    @property
    def narrow(self) -> list[Column]:
        """Columns that the table has with a type that the contract's is wider than."""
        return [
            column
            for column in self._shared
            if not holds(self.type_of(column), column.sql_type)
            and holds(column.sql_type, self.type_of(column))
        ]

    @property
    def _shared(self) -> list[Column]:
        return [column for column in self.expected if column.name in self.found.names]

    def type_of(self, column: Column) -> str:
        """Return the SQL type of a column that the table has."""
        return str(self.found[column.name].dataType.simpleString())

    @property
    def constrained(self) -> bool:
        """Whether the table has the constraint of the contract."""
        own = self.schema.constraint
        if own is None:
            return True
        rule = self.properties.get(CONSTRAINT_PREFIX + own.name, "")
        # Delta takes rules apart into words
        return "".join(rule.split()) == "".join(own.rule.split())

    def differences(self) -> Iterator[Difference]:
        """Yield what differs, column by column.

        A column of a wider type is no difference, nor is one that the contract does not know: rows
        leave it null.
        """
        yield from self._column_differences()
        yield from self._property_differences()

    def _column_differences(self) -> Iterator[Difference]:
        name, mended = self.schema.name, [*self.missing, *self.narrow]
        known = {column.name.casefold(): column.name for column in self.expected}
        for column in self.expected:
            place = f"{name}.{column.name}"
            if column in self.missing:
                yield Difference(place, "no such column", column.sql_type, column.nullable)
            elif column in self._shared and not holds(self.type_of(column), column.sql_type):
                yield Difference(place, self.type_of(column), column.sql_type, column in mended)
        for field in self.found:
            own, place = known.get(field.name.casefold()), f"{name}.{field.name}"
            if own is not None and own != field.name:
                yield Difference(place, "this spelling", f"'{own}'", mendable=False)
            elif not field.nullable and field.name not in ("run_id", *self.schema.key):
                yield Difference(place, "NOT NULL", "a column that may be null", mendable=False)

    def _property_differences(self) -> Iterator[Difference]:
        name = self.schema.name
        if self.version < VERSION:
            yield Difference(name, f"contract version {self.version}", str(VERSION), mendable=True)
            return
        if not self.constrained and self.schema.constraint is not None:
            rule = f"the constraint '{self.schema.constraint.name}'"
            yield Difference(name, "no such rule", rule, mendable=True)
        for key, value in self.schema.table_properties.items():
            if self.properties.get(key) != value:
                held = self.properties.get(key, "nothing")
                yield Difference(f"{name} ({key})", held, value, mendable=True)


@dataclass(frozen=True)
class OutputState:
    """The tables of an output beside the contract.

    Attributes
    ----------
    place : the folder or schema.
    tables : those that are there.
    absent : the contracts of the others.
    """

    place: str
    tables: tuple[TableState, ...]
    absent: tuple[TableSchema, ...]

    @property
    def differences(self) -> list[Difference]:
        """What differs, table by table."""
        return [difference for table in self.tables for difference in table.differences()]

    def __str__(self) -> str:
        if not self.absent:
            return f"the tables in {self.place} are those that a run writes"
        names = ", ".join(schema.name for schema in self.absent)
        return f"{names} would be created in {self.place}"

    def require_same(self) -> None:
        """Refuse an output that differs.

        Raises
        ------
        TableError : it does; one line a difference.
        """
        found = self.differences
        if found:
            count = "1 difference" if len(found) == 1 else f"{len(found)} differences"
            lines = "\n".join(f"  {difference}" for difference in found)
            raise TableError(
                f"the tables of the output {self.place} are not those that this configuration "
                f"writes, {count}:\n{lines}"
            )


def difference(lake: Lake, layout: OutputLayout) -> OutputState:
    """Return how an output differs from the contract, without changing anything.

    Parameters
    ----------
    lake : the output.
    layout : what depends on the configuration.

    Raises
    ------
    TableError : there is no such schema, or a table cannot be read, is none of Delta's, or follows
        a newer contract.
    """
    with first_contact(lake):
        require_schema(lake)
    schemas = list(ALL_TABLES.values())
    found = for_each(lake.spark, schemas, lambda schema: table_state(lake, schema, layout))
    states = list(zip(schemas, found, strict=True))
    return OutputState(
        str(lake.path or lake.schema),
        tuple(state for _, state in states if state is not None),
        tuple(schema for schema, state in states if state is None and schema.name in TABLES),
    )


def table_state(lake: Lake, schema: TableSchema, layout: OutputLayout) -> TableState | None:
    """Return a table beside the contract, None where it is not there; errors as ``difference``."""
    reference = lake.reference(schema.name)
    with first_contact(lake, schema.name):
        try:
            found = lake.spark.table(reference).schema
        except AnalysisException as error:
            if is_absent(error):
                return None
            raise
        rows = lake.spark.sql(f"SHOW TBLPROPERTIES {reference}").collect()
    properties = {row["key"]: row["value"] for row in rows}
    if "delta.minReaderVersion" not in properties:
        raise TableError(f"table {reference} is no Delta table; use another output")
    state = TableState(schema, tuple(columns_of(schema, layout)), found, properties)
    if state.version > VERSION:
        raise TableError(
            f"table {reference} was written by a newer coarse_spark: found contract version "
            f"{state.version}, expected at most {VERSION}; use that version, or another output"
        )
    return state


class _NotThereError(TableError):
    """Tables are not there although they were created."""


def _remove_unfinished(attempts: RetryCallState) -> None:
    """Remove the empty folders of a table whose creation was interrupted: they keep it away.

    Another process may just be about to fill them: it gets the time of the first attempts.
    """
    lake: Lake = attempts.args[0]
    if lake.path is None or attempts.attempt_number < _PATIENT:
        return
    for name in ALL_TABLES:
        for folder in (Path(lake.path, name, "_delta_log"), Path(lake.path, name)):
            with contextlib.suppress(OSError):  # not there, or not empty: a table
                folder.rmdir()


# two processes that create a table at the same moment: the second finds it
@retried(_NotThereError, attempts=6, longest=4, before_sleep=_remove_unfinished)
def prepare(lake: Lake, layout: OutputLayout, further: Sequence[TableSchema] = ()) -> None:
    """Create the tables that are missing, and refuse an output whose tables differ.

    Each table is there in one commit, with all of its columns and its constraint.

    Parameters
    ----------
    lake : the output.
    layout : what depends on the configuration.
    further : tables beyond those of every run.

    Raises
    ------
    TableError : as of ``difference``; tables differ, or cannot be created.
    """
    state = difference(lake, layout)
    state.require_same()
    absent = (*state.absent, *(schema for schema in further if not lake.exists(schema.name)))
    for_each(lake.spark, absent, lambda schema: _create(lake, schema, layout))
    # Delta does nothing where a file or folder is in the place; and another process may have been
    # first, with another layout: the next attempt tells
    failed = [schema for schema in absent if not _is_whole(lake, schema, layout)]
    if failed:
        references = ", ".join(lake.reference(schema.name) for schema in failed)
        raise _NotThereError(
            f"the output {state.place}: something that is no Delta table is in the place of "
            f"{references}; remove it, or use another output"
        )


def _is_whole(lake: Lake, schema: TableSchema, layout: OutputLayout) -> bool:
    """Whether a table is there and has all of its columns."""
    try:
        found = lake.spark.table(lake.reference(schema.name)).columns
    except AnalysisException:
        return False
    return {column.name for column in columns_of(schema, layout)} <= set(found)


def _create(lake: Lake, schema: TableSchema, layout: OutputLayout) -> None:
    with lake.alone(schema.name), first_contact(lake, schema.name):
        try:
            lake.spark.sql(_definition(lake, schema, layout))
        except AnalysisException as error:
            if condition_of(error) not in _RACED:
                raise


def _definition(lake: Lake, schema: TableSchema, layout: OutputLayout) -> str:
    properties = dict(schema.table_properties)
    if schema.constraint is not None:
        # ALTER TABLE would be a commit of its own, and a job
        properties[CONSTRAINT_PREFIX + schema.constraint.name] = schema.constraint.rule
    columns = ", ".join(column_definition(column) for column in columns_of(schema, layout))
    return (
        f"CREATE TABLE IF NOT EXISTS {lake.reference(schema.name)} ({columns}) USING delta "
        f"PARTITIONED BY (run_id) COMMENT {literal(schema.comment)} "
        f"TBLPROPERTIES ({property_list(properties)})"
    )


def column_definition(column: Column) -> str:
    """Return a column as CREATE and ALTER TABLE take it."""
    null = "" if column.nullable else " NOT NULL"
    return f"{quote_part(column.name)} {column.sql_type}{null} COMMENT {literal(column.comment)}"


def property_list(properties: Mapping[str, str]) -> str:
    """Return table properties as SQL takes them."""
    return ", ".join(f"{literal(key)} = {literal(value)}" for key, value in properties.items())


def literal(text: str) -> str:
    """Return a text of ours as SQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
