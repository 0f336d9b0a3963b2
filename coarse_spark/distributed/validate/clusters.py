"""Clusters of an experiment: enough of them to judge by, and columns that look like some.

Units of one cluster are not independent. Where treatments were given to whole clusters, such as
villages or stores, and no cluster is declared, standard errors are too small by far.
"""

from __future__ import annotations

from collections import Counter
from math import sqrt

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, DoubleType, FloatType, NumericType, StringType

from coarse_spark.distributed.frames import (
    ALL,
    ExperimentSetup,
    cluster_hash,
    column,
    fold_column,
    hash_limit,
    label,
    unit_hash,
    unit_id,
    usable,
)
from coarse_spark.distributed.validate.values import Findings
from coarse_spark.text import counted

_FEW = 30  # with fewer clusters, what they differ by is hardly known
_MOST_COLUMNS = 100
_ROWS = 20_000  # about so many rows of every column are looked at, twice as many at most
_LEAST_STRATUM = 30  # rows that tell what chance is
_LEAST_GROUPS = 10  # of two units or more
_ENOUGH_GROUPS = 30  # whatever the number of treatments; else two groups a treatment
_AGREEMENT = 0.5  # share of the way from chance to all units of a group treated alike
_EVIDENCE = 4.0  # standard errors of it under chance


def count_clusters(setup: ExperimentSetup, table: DataFrame, found: Findings) -> int:
    """Return the number of clusters with usable rows; too few to cut into folds are a problem."""
    hashed = table.where(usable(setup)).select(
        fold_column(table, setup).alias("fold"),
        cluster_hash(table, setup, setup.seed).alias("cluster"),
    )
    counts = hashed.groupBy("fold").agg(F.count_distinct("cluster").alias("n")).collect()
    clusters = sum(int(row["n"]) for row in counts)
    those = f"the usable rows are of {counted(clusters, 'cluster')} of '{setup.cluster}'"
    if clusters < setup.folds:
        found.problem(f"{those}, which cannot be cut into response.folds = {setup.folds} folds")
    elif len(counts) < setup.least_folds:
        found.problem(
            f"{those}, which a hash puts into {len(counts)} of response.folds = {setup.folds} "
            f"folds, expected clusters in at least {setup.least_folds}: use another menu.seed"
        )
    elif clusters < _FEW:
        found.warning(
            f"{those}, and so few hardly show what clusters differ by: standard errors are rough, "
            f"intervals take Student's t with at most {clusters - 1} degrees of freedom"
        )
    return clusters


def warn_of_narrow_partitions(
    setup: ExperimentSetup, table: DataFrame, least: int, found: Findings
) -> int:
    """Return how many partitions of enough usable rows have them in too few folds, and warn."""
    keys = [column(name).alias(f"k{i}") for i, name in enumerate(setup.partition_by)]
    units = table.where(usable(setup)).select(*keys, fold_column(table, setup).alias("fold"))
    sizes = units.groupBy(*(f"k{i}" for i in range(len(keys)))).agg(
        F.count(F.lit(1)).alias("rows"), F.count_distinct("fold").alias("folds")
    )
    few = (F.col("rows") >= least) & (F.col("folds") < setup.least_folds)
    row = sizes.agg(F.count(F.when(few, F.lit(1))), F.count(F.lit(1))).first()
    narrow, partitions = (0, 0) if row is None else (int(row[0]), int(row[1]))
    if narrow:
        found.warning(
            f"{narrow} of {partitions} partitions have rows in fewer than {setup.least_folds} of "
            f"response.folds = {setup.folds} folds, which no cluster crosses; the pooled model "
            "serves them"
        )
    return narrow


def warn_of_shared_treatments(
    setup: ExperimentSetup, table: DataFrame, rows: int, found: Findings
) -> None:
    """Warn where units that share a value of a column got the same treatment far above chance.

    Looked at are columns of texts, whole numbers, decimals and dates, the first 100, but the unit
    id, outcome, weight and treatments; of a learned design, which may go by what is declared, only
    undeclared ones. Fractions count as missing. A column counts as a cluster if at least ten of its
    values have two units or more, if it has two values a treatment (thirty are enough), so that it
    is no name of the treatment, and if a unit's treatment is that of another unit of its value at
    least half the way from chance to always, by more than four standard errors. Chance is the share
    of pairs treated alike in all rows, of a stratified design in every stratum of thirty or more.

    Parameters
    ----------
    setup : of the experiment, without a declared cluster.
    table : the experiment.
    rows : number of its usable rows; of more than 20,000 a column is judged on whole values and on
        units that a hash draws.
    found : to which the warning is added.
    """
    names = _candidates(setup, table)
    if not names:
        return
    stratum = label(table, setup.strata, ALL) if setup.design == "stratified" else F.lit(ALL)
    units = table.where(usable(setup)).select(
        stratum.alias("stratum"),
        F.xxhash64(*(column(name) for name in setup.space.names)).alias("treatment"),
        unit_hash(unit_id(setup.unit_id), setup.seed, "pairs").alias("key"),
        F.array(*(_value(table, name) for name in names)).alias("values"),
    )
    limit = hash_limit(_ROWS, rows)
    sample = units.where(F.col("key") <= limit)
    drawn = units.select("stratum", "treatment", "key", F.posexplode("values")).where(
        F.col("col").isNotNull() & ((F.col("col") <= limit) | (F.col("key") <= limit))
    )
    n = F.col("n").cast("double")
    groups = (
        drawn.groupBy("pos", "stratum", "col", "treatment")
        .agg(F.count(F.lit(1)).alias("n"))
        .groupBy("pos", "stratum", "col")
        .agg(F.sum(n).alias("m"), F.sum(n * (n - 1)).alias("same"))
        .where(F.col("m") > 1)
        .join(F.broadcast(_chance(sample)), "stratum")
    )
    m, two, three = F.col("m"), F.col("two"), F.col("three")
    # of same / (m (m - 1)), the share of pairs treated alike: pairs may share a unit
    variance = (2 * two * (1 - two) + 4 * (m - 2) * (three - two * two)) / (m * (m - 1))
    counts = groups.groupBy("pos").agg(
        F.count(F.lit(1)).alias("groups"),
        F.sum(m).alias("units"),
        F.sum(F.col("same") / (m - 1)).alias("alike"),
        F.sum(m * two).alias("expected"),
        F.sum(m * m * variance).alias("variance"),
    )
    shared = [row for row in counts.collect() if row["groups"] >= _LEAST_GROUPS and _together(row)]
    if any(row["groups"] < _ENOUGH_GROUPS for row in shared):
        treatments = sample.agg(F.approx_count_distinct("treatment")).collect()[0][0]
        shared = [row for row in shared if row["groups"] >= min(2 * treatments, _ENOUGH_GROUPS)]
    if shared:
        # of columns within one another the coarsest is what treatments were given to
        shared.sort(key=lambda row: (-round(_agreement(row), 1), row["groups"], row["pos"]))
        first, *others = shared
        more = ", ".join(f"'{names[row['pos']]}'" for row in others)
        found.warning(
            f"of two units with the same '{names[first['pos']]}' "
            f"{first['alike'] / first['units']:.0%} got the same treatment, "
            f"{first['expected'] / first['units']:.0%} would by chance"
            f"{f' (likewise with {more})' if more else ''}; if treatments were given to such "
            "units together, name the column as experiment.cluster, or standard errors are too "
            "small"
        )


def _candidates(setup: ExperimentSetup, table: DataFrame) -> list[str]:
    """Names of the columns that may be clusters, declared ones first."""
    declared = {*setup.features, *setup.partition_by, *setup.strata}
    taken = {*setup.outcomes, setup.weight, *setup.space.names}
    if len(setup.unit_id) == 1:
        taken |= set(setup.unit_id)
    if setup.design == "learned":
        taken |= declared
    kinds = (StringType, NumericType, DateType)
    folded = Counter(name.lower() for name in table.columns)
    names = [
        field.name
        for field in table.schema.fields
        if isinstance(field.dataType, kinds)
        and field.name not in taken
        and folded[field.name.lower()] == 1  # Spark does not tell "Shop" from "shop"
    ]
    return sorted(names, key=lambda name: name not in declared)[:_MOST_COLUMNS]


def _value(table: DataFrame, name: str) -> Column:
    """A hash of a value; null of a missing one and of a fraction, which names no cluster."""
    value = column(name)
    named = value.isNotNull()
    if isinstance(table.schema[name].dataType, DoubleType | FloatType):
        # NaN is above every number
        named = (value == F.rint(value)) & (F.abs(value) < F.lit(2.0**53))
    return F.when(named, F.xxhash64(F.lit(name), value.cast("string")))


def _chance(units: DataFrame) -> DataFrame:
    """One row a stratum: the shares ``two`` and ``three`` of pairs and triples treated alike."""
    n = F.col("n").cast("double")
    counts = units.groupBy("stratum", "treatment").agg(F.count(F.lit(1)).alias("n"))
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    sums = counts.groupBy("stratum").agg(
        F.sum(n).alias("n"), F.sum(pairs).alias("pairs"), F.sum(triples).alias("triples")
    )
    return sums.where(n >= _LEAST_STRATUM).select(
        "stratum",
        (F.col("pairs") / (n * (n - 1))).alias("two"),
        (F.col("triples") / (n * (n - 1) * (n - 2))).alias("three"),
    )


def _agreement(row: Row) -> float:
    possible = row["units"] - row["expected"]
    return float((row["alike"] - row["expected"]) / possible) if possible > 0 else 0.0


def _together(row: Row) -> bool:
    excess = row["alike"] - row["expected"]
    return _agreement(row) >= _AGREEMENT and excess > _EVIDENCE * sqrt(max(row["variance"], 0.0))
