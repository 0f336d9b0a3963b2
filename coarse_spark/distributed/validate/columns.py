"""Names and types of the columns: what the schemas of the tables lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyspark.sql import DataFrame
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    IntegralType,
    MapType,
    NumericType,
    StringType,
    StructType,
)

from coarse_spark.core.expressions import quoted
from coarse_spark.core.treatments import Categorical, Continuous
from coarse_spark.distributed.frames import ExperimentSetup
from coarse_spark.errors import nearest
from coarse_spark.text import shown

# what a column is for: the words of the report, then whether a type will do
_Roles = dict[str, tuple[str, str]]


def column_problems(
    setup: ExperimentSetup,
    experiment: DataFrame,
    population: DataFrame | None,
    population_weight: str | None,
) -> Iterator[str]:
    """Yield a sentence for every column that is missing, ambiguous or of an unfit type."""
    yield from _problems(
        "experiment", experiment.schema, _unit_roles(setup, setup.weight) | _trial_roles(setup)
    )
    if population is None:
        return
    yield from _problems("population", population.schema, _unit_roles(setup, population_weight))
    for name in setup.features:
        types = [
            table.schema[name].dataType
            for table in (experiment, population)
            if name in table.columns
        ]
        if len(types) == 2 and len({_family(kind) for kind in types}) == 2:
            here, there = (kind.simpleString() for kind in types)
            yield (
                f"population: feature '{name}' is of type {there}, "
                f"expected a type like the experiment's, {here}, such as "
                f"CAST({quoted(name)} AS {here}) makes"
            )


def response_problems(
    setup: ExperimentSetup, table: DataFrame, columns: Sequence[str], fold: str | None, label: str
) -> list[str]:
    """Return a sentence for every column that a table of responses lacks, or of an unfit type."""
    roles: _Roles = dict.fromkeys(setup.unit_id, ("unit_id", "id"))
    roles |= dict.fromkeys(columns, ("response", "number"))
    if fold is not None:
        roles[fold] = ("fold", "key")
    return list(_problems(label, table.schema, roles))


def _family(kind: DataType) -> str:
    """Return what values of a type are written like: true is neither 1 nor the text True."""
    kinds = {"number": NumericType, "flag": BooleanType}
    return next((name for name, types in kinds.items() if isinstance(kind, types)), "text")


def _unit_roles(setup: ExperimentSetup, weight: str | None) -> _Roles:
    roles: _Roles = dict.fromkeys(setup.partition_by, ("partition key", "key"))
    roles |= dict.fromkeys(setup.features, ("feature", "feature"))
    roles |= dict.fromkeys(setup.unit_id, ("unit_id", "id"))
    if weight is not None:
        roles[weight] = ("weight", "number")
    roles |= dict.fromkeys(setup.unit_columns, ("profit.unit_columns", "number"))
    # last: a column that is a feature as well has to be boolean
    return roles | dict.fromkeys(setup.eligibility, ("eligibility", "boolean"))


def _trial_roles(setup: ExperimentSetup) -> _Roles:
    roles: _Roles = {
        name: ("stratum", "key")
        for name in setup.strata
        if name not in (*setup.features, *setup.unit_id)
    }
    if setup.cluster is not None:
        roles[setup.cluster] = ("cluster", "key")
    roles |= dict.fromkeys(setup.outcomes, ("outcome", "number"))
    for dimension in setup.space.dimensions:
        roles[dimension.name] = (
            "treatment",
            "number" if isinstance(dimension, Continuous) else _level_type(dimension),
        )
    return roles


def _level_type(dimension: Categorical) -> str:
    kinds = {
        "text" if isinstance(level, str) else "flag" if isinstance(level, bool) else "number"
        for level in dimension.levels
    }
    return kinds.pop() if len(kinds) == 1 else "mixed"


_FITS: dict[str, tuple[tuple[type[DataType], ...], str]] = {
    # what has one text for one value, whatever the session: no binary fractions, no time zones
    "id": (
        (StringType, IntegralType, DecimalType, DateType),
        "string, an integer type, decimal or date",
    ),
    "number": ((NumericType,), "a numeric type"),
    "text": ((StringType,), "string, as the declared levels are texts"),
    "flag": ((BooleanType,), "boolean, as the declared levels are true and false"),
    "boolean": ((BooleanType,), "boolean"),
    "mixed": ((), "levels of one kind, all texts or all numbers"),
    "feature": ((NumericType, BooleanType, StringType), "a numeric, boolean or string type"),
}


def _problems(label: str, schema: StructType, roles: _Roles) -> Iterator[str]:
    for name, (role, need) in roles.items():
        alike = [other for other in schema.names if other.lower() == name.lower()]
        if name not in schema.names:
            hint = nearest(alike[0], alike) if alike else nearest(name, schema.names)
            yield (
                f"{label}: the {role} column '{name}' is missing{hint}; "
                f"the table has {', '.join(map(shown, schema.names)) or 'no columns'}"
            )
        elif len(alike) > 1:
            yield (
                f"{label}: the columns {', '.join(map(shown, alike))} differ in case only, "
                "expected one of them: Spark cannot tell them apart"
            )
        else:
            kind = schema[name].dataType
            expected = _unfit(kind, need)
            if expected:
                yield (
                    f"{label}: the {role} column '{name}' is of type {kind.simpleString()}, "
                    f"expected {expected}"
                )


def _unfit(kind: DataType, need: str) -> str | None:
    """Return what was expected where ``kind`` does not serve the need."""
    if need == "key":
        nested = isinstance(kind, ArrayType | MapType | StructType | BinaryType)
        return "a type that compares, such as bigint or string" if nested else None
    types, expected = _FITS[need]
    return None if isinstance(kind, types) else expected
