"""Estimate honest values of all policies and select the size of the menu."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from pyspark.sql import DataFrame

from coarse_spark.config.models import Configuration
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.lack_of_fit import TreatmentBins, lack_of_fit
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.values import Policy, contrasts, policy_values, select_menu_size
from coarse_spark.distributed.choose import search_menus
from coarse_spark.distributed.evaluate import Evaluation, held_out, seen
from coarse_spark.distributed.evaluate import evaluate as evaluate_policies
from coarse_spark.distributed.frames import hash_sample, matrix, treatment_columns
from coarse_spark.distributed.sketch import sketch
from coarse_spark.lake.schemas import CONTRASTS, MENU, POLICY_VALUES
from coarse_spark.pipeline.experiment import cross_fitted
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.stability import note_stability

log = logging.getLogger(__name__)

_BIN_ROWS = 20_000  # a hash sample of this size places the treatment bins of the lack-of-fit test


def evaluate(run: Run) -> None:
    """Estimate honest values of control, best single treatment, every menu size and granular; select K by the rule."""
    with run.step("evaluate"):
        configuration = run.configuration
        folds, sizes = range(configuration.response.folds), configuration.menu.sizes
        policies = _policies(configuration)
        curve = run.noted("curve", "choose")
        notes = run.record.diagnostics
        plug_in = {("control", 1): notes["control_value"], ("granular", 0): notes["granular_value"]}
        plug_in |= {("uniform", 1): notes["uniform_value"]} | {
            ("menu", k): curve[str(k)]["value"] for k in sizes
        }
        with cross_fitted(run) as experiment:
            predictions, problem = experiment.predictions, experiment.problem
            sketches = sketch(
                seen(predictions),
                problem,
                cells=configuration.menu.sketch_cells,
                groups=list(folds),
            )
            fold_menus = {fold: _search(run, problem, sketches[fold].clusters) for fold in folds}
            bins = _treatment_bins(experiment.units, configuration)
            result = evaluate_policies(
                held_out(predictions),
                problem,
                policies=policies,
                fold_menus=fold_menus,
                bins=bins,
                center=np.array([plug_in[policy.name, policy.k] for policy in policies]),
            )
            k, rule = _selected(configuration, policies, result)
            chosen = read_menus(run.lake, run.run_id)
            note_stability(
                run,
                problem,
                predictions,
                [menus[k] for menus in fold_menus.values()],
                chosen[chosen["k"] == k],
            )
        _warn_of_barred(run, policies, result.barred)
        confidence = configuration.evaluation.confidence
        values = policy_values(policies, result.moments, confidence)
        keys = list(zip(values["policy"], values["k"], strict=True))
        costs = {(policy.name, policy.k): policy.variety_cost for policy in policies}
        values["plug_in_value"] = [plug_in[key] - costs[key] for key in keys]
        bounds = {
            (name, k): curve[str(k)]["upper_bound"] - costs[name, k]
            for name, k in keys
            if name == "menu"
        }
        values["upper_bound"] = [bounds.get(key, np.nan) for key in keys]
        run.lake.replace(POLICY_VALUES, run.run_id, values)
        run.lake.replace(CONTRASTS, run.run_id, contrasts(policies, result.moments, confidence))
        fit = lack_of_fit(bins, result.bins)
        if configuration.menu.select == "auto":
            run.lake.replace(MENU, run.run_id, chosen.assign(selected=chosen["k"] == k))
        log.info("%s", rule)
        run.note(
            selected_k=k,
            selection_rule=rule,
            overlap=None
            if experiment.design.overlap is None
            else asdict(experiment.design.overlap),
            lack_of_fit={
                "statistic": fit.statistic,
                "degrees": fit.degrees,
                "p_value": fit.p_value,
                "table": fit.table.to_dict("list"),
            },
        )


def _selected(
    configuration: Configuration, policies: Sequence[Policy], result: Evaluation
) -> tuple[int, str]:
    """Return the size to publish and why."""
    if configuration.menu.select != "auto":
        return int(configuration.menu.select), f"K = {configuration.menu.select} as configured"
    return select_menu_size(policies, result.moments)


def _search(run: Run, problem: MenuProblem, clusters: MicroClusters) -> dict[int, PricedMenu]:
    found = search_menus(problem, clusters, run.configuration.menu.sizes, run.search_settings())
    # held-out units follow the prices of the fold's menu: shares and spending are kept as they would be for new units
    return {k: bounded.menu for k, bounded in found.items()}


def _warn_of_barred(run: Run, policies: Sequence[Policy], barred: FloatArray) -> None:
    counts = [
        f"{count:.0f} on the menu of {policy.k}"
        for policy, count in zip(policies, barred, strict=True)
        if count
    ]
    if counts:
        run.warn(
            f"some units of the experiment may get none of the treatments of the menu that they are judged on: {', '.join(counts)};"
            " they are valued under the control"
        )


def _policies(configuration: Configuration) -> list[Policy]:
    cost = configuration.menu.cost_per_treatment
    menus = [Policy("menu", k, cost * k) for k in configuration.menu.sizes]
    return [Policy("control", 1, cost), Policy("uniform", 1, cost), *menus, Policy("granular", 0)]


def _treatment_bins(units: DataFrame, configuration: Configuration) -> TreatmentBins:
    columns = treatment_columns(len(configuration.space.dimensions))
    sample = hash_sample(units.select("key", *columns), _BIN_ROWS)
    return TreatmentBins.fit(matrix(sample, columns), configuration.space)
