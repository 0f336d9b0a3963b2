"""Rules of units on Spark: who is eligible, and what a unit had before, as further coefficients.

With these columns sketches, passes, certificates and assignments need to know nothing of rules (see
``core.menu.problem.rules``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.distributed.frames import column, theta_columns

PREVIOUS = "previous_treatment_id"


def with_rules(
    rows: DataFrame, coefficients: int, eligible: Sequence[str], previous: Sequence[int] = ()
) -> DataFrame:
    """Return rows with the coefficients of rules as theta_{coefficients} …

    Parameters
    ----------
    coefficients : how many columns theta_0 … the rows have.
    eligible : boolean columns, one a rule of eligibility.
    previous : treatments of an earlier menu that a unit pays to leave, by their id in the column
        ``PREVIOUS``.
    """
    without = [F.when(column(name), 0.0).otherwise(1.0) for name in eligible]
    had = [F.when(F.col(PREVIOUS) == number, 1.0).otherwise(0.0) for number in previous]
    names = theta_columns(coefficients + len(without) + len(had))[coefficients:]
    return rows.withColumns(dict(zip(names, [*without, *had], strict=True))) if names else rows


def with_eligibility(
    problem: MenuProblem, rows: DataFrame, rules: Mapping[str, str]
) -> MenuProblem:
    """Return the problem with rules of eligibility, weighed for the units of rows.

    Parameters
    ----------
    rows : theta_0 …, weight, and the boolean columns of the rules.
    rules : column that says who is eligible -> expression that says for what.
    """
    if not rules:
        return problem
    p = problem.coefficients
    largest = [F.max(F.abs(F.col(name))) for name in theta_columns(p)]
    allowed = [F.sum(F.when(column(name), F.col("weight")).otherwise(0.0)) for name in rules]
    total, *found = rows.agg(F.sum("weight"), *largest, *allowed).collect()[0]
    sizes = np.asarray(found, dtype=np.float64)
    without = 1.0 - sizes[p:] / (total or 1.0)
    few = np.where(without > 1e-12, without, 0.0)
    return problem.with_eligibility(list(rules.values()), sizes[:p], few)


def with_previous(rows: DataFrame, assignments: DataFrame) -> DataFrame:
    """Return rows with the treatment that each unit had in an earlier run as ``PREVIOUS``.

    It is null for units that had none.

    Parameters
    ----------
    rows, assignments : unit_id; the latter with treatment_id, one row a unit.
    """
    return rows.join(
        assignments.select("unit_id", F.col("treatment_id").alias(PREVIOUS)), "unit_id", "left"
    )


def changed(before: FloatArray, after: FloatArray, space: TreatmentSpace) -> Column:
    """Return whether treatment_id of a menu differs from ``PREVIOUS``, null where there is none.

    Parameters
    ----------
    before, after : encoded treatments of the earlier menu (l, d) and of the menu (k, d), by id.
    """
    kept = F.lit(False)
    for earlier, treatment in enumerate(before):
        for number in np.flatnonzero(space.same(after, treatment)).tolist():
            kept = kept | ((F.col("treatment_id") == number) & (F.col(PREVIOUS) == earlier))
    return F.when(F.col(PREVIOUS).isNotNull(), ~kept)
