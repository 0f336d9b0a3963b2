"""Shallow regression trees on binned features with vector leaves, as plain arrays.

A tree of depth D is complete: 2^D − 1 splits, level by level, and 2^D leaves. A node that is not worth splitting sends every row
left and both its sides get values of their own, so that no structure beyond three arrays is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CodeArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

BINS = 32
NO_SPLIT = -1


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


def route(columns: npt.NDArray[np.generic], feature: IntArray, threshold: npt.NDArray[np.generic]) -> IntArray:
    """Return the leaf (n,) of every row of ``columns`` (c, n); comparing whole columns beats following single rows."""
    nodes, rows = len(feature), columns.shape[1]
    kind: Any = columns.dtype.type  # a threshold of another type would convert the whole column
    bits: list[npt.NDArray[np.bool_]] = []
    first = 0
    while first < nodes:
        width = first + 1  # of this level
        answers = [
            columns[feature[v]] > kind(threshold[v]) if feature[v] != NO_SPLIT else np.zeros(rows, dtype=bool)
            for v in range(first, first + width)
        ]
        for bit in reversed(bits):
            # where(bit, right, left) in three passes of whole machine words
            answers = [left ^ (bit & (left ^ right)) for left, right in zip(answers[::2], answers[1::2], strict=True)]
        bits.append(answers[0])
        first += width
    leaf = np.zeros(rows, dtype=np.int64)
    for bit in bits:
        leaf += leaf
        leaf += bit
    return leaf


def bin_edges(inputs: FloatArray) -> list[FloatArray]:
    """Return for every column of inputs (n, c) at most BINS − 1 ascending edges: quantiles, or all distinct values where few."""
    edges = []
    for values in inputs.T:
        distinct = np.unique(values)
        if len(distinct) > BINS:
            distinct = np.unique(np.quantile(values, np.arange(1, BINS + 1) / BINS, method="inverted_cdf"))
        edges.append(distinct[:-1])
    return edges


def bin_codes(inputs: FloatArray, edges: list[FloatArray]) -> CodeArray:
    """Return the bins (c, n): a code exceeds b exactly where the value exceeds edge b."""
    codes = [np.searchsorted(places, values, side="left") for places, values in zip(edges, inputs.T, strict=True)]
    return np.asarray(codes, dtype=np.uint8).reshape(len(edges), len(inputs))


def grow(
    codes: CodeArray, gradient: FloatArray, weight: FloatArray, columns: IntArray, *, depth: int, min_rows: float, penalty: float
) -> tuple[IntArray, IntArray]:
    """Grow one tree level by level and return its split columns and bins (2^depth − 1,).

    The gain of a split is the drop of Σ |G|² / (W + penalty) over the leaves, with G = Σ gradient (k,) and W = Σ weight: the
    second-order gain of boosting with an identity Hessian, which whitened treatments of a randomized experiment have.

    Parameters
    ----------
    codes : (c, n) bins; gradient : (k, n); weight : (n,).
    columns : columns that may be split on.
    min_rows : least weight of a leaf.
    """
    rows = codes.shape[1]
    node: IntArray = np.zeros(rows, dtype=np.int64)
    features, places = np.full(2**depth - 1, NO_SPLIT), np.zeros(2**depth - 1, dtype=np.int64)
    for level in range(depth):
        width = 2**level
        best, base = np.full(width, 1e-12), node * BINS
        chosen, place = np.full(width, NO_SPLIT), np.zeros(width, dtype=np.int64)
        for column in columns:
            cell = base + codes[column]

            def sums(weights: FloatArray, cell: IntArray = cell, width: int = width) -> FloatArray:
                return np.bincount(cell, weights=weights, minlength=width * BINS).reshape(width, BINS).cumsum(axis=1)

            left = sums(weight)
            right = left[:, -1:] - left
            allowed = (left >= min_rows) & (right >= min_rows)
            if not allowed.any():
                continue
            gain = np.zeros((width, BINS))
            for part in gradient:
                below = sums(part)
                total = below[:, -1:]
                gain += below**2 / (left + penalty) + (total - below) ** 2 / (right + penalty) - total**2 / (left[:, -1:] + penalty)
            gain = np.where(allowed, gain, -np.inf)
            place_here = gain.argmax(axis=1)
            value = gain[np.arange(width), place_here]
            better = value > best
            best[better], chosen[better], place[better] = value[better], column, place_here[better]
        features[width - 1 : 2 * width - 1], places[width - 1 : 2 * width - 1] = chosen, place
        node = route(codes, features[: 2 * width - 1], places[: 2 * width - 1])
    return features, places
