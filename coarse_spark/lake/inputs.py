"""Reading what a configuration names: a catalog table, files, or a data set of a package.

A run reads one snapshot of each input: a version of a Delta table, read again and again as it was;
of anything else the files as they are, with a fingerprint by which a change is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from coarse_spark.address import is_local, resolved
from coarse_spark.causes import first_cause, without_kind
from coarse_spark.config.models import Experiment, Population
from coarse_spark.errors import TableError
from coarse_spark.lake.snapshots import (
    Commit,
    all_there,
    commits,
    files_of,
    find_commit,
    fingerprint,
    latest_commit,
    literal,
    path_reference,
    table_facts,
)
from coarse_spark.lake.tables import quote
from coarse_spark.text import redact

NOT_PINNED = "-"  # the snapshot of what has no versions and no files, such as a table behind JDBC

_FILES, _CONTENT = "files:", "content:"
_LOOKED_AT = 20  # files in which columns of types that Spark does not read are looked for


def read_input(
    spark: SparkSession,
    source: Experiment | Population,
    label: str,
    snapshot: str | None = None,
    *,
    texts: Collection[str] = (),
) -> DataFrame:
    """Return the table that a block of the configuration names.

    Parameters
    ----------
    spark : the session.
    source : the block.
    label : its name, for messages.
    snapshot : of ``snapshot_of``. Of a Delta table exactly that version is returned, whatever is
        written to the table meanwhile; files are read as they are, see ``check_unchanged``.
    texts : columns whose values files without types hold as they are: 000012 and 012e3 are no
        numbers where they are ids.

    Raises
    ------
    TableError : the table or folder does not exist or cannot be read as the format says; or the
        version is there no more, or not whole. (Files that VACUUM removes after this call fail
        the reading itself; this call, repeated, then says why.)
    """
    pin = None if snapshot is None else Commit.parse(snapshot)
    if pin is not None:
        return _read_version(spark, source, label, pin)
    frame = _bundled(source)
    if frame is not None:
        # missing as null, also where the platform's conversion would keep NaN
        return spark.createDataFrame(frame.astype(object).where(frame.notna(), None))
    try:
        return _load(spark.read, source, texts)
    except Exception as error:
        why = _cause(error) + _columns_hint(source, error) + _pattern_hint(source)
        raise TableError(f"{label}: {_name(source)} cannot be read: {why}") from None


def snapshot_of(spark: SparkSession, source: Experiment | Population, label: str) -> str:
    """Return what a run that starts now reads of an input, for table ``runs``.

    The latest version of a Delta table and the time of its commit, as
    "12@2025-06-30T09:15:02.123Z"; "files:" and a fingerprint of addresses, sizes and times of all
    files of other tables and of views; "content:" and a fingerprint of the rows of a data set of
    a package; or ``NOT_PINNED`` where there is nothing to recognise it by.

    Parameters
    ----------
    spark : the session.
    source : the block of the configuration.
    label : its name, for messages.

    Raises
    ------
    TableError : the table or folder does not exist or cannot be read.
    """
    frame = _bundled(source)
    if frame is not None:
        return _content_of(frame)
    reference = _delta_reference(source)
    commit = None if reference is None else latest_commit(spark, reference)
    return str(commit) if commit else _files_of(spark, source, label)


def check_unchanged(
    spark: SparkSession, source: Experiment | Population, label: str, snapshot: str
) -> None:
    """Check that an input without versions is still what the run started on.

    Costs one listing of its files. Nothing is checked of a Delta version, which never changes, nor
    of an input that is not pinned.

    Parameters
    ----------
    spark : the session.
    source : the block of the configuration.
    label : its name, for messages.
    snapshot : of ``snapshot_of``, when the run started.

    Raises
    ------
    TableError : it changed, or is there no more.
    """
    if not snapshot.startswith((_FILES, _CONTENT)):
        return
    frame = _bundled(source)
    present = _files_of(spark, source, label) if frame is None else _content_of(frame)
    if present != snapshot:
        raise TableError(
            f"{label}: {_name(source)} changed since the run started: it is {present} now and was "
            f"{snapshot}; start a new run"
        )


def change_feed(
    spark: SparkSession, source: Experiment | Population, snapshot_from: str, snapshot_to: str
) -> DataFrame | None:
    """Return the rows of a Delta input that changed from one snapshot to a later one.

    Rows that were inserted or updated, as they became, and rows that were deleted, as they were;
    ``_change_type`` is insert, update_postimage or delete, ``_commit_version`` the version that
    brought it. A row that changed often is there as often.

    Parameters
    ----------
    spark : the session.
    source : the block of the configuration.
    snapshot_from, snapshot_to : of ``snapshot_of``; what the first has is not returned.

    Returns
    -------
    The rows, or None where they cannot be told: no Delta table, one that was created again or lost
    a part of its log, or one whose change feed was off or whose columns changed on the way.
    """
    reference = _delta_reference(source)
    first, last = Commit.parse(snapshot_from), Commit.parse(snapshot_to)
    if reference is None or first is None or last is None or last.version < first.version:
        return None
    unchanged = first.version == last.version
    reader = (
        spark.read.option("readChangeFeed", "true")
        .option("startingVersion", first.version + (not unchanged))
        .option("endingVersion", last.version)
    )
    try:
        if any(not _is_there(spark, reference, pin) for pin in (first, last)):
            return None
        rows = _load(reader, source)
        if unchanged:
            return rows.where(F.lit(False))
        rows = rows.where(F.col("_change_type") != "update_preimage")
        # whether the feed covers all versions shows only when a row is asked for
        rows.select("_commit_version").limit(1).collect()
    except Exception:  # one of Delta's many reasons to have no feed
        return None
    return rows


def input_name(source: Experiment | Population) -> str:
    """Return what the configuration calls the input, without credentials."""
    return redact(str(getattr(source, "bundled", None) or source.table or source.path))


def _name(source: Experiment | Population) -> str:
    name = input_name(source)
    return f"{name} ({source.format})" if source.path is not None else name


def _location(source: Experiment | Population) -> str:
    """Return the path; a relative one is of this process, wherever Spark runs."""
    return resolved(str(source.path))


def _load(
    reader: DataFrameReader, source: Experiment | Population, texts: Collection[str] = ()
) -> DataFrame:
    """Return the table as Spark reads it; Spark's errors as they are, all of them here."""
    if source.table is not None:
        table = reader.table(quote(source.table))
    elif source.format == "csv":
        table = _read_csv(reader, literal(_location(source)), texts)
    elif source.format == "delta":
        table = reader.format("delta").load(_location(source))  # which knows no patterns
    else:
        table = reader.format(source.format).load(literal(_location(source)))
    table.schema  # noqa: B018  # Connect analyses only on use
    return table


def _read_csv(reader: DataFrameReader, path: str, texts: Collection[str]) -> DataFrame:
    """Return the rows of CSV files, of which names lose the blanks around them."""
    found = reader.csv(path, header=True, inferSchema=True)
    schema, plain = found.schema, [name.strip() for name in found.columns]
    if len(plain) == 1 and (signs := set(";\t|") & set(plain[0])):
        raise TableError(f"its columns are separated by {min(signs)!r}, expected commas")
    names = [
        name if plain.count(name) == 1 else written
        for name, written in zip(plain, found.columns, strict=True)
    ]
    for name, field in zip(names, schema, strict=True):
        field.dataType = StringType() if name in texts else field.dataType
    return reader.schema(schema).csv(path, header=True).toDF(*names)


def _pattern_hint(source: Experiment | Population) -> str:
    """Return what to write in place of a pattern."""
    if source.path is None or literal(source.path) == source.path:
        return ""
    return "; signs of patterns stand for themselves: name the folder that holds the files"


def _delta_reference(source: Experiment | Population) -> str | None:
    """Return the SQL name of what may be a Delta table."""
    if source.table is not None:
        return quote(source.table)
    if source.path is not None and source.format == "delta":
        return path_reference(_location(source))
    return None


def _read_version(
    spark: SparkSession, source: Experiment | Population, label: str, pin: Commit
) -> DataFrame:
    """Return a version of a Delta table, which must be of the same table and whole."""
    what = f"{label}: {_name(source)}"
    wanted = f"version {pin}, which the run reads"
    reference = _delta_reference(source)
    try:
        if reference is None:
            raise TableError(f"{what} is no Delta table and has no {wanted}; start a new run")
        latest = commits(spark, reference)[0]
        if latest != pin and not _is_there(spark, reference, pin):
            raise TableError(
                f"{what} no longer has {wanted}: it was created again or its log was cleaned, and "
                f"it is at {latest} now; start a new run"
            )
        table = _load(spark.read.option("versionAsOf", pin.version), source)
        if latest != pin:
            # VACUUM removes only files that the latest version does not have
            old = set(table.inputFiles()) - set(_load(spark.read, source).inputFiles())
            if not all_there(spark, old):
                raise TableError(
                    f"{what} has lost files of {wanted}, to VACUUM or by hand; start a new run"
                )
    except TableError:
        raise
    except Exception as error:
        raise TableError(
            f"{what} cannot be read at {wanted}: {_cause(error)}; start a new run"
        ) from None
    return table


def _is_there(spark: SparkSession, reference: str, pin: Commit) -> bool:
    found = find_commit(spark, reference, pin.version)
    return found is not None and pin.time in ("", found.time)


def _files_of(spark: SparkSession, source: Experiment | Population, label: str) -> str:
    """Return the fingerprint of the files of an input, or that it has none."""
    try:
        facts = _facts(spark, source)
    except Exception as error:
        raise TableError(
            f"{label}: {_name(source)} cannot be read: {_cause(error)}{_pattern_hint(source)}"
        ) from None
    return _FILES + fingerprint(facts) if facts else NOT_PINNED


def _facts(spark: SparkSession, source: Experiment | Population) -> list[str]:
    if source.path is not None and source.format != "delta":
        return files_of(spark, _location(source))
    if source.table is not None:
        spark.catalog.refreshTable(quote(source.table))  # Spark keeps listings of catalog tables
    table = _load(spark.read, source)
    try:
        facts = table_facts(spark, table)
    except Exception:  # a platform may let us read a table and not look at its files
        return []
    if facts and source.table is not None:
        details = spark.sql(f"DESCRIBE TABLE EXTENDED {quote(source.table)}")
        facts += [row["data_type"] for row in details.where("col_name = 'View Text'").collect()]
    return facts


def _bundled(source: Experiment | Population) -> pd.DataFrame | None:
    """Return the data set of a package, None for any other input."""
    name = getattr(source, "bundled", None)
    return None if name is None else _BUNDLED[name]()


def _content_of(frame: pd.DataFrame) -> str:
    """Return the fingerprint of the rows of a data set of a package."""
    rows = pd.util.hash_pandas_object(frame, index=False)
    return _CONTENT + fingerprint([*frame.columns, *rows.astype(str)])


def _cause(error: Exception) -> str:
    return without_kind(first_cause(f"{type(error).__name__}: {error}"))


def _columns_hint(source: Experiment | Population, error: Exception) -> str:
    """Return the columns of local Parquet files whose types Spark does not read; it names none."""
    place = _location(source) if source.path is not None else ""
    if "PARQUET_TYPE_ILLEGAL" not in str(error) or not is_local(place):
        return ""
    files = [Path(place)] if Path(place).is_file() else Path(place).rglob("*.parquet")
    fields: list[pa.Field] = []
    with suppress(OSError, pa.ArrowInvalid):  # another file may be no Parquet
        for file in islice(files, _LOOKED_AT):
            fields += pq.read_schema(file)
    unread = {
        field.name: None
        for field in fields
        if pa.types.is_float16(field.type)
        or (not pa.types.is_duration(field.type) and getattr(field.type, "unit", "") == "ns")
    }
    return f" (columns: {', '.join(unread)})" if unread else ""


def _thornton() -> pd.DataFrame:
    """Return the field experiment of Thornton [1]_.

    4,820 rows: ``got`` (collected the test result), ``tinc`` (incentive, dollars), ``distvct``
    (distance to the centre, km), ``age``, ``villnum``, and a row number as ``unit_id``. The HIV
    status stays out: nobody's offer may depend on it.

    References
    ----------
    .. [1] Thornton (2008), "The Demand for, and Impact of, Learning HIV Status", AER 98(5).
    """
    from causaldata import thornton_hiv

    data = thornton_hiv.load_pandas().data
    columns: pd.DataFrame = data[["villnum", "got", "distvct", "tinc", "age"]].astype("float64")
    # stored as single precision: 0.09456 dollars would read 0.0945599973
    columns[["distvct", "tinc"]] = columns[["distvct", "tinc"]].round(5)
    columns.insert(0, "unit_id", range(len(columns)))
    return columns


_BUNDLED: dict[str, Callable[[], pd.DataFrame]] = {"thornton": _thornton}
