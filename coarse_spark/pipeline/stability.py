"""How often the treatments of the published menu are chosen when the experiment says something a little different."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.stability import menu_counts, merged_counts
from coarse_spark.distributed.stability import resampled_menus
from coarse_spark.pipeline.run import Run

log = logging.getLogger(__name__)


def note_stability(
    run: Run,
    problem: MenuProblem,
    predictions: DataFrame,
    menus: Sequence[PricedMenu],
    published: pd.DataFrame,
) -> None:
    """Note how often the treatments of the published menu are chosen.

    Parameters
    ----------
    problem : of the experiment's units. predictions : these units by the models of every fold.
    menus : of as many treatments, by fold. published : rows of the table ``menu``.
    """
    k, treatments, resamples = (
        len(published),
        problem.space.encode(published),
        run.configuration.evaluation.resamples,
    )
    tables, loss = (
        {"folds": menu_counts(problem, [menu.treatments for menu in menus], "folds")},
        None,
    )
    if resamples:
        tables["frequency"], loss = resampled_menus(
            predictions,
            problem,
            k,
            run.search_settings(treatments),
            units=int(run.noted("usable_rows", "fit")),
            resamples=resamples,
        )
        log.info(
            "menus of %d chosen on %d redraws of the responses lose %.4g a unit on average",
            k,
            resamples,
            loss,
        )
    table = merged_counts(problem, treatments, tables)
    run.note(
        stability={
            "k": k,
            "folds": len(menus),
            "resamples": resamples,
            "expected_loss": loss,
            "table": table.to_dict("list"),
        }
    )
