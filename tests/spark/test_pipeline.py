"""The whole path on simulated promotions: true, honest, repeatable, never half-published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.policies import COMPARISONS
from coarse_spark.errors import InvalidInputError, RunError, TableError
from coarse_spark.lake.step_results import ScoreResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark

THETA = [f"theta_{position}" for position in range(6)]


def _table(run: Run, name: str) -> pd.DataFrame:
    return run.lake.read(name, run.run_id).drop("run_id").toPandas()


def _selected(run: Run) -> pd.DataFrame:
    menu = _table(run, "menu")
    return menu[menu["selected"]].sort_values("treatment_id", ignore_index=True)


def _truth(spark: SparkSession, promotions: Promotions, table: str) -> pd.DataFrame:
    units = spark.read.format("delta").load(promotions.paths[table]).select("unit_id")
    return (
        spark.read.format("delta")
        .load(promotions.paths["truth"])
        .join(units, "unit_id")
        .orderBy("unit_id")
        .toPandas()
    )


def test_every_table_has_its_key_comments_and_only_this_run(finished: Run) -> None:
    from coarse_spark.lake.contract import TABLES

    for name, schema in TABLES.items():
        rows = finished.lake.read(name, finished.run_id)
        assert rows.count() > 0, name
        assert rows.select("run_id", *schema.key).distinct().count() == rows.count(), (
            f"{name}: key repeated"
        )
        assert all(field.metadata.get("comment") for field in rows.schema), (
            f"{name}: a column has no comment"
        )
    record = finished.lake.read("runs", finished.run_id).toPandas().iloc[0]
    assert record["status"] == "published"
    assert record["config_hash"] == finished.configuration.fingerprint()
    assert set(record["step_seconds"]) >= {
        "validate",
        "fit",
        "score",
        "choose",
        "evaluate",
        "assign",
    }
    assert all(version.startswith("0@") for version in record["inputs"].values())


def test_assignments_equal_a_local_argmax_for_every_unit(finished: Run) -> None:
    responses = _table(finished, "responses").sort_values("unit_id")
    assignments = _table(finished, "assignments").sort_values("unit_id")
    theta, menu = responses[THETA].to_numpy(), _selected(finished)
    problem: MenuProblem = finished.problem
    treatments = problem.space.encode(menu)
    psi = problem.psi_at(treatments)
    profits = theta @ psi[:, :-1].T + psi[:, -1]
    chosen, rows = profits.argmax(axis=1), np.arange(len(profits))
    assert assignments["unit_id"].tolist() == responses["unit_id"].tolist()
    np.testing.assert_array_equal(assignments["treatment_id"], chosen)
    np.testing.assert_allclose(assignments["expected_profit"], profits[rows, chosen], rtol=1e-12)
    control = theta @ problem.control_psi[:-1] + problem.control_psi[-1]
    np.testing.assert_allclose(
        assignments["expected_incremental_profit"], profits[rows, chosen] - control, atol=1e-12
    )
    np.testing.assert_allclose(
        assignments["regret"],
        np.maximum(problem.granular(theta)[1] - profits[rows, chosen], 0),
        atol=1e-9,
    )
    np.testing.assert_allclose(assignments[list(problem.space.names)], treatments[chosen])
    if len(menu) > 1:
        without = profits.copy()
        without[rows, chosen] = -np.inf
        np.testing.assert_array_equal(assignments["runner_up_treatment_id"], without.argmax(axis=1))
    shares = np.bincount(chosen, minlength=len(menu)) / len(chosen)
    np.testing.assert_allclose(menu["share"], shares, atol=1e-12)


def test_responses_come_from_the_partition_or_the_pooled_model(finished: Run) -> None:
    models, responses = _table(finished, "models"), _table(finished, "responses")
    full = models[models["fold"] == -1].set_index("partition")
    assert set(full["status"]) == {"ok", "pooled"}, "the skewed markets should need both"
    served = responses.groupby("partition")["served_by"].unique()
    for partition, by in served.items():
        own = partition in full.index and full.loc[partition, "status"] == "ok"
        assert by.tolist() == [partition if own else "<pooled>"]
    assert len(responses) == finished.result(ScoreResult).units


def test_honest_values_cover_the_truth(
    spark: SparkSession, finished: Run, promotions: Promotions
) -> None:
    problem: MenuProblem = finished.problem
    truth = _truth(spark, promotions, "experiment")[THETA].to_numpy()
    values = _table(finished, "policy_values").set_index(["policy", "k"])
    control = float(np.mean(truth @ problem.control_psi[:-1] + problem.control_psi[-1]))
    estimate = values.loc[("control", 1)]
    assert abs(estimate["value"] - control) < 4 * estimate["se"]
    uniform = problem.psi_at(problem.space.encode(_table(finished, "menu").query("k == 1")))[0]
    true_uniform = float(np.mean(truth @ uniform[:-1] + uniform[-1]))
    # the folds' own best single treatments differ a little from the run's: hence the allowance of
    # one more standard error
    assert (
        abs(values.loc[("uniform", 1), "value"] - true_uniform)
        < 5 * values.loc[("uniform", 1), "se"]
    )
    granular = float(np.mean(problem.granular(truth)[1]))
    for (_, _), row in values.iterrows():
        assert row["value"] < granular + 4 * row["se"], (
            "no policy can honestly earn more than the true best for everyone"
        )
        assert row["ci_low"] < row["value"] < row["ci_high"]


def test_values_of_the_menu_curve_belong_together(finished: Run) -> None:
    values = _table(finished, "policy_values")
    menus = values[values["policy"] == "menu"].sort_values("k")
    assert menus["k"].tolist() == [1, 2, 3]
    assert menus["plug_in_value"].is_monotonic_increasing
    granular = values.set_index("policy").loc["granular"]
    assert (menus["plug_in_value"] <= granular["plug_in_value"] + 1e-9).all()
    uniform = values.set_index("policy").loc["uniform"]
    assert menus.iloc[0]["value"] == pytest.approx(uniform["value"], abs=1e-12)
    differences = _table(finished, "contrasts").set_index(["policy", "versus", "k"])["difference"]
    assert differences["menu", "menu of 1", 2] == pytest.approx(
        menus["value"].iloc[1] - menus["value"].iloc[0], abs=1e-9
    )


def test_comparisons_are_valued_like_the_menu(finished: Run) -> None:
    values, k = _table(finished, "policy_values"), len(_selected(finished))
    found = values[values["policy"].isin(COMPARISONS)].set_index("policy")
    assert set(found.index) == set(COMPARISONS)
    assert (found["k"] == k).all()
    assert (found["n"] == values["n"].iloc[0]).all()
    assert found["plug_in_value"].isna().all()
    menu = values.set_index(["policy", "k"]).loc[("menu", k)]
    differences = _table(finished, "contrasts").query("policy == 'menu'").set_index("versus")
    for name, row in found.iterrows():
        versus = differences.loc[name]
        assert versus["k"] == k
        assert versus["difference"] == pytest.approx(menu["value"] - row["value"], abs=1e-9)
        # policies that give like treatments to the same units share most of their noise; treatments
        # drawn at random may lie far off
        if name != "random_menu":
            assert versus["se"] < np.hypot(menu["se"], row["se"]), name
        assert versus["difference"] > -4 * versus["se"] - 0.01, name
    # the menu is one treatment: so is every segmentation, up to a sample and a sketch
    assert k == 1
    segmented = found.loc[[name for name in COMPARISONS if name.startswith("segments")], "value"]
    np.testing.assert_allclose(segmented, menu["value"], atol=0.01)


def test_shares_that_are_captured_have_intervals(finished: Run) -> None:
    values = _table(finished, "policy_values").set_index("policy")
    for row in values.loc[["menu", "segments_features_tree"]].itertuples():
        assert row.captured_of_control_low < row.captured_of_control < row.captured_of_control_high
    # one treatment for all is as good as any here: of what may be nothing, no share is known
    assert values.filter(regex="of_uniform_(low|high)").isna().all(axis=None)


def test_segments_describe_all_units(finished: Run) -> None:
    segments = _table(finished, "segments")
    assert segments["size"].sum() == finished.result(ScoreResult).units
    for means in segments["feature_means"]:
        channels = [share for name, share in means.items() if name.startswith("channel=")]
        assert sum(channels) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def rerun(finished: Run, promotions: Promotions, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run like the first, of tables in another order and with other settings of Spark.

    One at a time the settings have a slow test (test_settings.py).
    """
    from coarse_spark.pipeline import run_all

    spark, folder = finished.spark, tmp_path_factory.mktemp("rerun")
    shutil.copytree(promotions.tables, folder / "tables")
    shuffled = {}
    for name in ("experiment", "population"):
        shuffled[f"{name}__path"] = str(folder / name)
        rows = spark.read.format("delta").load(promotions.paths[name])
        rows.orderBy("past_spend").repartition(7, "age").write.format("delta").save(
            str(folder / name)
        )
    configuration = promotions.configure(output__path=folder / "tables", **shuffled)
    with _settings(
        spark,
        {
            "spark.sql.shuffle.partitions": "5",
            "spark.sql.session.timeZone": "Asia/Kathmandu",
            "spark.sql.ansi.enabled": "false",
            "spark.sql.caseSensitive": "true",
            "spark.sql.execution.arrow.maxRecordsPerBatch": "100",
            "spark.sql.adaptive.enabled": "true",
            "spark.sql.codegen.wholeStage": "true",
        },
    ):
        return run_all(spark, configuration, "again")


@pytest.mark.slow
def test_a_run_whose_models_fail_is_not_published(
    spark: SparkSession, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline import run_all

    # a market whose mean outcome is negative has no relative responses; no failure is tolerated
    configuration = promotions.configure(
        output__path=tmp_path / "tables",
        experiment__path=_one_market_at_a_loss(spark, promotions, tmp_path),
        response__max_failed_share=0,
        response__scale="relative",
    )
    with pytest.raises(RunError, match=r"market=capital.*the mean outcome is -"):
        run_all(spark, configuration, "failed")
    record = Lake(spark, path=str(tmp_path / "tables")).read("runs", "failed").collect()[0]
    assert (record["status"], record["published_at"]) == ("failed", None)
    assert record["error"].startswith("fit: ")


@pytest.mark.long
def test_a_logistic_scale_wants_chances_or_shares(
    spark: SparkSession, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import run_all

    configuration = promotions.configure(
        output__path=tmp_path / "tables", response__scale="logistic"
    )
    with pytest.raises(InvalidInputError, match=r"outcomes lie from .*, expected from 0 to 1: .*"):
        run_all(spark, configuration, "spend")


def _one_market_at_a_loss(spark: SparkSession, promotions: Promotions, folder: Path) -> str:
    from pyspark.sql import functions as F

    table = spark.read.format("delta").load(promotions.paths["experiment"])
    outcome = F.col(promotions.configure().experiment.outcome)
    loss = F.when(F.col("market") == "capital", -outcome / 100).otherwise(outcome)
    table = table.withColumn(promotions.configure().experiment.outcome, loss)
    table.write.format("delta").save(str(folder / "broken"))
    return str(folder / "broken")


@contextmanager
def _settings(spark: SparkSession, changes: dict[str, str]) -> Iterator[None]:
    before = {name: spark.conf.get(name) for name in changes}
    assert not before.items() & changes.items(), "they should be other settings"
    for name, value in changes.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def _assignments(run: Run) -> pd.DataFrame:
    return _table(run, "assignments").sort_values("unit_id", ignore_index=True)


@pytest.mark.long
def test_another_run_moves_the_view_and_leaves_rows_alone(rerun: Run, finished: Run) -> None:
    current = rerun.lake.current_assignments().select("run_id").distinct().collect()
    assert [row["run_id"] for row in current] == ["again"]
    for name in ("assignments", "models", "runs"):
        counts = rerun.lake.read(name).groupBy("run_id").count().collect()
        rows = finished.lake.read(name).count()
        assert {row["run_id"]: row["count"] for row in counts} == {"first": rows, "again": rows}
    kept = rerun.lake.read("assignments", "first").toPandas()
    pd.testing.assert_frame_equal(
        kept.drop(columns="run_id").sort_values("unit_id", ignore_index=True),
        _assignments(finished),
    )


@pytest.mark.long
def test_same_seed_same_menu_and_assignments_whatever_partitions_and_order(
    rerun: Run, finished: Run
) -> None:
    runs = (finished, rerun)
    order = ["k", "treatment_id"]
    columns = [*order, "depth", "days", "share"]
    one, two = (_table(run, "menu").sort_values(order)[columns].to_numpy(float) for run in runs)
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-9)
    one, two = (_assignments(run)[["unit_id", "treatment_id"]] for run in runs)
    np.testing.assert_array_equal(two.to_numpy(), one.to_numpy())
    one, two = (
        _table(run, "policy_values").sort_values(["policy", "k"])["value"].to_numpy()
        for run in runs
    )
    # each unit's own best treatment is located to about 1e-8 of its range, and values move with it
    np.testing.assert_allclose(two, one, rtol=1e-7)


def test_steps_one_by_one_need_their_order_and_their_configuration(
    spark: SparkSession, promotions: Promotions, empty: Path, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import assign, choose, open_run, start_run

    configuration = promotions.configure(output__path=tmp_path / "tables")
    with pytest.raises(TableError, match="does not exist yet"):
        open_run(spark, configuration)
    shutil.copytree(empty, tmp_path / "tables")
    start_run(spark, configuration, "stepwise").close()
    run = open_run(spark, configuration)
    assert run.run_id == "stepwise"
    with pytest.raises(TableError, match="no size is selected yet; run 'evaluate' before 'assign'"):
        assign(run)
    with pytest.raises(TableError, match="no result of the step 'fit' yet; run the step 'fit'"):
        choose(run)
    with pytest.raises(InvalidInputError, match="another configuration"):
        open_run(spark, promotions.configure(output__path=tmp_path / "tables", menu__seed=9))
