"""Menus chosen on redrawn responses: the noise of the experiment's responses is what the models of its folds differ by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu.bounded_curve import search_within
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settings import SearchSettings
from coarse_spark.core.menu.stability import STARTS, fold_noise, menu_stability
from coarse_spark.distributed.frames import hash_limit, matrix, theta_columns

_SAMPLED_UNITS = 5_000  # far more than the micro-clusters that the noise is resampled on


def resampled_menus(
    predictions: DataFrame,
    problem: MenuProblem,
    k: int,
    settings: SearchSettings,
    *,
    units: int,
    resamples: int,
) -> tuple[pd.DataFrame, float]:
    """Choose the menu again on responses redrawn within their estimation noise.

    Parameters
    ----------
    predictions : the experiment by the models of every fold: key, model_fold, weight, theta_0 … (see ``score``).
    k : treatments on the menu. settings : of the search, started from the menu that was chosen. units : of the experiment.

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
    sample = sample[sample.groupby("key")["key"].transform("size") == folds].sort_values(
        ["model_fold", "key"], kind="stable"
    )
    theta = matrix(sample, names).reshape(folds, -1, len(names))
    clusters, directions = fold_noise(
        problem, theta, sample["weight"].to_numpy(np.float64)[: theta.shape[1]]
    )
    # as many units as the whole experiment has stand behind the clusters
    behind = np.rint(clusters.units * (units / theta.shape[1])).astype(np.intp)
    clusters = replace(clusters, units=np.maximum(behind, 1))
    best = search_within(problem, clusters, [k], replace(settings, method="auto", starts=STARTS))[k]
    found = menu_stability(
        problem, clusters, best, settings, directions=directions, resamples=resamples
    )
    return found.chosen, max(found.expected_loss, 0.0)
