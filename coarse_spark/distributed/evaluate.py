"""Honest values on executors: units are judged by responses and menus of other folds, debiased."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from coarse_spark.core.additive import Additive, Flat, added_up
from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.design import corrected
from coarse_spark.core.lack_of_fit import TreatmentBins, bin_columns, bin_scatter, bin_sums
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import refused
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.stability import STARTS, fold_noise, menu_stability
from coarse_spark.core.menu.units import assign
from coarse_spark.core.values import Policy, ScoreMoments
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.design import representer_columns
from coarse_spark.distributed.frames import (
    hash_limit,
    matrix,
    parts,
    theta_columns,
    treatment_columns,
)
from coarse_spark.distributed.rule import ruled_columns

_NOISE_UNITS = 5_000  # far more than the cells that the noise is resampled on


@dataclass(frozen=True, eq=False)
class _EvaluationSums(Additive):
    """What batches of held-out units of whole clusters add up: see ``Evaluation``.

    ``scores`` are ``ScoreMoments.sums``; ``scatter`` is empty where every unit is a cluster of its
    own.
    """

    scores: FloatArray
    bins: FloatArray
    refused: FloatArray
    scatter: FloatArray


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation pass found.

    Attributes
    ----------
    moments : of the policies' scores.
    bins : sums over treatment bins for the lack of fit.
    refused : (q,) how many units are eligible for none of a policy's treatments.
    scatter : of the bins' residuals over clusters; None where every unit is one of its own.
    """

    moments: ScoreMoments
    bins: FloatArray
    refused: FloatArray
    scatter: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class _Scored:
    """What adds up over held-out units: rows (n), or sums of those of one cluster and bin.

    Attributes
    ----------
    scores : of ``ScoreMoments.totals``.
    number : (n,) bin.
    columns : of ``bin_columns``.
    refused : (n, q) as in ``Evaluation``.
    """

    scores: FloatArray
    number: IntArray
    columns: FloatArray
    refused: FloatArray

    def sums(self, size: int, cluster: IntArray | None = None) -> _EvaluationSums:
        """Add up over whole clusters; of units, where each is one, without labels."""
        scores, scatter = self.scores, np.zeros((0, 0))
        if cluster is not None:
            scores = added_up(scores, cluster)[0]
            scatter = bin_scatter(size, self.number, self.columns, cluster)
        return _EvaluationSums(
            ScoreMoments.scatter(scores),
            bin_sums(size, self.number, self.columns),
            self.refused.sum(axis=0),
            scatter,
        )


@dataclass(frozen=True, eq=False)
class FoldMenus:
    """The menus chosen without a fold: the best single treatment, and those of every size."""

    uniform: PricedMenu
    sized: dict[int, PricedMenu]


def evaluate(
    held: DataFrame,
    problem: MenuProblem,
    *,
    policies: Sequence[Policy],
    fold_menus: Mapping[int, FoldMenus],
    bins: TreatmentBins,
    center: FloatArray,
) -> Evaluation:
    """Return the score moments of all policies over units that their learner and menus never saw.

    Rules of the problem have their coefficients behind those of the basis, among the rows' theta
    and in the scores alike.

    Parameters
    ----------
    held : fold, weight, outcome, treatment_0 …, representer_0 … of the design, and theta_0 … of
        models fitted on the other folds; ruled_K where rules are judged; cluster, where units share
        clusters.
    policies : control, uniform, menus of K treatments, their rules and granular, in the order of
        the scores.
    fold_menus : by fold.
    bins : of treatments, for the lack of fit.
    center : (q,) rough values of the policies, such as plug-in ones; see ``ScoreMoments``.
    """
    size = problem.basis.size
    names, weights = theta_columns(problem.coefficients), representer_columns(size)
    dimensions = treatment_columns(problem.candidates.shape[1])
    clustered = "cluster" in held.columns
    sizes = [policy.k for policy in policies if policy.name == "rule"]
    ruled = ruled_columns(sizes)

    def scored(fold: int, rows: pd.DataFrame) -> _Scored:
        theta, treatments = matrix(rows, names), matrix(rows, dimensions)
        phi, y = problem.basis(treatments), rows["outcome"].to_numpy(np.float64)
        learned, rules = theta[:, :size], theta[:, size:]
        debiased = np.hstack([corrected(learned, phi, y, matrix(rows, weights)), rules])
        given = {k: rows[name].to_numpy() for k, name in zip(sizes, ruled, strict=True)}
        menus = fold_menus[fold]
        scores, without = policy_scores(theta, debiased, problem, policies, menus, given)
        return _Scored(
            ScoreMoments.totals(scores, rows["weight"].to_numpy(np.float64), center),
            bins.assign(treatments),
            bin_columns(treatments, phi, y, np.einsum("ij,ij->i", phi, learned)),
            without.astype(np.float64),
        )

    def record(batch: pd.DataFrame) -> dict[str, _EvaluationSums]:
        found = (scored(fold, rows) for fold, rows in parts(batch, "fold"))
        return {"all": reduce(add, (one.sums(bins.size) for one in found))}

    key = ["cluster"] if clustered else []
    needed = held.select(*key, "fold", "weight", "outcome", *dimensions, *weights, *ruled, *names)
    if clustered:
        flat = _add_up_clusters(needed, scored, bins.size, len(policies))
    else:
        flat = add_up(needed, record)["all"]
    total = _EvaluationSums.of_flat(flat)
    moments = ScoreMoments.of(total.scores, center)
    scatter = total.scatter if moments.clustered else None
    return Evaluation(moments, total.bins, total.refused, scatter)


def _add_up_clusters(
    held: DataFrame, scored: Callable[[int, pd.DataFrame], _Scored], size: int, policies: int
) -> Flat:
    """Return the flat ``_EvaluationSums`` over clusters.

    Machines add up what they have of a cluster in a bin; only these sums, never units, have to come
    together. Clusters may be many or large: neither meets a driver or a single machine whole.
    """
    dimensions = [name for name in held.columns if name.startswith("treatment_")]
    basis = [name for name in held.columns if name.startswith("representer_")]
    ends = np.cumsum([policies + 2, 4 + len(dimensions) + len(basis), policies])
    numbers = [f"sum_{position}" for position in range(ends[-1])]

    def cells(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches:
                for fold, rows in parts(batch.to_pandas(split_blocks=True), "fold"):
                    one = scored(fold, rows)
                    sums, labels = added_up(
                        np.hstack([one.scores, one.columns, one.refused]),
                        rows["cluster"].to_numpy(),
                        one.number,
                    )
                    arrays = map(pa.array, (*labels.T, *sums.T))
                    yield pa.RecordBatch.from_arrays(list(arrays), ["cluster", "bin", *numbers])

    def record(batch: pd.DataFrame) -> dict[str, _EvaluationSums]:
        scores, columns, refused = np.split(matrix(batch, numbers), ends[:-1], axis=1)
        cell = _Scored(scores, batch["bin"].to_numpy(), columns, refused)
        return {"all": cell.sums(size, batch["cluster"].to_numpy())}

    schema = ", ".join(["cluster bigint", "bin bigint", *(f"{name} double" for name in numbers)])
    added = (
        held.mapInArrow(cells, schema)
        .groupBy("cluster", "bin")
        .agg(*(F.sum(name).alias(name) for name in numbers))
    )
    return add_up(added, record, whole="cluster")["all"]


def policy_scores(
    theta: FloatArray,
    debiased: FloatArray,
    problem: MenuProblem,
    policies: Sequence[Policy],
    menus: FoldMenus,
    ruled: Mapping[int, IntArray],
) -> tuple[FloatArray, BoolArray]:
    """Return the scores (n, q) ψ(π(x_i))·(θ̃_i, 1) of units under every policy.

    Also returns which units (n, q) may get none of a policy's treatments: such a unit of a menu,
    which was chosen on other units, is left at the control.

    Parameters
    ----------
    theta : (n, p) out-of-fold coefficients, which decide.
    debiased : (n, p) coefficients that measure what decisions earn.
    ruled : (n,) treatments by the rules of the menus, by size; −1 for none.
    """
    scores = np.empty((len(theta), len(policies)))
    without = np.zeros(scores.shape, dtype=bool)
    for position, policy in enumerate(policies):
        if policy.name == "control":
            psi = np.broadcast_to(problem.control_psi, (len(theta), len(problem.control_psi)))
        elif policy.name == "granular":
            psi = problem.psi_at(problem.granular(theta)[0])
        else:
            menu = menus.uniform if policy.name == "uniform" else menus.sized[policy.k]
            rule = policy.name == "rule"
            taken = ruled[policy.k] if rule else assign(theta, menu.priced_psi)
            psi = menu.psi[taken]
            none = refused(theta, psi, problem.layout) | (taken < 0)
            psi[none], without[:, position] = problem.control_psi, none
        scores[:, position] = np.einsum("ij,ij->i", debiased, psi[:, :-1]) + psi[:, -1]
    return scores, without


def resampled_menus(
    predictions: DataFrame,
    problem: MenuProblem,
    k: int,
    settings: SearchSettings,
    *,
    moments: ScoreMoments,
    resamples: int,
) -> tuple[pd.DataFrame, float]:
    """Choose the menu again on responses redrawn within their estimation noise.

    The noise of the experiment's responses is what the models of its folds differ by.

    Parameters
    ----------
    predictions : the experiment by the models of every fold: key, model_fold, weight, theta_0 …
    k : treatments on the menu.
    settings : of the search, started from the menu that was chosen.
    moments : of the experiment's scores, whose numbers of units and clusters count.
    resamples : how often.

    Returns
    -------
    One row a rounded treatment (its dimensions and ``frequency``, the share of menus that hold it),
    and the mean profit per unit weight that these menus lose against the one of the mean responses.
    """
    names = theta_columns(problem.coefficients)
    few = predictions.where(F.col("key") <= hash_limit(_NOISE_UNITS, moments.units))
    sample = few.select("key", "model_fold", "weight", *names).toPandas()
    folds = sample["model_fold"].nunique()
    # a unit whose partition lacks a model of some fold says nothing about the noise
    whole = sample.groupby("key")["key"].transform("size") == folds
    sample = sample[whole].sort_values(["model_fold", "key"], kind="stable")
    theta = matrix(sample, names).reshape(folds, -1, len(names))
    weights = sample["weight"].to_numpy(np.float64)[: theta.shape[1]]
    found, directions = fold_noise(problem, theta, weights)
    # as many independent draws as the whole experiment has stand behind them
    behind = np.rint(found.behind * (moments.clusters / theta.shape[1])).astype(np.intp)
    found = replace(found, behind=np.maximum(behind, 1))
    best = search_menus(problem, found, [k], replace(settings, starts=STARTS))[k]
    drawn = menu_stability(
        problem, found, best, settings, directions=directions, resamples=resamples
    )
    return drawn.chosen, max(drawn.expected_loss, 0.0)


def held_out(scored: DataFrame) -> DataFrame:
    """Return the rows of a scored experiment where the model did not see the unit."""
    return scored.where(F.col("model_fold") == F.col("fold"))


def seen(scored: DataFrame) -> DataFrame:
    """Return the rows of a scored experiment that a fold's menus may be chosen on, by fold."""
    return scored.where(F.col("model_fold") != F.col("fold")).withColumn(
        "sketch_group", F.col("model_fold")
    )
