"""Shallow regression trees on binned features with vector leaves, as plain arrays.

A tree of depth D is complete: 2^D − 1 splits, level by level, and 2^D leaves. A node that is not
worth splitting sends every row left and both its sides get values of their own, so that no
structure beyond three arrays is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray

CodeArray = npt.NDArray[np.uint8]
StepArray = npt.NDArray[np.uint16]
Code = TypeVar("Code", np.uint8, np.uint16)

_LEAST_BINS, _MOST_BINS, _MOST_STEPS = 32, 255, 65_000  # of a byte and of two
NO_SPLIT = -1
_LEAST_GAIN, _TIE = 1e-12, 1e-9
# squared gradients of a row: of splits that gain as much, the place in the bin is worth a search
_CERTAIN = 100.0
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
    """Columns as bins, and as steps within these.

    Splits are searched between bins, which are few. Where one lies within the two bins beside it is
    told by steps, which in many rows are as many as have ten rows: where the outcome jumps this
    decides for units close to it, and in noise it would only fit more of that.

    Attributes
    ----------
    edges : of the steps of every column, ascending.
    codes : (c, n) bins.
    steps : (c, n) a step exceeds s exactly where the value exceeds edge s.
    last : of every column, the last step of each bin.
    """

    edges: list[FloatArray]
    codes: CodeArray
    steps: StepArray
    last: list[IntArray]

    @staticmethod
    def of(inputs: FloatArray) -> Binned:
        """Return the bins of inputs (n, c)."""
        bounds, steps = bin_edges(inputs), _count(len(inputs), _MOST_STEPS)
        edges = [
            np.union1d(coarse, _edges(values, steps))
            for coarse, values in zip(bounds, inputs.T, strict=True)
        ]
        last = [
            np.append(np.searchsorted(fine, coarse), len(fine))
            for fine, coarse in zip(edges, bounds, strict=True)
        ]
        return Binned(edges, bin_codes(inputs, bounds), _codes(inputs, edges, np.uint16), last)

    def take(self, rows: IntArray) -> Binned:
        """Return the bins of some rows."""
        return replace(self, codes=self.codes[:, rows], steps=self.steps[:, rows])


def bin_edges(inputs: FloatArray) -> list[FloatArray]:
    """Return for every column of inputs (n, c) ascending edges, one fewer than its bins.

    They are quantiles, or all distinct values where those are few. There are as many bins as a byte
    can tell apart, in few rows as many as have ten rows.
    """
    bins = _count(len(inputs), _MOST_BINS)
    return [_edges(values, bins) for values in inputs.T]


def _count(rows: int, most: int) -> int:
    return min(most, max(_LEAST_BINS, rows // 10))


def _edges(values: FloatArray, bins: int) -> FloatArray:
    distinct = np.unique(values)
    if len(distinct) > bins:
        distinct = np.unique(
            np.quantile(values, np.arange(1, bins + 1) / bins, method="inverted_cdf")
        )
    return np.asarray(distinct[:-1])


def bin_codes(inputs: FloatArray, edges: list[FloatArray]) -> CodeArray:
    """Return the bins (c, n): a code exceeds b exactly where the value exceeds edge b."""
    return _codes(inputs, edges, np.uint8)


def _codes(inputs: FloatArray, edges: list[FloatArray], kind: type[Code]) -> npt.NDArray[Code]:
    codes = [
        np.searchsorted(places, values, side="left")
        for places, values in zip(edges, inputs.T, strict=True)
    ]
    return np.asarray(codes, dtype=kind).reshape(len(edges), len(inputs))


def grow(
    inputs: Binned,
    gradient: FloatArray,
    weight: FloatArray,
    columns: IntArray,
    growth: Growth,
) -> tuple[IntArray, IntArray]:
    """Grow one tree level by level and return its split columns and steps (2^depth − 1,).

    The gain of a split is what it adds to Σ |G|² / (W + penalty) over the leaves, with
    G = Σ gradient (k,) and W = Σ weight: the second-order gain of boosting with an identity
    Hessian, which whitened treatments of a randomized experiment have.

    Parameters
    ----------
    inputs : n rows.
    gradient : (k, n).
    weight : (n,).
    columns : columns that may be split on.
    growth : depth, least leaf and penalty.
    """
    depth, searched = growth.depth, inputs.codes[columns]
    features, places = np.full(2**depth - 1, NO_SPLIT), np.zeros(2**depth - 1, dtype=np.int64)
    if not searched.size:
        return features, places
    # a level has two bins where a number has hundreds
    bins = searched.max(axis=1).astype(np.int32) + np.int32(1)
    ends = np.cumsum(bins, dtype=np.int32)
    cells = np.ascontiguousarray(searched.T) + (ends - bins)
    values, ones = np.column_stack([weight, *gradient]), np.ones(cells.size)
    noise = float(np.einsum("kn,kn->", gradient, gradient)) / len(weight)

    def histogram(rows: IntArray | slice) -> FloatArray:
        """Sums of weight and gradient (1 + k, bins of all columns): a sparse product."""
        chosen, added = cells[rows], values[rows]
        starts = np.arange(0, chosen.size + 1, len(columns), dtype=np.int32)
        content = (ones[: chosen.size], chosen.ravel(), starts)
        return np.asarray(csc_array(content, shape=(int(ends[-1]), len(chosen))) @ added).T

    nodes, histograms = [np.arange(len(weight))], [histogram(slice(None))]
    for level in range(depth):
        first, sides, children = 2**level - 1, list[IntArray](), list[FloatArray]()
        found = zip(*_best_splits(np.stack(histograms), bins, growth), strict=True)
        for node, (rows, whole, (best, bin_, gain)) in enumerate(
            zip(nodes, histograms, found, strict=True), start=first
        ):
            if best != NO_SPLIT:
                column = features[node] = columns[best]
                places[node] = inputs.last[column][bin_]
                if gain > _CERTAIN * noise:
                    sums = whole[:, ends[best] - bins[best] : ends[best]]
                    places[node] = _finer(inputs, column, bin_, rows, values, sums, growth)
            if level == depth - 1:
                continue
            left, right = rows, rows[:0]
            if best != NO_SPLIT:
                goes = inputs.steps[features[node]][rows] > places[node]
                left, right = rows[~goes], rows[goes]
            # the lighter side is summed, the other one is what is left
            if len(left) < len(right):
                few = histogram(left)
                children += [few, whole - few]
            else:
                few = histogram(right)
                children += [whole - few, few]
            sides += [left, right]
        nodes, histograms = sides, children
    return features, places


def _finer(
    inputs: Binned,
    column: int,
    bin_: int,
    rows: IntArray,
    values: FloatArray,
    sums: FloatArray,
    growth: Growth,
) -> int:
    """Return the step after which to split a node that is best split after a bin of a column.

    It lies in this bin or the next, half-way to the next row.

    Parameters
    ----------
    inputs : all rows.
    column, bin_ : as found.
    rows : of the node.
    values : (n, 1 + k) weight and gradient of all rows.
    sums : (1 + k, bins of the column) of the node.
    growth : of which least leaf and penalty count.
    """
    last = inputs.last[column]
    if len(last) > len(inputs.edges[column]):
        return int(last[bin_])  # every step is a bin
    beside = rows[(inputs.codes[column][rows] - np.uint8(bin_)) <= 1]  # bytes below it wrap around
    steps = inputs.steps[column][beside]
    order = np.argsort(steps, kind="stable")
    steps, added = steps[order].astype(np.int64), values[beside[order]].T
    following = np.append(steps[1:], steps[-1:])
    places = np.flatnonzero(np.append(steps[1:] != steps[:-1], True))
    left = sums[:, :bin_].sum(axis=1)[:, None] + added.cumsum(axis=1)[:, places]
    place = places[_first_best(_gains(left[None], sums.sum(axis=1)[None], growth))[0]]
    return int(steps[place] + following[place]) // 2


def _best_splits(
    histograms: FloatArray, bins: npt.NDArray[np.int32], growth: Growth
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the column (w,) and bin (w,) to split each of w nodes after, or ``NO_SPLIT`` and 0.

    The last is the gain (w,).

    Parameters
    ----------
    histograms : (w, 1 + k, Σ bins) sums of weight and gradient, column by column.
    bins : of every column.
    growth : of which least leaf and penalty count.
    """
    ends = np.cumsum(bins)
    below = histograms.cumsum(axis=2)
    # every column begins anew: without what all columns before it add up to
    before = np.concatenate([np.zeros_like(below[:, :, :1]), below[:, :, ends[:-1] - 1]], axis=2)
    totals = below[:, :, ends[0] - 1]
    below -= np.repeat(before, bins, axis=2)
    gain = _gains(below, totals, growth)
    best = _first_best(gain)
    column = np.searchsorted(ends, best, side="right")
    place = best - (ends - bins)[column]
    most = gain[np.arange(len(gain)), best]
    worth = most > _LEAST_GAIN
    return np.where(worth, column, NO_SPLIT), np.where(worth, place, 0), most


def _gains(left: FloatArray, whole: FloatArray, growth: Growth) -> FloatArray:
    """Return the gains (w, b) of splits of w nodes, −∞ where a side has too few rows.

    Parameters
    ----------
    left : (w, 1 + k, b) sums of weight and gradient that go left.
    whole : (w, 1 + k) sums of the nodes.
    growth : of which least leaf and penalty count.
    """
    penalty, weight, sums = growth.penalty, left[:, 0], left[:, 1:]
    rest, gradient = whole[:, :1] - weight, whole[:, 1:]
    whole_square = (gradient**2).sum(axis=1)[:, None]
    square = (sums * sums).sum(axis=1)
    rest_square = whole_square - 2 * (gradient[:, None] @ sums)[:, 0] + square
    gain = square / (weight + penalty) + rest_square / (rest + penalty)
    gain -= whole_square / (whole[:, :1] + penalty)
    gain[(weight < growth.min_rows) | (rest < growth.min_rows)] = -np.inf
    return np.asarray(gain)


def _first_best(gain: FloatArray) -> IntArray:
    """Return the place (w,) of the largest gain (w, b).

    Splits without rows between them are worth the same: the first, whatever sums round to.
    """
    top = gain.max(axis=1)
    return np.asarray((gain >= (top - _TIE * np.abs(top))[:, None]).argmax(axis=1))
