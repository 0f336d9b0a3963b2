"""Estimate honest values of all policies and select the size of the menu."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.config.models import Configuration
from coarse_spark.core.lack_of_fit import TreatmentBins, lack_of_fit
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.values import Policy, contrasts, policy_values, select_menu_size
from coarse_spark.distributed.choose import search_menus
from coarse_spark.distributed.design import design_of, with_representer
from coarse_spark.distributed.evaluate import Evaluation, held_out, seen
from coarse_spark.distributed.evaluate import evaluate as evaluate_policies
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.rules import restricted, with_rules
from coarse_spark.distributed.score import FULL
from coarse_spark.distributed.score import score as score_units
from coarse_spark.distributed.sketch import sketch
from coarse_spark.distributed.units import eligibility_columns, experiment_units, hash_sample, matrix, treatment_columns
from coarse_spark.lake.schemas import CONTRASTS, MENU, POLICY_VALUES
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.stability import note_stability

FloatArray = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

_BIN_ROWS = 20_000  # a hash sample of this size places the treatment bins of the lack-of-fit test


def evaluate(run: Run) -> None:
    """Estimate honest values of control, best single treatment, every menu size and granular; select K by the rule."""
    with run.step("evaluate"):
        configuration, problem = run.configuration, run.problem
        folds, sizes = range(configuration.response.folds), configuration.menu.sizes
        policies = _policies(configuration)
        curve = run.noted("curve", "choose")
        notes = run.record.diagnostics
        plug_in = {("control", 1): notes["control_value"], ("granular", 0): notes["granular_value"]}
        plug_in |= {("uniform", 1): notes["uniform_value"]} | {("menu", k): curve[str(k)]["value"] for k in sizes}
        units = experiment_units(run.experiment, configuration)
        with materialized(units) as kept:
            design = design_of(kept, configuration, problem.basis)
            run.warn(*design.problems)
            designed = with_representer(kept, design, problem.basis_size)
            scored = score_units(
                designed,
                run.lake.read("models", run.run_id).where(F.col("fold") != FULL),
                features=configuration.experiment.features,
                problem=problem,
                keep=[c for c in designed.columns if not c.startswith("feature_")],
                granular=False,
            )
            rules = eligibility_columns(len(configuration.menu.eligibility))
            with materialized(with_rules(scored, problem.coefficients, rules)) as predictions:
                problem = restricted(problem, predictions, rules, list(configuration.menu.eligibility.values()))
                sketches = sketch(seen(predictions), problem, cells=configuration.menu.sketch_cells, groups=list(folds))
                fold_menus = {fold: _search(run, problem, sketches[fold].clusters) for fold in folds}
                bins = _treatment_bins(kept, configuration)
                result = evaluate_policies(
                    held_out(predictions),
                    problem,
                    policies=policies,
                    fold_menus=fold_menus,
                    bins=bins,
                    center=np.array([plug_in[policy.name, policy.k] for policy in policies]),
                )
                k, rule = _selected(configuration, policies, result)
                note_stability(run, problem, predictions, [menus[k] for menus in fold_menus.values()], k)
        _warn_of_barred(run, policies, result.barred)
        confidence = configuration.evaluation.confidence
        values = policy_values(policies, result.moments, confidence)
        keys = list(zip(values["policy"], values["k"], strict=True))
        costs = {(policy.name, policy.k): policy.variety_cost for policy in policies}
        values["plug_in_value"] = [plug_in[key] - costs[key] for key in keys]
        bounds = {(name, k): curve[str(k)]["upper_bound"] - costs[name, k] for name, k in keys if name == "menu"}
        values["upper_bound"] = [bounds.get(key, np.nan) for key in keys]
        run.lake.replace(POLICY_VALUES, run.run_id, values)
        run.lake.replace(CONTRASTS, run.run_id, contrasts(policies, result.moments, confidence))
        fit = lack_of_fit(bins, result.bins)
        if configuration.menu.select == "auto":
            menu = run.lake.read("menu", run.run_id).drop("run_id").toPandas()
            run.lake.replace(MENU, run.run_id, menu.assign(selected=menu["k"] == k))
        log.info("%s", rule)
        run.note(
            selected_k=k,
            selection_rule=rule,
            overlap=None if design.overlap is None else asdict(design.overlap),
            lack_of_fit={
                "statistic": fit.statistic,
                "degrees": fit.degrees,
                "p_value": fit.p_value,
                "table": fit.table.to_dict("list"),
            },
        )


def _selected(configuration: Configuration, policies: Sequence[Policy], result: Evaluation) -> tuple[int, str]:
    """Return the size to publish and why."""
    if configuration.menu.select != "auto":
        return int(configuration.menu.select), f"K = {configuration.menu.select} as configured"
    return select_menu_size(policies, result.moments)


def _search(run: Run, problem: MenuProblem, clusters: MicroClusters) -> dict[int, PricedMenu]:
    menu = run.configuration.menu
    return search_menus(problem, clusters, menu.sizes, starts=menu.starts, seed=menu.seed, always_offered=run.always_offered)


def _warn_of_barred(run: Run, policies: Sequence[Policy], barred: FloatArray) -> None:
    counts = [f"{count:.0f} on the menu of {policy.k}" for policy, count in zip(policies, barred, strict=True) if count]
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
