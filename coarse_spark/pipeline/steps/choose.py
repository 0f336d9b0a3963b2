"""Choose menus of all sizes on the full population."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd

from coarse_spark.core.menu.choose import MenuCurve, choose_menus
from coarse_spark.core.menu.problem.rules import Switching
from coarse_spark.core.observed import ObservedTreatments
from coarse_spark.core.policy_tree.rule import AssignmentRule
from coarse_spark.distributed.frames import theta_columns
from coarse_spark.distributed.materialize import materialized
from coarse_spark.errors import InvalidInputError
from coarse_spark.lake import step_results
from coarse_spark.lake.contract import MENU
from coarse_spark.lake.step_results import ChooseResult, FitResult, ScoreResult
from coarse_spark.pipeline.limits import limits_kept
from coarse_spark.pipeline.menu_rows import menu_rows
from coarse_spark.pipeline.menu_rule import population_menu_rules
from coarse_spark.pipeline.rules import population_rules
from coarse_spark.pipeline.run import Run

log = logging.getLogger(__name__)


def choose(run: Run) -> None:
    """Choose a menu of every size into ``menu``: on a sketch, then on the whole population."""
    with run.step("choose"):
        menu = run.configuration.menu
        rules = population_rules(run)
        names = theta_columns(rules.problem.coefficients)
        with materialized(rules.population.rows.select("unit_id", "weight", *names)) as kept:
            population = replace(rules.population, rows=kept)
            curve = choose_menus(population, menu.sizes, run.search_settings(rules.start))
            menus = {k: chosen.menu for k, chosen in curve.chosen.items()}
            menu_rules = population_menu_rules(run, population, menus)
        _require_served(curve, list(menu.eligibility))
        for line in curve.history:
            text = "K = %d, pass %d: profit %.6g a unit, gain %.2g, %d moved, most: %s"
            log.info(text, line.k, line.number, line.value, line.gain, line.moved, line.what)
        fitted, frames = run.result(FitResult), {}
        observed = ObservedTreatments(rules.problem.space, fitted.observed_treatments)
        for k, chosen in curve.chosen.items():
            selected = k == menu.select
            beyond = observed.outside(chosen.menu.treatments)
            untried = beyond
            if fitted.support is not None:
                untried = beyond | ~fitted.support.tried(chosen.menu.treatments)
            rows = menu_rows(run.problem, chosen.menu, chosen.sums, selected=selected)
            frames[k] = rows.assign(extrapolates=beyond, untried=untried)
        run.replace(MENU, pd.concat(frames.values(), ignore_index=True))
        granular, p = run.result(ScoreResult).granular_value, run.problem.coefficients
        switching = any(isinstance(rule, Switching) for rule in rules.problem.rules)
        kept_menus = {
            k: _kept(curve, k, frames[k], granular, p, menu_rules.get(k), switching)
            for k in curve.chosen
        }
        run.keep(
            ChooseResult(
                control_value=curve.control_value,
                uniform_value=curve.uniform_value,
                sketch_size=len(curve.units),
                menus=kept_menus,
                passes=curve.history,
            )
        )


def _kept(
    curve: MenuCurve,
    k: int,
    rows: pd.DataFrame,
    granular: float,
    coefficients: int,
    rule: AssignmentRule | None,
    switching: bool,
) -> step_results.ChosenMenu:
    """Return what the run keeps of the menu of one size, whose rows of the table are ``rows``."""
    chosen = curve.chosen[k]
    value, bound = chosen.value, min(chosen.upper_bound, granular)
    text = "K = %d: profit %.6g a unit (%.6g on the sketch), no menu of %d exceeds %.6g"
    log.info(text, k, value, chosen.sketch_value, k, bound)
    earned = float((rows["share"] * rows["expected_profit"]).sum())
    sums, weight = chosen.sums.theta[:, :coefficients], chosen.sums.weight[:, None]
    return step_results.ChosenMenu(
        value=value,
        upper_bound=bound,
        sketch_value=chosen.sketch_value,
        switching_cost=max(earned - value, 0.0) if switching else 0.0,
        segment_theta=np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0).tolist(),
        limits=limits_kept(chosen, curve.problem),
        rule=rule,
    )


def _require_served(curve: MenuCurve, rules: list[str]) -> None:
    """Raise where a menu has nothing for some units, or not enough within its limits."""
    found = curve.unserved()
    place = f"menu.eligibility ({', '.join(rules)})"
    if found.unmet:
        told = "; ".join(f"menu of {k}: {why}" for k, why in found.unmet.items())
        raise InvalidInputError(f"{place}: {told}")
    counts = [f"{count} on the menu of {k}" for k, count in found.without.items()]
    if found.without_single:
        counts.insert(0, f"{found.without_single} on the best single treatment")
    if counts:
        raise InvalidInputError(
            f"{place}: units that may get none of the treatments: {', '.join(counts)}; leave small "
            "sizes out of menu.sizes, or add a treatment that everyone may get to menu.always_offer"
        )
