"""How much a menu can lose by moving its treatments onto the candidates.

A treatment t inside a cell of the candidate grid is moved to a random corner T with multilinear probabilities, so that E[T] = t.
Unit i then loses, in expectation, the interpolation deficit δ(t)·(θ_i, 1), δ(t) = ψ(t) − E[ψ(T)], which is linear in the unit's
response. Where π_i is smooth, it is at most Σ_d h_d²/8 · max(−∂²π_i/∂t_d²), with h_d the spacing of dimension d: the error of
linear interpolation, one dimension at a time. Some menu on the candidates does at least as well as the expectation, hence

    best menu of the continuous space <= best menu of the candidates + Σ_i w_i max_t (δ(t)·(θ_i, 1))⁺.

δ is evaluated at the quarters of every cell, which hold the maximum exactly where profits are quadratic in each dimension and up to
higher orders of the spacing where they are smooth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.single_precision import SinglePrecision
from coarse_spark.core.treatments import Categorical

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_QUARTERS = (0.25, 0.5, 0.75)
_NUDGE = 1e-7  # of a cell: finds the one-sided limit of a profit that jumps at a candidate
_MAX_DEFICITS = 64


@dataclass(frozen=True, eq=False)
class Rounding:
    """Rows that bound the loss of moving treatments onto candidates.

    Attributes
    ----------
    psi : (J', p + 1) rows of the candidates, followed by those of treatments at which some cell has to be represented besides
        (next to a jump of the profit or an exclusion).
    deficits : (C, p + 1) and margins : (C, p + 1) loss of a unit is at most max over rows of deficits·(θ, 1) + margins·|(θ, 1)|,
        or 0.
    """

    psi: FloatArray
    deficits: FloatArray
    margins: FloatArray

    @staticmethod
    def of(problem: MenuProblem) -> Rounding:
        """Evaluate the deficits of every cell between the candidates of a problem; a finite space has none."""
        size = problem.psi.shape[1]
        none = np.empty((0, size))
        free = np.flatnonzero(problem.searched)
        if not free.size:
            return Rounding(problem.psi, none, none)
        low, high = _cells(problem, free)
        shares = np.array(list(product(_QUARTERS, repeat=free.size)))
        corners = np.array(list(product((0.0, 1.0), repeat=free.size)))
        corner_psi, corner_open, extra = _corners(problem, low, high, free, corners)
        deficits, rules = [], slice(problem.basis_size, -1)
        for share in shares:
            inside = _at(low, high, free, share)
            offered = problem.space.allowed(inside)
            psi = problem.psi_at(inside)
            open_ = corner_open & (corner_psi[:, :, rules] >= psi[None, :, rules] - 1e-12).all(axis=2)
            chance = np.where(corners == 1.0, share, 1.0 - share).prod(axis=1)
            smooth = psi - np.einsum("c,cij->ij", chance, corner_psi)
            whole = open_.all(axis=0)
            deficits.append(smooth[whole & offered])
            # cells cut by an exclusion: to the likeliest open corner, whose distance grows by a third towards the cell's far end
            cut = ~whole & offered & open_.any(axis=0)
            nearest = np.where(open_[:, cut], chance[:, None], -1.0).argmax(axis=0)
            deficits.append((psi[cut] - corner_psi[nearest, np.flatnonzero(cut)]) * 4 / 3)
            extra.append(psi[offered & ~open_.any(axis=0)])
        rows = _distinct(np.vstack(deficits))
        centre, margin = _summarized(rows)
        return Rounding(np.vstack([problem.psi, *extra]), centre, margin)

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


def _cells(problem: MenuProblem, free: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and highest corner (cells, d) of every cell; dimensions that are not searched hold one value each."""
    space = problem.space
    lows, highs = [], []
    for position, dimension in enumerate(space.dimensions):
        inside = problem.candidates[:, position]
        values = np.unique(inside) if isinstance(dimension, Categorical) else dimension.grid(_points(problem, position))
        lows.append(values[:-1] if position in free else values)
        highs.append(values[1:] if position in free else values)
    return np.array(list(product(*lows))), np.array(list(product(*highs)))


def _points(problem: MenuProblem, position: int) -> int:
    spacing, bounds = problem.spacing[position], problem.space.bounds[position]
    return 2 if spacing == 0 else round((bounds[1] - bounds[0]) / spacing) + 1


def _at(low: FloatArray, high: FloatArray, free: npt.NDArray[np.intp], share: FloatArray) -> FloatArray:
    point = low.copy()
    point[:, free] += share * (high[:, free] - low[:, free])
    return point


def _corners(
    problem: MenuProblem, low: FloatArray, high: FloatArray, free: npt.NDArray[np.intp], corners: FloatArray
) -> tuple[FloatArray, BoolArray, list[FloatArray]]:
    """Return ψ (corners, cells, p + 1) as approached from inside each cell, which corners may be used, and rows beyond the
    candidates.
    """
    scale = np.abs(problem.psi).max(axis=0) + 1e-300
    values, usable, extra = [], [], []
    for corner in corners:
        point = _at(low, high, free, corner)
        near = _at(low, high, free, np.clip(corner, _NUDGE, 1 - _NUDGE))
        exact, limit = problem.psi_at(point), problem.psi_at(near)
        # the movement of a smooth profit over the nudge is far smaller than any jump that matters
        jumps = (np.abs(limit - exact) > 1e-4 * scale).any(axis=1)
        allowed = problem.space.allowed(np.where(jumps[:, None], near, point))
        values.append(np.where(jumps[:, None], limit, exact))
        usable.append(allowed)
        extra.append(np.unique(limit[jumps & allowed], axis=0))
    return np.array(values), np.array(usable), extra


def _distinct(rows: FloatArray) -> FloatArray:
    """Drop rows that are a smaller multiple of another: the larger one's loss is larger wherever either is positive."""
    length = np.linalg.norm(rows, axis=1)
    rows, length = rows[length > 0], length[length > 0]
    order = np.argsort(-length, kind="stable")
    _, first = np.unique(np.round(rows[order] / length[order, None], 7), axis=0, return_index=True)
    return rows[order[np.sort(first)]]


def _summarized(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return at most ``_MAX_DEFICITS`` boxes, as centres and half widths, that hold all rows."""
    groups = [np.arange(len(rows))]
    while len(rows) > _MAX_DEFICITS and len(groups) < _MAX_DEFICITS:
        widths = [np.ptp(rows[group], axis=0) for group in groups]
        widest = int(np.argmax([width.max() for width in widths]))
        group = groups.pop(widest)
        along = rows[group, int(widths[widest].argmax())]
        upper = along > (along.max() + along.min()) / 2
        groups += [group[~upper], group[upper]]
    if len(rows) <= _MAX_DEFICITS:
        return rows, np.zeros_like(rows)
    low = np.array([rows[group].min(axis=0) for group in groups])
    high = np.array([rows[group].max(axis=0) for group in groups])
    return (low + high) / 2, (high - low) / 2
