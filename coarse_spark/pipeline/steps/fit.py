"""Fit response models."""

from __future__ import annotations

import logging

from pyspark.sql import functions as F

from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.distributed.basis import settle_basis
from coarse_spark.distributed.fit import fit_responses
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.units import experiment_units, observed_treatments
from coarse_spark.errors import RunError
from coarse_spark.lake.schemas import MODELS
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.steps.validate import validate

log = logging.getLogger(__name__)


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
            observed = observed_treatments(kept, run.configuration.space)
            run.note(observed_treatments=observed.values)
            run.warn(*observed.problems())
            run.settle_basis(settle_basis(kept, run.declared))
            run.lake.replace(MODELS, run.run_id, fit_responses(run.spark, kept, run.configuration))
        run.note(models=_model_counts(run))


def _model_counts(run: Run) -> dict[str, int]:
    rows = run.lake.read("models", run.run_id).where(F.col("fold") == ALL_FOLDS)
    counts = (
        rows.groupBy("status")
        .agg(F.count("*").alias("models"), F.sum("rows").alias("rows"))
        .collect()
    )
    models = {row["status"]: int(row["models"]) for row in counts}
    by_rows = {row["status"]: int(row["rows"]) for row in counts}
    failed, limit = by_rows.get("failed", 0), run.configuration.response.max_failed_share
    share = failed / max(int(run.noted("usable_rows", "fit")), 1)
    if failed:
        worst = rows.where(F.col("status") == "failed").orderBy(F.col("rows").desc()).head(1)[0]
        sentence = f"{models['failed']} partition models failed ({share:.1%} of the rows), first {worst['partition']}: {worst['error']}"
        if share > limit:
            raise RunError(f"{sentence}; at most {limit:.1%} may fail (response.max_failed_share)")
        run.warn(f"{sentence}; their units are served by the pooled model")
    # the pooled model is one of the fitted ones
    return {
        "own": models.get("ok", 1) - 1,
        "pooled": models.get("pooled", 0),
        "failed": models.get("failed", 0),
    }
