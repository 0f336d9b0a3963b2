"""Cells of the candidate grid that an exclusion or the edge of a rule cuts.

Not every corner of such a cell may stand for what lies inside. What may be offered there is covered
by simplices between the candidates that may stand for it: corners, points where the edge crosses
the grid, and more points of the edge where it is curved. A treatment t = Σ p_v v inside a simplex
is moved to vertex v with probability p_v. A unit whose profit has the Hessian −H around there then
loses, in expectation,

    ½ Σ_{v<v'} p_v p_v' (v − v')'H(v − v') = 4 Σ_{v<v'} p_v p_v' δ(v, v'),
    δ(v, v') = π((v + v')/2) − (π(v) + π(v'))/2,

and Σ_{v<v'} p_v p_v' is at most d / (2 (d + 1)) with d + 1 vertices (Motzkin & Straus, 1965). So a
unit loses at most 2d / (d + 1) times its largest δ over the simplices' edges, exactly for quadratic
profits and up to higher orders of the spacing for smooth ones. Profit is linear in the response,
and so is every δ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.optimize import nnls
from scipy.spatial import Delaunay, QhullError

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray

# of a cell, by dimension: beyond the simplices, a curved edge may run so far before they get one
# more vertex
_OUTSIDE = {1: 1e-3, 2: 1e-3, 3: 1e-2, 4: 3e-2}
_NEGLIGIBLE = 1e-7  # of a cell: rounding of points
# of a cell: volume times d! of simplices that only the rounding of their vertices makes
_FLAT = 1e-9
_MOST_ADDED = 24  # vertices
_STEPS, _HALVINGS = 8, 40  # along a ray from inside


@dataclass(frozen=True, eq=False)
class Covered:
    """How a cut cell is covered.

    Attributes
    ----------
    added : (a, d) vertices that are no candidates, in units of the cell.
    pairs : (e, 2, d) ends of the simplices' edges.
    factor : of the deficits at their middles.
    outside : (o, d) treatments that may be offered, a little beyond the simplices.
    nearest : (o, d) in the simplices.
    """

    added: FloatArray
    pairs: FloatArray
    factor: float
    outside: FloatArray
    nearest: FloatArray


def lattice(dimensions: int) -> FloatArray:
    """Return the treatments (n, d) at which a cell, [0, 1]^d, is looked at.

    They are at its quarters, or at its halves where there are many dimensions.
    """
    values = np.linspace(0, 1, 5 if dimensions <= 2 else 3)
    return np.array(list(product(values, repeat=dimensions)))


def cover(
    vertices: FloatArray, inside: FloatArray, usable: Callable[[FloatArray], BoolArray]
) -> Covered:
    """Cover the part of a cell, [0, 1]^d, that may be offered.

    Parameters
    ----------
    vertices : (m, d) candidates of the cell that may stand for it.
    inside : (d,) one treatment of the part.
    usable : (n, d) -> (n,) which treatments of the cell are in the part, or may stand for it.
    """
    d, known = len(inside), len(vertices)
    near = _OUTSIDE.get(d, _OUTSIDE[4])
    points = vertices if known else inside[None, :]
    start = points.mean(axis=0) if usable(points.mean(axis=0)[None, :])[0] else inside
    grid = lattice(d)
    edge = _last_usable(start, grid[((grid == 0) | (grid == 1)).any(axis=1)], usable)
    while True:
        edges, beyond = _triangulated(points, edge)
        outside = edge[beyond]
        nearest = np.array([_nearest(points, point) for point in outside]).reshape(-1, d)
        distance = np.linalg.norm(outside - nearest, axis=1)
        if len(points) >= known + _MOST_ADDED:
            break
        if distance.size and distance.max() > near:
            points = np.vstack([points, outside[distance.argmax()]])
            continue
        # long edges would lose more than a whole cell: the factor times their squared length
        # against d
        long = ((points[edges[:, 0]] - points[edges[:, 1]]) ** 2).sum(axis=1)
        middle = points[edges].mean(axis=1)
        unusable = np.flatnonzero((long > (d + 1) / 2) & ~usable(middle))
        nearly = _last_usable(start, middle[unusable], usable)
        long[unusable[np.linalg.norm(nearly - middle[unusable], axis=1) > near]] = 0.0
        middle[unusable] = nearly
        if not long.size or long.max() <= (d + 1) / 2:
            break
        points = np.vstack([points, middle[long.argmax()]])
    far = distance > _NEGLIGIBLE
    return Covered(points[known:], points[edges], 2 * d / (d + 1), outside[far], nearest[far])


def _last_usable(
    start: FloatArray, targets: FloatArray, usable: Callable[[FloatArray], BoolArray]
) -> FloatArray:
    """Return how far (r, d) one gets from a usable ``start`` (d,) towards targets (r, d)."""
    along = np.linspace(0, 1, _STEPS + 1)
    walk = start + along[:, None, None] * (targets - start)
    open_ = usable(walk.reshape(-1, len(start))).reshape(len(along), len(targets))
    open_[0] = True
    last = _STEPS - open_[::-1].argmax(axis=0)
    near, far = along[last], along[np.minimum(last + 1, _STEPS)]
    for _ in range(_HALVINGS):
        half = (near + far) / 2
        good = usable(start + half[:, None] * (targets - start))
        near, far = np.where(good, half, near), np.where(good, far, half)
    return np.asarray(start + near[:, None] * (targets - start))


def _triangulated(points: FloatArray, queries: FloatArray) -> tuple[IntArray, BoolArray]:
    """Return the edges (e, 2) of simplices between points (m, d), and which queries lie beyond.

    Queries are (q, d), and the answer to them is (q,).
    """
    d = points.shape[1]
    everywhere = np.ones(len(queries), dtype=bool)
    if d == 1:
        order = points[:, 0].argsort()
        ends = points[order[[0, -1]], 0]
        beyond = (queries[:, 0] < ends[0] - _NEGLIGIBLE) | (queries[:, 0] > ends[1] + _NEGLIGIBLE)
        return np.column_stack([order[:-1], order[1:]]), beyond
    try:
        found = Delaunay(points)
    except (QhullError, ValueError):
        # flat: any treatment between the points is in a simplex of some of them
        pairs = np.array(list(combinations(range(len(points)), 2)), dtype=np.intp)
        return pairs.reshape(-1, 2), everywhere
    corners = points[found.simplices]
    # what is inside a flat simplex is in its neighbours too, whose edges may be shorter
    solid = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) > _FLAT
    ends = np.vstack([found.simplices[solid][:, pair] for pair in combinations(range(d + 1), 2)])
    beyond = found.find_simplex(queries, tol=_NEGLIGIBLE) < 0
    return np.unique(np.sort(ends, axis=1), axis=0), beyond


def _nearest(points: FloatArray, query: FloatArray) -> FloatArray:
    """Return a point (d,) between points (m, d) that is close to a query (d,)."""
    share, _ = nnls(
        np.vstack([points.T - query[:, None], np.full(len(points), 100.0)]),
        np.append(np.zeros(len(query)), 100.0),
    )
    return np.asarray(share @ points / share.sum())
