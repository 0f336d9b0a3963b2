"""Checks of the input tables against a configuration: everything that is wrong with them, at once, before a run starts.

Checks of names and types read the schema alone. Those of values are native aggregates: one pass a table for nearly everything, one
for repeated unit ids, and one for the sizes of partitions where there are any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    FractionalType,
    MapType,
    NumericType,
    StringType,
    StructType,
)

from coarse_spark.config.models import Configuration
from coarse_spark.core.treatments import Categorical, Continuous, TreatmentSpace
from coarse_spark.distributed.frames import column, usable
from coarse_spark.distributed.strata import strata_without_variation
from coarse_spark.errors import TableError, nearest

_EXAMPLES = 3
_TOLERANCE = 1e-6  # of the width of a dimension: values stored in single precision may miss a bound by that much


@dataclass(frozen=True)
class TableReport:
    """What the tables hold, for the summary of a run.

    Attributes
    ----------
    rows, usable_rows : rows of the experiment, and those with an outcome and a treatment.
    partitions, small_partitions : partitions with usable rows, and those that the pooled model serves.
    population_rows : rows of the population; those of the experiment where it is the population.
    warnings : one sentence each, on what a run copes with by itself.
    """

    rows: int
    usable_rows: int
    partitions: int
    small_partitions: int
    population_rows: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Rule:
    """Rows where ``broken`` is true are counted and must be none; the lowest and highest ``value`` of theirs are reported."""

    broken: Column
    found: str
    hint: str
    value: Column | None = None
    warning: bool = False

    def aggregates(self) -> list[Column]:
        value = F.lit(None) if self.value is None else F.when(self.broken, self.value)
        return [F.count(F.when(self.broken, F.lit(1))), F.min(value), F.max(value)]

    def message(self, low: object, high: object) -> str:
        extent = "" if self.value is None else f" (from {low} to {high})"
        return f"{self.found}{extent}, {self.hint}"


@dataclass
class _Findings:
    problems: list[str]
    warnings: list[str]


def validate_tables(
    configuration: Configuration, experiment: DataFrame, population: DataFrame | None = None
) -> TableReport:
    """Return what the tables hold; every problem in them is raised at once.

    Parameters
    ----------
    configuration : names the columns and declares the treatments.
    experiment : one row a unit with treatment and outcome. Rows where one of them is null are left out with a warning.
    population : one row a unit that gets an assignment; None for the experiment's units.

    Raises
    ------
    TableError : missing columns, unfit types, null or repeated unit ids, treatments outside the space or without variation,
        outcomes, weights or features that are no finite numbers, null strata, strata without variation, or no usable row. One
        line a problem.
    """
    found = _Findings(list(_schema_problems(configuration, experiment, population)), [])
    if found.problems:  # values are read by the declared names and types, so these come first
        raise _error(found.problems)

    rows, usable_rows = _check_experiment(configuration, experiment, found)
    population_rows = (
        rows if population is None else _check_population(configuration, population, found)
    )
    if found.problems:
        raise _error(found.problems)
    partitions, small = _partition_sizes(configuration, experiment, found)
    return TableReport(rows, usable_rows, partitions, small, population_rows, tuple(found.warnings))


def _error(problems: list[str]) -> TableError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return TableError(
        f"the tables have {count}:\n" + "\n".join(f"  {problem}" for problem in problems)
    )


# --- names and types -----------------------------------------------------------------------------------------------------------


def _schema_problems(
    configuration: Configuration, experiment: DataFrame, population: DataFrame | None
) -> Iterator[str]:
    setup = configuration.experiment
    yield from _columns_problems(
        "experiment",
        experiment.schema,
        _unit_roles(configuration, setup.weight) | _trial_roles(configuration),
    )
    if population is None:
        return
    yield from _columns_problems(
        "population", population.schema, _unit_roles(configuration, configuration.population.weight)
    )
    for name in setup.features:
        types = [
            table.schema[name].dataType
            for table in (experiment, population)
            if name in table.columns
        ]
        if len(types) == 2 and len({isinstance(kind, NumericType) for kind in types}) == 2:
            here, there = (kind.simpleString() for kind in types)
            yield f"population: feature '{name}' is of type {there}, expected a type like the experiment's, {here}"


# what a column is for: the words of the report, then whether a type will do
_Roles = dict[str, tuple[str, str]]


def _unit_roles(configuration: Configuration, weight: str | None) -> _Roles:
    setup = configuration.experiment
    roles: _Roles = dict.fromkeys(setup.partition_by, ("partition key", "key"))
    roles |= dict.fromkeys(setup.features, ("feature", "feature"))
    roles[setup.unit_id] = ("unit_id", "key")
    if weight is not None:
        roles[weight] = ("weight", "number")
    # last: a column that is a feature as well has to be boolean
    return roles | dict.fromkeys(configuration.menu.eligibility, ("eligibility", "boolean"))


def _trial_roles(configuration: Configuration) -> _Roles:
    setup = configuration.experiment
    roles: _Roles = {
        name: ("stratum", "key") for name in setup.strata if name not in setup.features
    }
    roles[setup.outcome] = ("outcome", "number")
    for dimension in configuration.space.dimensions:
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
    "number": ((NumericType,), "a numeric type"),
    "text": ((StringType,), "string, as the declared levels are texts"),
    "flag": ((BooleanType,), "boolean, as the declared levels are true and false"),
    "boolean": ((BooleanType,), "boolean"),
    "mixed": ((), "levels of one kind, all texts or all numbers"),
    "feature": ((NumericType, BooleanType, StringType), "a numeric, boolean or string type"),
}


def _columns_problems(label: str, schema: StructType, roles: _Roles) -> Iterator[str]:
    for name, (role, need) in roles.items():
        alike = [other for other in schema.names if other.casefold() == name.casefold()]
        if name not in schema.names:
            hint = nearest(alike[0], alike) if alike else nearest(name, schema.names)
            yield f"{label}: the {role} column '{name}' is missing{hint}; the table has {', '.join(schema.names) or 'no columns'}"
        elif len(alike) > 1:
            yield f"{label}: the columns {', '.join(alike)} differ in case only, expected one of them: Spark cannot tell them apart"
        else:
            kind = schema[name].dataType
            expected = _unfit(kind, need)
            if expected:
                yield f"{label}: the {role} column '{name}' is of type {kind.simpleString()}, expected {expected}"


def _unfit(kind: DataType, need: str) -> str | None:
    """Return what was expected where ``kind`` does not serve the need."""
    if need == "key":
        nested = isinstance(kind, ArrayType | MapType | StructType | BinaryType)
        return "a type that compares, such as bigint or string" if nested else None
    types, expected = _FITS[need]
    return None if isinstance(kind, types) else expected


# --- values --------------------------------------------------------------------------------------------------------------------


def _check_experiment(
    configuration: Configuration, table: DataFrame, found: _Findings
) -> tuple[int, int]:
    """Check the experiment's values; return its number of rows and of usable ones."""
    setup, space = configuration.experiment, configuration.space
    needed = (setup.outcome, *space.names)
    counted = usable(configuration)
    rules = [
        *_unit_rules(configuration, table, setup.weight),
        *(
            _Rule(column(name).isNull(), f"have no {name}", "so they are left out", warning=True)
            for name in needed
        ),
        *(
            _Rule(
                column(name).isNull(),
                f"have a null stratum '{name}'",
                "expected a value in every row",
            )
            for name in setup.strata
        ),
        _Rule(
            _not_finite(setup.outcome),
            f"have an outcome '{setup.outcome}' that is NaN or infinite",
            "expected a number or null",
        ),
        *(rule for dimension in space.dimensions for rule in _treatment_rules(dimension)),
        *(_candidate_rules(space) if "arms" in configuration.bases else ()),
    ]
    extremes = [
        extreme(F.when(counted, column(name))) for name in space.names for extreme in (F.min, F.max)
    ]
    rows, usable_rows, values = _measure(
        "experiment", table, setup.weight, counted, rules, extremes, found
    )
    if rows and not usable_rows:
        found.problems.append(
            f"experiment: none of the {rows} rows has both an outcome and a treatment, so nothing can be learned"
        )
    elif 0 < usable_rows < configuration.response.folds:
        message = f"{usable_rows} usable rows cannot be cut into response.folds = {configuration.response.folds} folds"
        found.problems.append(f"experiment: {message}")
    if usable_rows:
        varied = []
        for name, low, high in zip(space.names, values[::2], values[1::2], strict=True):
            if low == high:
                message = f"treatment '{name}' is {low} in all usable rows, expected at least two values to learn its effect from"
                found.problems.append(f"experiment: {message}")
            else:
                varied.append(name)
        if varied and configuration.design.kind == "stratified":
            sentences = strata_without_variation(table.where(counted), setup.strata, varied)
            found.problems += [f"experiment: {sentence}" for sentence in sentences]
    _check_repeated_ids("experiment", table, setup.unit_id, found)
    return rows, usable_rows


def _check_population(configuration: Configuration, table: DataFrame, found: _Findings) -> int:
    """Check the population's values; return its number of rows."""
    weight = configuration.population.weight
    rules = _unit_rules(configuration, table, weight)
    rows, _, _ = _measure("population", table, weight, F.lit(True), rules, [], found)
    _check_repeated_ids("population", table, configuration.experiment.unit_id, found)
    return rows


def _unit_rules(configuration: Configuration, table: DataFrame, weight: str | None) -> list[_Rule]:
    setup = configuration.experiment
    rules = [
        _Rule(
            column(setup.unit_id).isNull(),
            f"have a null unit_id '{setup.unit_id}'",
            "expected an id in every row",
        )
    ]
    for name in setup.features:
        if isinstance(table.schema[name].dataType, FractionalType):
            infinite = F.abs(column(name).cast("double")) == F.lit(float("inf"))
            rules.append(
                _Rule(
                    infinite,
                    f"have an infinite feature '{name}'",
                    "expected a number, or null where it is unknown",
                )
            )
    rules += [
        _Rule(
            column(name).isNull(),
            f"have a null eligibility '{name}'",
            "which counts as false",
            warning=True,
        )
        for name in configuration.menu.eligibility
    ]
    if weight is not None:
        value = column(weight).cast("double")
        rules += [
            _Rule(
                value.isNull(), f"have a null weight '{weight}'", "expected a number in every row"
            ),
            _Rule(
                _not_finite(weight),
                f"have a weight '{weight}' that is NaN or infinite",
                "expected a number of at least 0",
            ),
            # NaN sorts above every number, so it is not below 0
            _Rule(
                value < 0,
                f"have a negative weight '{weight}'",
                "expected a number of at least 0",
                value,
            ),
        ]
    return rules


def _treatment_rules(dimension: Continuous | Categorical) -> Iterator[_Rule]:
    name = dimension.name
    if isinstance(dimension, Categorical):
        unknown = ~column(name).isin(list(dimension.levels))
        levels = ", ".join(map(str, dimension.levels))
        yield _Rule(
            unknown,
            f"have an undeclared level of treatment '{name}'",
            f"expected one of {levels}",
            column(name),
        )
        return
    value = column(name).cast("double")
    yield _Rule(F.isnan(value), f"have NaN as treatment '{name}'", "expected a number or null")
    slack = _TOLERANCE * (dimension.upper - dimension.lower)
    inside = value.between(dimension.lower - slack, dimension.upper + slack) | (
        F.abs(value - dimension.control) <= slack
    )
    bounds = f"{dimension.lower:g} to {dimension.upper:g} or the control {dimension.control:g}"
    yield _Rule(
        ~F.isnan(value) & ~inside,
        f"have a treatment '{name}' outside the declared space",
        f"expected {bounds}",
        value,
    )


def _candidate_rules(space: TreatmentSpace) -> Iterator[_Rule]:
    """Yield the rules of a basis with one column a candidate, which knows no treatment between candidates."""
    for dimension, spacing in zip(space.dimensions, space.spacing.tolist(), strict=True):
        if isinstance(dimension, Continuous):
            step = spacing if dimension.step is None else dimension.step
            value = column(dimension.name).cast("double")
            steps = (value - dimension.lower) / step
            # NaN and values outside the bounds have rules of their own
            between = value.between(dimension.lower, dimension.upper) & (
                F.abs(steps - F.round(steps)) > _TOLERANCE
            )
            hint = f"expected steps of {step:g} from {dimension.lower:g} with response.basis arms, or another basis"
            found = f"have a treatment '{dimension.name}' between candidates"
            yield _Rule(between & (value != dimension.control), found, hint, value)


def _not_finite(name: str) -> Column:
    value = column(name).cast("double")
    return F.isnan(value) | (F.abs(value) == F.lit(float("inf")))


def _measure(
    label: str,
    table: DataFrame,
    weight: str | None,
    counted: Column,
    rules: list[_Rule],
    extras: list[Column],
    found: _Findings,
) -> tuple[int, int, list[Any]]:
    """Apply the rules in one pass; return the number of rows, of counted rows, and the values of ``extras``."""
    value = F.lit(1.0) if weight is None else column(weight).cast("double")
    totals = [F.count(F.lit(1)), F.count(F.when(counted, F.lit(1))), F.sum(F.when(counted, value))]
    aggregates = [
        *totals,
        *extras,
        *(aggregate for rule in rules for aggregate in rule.aggregates()),
    ]
    row = table.agg(
        *(aggregate.alias(f"a{position}") for position, aggregate in enumerate(aggregates))
    ).collect()[0]
    rows, counted_rows, total, *values = row
    for position, rule in enumerate(rules):
        count, low, high = values[len(extras) + 3 * position :][:3]
        if count:
            message = f"{label}: {count} of {rows} rows {rule.message(low, high)}"
            (found.warnings if rule.warning else found.problems).append(message)
    if not rows:
        found.problems.append(f"{label}: the table has no rows")
    elif counted_rows and total == 0:
        found.problems.append(
            f"{label}: the weights '{weight}' sum to 0, expected some weight above 0"
        )
    return rows, counted_rows, values[: len(extras)]


def _check_repeated_ids(label: str, table: DataFrame, unit_id: str, found: _Findings) -> None:
    ids = column(unit_id)
    repeated = (
        table.where(ids.isNotNull())
        .groupBy(ids.alias("unit_id"))
        .agg(F.count(F.lit(1)).alias("n"))
        .where(F.col("n") > 1)
    )
    units, rows = repeated.agg(F.count(F.lit(1)), F.sum("n")).collect()[0]
    if units:
        # a second pass only where it is needed: collecting all repeated ids at once could fill the driver
        examples = ", ".join(
            f"{row['unit_id']} ({row['n']} times)"
            for row in repeated.orderBy(F.desc("n"), "unit_id").head(_EXAMPLES)
        )
        found.problems.append(
            f"{label}: {units} unit ids occur in {rows} rows, expected one row a unit; such as {examples}"
        )


def _partition_sizes(
    configuration: Configuration, table: DataFrame, found: _Findings
) -> tuple[int, int]:
    """Return the number of partitions with usable rows and of those too small for models of their own."""
    keys, least = configuration.experiment.partition_by, configuration.response.min_rows
    sizes = table.where(usable(configuration)).groupBy(
        *(column(name).alias(f"k{i}") for i, name in enumerate(keys))
    )
    small = F.col("n") < least
    counts = sizes.agg(F.count(F.lit(1)).alias("n"))
    partitions, few, smallest = counts.agg(
        F.count(F.lit(1)), F.count(F.when(small, F.lit(1))), F.min("n")
    ).collect()[0]
    if few:
        message = f"{few} of {partitions} partitions have fewer usable rows than response.min_rows = {least}, the smallest {smallest}"
        found.warnings.append(f"experiment: {message}; the pooled model serves them")
    return partitions, few
