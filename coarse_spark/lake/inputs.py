"""Reading what a configuration names: a catalog table, files, or a data set of a package."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from coarse_spark.config.models import Experiment, Population
from coarse_spark.errors import TableError
from coarse_spark.lake.tables import Lake, quote
from coarse_spark.text import redact


def snapshot_of(spark, source, label):
    return "-"


def check_unchanged(spark, source, label, snapshot):
    return None


def read_input(
    spark: SparkSession, source: Experiment | Population, label: str, snapshot=None
) -> DataFrame:
    """Return the table that a block of the configuration names.

    Parameters
    ----------
    spark : the session.
    source : the block.
    label : its name, for messages.

    Raises
    ------
    TableError : the table or folder does not exist or cannot be read as the format says.
    """
    bundled = getattr(source, "bundled", None)
    if bundled is not None:
        frame = _BUNDLED[bundled]()
        # missing as null, also where the platform's conversion would keep NaN
        return spark.createDataFrame(frame.astype(object).where(frame.notna(), None))
    name = source.table if source.table is not None else f"{source.path} ({source.format})"
    try:
        if source.table is not None:
            table = spark.table(quote(source.table))
        elif source.format == "csv":
            table = spark.read.csv(str(source.path), header=True, inferSchema=True)
        else:
            table = spark.read.format(source.format).load(str(source.path))
        table.schema  # noqa: B018  # Connect analyses only on use
    except AnalysisException as error:
        cause = str(error).splitlines()[0]
        raise TableError(f"{label}: {name} cannot be read: {cause}") from None
    return table


def input_version(lake: Lake, source: Experiment | Population) -> str:
    """Return the Delta version of an input as text, "-" where it has none."""
    if source.table is not None:
        return lake.delta_version(quote(source.table))
    if source.path is not None and source.format == "delta":
        return lake.delta_version("delta.`" + source.path.replace("`", "``") + "`")
    return "-"


def input_name(source: Experiment | Population) -> str:
    """Return what the configuration calls the input, without credentials."""
    return redact(str(getattr(source, "bundled", None) or source.table or source.path))


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
