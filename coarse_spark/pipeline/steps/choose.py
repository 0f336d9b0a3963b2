"""Choose menus of all sizes on the full population."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.observed import ObservedTreatments
from coarse_spark.distributed.choose import UNIFORM, choose_menus
from coarse_spark.distributed.frames import theta_columns
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.rules import require_eligible
from coarse_spark.distributed.settle import with_tickets
from coarse_spark.lake.schemas import MENU
from coarse_spark.pipeline.limits import limits_note
from coarse_spark.pipeline.menu_rows import menu_rows
from coarse_spark.pipeline.rules import population_rules
from coarse_spark.pipeline.run import Run

log = logging.getLogger(__name__)


def choose(run: Run) -> None:
    """Choose a menu of every size into ``menu``: on a sketch, then by Lloyd passes over the full population."""
    with run.step("choose"):
        configuration = run.configuration
        rules = population_rules(run)
        problem, p = rules.problem, run.problem.coefficients
        responses = rules.responses.select(
            "unit_id", "weight", *theta_columns(problem.coefficients)
        )
        granular = float(run.noted("granular_value", "score"))
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
        observed = ObservedTreatments(problem.space, run.noted("observed_treatments", "fit"))
        for line in (line for line in refined.history if line.k != UNIFORM):
            text = "K = %d, pass %d: profit %.6g a unit, gain %.2g, %d moved, most: %s"
            log.info(text, line.k, line.number, line.value, line.gain, line.moved, line.what)
        frames = []
        curve: dict[str, Any] = {}
        for k in configuration.menu.sizes:
            menu, sums = refined.menus[k], refined.sums[k]
            rows = menu_rows(
                run.problem, menu, sums, observed, selected=k == configuration.menu.select
            )
            frames.append(rows)
            value, bound = sums.value(menu.psi), min(found.bounds[k], granular)
            text = "K = %d: profit %.6g a unit (%.6g on the sketch), no menu of %d exceeds %.6g"
            log.info(text, k, value, found.sketch_values[k], k, bound)
            curve[str(k)] = {
                "value": value,
                "upper_bound": bound,
                "sketch_value": found.sketch_values[k],
                "switching_cost": max(
                    float((rows["share"] * rows["expected_profit"]).sum()) - value, 0.0
                ),
                "segment_theta": _means(sums.theta[:, :p], sums.weight).tolist(),
            }
            if not found.bounded[k].free:
                curve[str(k)]["limits"] = limits_note(found.bounded[k], found.problem, sums)
        run.lake.replace(MENU, run.run_id, pd.concat(frames, ignore_index=True))
        run.note(
            control_value=found.control_value,
            uniform_value=refined.sums[UNIFORM].value(refined.menus[UNIFORM].psi),
            micro_clusters=found.micro_clusters,
            curve=curve,
            history=[{**vars(line)} for line in refined.history if line.k != UNIFORM],
        )


def _means(sums: FloatArray, weight: FloatArray) -> FloatArray:
    return np.asarray(
        np.divide(sums, weight[:, None], out=np.zeros_like(sums), where=weight[:, None] > 0)
    )
