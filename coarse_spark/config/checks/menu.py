"""Checks of the block menu: its sizes, what it must hold, its limits and its search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from coarse_spark.config.checks.problem import SPACE, Check, Key, Problem
from coarse_spark.core.menu.problem.limits import BUDGET, SizeLimits
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import Categorical, Continuous, TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

_TOLERANCE = 1e-9  # of float rounding when a value is compared with a bound or a step


def _selected(sizes: tuple[int, ...], select: int | str) -> Iterator[Problem]:
    if select != "auto" and select not in sizes:
        sizes_text = ", ".join(map(str, sizes))
        yield Problem(
            ("menu", "select"),
            f"found {select}, expected auto or one of menu.sizes: "
            f"{sizes_text}{nearest(select, sizes)}",
        )


def _enough_treatments(
    sizes: tuple[int, ...], exclude: str | None, space: TreatmentSpace
) -> Iterator[Problem]:
    count = len(space.candidates)
    if exclude is not None and count == 1:
        # the control is never excluded
        message = (
            f"'{exclude}' leaves nothing but the control ({space.describe(space.control)}), "
            "expected 0 for other treatments too"
        )
        yield Problem(("menu", "exclude"), message)
    elif sizes[-1] > count:
        rest = "" if exclude is None else f"; menu.exclude leaves out the others ('{exclude}')"
        message = (
            f"found {sizes[-1]}, expected at most {count}, the number of treatments that may be "
            f"offered{rest}"
        )
        yield Problem(("menu", "sizes"), message)


def _always_fits(
    sizes: tuple[int, ...], always: tuple[Mapping[str, Any], ...]
) -> Iterator[Problem]:
    if len(always) > sizes[0]:
        message = (
            f"found {len(always)} treatments, expected no more than the smallest of menu.sizes, "
            f"{sizes[0]}"
        )
        yield Problem(("menu", "always_offer"), message)


def _always_offered(
    sizes: tuple[int, ...], always: tuple[Mapping[str, Any], ...], space: TreatmentSpace
) -> Iterator[Problem]:
    for position, treatment in enumerate(always[: sizes[-1]]):  # _always_fits tells of more
        yield from _offered(("menu", "always_offer", position), treatment, space)


def _offered(key: Key, treatment: Mapping[str, Any], space: TreatmentSpace) -> Iterator[Problem]:
    names = set(treatment)
    if names != set(space.names):
        hints = "".join(nearest(name, space.names) for name in sorted(names - set(space.names)))
        yield Problem(
            key,
            f"found {', '.join(treatment) or 'nothing'}, expected a value for each of "
            f"{', '.join(space.names)}{hints}",
        )
        return
    for dimension in space.dimensions:
        value = treatment[dimension.name]
        problem = _outside(value, dimension)
        if problem:
            yield Problem((*key, dimension.name), f"found {value!r}, expected {problem}")
            return
    encoded = space.encode(pd.DataFrame([treatment]))
    if space.finite is not None and not space.same(np.array(space.finite), encoded[0]).any():
        yield Problem(
            key, f"found {dict(treatment)}, expected the control or one of treatments.candidates"
        )
    elif not space.allowed(encoded).all():
        yield Problem(
            key,
            "found a treatment that menu.exclude leaves out "
            f"('{space.exclude.text if space.exclude else ''}')",
        )


def _outside(value: Any, dimension: Continuous | Categorical) -> str | None:
    """Return what was expected where ``value`` is not offered in ``dimension``."""
    if isinstance(dimension, Categorical):
        levels = ", ".join(map(str, dimension.levels))
        return (
            None
            if value in dimension.levels
            else f"one of the levels {levels}{nearest(value, dimension.levels)}"
        )
    if isinstance(value, bool | str):
        return "a number"
    if value == dimension.control:
        return None
    if dimension.listed_values is not None:
        values = ", ".join(f"{known:g}" for known in dimension.listed_values)
        known = value in dimension.listed_values
        return None if known else f"the control {dimension.control:g} or one of {values}"
    if not dimension.lower <= value <= dimension.upper:
        return (
            f"the control {dimension.control:g} or a number from {dimension.lower:g} to "
            f"{dimension.upper:g}"
        )
    if dimension.step is not None:
        steps = (value - dimension.lower) / dimension.step
        if abs(steps - round(steps)) > _TOLERANCE * max(1.0, abs(steps)):
            below = dimension.lower + dimension.step * np.floor(steps)
            return (
                f"{dimension.lower:g} plus whole steps of {dimension.step:g}, such as {below:g} "
                f"or {below + dimension.step:g}"
            )
    return None


def _shares(
    sizes: tuple[int, ...],
    least: float | tuple[float, ...] | None,
    most: float | tuple[float, ...] | None,
) -> Iterator[Problem]:
    for name, share in (("min_share", least), ("max_share", most)):
        if isinstance(share, tuple) and sizes != (len(share),):
            yield Problem(
                ("menu", name),
                f"found a list of {len(share)} shares, expected menu.sizes to be "
                f"[{len(share)}] alone",
            )
            return
    for k in sizes:
        try:
            SizeLimits.parse(least, most, k)
        except InvalidInputError as error:
            name = "max_share" if str(error).startswith("max_share") else "min_share"
            others = (
                ""
                if len(sizes) == 1
                else f"; or leave {'small' if name == 'max_share' else 'large'} sizes out of "
                "menu.sizes"
            )
            yield Problem(("menu", name), f"a menu of {k} cannot keep it: {error}{others}")
            return


def _spending(
    budget: float | None,
    per_unit: str | None,
    per_outcome: str | Mapping[str, str],
    budgets: tuple[float, ...],
) -> Iterator[Problem]:
    given = [
        name
        for name, text in (
            ("spending_per_unit", per_unit or "0"),
            ("spending_per_outcome", _paid(per_outcome)),
        )
        if text != "0"
    ]
    if budget is None and given and not budgets:
        yield Problem(
            ("menu", given[0]), "found spending without a budget, expected menu.budget beside it"
        )


def _paid(per_outcome: str | Mapping[str, str]) -> str:
    """Return what is spent per unit of outcome; of several outcomes, 0 where none costs any."""
    if isinstance(per_outcome, str):
        return per_outcome
    return next((text for text in per_outcome.values() if text != "0"), "0")


def _budgets(
    budget: float | None,
    budgets: tuple[float, ...],
    per_unit: str | None,
    per_outcome: str | Mapping[str, str],
    cost: str,
    space: TreatmentSpace,
) -> Iterator[Problem]:
    """Yield a problem for a budget that nothing counts against, or that no treatment is within."""
    given: list[tuple[Key, float]] = [] if budget is None else [(("menu", "budget"), budget)]
    given += [(("frontier", "budgets"), at) for at in budgets]
    if not given:
        return
    try:
        spending = Profit(_paid(per_outcome), cost if per_unit is None else per_unit)
        spending.check(space)
        an_outcome, a_unit = spending.terms(space.candidates, space)
    except InvalidInputError:
        return  # expressions have checks of their own
    if an_outcome.any():
        return  # what outcomes cost is known when responses are
    if not a_unit.any():
        source = "profit.cost" if per_unit is None else "menu.spending_per_unit"
        message = f"nothing counts as spending, as {source} is 0 for every treatment"
        yield Problem(
            given[0][0],
            f"{message}; expected menu.spending_per_unit or menu.spending_per_outcome beside it",
        )
        return
    for key, at in given:
        if a_unit.min() > at:
            yield Problem(
                key,
                f"found {at:g}, expected at least {a_unit.min():g}, what the cheapest treatment "
                "spends",
            )


def _limits(limits: Sequence[Any]) -> Iterator[Problem]:
    """Yield a problem for a limit that limits nothing, or twice, or has a name of another."""
    names = [BUDGET]
    for place, limit in enumerate(limits):
        key = ("menu", "limits", place)
        if limit.name in names:
            taken = "menu.budget has" if limit.name == BUDGET else "another limit has"
            yield Problem((*key, "name"), f"found '{limit.name}', which {taken}, expected another")
        names.append(limit.name)
        if (limit.at_most is None) == (limit.at_least is None):
            found = "neither" if limit.at_most is None else "both"
            yield Problem(key, f"found {found} of at_most and at_least, expected one of them")
        if _paid(limit.per_outcome) == "0" and limit.per_unit == "0":
            yield Problem(key, "nothing counts, expected per_unit or per_outcome")


def _ruled(
    assignment: str,
    least: float | tuple[float, ...] | None,
    most: float | tuple[float, ...] | None,
    budget: float | None,
    further: Sequence[Any],
) -> Iterator[Problem]:
    limits = {
        "min_share": least,
        "max_share": most,
        "budget": budget,
        "limits": further or None,
    }
    given = [f"menu.{name}" for name, value in limits.items() if value is not None]
    if assignment == "rule" and given:
        yield Problem(
            ("menu", "assignment"),
            f"found rule beside {' and '.join(given)}, which no rule over features can keep; "
            "expected exact, or no limits",
        )


def _switching(previous_run: str | None, cost: float) -> Iterator[Problem]:
    if cost > 0 and previous_run is None:
        message = (
            f"found {cost:g} without menu.previous_run, expected current or the id of the run "
            "whose assignments would change"
        )
        yield Problem(("menu", "switching_cost"), message)


CHECKS: tuple[Check, ...] = (
    (("menu.sizes", "menu.select"), _selected),
    (("menu.sizes", "menu.exclude", SPACE), _enough_treatments),
    (("menu.sizes", "menu.always_offer"), _always_fits),
    (("menu.sizes", "menu.always_offer", SPACE), _always_offered),
    (("menu.sizes", "menu.min_share", "menu.max_share"), _shares),
    (
        (
            "menu.budget",
            "menu.spending_per_unit",
            "menu.spending_per_outcome",
            "frontier.budgets",
        ),
        _spending,
    ),
    (
        (
            "menu.budget",
            "frontier.budgets",
            "menu.spending_per_unit",
            "menu.spending_per_outcome",
            "profit.cost",
            SPACE,
        ),
        _budgets,
    ),
    (
        ("menu.assignment", "menu.min_share", "menu.max_share", "menu.budget", "menu.limits"),
        _ruled,
    ),
    (("menu.limits",), _limits),
    (("menu.previous_run", "menu.switching_cost"), _switching),
)
