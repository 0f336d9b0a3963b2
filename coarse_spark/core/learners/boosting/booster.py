"""Varying-coefficient boosting: trees whose leaves hold coefficients.

They are fitted to target ≈ Z·τ(x) across validation parts by Newton boosting of the coefficient
functions τ: each round grows one tree on the gradients Z·residual of a random share of the rows and
gives every leaf its own penalised least-squares step (ZᵀZ + λI)⁻¹ Zᵀ residual. With Z = 1 it boosts
a baseline, with Z the whitened treatment columns the effects. One booster a part is fitted on the
other parts; all stop at the same round, where their summed held-out loss is least, and their
average is the model.

A target may also be a vector: with Z = 1 the mean of every of its columns is boosted, by trees that
all of them share. Splits of many columns are searched on a few random combinations of them
(Iosipoi & Vakhrushev 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.boosting.trees import (
    Binned,
    Growth,
    StepArray,
    Trees,
    grow,
    route,
)

_RATE, _ROUNDS, _PATIENCE = 0.2, 500, 6
_SHARE = 0.7  # of the rows, for each tree
# rows of those that splits are searched on; leaf values need more rows than splits
_SPLIT_ROWS, _SPLIT_SHARE = 10_000, 0.4
_COLUMNS = 32  # at most so many columns are searched for each tree
_COMBINATIONS = 6  # at most so many gradients
# effects are faint beside the noise: leaf steps shrink by n / (n + 50)
_GROWTH = Growth(depth=3, min_rows=25.0, penalty=50.0)
_SPLITS, _LEAVES = 2**_GROWTH.depth - 1, 2**_GROWTH.depth


@dataclass(frozen=True)
class BoostedFit:
    """The average booster, with k coefficients or k means of a vector.

    Attributes
    ----------
    start : (k,) starting coefficients.
    trees : with leaf values (k,).
    held_out : (n, k) predictions of boosters that did not see a row.
    rounds : number of trees of a booster.
    without : start and trees of the booster that did not see a part, by part.
    """

    start: FloatArray
    trees: Trees
    held_out: FloatArray
    rounds: int
    without: Mapping[int, tuple[FloatArray, Trees]]


@dataclass
class _Booster:
    """The booster of one part, in the middle of fitting."""

    start: FloatArray
    inputs: Binned
    columns: FloatArray  # (k, n), as held_columns
    residual: FloatArray  # (n,), or (q, n) of a vector, as held_residual
    weight: FloatArray
    held_steps: StepArray
    held_columns: FloatArray
    held_residual: FloatArray
    held_weight: FloatArray
    random: np.random.Generator
    features: list[IntArray] = field(default_factory=list)
    places: list[IntArray] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)

    def step(self) -> None:
        """Add one tree."""
        rows = self.weight.size
        size, offset = max(1, int(_SHARE * rows)), int(self.random.integers(rows))
        # rows are in random order, so that a cyclic window is a random sample without a gather
        Z, weight, residual = (
            _window(array, offset, size) for array in (self.columns, self.weight, self.residual)
        )
        target = weight * residual
        count = len(self.inputs.codes)
        columns = (
            np.arange(count)
            if count <= _COLUMNS
            else np.sort(self.random.choice(count, _COLUMNS, replace=False))
        )
        few = min(size, max(_SPLIT_ROWS, int(_SPLIT_SHARE * size)))
        searched = replace(
            self.inputs,
            codes=_window(self.inputs.codes, offset, few),
            steps=_window(self.inputs.steps, offset, few),
        )
        features, places = grow(
            searched,
            self._combined(Z[:, :few] * target[..., :few]),
            weight[:few],
            columns,
            _GROWTH,
        )
        leaf = route(self.inputs.steps, features, places)
        value = _leaf_values(Z, target, weight, _window(leaf, offset, size))
        held, dimensions = route(self.held_steps, features, places), self.residual.ndim
        self.residual -= _product(self.columns, value, leaf, dimensions)
        self.held_residual -= _product(self.held_columns, value, held, dimensions)
        self.features.append(features)
        self.places.append(places)
        self.values.append(value)

    def _combined(self, gradient: FloatArray) -> FloatArray:
        """Gradients (k, n) to split on, or a few random combinations of many."""
        if len(gradient) <= _COMBINATIONS:
            return gradient
        return self.random.normal(size=(_COMBINATIONS, len(gradient))) @ gradient

    @property
    def held_out_loss(self) -> float:
        return float((self.held_residual**2 @ self.held_weight).sum())

    def held_out(self, rounds: int) -> FloatArray:
        """The coefficients (n, k) of the held-out rows after so many rounds."""
        result = np.tile(self.start, (len(self.held_weight), 1))
        for features, places, value in zip(
            self.features[:rounds], self.places, self.values, strict=False
        ):
            result += value[route(self.held_steps, features, places)]
        return result

    def trees(self, rounds: int) -> Trees:
        features = np.array(self.features[:rounds], dtype=np.int64).reshape(rounds, _SPLITS)
        places = np.array(self.places[:rounds], dtype=np.int64).reshape(rounds, _SPLITS)
        threshold = np.zeros(features.shape)
        for column, cuts in enumerate(self.inputs.edges):
            threshold = np.where(
                features == column,
                np.append(cuts, np.inf)[np.minimum(places, len(cuts))],
                threshold,
            )
        values = np.array(self.values[:rounds]).reshape(rounds, _LEAVES, len(self.start))
        return Trees(features, threshold, values)


def fit_boosting(
    inputs: Binned,
    Z: FloatArray,
    target: FloatArray,
    weight: FloatArray,
    part: IntArray,
    *,
    seed: int,
    rounds: int = _ROUNDS,
) -> BoostedFit:
    """Fit one booster a part on the rows outside it and return their average.

    Parameters
    ----------
    inputs : bins (c, n) of the columns to split on, rows in random order.
    Z : (n, k) columns whose coefficients vary.
    target : (n,), of unit variance or near; or with a single column of Z a vector (n, q).
    weight : (n,) row weights that add up to the number of rows they stand for.
    part : (n,) validation part of every row, at least two different ones.
    seed : of the rows and columns that a tree is grown on.
    rounds : most trees of a booster.
    """
    parts = np.unique(part)
    boosters = []
    for number in parts:
        train, held = np.flatnonzero(part != number), np.flatnonzero(part == number)
        scaled = Z[train] * weight[train, None]
        start = np.asarray(
            np.linalg.lstsq(scaled.T @ Z[train], scaled.T @ target[train], rcond=1e-10)[0],
            dtype=np.float64,
        )
        boosters.append(
            _Booster(
                start.ravel(),
                inputs.take(train),
                np.ascontiguousarray(Z[train].T),
                (target[train] - Z[train] @ start).T,
                weight[train],
                inputs.steps[:, held],
                np.ascontiguousarray(Z[held].T),
                (target[held] - Z[held] @ start).T,
                weight[held],
                np.random.default_rng([seed, int(number)]),
            )
        )
    losses = [[booster.held_out_loss for booster in boosters]]
    while len(losses) <= rounds and len(losses) - 1 - _best(losses) < _PATIENCE:
        for booster in boosters:
            booster.step()
        losses.append([booster.held_out_loss for booster in boosters])
    best = _best(losses)
    held_out, without = np.empty((len(target), len(boosters[0].start))), {}
    for position, (number, booster) in enumerate(zip(parts, boosters, strict=True)):
        # a part has no say in the rounds that its own predictions stop at, or they would flatter
        # the booster
        own = _best(np.delete(losses, position, axis=1))
        held_out[part == number] = booster.held_out(own)
        without[int(number)] = booster.start, booster.trees(own)
    ensembles = [booster.trees(best).scaled(1 / len(boosters)) for booster in boosters]
    start = np.mean([booster.start for booster in boosters], axis=0)
    return BoostedFit(start, Trees.concatenate(ensembles), held_out, best, without)


def _best(losses: npt.ArrayLike) -> int:
    """The round of least loss summed over parts."""
    return int(np.argmin(np.sum(losses, axis=1)))


def _window(array: npt.NDArray[Any], offset: int, size: int) -> npt.NDArray[Any]:
    """``size`` entries of the last axis from ``offset`` on, around the end."""
    ahead = array[..., offset : offset + size]
    return (
        np.concatenate([ahead, array[..., : size - ahead.shape[-1]]], axis=-1)
        if ahead.shape[-1] < size
        else ahead
    )


def _leaf_values(
    Z: FloatArray, target: FloatArray, weight: FloatArray, leaf: IntArray
) -> FloatArray:
    """The penalised least-squares step (leaves, k) of every leaf, times the rate."""
    order = np.argsort(leaf.astype(np.uint8), kind="stable")
    ends = np.cumsum(np.bincount(leaf, minlength=_LEAVES))
    Z, target, weight = Z[:, order], target[..., order], weight[order]
    value = np.zeros((_LEAVES, target.size * len(Z) // len(leaf)))
    for number in np.flatnonzero(np.diff(ends, prepend=0)):
        inside = slice(ends[number - 1] if number else 0, ends[number])
        here = Z[:, inside]
        step = np.linalg.solve(
            (here * weight[inside]) @ here.T + _GROWTH.penalty * np.eye(len(Z)),
            here @ target[..., inside].T,
        )
        value[number] = _RATE * step.ravel()
    return value


def _product(Z: FloatArray, value: FloatArray, leaf: IntArray, dimensions: int) -> FloatArray:
    """Z·value of every row's leaf (n,), or of each mean (q, n), a column at a time.

    Small tables stay in cache.
    """
    if dimensions == 2:
        return np.stack([Z[0] * values[leaf] for values in value.T])
    return np.asarray(sum(column * values[leaf] for column, values in zip(Z, value.T, strict=True)))
