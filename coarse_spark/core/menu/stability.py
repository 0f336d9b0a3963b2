"""How much the choice of a menu owes to chance.

Menus are chosen for resampled populations, and valued by what they lose on the original one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import DEFAULTS, SearchSettings
from coarse_spark.core.menu.sketch import SketchTree
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits
from coarse_spark.core.treatments import Continuous
from coarse_spark.errors import InvalidInputError

_CELLS = 1_000
_NOISE_CELLS = 400  # noise moves menus further than so fine a sketch
STARTS = 2  # of the searches, beside the menu itself
_SHOWN_STEPS = 8  # a dimension without a step is shown in so many


@dataclass(frozen=True, eq=False)
class Stability:
    """What resampling shows.

    Attributes
    ----------
    chosen : one row a rounded treatment: its columns in the user's values and ``frequency``, the
        share of resampled menus that hold it.
    lost : (resamples,) what each resampled menu loses on the original sketch against the original
        menu, per unit weight; NaN for one that cannot keep limits on totals there.
    value : of the original menu on the sketch, per unit weight.
    """

    chosen: pd.DataFrame
    lost: FloatArray
    value: float

    @property
    def expected_loss(self) -> float:
        """Mean value lost to estimation noise, per unit weight."""
        known = self.lost[np.isfinite(self.lost)]
        return float(known.mean()) if known.size else np.nan


def menu_stability(
    problem: MenuProblem,
    units: WeightedUnits,
    menu: PricedMenu,
    settings: SearchSettings = DEFAULTS,
    *,
    covariance: FloatArray | None = None,
    directions: FloatArray | None = None,
    resamples: int = 50,
) -> Stability:
    """Choose the menu again on resampled populations, each time within its limits.

    Parameters
    ----------
    units : sketch of the population.
    menu : of K treatments, chosen on it. Searches start from it.
    settings : limits and required treatments of every menu, and the seed.
    covariance : (p, p) or (m, p, p) posterior covariance of the units' mean responses; without it
        only the population is resampled (Bayesian bootstrap: Rubin, 1981).
    directions : (q, m, p) noise that the units share, as the errors of one response function do: a
        resample adds their sum with independent standard normal factors (see ``fold_noise``).
    resamples : how many.

    Raises
    ------
    InvalidInputError : fewer than two resamples, a covariance of another shape, or limits that a
        resampled population cannot keep.
    """
    problem, p, m = settings.posed(problem), problem.coefficients, len(units)
    if resamples < 2:
        raise InvalidInputError(f"resamples is {resamples}, expected at least 2")
    if covariance is not None and covariance.shape not in ((p, p), (m, p, p)):
        raise InvalidInputError(
            f"covariance has shape {covariance.shape}, expected {(p, p)} or {(m, p, p)}"
        )
    if directions is not None and directions.shape[1:] != (m, p):
        raise InvalidInputError(f"directions have shape {directions.shape}, expected {('q', m, p)}")
    if m > _CELLS and directions is None and (covariance is None or covariance.ndim == 2):
        units = SketchTree.build(units, problem.psi, _CELLS).merged(units)
    rng = np.random.default_rng(settings.seed)
    root = None if covariance is None else _root(covariance)
    value = value_within(menu, units)
    menus, lost = [], np.empty(resamples)
    settings = replace(settings, previous=menu.treatments, starts=STARTS)
    for number in range(resamples):
        # a sum of as many exponential weights as there are units behind
        weights = units.weights * rng.gamma(units.behind) / units.behind
        theta = units.theta
        if root is not None:
            theta = theta + np.einsum("...pq,mq->mp", root, rng.normal(size=theta.shape))
        if directions is not None:
            factors = rng.normal(size=len(directions))
            theta = theta + np.tensordot(factors, directions, axes=1)
        again = replace(units, weights=np.maximum(weights, 1e-300), theta=theta)
        found = search_menus(problem, again, [menu.k], settings)[menu.k]
        reached = value_within(found, units)
        lost[number] = value - reached if np.isfinite(reached) else np.nan
        menus.append(found.treatments)
    chosen = menu_counts(problem, menus, "frequency")
    return Stability(chosen.assign(frequency=chosen["frequency"] / resamples), lost, value)


def value_within(menu: PricedMenu, units: WeightedUnits) -> float:
    """Return the most that a menu earns within its limits, per unit weight of units.

    −inf where it cannot keep them.
    """
    split = menu.posed_to(units).split(menu.limit_prices)
    return -np.inf if split is None else split.value / units.total


def menu_counts(problem: MenuProblem, menus: Iterable[FloatArray], name: str) -> pd.DataFrame:
    """Return one row a rounded treatment: its dimensions and ``name``, how many menus hold it.

    Menus are (K, d); the treatments that most of them hold come first.
    """
    counts: dict[tuple[float, ...], int] = {}
    for treatments in menus:
        for row in {tuple(row) for row in rounded(problem, treatments).tolist()}:
            counts[row] = counts.get(row, 0) + 1
    rows = sorted(counts, key=lambda row: (-counts[row], row))
    return problem.space.decode(np.array(rows)).assign(**{name: [counts[row] for row in rows]})


def merged_counts(
    problem: MenuProblem, treatments: FloatArray, tables: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return one row a rounded treatment: dimensions, ``published``, and a column of every table.

    The column has the table's name, and 0 where the table has no such treatment.

    Parameters
    ----------
    treatments : (K, d) encoded, the published menu, whose rows come first.
    tables : {column: rows with the dimensions and it}.
    """
    dimensions = list(problem.space.names)
    result = problem.space.decode(rounded(problem, treatments)).drop_duplicates()
    result = result.assign(published=True)
    for name, table in tables.items():
        result = result.merge(table[[*dimensions, name]], on=dimensions, how="outer")
    published = result["published"].eq(True)
    result = result.assign(published=published).fillna(dict.fromkeys(tables, 0))
    order = ["published", *reversed(list(tables)), *dimensions]
    return result.sort_values(
        order, ascending=[False] * (1 + len(tables)) + [True] * len(dimensions), ignore_index=True
    )


def fold_noise(
    problem: MenuProblem, theta: FloatArray, weights: FloatArray, cells: int = _NOISE_CELLS
) -> tuple[WeightedUnits, FloatArray]:
    """Return units merged by their mean response over refits, and its noise as ``directions``.

    Models that were fitted without one fold each differ by estimation noise, and each is wrong
    about all units at once. The delete-a-group jackknife (Kott, 2001) takes

        (F − 1)/F Σ_f (θ^(−f) − mean)(θ^(−f) − mean)ᵀ

    for the covariance of the responses, jointly over all units; the factors of that sum are the
    directions.

    Parameters
    ----------
    theta : (F, n, p) coefficients of the same units by every refit.
    weights : (n,).
    cells : merged units at most.

    Raises
    ------
    InvalidInputError : fewer than two refits.
    """
    folds = len(theta)
    if folds < 2:
        raise InvalidInputError(f"the noise of responses needs at least 2 refits, found {folds}")
    mean = theta.mean(axis=0)
    tree = SketchTree.build(WeightedUnits.of(mean, weights), problem.psi, cells)
    routed = tree.cells(mean)
    units = SegmentSums.of(routed, mean, weights, tree.count).means
    refits = [SegmentSums.of(routed, part, weights, tree.count).means.theta for part in theta]
    return units, np.sqrt((folds - 1) / folds) * (np.array(refits) - units.theta)


def _root(covariance: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def rounded(problem: MenuProblem, treatments: FloatArray) -> FloatArray:
    """Return encoded treatments (n, d) at the nearest of the steps in which they are counted.

    A dimension without a step is counted in 8 of its range.
    """
    result = treatments.copy()
    for position, dimension in enumerate(problem.space.dimensions):
        if problem.searched[position] and isinstance(dimension, Continuous):
            step = (dimension.upper - dimension.lower) / _SHOWN_STEPS
            result[:, position] = dimension.lower + step * np.round(
                (result[:, position] - dimension.lower) / step
            )
    return result
