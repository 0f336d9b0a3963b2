"""From tables of an earlier contract, or of other treatments, to those that a run writes today.

Columns and constraints are added to a table as it stands; wider types rewrite it. Every commit
leaves a table that readers can use, with the rows of all runs as they are, and the version comes
last: a migration that was interrupted goes on when it is started again. Types are not widened by
Delta's own feature for that, because readers that do not know it would refuse the table.
"""

from __future__ import annotations

from pyspark.sql import functions as F

from coarse_spark.errors import TableError
from coarse_spark.lake.conflicts import retried
from coarse_spark.lake.contact import first_contact
from coarse_spark.lake.contract import ALL_TABLES, VERSION, OutputLayout, TableSchema
from coarse_spark.lake.output import (
    TableState,
    column_definition,
    difference,
    literal,
    property_list,
    table_state,
)
from coarse_spark.lake.tables import Lake, quote_part
from coarse_spark.text import counted


def migrate(lake: Lake, layout: OutputLayout) -> list[str]:
    """Bring the tables of an output to the contract and return what was done, in sentences.

    Tables that are not there stay away: the next run creates them.

    Parameters
    ----------
    lake : the output.
    layout : what depends on the configuration.

    Raises
    ------
    TableError : a table differs in what cannot be changed without loss, or has rows that its
        constraint refuses; nothing was changed.
    """
    state = difference(lake, layout)
    hopeless = [str(found) for found in state.differences if not found.mendable]
    if hopeless:
        lines = "\n".join(f"  {found}" for found in hopeless)
        raise TableError(f"the tables of the output {state.place} cannot be migrated:\n{lines}")
    for table in state.tables:
        _require_kept(lake, table)
    return [
        sentence for schema in ALL_TABLES.values() for sentence in _migrated(lake, schema, layout)
    ]


def _require_kept(lake: Lake, table: TableState) -> None:
    """Check that the rows of a table keep the constraint that it is about to get."""
    constraint = table.schema.constraint
    if constraint is None or table.constrained:
        return
    with first_contact(lake, table.schema.name):
        rows = lake.spark.table(lake.reference(table.schema.name))
        for column in table.missing:
            value = F.expr(table.schema.older.get(column.name, "null")).cast(column.sql_type)
            rows = rows.withColumn(column.name, value)
        kept = F.coalesce(F.expr(constraint.rule), F.lit(False))
        breaking = rows.where(~kept).groupBy("run_id").count().orderBy("run_id").collect()
    if breaking:
        runs = ", ".join(f"{row['run_id']} ({row['count']})" for row in breaking[:5])
        raise TableError(
            f"table {table.schema.name}: "
            f"{counted(sum(row['count'] for row in breaking), 'row breaks', 'rows break')} the "
            f"constraint '{constraint.name}': {constraint.rule}; they are of the runs {runs}; "
            "use another output, or delete them"
        )


@retried()
def _migrated(lake: Lake, schema: TableSchema, layout: OutputLayout) -> list[str]:
    """Migrate one table, from however far an earlier attempt came."""
    with lake.alone(schema.name), first_contact(lake, schema.name):
        table = table_state(lake, schema, layout)
        if table is None or not any(table.differences()):
            return []
        return [
            *_widened(lake, table),
            *_extended(lake, table),
            *_constrained(lake, table),
            *_described(lake, table),
        ]


def _widened(lake: Lake, table: TableState) -> list[str]:
    """Rewrite the table with wider types, in one commit.

    It loses NOT NULL, which Delta cannot give back: the constraint of such a table names its key.
    """
    if not table.narrow:
        return []
    reference = lake.reference(table.schema.name)
    wider = {column.name: column for column in table.narrow}
    rows = lake.spark.table(reference)
    columns = [
        F.col(quote_part(name))
        if name not in wider
        else F.col(quote_part(name))
        .cast(wider[name].sql_type)
        .alias(name, metadata={"comment": wider[name].comment})
        for name in rows.columns
    ]
    writer = (
        rows.select(*columns)
        .write.format("delta")
        .mode("overwrite")
        .option("overwriteSchema", "true")
        .option("partitionOverwriteMode", "static")
        .partitionBy("run_id")
    )
    if lake.path is not None:
        writer.save(f"{lake.path}/{table.schema.name}")
    else:
        writer.saveAsTable(reference)
    return [
        f"table {table.schema.name}: column {name} is now {column.sql_type} "
        f"(was {table.type_of(column)})"
        for name, column in wider.items()
    ]


def _extended(lake: Lake, table: TableState) -> list[str]:
    """Add missing columns, with the values that rows have from before there were any."""
    if not table.missing:
        return []
    reference = lake.reference(table.schema.name)
    columns = ", ".join(column_definition(column) for column in table.missing)
    lake.spark.sql(f"ALTER TABLE {reference} ADD COLUMNS ({columns})")
    names = ", ".join(column.name for column in table.missing)
    return [f"table {table.schema.name}: added {names}"]


def _constrained(lake: Lake, table: TableState) -> list[str]:
    schema, reference = table.schema, lake.reference(table.schema.name)
    for name, value in schema.older.items():
        # a table of an interrupted migration may have the column already
        lake.spark.sql(
            f"UPDATE {reference} SET {quote_part(name)} = {value} "  # noqa: S608  # nosec  # of the contract
            f"WHERE {quote_part(name)} IS NULL"
        )
    if schema.constraint is None or table.constrained:
        return []
    name = quote_part(schema.constraint.name)
    lake.spark.sql(f"ALTER TABLE {reference} DROP CONSTRAINT IF EXISTS {name}")
    lake.spark.sql(
        f"ALTER TABLE {reference} ADD CONSTRAINT {name} CHECK ({schema.constraint.rule})"
    )
    return [f"table {schema.name}: every row keeps '{schema.constraint.name}' from now on"]


def _described(lake: Lake, table: TableState) -> list[str]:
    """Renew comments, and last the properties with the version."""
    schema, reference = table.schema, lake.reference(table.schema.name)
    comments = {field.name: field.metadata.get("comment") for field in table.found}
    for column in table.expected:
        if comments.get(column.name, column.comment) != column.comment:
            lake.spark.sql(
                f"ALTER TABLE {reference} ALTER COLUMN {quote_part(column.name)} "
                f"COMMENT {literal(column.comment)}"
            )
    lake.spark.sql(
        f"ALTER TABLE {reference} SET TBLPROPERTIES ({property_list(schema.table_properties)})"
    )
    if table.version == VERSION:
        return []
    return [f"table {schema.name}: contract version {VERSION} (was {table.version})"]
