"""The frontiers of a run: menus of its size at other budgets, or by another worth of an outcome.

The menus of all points are chosen on one sketch of the population, and of every fold; one read of
the population, two where limits need prices, and one of the experiment value them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from coarse_spark import progress
from coarse_spark.config.models import Configuration
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.frontier import (
    SPENDING,
    FrontierPoint,
    Measures,
    bounded,
    budget_points,
    budget_price,
    control_menu,
    frontier_maps,
    frontier_menus,
    frontier_policies,
    frontier_values,
    least_spending,
    sensible_budgets,
    spending_at,
    trade_off_points,
)
from coarse_spark.core.menu.choose import with_tie_break
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import BUDGET
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.lloyd import ValuedMenu
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.search.steps import PricedPass, kept
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, segment_sums
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.distributed.evaluate import FoldMenus, held_out
from coarse_spark.distributed.evaluate import evaluate as evaluate_policies
from coarse_spark.distributed.frames import theta_columns
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.sketch import sketches
from coarse_spark.errors import InvalidInputError
from coarse_spark.lake.step_results import ChooseResult, EvaluateResult, FitResult, Sweep
from coarse_spark.pipeline.experiment import cross_fitted
from coarse_spark.pipeline.limits import deciding_menu
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.rules import population_rules
from coarse_spark.pipeline.run import Run
from coarse_spark.pipeline.steps.evaluate import treatment_bins


@dataclass(frozen=True, eq=False)
class _Frontier:
    """One frontier on the population.

    Attributes
    ----------
    sweep : its name.
    points : in their order.
    menus : by place in the table, the control first where it has one.
    shares : of the population, by menu and treatment.
    plug_in : what its responses say of every menu, by measure.
    """

    sweep: Sweep
    points: Sequence[FrontierPoint]
    menus: Sequence[PricedMenu]
    shares: Sequence[list[float]]
    plug_in: Sequence[Mapping[str, float]]

    @property
    def of_budget(self) -> bool:
        """Whether the budget moves; such a frontier begins at the control."""
        return self.sweep.moved == BUDGET


def wanted_sweeps(run: Run) -> tuple[Sweep, ...]:
    """Return the frontiers that the configuration asks for: of budgets where it says nothing.

    Names tell those of other points, of other spending, or of a run whose menus were chosen again,
    apart.
    """
    asked, k = run.declared.frontier, run.result(EvaluateResult).k
    chosen, spending = run.result(ChooseResult), run.declared.spending

    def sweep(moved: str, points: Sequence[float]) -> Sweep:
        told = [moved, list(points), k, chosen.control_value, chosen.menus[k].value]
        told += [spending.margin, spending.cost]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
        return Sweep(name=f"{moved}, {name}", moved=moved, k=k)

    found = []
    if asked.budgets or not asked.weights:
        found.append(sweep(BUDGET, asked.budgets))
    if asked.weights:
        found.append(sweep(f"weight of {_traded(run.declared)}", asked.weights))
    return tuple(found)


def frontier_rows(run: Run, sweeps: Sequence[Sweep]) -> pd.DataFrame:
    """Return the rows of table ``frontier``.

    Raises
    ------
    InvalidInputError : budgets that no menu keeps, or nothing that counts as spending.
    """
    problem = _problem(run)
    frontiers = _on_population(run, problem, sweeps)
    configuration = run.configuration
    folds, cells = range(configuration.response.folds), configuration.menu.sketch_cells
    with cross_fitted(run, problem) as experiment:
        measures = Measures(experiment.problem, configuration.experiment.outcomes)
        sketched = sketches(experiment.chosen_on, measures.problem, cells=cells, groups=list(folds))
        menus = {
            fold: [
                menu
                for one in frontiers
                for menu in _chosen(run, measures.problem, sketch.units, one, f"{fold}")
            ]
            for fold, sketch in progress.each("frontiers of fold", sketched.items())
        }
        count = sum(len(one.menus) for one in frontiers)
        result = evaluate_policies(
            held_out(experiment.predictions),
            measures.problem,
            policies=frontier_policies(measures.names, count, sweeps[0].k),
            fold_menus={
                fold: FoldMenus(found[0], {}, frontier_maps(measures, found))
                for fold, found in menus.items()
            },
            bins=treatment_bins(experiment.units, configuration),
            center=np.array([v for one in frontiers for row in one.plug_in for v in row.values()]),
        )
    confidence, start, frames = configuration.evaluation.confidence, 0, []
    for one in frontiers:
        size = len(one.menus) * len(measures.names)
        moments = result.moments.of_some(slice(start, start + size))
        values = frontier_values(measures.names, moments, confidence)
        frames.append(_rows(one, values, measures.problem.space).assign(n=result.moments.units))
        start += size
    return pd.concat(frames, ignore_index=True)


def _problem(run: Run) -> MenuProblem:
    """Return the run's problem that knows what counts as spending, without rules."""
    configuration = run.configuration
    totals = bounded(configuration.limits, configuration.spending, 0.0).totals
    problem = configuration.problem_within(run.result(FitResult).support, totals)
    problem = problem.with_totals(totals)
    if problem.of_profit.factors != run.problem.of_profit.factors:
        raise InvalidInputError(
            "frontier: what menu.spending_per_unit and menu.spending_per_outcome multiply of "
            "profit.unit_columns is not in the run's table responses, because it has no "
            "menu.budget; give it one, as large as nobody reaches, and start a new run"
        )
    return problem


def _traded(configuration: Configuration) -> str:
    return configuration.frontier.outcome or configuration.experiment.outcomes[0]


def _points(
    run: Run, sweep: Sweep, problem: MenuProblem, units: WeightedUnits
) -> list[FrontierPoint]:
    """Return the points of a frontier; ``units`` tell which budgets are sensible."""
    configuration, limits = run.configuration, run.declared.limits
    profit, asked = configuration.profit_function, configuration.frontier
    if sweep.moved != BUDGET:
        position = configuration.experiment.outcomes.index(_traded(configuration))
        return trade_off_points(profit, limits, profit.outcomes[position], asked.weights)
    if SPENDING not in Measures(problem, configuration.experiment.outcomes).names:
        sensible_budgets(0.0, 0.0)  # nothing is spent, whatever is offered
    spending, budgets = configuration.spending, list(asked.budgets)
    if not budgets:
        free = replace(run.search_settings(), limits=bounded(limits, spending, np.inf))
        menu = search_menus(problem, units, [sweep.k], free)[sweep.k]
        sums = segment_sums(units.theta, units.weights, {0: menu.priced_psi})[0]
        spent = sums.value(spending_at(problem, menu.treatments))
        budgets = sensible_budgets(least_spending(problem, units), spent)
    return budget_points(profit, limits, spending, budgets)


def _chosen(
    run: Run, problem: MenuProblem, units: WeightedUnits, one: _Frontier, fold: str
) -> list[PricedMenu]:
    """Return the menus of a frontier as chosen without a fold."""
    try:
        menus = _search(run, problem, units, one.points, one.sweep.k, None)
    except InvalidInputError as error:
        raise InvalidInputError(f"frontier, without fold {fold}: {error}") from error
    return [*([control_menu(problem)] if one.of_budget else []), *menus]


def _search(
    run: Run,
    problem: MenuProblem,
    units: WeightedUnits,
    points: Sequence[FrontierPoint],
    k: int,
    start: FloatArray | None,
) -> list[PricedMenu]:
    settings = run.search_settings(start)
    return frontier_menus(points, problem, units, run.configuration.menu.sizes, k, settings)


def _on_population(run: Run, problem: MenuProblem, sweeps: Sequence[Sweep]) -> list[_Frontier]:
    """Choose the menus of all points on a sketch of the population, and read it for their sums."""
    rules = population_rules(run, problem=problem)
    names = theta_columns(rules.problem.coefficients)
    with materialized(rules.population.rows.select("unit_id", "weight", *names)) as rows:
        # limits may have to divide units that respond alike
        population = replace(rules.population, rows=rows).told_apart()
        problem = population.problem
        units = population.sketch(run.configuration.menu.sketch_cells).units
        points = {sweep.name: _points(run, sweep, problem, units) for sweep in sweeps}
        menus: dict[int, PricedMenu] = {}
        places: dict[str, range] = {}
        for sweep in sweeps:
            start = len(menus)
            own = _own_menu(run, problem, sweep.k)
            try:
                found = _search(run, problem, units, points[sweep.name], sweep.k, own.treatments)
            except InvalidInputError as error:
                raise InvalidInputError(f"frontier: {error}") from error
            found = [
                own if point.current else menu
                for point, menu in zip(points[sweep.name], found, strict=True)
            ]
            first = [control_menu(problem)] if sweep.moved == BUDGET else []
            menus |= dict(enumerate([*first, *found], start))
            places[sweep.name] = range(start, len(menus))
        priced, sums = _priced(population, menus, units)
    measures = Measures(problem, run.configuration.experiment.outcomes)
    plug_in = {place: measures.plug_in(menu, sums[place]) for place, menu in priced.items()}
    return [
        _Frontier(
            sweep,
            points[sweep.name],
            [priced[place] for place in places[sweep.name]],
            [sums[place].shares.tolist() for place in places[sweep.name]],
            [plug_in[place] for place in places[sweep.name]],
        )
        for sweep in sweeps
    ]


def _own_menu(run: Run, problem: MenuProblem, k: int) -> PricedMenu:
    """Return the run's own menu as it was chosen, at the prices that decide who gets what."""
    rows, limits = read_menus(run.lake, run.run_id), run.result(ChooseResult).menus[k].limits
    rows = rows[rows["k"] == k]
    if limits is not None:
        return deciding_menu(run.search_settings().posed(problem), rows, limits)
    return PricedMenu.build(problem, problem.space.encode(rows))


def _priced(
    population: ResponseTable, menus: Mapping[int, PricedMenu], units: WeightedUnits
) -> tuple[dict[int, PricedMenu], dict[int, SegmentSums]]:
    """Return menus at prices that keep their limits on the population, nearly, and their sums."""
    if all(menu.free for menu in menus.values()):
        return dict(menus), population.sums(menus)[0]
    menus = with_tie_break(population.problem, menus, units)
    pricing = PricedPass(lambda found: population.sums(found)[0], population.sample())
    priced = {place: kept(pricing.priced(menu), menu) for place, menu in menus.items()}
    sums = population.sums(priced)[0]
    again = {
        place: kept(
            pricing.priced(menu, ValuedMenu(menu, sums[place], menu.lagrangian(sums[place]))), menu
        )
        for place, menu in priced.items()
    }
    return again, population.sums(again)[0]


def _rows(one: _Frontier, values: pd.DataFrame, space: TreatmentSpace) -> pd.DataFrame:
    """Return the rows of one frontier, ``values`` being the honest ones."""
    at = [point.at for point in one.points]
    current = [point.current for point in one.points]
    if one.of_budget:
        at, current = [np.nan, *at], [False, *current]
    plug_in = [value for row in one.plug_in for value in row.values()]
    place = values["point"].to_numpy()
    priced = one.of_budget or one.points[0].limits.budget is not None
    each = pd.DataFrame(
        {
            "policy": ["control" if one.of_budget and not n else "menu" for n in range(len(at))],
            "k": [menu.k for menu in one.menus],
            "at": np.where(np.isfinite(at), at, np.nan),
            "current": current,
            "shadow_price": [budget_price(menu) if priced else np.nan for menu in one.menus],
            "treatments": [[space.describe(row) for row in menu.treatments] for menu in one.menus],
            "shares": list(one.shares),
        }
    )
    if one.of_budget:
        each.loc[0, "shadow_price"] = np.nan
    return pd.concat(
        [
            values.assign(sweep=one.sweep.name, moved=one.sweep.moved, plug_in_value=plug_in),
            each.iloc[place].reset_index(drop=True),
        ],
        axis=1,
    )
