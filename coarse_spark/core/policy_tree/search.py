"""The tree that earns most: greedy from the root, each split seen one level ahead.

The best split of a node is the first one of the best tree of depth 2 that starts there (of depth 1
at the last level). Depth 2 is thus exhaustive over the cells of the features, and deeper trees are
what Sverdrup, Kanodia, Zhou, Athey & Wager (policytree, JOSS 2020) call hybrid. One level of
look-ahead finds what a split earns only together with the next one.

All sums over units are products of sparse incidences, n × (K + 1) numbers a pair of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import fsum

import numpy as np
from scipy import sparse

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.policy_tree.cells import Cells

_ROUNDING = 1e-13  # of all profits together
# features whose splits are seen one level ahead, and those of the splits after them: of many, those
# that earn most on their own
_AHEAD, _AFTER = 12, 24


@dataclass(frozen=True, eq=False)
class Node:
    """A node of a tree.

    Attributes
    ----------
    rows : (n,) units that come here.
    treatment : that earns most with all of them.
    earned : what it earns, Σ w π.
    children : two, or none.
    feature, mask : of a node with children: units whose cells of the feature are in the mask go to
        the first child.
    """

    rows: IntArray
    treatment: int
    earned: float
    children: tuple[Node, ...] = ()
    feature: int = -1
    mask: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def value(self) -> float:
        """What the leaves below earn, Σ w π."""
        return fsum(child.value for child in self.children) if self.children else self.earned

    @property
    def splits(self) -> int:
        """How many splits are below."""
        return 1 + sum(child.splits for child in self.children) if self.children else 0


def grow(
    features: Sequence[Cells],
    profits: FloatArray,
    weights: FloatArray,
    *,
    depth: int,
    min_share: float,
    min_gain: float,
    ahead: bool = True,
) -> Node:
    """Return the tree of a depth that earns most.

    Parameters
    ----------
    features : of n units.
    profits : (n, K) of every unit under each treatment.
    weights : (n,) of the units.
    depth : of the tree, 0 for one treatment for all.
    min_share : least share of the weight in a leaf.
    min_gain : what a split has to earn, Σ w π.
    ahead : whether splits are seen one level ahead; otherwise the tree is greedy.
    """
    # rows of sums: K profits, then the weight
    sums = np.column_stack([profits * weights[:, None], weights])
    least = min_share * float(weights.sum())
    search = _Search(tuple(features), sums, least, ahead)
    return _pruned(search.grown(np.arange(len(sums)), depth if features else 0), min_gain)


def _pruned(node: Node, min_gain: float) -> Node:
    """Return the tree without splits that earn too little or tell nothing apart."""
    if not node.children:
        return node
    children = tuple(_pruned(child, min_gain) for child in node.children)
    node = replace(node, children=children)
    leaves = [child for child in children if not child.children]
    same = len(leaves) == 2 and leaves[0].treatment == leaves[1].treatment
    if same or node.value - node.earned <= min_gain * node.splits:
        return Node(node.rows, node.treatment, node.earned)
    return node


@dataclass(frozen=True, eq=False)
class _Search:
    """What a search goes through: ``sums`` (n, K + 1) of the cells of all features."""

    features: tuple[Cells, ...]
    sums: FloatArray
    least: float
    ahead: bool

    def grown(self, rows: IntArray, depth: int) -> Node:
        total = self.sums[rows].sum(axis=0)
        treatment = int(total[:-1].argmax())
        node = Node(rows, treatment, float(total[treatment]))
        if depth == 0 or total[-1] < 2 * self.least:
            return node
        found = self._split(rows, depth)
        if found is None:
            return node
        feature, mask = found
        first = mask[self.features[feature].codes[rows]]
        children = (self.grown(rows[first], depth - 1), self.grown(rows[~first], depth - 1))
        return replace(node, children=children, feature=feature, mask=mask)

    def _split(self, rows: IntArray, depth: int) -> tuple[int, BoolArray] | None:
        """Return the feature and the mask of the best split; None where none is allowed."""
        sums = self.sums[rows]
        cells = [_cell_sums(one.codes[rows][:, None], one.count, sums) for one in self.features]
        masks = [
            one.splits(held[:, :-1].copy()) for one, held in zip(self.features, cells, strict=True)
        ]
        total, values = sums.sum(axis=0), []
        for mask, held in zip(masks, cells, strict=True):
            first = np.moveaxis(mask.astype(np.float64) @ held, 1, 0)
            values.append(self._of_two(first, total[:, None]))
        at_once = np.concatenate(values)
        if depth > 1 and self.ahead:
            order = np.argsort([-value.max(initial=-np.inf) for value in values], kind="stable")
            later = self._seen_ahead(rows, masks, order.tolist())
            unseen = [np.full(len(value), -np.inf) for value in values]
            best = np.concatenate([later.get(i, unseen[i]) for i in range(len(values))])
            best[np.isinf(at_once)] = -np.inf
            # of splits that earn as much with the next one, the one that earns most at once: the
            # next one may then be left out
            rounding = _ROUNDING * float(np.abs(sums).sum())
            at_once = np.where(best >= best.max(initial=-np.inf) - rounding, at_once, -np.inf)
        if not np.isfinite(at_once.max(initial=-np.inf)):
            return None
        starts = np.cumsum([0, *map(len, masks)])
        chosen = int(at_once.argmax())
        feature = int(np.searchsorted(starts, chosen, side="right")) - 1
        return feature, masks[feature][chosen - starts[feature]]

    def _of_two(self, first: FloatArray, total: FloatArray) -> FloatArray:
        """Return what two leaves earn; first (K + 1, …) is the one's sums, total of both."""
        second = total - first
        value = first[:-1].max(axis=0) + second[:-1].max(axis=0)
        small = np.minimum(first[-1], second[-1]) < self.least
        return np.where(small, -np.inf, value)

    def _seen_ahead(
        self, rows: IntArray, masks: Sequence[BoolArray], order: Sequence[int]
    ) -> dict[int, FloatArray]:
        """Return what the best trees of depth 2 earn that start with splits of the first features.

        By feature (s,), one value a mask.

        Parameters
        ----------
        order : of the features, by what they earn alone.
        """
        sums, after = self.sums[rows], sorted(order[:_AFTER])
        cells, below = [self.features[number] for number in after], [masks[i] for i in after]
        starts = np.cumsum([0, *(one.count for one in cells)])
        codes = np.column_stack([one.codes[rows] for one in cells]) + starts[:-1]
        result = {}
        for number in order[:_AHEAD]:
            own, width = self.features[number], int(starts[-1])
            joint = own.codes[rows][:, None] * width + codes
            held = _cell_sums(joint, own.count * width, sums).reshape(own.count, width, -1)
            mask = masks[number].astype(np.float64)
            first = np.einsum("sm,mck->kcs", mask, held, optimize=True)
            second = held.sum(axis=0).T[:, :, None] - first
            sides = [self._best_below(side, starts, below) for side in (first, second)]
            result[number] = np.asarray(sides[0] + sides[1])
        return result

    def _best_below(
        self, held: FloatArray, starts: IntArray, masks: Sequence[BoolArray]
    ) -> FloatArray:
        """Return what the best split, or none, earns on one side of s splits.

        Parameters
        ----------
        held : (K + 1, cells of all features, s) sums of the side.
        """
        total = held[:, : starts[1]].sum(axis=1)
        best = total[:-1].max(axis=0)
        for number, mask in enumerate(masks):
            cells = held[:, starts[number] : starts[number + 1]]
            first = mask.astype(np.float64) @ cells
            value = self._of_two(first, total[:, None, :])
            best = np.maximum(best, value.max(axis=0, initial=-np.inf))
        return np.asarray(best)


def _cell_sums(codes: IntArray, count: int, sums: FloatArray) -> FloatArray:
    """Return the sums (count, K + 1) over the rows in every cell; a row is in some cells (n, f)."""
    rows, each = codes.shape
    incidence = sparse.csr_matrix(
        (np.ones(codes.size), codes.ravel(), np.arange(0, rows * each + 1, each)),
        shape=(rows, count),
    )
    return np.asarray(incidence.T @ sums)
