"""How much a menu can lose by moving its treatments onto the candidates.

A treatment t inside a cell of the candidate grid is moved to a random corner T with multilinear
probabilities, so that E[T] = t. Unit i then loses, in expectation, the interpolation deficit
δ(t)·(θ_i, 1), δ(t) = ψ(t) − E[ψ(T)], which is linear in the unit's response. Where π_i is smooth,
it is at most Σ_d h_d²/8 · max(−∂²π_i/∂t_d²), with h_d the spacing of dimension d: the error of
linear interpolation, one dimension at a time. Some menu on the candidates does at least as well as
the expectation, hence

    best menu of the space <= best menu of the candidates + Σ_i w_i max_t (δ(t)·(θ_i, 1))⁺.

δ is evaluated at the quarters and on the faces of every cell, which hold the maximum exactly where
profits are quadratic in each dimension and up to higher orders of the spacing where they are
smooth. A corner may stand for t where it may be offered and needs no eligibility that t does not
need; cells that have others are covered by simplices (see ``cut_cells``). Edges are found from the
corners, the quarters and the faces: an edge that clips a cell between them without touching any is
not seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from scipy.optimize import nnls

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.certificate.cut_cells import cover, lattice
from coarse_spark.core.menu.certificate.single_precision import SinglePrecision
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import Eligibility
from coarse_spark.core.treatments import Categorical

_NUDGE = 1e-7  # of a cell: finds the one-sided limit of a profit that jumps at a candidate
_MAX_DEFICITS = 64
_MOST_COMPARED = 512  # rows that are looked at for others that make up for them


@dataclass(frozen=True, eq=False)
class Rounding:
    """Profit rows that bound the loss of moving treatments onto candidates.

    Attributes
    ----------
    psi : (J', p + 1) profit rows of the candidates, followed by those of treatments at which some
        cell has to be represented besides (next to a jump of the profit or at an edge).
    deficits, margins : (C, p + 1) a unit loses at most the maximum over rows of deficits·(θ, 1) +
        margins·|(θ, 1)|, or 0.
    """

    psi: FloatArray
    deficits: FloatArray
    margins: FloatArray

    @staticmethod
    def of(problem: MenuProblem) -> Rounding:
        """Evaluate the deficits of every cell between the candidates; a finite space has none."""
        size = problem.psi.shape[1]
        if not problem.searched.any():
            return Rounding(problem.psi, np.empty((0, size)), np.empty((0, size)))
        cells = _Cells.of(problem)
        smooth, cut, extra = _whole_cells(cells)
        rows, margins = [smooth], [np.zeros_like(smooth)]
        for (cell, pattern), share in cut.items():
            parts = _cut_cell(cells, cell, np.frombuffer(pattern, dtype=bool), share)
            for found, part in zip((rows, margins, extra), parts, strict=True):
                found.append(part)
        deficits, widths = np.vstack(rows), np.vstack(margins)
        # a corner is open to every unit that may get the treatment, so rules only lower deficits
        rules = slice(problem.layout.profit.stop, -1)
        deficits[:, rules] = widths[:, rules] = 0.0
        kept = _needed(np.hstack([deficits, widths]), np.abs(problem.psi).max())
        return Rounding(
            np.vstack([problem.psi, _apart(np.vstack(extra), problem.psi)]),
            *_summarized(kept[:, :size], kept[:, size:]),
        )

    @cached_property
    def single_precision(self) -> SinglePrecision:
        """The rows for sums over many units."""
        return SinglePrecision.of(self.psi)

    def loss(self, theta: FloatArray) -> FloatArray:
        """Return the most that each unit (n, p) can lose as (n,)."""
        if not len(self.deficits):
            return np.zeros(len(theta))
        loss = theta @ self.deficits[:, :-1].T + self.deficits[:, -1]
        if self.margins.any():
            loss += np.abs(theta) @ self.margins[:, :-1].T + self.margins[:, -1]
        return np.asarray(np.maximum(loss.max(axis=1), 0.0))


@dataclass(frozen=True, eq=False)
class _Cells:
    """Boxes between the candidates of a problem's grid.

    Attributes
    ----------
    problem : whose candidates they are.
    free : (f,) dimensions that are searched: cells extend along no others.
    low, high : (cells, d) opposite corners.
    """

    problem: MenuProblem
    free: IntArray
    low: FloatArray
    high: FloatArray

    @staticmethod
    def of(problem: MenuProblem) -> _Cells:
        free, lows, highs = np.flatnonzero(problem.searched), [], []
        for position, dimension in enumerate(problem.space.dimensions):
            if isinstance(dimension, Categorical):
                values = np.unique(problem.candidates[:, position])
            else:
                values = dimension.grid(_points(problem, position))
            if position in free:
                values = _with_lines(values, problem.candidates[:, position])
            lows.append(values[:-1] if position in free else values)
            highs.append(values[1:] if position in free else values)
        return _Cells(
            problem, free, np.array(list(product(*lows))), np.array(list(product(*highs)))
        )

    def one(self, cell: int, copies: int) -> _Cells:
        """Return so many copies of one cell."""
        return replace(
            self,
            low=np.repeat(self.low[[cell]], copies, axis=0),
            high=np.repeat(self.high[[cell]], copies, axis=0),
        )

    def at(self, share: FloatArray) -> FloatArray:
        """Return the treatments (cells, d) at a share, (f,) or (cells, f), of every cell."""
        point = self.low.copy()
        point[:, self.free] += share * (self.high - self.low)[:, self.free]
        return point

    def approached(self, share: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ψ (cells, p + 1) as approached from inside each cell, and the treatments it is of.

        These are (cells, d).
        """
        problem, point = self.problem, self.at(share)
        nudged = self.at(np.clip(share, _NUDGE, 1 - _NUDGE))
        exact, limit = problem.psi_at(point), problem.psi_at(nudged)
        # the movement of a smooth profit over the nudge is far smaller than any jump that matters;
        # rules are looked at apart
        apart = np.abs(limit - exact) > 1e-4 * (np.abs(problem.psi).max(axis=0) + 1e-300)
        apart[:, problem.layout.profit.stop : -1] = False
        jumps = apart.any(axis=1)
        psi = np.where(jumps[:, None], limit, exact)
        return psi, np.where(jumps[:, None], nudged, point)

    def rules_at(self, treatments: FloatArray) -> BoolArray:
        """Return which rules ask for eligibility at treatments (n, d) as (n, rules)."""
        rules = [
            rule.applies(treatments, self.problem.space)
            for rule in self.problem.rules
            if isinstance(rule, Eligibility)
        ]
        return np.array(rules, dtype=bool).reshape(len(rules), len(treatments)).T


def _with_lines(grid: FloatArray, along: FloatArray) -> FloatArray:
    """Add to a dimension's grid the values that about as many candidates have as lie on its lines.

    These are edges across the dimension; ``along`` (J,) are the candidates' values.
    """
    values, first, counts = np.unique(np.round(along, 12), return_index=True, return_counts=True)
    usual = np.median(np.bincount(np.abs(along[:, None] - grid).argmin(axis=1)))
    spacing = (grid[-1] - grid[0]) / (len(grid) - 1)
    apart = np.abs(values[:, None] - grid).min(axis=1) > 1e-6 * spacing
    lines = apart & (counts >= usual / 2) & (values > grid[0]) & (values < grid[-1])
    return np.unique(np.append(grid, along[first[lines]]))


def _points(problem: MenuProblem, position: int) -> int:
    spacing, bounds = problem.spacing[position], problem.space.bounds[position]
    return 2 if spacing == 0 else round((bounds[1] - bounds[0]) / spacing) + 1


def _whole_cells(
    cells: _Cells,
) -> tuple[FloatArray, dict[tuple[int, bytes], FloatArray], list[FloatArray]]:
    """Return the deficits of treatments that all corners of their cell may stand for.

    Further returns where the others are, by cell and the rules that hold there, with a share of the
    cell at which one of them is, and profit rows beyond the candidates.
    """
    space, dimensions = cells.problem.space, len(cells.free)
    corners = np.array(list(product((0.0, 1.0), repeat=dimensions)))
    psi, points = (np.array(part) for part in zip(*map(cells.approached, corners), strict=True))
    corner_allowed = np.array([space.allowed(point) for point in points])
    corner_rules = np.array([cells.rules_at(point) for point in points])
    extra = [psi[corner_allowed]]
    shares = lattice(dimensions)
    deficits, cut = [], dict[tuple[int, bytes], FloatArray]()
    for share in shares[((shares - 0.5) ** 2).sum(axis=1).argsort(kind="stable")]:
        inside = cells.at(np.clip(share, _NUDGE, 1 - _NUDGE))
        allowed, rules = space.allowed(inside), cells.rules_at(inside)
        whole = (corner_allowed & (corner_rules <= rules).all(axis=2)).all(axis=0)
        chance = np.where(corners == 1.0, share, 1.0 - share).prod(axis=1)
        deficit = cells.approached(share)[0] - np.einsum("c,cij->ij", chance, psi)
        deficits.append(deficit[whole & allowed])
        for cell in np.flatnonzero(allowed & ~whole):
            cut.setdefault((int(cell), rules[cell].tobytes()), share)
    return np.vstack(deficits), cut, extra


def _cut_cell(
    cells: _Cells, cell: int, rules: BoolArray, share: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return deficits, margins and profit rows beyond the candidates of one part of a cut cell.

    In that part no other rules hold than ``rules`` (rules,), and ``share`` (f,) lies in it.
    """
    problem, free = cells.problem, cells.free
    low, width = cells.low[cell], (cells.high - cells.low)[cell, free]

    def approached(shares: FloatArray) -> tuple[FloatArray, FloatArray]:
        return cells.one(cell, len(shares)).approached(shares)

    def stands(points: FloatArray) -> BoolArray:
        no_others = (cells.rules_at(points) <= rules).all(axis=1)
        return np.asarray(problem.space.allowed(points) & no_others)

    def usable(shares: FloatArray) -> BoolArray:
        return stands(cells.one(cell, len(shares)).at(shares))

    others = np.delete(np.arange(len(low)), free)
    shares = (problem.candidates[:, free] - low[free]) / width
    inside = ((shares > -1e-9) & (shares < 1 + 1e-9)).all(axis=1)
    inside &= (problem.candidates[:, others] == low[others]).all(axis=1)
    vertices = np.clip(shares[inside], 0.0, 1.0)
    vertices = vertices[stands(approached(vertices)[1])]
    _, first = np.unique(np.round(vertices, 6), axis=0, return_index=True)
    covered = cover(vertices[np.sort(first)], share, usable)
    ends = [approached(covered.pairs[:, end])[0] for end in (0, 1)]
    middle = approached(covered.pairs.mean(axis=1))[0]
    deficits = covered.factor * (middle - (ends[0] + ends[1]) / 2)
    # what runs beyond the simplices is moved into them first
    moves = approached(covered.outside)[0] - approached(covered.nearest)[0]
    moved = np.abs(moves).max(axis=0, initial=0.0)
    deficits = np.vstack([deficits, np.zeros_like(moved)])
    return (
        deficits,
        np.repeat(moved[None, :], len(deficits), axis=0),
        np.vstack([*ends, approached(covered.added)[0]]),
    )


def _apart(rows: FloatArray, known: FloatArray) -> FloatArray:
    """Drop rows that equal one another or known ones, but for the nudge."""
    scale = np.abs(known).max(axis=0) + 1e-300
    both = np.round(np.vstack([known, rows]) / scale, 6) + 0.0
    _, first = np.unique(both, axis=0, return_index=True)
    return rows[np.sort(first[first >= len(known)]) - len(known)]


def _needed(rows: FloatArray, size: float) -> FloatArray:
    """Drop rows that are smaller multiples of others or of their means.

    The loss by those is larger wherever it is positive.
    """
    length = np.linalg.norm(rows, axis=1)
    rows, length = rows[length > 1e-13 * size], length[length > 1e-13 * size]
    order = np.argsort(-length, kind="stable")
    _, first = np.unique(np.round(rows[order] / length[order, None], 7), axis=0, return_index=True)
    rows = rows[order[np.sort(first)]]
    if len(rows) <= _MOST_COMPARED:
        largest = np.linalg.norm(rows, axis=1).max(initial=1e-300)
        whole = np.column_stack([rows / largest, np.ones(len(rows))])
        kept = list(range(len(rows)))
        nothing = np.append(np.zeros(rows.shape[1]), 1.0)
        for row in range(len(rows) - 1, -1, -1):
            others = [other for other in kept if other != row]
            left = nnls(np.vstack([whole[others], nothing]).T, whole[row])[1]
            if left <= 1e-9 * np.linalg.norm(whole[row, :-1]):
                kept = others
        rows = rows[kept]
    return rows


def _summarized(rows: FloatArray, margins: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return at most ``_MAX_DEFICITS`` boxes that hold all rows with their margins.

    They are given as centres and half widths.
    """
    if len(rows) <= _MAX_DEFICITS:
        return rows, margins
    groups = [np.arange(len(rows))]
    while len(groups) < _MAX_DEFICITS:
        widths = [np.ptp(rows[group], axis=0) for group in groups]
        widest = int(np.argmax([width.max() for width in widths]))
        group = groups.pop(widest)
        along = rows[group, int(widths[widest].argmax())]
        upper = along > (along.max() + along.min()) / 2
        groups += [group[~upper], group[upper]]
    low = np.array([(rows[group] - margins[group]).min(axis=0) for group in groups])
    high = np.array([(rows[group] + margins[group]).max(axis=0) for group in groups])
    return (low + high) / 2, (high - low) / 2
