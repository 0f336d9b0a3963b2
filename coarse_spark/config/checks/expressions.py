"""Checks of all that is written as an expression in the treatment names, in whatever block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from coarse_spark.config.checks.problem import (
    NAMES,
    SPACE,
    VALUES,
    Check,
    Key,
    Problem,
    Values,
)
from coarse_spark.config.checks.tables import unit_columns
from coarse_spark.core.expressions import Expression, shown
from coarse_spark.core.menu.problem.rules import eligibility_rules
from coarse_spark.core.profit import Profit, ProfitCoefficients
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import ExpressionError, InvalidInputError

_EXPRESSIONS = (
    "profit.margin",
    "profit.cost",
    "menu.exclude",
    "menu.spending_per_unit",
    "menu.spending_per_outcome",
)

_OF_UNITS = (
    "columns of the units may be experiment.features, name in menu.eligibility who may get a "
    "treatment, or be profit.unit_columns, which may stand in profit and spending"
)


def _expressions(values: Values) -> Iterator[tuple[Key, str]]:
    """Yield the key and the text of every expression in the treatment names."""
    for key in _EXPRESSIONS:
        block, field = key.split(".")
        found = values.get(key)
        if isinstance(found, Mapping):
            yield from (((block, field, outcome), text) for outcome, text in found.items())
        elif found is not None:
            yield (block, field), found
    for name, text in values.get("menu.eligibility", {}).items():
        yield ("menu", "eligibility", name), text
    for place, limit in enumerate(values.get("menu.limits", ())):
        yield ("menu", "limits", place, "per_unit"), limit.per_unit
        counted = limit.per_outcome
        if isinstance(counted, str):
            counted = {None: counted}
        for outcome, text in counted.items():
            further = () if outcome is None else (outcome,)
            yield ("menu", "limits", place, "per_outcome", *further), text


def _names(values: Values, treatments: Sequence[str]) -> Iterator[Problem]:
    units = unit_columns(values)
    for key, text in _expressions(values):
        expression = Expression(text)
        known, expected = list(treatments), "treatments alone"
        if key[0] == "profit" or str(key[1]).startswith(("spending", "limits")):
            known += values.get("profit.unit_columns", ())
            expected = "treatments or profit.unit_columns"
        of_units = sorted(expression.names & (units.keys() - set(known)))
        if of_units:
            message = (
                f"'{shown(text)}' uses '{of_units[0]}', which is a column of the units "
                f"({units[of_units[0]]}), expected {expected}: {', '.join(known)}; "
                f"{_OF_UNITS}"
            )
            yield Problem(key, message)
            continue
        try:
            expression.require_names(known)
        except ExpressionError as error:
            yield Problem(key, f"{error}; {_OF_UNITS}")


def _eligibility(values: Values, space: TreatmentSpace) -> Iterator[Problem]:
    """Yield a problem for every rule that is none, or that keeps units from being left alone."""
    for name, text in values.get("menu.eligibility", {}).items():
        key = ("menu", "eligibility", name)
        if not Expression(text).names <= set(space.names):
            continue  # reported by _names
        try:
            restricted = eligibility_rules([text], space, 0.0, [1.0])[0].applies(
                np.vstack([space.control, space.candidates]), space
            )
        except InvalidInputError as error:
            yield Problem(key, str(error).removeprefix("eligible: "))
            continue
        if restricted[0]:
            message = (
                f"'{text}' is not 0 at the control ({space.describe(space.control)}), expected 0: "
                "any unit may be left alone"
            )
            yield Problem(key, message)


def _terms(values: Values, space: TreatmentSpace) -> Iterator[Problem]:
    """Yield a problem for every expression of money that no treatment, or not each, has a value of.

    Those are comparisons that can never hold, and values that are no finite numbers.
    """
    columns = values.get("profit.unit_columns", ())
    if set(columns) & set(space.names):
        return  # reported with the roles of columns
    for key, text in _expressions(values):
        field = key[1]
        if field in ("exclude", "eligibility") or not Expression(text).names <= {
            *space.names,
            *columns,
        }:
            continue
        try:
            # one expression at a time, so that each is reported by itself
            of_outcome = bool({"margin", "spending_per_outcome", "per_outcome"} & set(key))
            profit = Profit(text, "0", columns) if of_outcome else Profit("0", text, columns)
            profit.check(space)
            ProfitCoefficients.of(1, [profit]).amounts(profit, space.candidates, space)
        except ExpressionError as error:
            yield Problem(key, str(error))
        except InvalidInputError as error:
            message = str(error).removeprefix("profit: ")
            # core calls the two parts of spending by the names of profit's
            yield Problem(key, message if key[0] == "profit" else message.split(" ", 2)[2])


CHECKS: tuple[Check, ...] = (
    ((VALUES, NAMES), _names),
    ((VALUES, SPACE), _terms),
    ((VALUES, SPACE), _eligibility),
)
