"""How often the published treatments are chosen when the experiment says something different."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.stability import menu_counts, merged_counts
from coarse_spark.core.values import ScoreMoments
from coarse_spark.distributed.evaluate import resampled_menus
from coarse_spark.lake.step_results import Stability, TreatmentCount
from coarse_spark.pipeline.run import Run

log = logging.getLogger(__name__)


def choice_stability(
    run: Run,
    problem: MenuProblem,
    predictions: DataFrame,
    menus: Sequence[PricedMenu],
    published: pd.DataFrame,
    moments: ScoreMoments,
) -> Stability:
    """Return how often the treatments of the published menu are chosen.

    Parameters
    ----------
    run : the run.
    problem : of the experiment's units.
    predictions : these units by the models of every fold.
    menus : of as many treatments, by fold.
    published : rows of the table ``menu``.
    moments : of the experiment's scores.
    """
    k, treatments = len(published), problem.space.encode(published)
    resamples, loss = run.configuration.evaluation.resamples, None
    tables = {"folds": menu_counts(problem, [menu.treatments for menu in menus], "folds")}
    if resamples:
        tables["frequency"], loss = resampled_menus(
            predictions,
            problem,
            k,
            run.search_settings(treatments),
            moments=moments,
            resamples=resamples,
        )
        log.info(
            "menus of %d chosen on %d redraws of the responses lose %.4g a unit on average",
            k,
            resamples,
            loss,
        )
    table, names = merged_counts(problem, treatments, tables), problem.space.names
    return Stability(
        folds=len(menus),
        resamples=resamples,
        expected_loss=loss,
        treatments=[
            TreatmentCount(
                treatment={name: row[name] for name in names},
                published=row["published"],
                folds=row["folds"],
                frequency=row.get("frequency"),
            )
            for row in table.to_dict("records")
        ],
    )
