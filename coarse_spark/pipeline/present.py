"""What a person sees of a run: its report read back from the tables, and where the page is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pyspark.sql import functions as F

from coarse_spark.address import is_local, local_path, mount, resolved
from coarse_spark.config.models import Configuration
from coarse_spark.distributed.frames import column, unit_hash
from coarse_spark.errors import InvalidInputError, TableError
from coarse_spark.lake.contract import RUNS
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
from coarse_spark.pipeline.steps.frontier import frontier_table
from coarse_spark.report.content import ReportContent
from coarse_spark.report.frontier import Frontier, frontiers_of
from coarse_spark.report.money import Money
from coarse_spark.report.page import write_report
from coarse_spark.text import redact

_PAGE = "report.html"
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
        outcome=" and ".join(run.configuration.experiment.outcomes),
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
        totals=run.configuration.limits.totals,
        money=_money(run),
        population_given=run.declared.population.given,
        frontier=frontier_table(run),
        brought=" and ".join(map(input_name, run.declared.responses.sources.values())),
    )


def frontiers(run: Run) -> list[Frontier]:
    """Return the frontiers that a run was asked for, the last of everything that moves."""
    confidence = run.configuration.evaluation.confidence
    return frontiers_of(frontier_table(run), _money(run), confidence)


def _money(run: Run) -> Money:
    return Money(run.declared.profit.currency or "", run.declared.profit.per)


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


def asked_page(configuration: Configuration, place: str | None = None) -> Path | None:
    """Return the file that somebody wants the page in, None where nobody says.

    Parameters
    ----------
    configuration : its ``output.page`` is a folder.
    place : a file, which comes first.

    Raises
    ------
    InvalidInputError : programs of this machine do not reach it.
    """
    if place is None:
        folder = configuration.output.page
        if folder is None:
            return None
        place, label = f"{folder}/{_PAGE}", "output.page"
    else:
        label = "--report"
    path = local_path(resolved(place))
    if path is None:
        raise InvalidInputError(
            f"{label}: programs of this machine cannot write {redact(place)}; expected a local "
            "path, /Volumes/catalog/schema/volume/… or dbfs:/…"
        )
    needed = mount(path)
    if needed is not None and not Path(needed).is_dir():
        raise InvalidInputError(
            f"{label}: {path} cannot be written, because this machine has no {needed}; expected a "
            "local path, or a Volume that the session may write"
        )
    return Path(path)


def report(run: Run, content: ReportContent, path: Path | None = None) -> Path | None:
    """Write the page and return where it is, None where there is no place for it.

    Never in the working directory: jobs are not promised one that lasts.

    Parameters
    ----------
    run : the run.
    content : what the page says.
    path : by default report.html in ``output.page``, or in the folder of the tables where they are
        on this machine.

    Raises
    ------
    InvalidInputError : the page cannot be written there.
    """
    path = path or asked_page(run.declared)
    if path is None:
        folder = run.lake.path
        # Spark may find a path without a scheme on a file system of its own
        if folder is None or not is_local(folder) or not (Path(folder) / RUNS.name).is_dir():
            return None
        path = Path(folder) / _PAGE
    return write_report(content, path)
