"""What a user hands to a menu search, checked and turned into arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.menu.lloyd import same_treatment
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.errors import InvalidInputError

log = logging.getLogger(__name__)


def validated_units(
    problem: MenuProblem,
    theta: npt.ArrayLike | pd.DataFrame,
    weights: npt.ArrayLike | None,
    invalid: str = "raise",
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return coefficients (m, p) and weights (m,) as floats, and which rows (n,) they are: those with weight.

    Parameters
    ----------
    theta : (n, p) coefficients of the basis. weights : (n,), default 1.
    invalid : "raise" refuses missing or infinite numbers, "drop" leaves their rows out and logs how many they are.

    Raises
    ------
    InvalidInputError : another shape, a missing or infinite number, a negative weight, or no weight at all.
    """
    if invalid not in ("raise", "drop"):
        raise InvalidInputError(f"invalid is {invalid!r}, expected 'raise' or 'drop'")
    try:
        units = np.asarray(theta, dtype=np.float64)
        mass = np.ones(len(units)) if weights is None else np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"theta and weights must be numbers: {error}") from None
    p = problem.basis.size
    if units.ndim != 2 or units.shape[1] != p:
        raise InvalidInputError(
            f"theta has shape {units.shape}, expected (n, {p}) for basis '{problem.basis.name}'"
            f" with columns {', '.join(problem.basis.columns[:8])}"
        )
    if mass.shape != (len(units),):
        raise InvalidInputError(f"weights have shape {mass.shape}, expected ({len(units)},)")
    whole = np.isfinite(units).all(axis=1) & np.isfinite(mass)
    if not whole.all():
        broken = np.flatnonzero(~whole)
        shown = ", ".join(map(str, broken[:5])) + (", …" if broken.size > 5 else "")
        if invalid == "raise":
            raise InvalidInputError(
                f"{broken.size} of {len(units)} units have missing or infinite coefficients or weights: rows {shown}; "
                "mend them, or leave them out with invalid='drop'"
            )
        log.warning(
            "%d of %d units left out: missing or infinite coefficients or weights in rows %s",
            broken.size,
            len(units),
            shown,
        )
    if (mass[whole] < 0).any():
        raise InvalidInputError(
            f"{int((mass < 0).sum())} weights are negative, the first in row {int((mass < 0).argmax())}"
        )
    kept = whole & (mass > 0)
    if not kept.any():
        raise InvalidInputError(
            f"no unit has weight: theta has {len(units)} rows, {int(whole.sum())} of them with finite numbers"
        )
    return (units, mass, kept) if kept.all() else (units[kept], mass[kept], kept)


def always_offered(
    problem: MenuProblem, always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None
) -> FloatArray:
    """Return the treatments that stay on the menu, encoded (f, d).

    Raises
    ------
    InvalidInputError : a treatment outside the space, excluded, or named twice.
    """
    space = problem.space
    if always_offer is None:
        return np.empty((0, len(space.dimensions)))
    frame = (
        always_offer
        if isinstance(always_offer, pd.DataFrame)
        else pd.DataFrame([dict(row) for row in always_offer])
    )
    if frame.empty:
        return np.empty((0, len(space.dimensions)))
    encoded = space.encode(frame)
    for row, treatment in enumerate(encoded):
        if not is_offered(problem, treatment):
            raise InvalidInputError(
                f"always_offer: {space.describe(treatment)} is not a treatment of the space"
            )
        if same_treatment(problem, encoded[:row], treatment).any():
            raise InvalidInputError(f"always_offer: {space.describe(treatment)} is named twice")
    return encoded


def is_offered(problem: MenuProblem, treatment: FloatArray) -> bool:
    """Return whether an encoded treatment (d,) is a candidate, or lies between candidates along the continuous dimensions."""
    space, free = problem.space, problem.searched
    if problem.position(treatment) is not None:
        return True
    if not free.any() or not np.isfinite(treatment).all():
        return False
    inside = bool(((treatment >= space.bounds[:, 0]) & (treatment <= space.bounds[:, 1])).all())
    stepped = problem.candidates[:, ~free]
    on_step = not stepped.shape[1] or bool(
        (np.abs(stepped - treatment[~free]) <= 1e-9).all(axis=1).any()
    )
    return inside and on_step and bool(space.allowed(treatment[None, :])[0])
