"""The steps. Each is a function of a run: it reads the tables of the steps before it and replaces the run's rows in its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coarse_spark.config.models import Configuration
from coarse_spark.core.design import design_problems, extrapolation
from coarse_spark.core.lack_of_fit import TreatmentBins, lack_of_fit
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.sketch import MicroClusters
from coarse_spark.core.treatments import Categorical
from coarse_spark.core.values import Policy, contrasts, policy_values, select_menu_size
from coarse_spark.distributed.assign import assign as assign_units
from coarse_spark.distributed.choose import UNIFORM, choose_menus, search_menus
from coarse_spark.distributed.evaluate import design_moments, held_out, seen
from coarse_spark.distributed.evaluate import evaluate as evaluate_policies
from coarse_spark.distributed.fit import fit_responses
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.score import FULL, granular_columns
from coarse_spark.distributed.score import score as score_units
from coarse_spark.distributed.segments import describe_segments
from coarse_spark.distributed.sketch import sketch
from coarse_spark.distributed.units import (
    experiment_units,
    matrix,
    observed_bounds,
    population_units,
    theta_columns,
    treatment_columns,
)
from coarse_spark.distributed.validate import validate_tables
from coarse_spark.errors import RunError, TableError
from coarse_spark.lake.runs import PUBLISHED
from coarse_spark.lake.schemas import ASSIGNMENTS, CONTRASTS, MENU, MODELS, POLICY_VALUES, RESPONSES, SEGMENTS
from coarse_spark.pipeline.run import Run, start_run

FloatArray = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

_BIN_ROWS = 20_000  # a hash sample of this size places the treatment bins of the lack-of-fit test


def validate(run: Run) -> None:
    """Check the tables against the configuration, before anything is computed."""
    with run.step("validate"):
        report = validate_tables(run.configuration, run.experiment, run.population)
        run.warn(*report.warnings)
        run.note(
            experiment_rows=report.rows,
            usable_rows=report.usable_rows,
            population_rows=report.population_rows,
            partitions=report.partitions,
        )
        log.info("%d of %d experiment rows usable, %d units to serve", report.usable_rows, report.rows, report.population_rows)


def fit(run: Run) -> None:
    """Fit response models: one set a partition and the pooled one, cross-fitted, into ``models``.

    Raises
    ------
    RunError : more than ``response.max_failed_share`` of the rows are in partitions that failed.
    """
    validate(run)
    with run.step("fit"):
        units = experiment_units(run.experiment, run.configuration)
        with materialized(units) as kept:
            run.warn(*extrapolation(run.configuration.space, *observed_bounds(kept, run.configuration)))
            run.lake.replace(MODELS, run.run_id, fit_responses(run.spark, kept, run.configuration))
        run.note(models=_model_counts(run))


def _model_counts(run: Run) -> dict[str, int]:
    rows = run.lake.read("models", run.run_id).where(F.col("fold") == FULL)
    counts = rows.groupBy("status").agg(F.count("*").alias("models"), F.sum("rows").alias("rows")).collect()
    models = {row["status"]: int(row["models"]) for row in counts}
    by_rows = {row["status"]: int(row["rows"]) for row in counts}
    failed, limit = by_rows.get("failed", 0), run.configuration.response.max_failed_share
    share = failed / max(int(run.noted("usable_rows", "fit")), 1)
    if failed:
        worst = rows.where(F.col("status") == "failed").orderBy(F.col("rows").desc()).head(1)[0]
        sentence = (
            f"{models['failed']} partition models failed ({share:.1%} of the rows), first {worst['partition']}: {worst['error']}"
        )
        if share > limit:
            raise RunError(f"{sentence}; at most {limit:.1%} may fail (response.max_failed_share)")
        run.warn(f"{sentence}; their units are served by the pooled model")
    # the pooled model is one of the fitted ones
    return {"own": models.get("ok", 1) - 1, "pooled": models.get("pooled", 0), "failed": models.get("failed", 0)}


def score(run: Run) -> None:
    """Score the population with the models of all folds into ``responses``, with every unit's own best treatment."""
    with run.step("score"):
        configuration, problem = run.configuration, run.problem
        if run.population is None:
            units = population_units(run.experiment, configuration, configuration.experiment.weight)
        else:
            units = population_units(run.population, configuration, configuration.population.weight)
        scored = score_units(
            units,
            run.lake.read("models", run.run_id).where(F.col("fold") == FULL),
            features=configuration.experiment.features,
            problem=problem,
            keep=["unit_id", "partition", "weight"],
            granular=True,
        )
        granular = [_decoded(run, position).alias(f"best_{name}") for position, name in enumerate(configuration.space.names)]
        run.lake.replace(
            RESPONSES,
            run.run_id,
            scored.select(
                "unit_id", "partition", *theta_columns(problem.coefficients), "weight", "served_by", "granular_profit", *granular
            ),
        )
        responses = run.lake.read("responses", run.run_id)
        row = responses.agg(
            F.count("*").alias("units"),
            F.sum("weight").alias("weight"),
            F.sum(F.col("weight") * F.col("granular_profit")).alias("granular"),
            F.sum((F.col("partition") != F.col("served_by")).cast("long")).alias("pooled"),
        ).collect()[0]
        run.note(
            scored_units=int(row["units"]), granular_value=row["granular"] / row["weight"], units_of_pooled_model=int(row["pooled"])
        )


def _decoded(run: Run, position: int) -> Any:
    dimension, column = run.configuration.space.dimensions[position], F.col(granular_columns(run.problem)[position])
    if not isinstance(dimension, Categorical):
        return column
    return F.coalesce(*(F.when(column == F.lit(float(code)), F.lit(level)) for code, level in enumerate(dimension.levels)))


def choose(run: Run) -> None:
    """Choose a menu of every size into ``menu``: on a sketch, then by Lloyd passes over the full population."""
    with run.step("choose"):
        configuration, problem = run.configuration, run.problem
        responses = run.lake.read("responses", run.run_id).select("unit_id", "weight", *theta_columns(problem.coefficients))
        granular = float(run.noted("granular_value", "score"))
        with materialized(responses) as kept:
            found = choose_menus(
                kept,
                problem,
                configuration.menu.sizes,
                cells=configuration.menu.sketch_cells,
                passes=configuration.menu.full_passes,
                starts=configuration.menu.starts,
                seed=configuration.menu.seed,
                always_offered=run.always_offered,
            )
        refined = found.refined
        for line in (line for line in refined.history if line.k != UNIFORM):
            text = "K = %d, pass %d: profit %.6g a unit, gain %.2g, %d moved, most: %s"
            log.info(text, line.k, line.number, line.value, line.gain, line.moved, line.what)
        frames = []
        curve: dict[str, Any] = {}
        for k in configuration.menu.sizes:
            menu, sums = refined.menus[k], refined.sums[k]
            weight = sums.weight.sum()
            frame = problem.space.decode(menu.treatments)
            frame.insert(0, "treatment_id", np.arange(len(frame)))
            frame.insert(0, "k", k)
            profits = (sums.rows * menu.psi).sum(axis=1)
            frames.append(
                frame.assign(
                    share=sums.weight / weight,
                    shadow_price=menu.prices,
                    expected_profit=np.divide(profits, sums.weight, out=np.full(len(frame), np.nan), where=sums.weight > 0),
                    selected=k == configuration.menu.select,
                )
            )
            value, bound = sums.value(menu.psi), min(found.bounds[k], granular)
            log.info("K = %d: profit %.6g a unit, no menu of %d exceeds %.6g", k, value, k, bound)
            curve[str(k)] = {"value": value, "upper_bound": bound, "segment_theta": _means(sums.theta, sums.weight).tolist()}
        run.lake.replace(MENU, run.run_id, pd.concat(frames, ignore_index=True))
        run.note(
            control_value=found.control_value,
            uniform_value=refined.sums[UNIFORM].value(refined.menus[UNIFORM].psi),
            micro_clusters=found.micro_clusters,
            curve=curve,
            history=[{**vars(line)} for line in refined.history if line.k != UNIFORM],
        )


def _means(sums: FloatArray, weight: FloatArray) -> FloatArray:
    return np.asarray(np.divide(sums, weight[:, None], out=np.zeros_like(sums), where=weight[:, None] > 0))


def _search(run: Run, clusters: MicroClusters) -> dict[int, PricedMenu]:
    menu = run.configuration.menu
    return search_menus(run.problem, clusters, menu.sizes, starts=menu.starts, seed=menu.seed, always_offered=run.always_offered)


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
            stratified = configuration.design.kind == "stratified"
            design = design_moments(kept, problem, stratified=stratified)
            run.warn(*design_problems(design, problem.basis))
            scored = score_units(
                kept,
                run.lake.read("models", run.run_id).where(F.col("fold") != FULL),
                features=configuration.experiment.features,
                problem=problem,
                keep=[c for c in kept.columns if not c.startswith("feature_")],
                granular=False,
            )
            with materialized(scored) as predictions:
                sketches = sketch(seen(predictions), problem, cells=configuration.menu.sketch_cells, groups=list(folds))
                fold_menus = {fold: _search(run, sketches[fold].clusters) for fold in folds}
                bins = _treatment_bins(kept, configuration)
                result = evaluate_policies(
                    held_out(predictions),
                    problem,
                    policies=policies,
                    fold_menus=fold_menus,
                    design=design,
                    bins=bins,
                    center=np.array([plug_in[policy.name, policy.k] for policy in policies]),
                )
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
        k, rule = select_menu_size(policies, result.moments)
        if configuration.menu.select != "auto":
            k, rule = int(configuration.menu.select), f"K = {configuration.menu.select} as configured"
        else:
            menu = run.lake.read("menu", run.run_id).drop("run_id").toPandas()
            run.lake.replace(MENU, run.run_id, menu.assign(selected=menu["k"] == k))
        log.info("%s", rule)
        run.note(
            selected_k=k,
            selection_rule=rule,
            lack_of_fit={
                "statistic": fit.statistic,
                "degrees": fit.degrees,
                "p_value": fit.p_value,
                "table": fit.table.to_dict("list"),
            },
        )


def _policies(configuration: Configuration) -> list[Policy]:
    cost = configuration.menu.cost_per_treatment
    menus = [Policy("menu", k, cost * k) for k in configuration.menu.sizes]
    return [Policy("control", 1, cost), Policy("uniform", 1, cost), *menus, Policy("granular", 0)]


def _treatment_bins(units: DataFrame, configuration: Configuration) -> TreatmentBins:
    columns = treatment_columns(len(configuration.space.dimensions))
    sample = units.orderBy("key").limit(_BIN_ROWS).select(*columns).toPandas()
    return TreatmentBins.fit(matrix(sample, columns), configuration.space)


def assign(run: Run) -> None:
    """Assign every unit of the population a treatment of the selected menu into ``assignments`` and describe ``segments``.

    Raises
    ------
    TableError : no menu is selected yet.
    """
    with run.step("assign"):
        configuration, problem = run.configuration, run.problem
        menu = run.lake.read("menu", run.run_id).where("selected").orderBy("treatment_id").toPandas()
        if menu.empty:
            raise TableError("menu.select is auto and no size is selected yet; run 'evaluate' before 'assign', or set menu.select")
        treatments = problem.space.encode(menu)
        assigned = assign_units(
            run.lake.read("responses", run.run_id),
            psi=problem.psi_at(treatments),
            prices=menu["shadow_price"].to_numpy(np.float64),
            control_psi=problem.control_psi,
            treatments=treatments,
            space=configuration.space,
        )
        run.lake.replace(ASSIGNMENTS, run.run_id, assigned)
        table = run.experiment if run.population is None else run.population
        units = population_units(table, configuration, None)
        landed = run.lake.read("assignments", run.run_id)
        run.lake.replace(SEGMENTS, run.run_id, describe_segments(landed, units, configuration))


def publish(run: Run) -> None:
    """Check that every unit got one treatment, then make the run current: one commit to ``runs`` moves the view.

    Raises
    ------
    RunError : units are missing from the assignments.
    """
    with run.step("publish"):
        expected = run.noted("scored_units", "score")
        landed = run.lake.read("assignments", run.run_id).count()
        if landed != expected:
            raise RunError(f"{landed} units have an assignment, expected {expected}; nothing was published")
        run.lake.publish_view()
        now = datetime.now(UTC)
        done = {"status": PUBLISHED, "published_at": now, "ended_at": now, "stop_reason": "all steps done", "error": None}
        run.record = run.record.with_changes(**done)
        run.save()


STEPS: dict[str, Callable[[Run], None]] = {
    "fit": fit,
    "score": score,
    "choose": choose,
    "evaluate": evaluate,
    "assign": assign,
    "publish": publish,
}


def run_all(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Run all steps and return the finished run.

    Raises
    ------
    CoarseSparkError : of the step that failed; the run is recorded as failed and nothing is published.
    """
    run = start_run(spark, configuration, run_id)
    for step in STEPS.values():
        step(run)
    return run


__all__ = ["STEPS", "assign", "choose", "evaluate", "fit", "publish", "run_all", "score", "validate"]
