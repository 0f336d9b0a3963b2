"""A population of any size as a few thousand weighted micro-clusters.

A tree, grown on a sample, cuts the responses into cells; one pass adds up Σw and Σwθ of every cell. Profit is linear in θ, so a
cell's mean response earns exactly its units' mean profit under any one treatment; only units of one cell that prefer different
treatments of a menu are told apart less finely, which is why refined menus are valued on all rows.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem import row_blocks
from coarse_spark.core.menu.sums import WeightedSums
from coarse_spark.errors import InvalidInputError

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

    def clusters(self) -> MicroClusters:
        """Return the cells that hold any weight as micro-clusters."""
        filled = self.weight > 0
        weight = self.weight[filled]
        return MicroClusters(weight, self.theta[filled] / weight[:, None], self.units[filled])


@dataclass(frozen=True, eq=False)
class SketchTree:
    """Cells of responses, as a binary tree whose cuts are each across one coordinate.

    Attributes
    ----------
    metric : (p, q) maps θ to coordinates in which the Euclidean distance of two units is the root mean square, over treatments, of
        the difference of their profits, common shifts aside. They follow the principal axes of the responses.
    coordinates, thresholds : (nodes,) a unit goes right where this coordinate of it exceeds the threshold.
    children : (nodes, 2) number of the next node. The last ``count`` nodes are the cells: their children are they themselves.
    count, depth : number of cells, and of cuts on the way to the deepest.
    """

    metric: FloatArray
    coordinates: IntArray
    thresholds: FloatArray
    children: IntArray
    count: int
    depth: int

    @staticmethod
    def build(
        theta: FloatArray, weights: FloatArray, psi: FloatArray, cells: int = DEFAULT_CELLS
    ) -> SketchTree:
        """Grow a tree of at most ``cells`` cells on a sample: coefficients (n, p), weights (n,), candidates' rows psi (J, p + 1).

        The cell with the largest weighted within-cell sum of squares is cut next, across the coordinate in which it is widest,
        where the cut lowers that sum most. The order of the rows does not matter.
        """
        if cells < 1 or not len(theta):
            raise InvalidInputError(
                f"a sketch needs at least one cell and one unit, found {cells} cells and {len(theta)} units"
            )
        order = np.lexsort(
            np.column_stack([weights, theta]).T
        )  # makes every sum below independent of the order of rows
        mass = weights[order]
        metric = _along_principal_axes(theta[order], mass, profit_metric(theta[order], psi))
        points = theta[order] @ metric
        leaves = [_Leaf.of(points, mass, np.arange(len(points)), number=0, depth=0)]
        cuts: list[
            tuple[int, float, list[int]]
        ] = []  # in the order of their leaves' numbers, as ``where`` tells
        where: dict[int, int] = {}
        while len(leaves) < cells and np.isfinite(leaves[0].threshold):
            leaf = heapq.heappop(leaves)
            right = points[leaf.rows, leaf.coordinate] > leaf.threshold
            sides = [
                _Leaf.of(
                    points,
                    mass,
                    leaf.rows[side],
                    number=2 * len(cuts) + 1 + place,
                    depth=leaf.depth + 1,
                )
                for place, side in enumerate((~right, right))
            ]
            where[leaf.number] = len(cuts)
            cuts.append((leaf.coordinate, leaf.threshold, [side.number for side in sides]))
            for side in sides:
                heapq.heappush(leaves, side)
        # leaves that stay become the last nodes
        leaves.sort(key=lambda leaf: leaf.number)
        where |= {leaf.number: len(cuts) + cell for cell, leaf in enumerate(leaves)}
        ends = range(len(cuts), len(cuts) + len(leaves))
        return SketchTree(
            metric,
            np.array([cut[0] for cut in cuts] + [0] * len(leaves), dtype=np.intp),
            np.array([cut[1] for cut in cuts] + [np.inf] * len(leaves)),
            np.array(
                [[where[number] for number in cut[2]] for cut in cuts]
                + [[end, end] for end in ends],
                dtype=np.intp,
            ),
            len(leaves),
            max(leaf.depth for leaf in leaves),
        )

    def cells(self, theta: FloatArray) -> IntArray:
        """Return the cell of every unit (n, p) as (n,)."""
        result = np.empty(len(theta), dtype=np.intp)
        children, width = self.children.ravel(), self.metric.shape[1]
        for start in range(0, len(theta), _ROUTED_ROWS):
            points = (theta[start : start + _ROUTED_ROWS] @ self.metric).ravel()
            first = np.arange(0, len(points), width)
            node = np.zeros(len(first), dtype=np.intp)
            for _ in range(self.depth):
                right = points.take(first + self.coordinates.take(node)) > self.thresholds.take(
                    node
                )
                node = children.take(2 * node + right)
            result[start : start + _ROUTED_ROWS] = node
        return result - (len(self.thresholds) - self.count)

    def sums(self, theta: FloatArray, weights: FloatArray) -> SketchSums:
        """Route units (n, p) with weights (n,) and add them up by cell."""
        return SketchSums.of(self.cells(theta), theta, weights, self.count)

    def merged(self, clusters: MicroClusters) -> MicroClusters:
        """Return micro-clusters merged by cell, with the number of units behind them."""
        cells = self.cells(clusters.theta)
        merged = SketchSums.of(cells, clusters.theta, clusters.weights, self.count)
        units = np.bincount(cells, clusters.units, minlength=self.count).astype(np.intp)
        return SketchSums(merged.weight, merged.theta, units).clusters()


def profit_metric(theta: FloatArray, psi: FloatArray) -> FloatArray:
    """Return (p, q) with |metric'(θ − θ')|² = variance over treatments of the profit difference of two units.

    Treatments count half alike and half by how many sampled units like them best, because cells have to tell units apart at the
    treatments that menus will hold.
    """
    sample = theta[:: max(1, len(theta) // 20_000)]
    liked = np.zeros(len(psi))
    for block in row_blocks(len(sample), len(psi)):
        best = (sample[block] @ psi[:, :-1].T + psi[:, -1]).argmax(axis=1)
        liked += np.bincount(best, minlength=len(psi)) / len(sample)
    share = 0.5 / len(psi) + 0.5 * liked
    centred = psi[:, :-1] - share @ psi[:, :-1]
    # a QR decomposition resolves every column on its own scale: penalties of rules dwarf what else tells units apart
    factor = np.linalg.qr(centred * np.sqrt(share)[:, None], mode="r")
    kept = (np.abs(factor) > 1e-12 * np.abs(psi[:, :-1]).max(axis=0)).any(axis=1)
    return np.asarray(factor[kept].T)


def _along_principal_axes(theta: FloatArray, mass: FloatArray, metric: FloatArray) -> FloatArray:
    """Turn a metric (p, q) so that its coordinates are uncorrelated over units (n, p) of mass (n,): distances stay."""
    points = theta @ metric
    centred = points - mass @ points / max(mass.sum(), 1e-300)
    axes = np.linalg.eigh(centred.T @ (centred * mass[:, None]))[1]
    return np.asarray(
        metric @ (axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]))
    )


@dataclass(frozen=True, order=True)
class _Leaf:
    """A cell that may still be cut; the smallest in this order is cut first.

    Attributes
    ----------
    error : minus its within-cell sum of squares; 0 where it cannot be cut. number : of its arrival. depth : cuts above it.
    rows : (m,) its units. coordinate, threshold : of its best cut; the threshold is infinite where all of its units are alike.
    """

    error: float
    number: int
    depth: int = field(compare=False)
    rows: IntArray = field(compare=False)
    coordinate: int = field(compare=False)
    threshold: float = field(compare=False)

    @staticmethod
    def of(
        points: FloatArray, mass: FloatArray, rows: IntArray, *, number: int, depth: int
    ) -> _Leaf:
        """Find the best cut of units ``rows`` (m,) among points (n, q) of mass (n,)."""
        inside, weight = points[rows], mass[rows]
        total = weight.sum()
        whole = _Leaf(0.0, number, depth, rows, 0, np.inf)
        if len(rows) < 2 or total <= 0 or not inside.shape[1]:
            return whole
        centre = weight @ inside / total
        squares = weight @ (inside - centre) ** 2
        coordinate = int(squares.argmax())
        along = inside[:, coordinate]
        order = along.argsort(kind="stable")
        along, weight = along[order], weight[order]
        left = np.cumsum(weight)[:-1]
        moment = np.cumsum(weight * (along - centre[coordinate]))[:-1]
        right = total - left
        possible = (
            (np.diff(along) > 1e-12 * max(abs(along[0]), abs(along[-1]))) & (left > 0) & (right > 0)
        )
        if not possible.any():
            return whole
        # between-sum-of-squares of the two sides along the coordinate
        between = np.where(
            possible,
            moment**2 * (1 / np.where(possible, left, 1.0) + 1 / np.where(possible, right, 1.0)),
            -1.0,
        )
        best = int(between.argmax())
        return _Leaf(
            -float(squares.sum()),
            number,
            depth,
            rows,
            coordinate,
            float((along[best] + along[best + 1]) / 2),
        )
