"""Frontiers of a run: of budgets and of a trade-off, of runs that are published too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from command_line import run_command

from coarse_spark.config.load import load_configuration

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

UNITS = 3_000
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
menu: {{sizes: [1, 3], select: 3, sketch_cells: 300, starts: 2}}
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


def test_a_published_run_is_looked_along_budgets(spark: SparkSession, trial: Trial) -> None:
    before = {name: trial.table(spark, name) for name in ("menu", "policy_values", "assignments")}
    said = _look(trial)
    rows = trial.table(spark, "frontier")
    assert rows["run_id"].unique().tolist() == ["first"]
    assert rows["moved"].unique().tolist() == ["budget"]
    profit = rows[rows["measure"] == "profit"].sort_values("point", ignore_index=True)
    assert profit["policy"].tolist() == ["control", *["menu"] * 8]
    assert profit["current"].tolist() == [False] * 8 + [True]
    spent = rows[rows["measure"] == "spending"].sort_values("point", ignore_index=True)
    # budgets are kept on the population, and honest units spend as much
    bound = profit["at"][1:8].to_numpy()
    np.testing.assert_allclose(spent["plug_in_value"][1:8], bound, rtol=2e-3)
    np.testing.assert_allclose(spent["value"][1:8], bound, rtol=0.06)
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
        assert own[name] == pytest.approx(values.loc[("menu", 3), name], rel=1e-6), name
    assert profit["value"][0] == pytest.approx(values.loc[("control", 1), "value"], rel=1e-9)
    # neighbours are compared on the same units
    apart = np.hypot(profit["se"].to_numpy()[:-1], profit["se"].to_numpy()[1:])
    assert (profit["difference_se"][1:] < 0.5 * apart).all()
    np.testing.assert_allclose(profit["difference"][1:], np.diff(profit["value"]), rtol=1e-6)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, trial.table(spark, name))
    assert "What another budget would buy" in said.out
    page = (trial.folder / "tables" / "report.html").read_text(encoding="utf-8")
    assert "What another budget would buy" in page
    assert 'id="frontier1' in page


def test_what_was_asked_before_is_not_computed_again(spark: SparkSession, trial: Trial) -> None:
    _look(trial)
    first = trial.table(spark, "frontier")
    versions = spark.sql(f"DESCRIBE HISTORY delta.`{trial.folder}/tables/frontier`").count()
    assert "What another budget would buy" in _look(trial).out
    found = spark.sql(f"DESCRIBE HISTORY delta.`{trial.folder}/tables/frontier`").count()
    assert found == versions
    other = _look(trial, "frontier.budgets=[0.3, 0.6]")
    both = trial.table(spark, "frontier")
    assert both["sweep"].nunique() == first["sweep"].nunique() + 1
    assert not both.duplicated(["run_id", "sweep", "point", "measure"]).any()
    fresh = both[~both["sweep"].isin(first["sweep"]) & (both["measure"] == "profit")]
    assert fresh.sort_values("point")["at"].fillna(-1).tolist() == [-1, 0.3, 0.6, -1]
    assert "0.3" in other.out
    status = trial.table(spark, "runs")
    assert status["status"].tolist() == ["published"]


def test_profit_is_traded_for_the_outcome(spark: SparkSession, trial: Trial) -> None:
    said = _look(trial, "frontier.weights=[-0.5, 0.5]")
    rows = trial.table(spark, "frontier")
    rows = rows[rows["moved"] == "weight of y"].set_index(["measure", "point"]).sort_index()
    assert rows.loc["profit", "at"].tolist() == [-0.5, 0, 0.5]
    assert rows.loc["profit", "current"].tolist() == [False, True, False]
    assert rows.loc["profit", "plug_in_value"].argmax() == 1
    assert (np.diff(rows.loc["outcome y", "value"]) > 0).all()
    assert (rows.loc["outcome y", "difference_low"][1:] > 0).all()
    # by the true responses, too: profit is the outcome less what the treatments cost
    np.testing.assert_allclose(
        rows.loc["profit", "value"],
        rows.loc["outcome y", "value"] - rows.loc["spending", "value"],
        rtol=1e-9,
    )
    assert "What more or less of y costs" in said.out


def test_a_new_run_looks_along_what_its_configuration_says(
    spark: SparkSession, trial: Trial
) -> None:
    configuration = load_configuration(trial.config, {"frontier.budgets": "[0.4]"})
    assert configuration.fingerprint() == load_configuration(trial.config).fingerprint()
    settings = ["frontier.budgets=[0.4]", "menu.budget=0.6", f"output.path={trial.folder}/other"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = run_command("run", "--config", trial.config, "--run-id", "limited", *options)
    assert done.code == 0, done.err
    found = spark.read.format("delta").load(f"{trial.folder}/other/frontier").toPandas()
    profit = found[found["measure"] == "profit"].sort_values("point")
    assert profit["at"].fillna(-1).tolist() == [-1, 0.4, 0.6]
    assert profit["current"].tolist() == [False, False, True]
    values = spark.read.format("delta").load(f"{trial.folder}/other/policy_values").toPandas()
    own = values[(values["policy"] == "menu") & (values["k"] == 3)].iloc[0]
    assert profit["value"].iloc[-1] == pytest.approx(own["value"], rel=1e-6)
    assert profit["plug_in_value"].iloc[-1] == pytest.approx(own["plug_in_value"], rel=1e-4)
    assert "more of budget would earn" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("frontier.budgets=[-0.5]", "frontier: budget -0.5 is below"),
        ("frontier.outcome=z", "expected one of experiment.outcome: y"),
        ("frontier.outcome=y", "frontier.weights"),
    ],
)
def test_what_cannot_be_asked_is_told(trial: Trial, setting: str, told: str) -> None:
    assert told in " ".join(_look(trial, setting, code=2).err.split())
