"""What assignments hold, one pass each: enough to refuse what must not be published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu.units import SegmentSums
from coarse_spark.distributed.frames import column, theta_columns

_PIECES = ("a", "b")  # purposes of two independent hashes
_HALF = 2**32
_LARGEST = 1e300  # beyond it, and for NaN and null, a number is none
_MOST_GROUPS = 1_000


@dataclass(frozen=True)
class UnitSet:
    """A set of units by number and by sums of hashes of their ids.

    Two sets of equal number and sums are the same but for a chance of 2⁻¹²⁸: what would be a join
    of all units is one read of one column each. Where one of them has no unit twice, neither has
    the other.
    """

    units: int
    sums: tuple[int, ...]


def unit_set(rows: DataFrame) -> UnitSet:
    """Return the units of a table with a column unit_id."""
    hashes = [F.xxhash64(F.lit(piece), column("unit_id").cast("string")) for piece in _PIECES]
    # halves of 32 bits: sums of whole hashes would overflow
    halves = [
        part
        for hashed in hashes
        for part in (F.pmod(hashed, F.lit(_HALF)), F.shiftrightunsigned(hashed, 32))
    ]
    row = rows.agg(F.count("*"), *(F.coalesce(F.sum(half), F.lit(0)) for half in halves)).collect()[
        0
    ]
    return UnitSet(int(row[0]), tuple(int(value) for value in row[1:]))


def assigned_treatments(
    assignments: DataFrame, names: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    """Return one row a combination of treatment_id and treatment: ``units``, and ``unfit``.

    These are the units of which one of the columns ``numbers`` is null, NaN or infinite. No more
    than 1,000 rows come back.

    Parameters
    ----------
    assignments : rows of the table.
    names : of the treatment dimensions.
    numbers : columns with numbers that every unit must have.
    """
    fit = F.lit(True)
    for name in numbers:
        value = column(name)
        fit = fit & F.coalesce(value.between(-_LARGEST, _LARGEST), F.lit(False))
    groups = assignments.groupBy("treatment_id", *(column(name) for name in names))
    counts = [F.count("*").alias("units"), F.count(F.when(~fit, 1)).alias("unfit")]
    return groups.agg(*counts).limit(_MOST_GROUPS).toPandas()


def segment_sums(
    assignments: DataFrame, responses: DataFrame, k: int, coefficients: int
) -> SegmentSums:
    """Return the sums of the segments, by treatment_id, of units as they were assigned.

    Parameters
    ----------
    assignments : unit_id, treatment_id.
    responses : unit_id, weight, theta_0 ….
    k : number of treatments.
    coefficients : p.
    """
    names = theta_columns(coefficients)
    joined = responses.select("unit_id", "weight", *names).join(
        assignments.select("unit_id", "treatment_id"), "unit_id"
    )
    sums = [F.sum(F.col("weight") * F.col(name)).alias(name) for name in names]
    rows = joined.groupBy("treatment_id").agg(
        F.sum("weight").alias("weight"), F.count("*").alias("units"), *sums
    )
    found = rows.toPandas().set_index("treatment_id").reindex(np.arange(k), fill_value=0)
    return SegmentSums(
        found["weight"].to_numpy(np.float64),
        found[names].to_numpy(np.float64),
        found["units"].to_numpy(np.intp),
    )
