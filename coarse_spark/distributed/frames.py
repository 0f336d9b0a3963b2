"""Units in one internal shape, whatever the user's tables are called and typed.

The user's names become positions (``feature_0``, ``treatment_0`` …), so that no name of theirs can
collide with ours or needs quoting, and every type becomes double or string. Folds, shards and
samples come from hashes of the unit's id, never from row positions: the same unit is treated alike
whatever the partitioning and the order of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType, FractionalType, NumericType, TimestampType

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.treatments import Categorical, TreatmentSpace

POOLED = "<pooled>"
ALL = "all"

_EXACT = 2.0**53  # a double below it is exactly the integer that it looks like


@dataclass(frozen=True)
class ExperimentSetup:
    """How the experiment was made, and what the user's tables call the columns of its units.

    Attributes
    ----------
    unit_id : columns that together identify a unit, mostly one.
    features : columns that describe a unit before its treatment.
    outcome : numeric column with what the treatment is meant to change.
    space : the treatments; their names are columns.
    design : ``randomized``, ``stratified`` or ``learned``.
    partition_by : columns whose combinations get models of their own.
    strata : columns within whose combinations the treatment was randomized.
    cluster : column whose values, such as households, no fold splits; a unit without a value, and
        every unit without such a column, is a cluster of its own.
    weight : column with the weight of an experiment row; None for weight 1.
    eligibility : boolean columns, true for the units that a rule of eligibility lets through.
    unit_columns : numeric columns that profit speaks of.
    further_outcomes : as ``outcome``; of several a usable row may lack some, not all.
    folds : number of folds of cross-fitting.
    seed : of the hashes that order units and cut them into folds, and of the learners.
    privacy : whether messages show values of the tables as hashes only.
    """

    unit_id: tuple[str, ...]
    features: tuple[str, ...]
    outcome: str
    space: TreatmentSpace
    design: str = "randomized"
    partition_by: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    cluster: str | None = None
    weight: str | None = None
    eligibility: tuple[str, ...] = ()
    unit_columns: tuple[str, ...] = ()
    further_outcomes: tuple[str, ...] = ()
    folds: int = 5
    seed: int = 0
    privacy: bool = False

    @property
    def outcomes(self) -> tuple[str, ...]:
        """All outcomes."""
        return (self.outcome, *self.further_outcomes)

    @property
    def least_folds(self) -> int:
        """Folds in which a model needs rows: two parts have to remain outside any one of them."""
        return min(self.folds, 3)

    @property
    def treatments(self) -> list[str]:
        """Internal names of the treatment dimensions."""
        return treatment_columns(len(self.space.dimensions))


def column(name: str) -> Column:
    """Return the column of exactly this name, dots and all."""
    return F.col("`" + name.replace("`", "``") + "`")


def feature_columns(count: int) -> list[str]:
    """Internal names of the features."""
    return [f"feature_{position}" for position in range(count)]


def eligibility_columns(count: int) -> list[str]:
    """Internal names of the rules of eligibility."""
    return [f"eligible_{position}" for position in range(count)]


def number_columns(count: int) -> list[str]:
    """Internal names of the columns of units that profit speaks of."""
    return [f"number_{position}" for position in range(count)]


def factor_columns(count: int) -> list[str]:
    """Names of the factors of units in profit (``core.profit.ProfitCoefficients``)."""
    return [f"factor_{position}" for position in range(count)]


def treatment_columns(count: int) -> list[str]:
    """Internal names of the treatment dimensions."""
    return [f"treatment_{position}" for position in range(count)]


def outcome_columns(count: int) -> list[str]:
    """Internal names of the outcomes; of one, ``outcome``."""
    return ["outcome", *(f"outcome_{position}" for position in range(1, count))]


def theta_columns(count: int) -> list[str]:
    """Names of the response coefficients."""
    return [f"theta_{position}" for position in range(count)]


def label(table: DataFrame, columns: Sequence[str], otherwise: str) -> Column:
    """Return one readable text for a combination of values, such as ``market=CH/product=3``.

    Nulls keep apart from empty texts; whole numbers are written alike whatever their type.
    """
    if not columns:
        return F.lit(otherwise)
    parts = [
        F.concat(F.lit(f"{name}="), F.coalesce(_text(table, name), F.lit("<null>")))
        for name in columns
    ]
    return F.concat_ws("/", *parts)


def _text(table: DataFrame, name: str) -> Column:
    """The text of a value, without a fraction of nothing: 1 of 1.0 and 1.00 too."""
    kind, value, text = table.schema[name].dataType, column(name), _plain_text(table, name)
    if isinstance(kind, DecimalType):
        return F.regexp_replace(text, r"\.0+$", "")
    if isinstance(kind, FractionalType):
        whole = (value == F.rint(value)) & (F.abs(value) < F.lit(_EXACT))
        return F.when(whole, value.cast("bigint").cast("string")).otherwise(text)
    return text


def _plain_text(table: DataFrame, name: str) -> Column:
    """The text of a value as SQL has it, of an instant in UTC whatever the session's time zone."""
    value = column(name)
    if isinstance(table.schema[name].dataType, TimestampType):
        seconds = (F.unix_micros(value).cast("decimal(20,0)") / 1_000_000).cast("decimal(18,6)")
        epoch = F.lit("1970-01-01 00:00:00").cast("timestamp_ntz")
        value = epoch + F.make_dt_interval(secs=seconds)
    return value.cast("string")


def feature(table: DataFrame, name: str) -> Column:
    """Return a feature as double or string, NaN as null: missing is missing in one way."""
    if isinstance(table.schema[name].dataType, NumericType):
        value = column(name).cast("double")
        return F.when(~F.isnan(value), value)
    return column(name).cast("string")


def unit_id(columns: Sequence[str]) -> Column:
    """Return what identifies a unit: the column itself, of several the JSON array of their texts.

    JSON tells "a" and "b,c" from "a,b" and "c".
    """
    if len(columns) == 1:
        return column(columns[0])
    return F.to_json(F.array(*(column(name).cast("string") for name in columns)))


def id_parts(table: DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Return the SQL type of every part of a composite id in a table, nothing of a single id."""
    types = {name: table.schema[name].dataType.simpleString() for name in columns}
    return types if len(types) > 1 else {}


def with_id_parts(rows: DataFrame, types: Mapping[str, str]) -> DataFrame:
    """Return rows with the parts of their composite id as columns of their own behind ``unit_id``.

    Parameters
    ----------
    rows : unit_id as the function of that name makes it, and other columns.
    types : of ``id_parts``.
    """
    texts = F.from_json("unit_id", "array<string>")
    found = [texts[i].cast(kind).alias(name) for i, (name, kind) in enumerate(types.items())]
    others = [column(name) for name in rows.columns if name != "unit_id"]
    return rows.select("unit_id", *found, *others)


def unit_hash(unit: Column | str = "unit_id", *purpose: int | str) -> Column:
    """Return a 64-bit hash of the unit's id, the same one for the same unit in every table.

    Parameters
    ----------
    unit : column with the id.
    purpose : what the hash is for, a seed or a word: another purpose gives independent hashes, so
        that being early in one order tells nothing about another.
    """
    salt = [F.lit(part).cast("long") if isinstance(part, int) else F.lit(part) for part in purpose]
    # the id as text: the same unit hashes alike as int in one table and long in another
    found = column(unit) if isinstance(unit, str) else unit
    return F.xxhash64(*salt, found.cast("string"))


def unit_key(unit: Column, seed: int) -> Column:
    """Return the hash that orders units, the one called key: the first are a sample of them.

    Parameters
    ----------
    unit : column with the id.
    seed : of the hashes (``ExperimentSetup.seed``).
    """
    return unit_hash(unit, seed, "key")


def cluster_label(table: DataFrame, name: str) -> Column:
    """Return the text of a unit's cluster, null where it has none.

    Numbers with gaps often come as double, with NaN for them.
    """
    text = _plain_text(table, name)
    return F.when(text != "NaN", text)


def cluster_hash(table: DataFrame, setup: ExperimentSetup, *purpose: int | str) -> Column:
    """Return a 64-bit hash of the unit's cluster, of its id where it has none.

    Parameters
    ----------
    table : with the cluster.
    setup : what the columns are called.
    purpose : as in ``unit_hash``.
    """
    own = unit_hash(unit_id(setup.unit_id), *purpose)
    if setup.cluster is None:
        return own
    found = cluster_label(table, setup.cluster)
    return F.when(found.isNull(), own).otherwise(unit_hash(found, *purpose, "cluster"))


def fold_column(table: DataFrame, setup: ExperimentSetup) -> Column:
    """Return the fold of a unit, 0 … folds − 1, which is that of its whole cluster."""
    return F.pmod(cluster_hash(table, setup, setup.seed, "fold"), F.lit(setup.folds)).cast("int")


def hash_limit(wanted: int, units: int) -> int:
    """Return the hash at or below which about ``wanted`` of so many units lie, or all of fewer.

    Hashes are uniform on the 64-bit integers: the units with the smallest ones are a sample that no
    shuffling changes.
    """
    return 2**63 - 1 if units <= wanted else round((2 * wanted / units - 1) * 2**63)


def _treatment(space: TreatmentSpace, position: int) -> Column:
    dimension = space.dimensions[position]
    value = column(dimension.name)
    if isinstance(dimension, Categorical):
        codes = [
            F.when(value == F.lit(level), F.lit(float(code)))
            for code, level in enumerate(dimension.levels)
        ]
        return F.coalesce(*codes)
    return value.cast("double")


def _unit_columns(table: DataFrame, setup: ExperimentSetup, weight: str | None) -> list[Column]:
    names = feature_columns(len(setup.features))
    rules = eligibility_columns(len(setup.eligibility))
    unit = unit_id(setup.unit_id)
    return [
        unit.alias("unit_id"),
        label(table, setup.partition_by, ALL).alias("partition"),
        unit_key(unit, setup.seed).alias("key"),
        (F.lit(1.0) if weight is None else column(weight).cast("double")).alias("weight"),
        *(
            feature(table, name).alias(alias)
            for name, alias in zip(setup.features, names, strict=True)
        ),
        # who may get what is never guessed: unknown is no
        *(
            F.coalesce(column(name), F.lit(False)).alias(alias)
            for name, alias in zip(setup.eligibility, rules, strict=True)
        ),
        *(
            column(name).cast("double").alias(alias)
            for name, alias in zip(
                setup.unit_columns, number_columns(len(setup.unit_columns)), strict=True
            )
        ),
    ]


def population_units(table: DataFrame, setup: ExperimentSetup, weight: str | None) -> DataFrame:
    """Return units to be scored; rows of weight 0 are no units.

    Columns: unit_id, partition, key (a hash of the id), weight, feature_0 …, eligible_0 …
    (booleans) and number_0 … (``unit_columns``).

    Parameters
    ----------
    table : one row a unit, with the columns of ids, partitions, features and eligibility.
    setup : what these columns are called.
    weight : name of the weight column; None for weight 1.
    """
    return table.where(has_weight(weight)).select(*_unit_columns(table, setup, weight))


def has_weight(weight: str | None) -> Column:
    """Whether a row counts: rows of weight 0 are no rows, in any table; an unknown weight is one.

    Parameters
    ----------
    weight : column with the weight; None for weight 1.
    """
    if weight is None:
        return F.lit(True)
    return ~column(weight).cast("double").eqNullSafe(F.lit(0.0))


def unit_content(table: DataFrame, setup: ExperimentSetup, weight: str | None) -> Column:
    """Return a hash of all that ``population_units`` reads of a unit but its id."""
    _, partition, _, *others = _unit_columns(table, setup, weight)
    # hashes skip nulls: without a word on them, a value would be alike in one column and the next
    return F.xxhash64(*(part for read in (partition, *others) for part in (read, read.isNull())))


def usable(setup: ExperimentSetup) -> Column:
    """Whether an experiment row has an outcome, a treatment and a weight other than 0."""
    return informative(setup) & has_weight(setup.weight)


def informative(setup: ExperimentSetup) -> Column:
    """Whether an experiment row has a treatment and an outcome, of several any one."""
    given = [column(name).isNotNull() for name in setup.space.names]
    shown = [column(name).isNotNull() for name in setup.outcomes]
    return reduce(Column.__and__, [*given, reduce(Column.__or__, shown)])


def experiment_units(table: DataFrame, setup: ExperimentSetup) -> DataFrame:
    """Return usable experiment rows: those of ``population_units``, and what the experiment adds.

    These columns are outcome (of several outcome_1 … too), stratum, fold, treatment_0 … and, of an
    experiment in clusters, cluster (a hash). Rows without an outcome, a treatment or a weight other
    than 0 are left out; of several outcomes a row may lack some. ``validate_tables`` counts them.

    Parameters
    ----------
    table : one row a unit, as the user has it.
    setup : what its columns are called.
    """
    return table.where(usable(setup)).select(
        *_unit_columns(table, setup, setup.weight),
        *(
            column(name).cast("double").alias(alias)
            for name, alias in zip(
                setup.outcomes, outcome_columns(len(setup.outcomes)), strict=True
            )
        ),
        label(table, setup.strata, ALL).alias("stratum"),
        fold_column(table, setup).alias("fold"),
        *(
            []
            if setup.cluster is None
            else [cluster_hash(table, setup, setup.seed).alias("cluster")]
        ),
        *(
            _treatment(setup.space, position).alias(name)
            for position, name in enumerate(setup.treatments)
        ),
    )


def hash_sample(units: DataFrame, size: int) -> pd.DataFrame:
    """Return the ``size`` units with the smallest keys, in the order of their keys.

    They are the same ones whatever the partitioning.
    """
    return (
        units.orderBy("key")
        .limit(size)
        .toPandas()
        .sort_values("key", kind="stable", ignore_index=True)
    )


def trial_rows(rows: pd.DataFrame, setup: ExperimentSetup) -> TrialRows:
    """Return collected experiment rows as the learners take them.

    Parameters
    ----------
    rows : in the shape of ``experiment_units``.
    setup : of the experiment.

    Raises
    ------
    InvalidInputError : rows that cannot be used (see ``TrialRows``).
    """
    return TrialRows(
        feature_frame(rows, setup.features),
        matrix(rows, setup.treatments),
        rows["outcome"].to_numpy(np.float64),
        key=rows["key"].to_numpy(),
        fold=rows["fold"].to_numpy(),
        weight=rows["weight"].to_numpy(np.float64),
        strata=rows["stratum"].to_numpy(),
        folds=setup.folds,
        cluster=rows["cluster" if "cluster" in rows else "key"].to_numpy(),
    )


def feature_frame(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the features of collected rows under the user's names.

    Numbers are float64, texts object.
    """
    frame = rows[feature_columns(len(names))]
    return frame.set_axis(list(names), axis=1)


def parts(rows: pd.DataFrame, name: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the rows of every value of an integer column, smallest first."""
    values = rows[name].to_numpy()
    for value in np.unique(values):
        yield int(value), rows[values == value]


def matrix(rows: pd.DataFrame, columns: Sequence[str]) -> FloatArray:
    """Return columns of collected rows as a float matrix (n, len(columns))."""
    none = np.empty((len(rows), 0))
    return np.column_stack([none, *(rows[name].to_numpy(np.float64) for name in columns)])
