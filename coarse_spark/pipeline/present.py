"""What a person sees of a run: its report content read back from the tables, the page, and where everything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import functions as F

from coarse_spark.core.learned_design import Overlap
from coarse_spark.errors import TableError
from coarse_spark.pipeline.limits import limits_kept
from coarse_spark.pipeline.run import Run
from coarse_spark.report.content import Changes, LackOfFit, ModelCounts, ReportContent, Stability
from coarse_spark.report.page import write_report

_DOTS, _HASHES = 1_500, 1_000_000  # units in the picture; the resolution of a share of units


def report_content(run: Run) -> ReportContent:
    """Return everything that the summary and the page say of a run whose values are estimated and whose units are assigned.

    Raises
    ------
    TableError : a step before the report has not run yet.
    """
    run.noted("curve", "choose")
    k = int(run.noted("selected_k", "evaluate"))
    overlap = run.noted("overlap", "evaluate")
    notes = run.record.diagnostics

    def table(name: str) -> pd.DataFrame:
        rows = run.lake.read(name, run.run_id).drop("run_id").toPandas()
        if rows.empty:
            raise TableError(
                f"run {run.run_id} has no rows in table '{name}'; run the step that writes it first"
            )
        return rows

    fit = notes["lack_of_fit"]
    means = {f"mean_{name}": name for name in run.configuration.space.names}
    bins = pd.DataFrame(fit["table"]).rename(
        columns={"bin": "label", "rows": "n", "standard_error": "se", **means}
    )
    return ReportContent(
        title=_title(run),
        run_id=run.run_id,
        started_at=f"{run.record.started_at:%Y-%m-%d %H:%M} UTC",
        outcome=run.configuration.experiment.outcome,
        basis=run.problem.basis,
        profit=run.problem.profit,
        experiment_units=int(notes["usable_rows"]),
        left_out_units=int(notes["experiment_rows"]) - int(notes["usable_rows"]),
        population_units=int(notes["scored_units"]),
        selected_k=k,
        selection_rule=str(notes["selection_rule"]),
        menu=table("menu"),
        policy_values=table("policy_values"),
        contrasts=table("contrasts"),
        segments=table("segments"),
        segment_theta=np.asarray(notes["curve"][str(k)]["segment_theta"], dtype=np.float64),
        fit=LackOfFit(bins, fit["statistic"], int(fit["degrees"]), fit["p_value"]),
        basis_losses=run.noted("basis", "fit")["losses"],
        overlap=None if overlap is None else Overlap(**overlap),
        models=ModelCounts(**notes["models"]),
        limits=limits_kept(notes["curve"][str(k)].get("limits")),
        own_best=_own_best(run),
        changes=None if notes.get("changes") is None else Changes(**notes["changes"]),
        stability=_stability(notes["stability"]),
        sketch=pd.DataFrame(
            [(int(size), row["value"], row["sketch_value"]) for size, row in notes["curve"].items()]
        ).set_axis(["k", "exact", "sketch"], axis=1),
        switching_cost=notes["curve"][str(k)]["switching_cost"],
        history=pd.DataFrame(notes["history"]),
        timings=run.record.step_seconds,
        warnings=tuple(run.record.warnings),
        confidence=run.configuration.evaluation.confidence,
    )


def _own_best(run: Run) -> pd.DataFrame:
    """Return what a sample of units, by hash, would get under full personalization and what they do get."""
    names = run.configuration.space.names
    share = min(_DOTS / int(run.noted("scored_units", "score")), 1.0)
    chosen = F.pmod(F.xxhash64(F.col("unit_id").cast("string")), F.lit(_HASHES)) < round(
        share * _HASHES
    )
    own = run.lake.read("responses", run.run_id).where(chosen)
    given = run.lake.read("assignments", run.run_id).where(chosen).select("unit_id", "treatment_id")
    best = [F.col(f"best_{name}").alias(name) for name in names]
    rows = own.select("unit_id", *best).join(given, "unit_id").toPandas()
    return rows.sort_values("unit_id", ignore_index=True).drop(columns="unit_id")


def _stability(note: dict[str, Any]) -> Stability:
    return Stability(
        pd.DataFrame(note["table"]), note["folds"], note["resamples"], note["expected_loss"]
    )


def _title(run: Run) -> str:
    source: Any = run.configuration.experiment
    name = str(source.bundled or source.table or Path(str(source.path)).name)
    return f"{' and '.join(run.configuration.space.names)} on {name}"


def report(run: Run, content: ReportContent, path: Path | None = None) -> Path:
    """Write the page and return where it is: ``path``, or report.html in the output folder (or here, where that is not local)."""
    if path is None:
        folder = run.lake.path
        path = (
            Path(folder) / "report.html"
            if folder is not None and "://" not in folder
            else Path("report.html")
        )
    return write_report(content, path)
