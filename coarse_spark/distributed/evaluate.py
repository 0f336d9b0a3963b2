"""Honest values on executors: every unit is judged by responses and menus of other folds, with debiased coefficients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from coarse_spark.core.design import MomentSums, debiased_coefficients, merge_moments, moment_sums, row_moments
from coarse_spark.core.lack_of_fit import TreatmentBins, bin_sums
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.lloyd import assign as assign_menu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.values import Policy, ScoreMoments
from coarse_spark.distributed.units import matrix, parts, theta_columns, treatment_columns

FloatArray = npt.NDArray[np.float64]


def design_moments(units: DataFrame, problem: MenuProblem, *, stratified: bool) -> dict[str, MomentSums]:
    """Return the moments E[φφᵀ] of the design, one a stratum where it is stratified, added up over batches of rows."""
    dimensions = treatment_columns(problem.candidates.shape[1])
    basis = problem.basis

    def add_up(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        parts = []
        for rows in batches:
            strata = rows["stratum"].to_numpy() if stratified else None
            parts.append(moment_sums(basis(matrix(rows, dimensions)), strata, rows["weight"].to_numpy(np.float64)))
        merged = merge_moments(parts)
        yield pd.DataFrame({"stratum": list(merged), "sums": [sums.to_array().tolist() for sums in merged.values()]})

    rows = units.select("stratum", "weight", *dimensions).mapInPandas(add_up, "stratum string, sums array<double>").collect()
    return merge_moments({row["stratum"]: MomentSums.from_array(row["sums"])} for row in rows)


@dataclass(frozen=True)
class Evaluation:
    """Sums of the evaluation pass: moments of the policies' scores, and sums over treatment bins for the lack of fit."""

    moments: ScoreMoments
    bins: FloatArray


def evaluate(
    held: DataFrame,
    problem: MenuProblem,
    *,
    policies: Sequence[Policy],
    fold_menus: Mapping[int, Mapping[int, PricedMenu]],
    design: Mapping[str, MomentSums],
    bins: TreatmentBins,
) -> Evaluation:
    """Return the score moments of all policies over units that their fold's learner and menus never saw.

    Parameters
    ----------
    held : fold, stratum, weight, outcome, treatment_0 …, and theta_0 … of models fitted on the other folds.
    policies : control, uniform, menus of K treatments and granular, in the order of the scores.
    fold_menus : fold → K → the menu chosen on the other folds; K = 1 is the best single treatment.
    design : moments of ``design_moments``.
    """
    partial = held.mapInPandas(_scorer(problem, policies, fold_menus, design, bins), "moments array<double>, bins array<double>")
    total: ScoreMoments | None = None
    bin_total: FloatArray | None = None
    # sorted: the order in which tasks end must not decide the rounding
    for row in sorted(partial.collect(), key=lambda row: tuple(row["moments"])):
        moments, sums = ScoreMoments.from_list(row["moments"]), np.asarray(row["bins"])
        total = moments if total is None else total + moments
        bin_total = sums if bin_total is None else bin_total + sums
    if total is None or bin_total is None:
        raise ValueError("no experiment unit is left to evaluate on")
    return Evaluation(total, bin_total.reshape(bins.size, -1))


def policy_scores(
    theta: FloatArray, debiased: FloatArray, problem: MenuProblem, policies: Sequence[Policy], menus: Mapping[int, PricedMenu]
) -> FloatArray:
    """Return the scores (n, q) ψ(π(x_i))·(θ̃_i, 1) of units under every policy.

    Decisions use out-of-fold coefficients ``theta`` (n, p); what they earn is measured with ``debiased`` (n, p).
    """

    def earned(psi: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ij,ij->i", debiased, psi[:, :-1]) + psi[:, -1])

    scores = np.empty((len(theta), len(policies)))
    for position, policy in enumerate(policies):
        if policy.name == "control":
            psi = np.broadcast_to(problem.control_psi, (len(theta), len(problem.control_psi)))
        elif policy.name == "granular":
            psi = problem.psi_at(problem.granular(theta)[0])
        else:
            menu = menus[policy.k]
            psi = menu.psi[assign_menu(theta, menu)]
        scores[:, position] = earned(psi)
    return scores


def _scorer(
    problem: MenuProblem,
    policies: Sequence[Policy],
    fold_menus: Mapping[int, Mapping[int, PricedMenu]],
    design: Mapping[str, MomentSums],
    bins: TreatmentBins,
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    names, dimensions = theta_columns(problem.coefficients), treatment_columns(problem.candidates.shape[1])

    def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        total: ScoreMoments | None = None
        bin_total: FloatArray | None = None
        with threadpool_limits(limits=1):
            for batch in batches:
                for fold, rows in parts(batch, "fold"):
                    theta, treatments = matrix(rows, names), matrix(rows, dimensions)
                    phi, y = problem.basis(treatments), rows["outcome"].to_numpy(np.float64)
                    moments = row_moments(design, rows["stratum"].to_numpy(), len(rows))
                    debiased = debiased_coefficients(theta, phi, y, moments)
                    scores = policy_scores(theta, debiased, problem, policies, fold_menus[fold])
                    part = ScoreMoments.of(scores, rows["weight"].to_numpy(np.float64))
                    total = part if total is None else total + part
                    sums = bin_sums(bins, treatments, phi, y, np.einsum("ij,ij->i", phi, theta))
                    bin_total = sums if bin_total is None else bin_total + sums
        if total is not None and bin_total is not None:
            yield pd.DataFrame({"moments": [total.to_list()], "bins": [np.ravel(bin_total).tolist()]})

    return score


def held_out(scored: DataFrame) -> DataFrame:
    """Return the rows of a scored experiment where the model did not see the unit."""
    return scored.where(F.col("model_fold") == F.col("fold"))


def seen(scored: DataFrame) -> DataFrame:
    """Return the rows of a scored experiment that a fold's menus may be chosen on, grouped for the sketch."""
    return scored.where(F.col("model_fold") != F.col("fold")).withColumn("sketch_group", F.col("model_fold"))
