"""Honest values on executors: units are judged by responses and menus of other folds, debiased."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from coarse_spark.core.additive import Additive, Flat, added_up
from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.debiased import debiased_coefficients
from coarse_spark.core.lack_of_fit import TreatmentBins, bin_columns, bin_scatter, bin_sums
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import refused
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.stability import STARTS, fold_noise, menu_stability
from coarse_spark.core.model_free import (
    MOST_TREATMENTS,
    GivenShares,
    ModelFreeRows,
)
from coarse_spark.core.policies import PolicyMap, PolicyUnits, menu_policy, rule_policy
from coarse_spark.core.values import Policy, ScoreMoments
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.design import representer_columns
from coarse_spark.distributed.frames import (
    factor_columns,
    hash_limit,
    matrix,
    outcome_columns,
    parts,
    theta_columns,
    treatment_columns,
)
from coarse_spark.distributed.outcomes import OutcomeWeights, outcomes_under, standing
from coarse_spark.distributed.rule import RULED

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
    model_free : moments of scores without a model (``core.model_free``), where they were asked for.
    outcomes : moments of the outcomes themselves under policies with a menu, control and granular,
        those of a policy side by side, where they were asked for.
    """

    moments: ScoreMoments
    bins: FloatArray
    refused: FloatArray
    scatter: FloatArray | None = None
    model_free: ScoreMoments | None = None
    outcomes: ScoreMoments | None = None


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
    """What was chosen without a fold: the best single treatment, menus by size, other policies."""

    uniform: PricedMenu
    sized: dict[int, PricedMenu]
    others: Mapping[str, PolicyMap] = field(default_factory=dict)

    def policy(self, policy: Policy) -> PolicyMap:
        """Return what units get under a policy that is chosen on the other folds."""
        if policy.name in self.others:
            return self.others[policy.name]
        menu = self._menu(policy)
        return rule_policy(menu) if policy.name == "rule" else menu_policy(menu)

    def basis_rows(self, policy: Policy, basis: Basis) -> PolicyMap:
        """Return the map to φ (n, basis size) of what units get under a policy with a menu."""
        menu = self._menu(policy)
        rows = basis(menu.treatments)
        return rule_policy(menu, rows) if policy.name == "rule" else menu_policy(menu, rows)

    def _menu(self, policy: Policy) -> PricedMenu:
        return self.uniform if policy.name == "uniform" else self.sized[policy.k]


def evaluate(
    held: DataFrame,
    problem: MenuProblem,
    *,
    policies: Sequence[Policy],
    fold_menus: Mapping[int, FoldMenus],
    bins: TreatmentBins,
    center: FloatArray,
    given: GivenShares | None = None,
    by_outcome: bool = False,
) -> Evaluation:
    """Return the score moments of all policies over units that their learner and menus never saw.

    Coefficients of profit beside the responses, and those of rules, stand behind the responses,
    among the rows' theta and in the scores alike.

    Parameters
    ----------
    held : fold, weight, outcome (of several outcome_1 … too, null where a unit lacks it),
        treatment_0 …, representer_0 … of the design, factor_0 …, and theta_0 … of models fitted on
        the other folds; cluster, where units share clusters;
        feature_0 …, where policies look at them; ``RULED``, where a rule is judged.
    policies : control, uniform, menus of K treatments, the rule of one and granular, then the
        others of ``fold_menus``, in the order of the scores.
    fold_menus : by fold.
    bins : of treatments, for the lack of fit.
    center : (q,) rough values of the policies, such as plug-in ones; see ``ScoreMoments``.
    given : shares of the treatments that the experiment gave, for values without a model too;
        ``held`` has stratum then.
    by_outcome : whether to value outcomes too.
    """
    of_profit = problem.of_profit
    factor_names = factor_columns(len(of_profit.factors))
    outcome_names = outcome_columns(len(of_profit.outcomes))
    names, weights = theta_columns(problem.coefficients), representer_columns(of_profit.responses)
    dimensions = treatment_columns(problem.candidates.shape[1])
    clustered = "cluster" in held.columns
    features = [name for name in held.columns if name.startswith("feature_")]
    ruled = [RULED] if any(policy.name == "rule" for policy in policies) else []

    judged = OutcomeWeights.of(problem)
    stand = standing(held, bins, dimensions, outcome_names)
    count, others = len(policies), next(iter(fold_menus.values())).others
    own = [policy for policy in policies if policy.name not in others]
    shown = len(own) * len(outcome_names) * by_outcome
    if given is not None:  # three scores of every policy without a model follow
        further = np.column_stack([center, np.ones(count), np.zeros(count)]).ravel()
        center = np.concatenate([center, further])
    center = np.concatenate([center, np.zeros(shown)])

    def scored(fold: int, rows: pd.DataFrame) -> _Scored:
        theta, treatments = matrix(rows, names), matrix(rows, dimensions)
        phi, y = problem.basis(treatments), matrix(rows, outcome_names)
        learned, rules = theta[:, : of_profit.responses], theta[:, of_profit.size :]
        factors = matrix(rows, factor_names)
        measured = debiased_coefficients(of_profit, learned, phi, y, matrix(rows, weights), factors)
        debiased = np.hstack([measured, rules])
        units = PolicyUnits(problem, theta, rows[features])
        if ruled:
            units = replace(units, by_rule=rows[RULED].to_numpy())
        free = None
        if given is not None:
            free = given.rows(problem, treatments, rows["stratum"].to_numpy(), y, factors)
        scores, without = policy_scores(units, debiased, policies, fold_menus[fold], free)
        if by_outcome:
            under = outcomes_under(units, measured, own, fold_menus[fold], without)
            scores = np.hstack([scores, under])
        number = bins.assign(treatments)
        fitted = np.column_stack(
            [np.einsum("ij,ij->i", phi, one) for one in np.split(learned, y.shape[1], axis=1)]
        )
        if stand is not None:  # who has an outcome stands for all of the bin, others tell nothing
            y = fitted + np.nan_to_num(y - fitted) * stand[number]
        return _Scored(
            ScoreMoments.totals(scores, rows["weight"].to_numpy(np.float64), center),
            number,
            bin_columns(treatments, phi, judged.summed(y, factors), judged.summed(fitted, factors)),
            without.astype(np.float64),
        )

    def record(batch: pd.DataFrame) -> dict[str, _EvaluationSums]:
        found = (scored(fold, rows) for fold, rows in parts(batch, "fold"))
        return {"all": reduce(add, (one.sums(bins.size) for one in found))}

    key = ["cluster"] * clustered + ["stratum"] * (given is not None)
    needed = held.select(
        *key,
        "fold",
        "weight",
        *outcome_names,
        *dimensions,
        *weights,
        *ruled,
        *names,
        *factor_names,
        *features,
    )
    if clustered:
        widths = [len(center) + 2, 4 + len(dimensions) + problem.basis.size, len(policies)]
        flat = _add_up_clusters(needed, scored, bins.size, widths)
    else:
        flat = add_up(needed, record)["all"]
    total = _EvaluationSums.of_flat(flat)
    moments = ScoreMoments.of(total.scores, center)
    scatter = total.scatter if moments.clustered else None
    last = len(center) - shown
    free = None if given is None else moments.of_some(slice(count, last))
    outcomes = moments.of_some(slice(last, None)) if shown else None
    some = moments.of_some(slice(count))
    return Evaluation(some, total.bins, total.refused, scatter, free, outcomes)


def _add_up_clusters(
    held: DataFrame,
    scored: Callable[[int, pd.DataFrame], _Scored],
    size: int,
    widths: Sequence[int],
) -> Flat:
    """Return the flat ``_EvaluationSums`` over clusters, of ``_Scored`` with columns so many wide.

    Machines add up what they have of a cluster in a bin; only these sums, never units, have to come
    together. Clusters may be many or large: neither meets a driver or a single machine whole.
    """
    ends = np.cumsum(widths)
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
    units: PolicyUnits,
    debiased: FloatArray,
    policies: Sequence[Policy],
    menus: FoldMenus,
    free: ModelFreeRows | None = None,
) -> tuple[FloatArray, BoolArray]:
    """Return the scores (n, q) ψ(π(x_i))·(θ̃_i, 1) of units under every policy.

    Also returns which units (n, q) may get none of a policy's treatments: such a unit of a menu,
    which was chosen on other units, is left at the control, as is one of a segment whose treatment
    it may not get.

    Parameters
    ----------
    units : n of them, with out-of-fold coefficients, which decide.
    debiased : (n, p) coefficients that measure what decisions earn.
    policies : q of them.
    menus : what was chosen without the units.
    free : what the units got, for scores without a model: three further columns a policy.
    """
    problem, further = units.problem, list[FloatArray]()
    scores = np.empty((len(debiased), len(policies)))
    without = np.zeros(scores.shape, dtype=bool)
    for position, policy in enumerate(policies):
        if policy.name == "control":
            psi = np.broadcast_to(problem.control_psi, (len(debiased), len(problem.control_psi)))
        elif policy.name == "granular":
            psi = problem.psi_at(units.best)
        else:
            psi = menus.policy(policy)(units)
            none = refused(units.theta, psi, problem.layout)
            if policy.name == "rule":
                none |= units.by_rule < 0
            psi[none], without[:, position] = problem.control_psi, none
        scores[:, position] = np.einsum("ij,ij->i", debiased, psi[:, :-1]) + psi[:, -1]
        if free is not None:
            further.append(free.scores(psi))
    return np.hstack([scores, *further]), without


def given_shares(units: DataFrame, problem: MenuProblem) -> GivenShares | None:
    """Return the shares of the treatments that an experiment gave, by stratum.

    None where they are continuous, or too many for any one of them to tell much.

    Parameters
    ----------
    units : of the experiment, whose design knows or counts shares: treatment_0 …, stratum, weight,
        and its outcomes.
    problem : the treatments that are offered, and their profit.
    """
    outcomes = outcome_columns(len(problem.of_profit.outcomes))
    names = treatment_columns(problem.candidates.shape[1])
    if problem.space.continuous.any():
        return None
    few = units.select(*names).distinct().limit(MOST_TREATMENTS + 1)
    if few.count() > MOST_TREATMENTS:
        return None
    has = reduce(Column.__and__, [F.col(name).isNotNull() for name in outcomes])
    having = F.sum(F.when(has, F.col("weight")).otherwise(0.0))
    sums = units.groupBy("stratum", *names).agg(F.sum("weight"), having).toPandas()
    weight, having_all = sums.iloc[:, -2:].to_numpy(np.float64).T
    return GivenShares.of(problem, matrix(sums, names), sums["stratum"], weight, having_all)


def with_features(held: DataFrame, units: DataFrame) -> DataFrame:
    """Return held-out rows with the features of their units, which predictions leave out."""
    features = [name for name in units.columns if name.startswith("feature_")]
    return held.join(units.select("unit_id", *features), "unit_id")


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
