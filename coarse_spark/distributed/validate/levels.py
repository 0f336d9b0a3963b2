"""Levels and partitions of the population that the experiment does not have.

Mostly they are its own, spelt otherwise: 'East ' for 'East', 1 for true, 01 for 1. No model knows
them, so that such units get the treatments of others and nothing fails.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.types import NumericType

from coarse_spark.distributed.frames import (
    ALL,
    ExperimentSetup,
    feature,
    has_weight,
    label,
    usable,
)
from coarse_spark.distributed.validate.values import Findings
from coarse_spark.errors import nearest
from coarse_spark.text import counted, shown

_COMPARED = 100  # characters of a level by which the nearest one is found


def check_levels(
    setup: ExperimentSetup,
    experiment: DataFrame,
    population: DataFrame,
    weight: str | None,
    found: Findings,
    *,
    most: float | None,
) -> None:
    """Compare levels of features and partitions of the two tables, in one pass each.

    Missing values are no levels. Where there are unseen ones, a second pass over the experiment
    finds what they were meant to be.

    Parameters
    ----------
    setup : names the columns, whose types were checked.
    experiment, population : the tables.
    weight : column with the weight of the population's rows; None for weight 1.
    found : to which problems and warnings are added.
    most : largest share of units with an unseen level of a feature, which is a warning; None for
        units that join a population, few of whom may well be new in every way.
    """
    names = [
        name
        for name in setup.features
        if not isinstance(population.schema[name].dataType, NumericType)
    ]
    if not names and not setup.partition_by:
        return
    seen = _levels(setup, experiment, names, usable(setup))
    here = _levels(setup, population, names, has_weight(weight))
    known = seen.select("place", "level", F.lit(True).alias("known"))
    unseen = F.col("known").isNull()
    judged = here.join(known, ["place", "level"], "left")
    rows = judged.groupBy("place").agg(
        F.sum("units").alias("units"),
        F.sum(F.when(unseen, F.col("units"))).alias("unseen"),
        F.max(F.when(unseen, F.struct("units", "level"))).alias("example"),
    )
    counts = {row["place"]: row for row in rows.collect()}
    if not counts:
        return
    last = len(names)  # the partition, which every unit has
    units = counts[last]["units"]
    strange = {place: row for place, row in counts.items() if row["unseen"]}
    if most is None or (last in strange and strange[last]["unseen"] < units):
        strange.pop(last, None)  # new partitions are told once they are served
    meant = _meant(seen, strange)
    # where no usable row has a value, others tell
    for place, row in sorted((place, row) for place, row in strange.items() if place in meant):
        example, (likeliest, frequent) = row["example"]["level"], meant[place]
        example_shown, likeliest_shown = (
            shown(level, private=found.private) for level in (example, likeliest)
        )
        if place == last:
            found.problem(
                f"no partition is one of the experiment's: such as {example_shown} here, "
                f"{likeliest_shown} there; expected the values of experiment.partition_by to be "
                "written alike in both tables"
            )
            continue
        hint = nearest(example, [likeliest]) or f" (the experiment has mostly '{frequent}')"
        share = row["unseen"] / units
        sentence = (
            f"{row['unseen']:,} of {counted(units, 'unit')} ({share:.1%}) have a level of the "
            f"feature '{names[place]}' that no usable row of the experiment has, such as "
            f"'{example_shown}'{'' if found.private else hint}"
        )
        # partitions may well be new: the pooled model serves them
        if most is None or share <= most or names[place] in setup.partition_by:
            found.warning(f"{sentence}; no model knows it")
        else:
            found.problem(
                f"{sentence}, expected at most {most:.1%} (population.max_unseen_share): write "
                "levels alike in both tables, or leave the feature out"
            )


def _levels(setup: ExperimentSetup, table: DataFrame, names: list[str], here: Column) -> DataFrame:
    """One row a level that rows have: place of its feature among the names, level and units.

    Behind the names is the place of the partition.
    """
    values = [feature(table, name) for name in names]
    every = F.array(*values, label(table, setup.partition_by, ALL))
    drawn = table.where(here).select(F.posexplode(every).alias("place", "level"))
    return (
        drawn.where("level IS NOT NULL").groupBy("place", "level").agg(F.count("*").alias("units"))
    )


def _meant(seen: DataFrame, strange: dict[int, Row]) -> dict[int, tuple[str, str]]:
    """Return the seen level nearest to the example of every place, and the most frequent one."""
    if not strange:
        return {}
    examples = F.create_map(
        *(
            part
            for place, row in strange.items()
            for part in (F.lit(place), F.lit(row["example"]["level"]))
        )
    )

    def folded(level: Column) -> Column:
        return F.lower(F.trim(F.substring(level, 1, _COMPARED)))

    distance = F.levenshtein(folded(F.col("level")), folded(examples[F.col("place")]))
    rows = (
        seen.where(F.col("place").isin(list(strange)))
        .groupBy("place")
        .agg(
            F.min(F.struct(distance, -F.col("units"), "level"))["level"].alias("nearest"),
            F.max(F.struct("units", "level"))["level"].alias("frequent"),
        )
    )
    return {row["place"]: (row["nearest"], row["frequent"]) for row in rows.collect()}
