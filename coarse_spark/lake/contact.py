"""First contact with the output: what stands in the way of it, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from coarse_spark.causes import first_cause, without_kind
from coarse_spark.compatibility import is_conflict, is_of_spark
from coarse_spark.errors import TableError, nearest
from coarse_spark.lake.tables import Lake, quote

_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_.]+)\] ([^\n]+)")  # of an error of Spark or Delta

_NEWER = "was written by a newer Delta Lake, which this one cannot {verb}; use its version or later"
_DAMAGED = "has a damaged log (_delta_log); restore it, or use another output"
# the first that an error names, the telling before those that wrap them
_SENTENCES = {
    "DELTA_CANNOT_CREATE_LOG_PATH": "cannot be written; check the rights to it, and that nothing "
    "else is in its place",
    "DELTA_UNSUPPORTED_FEATURES_FOR_READ": _NEWER.format(verb="read"),
    "DELTA_UNSUPPORTED_FEATURES_FOR_WRITE": _NEWER.format(verb="write"),
    "DELTA_INVALID_PROTOCOL_VERSION": _NEWER.format(verb="read"),
    "DELTA_TRUNCATED_TRANSACTION_LOG": _DAMAGED,
    "DELTA_STATE_RECOVER_ERROR": _DAMAGED,
    "DELTA_VERSIONS_NOT_CONTIGUOUS": _DAMAGED,
    "DELTA_FEATURES_PROTOCOL_METADATA_MISMATCH": _DAMAGED,
    "FAILED_READ_FILE": _DAMAGED,
    "TASK_WRITE_FAILED": "cannot be written; check the rights to it and the space that is left",
}
# Derby's code for a database that another process has open, and all that Hive tells of that
_METASTORE = ("XSDB6", "Unable to instantiate org.apache.hadoop.hive.ql.metadata")


@contextmanager
def first_contact(lake: Lake, table: str | None = None) -> Iterator[None]:
    """Turn what Spark, Delta or the storage says of an output into one sentence.

    Parameters
    ----------
    lake : the output.
    table : the one at hand; default the output as a whole.

    Raises
    ------
    TableError : the output or the table is missing, damaged, newer or cannot be written.
    """
    place = f"the output {lake.path or lake.schema}" if table is None else lake.reference(table)
    try:
        yield
    except Exception as error:
        if is_conflict(error) or not is_of_spark(error):
            raise
        raise TableError(f"{place} {_told(str(error))}") from error


def require_schema(lake: Lake) -> None:
    """Check that the catalog has the output's schema.

    Raises
    ------
    TableError : it does not; the message names those that there are.
    """
    if lake.schema is None or lake.spark.catalog.databaseExists(quote(lake.schema)):
        return
    catalog, _, name = lake.schema.rpartition(".")
    # runtimes call the columns of these statements differently
    catalogs = [row[0] for row in lake.spark.sql("SHOW CATALOGS").collect()]
    if catalog and catalog not in catalogs:
        raise TableError(
            f"output: there is no catalog '{catalog}'{nearest(catalog, catalogs)}; "
            f"catalogs: {', '.join(catalogs)}"
        )
    rows = lake.spark.sql("SHOW SCHEMAS" + (f" IN {quote(catalog)}" if catalog else ""))
    names = sorted(row[0] for row in rows.collect())
    raise TableError(
        f"output: there is no schema '{lake.schema}'{nearest(name, names)}; create it, or use one "
        f"of {', '.join(names)}"
    )


def _told(message: str) -> str:
    if any(sign in message for sign in _METASTORE):
        return (
            "is in a metastore that cannot be opened; a local one is open to one process at a "
            "time: wait until the other ends, or use output.path"
        )
    found = {match[1]: match[2] for match in _CONDITION.finditer(message)}
    for condition, sentence in _SENTENCES.items():
        if any(name == condition or name.startswith(f"{condition}.") for name in found):
            return sentence
    told = next(iter(found.values()), None) or without_kind(first_cause(message))
    return f"cannot be used: {told}"
