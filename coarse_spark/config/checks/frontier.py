"""Checks of the block frontier: what moves along it."""

from __future__ import annotations

from collections.abc import Iterator

from coarse_spark.config.checks.problem import Check, Problem
from coarse_spark.errors import nearest


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


CHECKS: tuple[Check, ...] = (
    (("frontier.outcome", "frontier.weights", "experiment.outcome"), _weights),
)
