"""Several outcomes in the evaluation: who has them, their weights, their means under policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.lack_of_fit import TreatmentBins
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.policies import PolicyUnits
from coarse_spark.core.separable import ONE
from coarse_spark.core.values import Policy
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import matrix

if TYPE_CHECKING:
    from coarse_spark.distributed.evaluate import FoldMenus


@dataclass(frozen=True, eq=False)
class _Counts(Additive):
    """Units by treatment bin: all of them, and those that have each outcome."""

    rows: FloatArray


def standing(
    held: DataFrame, bins: TreatmentBins, treatments: list[str], outcomes: list[str]
) -> FloatArray | None:
    """Return units of each bin over those of them that have each outcome (B, outcomes).

    None where nobody lacks one.

    Parameters
    ----------
    held : treatment_0 …, outcome and outcome_1 …, null where a unit lacks it.
    bins : of treatments.
    treatments, outcomes : names of these columns.
    """
    if len(outcomes) == 1:
        return None

    def record(batch: pd.DataFrame) -> dict[str, _Counts]:
        has = ~np.isnan(matrix(batch, outcomes))
        counts = np.zeros((bins.size, 1 + len(outcomes)))
        columns = np.column_stack([np.ones(len(has)), has])
        np.add.at(counts, bins.assign(matrix(batch, treatments)), columns)
        return {"all": _Counts(counts)}

    counts = _Counts.of_flat(add_up(held.select(*treatments, *outcomes), record)["all"]).rows
    if (counts[:, 1:] == counts[:, :1]).all():
        return None
    return np.asarray(counts[:, :1] / np.maximum(counts[:, 1:], 1.0))


@dataclass(frozen=True, eq=False)
class OutcomeWeights:
    """What outcomes count for in the test of the fit: 1 for the only one.

    Of several their sum is tested, each at its mean absolute margin over the candidates, with the
    unit's own factors in it. Where every outcome follows the basis so does the sum; what departs
    counts as the money that it is.

    Attributes
    ----------
    alike : (outcomes,) for all units.
    further : what is added: a factor, the outcome that it counts for, and how much.
    """

    alike: FloatArray
    further: tuple[tuple[int, int, float], ...] = ()

    @staticmethod
    def of(problem: MenuProblem) -> OutcomeWeights:
        """Return the weights of a problem's outcomes."""
        of_profit, outcomes = problem.of_profit, len(problem.of_profit.outcomes)
        if outcomes == 1:
            return OutcomeWeights(np.ones(1))
        amounts = of_profit.amounts(problem.profit, problem.candidates, problem.space)
        alike, further = np.zeros(outcomes), []
        for block, (position, factor) in enumerate(of_profit.margin):
            amount = float(np.abs(amounts[:, block]).mean())
            if factor == ONE:
                alike[position] += amount
            elif amount:  # not one of spending alone
                further.append((of_profit.factors.index(factor), position, amount))
        return OutcomeWeights(alike if alike.any() or further else np.ones(outcomes), (*further,))

    def summed(self, y: FloatArray, factors: FloatArray) -> FloatArray:
        """Return the sums (n,) of outcomes (n, outcomes) of units with factors (n, f)."""
        total = y @ self.alike
        for factor, position, amount in self.further:
            total = total + amount * np.abs(factors[:, factor]) * y[:, position]
        return np.asarray(total)


def outcomes_under(
    units: PolicyUnits,
    measured: FloatArray,
    policies: Sequence[Policy],
    menus: FoldMenus,
    without: BoolArray,
) -> FloatArray:
    """Return the debiased outcomes (n, q · outcomes) of units under policies, side by side.

    Parameters
    ----------
    units, policies, menus : as in ``policy_scores``.
    measured : (n, p) debiased coefficients, responses first.
    without : (n, q) of ``policy_scores``: who is left at the control.
    """
    problem, found = units.problem, list[FloatArray]()
    basis, of_profit = problem.basis, problem.of_profit
    by_outcome = np.split(measured[:, : of_profit.responses], len(of_profit.outcomes), axis=1)
    control = np.broadcast_to(basis(problem.space.control[None, :]), by_outcome[0].shape)
    for position, policy in enumerate(policies):
        if policy.name == "control":
            phi = control
        elif policy.name == "granular":
            phi = basis(units.best)
        else:
            phi = menus.basis_rows(policy, basis)(units)
            phi = np.where(without[:, [position]], control, phi)
        found += [np.einsum("ij,ij->i", phi, theta)[:, None] for theta in by_outcome]
    return np.hstack(found)
