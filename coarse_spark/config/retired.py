"""Keys that configurations had once: their one remaining value is accepted and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from coarse_spark.config.checks.problem import Key, Problem, brief


class Retired(NamedTuple):
    """A key that is no longer needed.

    Attributes
    ----------
    accepted : the value that says what happens anyway.
    reason : why there is no other.
    """

    accepted: str
    reason: str


RETIRED: dict[tuple[str, str], Retired] = {
    ("menu", "method"): Retired("auto", "other searches are gone"),
    ("menu", "update"): Retired("plain", "other updates are gone"),
}


def without_retired(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[Key], list[Problem]]:
    """Return the values without retired keys, the accepted ones of these, and the problems."""
    result = dict(content)
    found: list[Key] = []
    problems: list[Problem] = []
    for (block, name), (accepted, reason) in RETIRED.items():
        values = result.get(block)
        if not isinstance(values, Mapping) or name not in values:
            continue
        result[block] = {other: value for other, value in values.items() if other != name}
        if values[name] == accepted:
            found.append((block, name))
        else:
            message = f"found {brief(values[name])}, expected {accepted}: {reason}"
            problems.append(Problem((block, name), message))
    return result, found, problems
