"""What a run must keep before readers may see it, looked up in the tables themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.menu.population import may_be_offered
from coarse_spark.distributed.at_once import for_each
from coarse_spark.distributed.frames import population_units
from coarse_spark.distributed.published import assigned_treatments, segment_sums, unit_set
from coarse_spark.distributed.score import fitted_partitions
from coarse_spark.errors import RunError
from coarse_spark.lake.runs import RunRecord, published_runs
from coarse_spark.lake.step_results import (
    AssignResult,
    ChooseResult,
    EvaluateResult,
    FitResult,
    LimitsKept,
    NewUnits,
    ScoreResult,
)
from coarse_spark.pipeline.limits import deciding_menu
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.rules import profit_responses
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.settings import experiment_setup, unit_weight
from coarse_spark.text import counted

_NUMBERS = ("expected_profit", "expected_incremental_profit", "regret")


def check_publishable(run: Run, *, population: bool = True) -> None:
    """Check that the tables of a run are whole, belong together and keep what was promised.

    Every unit of the population has one treatment, one of the selected menu, which the space
    allows; no value is missing or infinite; limits are kept to the unit; every table holds what its
    step left there; the honest value is not below that of the current run by more than
    ``evaluation.max_loss_to_current``.

    Parameters
    ----------
    run : with the results of all steps up to ``assign``.
    population : whether to compare with the population's table as well, which may be gone long
        after the run.

    Raises
    ------
    RunError : one of that does not hold; every problem is named.
    TableError : a step has not run yet.
    """
    assigned, chosen = run.result(AssignResult), run.result(ChooseResult)
    menus = read_menus(run.lake, run.run_id)
    menu = menus[menus["selected"]].reset_index(drop=True)
    later = run.record.results.get(NewUnits.step)
    units = run.result(ScoreResult).units + (later.added if isinstance(later, NewUnits) else 0)
    assignments = run.lake.read("assignments", run.run_id)
    responses = run.lake.read("responses", run.run_id)
    names = list(run.configuration.space.names)
    groups = assigned_treatments(assignments, names, _NUMBERS)
    problems = [
        *_units(run, assignments, responses, units, population=population),
        *_menu(run, menu, assigned.k),
        *_treatments(groups, menu, names),
        *_chain(run, groups),
    ]
    limits = chosen.menus[assigned.k].limits if assigned.k in chosen.menus else None
    if limits is not None and not problems:
        problems += _limits(run, menu, limits, assignments, responses)
    problems += _value(run)
    if problems:
        raise RunError(
            f"run {run.run_id} cannot be published: {'; '.join(problems)}; nothing was published"
        )


def _units(
    run: Run, assignments: DataFrame, responses: DataFrame, units: int, *, population: bool
) -> list[str]:
    if run.record.final:
        # a crash while units were added may have left responses that nobody sees
        responses = responses.join(assignments.select("unit_id"), "unit_id", "left_semi")
    tables = [assignments, responses]
    if population:
        table = run.experiment if run.population is None else run.population
        setup, weight = experiment_setup(run.configuration), unit_weight(run.configuration)
        tables.append(population_units(table, setup, weight))
    given, *others = for_each(run.spark, tables, unit_set)
    problems = []
    # ... or assignments that the record does not count yet
    if given.units < units or (given.units > units and not run.record.final):
        problems.append(f"{given.units} units have an assignment, expected {units}")
    elif given != others[0]:
        problems.append("table 'assignments' is about other units than 'responses', or some twice")
    elif given != others[-1]:
        problems.append("the assignments are not those of the population's units, each once")
    return problems


def _menu(run: Run, menu: pd.DataFrame, k: int) -> list[str]:
    if len(menu) != k or menu["treatment_id"].tolist() != list(range(k)):
        return [
            f"the selected menu has {len(menu)} treatments, expected the {k} that were assigned"
        ]
    problem, required = run.problem, run.declared.always_offered
    rows = problem.space.encode(menu)
    allowed = [
        may_be_offered(problem, row)
        or (required is not None and bool((required == row).all(axis=1).any()))
        for row in rows
    ]
    return (
        [] if all(allowed) else [f"treatment {allowed.index(False)} is outside the declared space"]
    )


def _treatments(groups: pd.DataFrame, menu: pd.DataFrame, names: list[str]) -> list[str]:
    problems = []
    known = menu[["treatment_id", *names]]
    strangers = groups.merge(known, on=["treatment_id", *names], how="left", indicator=True)
    count = int(strangers.loc[strangers["_merge"] == "left_only", "units"].sum())
    if count:
        problems.append(
            f"{counted(count, 'unit has', 'units have')} a treatment that is not on the selected "
            "menu"
        )
    unfit = int(groups["unfit"].sum())
    if unfit:
        problems.append(
            f"{counted(unfit, 'unit has', 'units have')} a profit that is missing or infinite"
        )
    return problems


def _chain(run: Run, groups: pd.DataFrame) -> list[str]:
    """Yield where a table does not hold what the step that wrote it says that it found."""
    lake, problems = run.lake, []
    models = run.result(FitResult).models
    rows = lake.read("models", run.run_id).where(F.col("fold") == ALL_FOLDS)
    fitted = fitted_partitions(rows, len(run.problem.of_profit.outcomes)).count()
    expected = 0 if run.declared.responses.given else models.own + 1  # the pooled one
    if fitted != expected:
        problems.append(f"table 'models' has {fitted} fitted partitions, expected {expected}")
    sizes = groups.groupby("treatment_id")["units"].sum()
    segments = lake.read("segments", run.run_id).select("treatment_id", "size").toPandas()
    added = sizes.sub(segments.set_index("treatment_id")["size"], fill_value=0)
    # segments are described once, before units are added
    if (added < 0).any() or (added.any() and not run.record.final):
        problems.append("table 'segments' counts other units than 'assignments' has")
    if EvaluateResult.step in run.record.results:
        names = ("policy_values", "contrasts")
        first = for_each(run.spark, names, lambda name: lake.read(name, run.run_id).head(1))
        problems += [
            f"table '{name}' is empty, expected what 'evaluate' found"
            for name, rows in zip(names, first, strict=True)
            if not rows
        ]
    return problems


def _limits(
    run: Run,
    menu: pd.DataFrame,
    kept: LimitsKept,
    assignments: DataFrame,
    responses: DataFrame,
) -> list[str]:
    problem = run.search_settings().posed(run.problem)
    priced = deciding_menu(problem, menu, kept)
    with_factors = profit_responses(run, responses)
    sums = segment_sums(assignments, with_factors, len(menu), run.problem.coefficients)
    heaviest = responses.agg(F.max("weight")).collect()[0][0]
    slack = heaviest / sums.weight.sum() * (1 + 1e-9) + 1e-12  # shares hold to the weight of a unit
    problems = []
    low, high = np.array(kept.min_share), np.array(kept.max_share)
    for treatment, share in enumerate(sums.shares):
        if not low[treatment] - slack <= share <= high[treatment] + slack:
            problems.append(
                f"treatment {treatment} has a share of {share:.6g}, expected "
                f"{low[treatment]:.6g} to {high[treatment]:.6g}"
            )
    for total in priced.totals_kept(problem, sums):
        over = (total.used - total.allowed) * (1.0 if total.at_most else -1.0)
        if over > 1e-9 * max(abs(total.allowed), 1.0):
            side = "most" if total.at_most else "least"
            problems.append(
                f"{total.used:.6g} a unit counts for the limit {total.name}, expected at {side} "
                f"{total.allowed:.6g}"
            )
    return problems


def _value(run: Run) -> list[str]:
    margin = run.declared.evaluation.max_loss_to_current
    current = next((name for name in published_runs(run.lake) if name != run.run_id), None)
    if margin is None or current is None:
        return []
    before = RunRecord.load(run.lake, current).results.get(AssignResult.step)
    if not isinstance(before, AssignResult):
        return []
    found = {
        name: run.lake.read("policy_values", name)
        .where((F.col("policy") == result.policy) & (F.col("k") == result.k))
        .select("value")
        .collect()
        for name, result in ((run.run_id, run.result(AssignResult)), (current, before))
    }
    if not all(found.values()):
        return ["evaluation.max_loss_to_current needs honest values; run the step 'evaluate'"]
    (mine,), (theirs,) = (rows[0] for rows in found.values())
    if mine < theirs - margin:
        return [
            f"its honest value {mine:.6g} is below that of the current run {current}, "
            f"{theirs:.6g}, by more than evaluation.max_loss_to_current = {margin:g}"
        ]
    return []
