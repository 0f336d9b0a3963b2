"""Weighing fits of coefficient functions by what they predict for held-out rows.

They are weighed around an origin that stands for no fit at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

from coarse_spark.core.additive import added_up
from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.boosting.trees import Trees

_LEAST_WEIGHT = 0.05  # a member with less is not worth scoring
_MOST_WEIGHT = 1.2  # a member that stopped early is not blown up


@dataclass(frozen=True)
class Member:
    """A fit of k coefficient functions: the sum of its parts.

    Parameters
    ----------
    name : of the learner.
    held_out : (n, k) values of the fits that did not see a row.
    coefficients : (k, m) functions in the partition's encoding.
    trees : with leaf values (k,).
    pooled : (k, ·) functions in the pooled encoding.
    """

    name: str
    held_out: FloatArray
    coefficients: FloatArray | None = None
    trees: Trees | None = None
    pooled: FloatArray | None = None


@dataclass(frozen=True)
class Blend:
    """Weighted members around an origin.

    Attributes
    ----------
    weights : of the members, by name.
    held_out, coefficients, trees, pooled : as of a member; m is at least one.
    """

    weights: dict[str, float]
    held_out: FloatArray
    coefficients: FloatArray
    trees: Trees | None = None
    pooled: FloatArray | None = None


@dataclass(frozen=True)
class Judgement:
    """How a blend predicts held-out rows.

    Attributes
    ----------
    loss : mean squared error.
    gain : over the origin.
    error : standard error of the gain.
    """

    loss: float
    gain: float
    error: float


@dataclass(frozen=True)
class HeldOutTarget:
    """A target that Z·τ(x) is to explain.

    Parameters
    ----------
    Z : (n, k).
    target : (n,).
    weight : (n,).
    part : (n,) validation part of every row.
    held_origin : (n, k) values of the origin fitted without a row's part.
    origin : (k,) the origin itself.
    size : m, columns of the partition's encoding.
    cluster : (n,) labels; None where every row is a cluster of its own.
    """

    Z: FloatArray
    target: FloatArray
    weight: FloatArray
    part: IntArray
    held_origin: FloatArray
    origin: FloatArray
    size: int
    cluster: IntArray | None = None

    def blend(self, members: Sequence[Member]) -> Blend:
        """Return members weighed by bounded least squares on their held-out Z·(τ − origin).

        Without members it is the origin. The held-out values of the blend are weighed without the
        part they belong to.
        """
        held_out, coefficients = (
            self.held_origin.copy(),
            np.eye(1, self.size) * self.origin[:, None],
        )
        if not members:
            return Blend({}, held_out, coefficients)
        root = np.sqrt(self.weight)
        moves = np.column_stack([self._moved(member.held_out) * root for member in members])
        goal = (self.target - np.einsum("ij,ij->i", self.Z, self.held_origin)) * root
        weights = _weights(moves, goal)
        for number in np.unique(self.part):
            inside = self.part == number
            for member, value in zip(members, _weights(moves[~inside], goal[~inside]), strict=True):
                held_out[inside] += value * (member.held_out[inside] - self.held_origin[inside])
        coefficients *= 1 - weights.sum()
        trees, pooled = [], None
        for member, value in zip(members, weights.tolist(), strict=True):
            if value > 0 and member.coefficients is not None:
                coefficients += value * member.coefficients
            if value > 0 and member.trees is not None and len(member.trees.value):
                trees.append(member.trees.scaled(value))
            if value > 0 and member.pooled is not None:
                pooled = value * member.pooled
        named = {
            member.name: value for member, value in zip(members, weights.tolist(), strict=True)
        }
        return Blend(
            named, held_out, coefficients, Trees.concatenate(trees) if trees else None, pooled
        )

    def judge(self, blend: Blend) -> Judgement:
        """Return how a blend does on rows that it did not see, beside the origin."""
        residual = self.target - np.einsum("ij,ij->i", self.Z, self.held_origin)
        loss = (residual - self._moved(blend.held_out)) ** 2
        gain, total = residual**2 - loss, self.weight.sum()
        mean = float(self.weight @ gain / total)
        error = error_of_mean(gain - mean, self.weight, self.cluster)
        return Judgement(float(self.weight @ loss / total), mean, error)

    def _moved(self, held_out: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ij,ij->i", self.Z, held_out - self.held_origin))


def error_of_mean(deviation: FloatArray, weight: FloatArray, cluster: IntArray | None) -> float:
    """Return the standard error of a weighted mean (see ``core.values`` on clusters).

    Parameters
    ----------
    deviation : (n,) from the mean.
    weight : (n,).
    cluster : (n,) labels; None where every row is a cluster of its own.
    """
    if cluster is None:
        return float(np.sqrt(weight**2 @ deviation**2) / weight.sum())
    sums = added_up((weight * deviation)[:, None], cluster)[0]
    return float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)) / weight.sum())


def _weights(moves: FloatArray, goal: FloatArray) -> FloatArray:
    weights = _bounded(moves, goal)
    kept = weights >= _LEAST_WEIGHT
    weights = np.where(kept, weights, 0.0)
    if kept.any() and not kept.all():
        weights[kept] = _bounded(moves[:, kept], goal)
    return weights


def _bounded(moves: FloatArray, goal: FloatArray) -> FloatArray:
    # by active sets, which end in the solution itself: the default stops near it
    found = lsq_linear(moves, goal, bounds=(0, _MOST_WEIGHT), method="bvls")
    return np.asarray(found.x)
