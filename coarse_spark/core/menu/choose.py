"""The public entry: choose one menu, or the whole curve of menu sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.curve import search_curve
from coarse_spark.core.menu.lloyd import Refined, refine, same_treatment, segment_sums
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.result import Menu
from coarse_spark.core.menu.sketch import DEFAULT_CELLS, MicroClusters, SketchTree
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]

_TREE_ROWS = 100_000


def choose_menu(
    theta: npt.ArrayLike | pd.DataFrame,
    *,
    space: TreatmentSpace,
    basis: Basis | str,
    profit: Profit,
    k: int,
    weights: npt.ArrayLike | None = None,
    always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
    previous_menu: Menu | None = None,
    starts: int = 8,
    seed: int = 0,
) -> Menu:
    """Choose the k treatments and the assignment that maximize profit.

    Parameters
    ----------
    theta : (n, p) response coefficients of the units. weights : (n,), default 1.
    always_offer : treatments that stay on the menu.
    """
    problem = MenuProblem.build(space, basis, profit)
    return choose_curve(
        problem, theta, [k], weights=weights, always_offer=always_offer, previous_menu=previous_menu, starts=starts, seed=seed
    )[k]


def choose_curve(
    problem: MenuProblem,
    theta: npt.ArrayLike | pd.DataFrame,
    sizes: Iterable[int],
    *,
    weights: npt.ArrayLike | None = None,
    always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
    previous_menu: Menu | None = None,
    starts: int = 8,
    max_passes: int = 100,
    tolerance: float = 1e-9,
    seed: int = 0,
) -> dict[int, Menu]:
    """Choose a menu of every size in ``sizes``, each started from the one before; value never falls with size.

    Parameters
    ----------
    problem : space, basis and profit. theta : (n, p) response coefficients. weights : (n,), default 1.
    always_offer : treatments that stay on every menu, as mappings of the user's values or a DataFrame.
    starts : random starts for every size. max_passes, tolerance : of the refinement on all units (see ``lloyd.refine``).
    """
    units, mass = validated_units(problem, theta, weights)
    fixed = always_offered(problem, always_offer)
    problem = MenuProblem.build(problem.space, problem.basis, problem.profit, fixed)
    wanted = sorted({int(k) for k in sizes})
    if wanted and wanted[-1] > len(units):
        raise InvalidInputError(
            f"a menu of {wanted[-1]} treatments for {len(units)} units with weight; choose k of at most {len(units)}"
        )
    seeds = None if previous_menu is None else previous_menu.encoded
    menus = search_curve(problem, sketch_units(problem, units, mass), wanted, fixed=fixed, previous=seeds, starts=starts, seed=seed)
    refined = refine(problem, menus, lambda asked: segment_sums(units, mass, asked), max_passes=max_passes, tolerance=tolerance)
    granular = float(mass @ problem.granular(units)[1] / mass.sum())
    return menus_of(problem, refined, granular)


def menus_of(problem: MenuProblem, refined: Refined, granular_value: float, method: str = "lloyd") -> dict[int, Menu]:
    """Return the public results of refined menus, treatments in ascending order.

    Parameters
    ----------
    granular_value : profit per unit weight when every unit gets its own best treatment.
    """
    result = {}
    for k, menu in refined.menus.items():
        sums = refined.sums[k]
        order = np.lexsort(menu.treatments.T[::-1])
        mean = sums.theta.sum(axis=0, keepdims=True) / sums.weight.sum()
        uniform = float(problem.polish(mean, problem.best_candidates(mean))[1][0])
        value = sums.value(menu.psi)
        ceiling = max(granular_value, value, uniform)
        result[k] = Menu(
            treatments=problem.space.decode(menu.treatments[order]),
            encoded=menu.treatments[order],
            psi=menu.psi[order],
            shares=sums.weight[order] / sums.weight.sum(),
            prices=menu.prices[order],
            value=value,
            upper_bound=ceiling,
            uniform_value=uniform,
            control_value=float(sums.value_of_all(problem.control_psi[None, :])[0]),
            granular_value=ceiling,
            method=method,
            history=tuple(line for line in refined.history if line.k == k),
        )
    return result


def sketch_units(problem: MenuProblem, theta: FloatArray, weights: FloatArray, cells: int = DEFAULT_CELLS) -> MicroClusters:
    """Return units (n, p) with weights (n,) as at most ``cells`` micro-clusters: the units themselves where they are few."""
    if len(theta) <= cells:
        return MicroClusters(weights, theta, np.ones(len(theta), dtype=np.intp))
    sample = np.arange(len(theta))
    if len(theta) > _TREE_ROWS:
        # every so many-th in the order of values, not of rows: the sample does not depend on the order of rows
        sample = np.lexsort(np.column_stack([weights, theta]).T)[:: -(-len(theta) // _TREE_ROWS)]
    return SketchTree.build(theta[sample], weights[sample], problem.psi, cells).sums(theta, weights).clusters()


def validated_units(
    problem: MenuProblem, theta: npt.ArrayLike | pd.DataFrame, weights: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """Return coefficients (n, p) and weights (n,) as floats, without the units of weight 0.

    Raises
    ------
    InvalidInputError : another shape, a missing or infinite number, a negative weight, or no weight at all.
    """
    try:
        units = np.asarray(theta, dtype=np.float64)
        mass = np.ones(len(units)) if weights is None else np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"theta and weights must be numbers: {error}") from None
    if units.ndim != 2 or units.shape[1] != problem.coefficients:
        raise InvalidInputError(
            f"theta has shape {units.shape}, expected (n, {problem.coefficients}) for basis '{problem.basis.name}'"
            f" with columns {', '.join(problem.basis.columns[:8])}"
        )
    if mass.shape != (len(units),):
        raise InvalidInputError(f"weights have shape {mass.shape}, expected ({len(units)},)")
    broken = np.flatnonzero(~np.isfinite(units).all(axis=1) | ~np.isfinite(mass))
    if broken.size:
        shown = ", ".join(map(str, broken[:5])) + (", …" if broken.size > 5 else "")
        raise InvalidInputError(
            f"{broken.size} of {len(units)} units have missing or infinite coefficients or weights: rows {shown}"
        )
    if (mass < 0).any():
        raise InvalidInputError(f"{int((mass < 0).sum())} weights are negative, the first in row {int((mass < 0).argmax())}")
    if not mass.sum() > 0:
        raise InvalidInputError(f"no unit has weight: theta has {len(units)} rows and the weights add up to 0")
    kept = mass > 0
    return (units, mass) if kept.all() else (units[kept], mass[kept])


def always_offered(problem: MenuProblem, always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None) -> FloatArray:
    """Return the treatments that stay on the menu, encoded (f, d).

    Raises
    ------
    InvalidInputError : a treatment outside the space, excluded, or named twice.
    """
    space = problem.space
    if always_offer is None:
        return np.empty((0, len(space.dimensions)))
    frame = always_offer if isinstance(always_offer, pd.DataFrame) else pd.DataFrame([dict(row) for row in always_offer])
    if frame.empty:
        return np.empty((0, len(space.dimensions)))
    encoded = space.encode(frame)
    for row, treatment in enumerate(encoded):
        inside = ((treatment >= space.bounds[:, 0]) & (treatment <= space.bounds[:, 1])).all()
        known = problem.position(treatment) is not None
        searched = bool(np.isfinite(treatment).all() and inside and space.continuous.any() and space.finite is None)
        if not known and not (searched and space.allowed(treatment[None, :])[0]):
            raise InvalidInputError(f"always_offer: {space.describe(treatment)} is not a treatment of the space")
        if same_treatment(problem, encoded[:row], treatment).any():
            raise InvalidInputError(f"always_offer: {space.describe(treatment)} is named twice")
    return encoded
