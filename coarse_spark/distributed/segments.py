"""Descriptions of the segments: native aggregates over a hash sample of the units, and a rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from coarse_spark.core.policy_tree.rule import AssignmentRule, told_of
from coarse_spark.core.segments import distinguishing_features, segment_rules
from coarse_spark.distributed.at_once import at_once
from coarse_spark.distributed.frames import (
    feature_columns,
    feature_frame,
    hash_limit,
    hash_sample,
    unit_key,
)
from coarse_spark.distributed.materialize import materialized

# described by their features: to bring those of ten million units together with the assignments
# costs several times as much as to assign them, and tells no more
_DESCRIBED_UNITS = 1_000_000
_RULE_UNITS = 20_000
_MAX_LEVELS = 30  # of a text feature; rarer levels are not described


def describe_segments(
    assignments: DataFrame,
    units: DataFrame,
    names: Sequence[str],
    *,
    seed: int,
    rule: AssignmentRule | None = None,
) -> pd.DataFrame:
    """Return one row a treatment: treatment_id, size, feature_means, distinguishing, rule.

    Sizes are of all units; of more than a million units, about a million tell the rest, the ones
    with the smallest keys.

    Parameters
    ----------
    assignments : unit_id, treatment_id.
    units : rows in the shape of ``distributed.frames.population_units``.
    names : of the features, as the user calls them.
    seed : of the units' keys.
    rule : by which the units are assigned; otherwise rules are found that nearly tell the segments.
    """
    sizes = (
        assignments.groupBy("treatment_id")
        .agg(F.count("*").alias("size"))
        .toPandas()
        .set_index("treatment_id")["size"]
        .sort_index()
    )
    segments = [int(number) for number in sizes.index]
    limit = F.lit(hash_limit(_DESCRIBED_UNITS, int(sizes.sum())))
    aliases = feature_columns(len(names))
    texts = [
        i for i, alias in enumerate(aliases) if isinstance(units.schema[alias].dataType, StringType)
    ]
    numbers = [i for i in range(len(names)) if i not in texts]
    some = units.where(F.col("key") <= limit).select("unit_id", "key", *aliases)
    # the same limit on both sides, so that no more units than these have to meet
    given = assignments.where(unit_key(F.col("unit_id"), seed) <= limit)
    joined = some.join(given.select("unit_id", "treatment_id"), "unit_id")
    # three passes: joining two tables costs more than all of them
    with materialized(joined.drop("unit_id")) as described:
        (means, overall, spread, held, counts), (found, sample) = at_once(
            units.sparkSession,
            lambda: _numeric(described, [names[i] for i in numbers], [aliases[i] for i in numbers]),
            lambda: (
                _levels(described, [names[i] for i in texts], [aliases[i] for i in texts]),
                hash_sample(described, _RULE_UNITS),
            ),
        )
    levels = list(found.columns)
    if levels:
        found = found.reindex(counts.index, fill_value=0)
        shares = found.sum() / counts.sum()
        means = means.join(found.div(counts, axis=0))
        held = held.join(pd.DataFrame(dict.fromkeys(levels, counts)))
        overall = pd.concat([overall, shares])
        spread = pd.concat([spread, (shares * (1 - shares)) ** 0.5])
    means = means.reindex(sizes.index)
    if rule is not None:
        rules = told_of(rule, segments)
    elif not names:
        rules = [""] * len(segments)
    else:
        own = sample["treatment_id"].to_numpy()
        rules = segment_rules(feature_frame(sample, names), own, np.ones(len(sample)), segments)
    return pd.DataFrame(
        {
            "treatment_id": segments,
            "size": sizes.to_numpy(np.int64),
            "feature_means": [means.loc[segment].dropna().to_dict() for segment in segments],
            "distinguishing": distinguishing_features(
                means, overall, spread, held.reindex(sizes.index), levels
            ),
            "rule": rules,
        }
    )


def _numeric(
    joined: DataFrame, names: list[str], aliases: list[str]
) -> tuple[pd.DataFrame, pd.Series, pd.Series, pd.DataFrame, pd.Series]:
    """Means of number features by segment, their mean and standard deviation over all these units.

    Last come the numbers of units that hold them, and of all units, by segment.
    """
    sums = [F.sum(alias).alias(f"sum_{i}") for i, alias in enumerate(aliases)]
    squares = [
        F.sum(F.col(alias) * F.col(alias)).alias(f"square_{i}") for i, alias in enumerate(aliases)
    ]
    held = [F.count(alias).alias(f"held_{i}") for i, alias in enumerate(aliases)]
    rows = (
        joined.groupBy("treatment_id")
        .agg(F.count("*").alias("units"), *sums, *squares, *held)
        .toPandas()
    )
    rows = rows.set_index("treatment_id").sort_index()

    def part(prefix: str) -> pd.DataFrame:
        columns = [f"{prefix}_{i}" for i in range(len(names))]
        return rows[columns].astype(np.float64).set_axis(names, axis=1)

    total, square, count = part("sum"), part("square"), part("held")
    held_all = count.sum().where(count.sum() > 0)
    overall = total.sum() / held_all
    variance = (square.sum() / held_all - overall**2).clip(lower=0)
    return (
        total / count.where(count > 0),
        overall,
        np.sqrt(variance),
        count,
        rows["units"].astype(np.int64),
    )


def _levels(joined: DataFrame, names: list[str], aliases: list[str]) -> pd.DataFrame:
    """Numbers of units with the most frequent levels of text features, by segment.

    One job counts them all.
    """
    if not names:
        return pd.DataFrame()
    pairs = [
        F.struct(F.lit(name).alias("feature"), F.col(alias).alias("level"))
        for name, alias in zip(names, aliases, strict=True)
    ]
    counts = (
        joined.select("treatment_id", F.explode(F.array(*pairs)).alias("pair"))
        .groupBy("treatment_id", "pair.feature", "pair.level")
        .count()
        .where(F.col("level").isNotNull())
    )
    most, level = _MAX_LEVELS * len(names), ["feature", "level"]
    # a feature may have as many levels as there are units: only the frequent ones leave Spark
    frequent = (
        counts.groupBy(*level)
        .agg(F.sum("count").alias("units"))
        .orderBy(F.desc("units"), F.concat_ws("=", *level))
        .limit(most)
    )
    rows = counts.join(F.broadcast(frequent.select(*level)), level, "left_semi").toPandas()
    rows["name"] = rows["feature"] + "=" + rows["level"]
    table = rows.pivot_table(
        index="treatment_id", columns="name", values="count", fill_value=0, aggfunc="sum"
    )
    return table[sorted(table.columns)]
