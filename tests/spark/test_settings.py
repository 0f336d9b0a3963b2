"""One whole run under every setting of Spark that might have a say in it, one at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checksums import assert_equal, tables_of
from command_line import QUICK, own_environment, run_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1200)]

ADAPTIVE = "spark.sql.adaptive.enabled"
OF_A_SESSION = {
    "nothing changed": {},
    "ANSI off": {"spark.sql.ansi.enabled": "false"},
    "Asia/Kathmandu": {"spark.sql.session.timeZone": "Asia/Kathmandu"},
    "America/St_Johns": {"spark.sql.session.timeZone": "America/St_Johns"},
    "case sensitive": {"spark.sql.caseSensitive": "true"},
    "adaptive": {ADAPTIVE: "true"},
    "adaptive, nothing coalesced": {
        ADAPTIVE: "true",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    },
    "1 shuffle partition": {"spark.sql.shuffle.partitions": "1"},
    "200 shuffle partitions": {"spark.sql.shuffle.partitions": "200"},
    "Arrow batches of 100": {"spark.sql.execution.arrow.maxRecordsPerBatch": "100"},
}
# no session can change these; in local mode Spark never speculates
OF_A_PROCESS = {
    "Python workers used once": ("local[2]", {"spark.python.worker.reuse": "false"}),
    "speculation": (
        "local-cluster[2,1,1024]",
        {
            "spark.speculation": "true",
            "spark.speculation.quantile": "0.1",
            "spark.speculation.multiplier": "1.0",
            "spark.speculation.minTaskRuntime": "10ms",
            "spark.executor.memory": "512m",
        },
    ),
}


@pytest.fixture(scope="module")
def every_kind(
    spark: SparkSession, promotions: Promotions, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Changes of the configuration by which a run passes every kind of query.

    Partitions with models of their own, in shards, and without; strata of instants, clusters,
    weights, eligibility, limits on shares and a budget.
    """
    from pyspark.sql import functions as F

    number = F.pmod(F.xxhash64("unit_id"), F.lit(100))
    later = F.when(number % 2 == 0, F.lit("2024-03-31 00:30:00+00:00"))
    places = promotions.with_columns(
        spark,
        tmp_path_factory.mktemp("kinds"),
        {
            "household": F.concat(F.lit("h"), F.floor(F.col("unit_id") / 2)),
            "weighs": F.lit(0.5) + number / 100,
            "wave": F.coalesce(later, F.lit("2024-06-01 22:00:00+00:00")).cast("timestamp"),
            "reachable": F.when(number > 9, number > 30),
        },
    )
    return {
        **places,
        "experiment__partition_by": "[market, wave]",
        "experiment__strata": "[wave]",
        "experiment__cluster": "household",
        "experiment__weight": "weighs",
        "population__weight": "weighs",
        "design__kind": "stratified",
        "response__min_rows": "400",
        "response__max_rows": "700",
        "response__max_failed_share": "1",
        "menu__sizes": "2-3",
        "menu__sketch_cells": "300",
        "menu__starts": "1",
        "menu__eligibility": '{reachable: "days > 0"}',
        "menu__min_share": "0.1",
        "menu__max_share": "0.7",
        "menu__budget": "2.0",
        "menu__spending_per_outcome": "depth / 100",
        "evaluation__resamples": "2",
    }


@contextmanager
def set_to(spark: SparkSession, changes: dict[str, str]) -> Iterator[None]:
    before = {name: spark.conf.get(name) for name in changes}
    try:
        for name, value in changes.items():
            assert before[name] != value, f"{name} is {value} anyway"
            spark.conf.set(name, value)
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def configured(promotions: Promotions, every_kind: dict[str, str], folder: Path) -> Path:
    config = folder / "settings.yml"
    changed = promotions.configure(**every_kind, output__path=folder / "tables")
    config.write_text(changed.to_json())
    return config


@pytest.fixture(scope="module")
def plain(
    spark: SparkSession,
    promotions: Promotions,
    every_kind: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tables of the run "one" under the settings of all tests."""
    folder = tmp_path_factory.mktemp("plain")
    done = run_command(
        "run", "--config", configured(promotions, every_kind, folder), "--run-id", "one"
    )
    assert done.code == 0, done.err
    (warnings,) = tables_of(folder / "tables", "one")["runs"]["warnings"]
    assert any("more rows than response.max_rows = 700, the largest" in told for told in warnings)
    return folder / "tables"


@pytest.mark.parametrize("changes", OF_A_SESSION.values(), ids=OF_A_SESSION)
def test_settings_of_a_session(
    spark: SparkSession,
    promotions: Promotions,
    every_kind: dict[str, str],
    plain: Path,
    tmp_path: Path,
    changes: dict[str, str],
) -> None:
    config = configured(promotions, every_kind, tmp_path)
    with set_to(spark, changes):
        done = run_command("run", "--config", config, "--run-id", "one")
    assert done.code == 0, done.err
    assert_equal(tables_of(tmp_path / "tables", "one"), tables_of(plain, "one"))


@pytest.mark.parametrize(("master", "conf"), OF_A_PROCESS.values(), ids=OF_A_PROCESS)
def test_settings_of_a_process(
    promotions: Promotions,
    every_kind: dict[str, str],
    plain: Path,
    tmp_path: Path,
    master: str,
    conf: dict[str, str],
) -> None:
    config = configured(promotions, every_kind, tmp_path)
    session = [
        f"spark.master={master}",
        "spark.shuffle_partitions=2",
        f"spark.conf={json.dumps({**QUICK, **conf})}",
    ]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "coarse_spark.cli", "run", "--config", config),
            *("--run-id", "one", *(part for one in session for part in ("--set", one))),
        ],
        env=own_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert_equal(tables_of(tmp_path / "tables", "one"), tables_of(plain, "one"))
