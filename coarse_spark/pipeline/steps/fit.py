"""Fit response models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.config.models import Configuration
from coarse_spark.core.learners.choose_basis import BasisChoice
from coarse_spark.core.learners.choose_scale import ScaleChoice
from coarse_spark.core.learners.encoding.baseline import check_range
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.support import offered_space, support_problems
from coarse_spark.distributed.at_once import for_each
from coarse_spark.distributed.basis import settle_form, with_knots
from coarse_spark.distributed.fit import brought_models, fit_responses
from coarse_spark.distributed.frames import (
    POOLED,
    ExperimentSetup,
    experiment_units,
    outcome_columns,
)
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.support import experiment_support
from coarse_spark.errors import RunError
from coarse_spark.lake.contract import MODELS
from coarse_spark.lake.step_results import FitResult, ModelCounts, ValidateResult
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, fit_settings, learner_settings
from coarse_spark.pipeline.steps.validate import validate
from coarse_spark.text import counted, shown

log = logging.getLogger(__name__)


def fit(run: Run) -> None:
    """Fit response models: one set a partition and the pooled one, cross-fitted, into ``models``.

    Where responses are brought along none is fitted, and one row says so.

    Raises
    ------
    InvalidInputError : outcomes that ``response.scale`` is not for.
    RunError : more than ``response.max_failed_share`` of the rows are in partitions that failed.
    """
    validate(run)
    with run.step("fit"):
        setup = experiment_setup(run.declared)
        with materialized(experiment_units(run.experiment, setup)) as kept:
            outcomes = _outcomes(run.declared, kept, setup)
            choice = outcomes[0].basis
            support = experiment_support(kept, choice.basis)
            # of what is offered: where menu.support leaves treatments out, another sentence says so
            offered = offered_space(choice.basis, support, run.declared.menu.support)
            observed = support.observed(offered)
            run.warn(*observed.problems(private=run.declared.privacy))
            run.warn(*support_problems(choice.basis, support, run.declared.menu.support))
            configuration = run.declared.with_response(basis=choice.basis.name)
            configuration.problem_within(support)  # fewer treatments than a menu has are told now
            run.replace(MODELS, _models(run, setup, outcomes))
            models = _model_counts(run, kept)
        run.keep(
            FitResult(
                observed_treatments=observed.values,
                outcomes=outcomes[0].range if len(outcomes) == 1 else None,
                outcome_ranges=tuple(o.range for o in outcomes) if len(outcomes) > 1 else (),
                support=support,
                basis=choice.basis.name,
                basis_losses=choice.losses,
                bases_left_out=choice.left_out,
                scale=_scales(outcomes),
                scale_losses=outcomes[0].scale.losses if len(outcomes) == 1 else {},
                models=models,
            )
        )


@dataclass(frozen=True)
class _Outcome:
    """One outcome: units that have it, as their column outcome, its range, and responses' form."""

    name: str
    units: DataFrame
    range: tuple[float, float]
    basis: BasisChoice
    scale: ScaleChoice


def _outcomes(
    configuration: Configuration, units: DataFrame, setup: ExperimentSetup
) -> list[_Outcome]:
    """Return the outcomes in their order; several have one basis, the same knots too."""
    columns = outcome_columns(len(setup.outcomes))
    if len(columns) == 1:
        return [_settled(configuration, units, setup, setup.outcome, configuration.bases)]
    given = configuration.responses.given
    bases = configuration.bases if given else with_knots(units, setup, configuration.bases)
    found = []
    for name, column in zip(setup.outcomes, columns, strict=True):
        own = units.withColumn("outcome", F.col(column)).where(F.col("outcome").isNotNull())
        found.append(_settled(configuration, own, setup, name, bases))
    return found


def _settled(
    configuration: Configuration,
    units: DataFrame,
    setup: ExperimentSetup,
    name: str,
    bases: Sequence[str],
) -> _Outcome:
    row = units.agg(F.min("outcome"), F.max("outcome")).collect()[0]
    outcomes = (float(row[0]), float(row[1]))
    learner = learner_settings(configuration, name)
    if not learner.winsorize:  # else the fit checks what it clips
        check_range(learner.scale, *outcomes)
    if configuration.responses.given:
        choice, scale = BasisChoice(configuration.basis), ScaleChoice(learner.scale)
    else:
        choice, scale = settle_form(units, setup, bases, learner, outcomes)
    _log(choice, scale)
    return _Outcome(name, units, outcomes, choice, scale)


def _scales(outcomes: Sequence[_Outcome]) -> str:
    """Return the scale, or those of several outcomes in their order where they differ."""
    scales = [outcome.scale.scale for outcome in outcomes]
    return scales[0] if len(set(scales)) == 1 else ", ".join(scales)


def _models(run: Run, setup: ExperimentSetup, outcomes: Sequence[_Outcome]) -> DataFrame:
    """Return the models of all outcomes, each on its own scale; one row where none are fitted."""
    if run.declared.responses.given:
        row = brought_models(run.spark, run.result(ValidateResult).usable_rows)
        return row if len(outcomes) == 1 else row.withColumn("outcome", F.lit(0))
    found = []
    for number, outcome in enumerate(outcomes):
        configuration = run.declared.with_response(
            basis=outcome.basis.basis.name, scale=outcome.scale.scale
        )
        models = fit_responses(outcome.units, setup, fit_settings(configuration, outcome.name))
        if len(outcomes) > 1:
            models = models.withColumn("outcome", F.lit(number))
        found.append(models)
    return reduce(DataFrame.unionByName, found)


def _log(choice: BasisChoice, scale: ScaleChoice) -> None:
    for name, loss in sorted(choice.losses.items(), key=lambda item: item[1]):
        log.info("basis %s: held-out mean squared error %.6g", name, loss)
    for name, reason in choice.left_out.items():
        log.info("basis %s left out: %s", name, reason)
    for name, loss in sorted(scale.losses.items(), key=lambda item: item[1]):
        log.info("%s responses: held-out weighted squared error %.6g", name, loss)


def _model_counts(run: Run, units: DataFrame) -> ModelCounts:
    """Return how partitions are served, each counted once, with warnings of failures and shards.

    Parameters
    ----------
    run : whose models are written.
    units : usable rows of the experiment.

    Raises
    ------
    RunError : more than ``response.max_failed_share`` of the rows are in partitions that failed.
    """
    names = run.declared.experiment.outcomes
    rows = run.lake.read("models", run.run_id).where(F.col("fold") == ALL_FOLDS)
    if len(names) == 1:
        rows = rows.withColumn("outcome", F.lit(0))
    # what fails, or is too small, for several outcomes does so once, by the one of most rows
    each = rows.groupBy("partition", "member", "status").agg(F.max("rows").alias("rows"))
    partitions = _by_partition(rows, len(names), run.declared.response.min_rows)
    lost = F.col("failed") > 0
    by_pooled = ~F.col("own") & ~lost
    counted_as = [F.col("own"), by_pooled, by_pooled & F.col("unidentified"), lost]
    counts = partitions.agg(*(F.count(F.when(one, F.lit(1))) for one in counted_as))
    members = rows.agg(F.max("member"))
    (own, served, unidentified, failures), (last,) = for_each(
        run.spark, (counts, members), lambda sums: sums.collect()[0]
    )
    if last:
        run.warn(_told_of_shards(run, each))
    if failures:
        sizes = units.groupBy("partition").agg(F.count("*").alias("usable"))
        share = partitions.where(lost).join(sizes, "partition")
        _tell_of_failures(run, rows.where("status = 'failed'"), failures, share)
    return ModelCounts(own=own, pooled=served, unidentified=unidentified, failed=failures)


def _by_partition(rows: DataFrame, outcomes: int, min_rows: int) -> DataFrame:
    """Return own, unidentified, and failed, the share of rows, of every partition with models.

    Of several outcomes, own holds where all have models, and the others are those of the worst.

    Parameters
    ----------
    rows : partition, outcome, status and rows of the models of all folds together.
    outcomes : number of outcomes.
    min_rows : that a partition has to have.
    """
    fitted, failed, pooled = (F.col("status") == status for status in ("ok", "failed", "pooled"))
    return (
        rows.where((F.col("partition") != POOLED) & (F.col("status") != "brought"))
        .groupBy("partition", "outcome")
        .agg(
            F.max(fitted.cast("int")).alias("fitted"),
            F.max(pooled & (F.col("rows") >= min_rows)).alias("unidentified"),
            (F.sum(F.when(failed, F.col("rows")).otherwise(0)) / F.sum("rows")).alias("failed"),
        )
        .groupBy("partition")
        .agg(
            (F.sum("fitted") == outcomes).alias("own"),
            F.max("unidentified").alias("unidentified"),
            F.max("failed").alias("failed"),
        )
    )


def _tell_of_failures(run: Run, rows: DataFrame, count: int, partitions: DataFrame) -> None:
    """Warn that models of so many partitions failed, or raise where too many rows are in them."""
    total = run.result(ValidateResult).usable_rows
    lost = F.sum(F.round(F.col("failed") * F.col("usable")))
    found = partitions.agg(lost).collect()[0][0]
    share, limit = found / max(total, 1), run.declared.response.max_failed_share
    worst = rows.orderBy(F.col("rows").desc()).head(1)[0]
    sentence = (
        f"{count} partition models failed ({share:.1%} of the rows), "
        f"first {shown(worst['partition'], private=run.declared.privacy)}: {worst['error']}"
    )
    if share > limit:
        raise RunError(f"{sentence}; at most {limit:.1%} may fail (response.max_failed_share)")
    where = " in what failed" if len(run.declared.experiment.outcomes) > 1 else ""
    run.warn(f"{sentence}; their units are served by the pooled model{where}")


def _told_of_shards(run: Run, models: DataFrame) -> str:
    """Say which partitions were too large for one model, and what was done about it."""
    cut = (
        models.groupBy("partition", "member")
        .agg(F.max("rows").alias("rows"))
        .groupBy("partition")
        .agg(F.count("*").alias("shards"), F.sum("rows").alias("rows"))
        .where(F.col("shards") > 1)
        .orderBy(F.col("rows").desc(), "partition")
        .collect()
    )
    largest, limit = cut[0], run.declared.response.max_rows
    return (
        f"{counted(len(cut), 'partition has', 'partitions have')} more rows than "
        f"response.max_rows = {limit:,}, the largest "
        f"{shown(largest['partition'], private=run.declared.privacy)} with {largest['rows']:,}: "
        f"each was cut by a hash of its units into shards, the largest into {largest['shards']}, "
        "whose models are averaged"
    )
