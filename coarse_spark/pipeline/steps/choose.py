"""Choose menus of all sizes on the full population."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.observed import ObservedTreatments
from coarse_spark.distributed.choose import UNIFORM, choose_menus
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.rules import require_eligible
from coarse_spark.distributed.settle import with_tickets
from coarse_spark.distributed.units import theta_columns
from coarse_spark.lake.schemas import MENU
from coarse_spark.lake.step_results import (
    ChooseResult,
    ChosenMenu,
    FitResult,
    PopulationPass,
    ScoreResult,
)
from coarse_spark.pipeline.limits import limits_kept
from coarse_spark.pipeline.menu_rows import menu_rows
from coarse_spark.pipeline.rules import population_rules
from coarse_spark.pipeline.run import Run

log = logging.getLogger(__name__)


def choose(run: Run) -> None:
    """Choose a menu of every size into ``menu``: on a sketch, then on the whole population."""
    with run.step("choose"):
        configuration = run.configuration
        rules = population_rules(run)
        problem, p = rules.problem, run.problem.coefficients
        responses = rules.responses.select(
            "unit_id", "weight", *theta_columns(problem.coefficients)
        )
        granular = run.result(ScoreResult).granular_value
        with materialized(responses) as kept:
            found = choose_menus(
                kept,
                problem,
                configuration.menu.sizes,
                run.search_settings(rules.start),
                cells=configuration.menu.sketch_cells,
                passes=configuration.menu.full_passes,
            )
            drawn = kept if configuration.limits.free else with_tickets(kept, problem.coefficients)
            require_eligible(
                drawn,
                found.problem,
                list(configuration.menu.eligibility),
                found.refined,
                found.bounded,
            )
        refined = found.refined
        observed = ObservedTreatments(problem.space, run.result(FitResult).observed_treatments)
        for line in (line for line in refined.history if line.k != UNIFORM):
            text = "K = %d, pass %d: profit %.6g a unit, gain %.2g, %d moved, most: %s"
            log.info(text, line.k, line.number, line.value, line.gain, line.moved, line.what)
        frames = []
        menus: dict[int, ChosenMenu] = {}
        for k in configuration.menu.sizes:
            menu, sums = refined.menus[k], refined.sums[k]
            rows = menu_rows(
                run.problem, menu, sums, observed, selected=k == configuration.menu.select
            )
            frames.append(rows)
            value, bound = sums.value(menu.psi), min(found.bounds[k], granular)
            text = "K = %d: profit %.6g a unit (%.6g on the sketch), no menu of %d exceeds %.6g"
            log.info(text, k, value, found.sketch_values[k], k, bound)
            earned = float((rows["share"] * rows["expected_profit"]).sum())
            bounded = found.bounded[k]
            menus[k] = ChosenMenu(
                value=value,
                upper_bound=bound,
                sketch_value=found.sketch_values[k],
                switching_cost=max(earned - value, 0.0),
                segment_theta=_means(sums.theta[:, :p], sums.weight).tolist(),
                limits=None if bounded.free else limits_kept(bounded, found.problem, sums),
            )
        run.lake.replace(MENU, run.run_id, pd.concat(frames, ignore_index=True))
        run.keep(
            ChooseResult(
                control_value=found.control_value,
                uniform_value=refined.sums[UNIFORM].value(refined.menus[UNIFORM].psi),
                sketch_size=found.micro_clusters,
                menus=menus,
                passes=[
                    PopulationPass(**vars(line)) for line in refined.history if line.k != UNIFORM
                ],
            )
        )


def _means(sums: FloatArray, weight: FloatArray) -> FloatArray:
    return np.asarray(
        np.divide(sums, weight[:, None], out=np.zeros_like(sums), where=weight[:, None] > 0)
    )
