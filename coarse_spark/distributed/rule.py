"""Who gets what by the rule of a menu on Spark.

Units are in the shape of ``distributed.frames``, and it is the very SQL that is published, on the
internal names of their columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.policy_tree.rule import AssignmentRule
from coarse_spark.core.policy_tree.sql import to_sql
from coarse_spark.distributed.frames import eligibility_columns, feature_columns

RULED = "ruled"  # the column of what rules give, numbers of treatments


def ruled_treatment(
    rule: AssignmentRule, features: Sequence[str], eligible: Sequence[str]
) -> Column:
    """Return the treatment of units by a rule, null where they may get none.

    Parameters
    ----------
    rule : the rule.
    features, eligible : the user's names, in the order of the units' columns.
    """
    text = to_sql(
        rule,
        "spark",
        features=dict(zip(features, feature_columns(len(features)), strict=True)),
        eligible=dict(zip(eligible, eligibility_columns(len(eligible)), strict=True)),
    )
    return F.expr(text).cast("int")


def with_fold_rules(
    held: DataFrame,
    units: DataFrame,
    rules: Mapping[int, AssignmentRule],
    features: Sequence[str],
    eligible: Sequence[str],
) -> DataFrame:
    """Return held-out units with what the rules of their folds give them, as ``RULED``.

    It is −1 where that is nothing.

    Parameters
    ----------
    held : one row a unit, with unit_id.
    units : the same units: unit_id, fold, feature_0 …, eligible_0 ….
    rules : by fold, of menus of one size.
    features, eligible : as in ``ruled_treatment``.
    """
    by_fold = [
        F.when(F.col("fold") == fold, ruled_treatment(rule, features, eligible))
        for fold, rule in rules.items()
    ]
    given = F.coalesce(*by_fold, F.lit(-1))
    return held.join(units.select("unit_id", given.alias(RULED)), "unit_id")
