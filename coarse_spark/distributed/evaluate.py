"""Honest values on executors: every unit is judged by responses and menus of other folds, with debiased coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.design import corrected
from coarse_spark.core.lack_of_fit import TreatmentBins, bin_sums
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.lloyd import assign as assign_menu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rules import barred_units
from coarse_spark.core.values import Policy, ScoreMoments
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.choose import UNIFORM
from coarse_spark.distributed.design import representer_columns
from coarse_spark.distributed.frames import matrix, parts, theta_columns, treatment_columns


@dataclass(frozen=True, eq=False)
class _EvaluationSums(Additive):
    """What batches of held-out units add up: see ``Evaluation``; scores as of ``ScoreMoments.sums``."""

    scores: FloatArray
    bins: FloatArray
    barred: FloatArray


@dataclass(frozen=True)
class Evaluation:
    """Sums of the evaluation pass: moments of the policies' scores, sums over treatment bins for the lack of fit, and (q,) how many
    units are eligible for none of a policy's treatments.
    """

    moments: ScoreMoments
    bins: FloatArray
    barred: FloatArray


def evaluate(
    held: DataFrame,
    problem: MenuProblem,
    *,
    policies: Sequence[Policy],
    fold_menus: Mapping[int, Mapping[int, PricedMenu]],
    bins: TreatmentBins,
    center: FloatArray,
) -> Evaluation:
    """Return the score moments of all policies over units that their fold's learner and menus never saw.

    Parameters
    ----------
    held : fold, weight, outcome, treatment_0 …, representer_0 … of the design, and theta_0 … of models fitted on the other folds.
    policies : control, uniform, menus of K treatments and granular, in the order of the scores.
    fold_menus : fold → K → the menu chosen on the other folds, with the best single treatment under ``UNIFORM``.
    center : (q,) rough values of the policies, such as plug-in ones; see ``ScoreMoments``.

    Rules of the problem have their coefficients behind those of the basis, among the rows' theta and in the scores alike.
    """
    size = problem.basis_size
    names, dimensions = (
        theta_columns(problem.coefficients),
        treatment_columns(problem.candidates.shape[1]),
    )
    weights = representer_columns(problem.basis_size)

    def record(batch: pd.DataFrame) -> dict[str, _EvaluationSums]:
        return {"all": reduce(add, (sums(fold, rows) for fold, rows in parts(batch, "fold")))}

    def sums(fold: int, rows: pd.DataFrame) -> _EvaluationSums:
        theta, treatments = matrix(rows, names), matrix(rows, dimensions)
        phi, y = problem.basis(treatments), rows["outcome"].to_numpy(np.float64)
        learned, rules = theta[:, :size], theta[:, size:]
        debiased = np.hstack([corrected(learned, phi, y, matrix(rows, weights)), rules])
        scores, barred = policy_scores(theta, debiased, problem, policies, fold_menus[fold])
        return _EvaluationSums(
            ScoreMoments.sums(scores, rows["weight"].to_numpy(np.float64), center),
            bin_sums(bins, treatments, phi, y, np.einsum("ij,ij->i", phi, learned)),
            barred,
        )

    needed = held.select("fold", "weight", "outcome", *dimensions, *weights, *names)
    total = _EvaluationSums.of_flat(add_up(needed, record)["all"])
    return Evaluation(ScoreMoments.of(total.scores, center), total.bins, total.barred)


def policy_scores(
    theta: FloatArray,
    debiased: FloatArray,
    problem: MenuProblem,
    policies: Sequence[Policy],
    menus: Mapping[int, PricedMenu],
) -> tuple[FloatArray, FloatArray]:
    """Return the scores (n, q) ψ(π(x_i))·(θ̃_i, 1) of units under every policy, and how many (q,) may get none of its treatments.

    Decisions use out-of-fold coefficients ``theta`` (n, p); what they earn is measured with ``debiased`` (n, p). A unit that may
    get no treatment of a menu, which was chosen on other units, is left at the control.
    """

    def earned(psi: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ij,ij->i", debiased, psi[:, :-1]) + psi[:, -1])

    scores, without = np.empty((len(theta), len(policies))), np.zeros(len(policies))
    for position, policy in enumerate(policies):
        if policy.name == "control":
            psi = np.broadcast_to(problem.control_psi, (len(theta), len(problem.control_psi)))
        elif policy.name == "granular":
            psi = problem.psi_at(problem.granular(theta)[0])
        else:
            menu = menus[UNIFORM if policy.name == "uniform" else policy.k]
            psi = menu.psi[assign_menu(theta, menu)]
            barred = barred_units(theta, psi, problem.rules)
            psi[barred], without[position] = problem.control_psi, barred.sum()
        scores[:, position] = earned(psi)
    return scores, without


def held_out(scored: DataFrame) -> DataFrame:
    """Return the rows of a scored experiment where the model did not see the unit."""
    return scored.where(F.col("model_fold") == F.col("fold"))


def seen(scored: DataFrame) -> DataFrame:
    """Return the rows of a scored experiment that a fold's menus may be chosen on, grouped for the sketch."""
    return scored.where(F.col("model_fold") != F.col("fold")).withColumn(
        "sketch_group", F.col("model_fold")
    )
