"""Scales of responses: outcomes as they are, or as what moves them from a baseline b(x).

E[y | x, t] = o(x) + m(x)·φ(t)·ρ(x), and ρ is learned from (y − o(x)) / m(x). An additive response
has o = 0 and m = 1. The others take b(x) from a regression with a canonical link, g(b(x)) = c·f(x),
and m is the slope of b in g(b), to which effects that are alike for all on the scale of the link
are in proportion:

relative : logarithmic link, m = b, o = 0 (b would do as well: it is a constant of ρ). For amounts
    and counts.
logistic : logit link, o = b, m = b (1 − b). For chances and shares.

A constant ρ then means that everybody reacts alike, and is learned with far less noise. The slope
of a canonical link is also the variance of its quasi-likelihood, Poisson's or Bernoulli's, which
needs nothing but E[y | x] = b(x) (Gourieroux, Monfort & Trognon 1984): outcomes may be amounts,
counts, shares or 0 and 1, and some amounts may be negative. It is solved by iteratively reweighted
least squares (McCullagh & Nelder 1989) with penalties of largest marginal likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import THIRDS, check_thirds, left_out
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.ridge.penalties import empirical_bayes
from coarse_spark.errors import InvalidInputError, TooFewRowsError

_STEPS, _TOLERANCE = 10, 1e-3
_REACH = 6.0  # g(b) stays so near g of the mean outcome: factors of 400 either way
_FLOOR = 0.02  # share of the rows whose baseline is kept from the end of its range by that quantile
_MOST_FACTOR = 5.0  # on the weights of rows, either way
_ROWS = 50_000  # a baseline of more rows is hardly better: it is divided by, not reported


@dataclass(frozen=True)
class Link:
    """The canonical link g of a baseline b, and what it makes of responses.

    Attributes
    ----------
    linear, mean : g and its inverse.
    slope : of b in g(b), of b; the variance of the quasi-likelihood.
    within : ends of the range of b, where the slope vanishes.
    from_baseline : whether responses are added to b.
    wanted : what the mean outcome must be, and why, in words.
    """

    linear: Callable[[float], float]
    mean: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    within: tuple[float, float]
    from_baseline: bool
    wanted: str

    def inside(self, b: FloatArray) -> FloatArray:
        """Return how far b lies from the ends of its range."""
        least, most = self.within
        return np.minimum(b - least, most - b)

    def kept(self, b: FloatArray, floor: float) -> FloatArray:
        """Return b kept so far from the ends of its range."""
        least, most = self.within
        return np.clip(b, least + floor, most - floor)


LINKS = {
    "relative": Link(
        np.log,
        np.exp,
        lambda b: b,
        (0.0, np.inf),
        False,
        "above 0: responses on a relative scale are multiples of it",
    ),
    "logistic": Link(
        logit,
        expit,
        lambda b: b * (1 - b),
        (0.0, 1.0),
        True,
        "above 0 and below 1: responses on a logistic scale are in proportion to what it lacks of "
        "either",
    ),
}


def check_range(scale: str, least: float, most: float) -> None:
    """Check the smallest and the largest outcome against what a scale is for.

    Raises
    ------
    InvalidInputError : outcomes outside 0 … 1 on the logistic scale.
    """
    if scale == "logistic" and not 0 <= least <= most <= 1:
        raise InvalidInputError(
            f"outcomes lie from {least:.6g} to {most:.6g}, expected from 0 to 1: responses on a "
            "logistic scale are of chances and shares; use response.scale: auto, additive or "
            "relative"
        )


@dataclass(frozen=True, eq=False)
class Baseline:
    """b(x) of g(b) = c·f(x), which is kept near g of the mean outcome, and b from its ends.

    Attributes
    ----------
    coefficients : c (m,) of the main columns of an encoding.
    center : g of the mean outcome.
    floor : least distance of b from the ends of its range.
    scale : relative or logistic.
    """

    coefficients: FloatArray
    center: float
    floor: float = 0.0
    scale: str = "relative"

    @property
    def link(self) -> Link:
        """Of the scale."""
        return LINKS[self.scale]

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return b(x) (n,) of f(x) (n, ·), whose first columns are the main ones."""
        linear = features[:, : len(self.coefficients)] @ self.coefficients
        return self.link.kept(self.link.mean(_near(linear, self.center)), self.floor)

    def terms(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return o(x) and m(x) (n,) of f(x) (n, ·)."""
        b = self(features)
        return b if self.link.from_baseline else np.zeros_like(b), self.link.slope(b)

    @staticmethod
    def fit(
        features: FloatArray,
        outcome: FloatArray,
        weight: FloatArray,
        groups: IntArray,
        scale: str = "relative",
    ) -> Baseline:
        """Fit on rows in random order, of which the first 50,000 are used.

        Parameters
        ----------
        features : f(x) (n, m) of main columns, f₀ = 1.
        outcome : (n,), whose mean is within the range of b.
        weight : (n,).
        groups : (m,) penalty group of every column.
        scale : relative or logistic.
        """
        features, outcome, weight = features[:_ROWS], outcome[:_ROWS], weight[:_ROWS]
        link = LINKS[scale]
        center = float(link.linear(_mean(outcome, weight)))
        coefficients = np.zeros(features.shape[1])
        linear = np.full(len(outcome), center)
        block = np.zeros_like(groups)
        for _ in range(_STEPS):
            expected = link.mean(linear)
            slope = link.slope(expected)
            counted = weight * slope
            working = linear - center + (outcome - expected) / slope
            unit = float(np.sqrt(counted @ working**2 / counted.sum())) or 1.0
            sums = GramStatistics.of(features, working / unit, counted)
            sums = sums.scaled(sums.rows_a_weight)
            coefficients = empirical_bayes(sums, groups, block).coefficients * unit
            coefficients[0] += center
            before, linear = linear, _near(features @ coefficients, center)
            if np.abs(linear - before).max() < _TOLERANCE:
                break
        floor = float(np.quantile(link.inside(link.mean(linear)), _FLOOR))
        return Baseline(coefficients, center, floor, scale)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        return {
            "coefficients": self.coefficients.tolist(),
            "center": self.center,
            "floor": self.floor,
            "scale": self.scale,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Baseline:
        """Return the baseline that ``to_dict`` described; records of old know one scale."""
        return Baseline(
            np.asarray(content["coefficients"], dtype=np.float64),
            float(content["center"]),
            float(content["floor"]),
            str(content.get("scale", "relative")),
        )


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """What rows are scaled by.

    Attributes
    ----------
    offset, multiplier : o(x) and m(x) (n, k), a column for every model that leaves out a fold.
    weight : (n,) factor on the weights.
    """

    offset: FloatArray
    multiplier: FloatArray
    weight: FloatArray

    @staticmethod
    def additive(rows: int) -> ScaledRows:
        """Return what leaves rows as they are."""
        return ScaledRows(np.zeros((rows, 1)), np.ones((rows, 1)), np.ones(rows))


@dataclass(frozen=True, eq=False)
class Baselines:
    """The scale of outcomes by baselines that did not see them.

    The noise of amounts and counts grows with what is expected, with x and with t: y / b(x) sees to
    the one, weights 1 / E[y | t] to the other. The noise of chances would ask for weights
    b (1 − b), which serve precision alone; but one set of sums, of one weight a row, serves the
    models of all folds, and would show each of them the outcomes that it leaves out.

    Attributes
    ----------
    scale : relative or logistic.
    mean_response : (p,) coefficients of E[y | t] / E[y].
    by_fold : by left-out fold, ``ALL_FOLDS`` for none: fitted without each third of the validation
        parts, and at last with all of them.
    """

    scale: str
    mean_response: FloatArray
    by_fold: Mapping[int, tuple[Baseline, ...]]

    @staticmethod
    def fit(
        scale: str,
        features: FloatArray,
        phi: FloatArray,
        rows: TrialRows,
        part: IntArray,
        groups: IntArray,
    ) -> Baselines:
        """Fit on rows in random order.

        Parameters
        ----------
        scale : relative or logistic.
        features : f(x) (n, m) of main columns.
        phi : (n, p) basis of the treatments.
        rows : whose outcomes, weights and folds count.
        part : (n,) validation part of every row.
        groups : (m,) penalty group of every column.

        Raises
        ------
        TooFewRowsError : the rows outside a fold are all in one third of the validation parts, or
            have no mean outcome that the scale is for where all rows have (or have none but 0 or,
            of chances, 1).
        InvalidInputError : outcomes, or a mean of all of them, that the scale is not for.
        """
        outcome, weight, fold = rows.y, rows.weight, rows.fold
        check_range(scale, float(outcome.min()), float(outcome.max()))
        root, third = np.sqrt(weight), part % THIRDS
        mean, (least, most) = _mean(outcome, weight), LINKS[scale].within

        def baseline(here: IntArray, *without: str) -> Baseline:
            found = _mean(outcome[here[:_ROWS]], weight[here[:_ROWS]])
            if not least < found < most:
                named = (
                    f" of the {len(here)} rows without {' and '.join(without)} ({mean:.6g} of all "
                    f"{len(rows)})"
                    if without
                    else ""
                )
                error = TooFewRowsError if least <= mean <= most else InvalidInputError
                raise error(
                    f"the mean outcome is {found:.6g}{named}, expected {LINKS[scale].wanted}; use "
                    "response.scale: additive"
                )
            return Baseline.fit(features[here], outcome[here], weight[here], groups, scale)

        by_fold = {}
        for number in left_out(rows.folds):
            outside = np.flatnonzero(fold != number)
            without = [f"fold {number}"] if len(outside) < len(rows) else []
            whole = baseline(outside, *without)
            check_thirds(part[outside], *without)
            held_out = []
            for held in range(THIRDS):
                rest = outside[third[outside] != held]
                held_out.append(
                    baseline(rest, *without, f"third {held} of the validation parts")
                    if len(rest) < len(outside)
                    else whole
                )
            by_fold[number] = (*held_out, whole)
        response = np.linalg.lstsq(phi * root[:, None], outcome * root, rcond=None)[0]
        return Baselines(scale, response / mean, by_fold)

    def whole(self, fold: int) -> Baseline:
        """Return the baseline of all rows outside a fold."""
        return self.by_fold[fold][-1]

    def scaled(self, features: FloatArray, phi: FloatArray, part: IntArray) -> ScaledRows:
        """Return what rows are scaled by for the models of all rows and without every fold.

        Parameters
        ----------
        features : f(x) (n, m).
        phi : (n, p) basis of the treatments.
        part : (n,) validation part of every row.
        """
        third = part % THIRDS
        offset, multiplier = np.empty((2, len(part), len(self.by_fold)))
        for column, fold in enumerate(sorted(self.by_fold)):
            for number in np.unique(third):
                rows = np.flatnonzero(third == number)
                terms = self.by_fold[fold][number].terms(features[rows])
                offset[rows, column], multiplier[rows, column] = terms
        if LINKS[self.scale].from_baseline:
            return ScaledRows(offset, multiplier, np.ones(len(part)))
        expected = np.clip(phi @ self.mean_response, 1 / _MOST_FACTOR, _MOST_FACTOR)
        return ScaledRows(offset, multiplier, 1 / expected)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        by_fold = {
            str(fold): [one.to_dict() for one in found] for fold, found in self.by_fold.items()
        }
        return {
            "scale": self.scale,
            "mean_response": self.mean_response.tolist(),
            "by_fold": by_fold,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Baselines:
        """Return the baselines that ``to_dict`` described."""
        by_fold = {
            int(fold): tuple(Baseline.from_dict(one) for one in found)
            for fold, found in content["by_fold"].items()
        }
        mean_response = np.asarray(content["mean_response"], dtype=np.float64)
        return Baselines(str(content["scale"]), mean_response, by_fold)


def _mean(outcome: FloatArray, weight: FloatArray) -> float:
    return float(weight @ outcome / weight.sum()) if weight.any() else 0.0


def _near(linear: FloatArray, center: float) -> FloatArray:
    return np.clip(linear, center - _REACH, center + _REACH)
