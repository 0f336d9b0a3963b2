"""Chances and shares lie between 0 and 1; responses that are linear in θ need not."""

from __future__ import annotations

import numpy as np
from pyspark.sql import Column
from pyspark.sql import functions as F

from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.distributed.assign import profit_column

_TREATMENTS = 33  # candidates at which outcomes are predicted, spread over all


def predicted_range(problem: MenuProblem) -> tuple[Column, Column]:
    """Return the least and the greatest outcome φ(t)·θ predicted for a unit at any candidate.

    Of many candidates some are looked at, among them the first and the last.

    Parameters
    ----------
    problem : of the basis and the candidates; the expressions are in theta_0 ….
    """
    candidates = problem.candidates
    places = np.unique(np.linspace(0, len(candidates) - 1, _TREATMENTS).round().astype(int))
    phi = problem.basis(candidates[places])
    predicted = [profit_column(np.append(row, 0.0)) for row in phi]
    if len(predicted) == 1:
        return predicted[0], predicted[0]
    return F.least(*predicted), F.greatest(*predicted)
