"""Cross-fitted response models: one a fold, fitted on the other folds' rows, and one on all rows (key −1).

``fit_models`` does it for rows in memory. The pooled model over many machines takes three steps that give the same result:
``Preparation.fit`` on a sample, ``accumulate`` on every batch of rows (the sums of batches add up), ``solve`` on the summed parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.preparation import Preparation, PreparedRows, check_rows
from coarse_spark.core.learners.folds import ALL_FOLDS, hash_uniform, parts_of, parts_per_fold
from coarse_spark.core.learners.pooled import PooledModels
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.ridge.gram import GramStatistics, response_gram
from coarse_spark.core.learners.ridge.sieve import FoldSieve, Layout, fit_sieve
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.stack import sieve_record, stacked_record
from coarse_spark.errors import InvalidInputError

_FIVE_BOOSTERS_ROWS = 20_000


def accumulate(
    preparation: Preparation,
    X: pd.DataFrame,
    T: FloatArray,
    y: FloatArray,
    fold: IntArray,
    *,
    key: npt.ArrayLike,
    folds: int,
    weight: FloatArray | None = None,
    strata: npt.ArrayLike | None = None,
    settings: LearnerSettings,
    seed: int = 0,
) -> dict[int, GramStatistics]:
    """Return the sums of a batch of rows for every part, keyed by fold · parts_per_fold + part.

    Parameters
    ----------
    X, T, y, weight, strata : the rows, as in ``fit_models``.
    fold : (n,) fold of every row, 0 … folds − 1.
    key : (n,) integers that identify rows (a hash of the unit): they decide the part, so that the order of rows does not.
    folds : number of folds in the whole data.
    """
    rows = preparation.rows(X, T, y, weight, strata)
    return _sums(rows, parts_of(fold, key, folds, settings, seed))


def solve(
    preparation: Preparation,
    sums: Mapping[int, GramStatistics],
    *,
    folds: int,
    settings: LearnerSettings,
) -> tuple[dict[int, ModelRecord], PooledModels]:
    """Return the models of all rows (key −1) and without every fold from the summed parts of ``accumulate``.

    They are sieves, or constant effects: as records by fold, and as what the models of partitions may lean on.

    Raises
    ------
    InvalidInputError : fewer than two parts with rows remain for a model.
    """
    sieves = list(_sieves(preparation, sums, folds, settings))
    records = {sieve.fold: sieve_record(preparation, sieve, settings) for sieve in sieves}
    return records, PooledModels.of(preparation, sieves, constant=settings.learner == "constant")


def fit_models(
    X: pd.DataFrame,
    T: FloatArray,
    y: FloatArray,
    fold: IntArray,
    *,
    basis: Basis,
    key: npt.ArrayLike,
    weight: FloatArray | None = None,
    strata: npt.ArrayLike | None = None,
    settings: LearnerSettings | None = None,
    seed: int = 0,
    pooled: PooledModels | None = None,
) -> dict[int, ModelRecord]:
    """Fit one model a fold on the rows outside it, and the model ``ALL_FOLDS`` on all rows.

    Parameters
    ----------
    X : (n, ·) features.
    T : (n, d) encoded treatments.
    y : (n,) outcomes.
    fold : (n,) fold of every row, 0 … F − 1. With a single fold only the model of all rows is fitted.
    basis : of the treatments.
    key : (n,) integers that identify rows whatever their order, such as a hash of the unit.
    weight : (n,) row weights, default one.
    strata : (n,) labels of the randomization strata; the baseline gets an effect of every stratum.
    pooled : models of more rows than these, which the stacks may lean on; of the same folds, keys, settings and seed.

    Returns
    -------
    Records keyed by fold. The same rows in another order give the same models up to rounding.

    Raises
    ------
    InvalidInputError : rows that do not match or cannot be used, or treatments that do not identify the basis.
    """
    settings = settings or LearnerSettings()
    weight, folds = check_rows(X, T, y, weight), int(np.max(fold)) + 1
    # from here on the order of rows is that of mixed keys: random for boosting, the same for every order they arrive in
    order = np.lexsort([np.asarray(key), hash_uniform(key, seed)])
    X, T, y, weight, fold, key = (
        X.iloc[order],
        T[order],
        y[order],
        weight[order],
        np.asarray(fold)[order],
        np.asarray(key)[order],
    )
    strata = None if strata is None else np.asarray(strata)[order]
    inside = fold if folds > 1 else None
    preparation = Preparation.fit(
        X, T, y, basis=basis, weight=weight, strata=strata, fold=inside, settings=settings
    )
    rows = preparation.rows(X, T, y, weight, strata)
    part = parts_of(fold, key, folds, settings, seed)
    sums = _sums(rows, part)
    if settings.learner == "constant" or (settings.learner == "sieve" and pooled is None):
        return solve(preparation, sums, folds=folds, settings=settings)[0]
    common = np.empty((len(y), 0)) if pooled is None else pooled.preparation.encoder.transform(X)
    models = {}
    for sieve in _sieves(preparation, sums, folds, settings):
        # models of folds only judge: three boosters do; so do they for many rows
        boosters = 5 if sieve.fold == ALL_FOLDS and len(y) <= _FIVE_BOOSTERS_ROWS else 3
        member = None if pooled is None else pooled.member(preparation, sieve, common, part)
        models[sieve.fold] = stacked_record(
            preparation,
            sieve,
            rows,
            part,
            member,
            settings=settings,
            boosters=boosters,
            seed=seed + 1000 * (sieve.fold + 1),
        )
    return models


def _sums(rows: PreparedRows, part: IntArray) -> dict[int, GramStatistics]:
    sums = {}
    for number in np.unique(part):
        chosen = part == number
        sums[int(number)] = response_gram(
            rows.features[chosen],
            rows.z[chosen],
            rows.strata[chosen],
            rows.outcome[chosen],
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
    for fold in [ALL_FOLDS, *range(folds)] if folds > 1 else [ALL_FOLDS]:
        parts = {
            number: sums[number]
            for number in sorted(sums)
            if number // per_fold != fold and sums[number].weight > 0
        }
        if len(parts) < 2:
            raise InvalidInputError(
                f"{len(parts)} validation parts with rows remain outside fold {fold}, expected at least 2; use more rows"
            )
        layout = Layout.of(preparation, fold)
        yield FoldSieve(fold, layout, parts, fit_sieve(list(parts.values()), layout))
