"""Shallow regression trees on binned features with vector leaves, as plain arrays.

A tree of depth D is complete: 2^D − 1 splits, level by level, and 2^D leaves. A node that is not
worth splitting sends every row left and both its sides get values of their own, so that no
structure beyond three arrays is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray

CodeArray = npt.NDArray[np.uint8]

BINS = 32
NO_SPLIT = -1
_CELLS = 65_536  # entries of a histogram pass


@dataclass(frozen=True)
class Growth:
    """How far trees grow.

    Attributes
    ----------
    depth : levels of splits.
    min_rows : least weight of a leaf.
    penalty : λ, by which leaf values and gains are shrunk.
    """

    depth: int
    min_rows: float
    penalty: float


@dataclass(frozen=True)
class Trees:
    """An ensemble: the prediction is the sum over its trees.

    Parameters
    ----------
    feature : (R, 2^D − 1) column that a node splits on, ``NO_SPLIT`` where all rows go left.
    threshold : (R, 2^D − 1) values above it go right.
    value : (R, 2^D, k) what a leaf adds.
    """

    feature: IntArray
    threshold: FloatArray
    value: FloatArray

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Return the sums (n, k) at inputs (n, c)."""
        columns = np.ascontiguousarray(inputs.T)
        result = np.zeros((len(inputs), self.value.shape[2]))
        for feature, threshold, value in zip(self.feature, self.threshold, self.value, strict=True):
            result += value[route(columns, feature, threshold)]
        return result

    def scaled(self, factor: float | FloatArray) -> Trees:
        """Return the ensemble with its leaf values times ``factor``."""
        return Trees(self.feature, self.threshold, self.value * factor)

    @staticmethod
    def concatenate(ensembles: list[Trees]) -> Trees:
        """Return one ensemble that predicts the sum of all."""
        return Trees(
            np.concatenate([e.feature for e in ensembles]),
            np.concatenate([e.threshold for e in ensembles]),
            np.concatenate([e.value for e in ensembles]),
        )


def route(
    columns: npt.NDArray[np.generic], feature: IntArray, threshold: npt.NDArray[np.generic]
) -> IntArray:
    """Return the leaf (n,) of every row of ``columns`` (c, n).

    Comparing whole columns beats following single rows.

    Parameters
    ----------
    columns : (c, n) of any type.
    feature : (2^D − 1,) as in ``Trees``.
    threshold : (2^D − 1,) as in ``Trees``, or bins where the columns are bins.
    """
    nodes, rows = len(feature), columns.shape[1]
    kind: Any = columns.dtype.type  # a threshold of another type would convert the whole column
    bits: list[BoolArray] = []
    first = 0
    while first < nodes:
        width = first + 1  # of this level
        answers = [
            columns[feature[v]] > kind(threshold[v])
            if feature[v] != NO_SPLIT
            else np.zeros(rows, dtype=bool)
            for v in range(first, first + width)
        ]
        for bit in reversed(bits):
            # where(bit, right, left) in three passes of whole machine words
            answers = [
                left ^ (bit & (left ^ right))
                for left, right in zip(answers[::2], answers[1::2], strict=True)
            ]
        bits.append(answers[0])
        first += width
    leaf = np.zeros(rows, dtype=np.int64)
    for bit in bits:
        leaf += leaf
        leaf += bit
    return leaf


def bin_edges(inputs: FloatArray) -> list[FloatArray]:
    """Return for every column of inputs (n, c) at most BINS − 1 ascending edges.

    They are quantiles, or all distinct values where those are few.
    """
    edges = []
    for values in inputs.T:
        distinct = np.unique(values)
        if len(distinct) > BINS:
            distinct = np.unique(
                np.quantile(values, np.arange(1, BINS + 1) / BINS, method="inverted_cdf")
            )
        edges.append(distinct[:-1])
    return edges


def bin_codes(inputs: FloatArray, edges: list[FloatArray]) -> CodeArray:
    """Return the bins (c, n): a code exceeds b exactly where the value exceeds edge b."""
    codes = [
        np.searchsorted(places, values, side="left")
        for places, values in zip(edges, inputs.T, strict=True)
    ]
    return np.asarray(codes, dtype=np.uint8).reshape(len(edges), len(inputs))


def grow(
    codes: CodeArray,
    gradient: FloatArray,
    weight: FloatArray,
    columns: IntArray,
    growth: Growth,
) -> tuple[IntArray, IntArray]:
    """Grow one tree level by level and return its split columns and bins (2^depth − 1,).

    The gain of a split is what it adds to Σ |G|² / (W + penalty) over the leaves, with
    G = Σ gradient (k,) and W = Σ weight: the second-order gain of boosting with an identity
    Hessian, which whitened treatments of a randomized experiment have.

    Parameters
    ----------
    codes : (c, n) bins.
    gradient : (k, n).
    weight : (n,).
    columns : columns that may be split on.
    growth : depth, least leaf and penalty.
    """
    rows, depth = codes.shape[1], growth.depth
    # few rows: many columns at once save calls; many rows: one column at a time stays in cache
    together = max(1, _CELLS // rows)
    node: IntArray = np.zeros(rows, dtype=np.int64)
    features, places = np.full(2**depth - 1, NO_SPLIT), np.zeros(2**depth - 1, dtype=np.int64)
    for level in range(depth):
        width = 2**level
        best, chosen, place = (
            np.full(width, 1e-12),
            np.full(width, NO_SPLIT),
            np.zeros(width, dtype=np.int64),
        )
        for start in range(0, len(columns), together):
            block = columns[start : start + together]
            gain = _gains(codes[block], node, width, gradient, weight, growth)
            nodes, where = np.arange(width), gain.argmax(axis=2)
            value = np.take_along_axis(gain, where[:, :, None], axis=2)[:, :, 0]
            column = value.argmax(axis=0)
            better = value[column, nodes] > best
            best = np.where(better, value[column, nodes], best)
            chosen = np.where(better, block[column], chosen)
            place = np.where(better, where[column, nodes], place)
        features[width - 1 : 2 * width - 1], places[width - 1 : 2 * width - 1] = chosen, place
        node = route(codes, features[: 2 * width - 1], places[: 2 * width - 1])
    return features, places


def _gains(
    codes: CodeArray,
    node: IntArray,
    width: int,
    gradient: FloatArray,
    weight: FloatArray,
    growth: Growth,
) -> FloatArray:
    """Gain (b, width, BINS) of splitting each of ``width`` nodes after each bin of b columns.

    −inf where a side is too light.
    """
    penalty = growth.penalty
    count, cells = len(codes), width * BINS
    cell = (codes + (node * BINS) + (np.arange(count) * cells)[:, None]).ravel()

    def below(values: FloatArray) -> FloatArray:
        sums = np.bincount(
            cell, weights=np.tile(values, count) if count > 1 else values, minlength=count * cells
        )
        return np.asarray(sums.reshape(count, width, BINS).cumsum(axis=2))

    left = below(weight)
    right = left[:, :, -1:] - left
    allowed = (left >= growth.min_rows) & (right >= growth.min_rows)
    gain = np.zeros(left.shape)
    for part in gradient:
        sums = below(part)
        total = sums[:, :, -1:]
        gain += (
            sums**2 / (left + penalty)
            + (total - sums) ** 2 / (right + penalty)
            - total**2 / (left[:, :, -1:] + penalty)
        )
    return np.where(allowed, gain, -np.inf)
