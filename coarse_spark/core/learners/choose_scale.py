"""Choice between additive, relative and logistic responses by held-out loss."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.evidence import detectable
from coarse_spark.core.learners.blend import error_of_mean
from coarse_spark.core.learners.crossfit import held_out_sieve
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.errors import InvalidInputError

_COLUMNS = 64  # of the encoded features: a scale shows without their products


@dataclass(frozen=True)
class ScaleChoice:
    """A scale and what it was compared with.

    Attributes
    ----------
    scale : additive, relative or logistic.
    losses : weighted mean squared error for held-out rows given one common baseline, by scale;
        empty where there was no choice.
    """

    scale: str
    losses: dict[str, float] = field(default_factory=dict)


def choose_scale(
    rows: TrialRows,
    *,
    basis: Basis,
    settings: LearnerSettings,
    seed: int = 0,
    outcomes: tuple[float, float] | None = None,
) -> ScaleChoice:
    """Return the scale whose sieve has the better effects, judged on held-out outcomes.

    All are judged beside ONE baseline, the mean of the additive and the relative one (as in
    ``stack``): decisions rest on effects, and which scale predicts the outcome without treatment
    better says little of them.

    Outcomes that are never negative and whose noise grows with b(x) are amounts, counts or shares:
    they are relative unless the additive scale is better by more than chance. Others are additive
    unless the relative one is. Outcomes from 0 to 1 whose noise is rather in proportion to
    b (1 − b), as that of chances is, than to b or alike for all are logistic or additive, whichever
    is better held out, unless the relative scale is better than that by more than chance; others
    are logistic if that is better by more than chance than what they would be without.
    Squared errors are weighed by 1 / b(x): in proportion to the noise of amounts and counts, so
    that the errors of a few large units do not rule. Where the mean outcome, of all rows or of a
    validation part, is not positive there are no multiples of it, and the scale is additive; where
    it is 1, it is not logistic.

    Parameters
    ----------
    rows : of the experiment; their folds do not matter.
    basis : of the treatments.
    settings : of the learner; a scale other than ``auto`` is taken as it is.
    seed : as in ``fit_models``.
    outcomes : the smallest and the largest one, where the rows are a sample; default theirs.
    """
    if settings.scale != "auto":
        return ScaleChoice(settings.scale)
    whole = rows.in_one_fold
    sieve = replace(
        settings, learner="sieve", shape=None, max_columns=min(settings.max_columns, _COLUMNS)
    )

    def held_out(scale: str) -> tuple[FloatArray, FloatArray]:
        return held_out_sieve(whole, basis=basis, settings=replace(sieve, scale=scale), seed=seed)

    thetas, variances = {}, {}
    thetas["additive"], _ = held_out("additive")
    try:
        thetas["relative"], variances["relative"] = held_out("relative")
    except InvalidInputError:  # what additive responses can do: the mean of some part is negative
        return ScaleChoice("additive")
    least, most = outcomes or (float(rows.y.min()), float(rows.y.max()))
    if 0 <= least <= most <= 1:
        with suppress(InvalidInputError):  # the mean of some part is 1
            thetas["logistic"], variances["logistic"] = held_out("logistic")
    weight, phi = rows.weight / variances["relative"], basis(rows.T)
    usual = np.average(phi, axis=0, weights=rows.weight)
    common = (thetas["additive"] + thetas["relative"]) / 2 @ usual
    squares = {
        scale: (rows.y - common - np.einsum("ij,ij->i", phi - usual, theta)) ** 2
        for scale, theta in thetas.items()
    }
    losses = {scale: float(weight @ square / weight.sum()) for scale, square in squares.items()}

    def likelier(scale: str, other: str) -> bool:
        """Whether the noise is rather in proportion to the variance of a scale."""
        return _misfit(squares[scale], variances[scale], rows.weight) < _misfit(
            squares[scale], variances.get(other), rows.weight
        )

    def unless(natural: str, other: str) -> str:
        """Return a scale, unless the other is better by more than chance."""
        gain = losses[natural] - losses[other]
        differences = squares[natural] - squares[other] - gain
        error = error_of_mean(differences, weight, rows.clusters)
        return other if detectable(gain, error) else natural

    bounded = "logistic" in thetas
    if bounded and likelier("logistic", "additive") and likelier("logistic", "relative"):
        better = min(("logistic", "additive"), key=lambda scale: losses[scale])
        return ScaleChoice(unless(better, "relative"), losses)
    amounts = least >= 0 and likelier("relative", "additive")
    chosen = unless("relative", "additive") if amounts else unless("additive", "relative")
    return ScaleChoice(unless(chosen, "logistic") if bounded else chosen, losses)


def _misfit(square: FloatArray, variance: FloatArray | None, weight: FloatArray) -> float:
    """Return how little squared residuals are in proportion to a variance (n,), None: alike.

    By the quasi-likelihood of a normal variance c·v against c (Davidian & Carroll 1987).
    """
    share = weight / weight.sum()
    if variance is None:
        return float(share @ square)
    return float(share @ (square / variance) * np.exp(share @ np.log(variance)))
