"""Frontiers of a run: of budgets and of a trade-off, of runs that are published too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from command_line import run_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.long]

UNITS = 2_000
NAMES = ["level", "slope", "curve"]


@dataclass(frozen=True)
class Trial:
    """An experiment of true responses, which are brought along with some noise.

    Attributes
    ----------
    folder : of its tables.
    theta : (n, 3) the true responses.
    """

    folder: Path
    theta: np.ndarray

    @property
    def config(self) -> Path:
        return self.folder / "trial.yml"

    def table(self, spark: SparkSession, name: str) -> pd.DataFrame:
        return spark.read.format("delta").load(str(self.folder / "tables" / name)).toPandas()


@pytest.fixture(scope="module")
def trial(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder, rng = tmp_path_factory.mktemp("frontier"), np.random.default_rng(1)
    theta = np.column_stack(
        [rng.normal(5, 1, UNITS), rng.uniform(0, 4, UNITS), -rng.uniform(0.3, 0.9, UNITS)]
    )
    t = rng.uniform(0, 4, UNITS)
    y = theta[:, 0] + theta[:, 1] * t + theta[:, 2] * t**2 + rng.normal(0, 1, UNITS)
    units = pd.DataFrame({"id": range(UNITS), "t": t, "y": y})
    units.to_parquet(folder / "experiment.parquet", index=False)
    responses = pd.DataFrame(theta + rng.normal(0, 0.1, theta.shape), columns=NAMES)
    folds = np.where(np.arange(UNITS) % 2, "first", "second")
    responses.assign(id=units["id"], part=folds).to_parquet(
        folder / "responses.parquet", index=False
    )
    (folder / "trial.yml").write_text(
        f"""
experiment: {{path: {folder}/experiment.parquet, unit_id: id, outcome: y}}
treatments: {{t: {{kind: continuous, lower: 0, upper: 4, control: 0}}}}
response: {{basis: quadratic, folds: 2}}
responses: {{experiment: {folder}/responses.parquet, columns: [{", ".join(NAMES)}], fold: part,
  out_of_fold: true}}
profit: {{cost: 0.5 * t, currency: EUR}}
menu: {{sizes: [2], select: 2, sketch_cells: 150, starts: 1}}
evaluation: {{comparisons: []}}
output: {{path: {folder}/tables}}
"""
    )
    done = run_command("run", "--config", folder / "trial.yml", "--run-id", "first")
    assert done.code == 0, done.err
    assert not (folder / "tables" / "frontier").exists()
    return Trial(folder, theta)


def _look(trial: Trial, *settings: str, code: int = 0) -> Any:
    options = [part for setting in settings for part in ("--set", setting)]
    done = run_command("frontier", "--config", trial.config, *options)
    assert done.code == code, done.err
    return done


def _shown(said: Any) -> str:
    """Return the table of a frontier in what the command says."""
    return str(said.out[said.out.index("What another budget would buy") :].split("tables:")[0])


def _profit_and_spending(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = (rows[rows["measure"] == name] for name in ("profit", "spending"))
    profit, spent = (part.sort_values("point", ignore_index=True) for part in found)
    return profit, spent


def test_a_published_run_is_looked_along_budgets(spark: SparkSession, trial: Trial) -> None:
    before = {name: trial.table(spark, name) for name in ("menu", "policy_values", "assignments")}
    said = _look(trial, "frontier.budgets=[0.2, 0.4]")
    rows = trial.table(spark, "frontier")
    assert rows["run_id"].unique().tolist() == ["first"]
    assert rows["moved"].unique().tolist() == ["budget"]
    profit, spent = _profit_and_spending(rows)
    assert profit["policy"].tolist() == ["control", *["menu"] * 3]
    assert profit["at"].fillna(-1).tolist() == [-1, 0.2, 0.4, -1]
    assert profit["current"].tolist() == [False] * 3 + [True]
    # budgets are kept on the population, and honest units spend as much
    np.testing.assert_allclose(spent["plug_in_value"][1:3], [0.2, 0.4], rtol=2e-3)
    np.testing.assert_allclose(spent["value"][1:3], [0.2, 0.4], rtol=0.06)
    # more is earned, less for every further euro, as the price of the budget says
    slopes = np.diff(profit["plug_in_value"]) / np.diff(spent["plug_in_value"])
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 0).all()
    prices = profit["shadow_price"].to_numpy()
    assert np.isnan(prices[0])
    assert prices[-1] == 0
    assert (prices[1:] < slopes * 1.05).all()
    assert (prices[1:-1] > slopes[1:] * 0.95).all()
    # the run's own choice is what the run says of it
    own, values = profit.iloc[-1], before["policy_values"].set_index(["policy", "k"])
    for name in ("value", "se", "ci_low", "ci_high", "plug_in_value"):
        assert own[name] == pytest.approx(values.loc[("menu", 2), name], rel=1e-6), name
    assert profit["value"][0] == pytest.approx(values.loc[("control", 1), "value"], rel=1e-9)
    # neighbours are compared on the same units
    apart = np.hypot(profit["se"].to_numpy()[:-1], profit["se"].to_numpy()[1:])
    assert (profit["difference_se"][1:] < 0.6 * apart).all()
    np.testing.assert_allclose(profit["difference"][1:], np.diff(profit["value"]), rtol=1e-6)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, trial.table(spark, name))
    assert "What another budget would buy" in said.out
    page = (trial.folder / "tables" / "report.html").read_text(encoding="utf-8")
    assert "What another budget would buy" in page
    assert 'id="frontier1' in page
    # asked again, nothing is computed or written again
    said = _look(trial, "frontier.budgets=[0.4, 0.2]")
    history = spark.sql(f"DESCRIBE HISTORY delta.`{trial.folder}/tables/frontier`")
    assert history.count() == 2, "created and appended to"
    assert "What another budget would buy" in said.out
    # one that was asked for before another is shown again
    assert _shown(_look(trial, "frontier.budgets=[0.3]")) != _shown(said)
    assert _shown(_look(trial, "frontier.budgets=[0.2, 0.4]")) == _shown(said)


def test_profit_is_traded_for_the_outcome(spark: SparkSession, trial: Trial) -> None:
    said = _look(trial, "frontier.weights=[-0.5, 0.5]")
    rows = trial.table(spark, "frontier")
    rows = rows[rows["moved"] == "weight of y"].set_index(["measure", "point"]).sort_index()
    assert rows.loc["profit", "at"].tolist() == [-0.5, 0, 0.5]
    assert rows.loc["profit", "current"].tolist() == [False, True, False]
    assert rows.loc["profit", "plug_in_value"].argmax() == 1
    assert (np.diff(rows.loc["outcome y", "value"]) > 0).all()
    assert (rows.loc["outcome y", "difference_low"][1:] > 0).all()
    # profit is the outcome less what the treatments cost
    np.testing.assert_allclose(
        rows.loc["profit", "value"],
        rows.loc["outcome y", "value"] - rows.loc["spending", "value"],
        rtol=1e-9,
    )
    assert "What more or less of y costs" in said.out
    assert trial.table(spark, "runs")["status"].tolist() == ["published"]


@pytest.mark.slow
def test_budgets_that_nobody_names_reach_from_little_to_all(
    spark: SparkSession, trial: Trial
) -> None:
    _look(trial)
    rows = trial.table(spark, "frontier")
    name = rows[rows["moved"] == "budget"].groupby("sweep").size().idxmax()
    profit, spent = _profit_and_spending(rows[rows["sweep"] == name])
    assert len(profit) == 9
    whole = spent["plug_in_value"].iloc[-1]
    np.testing.assert_allclose(profit["at"][1:8], whole * np.arange(1, 8) / 8, rtol=0.02)
    assert (np.diff(profit["plug_in_value"]) > 0).all()
    assert not rows.duplicated(["run_id", "sweep", "point", "measure"]).any()


def test_frontiers_are_of_the_inputs_that_the_run_saw(spark: SparkSession, trial: Trial) -> None:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.errors import RunTakenError, TableError
    from coarse_spark.lake.lease import Lease
    from coarse_spark.pipeline import look_along, read_run

    configuration = load_configuration(trial.config, {"frontier.budgets": "[0.1]"})
    run = read_run(spark, configuration)
    lease = Lease(run.lake, run.record)
    with lease.working(), pytest.raises(RunTakenError, match="first is being worked on"):
        look_along(spark, configuration)
    lease.release(lease.record)
    path = trial.folder / "responses.parquet"
    as_it_was = path.rename(trial.folder / "aside.parquet")
    pd.read_parquet(as_it_was).assign(level=1.0).to_parquet(path, index=False)
    try:
        with pytest.raises(TableError, match="changed since the run started"):
            look_along(spark, configuration)
    finally:
        as_it_was.replace(path)
    found = trial.table(spark, "frontier")
    assert 0.1 not in set(found["at"])


@pytest.mark.slow
def test_a_new_run_looks_along_what_its_configuration_says(
    spark: SparkSession, trial: Trial
) -> None:
    settings = ["frontier.budgets=[0.4]", "menu.budget=0.6", f"output.path={trial.folder}/other"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = run_command("run", "--config", trial.config, "--run-id", "limited", *options)
    assert done.code == 0, done.err
    found = spark.read.format("delta").load(f"{trial.folder}/other/frontier").toPandas()
    profit, spent = _profit_and_spending(found)
    assert profit["at"].fillna(-1).tolist() == [-1, 0.4, 0.6]
    assert profit["current"].tolist() == [False, False, True]
    np.testing.assert_allclose(spent["plug_in_value"][1:], [0.4, 0.6], rtol=2e-3)
    values = spark.read.format("delta").load(f"{trial.folder}/other/policy_values").toPandas()
    own = values[(values["policy"] == "menu") & (values["k"] == 2)].iloc[0]
    assert profit["value"].iloc[-1] == pytest.approx(own["value"], rel=1e-6)
    assert profit["plug_in_value"].iloc[-1] == pytest.approx(own["plug_in_value"], rel=1e-4)
    assert "more of budget would earn" in " ".join(done.out.split())


@pytest.mark.slow
def test_a_budget_that_cannot_be_kept_is_told(spark: SparkSession, trial: Trial) -> None:
    before = trial.table(spark, "runs")["revision"].iloc[0]
    # what counts as spending may be another than when the run was made: it had no budget
    spent = ("menu.spending_per_outcome=0.1", "frontier.budgets=[0.3, 1]")
    told = " ".join(_look(trial, *spent, code=2).err.split())
    assert "frontier: budget 0.3 is below 0" in told
    assert "nearest feasible budget is 0" in told
    runs = trial.table(spark, "runs")
    assert runs["status"].tolist() == ["published"]
    assert runs["owner"].tolist() == [None]
    assert runs["revision"].iloc[0] > before


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_spending_by_one_of_two_outcomes_and_a_run_that_is_not_published(
    spark: SparkSession, tmp_path: Path
) -> None:
    from coarse_spark import pipeline
    from coarse_spark.config.models import Configuration
    from coarse_spark.lake.step_results import FrontierResult

    rng = np.random.default_rng(5)
    a, b = rng.uniform(-1, 1, (2, 3_000))
    voucher = 2.0 * rng.integers(0, 6, 3_000)
    spend = 30 + (2.6 + 2.2 * a) * voucher - 0.1 * voucher**2 + rng.normal(0, 4, 3_000)
    redeemed = (rng.random(3_000) < (0.04 + 0.02 * a) * voucher).astype(np.int32)
    columns = {"a": a, "b": b, "voucher": voucher, "spend": spend, "redeemed": redeemed}
    table = pd.DataFrame({"id": range(3_000), **columns})
    table.to_parquet(tmp_path / "trial.parquet", index=False)
    given = {
        "experiment": {
            "path": str(tmp_path / "trial.parquet"),
            "unit_id": "id",
            "features": ["a", "b"],
            "outcome": ["spend", "redeemed"],
        },
        "treatments": {
            "voucher": {"kind": "continuous", "lower": 0, "upper": 10, "step": 2, "control": 0}
        },
        "response": {"basis": "quadratic", "learner": "sieve", "scale": "additive", "folds": 2},
        "profit": {"margin": {"spend": "0.3", "redeemed": "-voucher"}},
        "menu": {
            "sizes": [1, 2],
            "select": 2,
            "sketch_cells": 300,
            "starts": 2,
            "spending_per_outcome": {"redeemed": "voucher"},
        },
        "evaluation": {"comparisons": [], "resamples": 0},
        "frontier": {"budgets": [0.3, 0.8], "outcome": "redeemed", "weights": [-2, 2]},
        "output": {"path": str(tmp_path / "tables")},
    }
    configuration = Configuration.model_validate(given)
    with pipeline.start_run(spark, configuration, "open") as run:
        for step in (pipeline.fit, pipeline.score, pipeline.choose, pipeline.evaluate):
            step(run)
        pipeline.frontier(run)
        found = run.lake.read("frontier", "open").toPandas()
        pipeline.frontier(run)
        again = run.lake.read("frontier", "open").toPandas()
        key = ["sweep", "point", "measure"]
        pd.testing.assert_frame_equal(
            *(rows.sort_values(key, ignore_index=True) for rows in (found, again)), rtol=1e-6
        )
        pipeline.evaluate(run)
        assert FrontierResult.step not in run.record.results
        pipeline.assign(run)
        pipeline.publish(run)
    assert not run.lake.read("frontier", "open").count(), "of menus that are no more"
    assert set(found["moved"]) == {"budget", "weight of redeemed"}
    assert set(found["measure"]) == {"profit", "spending", "outcome spend", "outcome redeemed"}
    rows = found.set_index(["moved", "measure", "point"]).sort_index()
    values = found.pivot_table(index=["moved", "point"], columns="measure", values="value")
    np.testing.assert_allclose(
        values["profit"], 0.3 * values["outcome spend"] - values["spending"], rtol=1e-9
    )
    spent = rows.loc[("budget", "spending")]
    np.testing.assert_allclose(spent["plug_in_value"][1:3], [0.3, 0.8], rtol=5e-3)
    np.testing.assert_allclose(spent["value"][1:3], [0.3, 0.8], rtol=0.25)
    traded = rows.loc["weight of redeemed"]
    assert (np.diff(traded.loc["outcome redeemed", "value"]) > 0).all()
    assert traded.loc["profit", "plug_in_value"].argmax() == 1
    # the points of both that are the run's own are one menu
    first, second = rows[rows["current"]].xs("profit", level="measure")["value"]
    assert first == pytest.approx(second, rel=1e-12)
