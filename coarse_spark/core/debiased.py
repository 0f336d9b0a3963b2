"""Debiased coefficients of profit: of all outcomes together, of each by the units that have it."""

from __future__ import annotations

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.design import corrected
from coarse_spark.core.profit import ProfitCoefficients


def debiased_coefficients(
    of_profit: ProfitCoefficients,
    responses: FloatArray,
    phi: FloatArray,
    y: FloatArray,
    representers: FloatArray,
    factors: FloatArray,
) -> FloatArray:
    """Return the coefficients (n, ``of_profit.size``) that measure what decisions earn.

    Those of all outcomes of a unit stand in one row, so that scores add them up before any error is
    taken: what goes together counts together. A unit that lacks an outcome has the prediction of
    it, without a correction.

    Parameters
    ----------
    of_profit : what coefficients are of.
    responses : (n, ``of_profit.responses``) out-of-fold, of the outcomes side by side.
    phi : (n, p) basis columns of the treatments given.
    y : (n, outcomes), NaN where a unit lacks one.
    representers : (n, ``of_profit.responses``), 0 where a unit lacks the outcome.
    factors : (n, f).
    """
    count = len(of_profit.outcomes)
    corrections = [
        corrected(theta_hat, phi, np.nan_to_num(outcome), weights)
        for theta_hat, outcome, weights in zip(
            np.split(responses, count, axis=1),
            y.T,
            np.split(representers, count, axis=1),
            strict=True,
        )
    ]
    return of_profit.extended(np.hstack(corrections), factors)
