"""One Spark session, a small simulated promotion and finished runs that tests only look at."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import QUICK, Outcome, own_environment, run_command, thornton_command
from outputs import LAYOUT

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

    from coarse_spark.config.models import Configuration
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline import Run

EXPERIMENT_UNITS, POPULATION_UNITS = 6_000, 3_000
HERE = Path(__file__).parent
CAP = 1_800  # seconds that a test, or the process beside the tests, may take
PROMOTIONS = HERE.parents[1] / "conf" / "promotions.yml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cap every test of Spark.

    Generously: the first of them makes the session and the run that all share, and one that is cut
    off amid a call of Java leaves the session of the others unusable.
    """
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(CAP))


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from coarse_spark.lake.session import open_session

    session = open_session(master="local[2]", shuffle_partitions=2, conf=QUICK)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def prepared(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the empty tables of ``outputs.LAYOUT``: copy it."""
    from coarse_spark.lake.output import prepare
    from coarse_spark.lake.tables import Lake

    folder = tmp_path_factory.mktemp("prepared") / "tables"
    prepare(Lake(spark, path=str(folder)), LAYOUT)
    return folder


@pytest.fixture
def lake(spark: SparkSession, prepared: Path, tmp_path: Path) -> Lake:
    """The tables of an output of the test's own, without rows."""
    from coarse_spark.lake.tables import Lake

    return Lake(spark, path=str(shutil.copytree(prepared, tmp_path / "tables")))


@dataclass(frozen=True)
class Promotions:
    """Paths of the simulated tables and a maker of configurations for them.

    Attributes
    ----------
    paths : of the tables, by name.
    configure : returns the configuration with changes.
    config, tables : the file and the output folder of its defaults.
    """

    paths: dict[str, str]
    configure: Callable[..., Configuration]
    config: Path
    tables: Path

    def with_columns(
        self, spark: SparkSession, folder: Path, columns: dict[str, Column]
    ) -> dict[str, str]:
        """Write both tables with further columns; return where, by key of ``configure``."""
        places = {}
        for name in ("experiment", "population"):
            place = places[f"{name}__path"] = str(folder / name)
            units = spark.read.format("delta").load(self.paths[name])
            units.withColumns(columns).write.format("delta").save(place)
        return places


@pytest.fixture(scope="session")
def promotions(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Promotions:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.simulate.tables import write_promotions

    folder = tmp_path_factory.mktemp("promotions")
    paths = write_promotions(
        spark, POPULATION_UNITS, str(folder / "data"), experiment_units=EXPERIMENT_UNITS, seed=1
    )

    def configure(**overrides: object) -> Configuration:
        defaults = {
            "experiment.path": paths["experiment"],
            "population.path": paths["population"],
            "output.path": folder / "tables",
            # few features: these tests are about tables and repeatability, not about the last bit
            # of accuracy
            "experiment.features": "[past_spend, visits, channel]",
            "response.learner": "sieve",
            "response.folds": 2,
            "response.min_rows": 800,
            "menu.sizes": "1-3",
            "menu.sketch_cells": 500,
            "menu.starts": 3,
            "evaluation.resamples": 0,
        }
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_configuration(
            PROMOTIONS, {key: str(value) for key, value in {**defaults, **given}.items()}
        )

    config = folder / "promotions.yml"
    # what a run records as its configuration is itself a configuration file: JSON is YAML
    config.write_text(configure().to_json())
    return Promotions(paths, configure, config, folder / "tables")


@pytest.fixture(scope="session")
def published(spark: SparkSession, promotions: Promotions) -> Outcome:
    """The command that made the run "first"."""
    return run_command("run", "--config", promotions.config, "--run-id", "first")


@pytest.fixture(scope="session")
def finished(spark: SparkSession, promotions: Promotions, published: Outcome) -> Iterator[Run]:
    """The run "first"; its tables are everybody's: start others in a copy of them."""
    from coarse_spark.pipeline import read_run

    assert published.code == 0, published.err
    run = read_run(spark, promotions.configure(), "first")
    yield run
    runs = run.lake.read("runs").select("run_id").collect()
    assert [row["run_id"] for row in runs] == ["first"]


@pytest.fixture(scope="session")
def empty(
    spark: SparkSession, promotions: Promotions, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the empty tables of the promotions: copy it."""
    from coarse_spark.lake.output import prepare
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline.settings import output_layout, read_tables

    folder = tmp_path_factory.mktemp("empty") / "tables"
    configuration = promotions.configure()
    layout = output_layout(configuration, *read_tables(spark, configuration))
    prepare(Lake(spark, path=str(folder)), layout)
    return folder


@dataclass(frozen=True)
class Process:
    """A command that ended in a process of its own, and the output folder of its run "process"."""

    done: subprocess.CompletedProcess[str]
    tables: Path


@pytest.fixture(scope="session", autouse=True)
def thornton_started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Process] | None]:
    """The run of ``thornton``, beside the tests that come before the first that asks for it."""
    if not any("thornton" in getattr(test, "fixturenames", ()) for test in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("thornton")

    def run() -> Process:
        done = subprocess.run(
            thornton_command(folder / "tables"),
            env=own_environment(),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=CAP,
            check=False,
        )
        return Process(done, folder / "tables")

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


@pytest.fixture(scope="session")
def thornton(thornton_started: Future[Process]) -> Process:
    """A small run on the field experiment of Thornton, on a Spark session of its own."""
    return thornton_started.result()
