"""Values of the tables: rules that no row may break, counted in one pass a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import FractionalType

from coarse_spark.core.treatments import STORED, Categorical, Continuous, TreatmentSpace
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    cluster_label,
    column,
    fold_column,
    has_weight,
    informative,
    unit_id,
    usable,
)
from coarse_spark.errors import nearest
from coarse_spark.text import shown, shown_parts

_EXAMPLES = 3


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

    The lowest and highest ``value`` of theirs are reported; it may be a struct of named parts, or
    a text that is none of the ``known`` ones.
    """

    broken: Column
    found: str
    hint: str
    value: Column | None = None
    parts: Sequence[str] = ()
    warning: bool = False
    known: Sequence[object] = ()

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
        # in quotes, for a blank at its end may be all that is wrong
        meant = nearest(low, self.known, label=f"for {low!r} did you mean")
        return f"{self.found}{extent}, {self.hint}{'' if private else meant}"


def check_experiment(
    setup: ExperimentSetup,
    table: DataFrame,
    found: Findings,
    *,
    arms: bool,
    learned: bool = True,
) -> RowCounts:
    """Check the experiment's values; return its numbers of rows."""
    space, counted = setup.space, usable(setup)
    rules = [
        *_unit_rules(setup, table, setup.weight),
        *_missing_rules(setup, learned=learned),
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
                counted & cluster_label(table, name).isNull(),
                f"have a null cluster '{name}'",
                "so each is a cluster of its own",
                warning=True,
            )
            for name in ([] if setup.cluster is None else [setup.cluster])
        ),
        *(
            _Rule(
                _not_finite(name),
                f"have an outcome '{name}' that is NaN or infinite",
                "expected a number or null",
            )
            for name in setup.outcomes
        ),
        *(rule for dimension in space.dimensions for rule in _treatment_rules(dimension)),
        *(_candidate_rules(space) if arms else ()),
    ]
    extremes = [
        extreme(F.when(counted, column(name))) for name in space.names for extreme in (F.min, F.max)
    ]
    levels = [
        (dimension.name, level)
        for dimension in space.dimensions
        if isinstance(dimension, Categorical)
        for level in dimension.levels
    ]
    given = [F.max(counted & (column(name) == F.lit(level))) for name, level in levels]
    shown_by = [F.count(F.when(counted, column(name))) for name in setup.outcomes]
    fold = fold_column(table, setup)
    # of one outcome, usable rows are those that have it
    shown_in = [
        F.size(F.collect_set(F.when(counted & column(name).isNotNull(), fold)))
        for name in (setup.outcomes if len(setup.outcomes) > 1 else ())
    ]
    extras = [*shown_by, *shown_in, *extremes, *given]
    counts, values = _measure(table, setup.weight, informative(setup), rules, extras, found)
    having = dict(zip(setup.outcomes, values, strict=False))
    folds = dict(zip(setup.outcomes, values[len(shown_by) :][: len(shown_in)], strict=False))
    values = values[len(shown_by) + len(shown_in) :]
    if counts.rows and not counts.known:
        found.problem(
            f"none of the {counts.rows} rows has both an outcome and a treatment, "
            "so nothing can be learned"
        )
    elif 0 < counts.usable < setup.folds:
        found.problem(
            f"{counts.usable} usable row{' is' if counts.usable == 1 else 's are'} too few to "
            f"learn and to judge from, expected at least one for each of the {setup.folds} "
            "response.folds"
        )
    else:
        _check_having(setup, counts, having, folds, found)
    if counts.usable:
        flags = dict(zip(levels, values[len(extremes) :], strict=True))
        _check_variation(space, values[: len(extremes)], flags, found)
    check_repeated_ids(table.where(has_weight(setup.weight)), setup.unit_id, found)
    return replace(counts, lacking=tuple(o for o, rows in having.items() if rows < counts.usable))


def _missing_rules(setup: ExperimentSetup, *, learned: bool) -> Iterator[_Rule]:
    """Yield what is said of rows without a treatment or an outcome."""
    used = "learned and valued" if learned else "valued"
    outcomes = setup.outcomes
    if len(outcomes) == 1:
        outcomes = ()
        needed = (*setup.outcomes, *setup.space.names)
    else:
        needed = setup.space.names
        none = reduce(Column.__and__, [column(name).isNull() for name in outcomes])
        yield _Rule(
            none, f"have none of {', '.join(outcomes)}", "so they are left out", warning=True
        )
    for name in needed:
        yield _Rule(column(name).isNull(), f"have no {name}", "so they are left out", warning=True)
    for name in outcomes:
        yield _Rule(
            usable(setup) & column(name).isNull(),
            f"have no {name} but another outcome",
            f"so {name} is {used} by the others, which is right as far as nothing but "
            "treatment, features and stratum tells who has it",
            warning=True,
        )


def _check_having(
    setup: ExperimentSetup,
    counts: RowCounts,
    having: Mapping[str, int],
    folds: Mapping[str, int],
    found: Findings,
) -> None:
    """Check that some usable rows have every outcome, and that they are in enough folds.

    ``folds`` are those of each of several outcomes.
    """
    crossed = "" if setup.cluster is None else f", which no cluster of '{setup.cluster}' crosses"
    for name, rows in having.items():
        if rows < min(setup.folds, counts.usable):
            found.problem(
                f"{rows} of {counts.usable} usable rows have the outcome '{name}', expected at "
                f"least one for each of the {setup.folds} response.folds: wait for more, or leave "
                "it out of experiment.outcome"
            )
        elif folds.get(name, setup.folds) < setup.least_folds:
            found.problem(
                f"the {rows} usable rows that have the outcome '{name}' are in {folds[name]} of "
                f"response.folds = {setup.folds} folds{crossed}, expected rows in at least "
                f"{setup.least_folds}: wait for more, or leave it out of experiment.outcome"
            )


def _check_variation(
    space: TreatmentSpace,
    extremes: list[Any],
    given: Mapping[tuple[str, Any], bool],
    found: Findings,
) -> None:
    """Check that usable rows vary every treatment, and hold every declared level."""
    for dimension, low, high in zip(space.dimensions, extremes[::2], extremes[1::2], strict=True):
        name = dimension.name
        levels = dimension.levels if isinstance(dimension, Categorical) else ()
        nobody = [level for level in levels if not given[name, level]]
        if low == high:
            only = shown(low, private=found.private)
            found.problem(
                f"treatment '{name}' is {only} in all usable rows, "
                "expected at least two values to learn its effect from"
            )
        elif nobody:
            found.problem(
                f"treatment '{name}' is {' or '.join(map(str, nobody))} in no usable row, expected "
                f"some units of every declared level to learn its effect from: leave it out of "
                f"treatments.{name}.levels"
            )


def check_population(
    setup: ExperimentSetup,
    table: DataFrame,
    weight: str | None,
    found: Findings,
    *,
    whole: bool = True,
) -> int:
    """Check the population's values; return its number of units.

    Rows that join a population, not ``whole``, may be none, and may have no weight.
    """
    rules = _unit_rules(setup, table, weight)
    counts, _ = _measure(table, weight, F.lit(True), rules, [], found, whole=whole)
    check_repeated_ids(table.where(has_weight(weight)), setup.unit_id, found)
    return counts.usable


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
    rules += [
        _Rule(
            column(name).isNull() | _not_finite(name),
            f"have a '{name}' of profit.unit_columns that is null, NaN or infinite",
            "expected a number in every row",
        )
        for name in setup.unit_columns
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
            known=[level for level in dimension.levels if isinstance(level, str)],
        )
        return
    value = column(name).cast("double")
    yield _Rule(F.isnan(value), f"have NaN as treatment '{name}'", "expected a number or null")
    slack = STORED * (dimension.upper - dimension.lower)
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
    if space.finite is not None:
        listed = [
            reduce(Column.__and__, map(_equals, space.dimensions, row))
            for row in space.candidates.tolist()
        ]
        yield _Rule(
            ~reduce(Column.__or__, listed),
            "have a treatment that is none of treatments.candidates",
            "expected one of them or the control with response.basis arms, or another basis",
            F.struct(*map(column, space.names)),
            space.names,
        )
        return
    for dimension, spacing in zip(space.dimensions, space.spacing.tolist(), strict=True):
        if isinstance(dimension, Continuous) and dimension.listed_values is not None:
            known = list(dict.fromkeys([*dimension.listed_values, dimension.control]))
            yield _Rule(
                ~reduce(Column.__or__, [_equals(dimension, value) for value in known]),
                f"have a treatment '{dimension.name}' between candidates",
                f"expected one of {', '.join(f'{value:g}' for value in known)} "
                "with response.basis arms, or another basis",
                column(dimension.name).cast("double"),
            )
        elif isinstance(dimension, Continuous):
            step = spacing if dimension.step is None else dimension.step
            value = column(dimension.name).cast("double")
            steps = (value - dimension.lower) / step
            # NaN and values outside the bounds have rules of their own
            between = value.between(dimension.lower, dimension.upper) & (
                F.abs(steps - F.round(steps)) > STORED
            )
            hint = (
                f"expected steps of {step:g} from {dimension.lower:g} "
                "with response.basis arms, or another basis"
            )
            found = f"have a treatment '{dimension.name}' between candidates"
            yield _Rule(between & (value != dimension.control), found, hint, value)


def _equals(dimension: Continuous | Categorical, code: float) -> Column:
    """Return whether a dimension is at an encoded value."""
    if isinstance(dimension, Categorical):
        return column(dimension.name) == F.lit(dimension.levels[int(code)])
    slack = STORED * (dimension.upper - dimension.lower)
    return F.abs(column(dimension.name).cast("double") - F.lit(code)) <= slack


def _not_finite(name: str) -> Column:
    value = column(name).cast("double")
    return F.isnan(value) | (F.abs(value) == F.lit(float("inf")))


@dataclass(frozen=True)
class RowCounts:
    """Rows of a table.

    Attributes
    ----------
    rows : all of them.
    weighed : those with a weight other than 0.
    known : those with all that they are needed for.
    usable : those with both.
    lacking : outcomes that some usable rows lack.
    """

    rows: int
    weighed: int
    known: int
    usable: int
    lacking: tuple[str, ...] = ()


def _measure(
    table: DataFrame,
    weight: str | None,
    known: Column,
    rules: list[_Rule],
    extras: list[Column],
    found: Findings,
    *,
    whole: bool = True,
) -> tuple[RowCounts, list[Any]]:
    """Apply the rules in one pass, to all rows but those of weight 0.

    Returns the counts of rows, and the values of ``extras``.
    """
    here = has_weight(weight)
    totals = [F.count(F.when(counted, F.lit(1))) for counted in (F.lit(True), here, known)]
    aggregates = [
        *totals,
        F.count(F.when(known & here, F.lit(1))),
        *extras,
        *(
            aggregate
            for rule in rules
            for aggregate in replace(rule, broken=rule.broken & here).aggregates()
        ),
    ]
    row = table.agg(
        *(aggregate.alias(f"a{position}") for position, aggregate in enumerate(aggregates))
    ).collect()[0]
    counts, values = RowCounts(*row[:4]), row[4:]
    for position, rule in enumerate(rules):
        count, low, high = values[len(extras) + 3 * position :][:3]
        if count:
            report = found.warning if rule.warning else found.problem
            report(
                f"{count} of {counts.rows} rows {rule.message(low, high, private=found.private)}"
            )
    if whole and not counts.rows:
        found.problem("the table has no rows")
    elif whole and counts.known and not counts.usable:
        found.problem(f"the weights '{weight}' sum to 0, expected some weight above 0")
    elif counts.weighed < counts.rows:
        found.warning(
            f"{counts.rows - counts.weighed} of {counts.rows} rows have weight 0 in '{weight}', so "
            "they are left out"
        )
    return counts, list(values[: len(extras)])


def check_repeated_ids(table: DataFrame, columns: Sequence[str], found: Findings) -> None:
    """Check that no id, of these columns together, is in two rows of a table."""
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
