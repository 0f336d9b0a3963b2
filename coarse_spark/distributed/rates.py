"""Chances and shares lie between 0 and 1; responses that are linear in θ need not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from pyspark.sql import Column
from pyspark.sql import functions as F

from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.distributed.assign import profit_column

_TREATMENTS = 33  # candidates at which outcomes are predicted, spread over all


def predicted_range(problem: MenuProblem, outcome: int = 0) -> tuple[Column, Column]:
    """Return the least and the greatest outcome φ(t)·θ predicted for a unit at any candidate.

    Of many candidates some are looked at, among them the first and the last.

    Parameters
    ----------
    problem : of the basis and the candidates; the expressions are in theta_0 ….
    outcome : which one, by its number.
    """
    candidates = problem.candidates
    places = np.unique(np.linspace(0, len(candidates) - 1, _TREATMENTS).round().astype(int))
    phi = problem.basis(candidates[places])
    before = np.zeros(outcome * problem.basis.size)
    predicted = [profit_column(np.concatenate([before, row, [0.0]])) for row in phi]
    if len(predicted) == 1:
        return predicted[0], predicted[0]
    return F.least(*predicted), F.greatest(*predicted)


def outside_rates(problem: MenuProblem, outcomes: Sequence[int]) -> list[Column]:
    """Return what counts units of which chances or shares that are none are predicted.

    These are aggregates: outside, of any outcome, and for each its outside_0, and the least_0 and
    greatest_0 that are predicted, with its number. There are none without outcomes.

    Parameters
    ----------
    problem : as in ``predicted_range``.
    outcomes : chances and shares, by their numbers.
    """
    found, leaves = list[Column](), list[Column]()
    for outcome in outcomes:
        least, greatest = predicted_range(problem, outcome)
        leaves.append((least < 0) | (greatest > 1))
        found += [
            F.count(F.when(leaves[-1], F.lit(1))).alias(f"outside_{outcome}"),
            F.min(least).alias(f"least_{outcome}"),
            F.max(greatest).alias(f"greatest_{outcome}"),
        ]
    if leaves:
        found.append(F.count(F.when(reduce(Column.__or__, leaves), F.lit(1))).alias("outside"))
    return found
