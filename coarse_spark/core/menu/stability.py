"""How much the choice of a menu owes to chance: menus of resampled populations, and what they lose on the original one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.menu.curve import search_curve
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters, SketchTree
from coarse_spark.core.profit import profit_matrix
from coarse_spark.core.treatments import Continuous
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]

_CELLS = 1_000
_SHOWN_STEPS = 32  # a dimension without a step is shown in so many


@dataclass(frozen=True, eq=False)
class Stability:
    """What resampling shows.

    Attributes
    ----------
    chosen : one row a rounded treatment: its columns in the user's values and ``frequency``, the share of resampled menus that
        hold it.
    lost : (resamples,) what each resampled menu loses on the original sketch against the original menu, per unit weight.
    value : of the original menu on the sketch, per unit weight.
    """

    chosen: pd.DataFrame
    lost: FloatArray
    value: float

    @property
    def expected_loss(self) -> float:
        """Mean value lost to estimation noise, per unit weight."""
        return float(self.lost.mean())


def menu_stability(
    problem: MenuProblem,
    clusters: MicroClusters,
    treatments: FloatArray,
    *,
    covariance: FloatArray | None = None,
    fixed: FloatArray | None = None,
    resamples: int = 50,
    seed: int = 0,
) -> Stability:
    """Choose the menu again on resampled populations.

    Parameters
    ----------
    clusters : sketch of the population. treatments : (K, d) encoded, the menu that was chosen.
    covariance : (p, p) or (m, p, p) posterior covariance of the clusters' mean responses; without it only the population is
        resampled (Bayesian bootstrap: Rubin, 1981).
    fixed : (f, d) treatments on every menu. resamples, seed : how many, and their random seed.

    Raises
    ------
    InvalidInputError : fewer than two resamples, or a covariance of another shape.
    """
    p, m = problem.coefficients, len(clusters.weights)
    if resamples < 2:
        raise InvalidInputError(f"resamples is {resamples}, expected at least 2")
    if covariance is not None and covariance.shape not in ((p, p), (m, p, p)):
        raise InvalidInputError(f"covariance has shape {covariance.shape}, expected {(p, p)} or {(m, p, p)}")
    if m > _CELLS and (covariance is None or covariance.ndim == 2):
        clusters = SketchTree.build(clusters.theta, clusters.weights, problem.psi, _CELLS).merged(clusters)
    rng = np.random.default_rng(seed)
    root = None if covariance is None else _root(covariance)
    value = _value(problem, clusters, treatments)
    rounded: dict[tuple[float, ...], int] = {}
    lost = np.empty(resamples)
    k = len(treatments)
    for number in range(resamples):
        # a sum of as many exponential weights as the cluster has units
        weights = clusters.weights * rng.gamma(clusters.units) / clusters.units
        theta = clusters.theta
        if root is not None:
            theta = theta + np.einsum("...pq,mq->mp", root, rng.normal(size=theta.shape))
        again = replace(clusters, weights=np.maximum(weights, 1e-300), theta=theta)
        menu = search_curve(problem, again, [k], fixed=fixed, previous=treatments, starts=2, seed=seed)[k]
        lost[number] = value - _value(problem, clusters, menu.treatments)
        for row in {tuple(row) for row in _rounded(problem, menu.treatments).tolist()}:
            rounded[row] = rounded.get(row, 0) + 1
    rows = sorted(rounded, key=lambda row: (-rounded[row], row))
    chosen = problem.space.decode(np.array(rows))
    return Stability(chosen.assign(frequency=[rounded[row] / resamples for row in rows]), lost, value)


def _value(problem: MenuProblem, clusters: MicroClusters, treatments: FloatArray) -> float:
    profits = profit_matrix(clusters.theta, problem.psi_at(treatments))
    return float(clusters.weights @ profits.max(axis=1) / clusters.weights.sum())


def _root(covariance: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def _rounded(problem: MenuProblem, treatments: FloatArray) -> FloatArray:
    """Return treatments at the nearest of the steps in which they are shown."""
    result = treatments.copy()
    for position, dimension in enumerate(problem.space.dimensions):
        if problem.searched[position] and isinstance(dimension, Continuous):
            step = (dimension.upper - dimension.lower) / _SHOWN_STEPS
            result[:, position] = dimension.lower + step * np.round((result[:, position] - dimension.lower) / step)
    return result
