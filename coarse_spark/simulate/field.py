"""The field simulation: a small randomized experiment with known responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True)
class FieldSimulation:
    """Units of the field simulation; treatments are offered on [0, 2] and cost 0.3 a unit.

    Attributes
    ----------
    X : (n, 10) features x0 … x9.
    T : (n, d) treatments ``t1`` (and ``t2``).
    y : (n,) outcomes, money.
    theta : (n, p) true coefficients of the quadratic basis [1, t1, t1²] or
        [1, t1, t2, t1², t1·t2, t2²].
    """

    X: pd.DataFrame
    T: pd.DataFrame
    y: FloatArray
    theta: FloatArray


def field_simulation(n: int, dimensions: int, seed: int = 0) -> FieldSimulation:
    """Return randomized units of the simulation that learners and menus are compared on.

    x uniform on [−1, 1]^10, t uniform on [0, 2]^d, y = a(x) + b(x)·t − ½ t·C(x) t + N(0, 1) with
    a = sin(π x0 x1) + x2, b_j = 1.2 + 0.8 x_j + 0.6 max(x_{j+2}, 0) − 0.4 x_{j+4} x_{j+5},
    C_jj = 0.8 + 0.5·1{x_{j+3} > 0} + 0.2 x_{j+6}, C_12 = 0.25.

    Parameters
    ----------
    n : number of units.
    dimensions : of the treatment, 1 or 2.
    seed : the same seed gives the same units.

    Raises
    ------
    InvalidInputError : ``dimensions`` is neither 1 nor 2, or ``n`` is not positive.

    Examples
    --------
    >>> trial = field_simulation(1_000, dimensions=1, seed=1)
    >>> trial.X.shape, list(trial.T.columns), trial.theta.shape
    ((1000, 10), ['t1'], (1000, 3))
    """
    if dimensions not in (1, 2):
        raise InvalidInputError(f"field simulation: dimensions is {dimensions}, expected 1 or 2")
    if n < 1:
        raise InvalidInputError(f"field simulation: n is {n}, expected at least 1")
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 10))
    T = rng.uniform(0, 2, (n, dimensions))
    baseline = np.sin(np.pi * X[:, 0] * X[:, 1]) + X[:, 2]
    slopes = [
        1.2 + 0.8 * X[:, j] + 0.6 * np.maximum(X[:, j + 2], 0) - 0.4 * X[:, j + 4] * X[:, j + 5]
        for j in range(dimensions)
    ]
    curvatures = [0.8 + 0.5 * (X[:, j + 3] > 0) + 0.2 * X[:, j + 6] for j in range(dimensions)]
    if dimensions == 1:
        phi = np.column_stack([np.ones(n), T, T**2])
        theta = np.column_stack([baseline, slopes[0], -curvatures[0] / 2])
    else:
        t1, t2 = T.T
        phi = np.column_stack([np.ones(n), t1, t2, t1**2, t1 * t2, t2**2])
        theta = np.column_stack(
            [baseline, *slopes, -curvatures[0] / 2, np.full(n, -0.25), -curvatures[1] / 2]
        )
    y = (phi * theta).sum(axis=1) + rng.standard_normal(n)
    names = [f"t{j + 1}" for j in range(dimensions)]
    return FieldSimulation(
        pd.DataFrame(X, columns=[f"x{j}" for j in range(10)]),
        pd.DataFrame(T, columns=names),
        np.asarray(y, dtype=np.float64),
        theta,
    )
