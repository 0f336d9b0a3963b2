"""Values of the tables: rules that no row may break, counted in one pass a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import FractionalType

from coarse_spark.core.treatments import Categorical, Continuous, TreatmentSpace
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    cluster_label,
    column,
    fold_column,
    unit_id,
    usable,
)
from coarse_spark.distributed.validate.strata import strata_without_variation
from coarse_spark.text import shown, shown_parts

_EXAMPLES = 3
# of the width of a dimension: values stored in single precision may miss a bound by that much
_TOLERANCE = 1e-6


@dataclass
class Findings:
    """What is wrong with the values of one table.

    Attributes
    ----------
    label : what the table is called; every sentence begins with it.
    private : whether sentences show hashes of values.
    problems : a sentence for everything that has to be mended.
    warnings : a sentence for everything that a run copes with by itself.
    """

    label: str
    private: bool = False
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, message: str) -> None:
        """Add a problem."""
        self.problems.append(f"{self.label}: {message}")

    def warning(self, message: str) -> None:
        """Add a warning."""
        self.warnings.append(f"{self.label}: {message}")


@dataclass(frozen=True)
class _Rule:
    """Rows where ``broken`` is true are counted and must be none.

    The lowest and highest ``value`` of theirs are reported; it may be a struct of named parts.
    """

    broken: Column
    found: str
    hint: str
    value: Column | None = None
    parts: Sequence[str] = ()
    warning: bool = False

    def aggregates(self) -> list[Column]:
        value = F.lit(None) if self.value is None else F.when(self.broken, self.value)
        return [F.count(F.when(self.broken, F.lit(1))), F.min(value), F.max(value)]

    def message(self, low: Any, high: Any, *, private: bool) -> str:
        extent = ""
        if self.parts:
            examples = [shown_parts(self.parts, row, private=private) for row in (low, high)]
            extent = f" (such as {' and '.join(dict.fromkeys(examples))})"
        elif self.value is not None:
            extent = f" (from {shown(low, private=private)} to {shown(high, private=private)})"
        return f"{self.found}{extent}, {self.hint}"


def check_experiment(
    setup: ExperimentSetup, table: DataFrame, found: Findings, *, arms: bool
) -> tuple[int, int]:
    """Check the experiment's values; return its number of rows and of usable ones."""
    space, counted = setup.space, usable(setup)
    rules = [
        *_unit_rules(setup, table, setup.weight),
        *(
            _Rule(column(name).isNull(), f"have no {name}", "so they are left out", warning=True)
            for name in setup.needed
        ),
        *(
            _Rule(
                column(name).isNull(),
                f"have a null stratum '{name}'",
                "expected a value in every row",
            )
            for name in setup.strata
        ),
        *(
            _Rule(
                counted & cluster_label(name).isNull(),
                f"have a null cluster '{name}'",
                "so each is a cluster of its own",
                warning=True,
            )
            for name in ([] if setup.cluster is None else [setup.cluster])
        ),
        _Rule(
            _not_finite(setup.outcome),
            f"have an outcome '{setup.outcome}' that is NaN or infinite",
            "expected a number or null",
        ),
        *(rule for dimension in space.dimensions for rule in _treatment_rules(dimension)),
        *(_candidate_rules(space) if arms else ()),
    ]
    extremes = [
        extreme(F.when(counted, column(name))) for name in space.names for extreme in (F.min, F.max)
    ]
    rows, usable_rows, values = _measure(table, setup.weight, counted, rules, extremes, found)
    if rows and not usable_rows:
        found.problem(
            f"none of the {rows} rows has both an outcome and a treatment, "
            "so nothing can be learned"
        )
    elif 0 < usable_rows < setup.folds:
        found.problem(
            f"{usable_rows} usable rows cannot be cut into response.folds = {setup.folds} folds"
        )
    if usable_rows:
        varied = []
        for name, low, high in zip(space.names, values[::2], values[1::2], strict=True):
            if low == high:
                only = shown(low, private=found.private)
                found.problem(
                    f"treatment '{name}' is {only} in all usable rows, "
                    "expected at least two values to learn its effect from"
                )
            else:
                varied.append(name)
        if varied and setup.design == "stratified":
            for sentence in strata_without_variation(
                table.where(counted), setup.strata, varied, private=found.private
            ):
                found.problem(sentence)
    _check_repeated_ids(table, setup.unit_id, found)
    return rows, usable_rows


def check_population(
    setup: ExperimentSetup,
    table: DataFrame,
    weight: str | None,
    found: Findings,
    *,
    whole: bool = True,
) -> int:
    """Check the population's values; return its number of rows.

    Rows that join a population, not ``whole``, may be none, and may have no weight.
    """
    rules = _unit_rules(setup, table, weight)
    rows, _, _ = _measure(table, weight, F.lit(True), rules, [], found, whole=whole)
    _check_repeated_ids(table, setup.unit_id, found)
    return rows


@dataclass(frozen=True)
class PartitionSizes:
    """How the usable rows of the experiment spread over partitions.

    Attributes
    ----------
    partitions : those with usable rows.
    few : those with fewer rows than a model of its own needs.
    smallest : rows of the smallest.
    narrow : those with enough rows, but in too few folds, as clusters do not cross folds.
    """

    partitions: int
    few: int
    smallest: int | None
    narrow: int


def partition_sizes(setup: ExperimentSetup, table: DataFrame, least: int) -> PartitionSizes:
    """Return how many partitions have fewer than ``least`` usable rows, or rows in few folds."""
    units = table.where(usable(setup)).select(
        *(column(name).alias(f"k{i}") for i, name in enumerate(setup.partition_by)),
        fold_column(setup).alias("fold"),
    )
    counts = units.groupBy(*(f"k{i}" for i in range(len(setup.partition_by)))).agg(
        F.count(F.lit(1)).alias("n"), F.size(F.collect_set("fold")).alias("folds")
    )
    small, narrow = F.col("n") < least, F.col("folds") < setup.least_folds
    row = counts.agg(
        F.count(F.lit(1)),
        F.count(F.when(small, F.lit(1))),
        F.min("n"),
        F.count(F.when(~small & narrow, F.lit(1))),
    ).collect()[0]
    return PartitionSizes(*row)


def _unit_rules(setup: ExperimentSetup, table: DataFrame, weight: str | None) -> list[_Rule]:
    ids = setup.unit_id
    # what else a composite id says of the row helps to find it
    value, parts = (F.struct(*map(column, ids)), ids) if len(ids) > 1 else (None, ())
    rules = [
        _Rule(
            column(name).isNull(),
            f"have a null unit_id '{name}'",
            "expected an id in every row",
            value,
            parts,
        )
        for name in ids
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
        for name in setup.eligibility
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
    """Yield the rules of a basis with one column a candidate.

    It knows no treatment between candidates.
    """
    for dimension, spacing in zip(space.dimensions, space.spacing.tolist(), strict=True):
        if isinstance(dimension, Continuous):
            step = spacing if dimension.step is None else dimension.step
            value = column(dimension.name).cast("double")
            steps = (value - dimension.lower) / step
            # NaN and values outside the bounds have rules of their own
            between = value.between(dimension.lower, dimension.upper) & (
                F.abs(steps - F.round(steps)) > _TOLERANCE
            )
            hint = (
                f"expected steps of {step:g} from {dimension.lower:g} "
                "with response.basis arms, or another basis"
            )
            found = f"have a treatment '{dimension.name}' between candidates"
            yield _Rule(between & (value != dimension.control), found, hint, value)


def _not_finite(name: str) -> Column:
    value = column(name).cast("double")
    return F.isnan(value) | (F.abs(value) == F.lit(float("inf")))


def _measure(
    table: DataFrame,
    weight: str | None,
    counted: Column,
    rules: list[_Rule],
    extras: list[Column],
    found: Findings,
    *,
    whole: bool = True,
) -> tuple[int, int, list[Any]]:
    """Apply the rules in one pass.

    Returns the number of rows, of counted rows, and the values of ``extras``.
    """
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
            report = found.warning if rule.warning else found.problem
            report(f"{count} of {rows} rows {rule.message(low, high, private=found.private)}")
    if whole and not rows:
        found.problem("the table has no rows")
    elif whole and counted_rows and total == 0:
        found.problem(f"the weights '{weight}' sum to 0, expected some weight above 0")
    return rows, counted_rows, values[: len(extras)]


def _check_repeated_ids(table: DataFrame, columns: Sequence[str], found: Findings) -> None:
    known = reduce(Column.__and__, [column(name).isNotNull() for name in columns])
    repeated = (
        table.where(known)
        .groupBy(unit_id(columns).alias("unit_id"))
        .agg(F.count(F.lit(1)).alias("n"))
        .where(F.col("n") > 1)
    )
    units, rows = repeated.agg(F.count(F.lit(1)), F.sum("n")).collect()[0]
    if units:

        def example(unit: Any) -> str:
            if len(columns) == 1:
                return shown(unit, private=found.private)
            return shown_parts(columns, json.loads(unit), private=found.private)

        # a second pass, only where it is needed: all repeated ids at once could fill the driver
        examples = ", ".join(
            f"{example(row['unit_id'])} ({row['n']} times)"
            for row in repeated.orderBy(F.desc("n"), "unit_id").head(_EXAMPLES)
        )
        found.problem(
            f"{units} unit ids occur in {rows} rows, expected one row a unit; such as {examples}"
        )
