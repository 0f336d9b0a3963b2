"""Rules of a menu on Spark rows: who is eligible, and what a unit had before, as coefficients behind those of the basis.

With these columns sketches, Lloyd passes, certificates and assignments need to know nothing of rules (see ``core.menu.rules``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.bounded import BoundedMenu
from coarse_spark.core.menu.feasible import eligible_treatments, unmet_limits
from coarse_spark.core.menu.lloyd import Refined, assign
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rules import barred_units
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.choose import UNIFORM
from coarse_spark.distributed.frames import column, matrix, theta_columns
from coarse_spark.errors import InvalidInputError

PREVIOUS = "previous_treatment_id"


@dataclass(frozen=True)
class _Barred(Additive):
    """How many units may get none of the treatments of a menu."""

    units: int


def with_rules(
    rows: DataFrame, coefficients: int, eligible: Sequence[str], previous: Sequence[int] = ()
) -> DataFrame:
    """Return rows with the coefficients of rules as theta_{coefficients} …

    Parameters
    ----------
    coefficients : how many columns theta_0 … the rows have. eligible : boolean columns, one a rule of eligibility.
    previous : treatments of an earlier menu that a unit pays to leave, by their id in the column ``PREVIOUS``.
    """
    barred = [F.when(column(name), 0.0).otherwise(1.0) for name in eligible]
    had = [F.when(F.col(PREVIOUS) == number, 1.0).otherwise(0.0) for number in previous]
    names = theta_columns(coefficients + len(barred) + len(had))[coefficients:]
    return rows.withColumns(dict(zip(names, [*barred, *had], strict=True))) if names else rows


def restricted(
    problem: MenuProblem, rows: DataFrame, eligible: Sequence[str], expressions: Sequence[str]
) -> MenuProblem:
    """Return the problem with rules of eligibility, weighed for the units of ``rows``: theta_0 …, weight, the columns ``eligible``.

    Parameters
    ----------
    eligible, expressions : for every rule who is eligible, and for what.
    """
    if not eligible:
        return problem
    largest = [F.max(F.abs(F.col(name))) for name in theta_columns(problem.coefficients)]
    allowed = [F.sum(F.when(column(name), F.col("weight")).otherwise(0.0)) for name in eligible]
    total, *found = rows.agg(F.sum("weight"), *largest, *allowed).collect()[0]
    sizes = np.asarray(found, dtype=np.float64)
    barred = 1.0 - sizes[problem.coefficients :] / total
    return problem.restricted(
        expressions, sizes[: problem.coefficients], np.where(barred > 1e-12, barred, 0.0)
    )


def with_previous(rows: DataFrame, assignments: DataFrame) -> DataFrame:
    """Return rows with the treatment that each unit had in an earlier run as ``PREVIOUS``, null for units that had none.

    Parameters
    ----------
    rows, assignments : unit_id; the latter with treatment_id, one row a unit.
    """
    return rows.join(
        assignments.select("unit_id", F.col("treatment_id").alias(PREVIOUS)), "unit_id", "left"
    )


def changed(before: FloatArray, after: FloatArray, space: TreatmentSpace) -> Column:
    """Return whether treatment_id of a menu differs from ``PREVIOUS`` of an earlier one, null where there is none.

    Parameters
    ----------
    before, after : encoded treatments of the earlier menu (l, d) and of the menu (k, d), by id. Equal up to a billionth of every
        dimension's range is the same treatment.
    """
    widths = np.maximum(space.bounds[:, 1] - space.bounds[:, 0], 1e-300)
    same = (np.abs(after[:, None, :] - before[None, :, :]) <= 1e-9 * widths).all(axis=2)
    kept = F.lit(False)
    for number, earlier in np.argwhere(same).tolist():
        kept = kept | ((F.col("treatment_id") == number) & (F.col(PREVIOUS) == earlier))
    return F.when(F.col(PREVIOUS).isNotNull(), ~kept)


def require_eligible(
    rows: DataFrame,
    problem: MenuProblem,
    columns: Sequence[str],
    refined: Refined,
    bounded: Mapping[int, BoundedMenu],
) -> None:
    """Raise where a menu has nothing for some units, or not enough within its limits.

    Parameters
    ----------
    rows : weight, theta_0 … of all units. problem : with the rules of eligibility of ``columns`` first among its rules.
    refined : menus with the segment sums of these units, which tell without another pass whether all is well.
    bounded : the same menus with their limits.

    Raises
    ------
    InvalidInputError : share limits that eligibility does not allow to keep, with the nearest that it does; or units that may get
        none of the treatments of a menu, counted for every size.
    """
    rules = slice(problem.basis_size, problem.basis_size + len(columns))
    broken = {
        k: menu
        for k, menu in refined.menus.items()
        if ((menu.psi[:, rules] < 0) & (refined.sums[k].theta[:, rules] > 0)).any()
    }
    if not broken:
        return
    names = theta_columns(problem.coefficients)
    told = {
        k: _unmet(rows, problem, names[rules], bounded[k]) for k in broken if not bounded[k].free
    }
    unmet = [f"menu of {k}: {why}" for k, why in told.items() if why is not None]
    if unmet:
        raise InvalidInputError(f"menu.eligibility ({', '.join(columns)}): {'; '.join(unmet)}")

    def record(batch: pd.DataFrame) -> dict[str, _Barred]:
        theta = matrix(batch, names)
        taken = {k: menu.psi[assign(theta, menu)] for k, menu in broken.items()}
        return {
            str(k): _Barred(int(barred_units(theta, psi, problem.rules).sum()))
            for k, psi in taken.items()
        }

    flat = add_up(rows.select(*names), record)
    counts = {k: _Barred.of_flat(flat[str(k)]).units for k in broken}
    names_of = {
        k: "the best single treatment" if k == UNIFORM else f"the menu of {k}"
        for k in sorted(broken)
    }
    found = ", ".join(f"{counts[k]} on {name}" for k, name in names_of.items())
    raise InvalidInputError(
        f"menu.eligibility ({', '.join(columns)}): units that may get none of the treatments: {found}; leave small sizes out of "
        "menu.sizes, or add a treatment that everyone may get to menu.always_offer"
    )


def _unmet(
    rows: DataFrame, problem: MenuProblem, names: Sequence[str], bounded: BoundedMenu
) -> str | None:
    """Return which share limits of a menu the rules of eligibility ``names`` do not allow to keep."""
    groups = rows.groupBy(*names).agg(F.sum("weight").alias("weight")).toPandas()
    theta = np.zeros((len(groups), problem.coefficients))
    theta[:, problem.basis_size : problem.basis_size + len(names)] = matrix(groups, names)
    allowed = eligible_treatments(theta, bounded.menu.psi, problem.rules)
    described = [problem.space.describe(row) for row in bounded.menu.treatments]
    return unmet_limits(
        allowed, groups["weight"].to_numpy(np.float64), bounded.lower, bounded.upper, described
    )
