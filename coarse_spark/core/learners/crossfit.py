"""Cross-fitted response models: one a fold, fitted on the other folds' rows, and one on all rows.

``fit_models`` does it for rows in memory. The pooled model over many machines takes three steps
that give the same result: ``Preparation.fit`` on a sample, ``accumulate`` on every batch of rows
(the sums of batches add up), ``solve`` on the summed parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.boosting.trees import Binned
from coarse_spark.core.learners.encoding.preparation import Preparation, PreparedRows
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import (
    ALL_FOLDS,
    left_out,
    parts_of,
    parts_per_fold,
    random_order,
)
from coarse_spark.core.learners.pooled import PooledModels
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.ridge.gram import GramStatistics, response_gram
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.sieve import FoldSieve, Layout, fit_sieve
from coarse_spark.core.learners.stack import sieve_record, stacked_record
from coarse_spark.errors import InvalidInputError


def accumulate(
    preparation: Preparation,
    rows: TrialRows,
    *,
    folds: int,
    settings: LearnerSettings,
    seed: int = 0,
) -> dict[int, GramStatistics]:
    """Return the sums of a batch of rows for every validation part; those of batches add up.

    Parameters
    ----------
    preparation : of all rows, or of a sample.
    rows : the batch.
    folds : number of folds in the whole data.
    settings, seed : as in ``fit_models``.
    """
    return _sums(
        preparation.prepare(rows, parts_of(rows.fold, rows.cluster, folds, settings, seed))
    )


def solve(
    preparation: Preparation,
    sums: Mapping[int, GramStatistics],
    *,
    folds: int,
    settings: LearnerSettings,
) -> tuple[dict[int, ModelRecord], PooledModels]:
    """Return the models of all rows and without every fold from the summed parts.

    They are sieves, or constant effects: as records by fold (``ALL_FOLDS`` for all rows), and as
    what the models of partitions may lean on.

    Parameters
    ----------
    preparation : that ``sums`` were made with.
    sums : of ``accumulate``, added up over batches.
    folds, settings : as in ``accumulate``.

    Raises
    ------
    InvalidInputError : fewer than two parts with rows remain for a model.
    """
    sieves = list(_sieves(preparation, sums, folds, settings))
    records = {sieve.fold: sieve_record(preparation, sieve, settings) for sieve in sieves}
    return records, PooledModels.of(preparation, sieves, constant=settings.learner == "constant")


def fit_models(
    rows: TrialRows,
    *,
    basis: Basis,
    settings: LearnerSettings | None = None,
    seed: int = 0,
    pooled: PooledModels | None = None,
) -> dict[int, ModelRecord]:
    """Fit one model a fold on the rows outside it, and the model ``ALL_FOLDS`` on all rows.

    The same rows in another order give the same models up to rounding.

    Parameters
    ----------
    rows : of the experiment. With a single fold only the model of all rows is fitted. With strata
        the baseline gets an effect of every stratum.
    basis : of the treatments.
    settings : of the learner.
    seed : of the validation parts and of boosting.
    pooled : models of more rows than these, which the stacks may lean on; of the same folds, keys,
        settings and seed.

    Returns
    -------
    Records keyed by fold.

    Raises
    ------
    InvalidInputError : features that cannot be used, or treatments that do not identify the basis.

    Examples
    --------
    >>> import pandas as pd
    >>> from coarse_spark import TreatmentSpace
    >>> rng = np.random.default_rng(0)
    >>> X, T = pd.DataFrame({"age": rng.uniform(-1, 1, 600)}), rng.random((600, 1))
    >>> rows = TrialRows(X, T, (1 + X["age"]) * T[:, 0], fold=np.arange(600) % 2)
    >>> dimension = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}
    >>> basis = Basis("linear", TreatmentSpace.from_dict({"t": dimension}))
    >>> models = fit_models(rows, basis=basis, settings=LearnerSettings(learner="sieve"))
    >>> sorted(models)
    [-1, 0, 1]
    """
    settings, folds = settings or LearnerSettings(), rows.folds
    order, preparation, prepared = _prepared(rows, basis, settings, seed)
    sums = _sums(prepared)
    if settings.learner == "constant" or (settings.learner == "sieve" and pooled is None):
        return solve(preparation, sums, folds=folds, settings=settings)[0]
    binned = Binned.of(prepared.features[:, preparation.encoder.plain])
    common = None if pooled is None else pooled.preparation.encoder.transform(rows.X.iloc[order])
    models = {}
    for sieve in _sieves(preparation, sums, folds, settings):
        member = None
        if pooled is not None and common is not None:
            member = pooled.member(preparation, sieve, common, prepared.part)
        models[sieve.fold] = stacked_record(
            preparation, sieve, prepared, member, binned=binned, settings=settings, seed=seed
        )
    return models


def held_out_sieve(
    rows: TrialRows, *, basis: Basis, settings: LearnerSettings, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Return θ(x) (n, p) of sieves that did not see a row, and the scale's m(x) (n,).

    Parameters
    ----------
    rows, basis, settings, seed : as in ``fit_models``; of a single fold.

    Raises
    ------
    InvalidInputError : as in ``fit_models``.
    """
    order, preparation, prepared = _prepared(rows, basis, settings, seed)
    part = prepared.part
    (sieve,) = _sieves(preparation, _sums(prepared), rows.folds, settings)
    theta, scaled = np.empty(prepared.z.shape), prepared.scaled
    for number, functions in zip(sieve.parts, sieve.fit.shown().held_out, strict=True):
        here = np.flatnonzero(part == number)
        theta[here] = prepared.features[here] @ functions.T
    means = preparation.held_out_means(prepared.features, part)
    offset, multiplier = scaled.offset[:, 0], scaled.multiplier[:, 0]
    theta = preparation.raw(theta, means, (offset, multiplier))
    place = np.argsort(order)
    return theta[place], multiplier[place]


def _prepared(
    rows: TrialRows, basis: Basis, settings: LearnerSettings, seed: int
) -> tuple[IntArray, Preparation, PreparedRows]:
    """Prepare rows in the order (n,) of mixed keys.

    It is random for boosting, and the same for every order they arrive in.
    """
    order = random_order(rows.key, seed)
    rows = rows.take(order)
    part = parts_of(rows.fold, rows.cluster, rows.folds, settings, seed)
    preparation = Preparation.fit(rows, basis=basis, settings=settings, seed=seed)
    return order, preparation, preparation.prepare(rows, part)


def _sums(rows: PreparedRows) -> dict[int, GramStatistics]:
    sums = {}
    for number in np.unique(rows.part):
        chosen = rows.part == number
        sums[int(number)] = response_gram(
            rows.features[chosen],
            rows.z[chosen],
            rows.strata[chosen],
            rows.outcomes[chosen],
            rows.weight[chosen],
        )
    return sums


def _sieves(
    preparation: Preparation,
    sums: Mapping[int, GramStatistics],
    folds: int,
    settings: LearnerSettings,
) -> Iterator[FoldSieve]:
    """Yield the sieve of all rows and those without every fold."""
    per_fold = parts_per_fold(folds, settings)
    for fold in left_out(folds):
        parts = {
            number: sums[number].of_outcome(preparation.outcome_number(fold))
            for number in sorted(sums)
            if number // per_fold != fold and sums[number].weight > 0
        }
        if len(parts) < 2:
            outside = "" if fold == ALL_FOLDS else f" remain outside fold {fold}"
            raise InvalidInputError(
                f"{len(parts)} validation parts with rows{outside}, expected at least 2; use more "
                "rows, of more clusters"
            )
        layout = Layout.of(preparation, fold)
        yield FoldSieve(fold, layout, parts, fit_sieve(list(parts.values()), layout))
