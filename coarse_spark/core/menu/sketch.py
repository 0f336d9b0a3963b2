"""The sketch: a population of any size as a few thousand weighted units.

A tree, grown on a sample, cuts the responses into cells; one pass adds up Σw and Σwθ of every cell.
Profit is linear in θ, so a cell's mean response earns exactly its units' mean profit under any one
treatment; only units of one cell that prefer different treatments of a menu are told apart less
finely, which is why menus are valued on all units in the end.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import row_blocks
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, content_order
from coarse_spark.errors import InvalidInputError

_ROUTED_ROWS = 16_384  # rows routed at once: their coordinates stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Sketch:
    """Weighted units that stand for a population, and the cells that its units are in.

    Attributes
    ----------
    units : what menus are searched on: the cells that have weight, or the population's own units.
    tree : that routes units to cells; None where every unit is a cell of its own.
    filled : (cells,) which cells have weight.
    """

    units: WeightedUnits
    tree: SketchTree | None
    filled: BoolArray

    @staticmethod
    def of_units(theta: FloatArray, weights: FloatArray) -> Sketch:
        """Return few units (n, p) with weights (n,) as cells of their own, those with weight.

        They are in the order of contents, so that searches do not depend on the order of rows.
        """
        order = content_order(theta, weights)
        order = order[weights[order] > 0]
        units = WeightedUnits.of(theta[order], weights[order])
        return Sketch(units, None, np.ones(len(units), dtype=bool))

    @staticmethod
    def of_cells(tree: SketchTree, sums: SegmentSums) -> Sketch:
        """Return the sketch that sums over the cells of a tree make."""
        return Sketch(sums.means, tree, sums.weight > 0)

    def by_cell(self, values: FloatArray) -> FloatArray:
        """Return values of the units (m,) by cell (cells,), 0 in empty ones."""
        result = np.zeros(len(self.filled))
        result[self.filled] = values
        return result

    def sums(self, theta: FloatArray, weights: FloatArray, cells: IntArray) -> SegmentSums:
        """Add up units (n, p) with weights (n,) by their cells (n,)."""
        return SegmentSums.of(cells, theta, weights, len(self.filled))

    def cells(self, theta: FloatArray) -> IntArray:
        """Return the cell of every unit (n, p) of the sketched population as (n,)."""
        if self.tree is not None:
            return self.tree.cells(theta)
        # units without weight are no cells: it does not matter which one they are told
        return np.array([self._places.get(unit.tobytes(), 0) for unit in theta], dtype=np.intp)

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {unit.tobytes(): number for number, unit in enumerate(self.units.theta)}


@dataclass(frozen=True, eq=False)
class SketchTree:
    """Cells of responses, as a binary tree whose cuts are each across one coordinate.

    Attributes
    ----------
    metric : (p, q) maps θ to coordinates in which the Euclidean distance of two units is the root
        mean square, over treatments, of the difference of their profits, common shifts aside. They
        follow the principal axes of the responses.
    coordinates, thresholds : (nodes,) a unit goes right where this coordinate of it exceeds the
        threshold.
    children : (nodes, 2) number of the next node. The last ``count`` nodes are the cells: their
        children are they themselves.
    count : number of cells.
    depth : cuts on the way to the deepest.
    """

    metric: FloatArray
    coordinates: IntArray
    thresholds: FloatArray
    children: IntArray
    count: int
    depth: int

    @staticmethod
    def build(sample: WeightedUnits, psi: FloatArray, cells: int) -> SketchTree:
        """Grow a tree of at most so many cells on a sample; ``psi`` (J, p + 1) is of candidates.

        The cell with the largest weighted within-cell sum of squares is cut next, across the
        coordinate in which it is widest, where the cut lowers that sum most. The order of the units
        does not matter.
        """
        theta, weights = sample.theta, sample.weights
        if cells < 1 or not len(theta):
            raise InvalidInputError(
                "a sketch needs at least one cell and one unit, "
                f"found {cells} cells and {len(theta)} units"
            )
        # makes every sum below independent of the order of units
        order = content_order(theta, weights)
        mass = weights[order]
        metric = _along_principal_axes(theta[order], mass, profit_metric(theta[order], psi))
        points = theta[order] @ metric
        leaves = [_Leaf.of(points, mass, np.arange(len(points)), number=0, depth=0)]
        # in the order of their leaves' numbers, as ``where`` tells
        cuts: list[tuple[int, float, list[int]]] = []
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
                along = points.take(first + self.coordinates.take(node))
                right = along > self.thresholds.take(node)
                node = children.take(2 * node + right)
            result[start : start + _ROUTED_ROWS] = node
        return result - (len(self.thresholds) - self.count)

    def merged(self, units: WeightedUnits) -> WeightedUnits:
        """Return weighted units merged by cell."""
        cells = self.cells(units.theta)
        sums = SegmentSums.of(cells, units.theta, units.weights, self.count)
        behind = np.bincount(cells, units.behind, minlength=self.count).astype(np.intp)
        return SegmentSums(sums.weight, sums.theta, behind).means


def profit_metric(theta: FloatArray, psi: FloatArray) -> FloatArray:
    """Return (p, q) with |metric'(θ − θ')|² = variance over treatments of profit differences.

    The differences are of two units with θ and θ'. Treatments count half alike and half by how many
    sampled units like them best, because cells have to tell units apart at the treatments that
    menus will hold.
    """
    sample = theta[:: max(1, len(theta) // 20_000)]
    liked = np.zeros(len(psi))
    for block in row_blocks(len(sample), len(psi)):
        best = (sample[block] @ psi[:, :-1].T + psi[:, -1]).argmax(axis=1)
        liked += np.bincount(best, minlength=len(psi)) / len(sample)
    share = 0.5 / len(psi) + 0.5 * liked
    centred = psi[:, :-1] - share @ psi[:, :-1]
    # a QR decomposition resolves every column on its own scale: penalties of rules dwarf what else
    # tells units apart
    factor = np.linalg.qr(centred * np.sqrt(share)[:, None], mode="r")
    kept = (np.abs(factor) > 1e-12 * np.abs(psi[:, :-1]).max(axis=0)).any(axis=1)
    return np.asarray(factor[kept].T)


def _along_principal_axes(theta: FloatArray, mass: FloatArray, metric: FloatArray) -> FloatArray:
    """Turn a metric (p, q) so that its coordinates are uncorrelated over units (n, p) of mass (n,).

    Distances stay.
    """
    points = theta @ metric
    centred = points - mass @ points / max(mass.sum(), 1e-300)
    axes = np.linalg.eigh(centred.T @ (centred * mass[:, None]))[1]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.asarray(metric @ (axes * signs))


@dataclass(frozen=True, order=True)
class _Leaf:
    """A cell that may still be cut; the smallest in this order is cut first.

    Attributes
    ----------
    error : minus its within-cell sum of squares; 0 where it cannot be cut.
    number : of its arrival.
    depth : cuts above it.
    rows : (m,) its units.
    coordinate, threshold : of its best cut; infinite where all of its units are alike.
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
        possible = np.diff(along) > 1e-12 * max(abs(along[0]), abs(along[-1]))
        possible &= (left > 0) & (right > 0)
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
