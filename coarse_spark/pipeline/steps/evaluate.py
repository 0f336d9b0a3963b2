"""Estimate honest values of all policies and select the size of the menu."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark import progress
from coarse_spark.config.models import Configuration
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.lack_of_fit import TreatmentBins, lack_of_fit
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single, search_menus
from coarse_spark.core.menu.sketch import Sketch
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.model_free import GivenShares, model_free_values
from coarse_spark.core.strata import MergedStrata
from coarse_spark.core.values import (
    Policy,
    contrasts,
    outcome_values,
    policy_values,
    select_menu_size,
)
from coarse_spark.distributed.at_once import at_once, for_each
from coarse_spark.distributed.evaluate import Evaluation, FoldMenus, given_shares, held_out
from coarse_spark.distributed.evaluate import evaluate as evaluate_policies
from coarse_spark.distributed.frames import hash_sample, matrix, treatment_columns
from coarse_spark.distributed.sketch import sketches
from coarse_spark.lake.contract import CONTRASTS, MENU, POLICY_VALUES
from coarse_spark.lake.step_results import (
    ChooseResult,
    EvaluateResult,
    LackOfFit,
    OutcomeValue,
    ScoreResult,
    StrataMerged,
    TreatmentBin,
)
from coarse_spark.pipeline.comparisons import compared
from coarse_spark.pipeline.experiment import CrossFitted, cross_fitted
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.stability import choice_stability

log = logging.getLogger(__name__)

_BIN_ROWS = 20_000  # a hash sample of this size places the treatment bins of the lack-of-fit test


def evaluate(run: Run) -> None:
    """Estimate honest values of all policies; select K by the rule."""
    with run.step("evaluate"):
        configuration = run.configuration
        folds, menu = range(configuration.response.folds), configuration.menu
        chosen = run.result(ChooseResult)
        policies = _policies(configuration)
        plug_in = _plug_in(run)
        with cross_fitted(run) as experiment:
            predictions, problem = experiment.predictions, experiment.problem
            cells = configuration.menu.sketch_cells
            sketched = sketches(experiment.chosen_on, problem, cells=cells, groups=list(folds))
            fold_menus, (bins, given, rows) = at_once(
                run.spark,
                lambda: _chosen(run, problem, sketched),
                lambda: _looked_up(run, experiment),
            )
            result = evaluate_policies(
                held_out(predictions),
                problem,
                policies=policies,
                fold_menus=fold_menus,
                bins=bins,
                center=np.array([plug_in[policy.name, policy.k] for policy in policies]),
                given=given,
                by_outcome=len(problem.of_profit.outcomes) > 1,
            )
            k, rule = select_menu_size(policies, result.moments, menu.select, menu.tolerance)
            beside, stability = at_once(
                run.spark,
                lambda: compared(
                    run,
                    experiment,
                    bins,
                    k=k,
                    sketched={fold: sketch.units for fold, sketch in sketched.items()},
                    fold_menus=fold_menus,
                    given=given,
                    moments=result.moments,
                ),
                lambda: choice_stability(
                    run,
                    problem,
                    predictions,
                    [menus.sized[k] for menus in fold_menus.values()],
                    rows[rows["k"] == k],
                    result.moments,
                ),
            )
        _warn_of_refused(run, policies, result.refused)
        values, differences, outcomes = _rows(configuration, policies, result)
        if beside is not None:
            fresh = {policy.name for policy in beside[0]} - {policy.name for policy in policies}
            further = _rows(configuration, *beside)
            values, differences, outcomes = (
                pd.concat([found, more[_about(more, fresh)]], ignore_index=True)
                for found, more in zip((values, differences, outcomes), further, strict=True)
            )
        keys, cost = list(zip(values["policy"], values["k"], strict=True)), menu.cost_per_treatment
        bounds = {("menu", size): chosen.menus[size].upper_bound for size in menu.sizes}
        values["plug_in_value"] = [plug_in.get(key, np.nan) - cost * key[1] for key in keys]
        values["upper_bound"] = [bounds.get(key, np.nan) - cost * key[1] for key in keys]
        tables = [(POLICY_VALUES, values), (CONTRASTS, differences)]
        if menu.select == "auto":
            tables.append((MENU, rows.assign(selected=rows["k"] == k)))
        for_each(run.spark, tables, lambda table: run.replace(*table))
        log.info("%s", rule)
        run.keep(
            EvaluateResult(
                k=k,
                selection_rule=rule,
                overlap=experiment.design.overlap,
                strata_merged=_strata_merged(experiment.design.merged),
                lack_of_fit=_lack_of_fit(bins, result, experiment.design.untested),
                stability=stability,
                outcomes=[OutcomeValue.model_validate(row) for row in outcomes.to_dict("records")],
            )
        )


def _policies(configuration: Configuration) -> list[Policy]:
    cost = configuration.menu.cost_per_treatment
    menus = [Policy("menu", k, cost * k) for k in configuration.menu.sizes]
    single = [Policy("control", 1, cost), Policy("uniform", 1, cost)]
    return [*single, *menus, Policy("granular", 0)]


def _plug_in(run: Run) -> dict[tuple[str, int], float]:
    """Return the values of policies on the population by the responses themselves."""
    chosen, menu = run.result(ChooseResult), run.configuration.menu
    values = {k: chosen.menus[k].value for k in menu.sizes}
    rules = {k: chosen.menus[k].rule for k in menu.sizes if k > 1}
    return {
        ("control", 1): chosen.control_value,
        ("uniform", 1): chosen.uniform_value,
        **{("menu", k): value for k, value in values.items()},
        **{("rule", k): values[k] - rule.lost for k, rule in rules.items() if rule is not None},
        ("granular", 0): run.result(ScoreResult).granular_value,
    }


def _rows(
    configuration: Configuration, policies: Sequence[Policy], result: Evaluation
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return what a pass found: rows of policy_values, of contrasts, and of several outcomes."""
    confidence, outcomes = configuration.evaluation.confidence, pd.DataFrame()
    values = policy_values(policies, result.moments, confidence)
    values[["model_free_value", "model_free_se"]] = np.nan
    if result.model_free is not None:
        free, values["model_free_se"] = model_free_values(result.model_free)
        values["model_free_value"] = free - [policy.variety_cost for policy in policies]
    if result.outcomes is not None:
        names = configuration.experiment.outcomes
        outcomes = outcome_values(names, policies, result.outcomes, confidence)
    return values, contrasts(policies, result.moments, confidence), outcomes


def _about(rows: pd.DataFrame, names: Collection[str]) -> pd.Series[bool]:
    """Whether rows are about policies of these names."""
    sides = [name for name in ("policy", "versus") if name in rows]
    return rows[sides].isin(names).any(axis=1)


def _strata_merged(merged: MergedStrata | None) -> StrataMerged | None:
    if merged is None or not merged.unidentified:
        return None
    return StrataMerged(
        strata=len(merged.moments),
        unidentified=len(merged.unidentified),
        unidentified_rows=sum(merged.unidentified.values()),
        groups=len(merged.groups),
        merged=sum(map(len, merged.groups)),
        merged_rows=merged.rows,
    )


def _lack_of_fit(bins: TreatmentBins, result: Evaluation, untested: str) -> LackOfFit:
    clusters = result.moments.clusters
    found = lack_of_fit(bins, result.bins, result.scatter, clusters, untested)
    rows = [
        TreatmentBin(
            label=row["bin"],
            rows=row["rows"],
            observed=row["observed"],
            fitted=row["fitted"],
            standard_error=row["standard_error"],
            treatment=[row[f"mean_{name}"] for name in bins.names],
        )
        for row in found.table.to_dict("records")
    ]
    return LackOfFit(
        statistic=found.statistic,
        degrees=found.degrees,
        p_value=found.p_value,
        bins=rows,
        untested=found.untested,
    )


def _chosen(run: Run, problem: MenuProblem, sketched: Mapping[int, Sketch]) -> dict[int, FoldMenus]:
    """Return by fold the menus chosen without it."""
    return {
        fold: _search(run, problem, sketch.units)
        for fold, sketch in progress.each("menus of fold", sketched.items())
    }


def _looked_up(
    run: Run, experiment: CrossFitted
) -> tuple[TreatmentBins, GivenShares | None, pd.DataFrame]:
    """Return the bins of treatments, the shares given, and the rows of the run's menus."""
    bins = treatment_bins(experiment.units, run.configuration)
    learned = run.configuration.design.kind == "learned"
    given = None if learned else given_shares(experiment.units, experiment.problem)
    return bins, given, read_menus(run.lake, run.run_id)


def _search(run: Run, problem: MenuProblem, units: WeightedUnits) -> FoldMenus:
    settings = run.search_settings()
    # held-out units follow the prices of the fold's menu: shares and spending are kept as they
    # would be for new units
    found = search_menus(problem, units, run.configuration.menu.sizes, settings)
    return FoldMenus(best_single(problem, units, settings), found)


def _warn_of_refused(run: Run, policies: Sequence[Policy], refused: FloatArray) -> None:
    counts = [
        f"{count:.0f} on the menu of {policy.k}"
        for policy, count in zip(policies, refused, strict=True)
        if count
    ]
    if counts:
        run.warn(
            "some units of the experiment may get none of the treatments of the menu that they are "
            f"judged on: {', '.join(counts)}; they are valued under the control"
        )


def treatment_bins(units: DataFrame, configuration: Configuration) -> TreatmentBins:
    """Return the bins of treatments of the lack-of-fit test, placed by a sample of units."""
    columns = treatment_columns(len(configuration.space.dimensions))
    sample = hash_sample(units.select("key", *columns), _BIN_ROWS)
    return TreatmentBins.fit(matrix(sample, columns), configuration.space)
