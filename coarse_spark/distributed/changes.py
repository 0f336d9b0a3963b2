"""How a population changed since a run read it, from the table's change feed or two versions."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.distributed.frames import (
    ExperimentSetup,
    column,
    has_weight,
    unit_content,
    unit_id,
)

_KNOWN = "known_unit_id"  # beside the user's columns


@dataclass(frozen=True, eq=False)
class PopulationChanges:
    """What is new, changed and gone of a population.

    Attributes
    ----------
    rows : of units that the run does not have, in the user's columns.
    changed : units that the run has and of which it would read something else now; None where that
        cannot be told.
    deleted : units that the run has and the population has not any more.
    """

    rows: DataFrame
    changed: int | None
    deleted: int


def changes_between(
    known: DataFrame,
    now: DataFrame,
    before: DataFrame | None,
    setup: ExperimentSetup,
    weight: str | None,
) -> PopulationChanges:
    """Return what changed from one version of a population to another, by reading both.

    Parameters
    ----------
    known : unit_id of the units that the run has.
    now, before : the versions. Without an earlier one nobody can tell who changed, and all units
        that are not there now count as deleted.
    setup : names their columns.
    weight : column with the weight; None for weight 1.
    """
    now = now.where(has_weight(weight))

    def contents(table: DataFrame, name: str) -> DataFrame:
        content = unit_content(table, setup, weight).alias(name)
        return table.select(unit_id(setup.unit_id).alias("unit_id"), content)

    found = known.join(contents(now, "now"), "unit_id", "left")
    gone, counts = F.col("now").isNull(), []
    if before is not None:
        earlier = contents(before.where(has_weight(weight)), "before")
        found = found.join(earlier, "unit_id", "left")
        gone = gone & F.col("before").isNotNull()
        counts = [F.count(F.when(F.col("now") != F.col("before"), 1))]
    deleted, *changed = found.agg(F.count(F.when(gone, 1)), *counts).collect()[0]
    others = known.select(F.col("unit_id").alias(_KNOWN))
    rows = now.join(others, unit_id(setup.unit_id) == F.col(_KNOWN), "left_anti")
    return PopulationChanges(rows, changed[0] if changed else None, deleted)


def changes_in_feed(
    known: DataFrame, feed: DataFrame, setup: ExperimentSetup, weight: str | None
) -> PopulationChanges | None:
    """Return what changed in a population by its change feed, reading nothing else of it.

    None where the feed adds a unit more than once: the population then has to be looked at.

    Parameters
    ----------
    known : unit_id of the units that the run has.
    feed : see ``lake.inputs.change_feed``.
    setup : names its columns.
    weight : column with the weight; None for weight 1.
    """
    kind, version = F.col("_change_type"), F.col("_commit_version")
    gone, stays = F.when(kind == "delete", version), F.when(kind != "delete", version)
    # who has no weight any more has left the population
    feed = feed.withColumn("_change_type", F.when(has_weight(weight), kind).otherwise("delete"))
    read = [*setup.unit_id, *setup.partition_by, *setup.features, *setup.eligibility]
    names = dict.fromkeys(read if weight is None else [*read, weight])
    events = feed.select(
        unit_id(setup.unit_id).alias("unit_id"),
        kind,
        version,
        unit_content(feed, setup, weight).alias("content"),
        F.struct(*(column(name) for name in names)).alias("row"),
    )
    units = events.groupBy("unit_id").agg(
        F.sum(F.when(kind == "insert", 1).when(kind == "delete", -1).otherwise(0)).alias("more"),
        F.max(kind == "update_postimage").alias("updated"),
        # of a commit that deletes and inserts a unit, the inserted row stays
        F.coalesce(F.max(stays) >= F.coalesce(F.max(gone), F.lit(-1)), F.lit(False)).alias("there"),
        F.min_by("content", gone).alias("was"),
        F.max_by("content", stays).alias("became"),
        F.max_by("row", stays).alias("row"),
    )
    had = known.select("unit_id", F.lit(True).alias("had"))
    judged = units.join(had, "unit_id", "left").fillna({"had": False})
    has, there = F.col("had"), F.col("there")
    # whoever was deleted and inserted again, as by an overwrite, need not have changed
    changed = F.col("updated") | (F.col("was") != F.col("became"))
    found = judged.agg(
        F.count(F.when(~has & (F.col("more") > 1), 1)),
        F.count(F.when(has & there & changed, 1)),
        F.count(F.when(has & ~there, 1)),
    ).collect()[0]
    if found[0]:
        return None
    return PopulationChanges(judged.where(~has & there).select("row.*"), found[1], found[2])
