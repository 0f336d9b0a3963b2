"""Check the tables against the configuration."""

from __future__ import annotations

import logging

from coarse_spark.lake.inputs import NOT_PINNED, input_name
from coarse_spark.lake.step_results import ValidateResult
from coarse_spark.pipeline.rules import find_previous
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import check_tables, sources

log = logging.getLogger(__name__)


def validate(run: Run) -> None:
    """Check the tables against the configuration, before anything is computed."""
    with run.step("validate"):
        report = check_tables(run.declared, run.experiment, run.population, run.responses)
        run.warn(*report.warnings, *_not_pinned(run))
        run.keep(
            ValidateResult(
                experiment_rows=report.rows,
                usable_rows=report.usable_rows,
                population_rows=report.population_rows,
                partitions=report.partitions,
                clusters=report.clusters,
                previous_run=find_previous(run),
            )
        )
        log.info(
            "%d of %d experiment rows usable, %d units to serve",
            report.usable_rows,
            report.rows,
            report.population_rows,
        )


def _not_pinned(run: Run) -> list[str]:
    return [
        f"{label}: nothing tells whether {input_name(source)} changes while the run lasts; a Delta "
        "table is read as it was when the run started"
        for label, source in sources(run.declared).items()
        if run.record.inputs[input_name(source)] == NOT_PINNED
    ]
