"""Defaults that depend on what else a configuration says.

None of them is ever a problem of the user's: where the usual one does not fit, another is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from coarse_spark.core.menu.problem.limits import SizeLimits
from coarse_spark.core.menu.problem.rules import eligibility_rules
from coarse_spark.core.policies import COMPARISONS, ON_FEATURES
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_LARGEST_SIZE = 6
_SUFFIXES = {".csv": "csv", ".parquet": "parquet"}


def settled(
    values: Mapping[str, Any], given: Collection[str], space: TreatmentSpace | None
) -> dict[str, Any]:
    """Return the defaults that are not the usual ones, by dotted key such as "menu.sizes".

    Parameters
    ----------
    values : valid values by dotted key, usual defaults included; invalid ones are left out.
    given : keys that the user gave.
    space : the treatments; None where they are invalid.
    """
    found: dict[str, Any] = {}
    if space is not None and "menu.sizes" in values and "menu.sizes" not in given:
        found["menu.sizes"] = _sizes(values, space)
    least, most = values.get("response.min_rows"), values.get("response.max_rows")
    if least is not None and most is not None and least > most:
        if "response.min_rows" not in given:
            found["response.min_rows"] = most
        elif "response.max_rows" not in given:
            found["response.max_rows"] = least
    if brought_along(values, given):
        found |= {key: value for key, value in _brought(values).items() if key not in given}
    if "design.kind" not in given and values.get("experiment.strata"):
        found["design.kind"] = "stratified"
    for block in ("experiment", "population"):
        kind = format_of(str(values.get(f"{block}.path") or ""))
        if kind is not None and f"{block}.format" not in given:
            found[f"{block}.format"] = kind
    return found


def brought_along(values: Mapping[str, Any], given: Collection[str]) -> bool:
    """Return whether responses are brought along, be it from a place that is none."""
    return "responses.experiment" in given and values.get("responses.experiment", "") is not None


def _brought(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults where responses are brought along: their models' noise is unknown."""
    found: dict[str, Any] = {"evaluation.resamples": 0}
    if not values.get("experiment.features"):
        found["evaluation.comparisons"] = tuple(n for n in COMPARISONS if n not in ON_FEATURES)
    return found


def format_of(path: str) -> str | None:
    """Return the format that the end of a path tells; None where it tells none."""
    plain = path.lower().rstrip("/")
    return next((kind for suffix, kind in _SUFFIXES.items() if plain.endswith(suffix)), None)


def _sizes(values: Mapping[str, Any], space: TreatmentSpace) -> tuple[int, ...]:
    """Return 1 to 6, as far as treatments, limits on shares and what is always offered allow."""
    least, most = values.get("menu.min_share"), values.get("menu.max_share")
    for share in (least, most):
        if isinstance(share, tuple):
            return (len(share),)  # one share for every place
    select = values.get("menu.select", "auto")
    first = _smallest_size(values, space)
    last = max(_LARGEST_SIZE, first, select if isinstance(select, int) else 1)
    offered = len(space.candidates)
    sizes = tuple(range(min(first, offered), min(last, offered) + 1))
    return tuple(k for k in sizes if _kept(least, most, k)) or sizes


def _kept(least: float | None, most: float | None, k: int) -> bool:
    try:
        SizeLimits.parse(least, most, k)
    except InvalidInputError:
        return False
    return True


def _smallest_size(values: Mapping[str, Any], space: TreatmentSpace) -> int:
    """Return the size of the smallest menu that holds all it must and has something for anybody."""
    always, rules = values.get("menu.always_offer", ()), values.get("menu.eligibility", {})
    if not always or not rules:
        return max(len(always), 1)
    try:
        encoded = space.encode(pd.DataFrame(list(always)))
        asked = [
            rule.applies(encoded, space)
            for rule in eligibility_rules(list(rules.values()), space, 0.0, [1.0] * len(rules))
        ]
    except InvalidInputError:  # checks of their own report it
        return len(always)
    return len(always) + bool(np.any(asked, axis=0).all())
