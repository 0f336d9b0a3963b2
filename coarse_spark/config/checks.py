"""Checks across the fields of a configuration: each reads validated values and yields the problems it finds.

A check runs as soon as the values it reads are valid themselves, so that one reading of a file reports all that is wrong in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coarse_spark.core.basis import Basis, candidate_bases
from coarse_spark.core.expressions import Expression
from coarse_spark.core.learners.shape import check_shape
from coarse_spark.core.menu.limits import ShareLimits
from coarse_spark.core.menu.rules import restrictions
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import Categorical, Continuous, TreatmentSpace
from coarse_spark.errors import ExpressionError, InvalidInputError, nearest

_TOLERANCE = 1e-9  # of float rounding when a value is compared with a bound or a step

# characters that a column of a Delta table cannot have
_REFUSED = frozenset(" ,;{}()\n\t=")
_PLAIN_NAME = "expected one without spaces and , ; { } ( ) =, which Delta tables refuse"

# columns beside those of the treatments in the tables `menu` and `assignments`
WRITTEN_COLUMNS = frozenset(
    {
        "run_id",
        "k",
        "treatment_id",
        "share",
        "shadow_price",
        "extrapolates",
        "selected",
        "unit_id",
        "expected_profit",
        "expected_incremental_profit",
        "regret",
        "runner_up_treatment_id",
        "changed",
    }
)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at ``key``, its path in the configuration."""

    key: tuple[str | int, ...]
    message: str


Values = Mapping[str, Any]


def find_problems(values: Values, treatments: Sequence[str]) -> list[Problem]:
    """Return the problems across fields.

    Parameters
    ----------
    values : validated values by dotted key; invalid ones are left out, and checks that need them are skipped.
    treatments : names of all treatments of the configuration, valid or not.
    """
    problems = []
    for needs, check in _CHECKS:
        if all(key in values for key in needs):
            problems += list(check(*(values[key] for key in needs)))
    problems += _expression_names(values, treatments)
    problems += _column_roles(values, treatments)
    problems += _treatment_names(treatments)
    space = _space(values)
    if isinstance(space, TreatmentSpace):
        problems += [*_on_the_space(values, space), *_shapes(values, space), *_eligibility(values, space)]
    else:
        problems += space
    return problems


def _one_source(table: str | None, path: str | None, bundled: str | None) -> Iterator[Problem]:
    found = [name for name, value in (("table", table), ("path", path), ("bundled", bundled)) if value is not None]
    if len(found) != 1:
        yield Problem(("experiment",), f"found {' and '.join(found) or 'no source'}, expected exactly one of table, path, bundled")


def _one_population(table: str | None, path: str | None) -> Iterator[Problem]:
    if table is not None and path is not None:
        yield Problem(("population",), "found table and path, expected one of them, or neither for the experiment's units")


def _one_output(path: str | None, catalog: str | None, schema: str | None) -> Iterator[Problem]:
    if path is not None and (catalog is not None or schema is not None):
        yield Problem(("output",), "found a path and a catalog schema, expected one of them")
    elif catalog is not None and schema is None:
        yield Problem(("output", "catalog"), f"found the catalog {catalog} without a schema, expected output.schema beside it")
    elif path is None and schema is None:
        yield Problem(("output",), "found no place for the tables, expected exactly one of path, schema (with or without catalog)")


def _strata(kind: str, strata: tuple[str, ...]) -> Iterator[Problem]:
    if kind == "stratified" and not strata:
        message = (
            "found stratified without strata, expected experiment.strata to name the columns that treatments were randomized within"
        )
        yield Problem(("design", "kind"), message)


def _rows_a_model(min_rows: int, max_rows: int) -> Iterator[Problem]:
    if min_rows > max_rows:
        yield Problem(("response", "min_rows"), f"found {min_rows}, expected at most response.max_rows = {max_rows}")


def _selected(sizes: tuple[int, ...], select: int | str) -> Iterator[Problem]:
    if select != "auto" and select not in sizes:
        sizes_text = ", ".join(map(str, sizes))
        yield Problem(
            ("menu", "select"), f"found {select}, expected auto or one of menu.sizes: {sizes_text}{nearest(select, sizes)}"
        )


def _shares(
    sizes: tuple[int, ...], least: float | tuple[float, ...] | None, most: float | tuple[float, ...] | None
) -> Iterator[Problem]:
    for name, share in (("min_share", least), ("max_share", most)):
        if isinstance(share, tuple) and sizes != (len(share),):
            yield Problem(("menu", name), f"found a list of {len(share)} shares, expected menu.sizes to be [{len(share)}] alone")
            return
    for k in sizes:
        try:
            ShareLimits.of_places(least, most, k)
        except InvalidInputError as error:
            name = "max_share" if str(error).startswith("max_share") else "min_share"
            others = "" if len(sizes) == 1 else f"; or leave {'small' if name == 'max_share' else 'large'} sizes out of menu.sizes"
            yield Problem(("menu", name), f"a menu of {k} cannot keep it: {error}{others}")
            return


def _switching(previous_run: str | None, cost: float) -> Iterator[Problem]:
    if cost > 0 and previous_run is None:
        message = f"found {cost:g} without menu.previous_run, expected current or the id of the run whose assignments would change"
        yield Problem(("menu", "switching_cost"), message)


def _update(update: str, least: object, most: object, budget: object) -> Iterator[Problem]:
    if update == "debiased" and any(limit is not None for limit in (least, most, budget)):
        message = "found debiased with min_share, max_share or budget, expected plain: prices of limits belong to learned responses"
        yield Problem(("menu", "update"), message)


def _resamples(resamples: int) -> Iterator[Problem]:
    if resamples == 1:
        yield Problem(("evaluation", "resamples"), "found 1, which shows no spread, expected 0 or at least 2")


def _method(method: str, least: object, most: object, budget: object, treatments: Mapping[str, Any]) -> Iterator[Problem]:
    limits = [name for name, value in (("min_share", least), ("max_share", most), ("budget", budget)) if value is not None]
    if method in ("exact", "greedy") and limits:
        yield Problem(("menu", "method"), f"found {method}, which knows no menu.{limits[0]}, expected auto, lloyd or milp")
    elif method == "exact" and len(treatments) > 1:
        yield Problem(("menu", "method"), f"found exact, which takes one treatment dimension, not {len(treatments)}; use auto")


def _spending(budget: float | None, per_unit: str | None, per_outcome: str) -> Iterator[Problem]:
    given = [name for name, text in (("spending_per_unit", per_unit or "0"), ("spending_per_outcome", per_outcome)) if text != "0"]
    if budget is None and given:
        yield Problem(("menu", given[0]), "found spending without a budget, expected menu.budget beside it")


def _always_fits(sizes: tuple[int, ...], always: tuple[Mapping[str, Any], ...]) -> Iterator[Problem]:
    if len(always) > sizes[0]:
        message = f"found {len(always)} treatments, expected no more than the smallest of menu.sizes, {sizes[0]}"
        yield Problem(("menu", "always_offer"), message)


_CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Problem]]], ...] = (
    (("experiment.table", "experiment.path", "experiment.bundled"), _one_source),
    (("population.table", "population.path"), _one_population),
    (("output.path", "output.catalog", "output.schema"), _one_output),
    (("design.kind", "experiment.strata"), _strata),
    (("response.min_rows", "response.max_rows"), _rows_a_model),
    (("menu.sizes", "menu.select"), _selected),
    (("menu.sizes", "menu.min_share", "menu.max_share"), _shares),
    (("menu.sizes", "menu.always_offer"), _always_fits),
    (("menu.previous_run", "menu.switching_cost"), _switching),
    (("menu.update", "menu.min_share", "menu.max_share", "menu.budget"), _update),
    (("evaluation.resamples",), _resamples),
    (("menu.method", "menu.min_share", "menu.max_share", "menu.budget", "treatments"), _method),
    (("menu.budget", "menu.spending_per_unit", "menu.spending_per_outcome"), _spending),
)


_EXPRESSIONS = ("profit.margin", "profit.cost", "menu.exclude", "menu.spending_per_unit", "menu.spending_per_outcome")


def _expressions(values: Values) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the key and the text of every expression in the treatment names."""
    for key in _EXPRESSIONS:
        if values.get(key) is not None:
            yield tuple(key.split(".")), values[key]
    for name, text in values.get("menu.eligibility", {}).items():
        yield ("menu", "eligibility", name), text


def _expression_names(values: Values, treatments: Sequence[str]) -> Iterator[Problem]:
    for key, text in _expressions(values):
        try:
            Expression(text).require_names(treatments)
        except ExpressionError as error:
            yield Problem(key, str(error))


def _expression_levels(values: Values, space: TreatmentSpace) -> Iterator[Problem]:
    """Yield a problem for every text in an expression that is no level: it would silently equal nothing."""
    levels = [level for d in space.dimensions if isinstance(d, Categorical) for level in d.levels if isinstance(level, str)]
    for key, expression in _expressions(values):
        for text in sorted(Expression(expression).texts - set(levels)):
            known = ", ".join(levels) or "none"
            message = f"'{expression}' compares with '{text}', which is no level of a treatment{nearest(text, levels)}"
            yield Problem(key, f"{message}; declared levels that are texts: {known}")


def _eligibility(values: Values, space: TreatmentSpace) -> Iterator[Problem]:
    """Yield a problem for every rule that is no rule, or that would keep units from being left alone."""
    for name, text in values.get("menu.eligibility", {}).items():
        key = ("menu", "eligibility", name)
        if not Expression(text).names <= set(space.names):
            continue  # reported by _expression_names
        try:
            restricted = restrictions([text], space, 0.0, [1.0])[0].restricts(np.vstack([space.control, space.candidates]), space)
        except InvalidInputError as error:
            yield Problem(key, str(error).removeprefix("eligible: "))
            continue
        if restricted[0]:
            message = f"'{text}' is not 0 at the control ({space.describe(space.control)}), expected 0: any unit may be left alone"
            yield Problem(key, message)


def _shapes(values: Values, space: TreatmentSpace) -> Iterator[Problem]:
    if "response.shape" not in values or "response.basis" not in values:
        return
    bases = [basis for basis, problem in _bases(values["response.basis"], space) if problem is None]
    for name, words in values["response.shape"].items():
        try:
            for basis in bases:
                check_shape({name: words}, Basis(basis, space))
        except InvalidInputError as error:
            yield Problem(("response", "shape", name), f"found '{words}': {error}")


def _bases(wanted: str | tuple[str, ...], space: TreatmentSpace) -> Iterator[tuple[str, Problem | None]]:
    """Yield every basis to compare, with what is wrong with it."""
    for position, name in enumerate(candidate_bases(wanted, space)):
        try:
            Basis(name, space)
            yield name, None
        except InvalidInputError as error:
            yield name, Problem(("response", "basis") if isinstance(wanted, str) else ("response", "basis", position), str(error))


def _column_roles(values: Values, treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every column with two roles that exclude each other."""
    taken: dict[str, str] = dict.fromkeys(treatments, "a treatment")
    for role in ("unit_id", "outcome", "weight", "features", "partition_by", "strata"):
        found = values.get(f"experiment.{role}") or ()
        columns = (found,) if isinstance(found, str) else found
        for position, column in enumerate(columns):
            if column in taken:
                key = ("experiment", role) if isinstance(found, str) else ("experiment", role, position)
                yield Problem(key, f"found '{column}', which is {taken[column]} already, expected another column")
        # a column may describe a unit, cut partitions, be a stratum and a rule of eligibility at once
        if role in ("unit_id", "outcome", "weight"):
            taken |= {column: f"experiment.{role}" for column in columns if column not in taken}
    for column in values.get("menu.eligibility", {}):
        key = ("menu", "eligibility", column)
        if column in taken:
            yield Problem(key, f"found '{column}', which is {taken[column]} already, expected another column")
        elif set(column) & _REFUSED:
            yield Problem(key, f"found the column '{column}', {_PLAIN_NAME}")


def _treatment_names(treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every name that cannot be a column of the tables that a run writes."""
    for name in treatments:
        if name.casefold() in WRITTEN_COLUMNS:
            message = f"'{name}' is a column of its own in the tables that a run writes, expected another name"
            yield Problem(("treatments", name), f"{message}; rename the column of the experiment, for instance to offered_{name}")
        elif not name.strip() or set(name) & _REFUSED:
            yield Problem(("treatments", name), f"found the name '{name}', {_PLAIN_NAME}")


def _space(values: Values) -> TreatmentSpace | list[Problem]:
    """Return the treatment space, or the problems that keep it from being built."""
    if "treatments" not in values:
        return []
    entries = {name: treatment.model_dump() for name, treatment in values["treatments"].items()}
    problems = []
    for name, entry in entries.items():
        try:
            TreatmentSpace.from_dict({name: entry})
        except InvalidInputError as error:
            message = str(error).removeprefix(f"treatment '{name}': ")
            field = message.split()[0]  # core's messages begin with the field they are about
            problems.append(Problem(("treatments", name, field) if field in entry else ("treatments", name), message))
    if problems:
        return problems
    exclude = values.get("menu.exclude")
    if exclude is not None and not Expression(exclude).names <= set(entries):
        return []  # reported by _expression_names
    try:
        space = TreatmentSpace.from_dict(entries, exclude)
        len(space.candidates)
    except InvalidInputError as error:
        return [Problem(("treatments",) if exclude is None or "grid" in str(error) else ("menu", "exclude"), str(error))]
    return space


def _on_the_space(values: Values, space: TreatmentSpace) -> Iterator[Problem]:
    yield from _expression_levels(values, space)
    count = len(space.candidates)
    if "menu.sizes" in values and values["menu.sizes"][-1] > count:
        message = f"found {values['menu.sizes'][-1]}, expected at most {count}, the number of treatments that may be offered"
        yield Problem(("menu", "sizes"), message)
    for position, treatment in enumerate(values.get("menu.always_offer", ())):
        yield from _offered(("menu", "always_offer", position), treatment, space)
    if "response.basis" in values:
        yield from (problem for _, problem in _bases(values["response.basis"], space) if problem is not None)
    for key in _EXPRESSIONS:
        text = values.get(key)
        if key != "menu.exclude" and text is not None and Expression(text).names <= set(space.names):
            block, name = key.split(".")
            try:
                # one expression at a time, so that each is reported by itself
                Profit(**{"margin" if name in ("margin", "spending_per_outcome") else "cost": text}).terms(space.candidates, space)
            except InvalidInputError as error:
                message = str(error).removeprefix("profit: ")
                # core calls the two parts of spending by the names of profit's
                yield Problem((block, name), message if block == "profit" else message.split(" ", 2)[2])


def _offered(key: tuple[str | int, ...], treatment: Mapping[str, Any], space: TreatmentSpace) -> Iterator[Problem]:
    names = set(treatment)
    if names != set(space.names):
        hints = "".join(nearest(name, space.names) for name in sorted(names - set(space.names)))
        yield Problem(
            key, f"found {', '.join(treatment) or 'nothing'}, expected a value for each of {', '.join(space.names)}{hints}"
        )
        return
    for dimension in space.dimensions:
        value = treatment[dimension.name]
        problem = _outside(value, dimension)
        if problem:
            yield Problem((*key, dimension.name), f"found {value!r}, expected {problem}")
            return
    if not space.allowed(space.encode(pd.DataFrame([treatment]))).all():
        yield Problem(key, f"found a treatment that menu.exclude leaves out ('{space.exclude.text if space.exclude else ''}')")


def _outside(value: Any, dimension: Continuous | Categorical) -> str | None:
    """Return what was expected where ``value`` is not offered in ``dimension``."""
    if isinstance(dimension, Categorical):
        levels = ", ".join(map(str, dimension.levels))
        return None if value in dimension.levels else f"one of the levels {levels}{nearest(value, dimension.levels)}"
    if isinstance(value, bool | str):
        return "a number"
    if value == dimension.control:
        return None
    if not dimension.lower <= value <= dimension.upper:
        return f"the control {dimension.control:g} or a number from {dimension.lower:g} to {dimension.upper:g}"
    if dimension.step is not None:
        steps = (value - dimension.lower) / dimension.step
        if abs(steps - round(steps)) > _TOLERANCE * max(1.0, abs(steps)):
            below = dimension.lower + dimension.step * np.floor(steps)
            return f"{dimension.lower:g} plus whole steps of {dimension.step:g}, such as {below:g} or {below + dimension.step:g}"
    return None
