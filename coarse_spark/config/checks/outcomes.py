"""Checks of several outcomes: each has a margin of its own, and all share one basis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coarse_spark.config.checks.problem import Check, Key, Problem
from coarse_spark.errors import nearest

_ByOutcome = str | Mapping[str, str]


def _paid(outcome: str | tuple[str, ...], key: Key, paid: _ByOutcome) -> Iterator[Problem]:
    known = [outcome] if isinstance(outcome, str) else list(outcome)
    if isinstance(paid, str):
        if len(known) > 1 and paid != "0":
            yield Problem(
                key,
                f"found '{paid}' beside several outcomes, expected a mapping with an expression "
                f"for each of {', '.join(known)}",
            )
        return
    yield from _known(outcome, key, paid)


def _known(
    outcome: str | tuple[str, ...], key: Key, given: str | Mapping[str, object]
) -> Iterator[Problem]:
    known = [outcome] if isinstance(outcome, str) else list(outcome)
    for name in () if isinstance(given, str) else given:
        if name not in known:
            yield Problem(
                (*key, name),
                f"found the outcome '{name}'{nearest(name, known)}, expected one of "
                f"{', '.join(known)} (experiment.outcome)",
            )


def _margins(outcome: str | tuple[str, ...], margin: _ByOutcome) -> Iterator[Problem]:
    yield from _paid(outcome, ("profit", "margin"), margin)


def _spending(outcome: str | tuple[str, ...], spending: _ByOutcome) -> Iterator[Problem]:
    yield from _paid(outcome, ("menu", "spending_per_outcome"), spending)


def _limits(outcome: str | tuple[str, ...], limits: Sequence[Any]) -> Iterator[Problem]:
    for place, limit in enumerate(limits):
        yield from _paid(outcome, ("menu", "limits", place, "per_outcome"), limit.per_outcome)


def _scales(outcome: str | tuple[str, ...], scale: _ByOutcome) -> Iterator[Problem]:
    yield from _known(outcome, ("response", "scale"), scale)


def _learners(outcome: str | tuple[str, ...], learner: _ByOutcome) -> Iterator[Problem]:
    yield from _known(outcome, ("response", "learner"), learner)


def _brought(
    outcome: str | tuple[str, ...], columns: tuple[str, ...] | Mapping[str, tuple[str, ...]]
) -> Iterator[Problem]:
    known, key = [outcome] if isinstance(outcome, str) else list(outcome), ("responses", "columns")
    if not isinstance(columns, Mapping):
        if columns and len(known) > 1:
            yield Problem(
                key,
                "found a list beside several outcomes, expected a mapping with the columns for "
                f"each of {', '.join(known)}",
            )
        return
    yield from _known(outcome, key, columns)
    for name in known:
        if name not in columns:
            yield Problem(key, f"found none for '{name}', expected columns for every outcome")


def _one_form(
    outcome: str | tuple[str, ...], basis: str | tuple[str, ...], shape: Mapping[str, str]
) -> Iterator[Problem]:
    if isinstance(outcome, str):
        return
    if basis == "auto" or not isinstance(basis, str):
        yield Problem(
            ("response", "basis"),
            "found several bases to compare beside several outcomes, which share one, expected the "
            "name of one basis",
        )
    if shape:
        yield Problem(
            ("response", "shape"),
            "found shapes beside several outcomes, expected none: they would hold for each outcome",
        )


CHECKS: tuple[Check, ...] = (
    (("experiment.outcome", "profit.margin"), _margins),
    (("experiment.outcome", "menu.spending_per_outcome"), _spending),
    (("experiment.outcome", "menu.limits"), _limits),
    (("experiment.outcome", "response.scale"), _scales),
    (("experiment.outcome", "response.learner"), _learners),
    (("experiment.outcome", "responses.columns"), _brought),
    (("experiment.outcome", "response.basis", "response.shape"), _one_form),
)
