"""The whole run through Spark Connect: a client without Java, a server of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from spark_processes import (
    assert_same_result,
    connect_server,
    environment,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Connect server on this machine."""
    with connect_server(tmp_path_factory.mktemp("server") / "server.log") as address:
        yield address


def _client(server: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # without a Java, nothing can quietly run in the client's own process
    own = environment(SPARK_REMOTE=server, JAVA_HOME=str(folder / "no-java"))
    command = [sys.executable, "-m", "coarse_spark.cli", *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, env=own, cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture
def config(promotions: Promotions, tmp_path: Path) -> Path:
    path = tmp_path / "promotions.yml"
    path.write_text(promotions.configure(output__path=tmp_path / "tables").to_json())
    return path


def test_run_through_a_remote_session(
    server: str, finished: Run, config: Path, tmp_path: Path
) -> None:
    done = _client(server, tmp_path, "run", "--config", config, "--run-id", "connect")
    assert done.returncode == 0, done.stderr[-5000:]
    assert "(run connect)" in done.stdout
    assert "Choice of K:" in done.stdout
    assert_same_result(finished, tmp_path / "tables", "connect")
    asked = ["--set", "frontier.budgets=[1]"]
    done = _client(server, tmp_path, "frontier", "--config", config, *asked)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "What another budget would buy" in done.stdout


COUNTED = """
from pyspark.sql import SparkSession
from coarse_spark import progress

class Lines:
    show, clear = staticmethod(print), staticmethod(lambda: None)

progress.SHOWN = 0.1
spark = SparkSession.builder.getOrCreate()
with progress.display_on(Lines()), progress.of("sum", spark):
    # longer than the server is silent about tasks
    spark.range(0, 1_000_000_000, 1, 24).selectExpr("sum(sqrt(id) * sin(id))").collect()
"""


def test_remote_tasks_are_counted(server: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        env=environment(SPARK_REMOTE=server, JAVA_HOME=str(tmp_path / "no-java")),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert re.search(r"sum: \d+ of 24 tasks, \d+ s", done.stdout), done.stdout


def test_remote_errors_are_as_readable_as_local_ones(
    server: str, spark: SparkSession, config: Path, tmp_path: Path
) -> None:
    missing = _client(
        server, tmp_path, "validate", "--config", config, "--set", "experiment.path=nowhere"
    )
    assert missing.returncode == 2
    assert "error: experiment: " in missing.stderr
    assert "(delta) cannot be read" in missing.stderr
    assert "Traceback" not in missing.stderr

    lost = tmp_path / "population"
    spark.read.format("delta").load(
        json.loads(config.read_text())["population"]["path"]
    ).write.format("delta").save(str(lost))
    for file in lost.glob("*.parquet"):
        file.unlink()
    failed = _client(
        server,
        tmp_path,
        "run",
        "--config",
        config,
        "--run-id",
        "lost",
        "--set",
        f"population.path={lost}",
    )
    assert failed.returncode == 1
    assert "error: step 'validate' failed: " in failed.stderr
    assert "FILE_NOT_EXIST" in failed.stderr or "does not exist" in failed.stderr
    assert "Traceback" not in failed.stderr
