"""Shallow regression trees on binned features with vector leaves, as plain arrays.

A tree of depth D is complete: 2^D − 1 splits, level by level, and 2^D leaves. A node that is not
worth splitting sends every row left and both its sides get values of their own, so that no
structure beyond three arrays is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray

CodeArray = npt.NDArray[np.uint8]

_LEAST_BINS, _MOST_BINS = 32, 255
NO_SPLIT = -1
_LEAST_GAIN, _TIE = 1e-12, 1e-9
_ROWS, _PAIRS = 2_048, 16  # predicted at once: their splits' answers stay in the cache


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
        result = np.zeros((len(inputs), self.value.shape[2]))
        cuts, which, tables = self._paired
        for first in range(0, len(inputs), _ROWS):
            block, sums = inputs[first : first + _ROWS], result[first : first + _ROWS]
            above = [block[:, j] > cut[:, None] for j, cut in enumerate(cuts)]
            answers = np.concatenate([*above, np.zeros((1, len(block)), dtype=bool)])
            for start in range(0, len(tables), _PAIRS):
                left, right = _leaves(answers[which[..., start : start + _PAIRS]])
                cells = np.multiply(left, self.value.shape[1], dtype=np.intp) + right
                for table, cell in zip(tables[start:], cells, strict=False):
                    sums += table.take(cell, axis=0, mode="clip")
        return result

    @cached_property
    def _paired(self) -> tuple[list[FloatArray], IntArray, FloatArray]:
        """What predictions look up; leaves of two trees at once, which halves the sums of rows.

        Ascending thresholds of every column, each node's place (2^D − 1, 2, R/2) among all of them,
        −1 without a split, and what two leaves add (R/2, 4^D, k).
        """
        odd = (0, len(self.feature) % 2)
        feature = np.pad(self.feature, [odd, (0, 0)], constant_values=NO_SPLIT)
        threshold = np.pad(self.threshold, [odd, (0, 0)])
        value = np.pad(self.value, [odd, (0, 0), (0, 0)])
        which, cuts, first = np.full(feature.shape, -1), [], 0
        for column in range(feature.max(initial=NO_SPLIT) + 1):
            here = feature == column
            cut, place = np.unique(threshold[here], return_inverse=True)
            which[here] = first + place
            cuts.append(cut)
            first += len(cut)
        tables = value[::2, :, None] + value[1::2, None]
        return (
            cuts,
            np.ascontiguousarray(np.stack([which[::2], which[1::2]]).transpose(2, 0, 1)),
            tables.reshape(len(tables), value.shape[1] ** 2, value.shape[2]),
        )

    def scaled(self, factor: float | FloatArray) -> Trees:
        """Return the ensemble with its leaf values times ``factor``."""
        return Trees(self.feature, self.threshold, self.value * factor)

    def to_arrays(self, name: str) -> dict[str, FloatArray]:
        """Return plain arrays, their names after ``name``, that ``of_arrays`` reads back."""
        return {
            f"{name}_feature": self.feature.astype(np.float64),
            f"{name}_threshold": self.threshold,
            f"{name}_value": self.value,
        }

    @staticmethod
    def of_arrays(arrays: Mapping[str, FloatArray], name: str) -> Trees:
        """Return the ensemble that ``to_arrays`` described."""
        feature = arrays[f"{name}_feature"].astype(np.int64)
        return Trees(feature, arrays[f"{name}_threshold"], arrays[f"{name}_value"])

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
    rows = columns.shape[1]
    kind: Any = columns.dtype.type  # a threshold of another type would convert the whole column
    answers = [
        columns[column] > kind(cut) if column != NO_SPLIT else np.zeros(rows, dtype=bool)
        for column, cut in zip(feature, threshold, strict=True)
    ]
    return _leaves(answers).astype(np.int64)


def _leaves(answers: Sequence[BoolArray] | BoolArray) -> npt.NDArray[np.uint8]:
    """Return the leaves (…) that rows reach, given whether they go right at nodes (2^D − 1, …)."""
    bits: list[BoolArray] = []
    while (first := 2 ** len(bits) - 1) < len(answers):
        level = list(answers[first : 2 * first + 1])
        for bit in reversed(bits):
            # where(bit, right, left) in three passes of whole machine words
            level = [
                left ^ (bit & (left ^ right))
                for left, right in zip(level[::2], level[1::2], strict=True)
            ]
        bits += level
    leaf = np.zeros(bits[0].shape, dtype=np.uint8)
    for bit in bits:
        leaf += leaf
        leaf += bit
    return leaf


@dataclass(frozen=True, eq=False)
class Binned:
    """Columns as bins.

    Attributes
    ----------
    edges : of every column, as ``bin_edges``.
    codes : (c, n) bins.
    """

    edges: list[FloatArray]
    codes: CodeArray

    @staticmethod
    def of(inputs: FloatArray) -> Binned:
        """Return the bins of inputs (n, c)."""
        edges = bin_edges(inputs)
        return Binned(edges, bin_codes(inputs, edges))

    def take(self, rows: IntArray) -> Binned:
        """Return the bins of some rows."""
        return Binned(self.edges, self.codes[:, rows])


def bin_edges(inputs: FloatArray) -> list[FloatArray]:
    """Return for every column of inputs (n, c) ascending edges, one fewer than its bins.

    They are quantiles, or all distinct values where those are few. There are as many bins as a byte
    can tell apart, in few rows as many as have ten rows.
    """
    edges, bins = [], min(_MOST_BINS, max(_LEAST_BINS, len(inputs) // 10))
    for values in inputs.T:
        distinct = np.unique(values)
        if len(distinct) > bins:
            distinct = np.unique(
                np.quantile(values, np.arange(1, bins + 1) / bins, method="inverted_cdf")
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
    depth, searched = growth.depth, codes[columns]
    features, places = np.full(2**depth - 1, NO_SPLIT), np.zeros(2**depth - 1, dtype=np.int64)
    if not searched.size:
        return features, places
    # a level has two bins where a number has hundreds
    bins = searched.max(axis=1).astype(np.int32) + np.int32(1)
    ends = np.cumsum(bins, dtype=np.int32)
    cells = np.ascontiguousarray(searched.T) + (ends - bins)
    values, ones = np.column_stack([weight, *gradient]), np.ones(cells.size)

    def histogram(rows: slice | IntArray) -> FloatArray:
        """Sums of weight and gradient (1 + k, bins of all columns): a sparse product."""
        chosen, added = cells[rows], values[rows]
        starts = np.arange(0, chosen.size + 1, len(columns), dtype=np.int32)
        content = (ones[: chosen.size], chosen.ravel(), starts)
        return np.asarray(csc_array(content, shape=(int(ends[-1]), len(chosen))) @ added).T

    histograms = [histogram(slice(None))]
    for level in range(depth):
        first, last = 2**level - 1, 2 ** (level + 1) - 1
        column, place = _best_splits(np.stack(histograms), bins, growth)
        features[first:last] = np.where(column == NO_SPLIT, NO_SPLIT, columns[column])
        places[first:last] = place
        if level == depth - 1:
            break
        node, children = route(codes, features[:last], places[:last]), []
        for parent, whole in enumerate(histograms):
            left, right = (np.flatnonzero(node == 2 * parent + side) for side in (0, 1))
            # the lighter side is summed, the other one is what is left
            if len(left) < len(right):
                few = histogram(left)
                children += [few, whole - few]
            else:
                few = histogram(right)
                children += [whole - few, few]
        histograms = children
    return features, places


def _best_splits(
    histograms: FloatArray, bins: npt.NDArray[np.int32], growth: Growth
) -> tuple[IntArray, IntArray]:
    """Return the column (w,) and bin (w,) to split each of w nodes after, or ``NO_SPLIT`` and 0.

    Parameters
    ----------
    histograms : (w, 1 + k, Σ bins) sums of weight and gradient, column by column.
    bins : of every column.
    growth : of which least leaf and penalty count.
    """
    penalty, ends = growth.penalty, np.cumsum(bins)
    below = histograms.cumsum(axis=2)
    # every column begins anew: without what all columns before it add up to
    before = np.concatenate([np.zeros_like(below[:, :, :1]), below[:, :, ends[:-1] - 1]], axis=2)
    totals = below[:, :, ends[0] - 1]
    below -= np.repeat(before, bins, axis=2)
    left, sums = below[:, 0], below[:, 1:]
    weight, whole = totals[:, :1], totals[:, 1:]
    right, whole_square = weight - left, (whole**2).sum(axis=1)[:, None]
    square = (sums * sums).sum(axis=1)
    rest_square = whole_square - 2 * (whole[:, None] @ sums)[:, 0] + square
    gain = square / (left + penalty) + rest_square / (right + penalty)
    gain -= whole_square / (weight + penalty)
    gain[(left < growth.min_rows) | (right < growth.min_rows)] = -np.inf
    # bins without rows between them are worth the same: the first, whatever sums round to
    top = gain.max(axis=1)
    best = (gain >= (top - _TIE * np.abs(top))[:, None]).argmax(axis=1)
    column = np.searchsorted(ends, best, side="right")
    place = best - (ends - bins)[column]
    worth = gain[np.arange(len(gain)), best] > _LEAST_GAIN
    return np.where(worth, column, NO_SPLIT), np.where(worth, place, 0)
