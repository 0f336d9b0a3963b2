"""Checks of the block frontier: what moves along it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coarse_spark.config.checks.problem import Check, Problem
from coarse_spark.core.profit import Profit, ProfitCoefficients
from coarse_spark.errors import InvalidInputError, nearest


def _weights(
    name: str | None, weights: tuple[float, ...], outcome: str | tuple[str, ...]
) -> Iterator[Problem]:
    outcomes = (outcome,) if isinstance(outcome, str) else outcome
    listed = ", ".join(outcomes)
    if name is not None and name not in outcomes:
        message = f"found '{name}', expected one of experiment.outcome: {listed}"
        yield Problem(("frontier", "outcome"), f"{message}{nearest(name, outcomes)}")
    elif name is not None and not weights:
        message = "found none, expected money that one more unit of frontier.outcome counts for"
        yield Problem(("frontier", "weights"), f"{message}, such as [-1, 1]")
    elif name is None and weights and len(outcomes) > 1:
        message = f"found none, expected the one that frontier.weights are of: {listed}"
        yield Problem(("frontier", "outcome"), message)


def _factors(
    budgets: tuple[float, ...],
    budget: float | None,
    per_unit: str | None,
    per_outcome: str | Mapping[str, str],
    margin: str | Mapping[str, str],
    cost: str,
    limits: Sequence[Any],
    columns: tuple[str, ...],
) -> Iterator[Problem]:
    """Yield a problem for spending by columns of the units that a run's responses do not hold."""
    if not budgets or budget is not None or not columns:
        return
    try:
        held = [Profit(margin, cost, columns)]
        held += [Profit(limit.per_outcome, limit.per_unit, columns) for limit in limits]
        counted = Profit(per_outcome, per_unit or cost, columns)
        own, needed = (
            ProfitCoefficients.of(1, profits).factors for profits in (held, [*held, counted])
        )
    except InvalidInputError:
        return  # expressions have checks of their own
    if len(needed) > len(own):
        yield Problem(
            ("menu", "budget"),
            f"found none, and what counts as spending multiplies '{needed[-1].text}', which "
            "profit does not: expected a budget, one that nobody reaches where there is no limit",
        )


CHECKS: tuple[Check, ...] = (
    (
        (
            "frontier.budgets",
            "menu.budget",
            "menu.spending_per_unit",
            "menu.spending_per_outcome",
            "profit.margin",
            "profit.cost",
            "menu.limits",
            "profit.unit_columns",
        ),
        _factors,
    ),
    (("frontier.outcome", "frontier.weights", "experiment.outcome"), _weights),
)
