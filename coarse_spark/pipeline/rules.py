"""The rules of a run: who is eligible for what, and what units had under an earlier run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.config.models import Configuration
from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.menu.population import may_be_offered
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import Switching
from coarse_spark.distributed.coefficients import with_coefficients
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.rules import changed, with_eligibility, with_previous, with_rules
from coarse_spark.errors import InvalidInputError, RunError, TableError, nearest
from coarse_spark.lake.runs import PRUNED, RunRecord, current_run
from coarse_spark.lake.step_results import Changes, ValidateResult
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.run import Run
from coarse_spark.text import counted

log = logging.getLogger(__name__)

CURRENT = "current"
_KNOWN_RUNS = 1_000  # run ids that a misspelt one is compared with


@dataclass(frozen=True, eq=False)
class PreviousMenu:
    """The published menu of an earlier run.

    Attributes
    ----------
    run_id : of that run.
    treatments : (l, d) encoded, by treatment_id; NaN where a level is no longer declared.
    shares : (l,) of its population.
    offered : (l,) which of them may still be offered.
    """

    run_id: str
    treatments: FloatArray
    shares: FloatArray
    offered: BoolArray


@dataclass(frozen=True, eq=False)
class PopulationRules:
    """The population with the rules that hold for it.

    Attributes
    ----------
    population : table ``responses`` with the coefficients of the rules as further columns theta_p
        …, and with ``distributed.rules.PREVIOUS`` where there is an earlier run; its problem is the
        run's with the rules.
    previous : the earlier menu.
    """

    population: ResponseTable
    previous: PreviousMenu | None

    @property
    def problem(self) -> MenuProblem:
        """The run's problem with its rules."""
        return self.population.problem

    @property
    def start(self) -> FloatArray | None:
        """Treatments of the earlier menu that may still be offered, the most used first."""
        if self.previous is None or not self.previous.offered.any():
            return None
        order = np.argsort(-self.previous.shares, kind="stable")
        return np.asarray(self.previous.treatments[order[self.previous.offered[order]]])

    def changed(self, treatments: FloatArray) -> Column | None:
        """Return whether a unit's treatment of a menu (k, d) differs from its earlier one.

        None without an earlier run.
        """
        if self.previous is None:
            return None
        return changed(self.previous.treatments, treatments, self.problem.space)


def written_rules(configuration: Configuration) -> list[str]:
    """Return the columns of table ``responses`` that say who is eligible."""
    return [f"eligible_{name}" for name in configuration.menu.eligibility]


def find_previous(run: Run) -> str | None:
    """Return the run that ``menu.previous_run`` names, having checked that it can be compared.

    Raises
    ------
    TableError : there is no such run, or it has no selected menu, or one of other treatments.
    """
    wanted = run.declared.menu.previous_run
    found = current_run(run.lake) if wanted == CURRENT else wanted
    if wanted == CURRENT and found is None:
        log.info(
            "menu.previous_run is current, but nothing is published yet: "
            "this run has no earlier one"
        )
    if found is not None:
        _published_menu(run, found)
    return found


def previous_menu(run: Run) -> PreviousMenu | None:
    """Return the menu of the earlier run that ``find_previous`` found, None without one.

    A published run goes on without one that was pruned since.
    """
    run_id = run.result(ValidateResult).previous_run
    if run_id is None:
        return None
    if run.record.final and _is_pruned(run, run_id):
        run.warn(
            f"run {run_id}, which menu.previous_run names, was pruned: units that join later count "
            "as without an earlier treatment"
        )
        return None
    rows = _published_menu(run, run_id)
    treatments = np.vstack([_encoded(run, rows.iloc[[position]]) for position in range(len(rows))])
    offered = [
        bool(np.isfinite(row).all()) and may_be_offered(run.problem, row) for row in treatments
    ]
    return PreviousMenu(
        run_id, treatments, rows["share"].to_numpy(np.float64), np.array(offered, dtype=bool)
    )


def _is_pruned(run: Run, run_id: str) -> bool:
    found = RunRecord.find(run.lake, run_id, results=False)
    return found is not None and found.status == PRUNED


def _published_menu(run: Run, run_id: str) -> pd.DataFrame:
    """Return the selected menu of another run, by treatment_id."""
    if run_id == run.run_id:
        raise InvalidInputError(
            f"menu.previous_run: found '{run_id}', which is this run itself, "
            "expected an earlier one"
        )
    place = f"menu.previous_run: run '{run_id}'"
    menus = read_menus(run.lake, run_id) if run.lake.exists("menu") else None
    rows = None if menus is None else menus[menus["selected"]]
    if rows is None or rows.empty or not run.lake.exists("assignments"):
        known = [
            row["run_id"]
            for row in run.lake.read("runs").select("run_id").limit(_KNOWN_RUNS).collect()
        ]
        raise TableError(
            f"{place} has no selected menu and assignments in {run.lake.reference('menu')}"
            f"{nearest(run_id, known)}"
        )
    missing = [
        name for name in run.declared.space.names if name not in rows or rows[name].isna().all()
    ]
    if missing:
        raise TableError(
            f"{place} has no treatment '{missing[0]}'; "
            "assignments of other treatments cannot be compared"
        )
    return rows


def _encoded(run: Run, row: pd.DataFrame) -> FloatArray:
    try:
        return run.declared.space.encode(row)
    except InvalidInputError:  # a level of the earlier run that is no longer one
        return np.full((1, len(run.declared.space.names)), np.nan)


def profit_responses(
    run: Run, responses: DataFrame | None = None, problem: MenuProblem | None = None
) -> DataFrame:
    """Return responses with all coefficients that profit is linear in, by default all of a run."""
    if responses is None:
        responses = run.lake.read("responses", run.run_id)
    return with_coefficients(responses, (run.problem if problem is None else problem).of_profit)


def population_rules(
    run: Run, responses: DataFrame | None = None, problem: MenuProblem | None = None
) -> PopulationRules:
    """Return responses with everything that rules need to know of a unit.

    Parameters
    ----------
    run : whose rules they are.
    responses : rows of its table; by default all.
    problem : that says which coefficients units need, without rules; default: the run's.
    """
    configuration = run.configuration
    problem = run.problem if problem is None else problem
    responses = profit_responses(run, responses, problem)
    size = problem.coefficients
    eligibility, cost = configuration.menu.eligibility, configuration.menu.switching_cost
    written = written_rules(configuration)
    rules = dict(zip(written, eligibility.values(), strict=True))
    problem = with_eligibility(problem, responses, rules)
    previous, kept = previous_menu(run), np.empty(0, dtype=np.intp)
    if previous is not None:
        responses = with_previous(responses, run.lake.read("assignments", previous.run_id))
        if cost > 0:
            # units whose treatment is no longer offered switch whatever they get: that decides
            # nothing
            kept = np.flatnonzero(previous.offered)
            rows = list(previous.treatments[kept])
            problem = problem.with_rules([Switching(row, cost) for row in rows], rows)
    responses = with_rules(responses, size, written, kept.tolist())
    return PopulationRules(ResponseTable(responses, problem), previous)


def count_changes(run: Run, rules: PopulationRules) -> Changes | None:
    """Return how many units got another treatment than in the earlier run, None without one.

    Raises
    ------
    RunError : units that are eligible for no treatment of the menu.
    """
    if not rules.problem.rules and rules.previous is None:
        return None
    landed = run.lake.read("assignments", run.run_id)
    row = landed.agg(
        F.count("*").alias("units"),
        F.count("treatment_id").alias("assigned"),
        F.count("changed").alias("had"),
        F.sum(F.col("changed").cast("long")).alias("changed"),
    ).collect()[0]
    if row["assigned"] < row["units"]:
        raise RunError(
            f"{counted(row['units'] - row['assigned'], 'unit')} may get none of the treatments of "
            "the menu because of menu.eligibility; allow larger sizes, or add a treatment that "
            "everyone may get to menu.always_offer"
        )
    if rules.previous is None:
        return None
    changes = Changes(
        previous_run=rules.previous.run_id,
        units=row["had"],
        changed=row["changed"] or 0,
        new=row["units"] - row["had"],
    )
    log.info(
        "%d of %d units get another treatment than in run %s",
        changes.changed,
        changes.units,
        changes.previous_run,
    )
    return changes
