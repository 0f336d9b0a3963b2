"""Assign every unit a treatment of the selected menu, and describe the segments."""

from __future__ import annotations

import numpy as np

from coarse_spark.distributed.assign import assign as assign_units
from coarse_spark.distributed.segments import describe_segments
from coarse_spark.distributed.units import population_units
from coarse_spark.errors import TableError
from coarse_spark.lake.schemas import ASSIGNMENTS, SEGMENTS
from coarse_spark.pipeline.rules import note_changes, population_rules
from coarse_spark.pipeline.run import Run


def assign(run: Run) -> None:
    """Assign every unit of the population a treatment of the selected menu into ``assignments`` and describe ``segments``.

    Raises
    ------
    TableError : no menu is selected yet.
    """
    with run.step("assign"):
        configuration = run.configuration
        menu = run.lake.read("menu", run.run_id).where("selected").orderBy("treatment_id").toPandas()
        if menu.empty:
            raise TableError("menu.select is auto and no size is selected yet; run 'evaluate' before 'assign', or set menu.select")
        rules = population_rules(run)
        problem = rules.problem
        treatments = problem.space.encode(menu)
        assigned = assign_units(
            rules.responses,
            psi=problem.psi_at(treatments),
            prices=menu["shadow_price"].to_numpy(np.float64),
            control_psi=run.problem.control_psi,
            treatments=treatments,
            space=configuration.space,
            rules=problem.rules,
            changed=rules.changed(treatments),
        )
        run.lake.replace(ASSIGNMENTS, run.run_id, assigned)
        note_changes(run, rules)
        table = run.experiment if run.population is None else run.population
        units = population_units(table, configuration, None)
        landed = run.lake.read("assignments", run.run_id)
        run.lake.replace(SEGMENTS, run.run_id, describe_segments(landed, units, configuration))
