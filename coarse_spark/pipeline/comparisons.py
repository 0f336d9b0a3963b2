"""The menu against its rule, and against what a firm would do instead, on the same units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from coarse_spark.core.comparisons import fit_comparisons
from coarse_spark.core.lack_of_fit import TreatmentBins
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.model_free import GivenShares
from coarse_spark.core.policies import ON_FEATURES, PolicyUnits
from coarse_spark.core.values import Policy, ScoreMoments
from coarse_spark.distributed.evaluate import (
    Evaluation,
    FoldMenus,
    evaluate,
    held_out,
    with_features,
)
from coarse_spark.distributed.frames import feature_columns, matrix, theta_columns
from coarse_spark.distributed.rule import with_fold_rules
from coarse_spark.lake.step_results import ChooseResult
from coarse_spark.pipeline.experiment import CrossFitted
from coarse_spark.pipeline.menu_rule import fold_menu_rules
from coarse_spark.pipeline.run import Run


def compared(
    run: Run,
    experiment: CrossFitted,
    bins: TreatmentBins,
    *,
    k: int,
    sketched: Mapping[int, WeightedUnits],
    fold_menus: Mapping[int, FoldMenus],
    given: GivenShares | None,
    moments: ScoreMoments,
) -> tuple[list[Policy], Evaluation] | None:
    """Judge the rule of a menu and the comparisons with it, in one more pass.

    None where there is neither, as where menus keep limits: no rule and no comparison would.

    Parameters
    ----------
    run : the run.
    experiment : its units, by the models of every fold.
    bins : of treatments.
    k : size of the menu.
    sketched : the units that a fold's policies are chosen on, by fold.
    fold_menus : what was chosen on them.
    given : shares of the treatments that the experiment gave, for values without a model too.
    moments : of the scores of control, uniform, menus and granular.

    Returns
    -------
    The policies, what they are compared with first, and what was found.
    """
    configuration, problem = run.configuration, experiment.problem
    names = list(configuration.evaluation.comparisons) if configuration.limits.free else []
    ruled = k > 1 and run.result(ChooseResult).menus[k].rule is not None
    if not names and not ruled:
        return None
    held = held_out(experiment.predictions)
    if ruled:
        rules = fold_menu_rules(run, experiment, fold_menus, k)
        features, eligible = configuration.experiment.features, configuration.menu.eligibility
        held = with_fold_rules(held, experiment.units, rules, features, list(eligible))
    if set(names) & set(ON_FEATURES):
        held = with_features(held, experiment.units)
    cost = configuration.menu.cost_per_treatment
    sized = ["menu", *(["rule"] if ruled else [])]
    policies = [
        *(Policy(name, 1, cost) for name in ("control", "uniform")),
        *(Policy(name, k, cost * k) for name in sized),
        Policy("granular", 0),
        *(Policy(name, k, cost * k) for name in names),
    ]
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
    return policies, evaluate(
        held,
        problem,
        policies=policies,
        fold_menus=menus,
        bins=bins,
        center=np.full(len(policies), moments.mean[0]),
        given=given,
        by_outcome=ruled and len(problem.of_profit.outcomes) > 1,
    )
