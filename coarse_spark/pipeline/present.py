"""What a person sees of a run: its report read back from the tables, and where the page is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pyspark.sql import functions as F

from coarse_spark.address import is_local
from coarse_spark.distributed.frames import column, unit_hash
from coarse_spark.errors import TableError
from coarse_spark.lake.inputs import input_name
from coarse_spark.lake.step_results import (
    AssignResult,
    ChooseResult,
    EvaluateResult,
    FitResult,
    ScoreResult,
    ValidateResult,
)
from coarse_spark.pipeline.run import Run
from coarse_spark.report.content import ReportContent
from coarse_spark.report.money import Money
from coarse_spark.report.page import write_report
from coarse_spark.text import redact

_DOTS, _HASHES = 1_500, 1_000_000  # units in the picture; the resolution of a share of units


def report_content(run: Run) -> ReportContent:
    """Return everything that the summary and the page say of a run.

    Raises
    ------
    TableError : a step before the report has not run yet, or not since another size was selected.
    """

    def table(name: str) -> pd.DataFrame:
        rows = run.lake.read(name, run.run_id).drop("run_id").toPandas()
        if rows.empty:
            raise TableError(
                f"run {run.run_id} has no rows in table '{name}'; run the step that writes it first"
            )
        return rows

    chosen, evaluated = run.result(ChooseResult), run.result(EvaluateResult)
    assigned = run.result(AssignResult)
    if assigned.k != evaluated.k:
        raise TableError(
            f"run {run.run_id} has assignments of its menu of {assigned.k}, but the menu of "
            f"{evaluated.k} is selected; run the step 'assign' first"
        )
    return ReportContent(
        title=_title(run),
        run_id=run.run_id,
        started_at=f"{run.record.started_at:%Y-%m-%d %H:%M} UTC",
        outcome=run.configuration.experiment.outcome,
        basis=run.problem.basis,
        profit=run.problem.profit,
        validated=run.result(ValidateResult),
        fitted=run.result(FitResult),
        scored=run.result(ScoreResult),
        chosen=chosen,
        evaluated=evaluated,
        assigned=assigned,
        menu=table("menu"),
        policy_values=table("policy_values"),
        contrasts=table("contrasts"),
        segments=table("segments"),
        own_best=_own_best(run),
        timings=run.record.step_seconds,
        warnings=tuple(run.record.warnings),
        confidence=run.configuration.evaluation.confidence,
        design=run.configuration.design.kind,
        money=Money(run.declared.profit.currency or "", run.declared.profit.per),
        population_given=run.declared.population.given,
        brought=" and ".join(map(input_name, run.declared.responses.sources.values())),
    )


def _own_best(run: Run) -> pd.DataFrame:
    """Return what a sample of units, by hash, would get one by one and what they do get."""
    names = run.configuration.space.names
    share = min(_DOTS / run.result(ScoreResult).units, 1.0)
    hashed = F.pmod(unit_hash(), F.lit(_HASHES))
    chosen = hashed < round(share * _HASHES)
    own = run.lake.read("responses", run.run_id).where(chosen)
    given = run.lake.read("assignments", run.run_id).where(chosen).select("unit_id", "treatment_id")
    best = [column(f"best_{name}").alias(name) for name in names]
    rows = own.select("unit_id", *best).join(given, "unit_id").toPandas()
    return rows.sort_values("unit_id", ignore_index=True).drop(columns="unit_id")


def _title(run: Run) -> str:
    source = run.configuration.experiment
    name = str(source.bundled or source.table or Path(redact(str(source.path))).name)
    return f"{' and '.join(run.configuration.space.names)} on {name}"


def report(run: Run, content: ReportContent, path: Path | None = None) -> Path:
    """Write the page and return where it is.

    Parameters
    ----------
    run : the run.
    content : what the page says.
    path : by default report.html in the output folder, or here where that is not local.
    """
    if path is None:
        folder = run.lake.path
        path = (
            Path(folder) / "report.html"
            if folder is not None and is_local(folder)
            else Path("report.html")
        )
    return write_report(content, path)
