"""Samples of units for what one machine decides for all of them.

That is the places of knots, levels, scales and whitening, and policies that look at features.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.learners.folds import random_order
from coarse_spark.core.treatments import Categorical
from coarse_spark.distributed.frames import ExperimentSetup, hash_limit

_LEAST = 200  # rows that every group gets, as far as it has them
_SCORED = 20_000  # what earns most for a segment of all units is hardly something else
_MOST_GROUPS = 1_000  # rarer strata and treatments beyond so many get no more than their share


def representative_sample(
    units: DataFrame,
    setup: ExperimentSetup,
    rows: int,
    *,
    arms: bool = False,
    total: int | None = None,
) -> pd.DataFrame:
    """Return about ``rows`` experiment units, at most twice as many, in random order.

    Rare strata and rare treatments (levels; the control of a dimension, or what is not its control)
    get a larger share of their units and these a weight lowered as much, so that weighted means
    remain those of all units (Horvitz & Thompson 1952). A plain sample may miss them, and what a
    model was not prepared for it cannot learn. Whether a unit is in, and where, depends on its key
    alone.

    Parameters
    ----------
    units : usable experiment rows in the shape of ``distributed.frames.experiment_units``.
    setup : of the experiment.
    rows : number of units wanted; where there are fewer, all are returned.
    arms : whether a basis has one column a candidate, so that every candidate may be rare.
    total : number of units, where that is known already.
    """
    total = units.count() if total is None else total
    tagged = units.withColumn("cell", _cell(setup, arms=arms))
    plain = F.lit(min(1.0, rows / max(total, 1)))
    rate = plain
    if total > rows:
        for name in ("cell", *(["stratum"] if setup.strata else [])):
            groups = (
                tagged.groupBy(name)
                .agg(F.count("*").alias("n"))
                .orderBy(F.desc("n"), name)
                .limit(_MOST_GROUPS)
                .collect()
            )
            least = min(_LEAST, rows // (2 * len(groups)))
            rare = [
                (group[name], min(1.0, least / group["n"]))
                for group in groups
                if group["n"] * rows < least * total
            ]
            if rare:
                rates = units.sparkSession.createDataFrame(
                    rare, f"{name} string, {name}_rate double"
                )
                tagged = tagged.join(F.broadcast(rates), name, "left")
                rate = F.greatest(rate, F.col(f"{name}_rate"))
    # 53 bits of the key make an even number from 0 to 1
    drawn = tagged.where(F.shiftrightunsigned("key", 11) / F.lit(2.0**53) < rate)
    weighed = drawn.withColumn("weight", F.col("weight") * plain / rate)
    return in_random_order(weighed.select(*units.columns).toPandas(), setup.seed)


def in_random_order(sample: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of a sample so that the first ones are like all, the same in any order.

    The largest keys are all of rare treatments and strata, as the key decides who is in.

    Parameters
    ----------
    sample : rows with their key.
    seed : of the order.
    """
    order = random_order(sample["key"].to_numpy(), seed)
    return sample.iloc[order].reset_index(drop=True)


def scored_sample(
    units: DataFrame, scored: DataFrame, columns: Sequence[str], count: int
) -> pd.DataFrame:
    """Return a hash sample of scored units with their features, in the order of their keys.

    Parameters
    ----------
    units : unit_id, key, feature_0 ….
    scored : unit_id and ``columns``; a unit may have several rows.
    columns : to return besides the features.
    count : units there are, of which about 20,000 are taken.
    """
    names = [name for name in units.columns if name.startswith("feature_")]
    few = units.where(F.col("key") <= hash_limit(_SCORED, count))
    few = few.select("unit_id", F.col("key").alias("sample_key"), *names)
    joined = scored.select("unit_id", *columns).join(F.broadcast(few), "unit_id")
    rows = joined.drop("unit_id").toPandas()
    return rows.sort_values("sample_key", kind="stable", ignore_index=True)


def _cell(setup: ExperimentSetup, *, arms: bool) -> Column:
    """A text for what a basis may have a column of.

    That is every level and a jump off the control; with arms every candidate.
    """
    space, parts = setup.space, []
    for dimension, name, control in zip(
        space.dimensions, setup.treatments, space.control.tolist(), strict=True
    ):
        value = F.col(name)
        told_apart = arms or isinstance(dimension, Categorical)
        parts.append((value if told_apart else value == F.lit(control)).cast("string"))
    return F.concat_ws("/", *parts)
