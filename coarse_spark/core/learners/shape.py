"""Shape of the response in a treatment: monotone or concave.

It is imposed by projecting the coefficients of every unit. Shapes are half-spaces a·θ ≥ 0: first or
second differences of the basis along a dimension. The projection is the nearest point in the metric
of the experiment's treatments, found by Hildreth's method (1957): coordinate ascent on the
multipliers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from scipy.optimize import nnls

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.treatments import Categorical
from coarse_spark.errors import InvalidInputError, nearest

# shape: (order of the difference, sign that it must have)
SHAPES = {"increasing": (1, 1.0), "decreasing": (1, -1.0), "convex": (2, 1.0), "concave": (2, -1.0)}

_POINTS, _SWEEPS, _TOLERANCE = 17, 2000, 1e-9


def shape_constraints(shape: Mapping[str, str], basis: Basis, whitening: Whitening) -> FloatArray:
    """Return rows a (c, p) of unit length, none redundant, with a·θ_z ≥ 0 for the wanted shape.

    Parameters
    ----------
    shape : words of ``SHAPES`` by treatment name, such as ``{"depth": "increasing concave"}``.
    basis : of the treatments.
    whitening : of the basis columns.

    Raises
    ------
    InvalidInputError : an unknown treatment or shape, a categorical treatment, or the basis
        ``arms``.
    """
    check_shape(shape, basis)
    space, rows = basis.space, [np.empty((0, basis.size))]
    for name, words in shape.items():
        position = space.names.index(name)
        for word in words.split():
            order, sign = SHAPES[word]
            rows += [sign * differences for differences in _differences(basis, position, order)]
    constraints = np.vstack(rows) @ whitening.matrix.T
    lengths = np.linalg.norm(constraints, axis=1)
    kept = lengths > 1e-10 * lengths.max(initial=0.0)
    return _irredundant(constraints[kept] / lengths[kept, None])


def check_shape(shape: Mapping[str, str], basis: Basis) -> None:
    """Check that a shape can be imposed on a basis.

    Raises
    ------
    InvalidInputError : as in ``shape_constraints``.
    """
    space = basis.space
    for name, words in shape.items():
        if name not in space.names:
            raise InvalidInputError(
                f"shape of treatment '{name}'{nearest(name, space.names)}; treatments: "
                f"{', '.join(space.names)}"
            )
        position = space.names.index(name)
        if isinstance(space.dimensions[position], Categorical) or basis.is_arms:
            raise InvalidInputError(
                f"shape of treatment '{name}': expected a continuous treatment and a basis other "
                "than arms"
            )
        for word in words.split():
            if word not in SHAPES:
                raise InvalidInputError(
                    f"shape of treatment '{name}' is '{word}'{nearest(word, SHAPES)}; shapes: "
                    f"{', '.join(SHAPES)}"
                )


def project(theta: FloatArray, constraints: FloatArray) -> FloatArray:
    """Return the nearest coefficients (n, p) that meet all constraints (c, p) of unit length."""
    result = theta.copy()
    broken = np.flatnonzero((theta @ constraints.T < -_TOLERANCE).any(axis=1))
    point, multipliers = theta[broken], np.zeros((len(broken), len(constraints)))
    for _ in range(_SWEEPS if len(broken) else 0):
        moved = 0.0
        for number, row in enumerate(constraints):
            step = np.maximum(-point @ row, -multipliers[:, number])
            multipliers[:, number] += step
            point += step[:, None] * row
            moved = max(moved, float(np.abs(step).max()))
        if moved < _TOLERANCE:
            break
    result[broken] = point
    return result


def _differences(basis: Basis, position: int, order: int) -> list[FloatArray]:
    """Divided differences of φ along one dimension (·, p), at ends and middle of the others."""
    space = basis.space
    others = [
        np.arange(int(bounds[1]) + 1.0)
        if isinstance(d, Categorical)
        else np.array([bounds[0], bounds.mean(), bounds[1]])
        for d, bounds in zip(space.dimensions, space.bounds, strict=True)
    ]
    lower, upper = space.bounds[position]
    # close pairs at the ends: slopes are extreme there
    values = np.concatenate(
        [
            [lower],
            np.linspace(lower + 1e-4 * (upper - lower), upper - 1e-4 * (upper - lower), _POINTS),
            [upper],
        ]
    )
    if order == 2:
        values = values[values != space.control[position]]  # a jump at the control is no curvature
    differences = []
    for rest in product(*(axis for j, axis in enumerate(others) if j != position)):
        treatments = np.insert(
            np.tile(np.array(rest, dtype=np.float64), (len(values), 1)), position, values, axis=1
        )
        rows = np.diff(basis(treatments), axis=0) / np.diff(values)[:, None]
        differences.append(rows if order == 1 else np.diff(rows, axis=0))
    return differences


def _irredundant(rows: FloatArray) -> FloatArray:
    """Rows that are no non-negative combination of the others.

    Interior differences often follow from the outer ones.
    """
    kept = list(np.unique(rows.round(9), axis=0))
    for row in list(kept):
        others = [other for other in kept if other is not row]
        if others and nnls(np.array(others).T, row)[1] < 1e-7:
            kept = others
    return np.array(kept).reshape(-1, rows.shape[1])
