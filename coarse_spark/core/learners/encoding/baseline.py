"""Relative responses: outcomes as multiples of a baseline b(x) > 0, E[y | x, t] = b(x)·φ(t)·ρ(x).

Where effects and noise grow with the unit, ρ is learned from y / b(x) with far less noise, and a
constant ρ means that everybody reacts in proportion. The baseline is the expected outcome of a
Poisson regression with logarithmic link, log b(x) = c·f(x), whose quasi-likelihood needs nothing
but E[y | x] = b(x) (Gourieroux, Monfort & Trognon 1984): outcomes may be amounts, counts or shares,
and some may be negative. It is solved by iteratively reweighted least squares with penalties of
largest marginal likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import THIRDS, left_out
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.ridge.penalties import empirical_bayes
from coarse_spark.errors import InvalidInputError

_STEPS, _TOLERANCE = 10, 1e-3
_REACH = 6.0  # log b stays so near the log of the mean: factors of 400 either way
_FLOOR = 0.02  # share of the rows whose baseline is raised to that quantile
_MOST_FACTOR = 5.0  # on the weights of rows, either way
_ROWS = 50_000  # a baseline of more rows is hardly better: it is divided by, not reported


@dataclass(frozen=True, eq=False)
class Baseline:
    """b(x) = max(exp(c·f(x)), floor), with c·f(x) kept near the log of the mean outcome.

    Attributes
    ----------
    coefficients : c (m,) of the main columns of an encoding.
    center : logarithm of the mean outcome.
    floor : least baseline.
    """

    coefficients: FloatArray
    center: float
    floor: float = 0.0

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return b(x) (n,) of f(x) (n, ·), whose first columns are the main ones."""
        logarithm = features[:, : len(self.coefficients)] @ self.coefficients
        return np.asarray(np.maximum(np.exp(_near(logarithm, self.center)), self.floor))

    @staticmethod
    def fit(
        features: FloatArray, outcome: FloatArray, weight: FloatArray, groups: IntArray
    ) -> Baseline:
        """Fit on rows in random order, of which the first 50,000 are used.

        Parameters
        ----------
        features : f(x) (n, m) of main columns, f₀ = 1.
        outcome : (n,).
        weight : (n,).
        groups : (m,) penalty group of every column.

        Raises
        ------
        InvalidInputError : the mean outcome is not positive.
        """
        features, outcome, weight = features[:_ROWS], outcome[:_ROWS], weight[:_ROWS]
        mean = float(weight @ outcome / weight.sum()) if weight.any() else 0.0
        if not mean > 0:
            raise InvalidInputError(
                f"the mean outcome is {mean:.6g}, expected above 0: responses on a relative scale "
                "are multiples of it; use response.scale: additive"
            )
        center = float(np.log(mean))
        coefficients = np.zeros(features.shape[1])
        logarithm = np.full(len(outcome), center)
        block = np.zeros_like(groups)
        for _ in range(_STEPS):
            expected = np.exp(logarithm)
            counted = weight * expected
            working = logarithm - center + (outcome - expected) / expected
            scale = float(np.sqrt(counted @ working**2 / counted.sum())) or 1.0
            sums = GramStatistics.of(features, working / scale, counted)
            sums = sums.scaled(sums.rows_a_weight)
            coefficients = empirical_bayes(sums, groups, block).coefficients * scale
            coefficients[0] += center
            before, logarithm = logarithm, _near(features @ coefficients, center)
            if np.abs(logarithm - before).max() < _TOLERANCE:
                break
        floor = float(np.quantile(np.exp(logarithm), _FLOOR))
        return Baseline(coefficients, center, floor)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        return {
            "coefficients": self.coefficients.tolist(),
            "center": self.center,
            "floor": self.floor,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Baseline:
        """Return the baseline that ``to_dict`` described."""
        coefficients = np.asarray(content["coefficients"], dtype=np.float64)
        return Baseline(coefficients, float(content["center"]), float(content["floor"]))


@dataclass(frozen=True, eq=False)
class RelativeScale:
    """Outcomes as multiples of baselines that did not see them.

    Attributes
    ----------
    mean_response : (p,) coefficients of E[y | t] / E[y]. The noise of amounts and counts grows with
        what is expected, with x and with t: y / b(x) sees to the one, weights 1 / E[y | t] to the
        other.
    baselines : by left-out fold, ``ALL_FOLDS`` for none: fitted without each third of the
        validation parts, and at last with all of them.
    """

    mean_response: FloatArray
    baselines: Mapping[int, tuple[Baseline, ...]]

    @staticmethod
    def fit(
        features: FloatArray,
        phi: FloatArray,
        rows: TrialRows,
        part: IntArray,
        groups: IntArray,
    ) -> RelativeScale:
        """Fit on rows in random order.

        Parameters
        ----------
        features : f(x) (n, m) of main columns.
        phi : (n, p) basis of the treatments.
        rows : whose outcomes, weights and folds count.
        part : (n,) validation part of every row.
        groups : (m,) penalty group of every column.

        Raises
        ------
        InvalidInputError : the mean outcome is not positive.
        """
        outcome, weight, fold = rows.y, rows.weight, rows.fold
        root, third = np.sqrt(weight), part % THIRDS
        mean = float(weight @ outcome / weight.sum())

        def baseline(here: IntArray) -> Baseline:
            return Baseline.fit(features[here], outcome[here], weight[here], groups)

        baselines = {}
        for number in left_out(rows.folds):
            outside = np.flatnonzero(fold != number)
            whole = baseline(outside)
            held_out = []
            for held in range(THIRDS):
                rest = outside[third[outside] != held]
                held_out.append(baseline(rest) if 0 < len(rest) < len(outside) else whole)
            baselines[number] = (*held_out, whole)
        response = np.linalg.lstsq(phi * root[:, None], outcome * root, rcond=None)[0]
        return RelativeScale(response / mean, baselines)

    def whole(self, fold: int) -> Baseline:
        """Return the baseline of all rows outside a fold."""
        return self.baselines[fold][-1]

    def held_out(self, features: FloatArray, part: IntArray) -> FloatArray:
        """Return b(x) (n, 1 + folds) for the models of all rows and without every fold.

        Parameters
        ----------
        features : f(x) (n, m).
        part : (n,) validation part of every row.
        """
        third = part % THIRDS
        result = np.empty((len(part), len(self.baselines)))
        for column, fold in enumerate(sorted(self.baselines)):
            for number in np.unique(third):
                rows = np.flatnonzero(third == number)
                result[rows, column] = self.baselines[fold][number](features[rows])
        return result

    def weight(self, phi: FloatArray) -> FloatArray:
        """Return the factor (n,) on the weights of rows with the basis φ (n, p)."""
        return 1 / np.clip(phi @ self.mean_response, 1 / _MOST_FACTOR, _MOST_FACTOR)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        baselines = {
            str(fold): [one.to_dict() for one in found] for fold, found in self.baselines.items()
        }
        return {"mean_response": self.mean_response.tolist(), "baselines": baselines}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> RelativeScale:
        """Return the scale that ``to_dict`` described."""
        baselines = {
            int(fold): tuple(Baseline.from_dict(one) for one in found)
            for fold, found in content["baselines"].items()
        }
        return RelativeScale(np.asarray(content["mean_response"], dtype=np.float64), baselines)


def _near(logarithm: FloatArray, center: float) -> FloatArray:
    return np.clip(logarithm, center - _REACH, center + _REACH)
