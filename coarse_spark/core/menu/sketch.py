"""A population of any size as a few thousand weighted micro-clusters.

A tree, grown on a sample, cuts the responses into cells; one pass adds up Σw and Σwθ of every cell. Profit is linear in θ, so a
cell's mean response earns exactly its units' mean profit under any one treatment; only units of one cell that prefer different
treatments of a menu are told apart less finely, which is why refined menus are valued on all rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.sums import WeightedSums
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

DEFAULT_CELLS = 4_000
_ROUTED_ROWS = 16_384  # rows routed at once: their coordinates stay in the processor's cache


@dataclass(frozen=True, eq=False)
class MicroClusters:
    """Weighted mean responses that stand for a population: weights (m,), theta (m, p), units (m,) behind each."""

    weights: FloatArray
    theta: FloatArray
    units: IntArray


@dataclass(frozen=True, eq=False)
class SketchSums(WeightedSums):
    """What a pass over the population returns for a sketch: sums over the units of each cell."""

    def spread(self, values: FloatArray) -> FloatArray:
        """Return values of the micro-clusters (m,) by cell (cells,); cells without weight get the mean."""
        result = np.full(len(self.weight), values.mean())
        result[self.weight > 0] = values
        return result

    def clusters(self) -> MicroClusters:
        """Return the cells that hold any weight as micro-clusters."""
        filled = self.weight > 0
        weight = self.weight[filled]
        return MicroClusters(weight, self.theta[filled] / weight[:, None], self.units[filled])


@dataclass(frozen=True, eq=False)
class SketchTree:
    """Cells of responses, as a binary tree of cuts across principal axes.

    Attributes
    ----------
    metric : (p, q) maps θ to coordinates in which the Euclidean distance of two units is the root mean square, over treatments, of
        the difference of their profits, common shifts aside.
    axes : (nodes, q), thresholds : (nodes,) a unit goes right where its coordinates times the axis exceed the threshold.
    children : (nodes, 2) number of the next node, or −1 − cell at the end.
    count : number of cells.
    """

    metric: FloatArray
    axes: FloatArray
    thresholds: FloatArray
    children: IntArray
    count: int

    @staticmethod
    def build(theta: FloatArray, weights: FloatArray, psi: FloatArray, cells: int = DEFAULT_CELLS) -> SketchTree:
        """Grow a tree of at most ``cells`` cells on a sample: coefficients (n, p), weights (n,), candidates' rows psi (J, p + 1).

        The cell with the largest weighted within-cell sum of squares is cut next, across its principal axis, where the cut lowers
        that sum most. The order of the rows does not matter.
        """
        if cells < 1 or not len(theta):
            raise InvalidInputError(f"a sketch needs at least one cell and one unit, found {cells} cells and {len(theta)} units")
        order = np.lexsort(np.column_stack([weights, theta]).T)  # makes every sum below independent of the order of rows
        metric = profit_metric(theta[order], psi)
        points, mass = theta[order] @ metric, weights[order]
        axes: list[FloatArray] = []
        thresholds: list[float] = []
        children: list[list[int]] = []
        # heap of (−error, arrival, rows, cut, place in the parent that will point here)
        queue: list[tuple[float, int, IntArray, _Cut, tuple[int, int] | None]] = []
        rest: list[tuple[int, int] | None] = []

        def put(rows: IntArray, place: tuple[int, int] | None) -> None:
            cut = _best_cut(points[rows], mass[rows])
            if cut is None:
                rest.append(place)
            else:
                heapq.heappush(queue, (-cut.error, put.arrivals, rows, cut, place))  # type: ignore[attr-defined]
                put.arrivals += 1  # type: ignore[attr-defined]

        put.arrivals = 0  # type: ignore[attr-defined]
        put(np.arange(len(points)), None)
        while queue and len(queue) + len(rest) < cells:
            _, _, rows, cut, place = heapq.heappop(queue)
            node = len(axes)
            axes.append(cut.axis)
            thresholds.append(cut.threshold)
            children.append([0, 0])
            if place is not None:
                children[place[0]][place[1]] = node
            right = points[rows] @ cut.axis > cut.threshold
            put(rows[~right], (node, 0))
            put(rows[right], (node, 1))
        leaves = [place for place in (*rest, *(entry[4] for entry in queue)) if place is not None]
        for cell, (node, side) in enumerate(sorted(leaves)):
            children[node][side] = -1 - cell
        q = points.shape[1]
        return SketchTree(
            metric,
            np.array(axes).reshape(len(axes), q),
            np.array(thresholds),
            np.array(children, dtype=np.intp).reshape(len(axes), 2),
            max(1, len(leaves)),
        )

    def cells(self, theta: FloatArray) -> IntArray:
        """Return the cell of every unit (n, p) as (n,)."""
        result = np.zeros(len(theta), dtype=np.intp)
        if not len(self.axes):
            return result
        for start in range(0, len(theta), _ROUTED_ROWS):
            points = theta[start : start + _ROUTED_ROWS] @ self.metric
            node = np.zeros(len(points), dtype=np.intp)
            rows = np.arange(len(points))
            while rows.size:
                at = node[rows]
                right = np.einsum("ij,ij->i", points[rows], self.axes[at]) > self.thresholds[at]
                node[rows] = self.children[at, right.astype(np.intp)]
                rows = rows[node[rows] >= 0]
            result[start : start + _ROUTED_ROWS] = -1 - node
        return result

    def sums(self, theta: FloatArray, weights: FloatArray) -> SketchSums:
        """Route units (n, p) with weights (n,) and add them up by cell."""
        return SketchSums.of(self.cells(theta), theta, weights, self.count)

    def merged(self, clusters: MicroClusters) -> MicroClusters:
        """Return micro-clusters merged by cell, with the number of units behind them."""
        cells = self.cells(clusters.theta)
        merged = SketchSums.of(cells, clusters.theta, clusters.weights, self.count)
        units = np.bincount(cells, clusters.units, minlength=self.count).astype(np.intp)
        return SketchSums(merged.weight, merged.theta, units).clusters()

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tree as plain arrays, to be shipped to other processes."""
        return {
            "metric": self.metric,
            "axes": self.axes,
            "thresholds": self.thresholds,
            "children": self.children,
            "count": np.array(self.count),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> SketchTree:
        """Return the tree that ``to_arrays`` described."""
        return SketchTree(
            np.asarray(arrays["metric"], dtype=np.float64),
            np.asarray(arrays["axes"], dtype=np.float64),
            np.asarray(arrays["thresholds"], dtype=np.float64),
            np.asarray(arrays["children"], dtype=np.intp),
            int(np.asarray(arrays["count"]).item()),
        )


def profit_metric(theta: FloatArray, psi: FloatArray) -> FloatArray:
    """Return (p, q) with |metric'(θ − θ')|² = variance over treatments of the profit difference of two units.

    Treatments count half alike and half by how many sampled units like them best, because cells have to tell units apart at the
    treatments that menus will hold.
    """
    sample = slice(None, None, max(1, len(theta) // 20_000))
    best = (theta[sample] @ psi[:, :-1].T + psi[:, -1]).argmax(axis=1) if len(psi) > 1 else np.zeros(1, dtype=np.intp)
    liked = np.bincount(best, minlength=len(psi)) / len(best)
    share = 0.5 / len(psi) + 0.5 * liked
    centred = psi[:, :-1] - share @ psi[:, :-1]
    # a QR decomposition resolves every column on its own scale: penalties of rules dwarf what else tells units apart
    factor = np.linalg.qr(centred * np.sqrt(share)[:, None], mode="r")
    kept = (np.abs(factor) > 1e-12 * np.abs(psi[:, :-1]).max(axis=0)).any(axis=1)
    return np.asarray(factor[kept].T)


@dataclass(frozen=True, eq=False)
class _Cut:
    error: float
    axis: FloatArray
    threshold: float


def _best_cut(points: FloatArray, mass: FloatArray) -> _Cut | None:
    """Return the error of a cell and the cut across its principal axis, or None where all of its units are alike."""
    total = mass.sum()
    if len(points) < 2 or total <= 0 or not points.shape[1]:
        return None
    centre = mass @ points / total
    centred = points - centre
    scatter = centred.T @ (centred * mass[:, None])
    error = float(np.trace(scatter))
    axis = np.linalg.eigh(scatter)[1][:, -1]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])
    along = points @ axis
    order = along.argsort(kind="stable")
    sorted_along, sorted_mass = along[order], mass[order]
    step = np.diff(sorted_along)
    left = np.cumsum(sorted_mass)[:-1]
    moment = np.cumsum(sorted_mass * (sorted_along - centre @ axis))[:-1]
    right = total - left
    possible = (step > 1e-12 * max(abs(sorted_along[0]), abs(sorted_along[-1]))) & (left > 0) & (right > 0)
    if not possible.any():
        return None
    # between-sum-of-squares of the two sides along the axis
    between = np.where(possible, moment**2 / np.where(possible, left, 1.0) + moment**2 / np.where(possible, right, 1.0), -1.0)
    best = int(between.argmax())
    return _Cut(error, axis, float((sorted_along[best] + sorted_along[best + 1]) / 2))
