"""Cross-fitted response models: one a fold, fitted on the other folds' rows, and one on all rows (key −1).

``fit_models`` does it for rows in memory. The pooled model over many machines takes three steps that give the same result:
``Preparation.fit`` on a sample, ``accumulate`` on every batch of rows (the sums of batches add up), ``solve`` on the summed parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.gram import GramStatistics, response_gram, total
from coarse_spark.core.learners.preparation import Preparation
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.sieve import Layout, fit_sieve, sieve_record
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ALL_ROWS = -1  # key of the model fitted on all rows


def hash_uniform(key: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint64]:
    """Return well-mixed 64-bit numbers (n,) of row keys and a seed (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        value = np.asarray(key).astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * (seed % 2**31) + 1)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: npt.NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return mixed


def parts_per_fold(folds: int, settings: LearnerSettings) -> int:
    """Return into how many validation parts every fold is cut, so that any model has enough of them outside its fold."""
    return ceil(settings.validation_parts / max(folds - 1, 1)) if folds < settings.validation_parts else 1


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
    parts = parts_per_fold(folds, settings)
    part = np.asarray(fold, dtype=np.int64) * parts + (hash_uniform(key, seed) % np.uint64(parts)).astype(np.int64)
    sums = {}
    for number in np.unique(part):
        chosen = part == number
        sums[int(number)] = response_gram(
            rows.features[chosen], rows.z[chosen], rows.strata[chosen], rows.outcome[chosen], rows.weight[chosen]
        )
    return sums


def solve(
    preparation: Preparation, sums: Mapping[int, GramStatistics], *, folds: int, settings: LearnerSettings
) -> dict[int, ModelRecord]:
    """Return the models of every fold and of all rows from the summed parts of ``accumulate``.

    Raises
    ------
    InvalidInputError : fewer than two parts with rows remain for a model.
    """
    layout = Layout(*preparation.shape)
    parts = parts_per_fold(folds, settings)
    models = {}
    for fold in [ALL_ROWS, *range(folds)] if folds > 1 else [ALL_ROWS]:
        kept = [sums[number] for number in sorted(sums) if number // parts != fold and sums[number].weight > 0]
        if len(kept) < 2:
            raise InvalidInputError(
                f"{len(kept)} validation parts with rows remain outside fold {fold}, expected at least 2; use more rows"
            )
        fit = fit_sieve(kept, layout, constant=settings.learner == "constant")
        models[fold] = sieve_record(preparation, fit, total(dict(enumerate(kept))))
    return models


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
) -> dict[int, ModelRecord]:
    """Fit one model a fold on the rows outside it, and the model ``ALL_ROWS`` on all rows.

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

    Returns
    -------
    Records keyed by fold. The same rows in another order give the same models up to rounding.

    Raises
    ------
    InvalidInputError : rows that do not match or cannot be used, or treatments that do not identify the basis.
    """
    settings = settings or LearnerSettings()
    preparation = Preparation.fit(X, T, y, basis=basis, weight=weight, strata=strata, settings=settings)
    folds = int(np.max(fold)) + 1
    sums = accumulate(preparation, X, T, y, fold, key=key, folds=folds, weight=weight, strata=strata, settings=settings, seed=seed)
    return solve(preparation, sums, folds=folds, settings=settings)
