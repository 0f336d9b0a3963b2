"""A factorial of levels in which nobody got one combination: what menus offer of it, and mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.basis import Basis
from coarse_spark.core.support import Support
from coarse_spark.lake.step_results import FitResult

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

pytestmark = pytest.mark.long

UNITS = 3_000
LEVELS = np.array([[depth, code] for depth in (0, 5, 10) for code in (0, 1)])[:-1]  # not (10, app)
CONFIGURATION = """\
experiment:
  path: {folder}/experiment.parquet
  format: parquet
  unit_id: customer
  features: [need]
  outcome: spend
treatments:
  depth: {{kind: continuous, lower: 0, upper: 10, step: 1, control: 0}}
  channel: {{kind: categorical, levels: [mail, app], control: mail}}
design: {{kind: randomized}}
response: {{basis: any(depth) + linear + levels, learner: constant, scale: additive, folds: 2}}
profit: {{margin: 1, cost: "{cost}"}}
menu: {{sizes: 1-2, starts: 2, sketch_cells: 200, support: {rule}}}
evaluation: {{resamples: 0}}
output: {{path: {folder}/tables}}
"""


def offers() -> pd.DataFrame:
    """Units whose spend jumps by 2 with any depth, and rises with depth and in the app."""
    rng = np.random.default_rng(0)
    need, given = rng.uniform(0, 1, UNITS), LEVELS[rng.integers(0, len(LEVELS), UNITS)]
    depth, code = given.T
    spend = 5 + need + 2 * (depth > 0) + 0.1 * depth + code + 0.5 * rng.normal(size=UNITS)
    channel = np.array(["mail", "app"])[code]
    frame = {"customer": np.arange(UNITS), "need": need, "depth": depth.astype(float)}
    return pd.DataFrame({**frame, "channel": channel, "spend": spend})


def configured(folder: Path, rule: str, cost: str) -> Configuration:
    from coarse_spark.config.load import load_configuration

    offers().to_parquet(folder / "experiment.parquet")
    (folder / "run.yml").write_text(CONFIGURATION.format(folder=folder, rule=rule, cost=cost))
    return load_configuration(folder / "run.yml")


def chosen(spark: SparkSession, configuration: Configuration) -> Run:
    from coarse_spark.pipeline import choose, fit, score, start_run

    run = start_run(spark, configuration)
    for step in (fit, score, choose):
        step(run)
    return run


def tried(menu: pd.DataFrame) -> list[bool]:
    """Return which treatments of a menu are among the levels that were given."""
    known = {(depth, ("mail", "app")[int(code)]) for depth, code in LEVELS}
    return [row in known for row in zip(menu["depth"], menu["channel"], strict=True)]


def test_a_menu_of_what_was_observed_avoids_gaps_and_what_nobody_got(
    spark: SparkSession, tmp_path: Path
) -> None:
    # at these costs the best is (1, app), in the gap beside the jump; with depth free (10, app)
    run = chosen(spark, configured(tmp_path, "observed", "0.2 * depth"))
    found = run.result(FitResult).support
    given = run.declared.space.encode(offers()[["depth", "channel"]])
    assert found == Support.of(given, Basis(run.configuration.basis.name, run.declared.space))
    assert found is not None
    assert found.cells is not None
    assert len(found.cells) == len(LEVELS)
    assert "17 of 22 candidates are not offered (menu.support: observed): nobody" in " ".join(
        run.record.warnings
    )
    menu = run.lake.read("menu", run.run_id).toPandas()
    assert all(tried(menu))
    assert not menu["untried"].any()
    assert (5, "app") in set(zip(menu["depth"], menu["channel"], strict=True))
    best = run.lake.read("responses", run.run_id).toPandas()
    assert set(best["best_depth"]) == {5.0}, "full personalization is within the support as well"


@pytest.mark.parametrize(
    ("cost", "depth"), [("0.2 * depth", 1), ("0", 10)], ids=["gap", "combination"]
)
def test_a_menu_that_is_marked_offers_them_and_says_so(
    cost: str, depth: int, spark: SparkSession, tmp_path: Path
) -> None:
    run = chosen(spark, configured(tmp_path, "marked", cost))
    assert not any("not offered" in warning for warning in run.record.warnings)
    menu = run.lake.read("menu", run.run_id).toPandas()
    single = menu[menu["k"] == 1].iloc[0]
    assert (single["depth"], single["channel"], single["untried"]) == (depth, "app", True)
    assert menu["untried"].tolist() == [not known for known in tried(menu)]
    assert not menu["extrapolates"].any()


def test_the_whole_jump_is_offered_no_nearer_to_the_control_than_it_was_seen(
    spark: SparkSession, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import run_all
    from coarse_spark.pipeline.present import report_content
    from coarse_spark.report.wording import findings

    configuration = configured(tmp_path, "auto", "0.2 * depth - 0.3 * (depth == 6)")
    run = run_all(spark, configuration)
    menu = run.lake.read("menu", run.run_id).toPandas()
    single = menu[menu["k"] == 1].iloc[0]
    # 6 lies in a gap too, where no jump is: it is offered and marked
    assert (single["depth"], single["channel"], single["untried"]) == (6, "app", True)
    assert not menu["depth"].between(1, 4).any()
    assert any(
        "8 of 22 candidates are not offered (menu.support: auto)" in warning
        for warning in run.record.warnings
    )
    assert "that nobody in the experiment got anything near (marked untried)" in " ".join(
        findings(report_content(run))
    )
