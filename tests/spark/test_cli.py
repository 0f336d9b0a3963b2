"""The command line as a person meets it: output, exit codes, one readable message for a fault."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from command_line import THORNTON, Outcome, own_environment, run_command, thornton_command

import coarse_spark
from coarse_spark.cli import guarded
from coarse_spark.core.learners.record import FORMAT_VERSION
from coarse_spark.errors import RunError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline import Run

    from .conftest import Process, Promotions

pytestmark = pytest.mark.spark


def _refused(outcome: Outcome, *fragments: str, code: int = 2) -> None:
    """Check that a command ended with one readable message that has all fragments."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    assert len(re.findall(r"^error: ", outcome.err, flags=re.MULTILINE)) == 1, outcome.err
    for fragment in fragments:
        assert fragment in outcome.err, outcome.err


@pytest.fixture
def config(promotions: Promotions) -> Path:
    return promotions.config


@pytest.fixture
def folder(promotions: Promotions) -> Path:
    return promotions.tables


@pytest.fixture
def lake(spark: SparkSession, folder: Path) -> Lake:
    from coarse_spark.lake.tables import Lake

    return Lake(spark, path=str(folder))


def _rows(lake: Lake, table: str, run_id: str, order: list[str]) -> pd.DataFrame:
    return lake.read(table, run_id).drop("run_id").toPandas().sort_values(order, ignore_index=True)


# --- what a run prints and leaves -----------------------------------------------------------------


def test_run_prints_progress_summary_and_where_everything_is(
    published: Outcome, folder: Path, lake: Lake
) -> None:
    assert published.code == 0, published.err
    for step in ("validate", "fit", "score", "choose", "evaluate", "assign", "publish"):
        assert re.search(
            rf"^[\d:]+  {step} done in [\d.]+ s$", published.err, flags=re.MULTILINE
        ), step
    assert re.search(r"K = 2, pass 1: profit", published.err)
    for words in ("control", "granular", "Choice of K:"):
        assert words in published.out
    assert f"tables: {folder} (run first)" in published.out
    assert f"page:   {folder / 'report.html'}" in published.out
    assert (folder / "report.html").stat().st_size > 10_000
    assert {
        row["run_id"] for row in lake.current_assignments().select("run_id").distinct().collect()
    } == {"first"}


def test_run_tells_machines_one_line_a_step(published: Outcome, lake: Lake) -> None:
    from coarse_spark.lake.runs import RunRecord
    from coarse_spark.lake.step_results import ValidateResult

    lines = re.findall(r'^({"time".*})$', published.err, flags=re.MULTILINE)
    told = {line["step"]: line for line in map(json.loads, lines)}
    steps = ("validate", "fit", "score", "choose", "evaluate", "assign", "publish")
    assert tuple(told) == steps
    assert len(lines) == len(steps)
    record = RunRecord.load(lake, "first")
    found = record.results["validate"]
    assert isinstance(found, ValidateResult)
    for step, line in told.items():
        assert line["run"] == "first"
        assert line["status"] == "done"
        assert line["seconds"] == pytest.approx(record.step_seconds[step], abs=5)
        assert line["cpu_seconds"] > 0
        assert min(line[f"{of}_peak_mb"] for of in ("driver", "java")) > 50
    assert told["fit"]["rows"] == told["evaluate"]["rows"] == found.usable_rows
    assert told["assign"]["rows"] == lake.read("assignments", "first").count()
    assert told["fit"]["workers_peak_mb"] > 50


@pytest.mark.slow
def test_steps_one_by_one_give_what_run_gives(
    spark: SparkSession, finished: Run, config: Path, tmp_path: Path
) -> None:
    from coarse_spark.lake.tables import Lake

    # what is published here must not become current for other tests
    shutil.copytree(str(finished.lake.path), tmp_path / "tables")
    lake = Lake(spark, path=str(tmp_path / "tables"))
    elsewhere = ("--config", config, "--set", f"output.path={lake.path}")
    steps = (*elsewhere, "--set", "evaluation.confidence=0.9")
    assert run_command("fit", *steps, "--run-id", "steps").code == 0
    chosen = run_command("choose", *steps)
    assert chosen.out == "run steps: choose done\n", chosen.err
    _refused(run_command("assign", *steps), "menu.select is auto", "run 'evaluate' before 'assign'")
    _refused(
        run_command("report", *steps),
        "run steps has no result of the step 'evaluate' yet; run the step 'evaluate' first",
    )
    _refused(
        run_command("evaluate", *elsewhere), "run steps was started with another configuration"
    )
    _refused(
        run_command("run", *elsewhere, "--run-id", "steps"),
        "run steps was started with another configuration",
    )
    assert run_command("evaluate", *steps).code == 0
    assert run_command("assign", *steps, "--no-publish").code == 0
    assert {row["run_id"] for row in lake.current_assignments().collect()} == {"first"}
    assert run_command("publish", *steps).code == 0
    assert {row["run_id"] for row in lake.current_assignments().collect()} == {"steps"}

    record = lake.read("runs", "steps").collect()[0]
    assert record["status"] == "published"
    assert record["error"] is None
    assert json.loads(record["config"])["evaluation"]["confidence"] == 0.9
    for table, order in (("menu", ["k", "treatment_id"]), ("assignments", ["unit_id"])):
        pd.testing.assert_frame_equal(
            _rows(lake, table, "steps", order), _rows(lake, table, "first", order), rtol=1e-9
        )


def test_report_of_a_finished_run_writes_its_page_again(
    published: Outcome, config: Path, folder: Path, tmp_path: Path
) -> None:
    page = folder / "report.html"
    page.unlink()
    again = run_command("report", "--config", config, "--run-id", "first")
    assert again.code == 0, again.err
    assert again.out == published.out
    first = page.read_text()
    elsewhere = tmp_path / "pages" / "first.html"
    assert (
        run_command("report", "--config", config, "--run-id", "first", "--report", elsewhere).code
        == 0
    )
    assert elsewhere.read_text() == first
    _refused(
        run_command("report", "--config", config, "--run-id", "first", "--report", tmp_path),
        f"cannot be written to {tmp_path}",
    )


def test_validate_prints_what_it_found(spark: SparkSession, config: Path) -> None:
    found = run_command("validate", "--config", config)
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[0] == f"{config}: the configuration is valid"
    assert lines[1] == "experiment: 6,000 of 6,000 rows usable, in 12 partitions"
    assert lines[2] == "population: 3,000 units"
    assert lines[3].startswith(
        "note: experiment: 10 of 12 partitions have fewer usable rows than response.min_rows = 800"
    )
    without = run_command(
        "validate", "--config", config, "--no-tables", "--set", "experiment.path=nowhere"
    )
    assert without.out.splitlines() == lines[:1]
    earlier = run_command(
        "validate", "--config", config, "--no-tables", "--set", "menu.method=auto"
    )
    note = "note: --set menu.method: menu.method is no longer needed and can be left out"
    assert earlier.out.splitlines() == [lines[0], note]


def test_version() -> None:
    assert run_command("version") == Outcome(0, f"{coarse_spark.__version__}\n", "")


# --- what the user can mend: exit code 2 ----------------------------------------------------------


def test_missing_configuration_file(tmp_path: Path) -> None:
    _refused(
        run_command("run", "--config", tmp_path / "nowhere.yml"),
        "nowhere.yml does not exist",
        "expected a YAML file",
    )


def test_all_problems_of_a_configuration_come_at_once(tmp_path: Path) -> None:
    text = THORNTON.read_text()
    for right, wrong in (
        ("margin: 4 - tinc", "margin: 4 - tink"),
        ("folds: 5", "folds: 1"),
        ("  seed: 0", "  sead: 0"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    path = tmp_path / "wrong.yml"
    path.write_text(text)
    outcome = run_command("run", "--config", path)
    _refused(
        outcome,
        "wrong.yml has 3 problems",
        "did you mean 'tinc'?",
        "found 1, expected",
        "did you mean 'seed'?",
    )
    numbers = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if re.search("4 - tink|folds: 1|sead", line)
    ]
    for number in numbers:
        assert f"{path}:{number}" in outcome.err or f"line {number}" in outcome.err, outcome.err


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["run", "--confg", "x.yml"], ["--confg", "--config"]),
        (["run"], ["--config"]),
        (["rnu"], ["rnu", "run"]),
        (["simulate", "promotions", "--units", "0", "--out", "x"], ["--units", "1"]),
    ],
)
def test_unknown_and_missing_options(arguments: list[str], fragments: list[str]) -> None:
    outcome = run_command(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    for fragment in fragments:
        assert fragment in outcome.err


@pytest.mark.parametrize(
    ("setting", "fragments"),
    [
        ("menu.seed", ["--set menu.seed", "expected key=value"]),
        ("menu.sead=3", ["--set menu.sead", "did you mean 'seed'?"]),
        (
            "menu.select=9",
            ["--set menu.select", "found 9, expected auto or one of menu.sizes: 1, 2, 3"],
        ),
    ],
)
def test_settings_that_cannot_be_used(config: Path, setting: str, fragments: list[str]) -> None:
    _refused(
        run_command("validate", "--config", config, "--no-tables", "--set", setting), *fragments
    )


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        (
            ["experiment.path=nowhere/at-all"],
            ["experiment: ", "nowhere/at-all (delta) cannot be read"],
        ),
        (
            ["experiment.path=null", "experiment.table=nowhere"],
            ["experiment: nowhere cannot be read", "TABLE_OR_VIEW_NOT_FOUND"],
        ),
        (
            ["experiment.features=[tenure_month, past_spend]"],
            [
                "experiment: the feature column 'tenure_month' is missing "
                "(did you mean 'tenure_months'?)",
                "population: the feature",
            ],
        ),
    ],
)
def test_tables_and_columns_that_are_not_there(
    spark: SparkSession,
    config: Path,
    tmp_path: Path,
    command: str,
    settings: list[str],
    fragments: list[str],
) -> None:
    given = [
        part for setting in [*settings, f"output.path={tmp_path}"] for part in ("--set", setting)
    ]
    _refused(run_command(command, "--config", config, *given), *fragments)


@pytest.mark.parametrize("command", ["run", "fit", "choose", "report"])
@pytest.mark.parametrize("run_id", ["x' OR '1'='1", "a b", "../first", ""])
def test_run_ids_that_are_refused(
    published: Outcome, config: Path, command: str, run_id: str
) -> None:
    _refused(
        run_command(command, "--config", config, "--run-id", run_id),
        f"run id {run_id!r}",
        "letters, digits",
    )


def test_a_run_that_is_not_there(published: Outcome, config: Path) -> None:
    _refused(
        run_command("report", "--config", config, "--run-id", "firts"), "there is no run 'firts'"
    )


# --- a run that fails: exit code 1 ----------------------------------------------------------------


def _after_the_first_run(spark: SparkSession, config: Path, run_id: str) -> None:
    """Start a run that goes on from what the steps of the first one found."""
    from coarse_spark.config.load import load_configuration
    from coarse_spark.pipeline import read_run, start_run

    configuration = load_configuration(config)
    with start_run(spark, configuration, run_id) as run:
        for result in read_run(spark, configuration, "first").record.results.values():
            run.keep(result)


def _lose_files(folder: Path) -> None:
    files = list(folder.rglob("*.parquet"))
    assert files
    for file in files:
        file.unlink()


def _lost_population(spark: SparkSession, config: Path, lake: Lake, tmp_path: Path) -> list[object]:
    path = json.loads(config.read_text())["population"]["path"]
    broken = tmp_path / "population"
    spark.read.format("delta").load(path).write.format("delta").save(str(broken))
    _lose_files(broken)
    return ["run", "--set", f"population.path={broken}"]


def _models_of_a_later_version(
    spark: SparkSession, config: Path, lake: Lake, tmp_path: Path
) -> list[object]:
    from pyspark.sql import functions as F

    from coarse_spark.lake.contract import MODELS

    _after_the_first_run(spark, config, "broken-score")
    models = lake.read("models", "first").drop("run_id")
    lake.replace(MODELS, "broken-score", models.withColumn("format_version", F.lit(99)))
    return ["score"]


def _lost_responses(spark: SparkSession, config: Path, lake: Lake, tmp_path: Path) -> list[object]:
    from coarse_spark.lake.contract import RESPONSES

    _after_the_first_run(spark, config, "broken-choose")
    lake.replace(RESPONSES, "broken-choose", lake.read("responses", "first").drop("run_id"))
    _lose_files(Path(str(lake.path)) / "responses" / "run_id=broken-choose")
    return ["choose"]


@pytest.mark.parametrize(
    ("step", "broken", "cause"),
    [
        ("validate", _lost_population, "does not exist"),
        pytest.param(
            "score",
            _models_of_a_later_version,
            "model row has format version 99, this version of coarse_spark reads up to "
            f"{FORMAT_VERSION}",
            marks=pytest.mark.slow,
        ),
        pytest.param("choose", _lost_responses, "does not exist", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_fails_on_executors_says_where_and_why_and_publishes_nothing(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    step: str,
    broken: Callable[..., list[object]],
    cause: str,
) -> None:
    from coarse_spark.lake.tables import Lake

    lake = Lake(spark, path=str(shutil.copytree(promotions.tables, tmp_path / "tables")))
    config = tmp_path / "promotions.yml"
    config.write_text(promotions.configure(output__path=lake.path).to_json())
    current = lake.current_assignments().orderBy("unit_id").toPandas()
    command, *settings = broken(spark, config, lake, tmp_path)
    run_id = f"broken-{step}"
    outcome = run_command(command, "--config", config, "--run-id", run_id, *settings)
    _refused(outcome, f"error: step '{step}' failed: ", cause, code=1)
    assert "Py4J" not in outcome.err
    assert not [warning for warning in recwarn if "Arrow" in str(warning.message)], (
        "a Java stack above the message"
    )
    record = lake.read("runs", run_id).collect()[0]
    assert record["status"] == "failed"
    assert record["published_at"] is None
    assert record["stop_reason"] == f"failed in step '{step}'"
    assert record["error"].startswith(f"{step}: ")
    assert cause in record["error"]
    pd.testing.assert_frame_equal(lake.current_assignments().orderBy("unit_id").toPandas(), current)


def _fail(error: Exception) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


def test_a_bug_gets_a_sentence_above_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(_fail(ZeroDivisionError("division by zero\nand more"))) == 1
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == "error: ZeroDivisionError: division by zero"
    assert second.startswith("Traceback")
    assert guarded(_fail(RunError("step 'fit' failed: why"))) == 1
    assert capsys.readouterr().err == "error: step 'fit' failed: why\n"


# --- processes of their own -----------------------------------------------------------------------


def _java(folder: Path, says: str) -> Path:
    """Write a ``java`` that only says its version, and return its home."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "entry",
    [
        ["-m", "coarse_spark.cli", "validate", "--config", str(THORNTON)],
        ["-m", "coarse_spark.lake.java"],
    ],
)
@pytest.mark.parametrize(
    ("case", "fragments"),
    [
        ("nothing at JAVA_HOME", ["JAVA_HOME is ", "nowhere/bin/java does not exist"]),
        ("no java on PATH", ["no Java was found", "JAVA_HOME is not set and no java is on PATH"]),
        ("version 11", ["bin/java is Java 11."]),
        ("version 8", ["bin/java is Java 8."]),
        ("no version", ["bin/java -version said nothing that names a version"]),
        ("no program", ["bin/java did not run"]),
    ],
)
def test_java_that_spark_cannot_use(
    tmp_path: Path, entry: list[str], case: str, fragments: list[str]
) -> None:
    homes: dict[str, Callable[[], Path]] = {
        "nothing at JAVA_HOME": lambda: tmp_path / "nowhere",
        "version 11": lambda: _java(tmp_path, 'openjdk version "11.0.2" 2019-01-15'),
        "version 8": lambda: _java(tmp_path, 'java version "1.8.0_392"'),
        "no version": lambda: _java(tmp_path, "hello"),
    }
    if case == "no java on PATH":
        environment = own_environment(JAVA_HOME=None, PATH=str(tmp_path))
    elif case == "no program":
        home = _java(tmp_path, "")
        (home / "bin" / "java").chmod(0o644)
        environment = own_environment(JAVA_HOME=str(home))
    else:
        environment = own_environment(JAVA_HOME=str(homes[case]()))
    done = subprocess.run(
        [sys.executable, *entry],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: ")
    assert (
        "Spark needs Java 17, 21 or 25: install it and put it on PATH, or set JAVA_HOME to its "
        "folder." in message
    )
    for fragment in fragments:
        assert fragment in message


def test_a_process_of_its_own_starts_spark_quietly_and_runs_real_data(thornton: Process) -> None:
    done = thornton.done
    assert done.returncode == 0, done.stderr
    assert "2,834 units of the experiment" in done.stdout
    assert f"page:   {thornton.tables / 'report.html'}" in done.stdout
    # progress, warnings and steps' JSON of ours alone: nothing of Ivy's, Spark's or Java's
    ours = re.compile(r"""\d\d:\d\d:\d\d  \S|{"time": .*}$""")
    noise = [line for line in done.stderr.splitlines() if not ours.match(line)]
    assert noise == []


@pytest.mark.slow
def test_a_run_stopped_by_hand_ends_at_once_and_is_recorded(
    spark: SparkSession, tmp_path: Path
) -> None:
    from coarse_spark.lake.tables import Lake

    process = subprocess.Popen(
        thornton_command(tmp_path / "tables"),
        env=own_environment(),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith("fit ..."):
                process.send_signal(signal.SIGINT)
                break
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait(timeout=60)
    assert process.returncode == 130, rest
    assert "stopped" in rest
    assert "Traceback" not in rest
    record = Lake(spark, path=str(tmp_path / "tables")).read("runs", "process").collect()[0]
    assert record["status"] == "failed"
    assert record["error"].startswith("fit: KeyboardInterrupt")
