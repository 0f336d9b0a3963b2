"""Menus chosen on redrawn responses: the noise of the experiment's responses is what the models of its folds differ by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu.curve import search_curve
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.stability import fold_noise, menu_stability
from coarse_spark.distributed.aggregate import FloatArray
from coarse_spark.distributed.units import hash_limit, matrix, theta_columns

_SAMPLED_UNITS = 5_000  # far more than the micro-clusters that the noise is resampled on


def resampled_menus(
    predictions: DataFrame,
    problem: MenuProblem,
    treatments: FloatArray,
    *,
    units: int,
    resamples: int,
    seed: int,
    always_offered: FloatArray | None = None,
) -> tuple[pd.DataFrame, float]:
    """Choose the menu again on responses redrawn within their estimation noise.

    Parameters
    ----------
    predictions : the experiment by the models of every fold: key, model_fold, weight, theta_0 … (see ``score``).
    treatments : (K, d) encoded, the menu that was chosen. units : of the experiment. always_offered : (f, d) on every menu.

    Returns
    -------
    One row a rounded treatment (its dimensions and ``frequency``, the share of menus that hold it), and the mean profit per unit
    weight that these menus lose against the one of the mean responses.
    """
    names = theta_columns(problem.coefficients)
    few = predictions.where(F.col("key") <= hash_limit(_SAMPLED_UNITS, units))
    sample = few.select("key", "model_fold", "weight", *names).toPandas()
    folds = sample["model_fold"].nunique()
    # a unit whose partition lacks a model of some fold says nothing about the noise
    sample = sample[sample.groupby("key")["key"].transform("size") == folds].sort_values(["model_fold", "key"], kind="stable")
    theta = matrix(sample, names).reshape(folds, -1, len(names))
    clusters, directions = fold_noise(problem, theta, sample["weight"].to_numpy(np.float64)[: theta.shape[1]])
    # as many units as the whole experiment has stand behind the clusters
    behind = np.rint(clusters.units * (units / theta.shape[1])).astype(np.intp)
    clusters, k = replace(clusters, units=np.maximum(behind, 1)), len(treatments)
    best = search_curve(problem, clusters, [k], fixed=always_offered, previous=treatments, starts=2, seed=seed)[k]
    found = menu_stability(
        problem,
        clusters,
        best.treatments,
        directions=directions,
        fixed=always_offered,
        resamples=resamples,
        seed=seed,
    )
    return found.chosen, max(found.expected_loss, 0.0)
