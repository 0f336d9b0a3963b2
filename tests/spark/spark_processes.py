"""Spark programs as processes of their own, on this machine alone.

Their results are compared with those of a local run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyspark

if TYPE_CHECKING:
    from coarse_spark.pipeline import Run

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(pyspark.__file__).parent / "bin"
LOOPBACK = "127.0.0.1"


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a Spark process, with loopback addresses only.

    Every executor has this interpreter and this package.
    """
    own = {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_DAEMON_MEMORY": "512m",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    # a session of this process must not leak into the new one
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SPARK_", "PYSPARK_"))
    }
    return {**inherited, **own, **changes}


def settings(**further: object) -> list[str]:
    """Return the options that give a Spark program Delta, and shuffles fit for small tables."""
    from delta import configure_spark_with_delta_pip
    from pyspark.sql import SparkSession

    # the jars that belong to the installed delta-spark, as the local session takes them
    builder = configure_spark_with_delta_pip(SparkSession.Builder())
    packages = builder._options["spark.jars.packages"]
    values = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": 1,
        "spark.sql.shuffle.partitions": 3,
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": LOOPBACK,
        "spark.driver.host": LOOPBACK,
        **{name.replace("__", "."): value for name, value in further.items()},
    }
    return [
        "--packages",
        packages,
        *(part for name, value in values.items() for part in ("--conf", f"{name}={value}")),
    ]


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Whether somebody listens on a port of the loopback address."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def running(
    command: Sequence[object], log: Path, **changes: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the block, then end it by its own id; what it says goes to ``log``."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=environment(**changes),
            cwd=log.parent,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=30)


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, *, seconds: float = 90
) -> None:
    """Wait until a program that was started is ready.

    Raises
    ------
    AssertionError : it ended or took too long; with the end of its log.
    """
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace")[-3000:]
            state = "ended" if process.poll() is not None else "is not ready"
            raise AssertionError(f"{process.args} {state}:\n{said}")
        time.sleep(0.3)


@contextmanager
def connect_server(log: Path) -> Iterator[str]:
    """Run a Spark Connect server for the block; yield its address."""
    port = free_port()
    address = {
        "spark__connect__grpc__binding__address": LOOPBACK,
        "spark__connect__grpc__binding__port": port,
    }
    service = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command = [PROGRAMS / "spark-submit", "--master", "local[2]", *settings(**address), *service]
    with running(command, log) as process:
        wait_until(lambda: listening(port), process, log, seconds=180)
        yield f"sc://{LOOPBACK}:{port}"


def submit(
    job: str, config: Path, options: Sequence[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a file of ``jobs/`` with spark-submit and return how it ended."""
    command = [
        str(PROGRAMS / "spark-submit"),
        *options,
        str(ROOT / "jobs" / job),
        "--config",
        str(config),
        *arguments,
    ]
    return subprocess.run(
        command,
        env=environment(),
        cwd=config.parent,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def assert_same_result(expected: Run, tables: Path, run_id: str) -> None:
    """Check that a run in the folder ``tables`` has the menus and assignments of ``expected``."""
    from coarse_spark.lake.tables import Lake

    lake = Lake(expected.spark, path=str(tables))
    assert lake.read("runs", run_id).collect()[0]["status"] == "published"
    own, other = (
        {
            name: where.read(name, run)
            .drop("run_id")
            .toPandas()
            .sort_values(key, ignore_index=True)
            for name, key in (
                ("menu", ["k", "treatment_id"]),
                ("assignments", ["unit_id"]),
                ("policy_values", ["policy", "k"]),
            )
        }
        for where, run in ((expected.lake, expected.run_id), (lake, run_id))
    )
    menu = ["k", "treatment_id", "depth", "days", "share", "selected"]
    np.testing.assert_allclose(
        other["menu"][menu].to_numpy(float), own["menu"][menu].to_numpy(float), rtol=0, atol=1e-9
    )
    units = ["unit_id", "treatment_id", "runner_up_treatment_id"]
    pd.testing.assert_frame_equal(other["assignments"][units], own["assignments"][units])
    np.testing.assert_allclose(
        other["policy_values"]["value"], own["policy_values"]["value"], rtol=1e-7
    )
