"""Choice between additive and relative responses by held-out loss."""

from __future__ import annotations

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
    scale : additive or relative.
    losses : weighted mean squared error for held-out rows given one common baseline, by scale;
        empty where there was no choice.
    """

    scale: str
    losses: dict[str, float] = field(default_factory=dict)


def choose_scale(
    rows: TrialRows, *, basis: Basis, settings: LearnerSettings, seed: int = 0
) -> ScaleChoice:
    """Return the scale whose sieve has the better effects, judged on held-out outcomes.

    Both are judged beside ONE baseline, the mean of their own (as in ``stack``): decisions rest on
    effects, and which scale predicts the outcome without treatment better says little of them.

    Outcomes that are never negative and whose noise grows with b(x) are amounts, counts or shares:
    they are relative unless the additive scale is better by more than chance. Others are additive
    unless the relative one is.
    Squared errors are weighed by 1 / b(x): in proportion to the noise of amounts and counts, so
    that the errors of a few large units do not rule. Where the mean outcome, of all rows or of a
    validation part, is not positive there are no multiples of it, and the scale is additive.

    Parameters
    ----------
    rows : of the experiment; their folds do not matter.
    basis : of the treatments.
    settings : of the learner; a scale other than ``auto`` is taken as it is.
    seed : as in ``fit_models``.
    """
    if settings.scale != "auto":
        return ScaleChoice(settings.scale)
    whole = rows.in_one_fold
    sieve = replace(
        settings, learner="sieve", shape=None, max_columns=min(settings.max_columns, _COLUMNS)
    )

    def held_out(scale: str) -> tuple[FloatArray, FloatArray]:
        return held_out_sieve(whole, basis=basis, settings=replace(sieve, scale=scale), seed=seed)

    additive, _ = held_out("additive")
    try:
        relative, baseline = held_out("relative")
    except InvalidInputError:  # what additive responses can do: the mean of some part is negative
        return ScaleChoice("additive")
    weight, phi = rows.weight / baseline, basis(rows.T)
    usual = np.average(phi, axis=0, weights=rows.weight)
    common = (additive + relative) / 2 @ usual
    squares = {
        scale: (rows.y - common - np.einsum("ij,ij->i", phi - usual, theta)) ** 2
        for scale, theta in (("additive", additive), ("relative", relative))
    }
    losses = {scale: float(weight @ square / weight.sum()) for scale, square in squares.items()}
    gain = losses["additive"] - losses["relative"]
    differences = squares["additive"] - squares["relative"] - gain
    error = error_of_mean(differences, weight, rows.clusters)
    if rows.y.min() >= 0 and _grows(squares["relative"], baseline, rows.weight):
        return ScaleChoice("additive" if detectable(-gain, error) else "relative", losses)
    return ScaleChoice("relative" if detectable(gain, error) else "additive", losses)


def _grows(square: FloatArray, baseline: FloatArray, weight: FloatArray) -> bool:
    """Return whether squared residuals are rather in proportion to b(x) (n,) than alike for all.

    By the quasi-likelihood of a normal variance c·b against c (Davidian & Carroll 1987).
    """
    share = weight / weight.sum()
    in_proportion = share @ (square / baseline) * np.exp(share @ np.log(baseline))
    return bool(in_proportion < share @ square)
