"""Fit response models."""

from __future__ import annotations

import logging

from pyspark.sql import functions as F

from coarse_spark.core.learners.choose_basis import BasisChoice
from coarse_spark.core.learners.choose_scale import ScaleChoice
from coarse_spark.core.learners.encoding.baseline import check_range
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.support import offered_space, support_problems
from coarse_spark.distributed.basis import settle_form
from coarse_spark.distributed.fit import brought_models, fit_responses
from coarse_spark.distributed.frames import experiment_units
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.support import experiment_support
from coarse_spark.errors import RunError
from coarse_spark.lake.contract import MODELS
from coarse_spark.lake.step_results import FitResult, ModelCounts, ValidateResult
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, fit_settings, learner_settings
from coarse_spark.pipeline.steps.validate import validate
from coarse_spark.text import shown

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
            row = kept.agg(F.min("outcome"), F.max("outcome")).collect()[0]
            outcomes = (float(row[0]), float(row[1]))
            learner = learner_settings(run.declared)
            if not learner.winsorize:  # else the fit checks what it clips
                check_range(learner.scale, *outcomes)
            brought = run.declared.responses.given
            if brought:
                choice, scale = BasisChoice(run.declared.basis), ScaleChoice(learner.scale)
            else:
                choice, scale = settle_form(kept, setup, run.declared.bases, learner, outcomes)
            _log(choice, scale)
            support = experiment_support(kept, choice.basis)
            # of what is offered: where menu.support leaves treatments out, another sentence says so
            offered = offered_space(choice.basis, support, run.declared.menu.support)
            observed = support.observed(offered)
            run.warn(*observed.problems(private=run.declared.privacy))
            run.warn(*support_problems(choice.basis, support, run.declared.menu.support))
            configuration = run.declared.with_response(basis=choice.basis.name, scale=scale.scale)
            configuration.problem_within(support)  # fewer treatments than a menu has are told now
            if brought:
                models = brought_models(run.spark, run.result(ValidateResult).usable_rows)
            else:
                models = fit_responses(kept, setup, fit_settings(configuration))
            run.replace(MODELS, models)
        run.keep(
            FitResult(
                observed_treatments=observed.values,
                outcomes=outcomes,
                support=support,
                basis=choice.basis.name,
                basis_losses=choice.losses,
                bases_left_out=choice.left_out,
                scale=scale.scale,
                scale_losses=scale.losses,
                models=_model_counts(run),
            )
        )


def _log(choice: BasisChoice, scale: ScaleChoice) -> None:
    for name, loss in sorted(choice.losses.items(), key=lambda item: item[1]):
        log.info("basis %s: held-out mean squared error %.6g", name, loss)
    for name, reason in choice.left_out.items():
        log.info("basis %s left out: %s", name, reason)
    for name, loss in sorted(scale.losses.items(), key=lambda item: item[1]):
        log.info("%s responses: held-out weighted squared error %.6g", name, loss)


def _model_counts(run: Run) -> ModelCounts:
    rows = run.lake.read("models", run.run_id).where(F.col("fold") == ALL_FOLDS)
    counts = (
        rows.groupBy("status")
        .agg(F.count_distinct("partition").alias("models"), F.sum("rows").alias("rows"))
        .collect()
    )
    models = {row["status"]: int(row["models"]) for row in counts}
    by_rows = {row["status"]: int(row["rows"]) for row in counts}
    large = F.col("rows") >= run.declared.response.min_rows
    unidentified = rows.where((F.col("status") == "pooled") & large).count()
    failed, limit = by_rows.get("failed", 0), run.declared.response.max_failed_share
    share = failed / max(run.result(ValidateResult).usable_rows, 1)
    if failed:
        worst = rows.where(F.col("status") == "failed").orderBy(F.col("rows").desc()).head(1)[0]
        sentence = (
            f"{models['failed']} partition models failed ({share:.1%} of the rows), "
            f"first {shown(worst['partition'], private=run.declared.privacy)}: {worst['error']}"
        )
        if share > limit:
            raise RunError(f"{sentence}; at most {limit:.1%} may fail (response.max_failed_share)")
        run.warn(f"{sentence}; their units are served by the pooled model")
    return ModelCounts(
        own=models.get("ok", 1) - 1,  # the pooled model is one of the fitted ones
        pooled=models.get("pooled", 0),
        unidentified=unidentified,
        failed=models.get("failed", 0),
    )
