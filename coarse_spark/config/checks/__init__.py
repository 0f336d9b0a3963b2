"""Checks across the fields of a configuration: each reads valid values and yields problems.

A check runs as soon as the values it reads are valid themselves, so that one reading of a file
reports all that is wrong in it. Each module holds the checks of some blocks and ends with the table
of them:

tables : experiment, population, output.
estimation : design, response, evaluation.
responses : responses that are brought along.
menu : menu, with its limits.
expressions : all that is written in the treatment names, in profit and menu.
outcomes : several of them.
frontier : frontier.
treatments : the space that others need.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from coarse_spark.config.checks import (
    estimation,
    expressions,
    frontier,
    menu,
    outcomes,
    responses,
    tables,
)
from coarse_spark.config.checks.problem import GIVEN, NAMES, SPACE, VALUES, Check, Problem, Values
from coarse_spark.config.checks.treatments import treatment_space
from coarse_spark.config.defaults import settled
from coarse_spark.core.treatments import TreatmentSpace

__all__ = ["Problem", "find_problems"]

_CHECKS: tuple[Check, ...] = (
    *tables.CHECKS,
    *estimation.CHECKS,
    *responses.CHECKS,
    *menu.CHECKS,
    *expressions.CHECKS,
    *outcomes.CHECKS,
    *frontier.CHECKS,
)


def find_problems(
    values: Values, treatments: Sequence[str], given: Collection[str]
) -> list[Problem]:
    """Return the problems across fields.

    Parameters
    ----------
    values : validated values by dotted key; invalid ones are left out, and checks that need them
        are skipped.
    treatments : names of all treatments of the configuration, valid or not.
    given : keys that the user gave; other defaults are taken where the usual ones do not fit.
    """
    space = treatment_space(values)
    problems = [] if isinstance(space, TreatmentSpace) else space
    built = space if isinstance(space, TreatmentSpace) else None
    values = {**values, **settled(values, given, built)}
    known: dict[str, Any] = {**values, VALUES: values, NAMES: treatments, GIVEN: given}
    if built is not None:
        known[SPACE] = built
    for needs, check in _CHECKS:
        if all(key in known for key in needs):
            problems += list(check(*(known[key] for key in needs)))
    return problems
