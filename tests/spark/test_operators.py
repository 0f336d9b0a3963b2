"""What is published is whole and final; operators look at runs, move readers and clean up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from command_line import Outcome, on_the_same_responses, run_command
from pyspark.sql import functions as F

from coarse_spark.errors import RunError, RunFinalError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.long]


@pytest.fixture(scope="module")
def assigned(
    finished: Run, promotions: Promotions, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run "second" that is not published, beside the published "first"; copy its output."""
    folder = tmp_path_factory.mktemp("operators") / "tables"
    shutil.copytree(str(finished.lake.path), folder)
    configuration = promotions.configure(output__path=folder, menu__select=2)
    with on_the_same_responses(finished, configuration, "second") as run:
        return run


@pytest.fixture
def output(assigned: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(str(assigned.lake.path), tmp_path / "tables"))


def _runs(command: str, *arguments: object, output: Path) -> Outcome:
    return run_command("runs", command, *arguments, "--output", output)


def _current(spark: SparkSession, output: Path) -> set[str]:
    from coarse_spark.lake.tables import Lake

    rows = Lake(spark, path=str(output)).current_assignments().select("run_id").distinct()
    return {row["run_id"] for row in rows.collect()}


def _refused(outcome: Outcome, *fragments: str, code: int = 2) -> None:
    assert outcome.code == code, outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    for fragment in fragments:
        assert fragment in outcome.err


def test_runs_are_published_taken_back_and_pruned(spark: SparkSession, output: Path) -> None:
    listed = _runs("list", output=output).out.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["second", "open"], ["first", "current"]]
    _refused(_runs("rollback", output=output), "no earlier published run")
    _refused(_runs("fail", "first", output=output), "run first is published", "rollback")

    assert _runs("publish", "second", output=output).out == "run second is published\n"
    assert _current(spark, output) == {"second"}
    again = _runs("publish", "second", output=output)
    assert again.out == "run second is the current one already\n"

    before = _rows(spark, output, "assignments", "first")
    back = _runs("rollback", output=output)
    assert back.out == "run first is the current one again; run second is withdrawn\n"
    assert _current(spark, output) == {"first"}
    pd.testing.assert_frame_equal(_rows(spark, output, "assignments", "first"), before)
    shown = _runs("show", "second", output=output).out
    for words in ("withdrawn; it was published at", "nobody", "step choose"):
        assert words in shown

    assert "current one again" in _runs("publish", "second", output=output).out
    assert _current(spark, output) == {"second"}

    dry = _runs("prune", "--keep", 1, "--dry-run", output=output).out.splitlines()
    assert dry[0] == "1 run would be removed: first"
    assert any(line.startswith("VACUUM") and "/assignments" in line for line in dry)
    assert len(_rows(spark, output, "assignments", "first")) == len(before)
    pruned = _runs("prune", "--keep", 1, output=output).out.splitlines()
    assert pruned == ["1 run removed: first", *dry[1:]]
    for table in ("models", "responses", "menu", "assignments", "policy_values", "segments"):
        assert _rows(spark, output, table, "first").empty
    assert _rows(spark, output, "runs", "first")["status"].tolist() == ["pruned"]
    assert len(_rows(spark, output, "assignments", "second")) == len(before)
    _refused(_runs("publish", "first", output=output), "run first was pruned")
    assert _runs("prune", "--keep", 1, output=output).out == "0 runs removed: -\n"


def _rows(spark: SparkSession, output: Path, table: str, run_id: str) -> pd.DataFrame:
    from coarse_spark.lake.tables import Lake

    rows = Lake(spark, path=str(output)).read(table, run_id).toPandas()
    return rows.sort_values(rows.columns[1], ignore_index=True) if table != "runs" else rows


def test_a_published_run_is_final(
    spark: SparkSession, finished: Run, promotions: Promotions, output: Path
) -> None:
    before = {name: _rows(spark, output, name, "first") for name in ("runs", "assignments")}
    elsewhere = ("--config", promotions.config, "--set", f"output.path={output}")
    again = run_command("run", *elsewhere, "--run-id", "first", "--report", output / "page.html")
    assert again.code == 0, again.err
    assert "run first is published already" in again.err
    assert "Choice of K:" in again.out
    for command in ("fit", "choose", "evaluate", "assign"):
        _refused(
            run_command(command, *elsewhere, "--run-id", "first"),
            "first was published; it is final",
        )
    other = run_command("run", *elsewhere, "--run-id", "first", "--set", "menu.seed=5")
    _refused(other, "run first was started with another configuration")
    from coarse_spark.lake.contract import ASSIGNMENTS
    from coarse_spark.lake.lease import Lease
    from coarse_spark.lake.runs import RunRecord
    from coarse_spark.lake.tables import Lake

    for name, rows in before.items():
        pd.testing.assert_frame_equal(_rows(spark, output, name, "first"), rows)
    lake = Lake(spark, path=str(output))
    with pytest.raises(RunFinalError, match="first is published"):
        Lease(lake, RunRecord.load(lake, "first")).replace(ASSIGNMENTS, before["assignments"])


def test_a_run_that_was_given_up_starts_anew(
    spark: SparkSession, promotions: Promotions, output: Path
) -> None:
    from coarse_spark.lake.runs import RunRecord
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline import start_run

    assert "given up" in _runs("fail", "second", output=output).out
    lake = Lake(spark, path=str(output))
    assert RunRecord.load(lake, "second").status == "abandoned"
    elsewhere = ("--config", promotions.config, "--set", f"output.path={output}")
    elsewhere = (*elsewhere, "--set", "menu.select=2", "--run-id", "second")
    _refused(run_command("choose", *elsewhere), "run second was given up")
    anew = start_run(
        spark, promotions.configure(output__path=output, menu__select=2), "second", resume=True
    )
    assert not anew.record.results
    anew.close()


def _replace(
    spark: SparkSession, output: Path, table: str, change: Callable[[DataFrame], DataFrame]
) -> None:
    from coarse_spark.lake.contract import TABLES
    from coarse_spark.lake.tables import Lake

    lake = Lake(spark, path=str(output))
    rows = change(lake.read(table, "second").drop("run_id"))
    lake.replace(TABLES[table], "second", rows.localCheckpoint())


def test_tables_that_do_not_belong_together_are_not_published(
    spark: SparkSession, output: Path
) -> None:
    some, others = F.expr("unit_id % 100 = 7"), F.expr("unit_id % 100 = 9")

    def assignments(rows: DataFrame) -> DataFrame:
        twice = F.when(some, F.col("unit_id") + 1).otherwise(F.col("unit_id"))
        moved = F.when(others, F.col("depth") + 1e-9).otherwise(F.col("depth"))
        return rows.withColumns({"unit_id": twice, "depth": moved})

    _replace(spark, output, "assignments", assignments)
    _replace(spark, output, "menu", lambda rows: rows.withColumn("selected", F.lit(True)))
    _replace(spark, output, "models", lambda rows: rows.where("partition = '<pooled>'"))
    _replace(spark, output, "segments", lambda rows: rows.withColumn("size", F.col("size") + 1))
    _refused(
        _runs("publish", "second", output=output),
        "error: run second cannot be published: ",
        "table 'assignments' is about other units than 'responses', or some twice; ",
        "the selected menu has 6 treatments, expected the 2 that were assigned; ",
        "30 units have a treatment that is not on the selected menu; ",
        "table 'models' has 1 fitted partitions, expected 3; ",
        "table 'segments' counts other units than 'assignments' has; nothing was published",
        code=1,
    )
    _replace(spark, output, "assignments", lambda rows: rows.where(~others))
    told = "2970 units have an assignment, expected 3000"
    _refused(_runs("publish", "second", output=output), told, code=1)
    assert _current(spark, output) == {"first"}
    assert _rows(spark, output, "runs", "second")["status"].tolist() == ["failed"]


def test_a_population_that_is_not_the_assigned_one_is_not_published(
    assigned: Run, promotions: Promotions, output: Path, tmp_path: Path
) -> None:
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline.checks import check_publishable

    spark = assigned.spark
    run = changed(assigned, lake=Lake(spark, path=str(output)))
    check_publishable(run)
    people = spark.read.format("delta").load(promotions.paths["population"])
    run.population = people.withColumn("unit_id", people["unit_id"] + 1)
    with pytest.raises(RunError, match="not those of the population's units"):
        check_publishable(run)


def test_a_loss_against_the_current_run_is_not_published(
    assigned: Run, finished: Run, promotions: Promotions, output: Path
) -> None:
    from coarse_spark.lake.contract import POLICY_VALUES
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline.checks import check_publishable

    lake = Lake(assigned.spark, path=str(output))
    values = finished.lake.read("policy_values", "first").drop("run_id").toPandas()
    values["value"] -= 0.5
    lake.replace(POLICY_VALUES, "second", values)
    for margin, fails in ((0.1, True), (2.0, False)):
        declared = promotions.configure(
            output__path=output, menu__select=2, evaluation__max_loss_to_current=margin
        )
        run = changed(assigned, lake=lake, declared=declared)
        if fails:
            with pytest.raises(RunError, match=r"below that of the current run first.*= 0\.1"):
                check_publishable(run)
        else:
            check_publishable(run)


def test_a_run_without_its_honest_values_is_not_published(finished: Run, output: Path) -> None:
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline.checks import check_publishable

    lake = Lake(finished.spark, path=str(output))
    lake.remove("policy_values", ["first"])
    with pytest.raises(RunError, match="'policy_values' is empty, expected what 'evaluate' found"):
        check_publishable(changed(finished, lake=lake), population=False)


def test_commands_need_to_know_where_the_runs_are(promotions: Promotions, output: Path) -> None:
    _refused(run_command("runs", "list"), "expected either --config or --output")
    both = ("--config", promotions.config, "--output", output)
    _refused(run_command("runs", "list", *both), "expected either --config or --output")
    _refused(
        _runs("show", "secnd", output=output), "there is no run 'secnd'", "did you mean 'second'"
    )
    _refused(_runs("list", output=output / "nowhere"), "does not exist yet")
    assert json.loads(promotions.config.read_text())["output"]["path"]
    listed = run_command("runs", "list", "--config", promotions.config)
    assert "first" in listed.out


def test_a_run_repeated_on_its_snapshot_gives_the_same_assignments(
    spark: SparkSession, promotions: Promotions, output: Path, tmp_path: Path
) -> None:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline.operate import repeated

    lake = Lake(spark, path=str(output))
    elsewhere = promotions.configure(
        output__path=tmp_path / "elsewhere", menu__seed=7, menu__previous_run="current"
    )
    configuration, inputs = repeated(lake, elsewhere, "first")
    record = lake.read("runs", "first").collect()[0]
    assert configuration.fingerprint() == record["config_hash"]
    assert configuration.output == elsewhere.output
    assert inputs == record["inputs"]
    assert load_configuration(promotions.config).fingerprint() == record["config_hash"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    spark: SparkSession, promotions: Promotions, output: Path
) -> None:
    before = _runs("list", output=output).out
    elsewhere = ("--config", promotions.config, "--set", f"output.path={output}")
    told = run_command("run", *elsewhere, "--dry-run")
    assert told.code == 0, told.err
    for words in (
        f"would read experiment: {promotions.paths['experiment']}, version 0@",
        f"would read population: {promotions.paths['population']}, version 0@",
        "would fit 6,000 of 6,000 experiment rows: 2 of 12 partitions with models of their own",
        "would score and assign 3,000 units, choosing menus of 1, 2, 3 treatments",
        "by the times of run first",
    ):
        assert words in told.out
    assert _runs("list", output=output).out == before


def test_plans_are_told_as_far_as_a_run_is_done_and_nothing_is_run(
    spark: SparkSession, promotions: Promotions, output: Path, tmp_path: Path
) -> None:
    before = _runs("list", output=output).out
    elsewhere = ("--config", promotions.config, "--set", f"output.path={output}")
    told = run_command("run", *elsewhere, "--explain", "--run-id", "first")
    assert told.code == 0, told.err
    titles = re.findall(r"^== (\w+): ", told.out, flags=re.MULTILINE)
    assert titles == ["fit", "score", "choose", "assign"]
    texts = re.split(r"^== \w+: .*$", told.out, flags=re.MULTILINE)[1:]
    plans = dict(zip(titles, texts, strict=True))
    assert all("Physical Plan" in plan for plan in plans.values())
    assert "FlatMapCoGroupsInPandas" in plans["score"]
    assert not re.search("Python|Pandas|Arrow", plans["assign"])  # native expressions alone
    assert _runs("list", output=output).out == before
    fresh = ("--config", promotions.config, "--set", f"output.path={tmp_path / 'none'}")
    told = run_command("run", *fresh, "--explain")
    assert told.code == 0, told.err
    assert re.findall(r"^== [\w, ]+: .*$", told.out, flags=re.MULTILINE) == [
        "== fit: the experiment's units",
        "== score, choose, assign: no plan before a run has done step 'fit'",
    ]
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_inputs_that_change_do_not_change_a_run_nor_its_repetition(
    spark: SparkSession, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import assign, choose, evaluate, fit, publish, score, start_run

    data = {name: tmp_path / name for name in ("experiment", "population")}
    for name, path in data.items():
        shutil.copytree(promotions.paths[name], path)
    settings = {f"{name}.path": path for name, path in data.items()}
    settings["output.path"] = tmp_path / "tables"
    overrides = {key.replace(".", "__"): value for key, value in settings.items()}
    with start_run(spark, promotions.configure(**overrides), "a") as run:
        for step in (fit, score, choose):
            step(run)
        trial = spark.read.format("delta").load(str(data["experiment"]))
        spent = trial.withColumn("spend", F.col("spend") + 100).localCheckpoint()
        spent.write.format("delta").mode("overwrite").save(str(data["experiment"]))
        people = spark.read.format("delta").load(str(data["population"]))
        more = people.withColumn("unit_id", F.col("unit_id") + 1_000_000).limit(10)
        more.localCheckpoint().write.format("delta").mode("append").save(str(data["population"]))
        for step in (evaluate, assign, publish):
            step(run)
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    again = run_command(
        "run", "--config", promotions.config, *given, "--repeat", "a", "--run-id", "b"
    )
    assert again.code == 0, again.err
    for name in ("assignments", "policy_values"):
        one, two = (
            _rows(spark, tmp_path / "tables", name, which).drop(columns="run_id")
            for which in ("a", "b")
        )
        order = list(one.columns[:2])
        pd.testing.assert_frame_equal(
            two.sort_values(order, ignore_index=True), one.sort_values(order, ignore_index=True)
        )
    assert one["value"].max() < 50  # the outcomes before the change
