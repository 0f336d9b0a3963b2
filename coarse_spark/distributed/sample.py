"""A sample of the experiment for what one machine decides for all rows.

That is the places of knots, levels, scales and whitening.
"""

from __future__ import annotations

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.treatments import Categorical
from coarse_spark.distributed.frames import ExperimentSetup

_LEAST = 200  # rows that every group gets, as far as it has them
_MOST_GROUPS = 1_000  # rarer strata and treatments beyond so many get no more than their share


def representative_sample(
    units: DataFrame,
    setup: ExperimentSetup,
    rows: int,
    *,
    arms: bool = False,
    total: int | None = None,
) -> pd.DataFrame:
    """Return about ``rows`` experiment units, at most twice as many, in the order of their keys.

    Rare strata and rare treatments (levels; the control of a dimension, or what is not its control)
    get a larger share of their units and these a weight lowered as much, so that weighted means
    remain those of all units (Horvitz & Thompson 1952). A plain sample may miss them, and what a
    model was not prepared for it cannot learn. Whether a unit is in depends on its key alone.

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
    return (
        weighed.select(*units.columns)
        .toPandas()
        .sort_values("key", kind="stable", ignore_index=True)
    )


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
