"""The menu against what a firm would do instead, valued on the same units in one more pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from coarse_spark.core.comparisons import fit_comparisons
from coarse_spark.core.lack_of_fit import TreatmentBins
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.policies import ON_FEATURES, PolicyUnits
from coarse_spark.core.values import Policy, ScoreMoments, contrasts, policy_values
from coarse_spark.distributed.evaluate import (
    FoldMenus,
    evaluate,
    held_out,
    with_features,
)
from coarse_spark.distributed.frames import feature_columns, matrix, theta_columns
from coarse_spark.pipeline.experiment import CrossFitted
from coarse_spark.pipeline.run import Run


def compared(
    run: Run,
    experiment: CrossFitted,
    bins: TreatmentBins,
    *,
    k: int,
    sketched: Mapping[int, WeightedUnits],
    fold_menus: Mapping[int, FoldMenus],
    moments: ScoreMoments,
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return rows of ``policy_values`` and ``contrasts`` of the comparisons with a menu.

    None where there are none, or where menus keep limits, which no comparison would.

    Parameters
    ----------
    run : the run.
    experiment : its units, by the models of every fold.
    bins : of treatments.
    k : size of the menu.
    sketched : the units that a fold's policies are chosen on, by fold.
    fold_menus : what was chosen on them.
    moments : of the scores of control, uniform, menus and granular.
    """
    configuration, problem = run.configuration, experiment.problem
    names = list(configuration.evaluation.comparisons)
    if not names or not configuration.limits.free:
        return None
    cost = configuration.menu.cost_per_treatment
    policies = [
        *(Policy(name, 1, cost) for name in ("control", "uniform")),
        *(Policy(name, k, cost * k) for name in ("menu", *names)),
        Policy("granular", 0),
    ]
    held = held_out(experiment.predictions)
    if set(names) & set(ON_FEATURES):
        held = with_features(held, experiment.units)
    menus = {}
    for fold, units in sketched.items():
        rows = experiment.samples[fold]
        sample = PolicyUnits(
            problem,
            matrix(rows, theta_columns(problem.coefficients)),
            rows[feature_columns(len(configuration.experiment.features))],
        )
        others = fit_comparisons(
            names,
            k,
            sketch=units,
            sample=sample,
            weights=rows["weight"].to_numpy(np.float64),
            grid_points=configuration.evaluation.grid_points,
            seed=configuration.menu.seed + fold,
        )
        menus[fold] = replace(fold_menus[fold], others=others)
    result = evaluate(
        held,
        problem,
        policies=policies,
        fold_menus=menus,
        bins=bins,
        center=np.full(len(policies), moments.mean[0]),
    )
    confidence = configuration.evaluation.confidence
    values = policy_values(policies, result.moments, confidence)
    differences = contrasts(policies, result.moments, confidence)
    return (
        values[values["policy"].isin(names)],
        differences[differences["versus"].isin(names)],
    )
