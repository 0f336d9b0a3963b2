"""Many runs in one session: what the last one leaves is no more than what an early one left.

COARSE_SPARK_SOAK=200 python -m pytest -s tests/spark/test_soak.py      makes that many
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from command_line import QUICK, THORNTON, own_environment, run_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(3600)]

RUNS = int(os.environ.get("COARSE_SPARK_SOAK", "20"))
SETTLED = 3  # runs after which everything that is kept once is there
MEGABYTES = {"python": 10, "heap": 25}  # by which memory may differ, whatever the number of runs


def _left(spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Return what is there now, after both collectors of garbage."""
    java: Any = spark._jvm
    context: Any = spark.sparkContext._jsc
    for _ in range(3):
        gc.collect()  # objects of Java that Python holds
        java.java.lang.System.gc()
        time.sleep(0.5)  # Spark's cleaner goes after the collector
    runtime = java.java.lang.Runtime.getRuntime()
    kept = context.getPersistentRDDs()
    factory = java.java.lang.management.ManagementFactory
    names = Counter(str(one.name()).split(" - ")[0].split("#")[0][:40] for one in kept.values())
    return {
        "python": psutil.Process().memory_info().rss / 2**20,
        "heap": (runtime.totalMemory() - runtime.freeMemory()) / 2**20,
        "threads": threading.active_count(),
        "threads of Java": factory.getThreadMXBean().getThreadCount(),
        "views": spark.sql("SHOW VIEWS").count(),
        "cached": len(kept),
        "names": dict(names),
        "temporary files": sum(len(files) for _, _, files in os.walk(folder / "temporary")),
    }


def main(folder: Path, runs: int) -> None:
    """Make runs on a session of this process; print what is left after each, one JSON a line."""
    from coarse_spark.lake.session import open_session

    temporary = tempfile.gettempdir()
    options = QUICK["spark.driver.extraJavaOptions"] + f" -Djava.io.tmpdir={temporary}"
    local = {"spark.local.dir": temporary, "spark.driver.extraJavaOptions": options}
    spark = open_session(master="local[2]", shuffle_partitions=2, conf={**QUICK, **local})
    changes = {
        "output.path": folder / "tables",
        "response.learner": "sieve",
        "response.folds": 2,
        "menu.sizes": "1-2",
        "menu.starts": 1,
        "evaluation.resamples": 0,
        "evaluation.comparisons": "[]",
    }
    given = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    for number in range(runs):
        report = ["--run-id", f"run-{number}", "--report", folder / "page.html"]
        start = time.monotonic()
        done = run_command("run", "--config", THORNTON, *given, *report)
        assert done.code == 0, done.err
        left = {"seconds": time.monotonic() - start, **_left(spark, folder)}
        print(json.dumps(left), flush=True)


def test_nothing_grows_from_run_to_run(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(RUNS)],
        env=own_environment(TMPDIR=str(temporary)),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    left = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for one in left:
        print(one)
    assert len(left) == RUNS
    early, late = left[SETTLED - 1], left[-1]
    # pools and caches breathe; what one run in two leaves is a leak
    for name in ("threads", "threads of Java", "views", "cached", "temporary files"):
        assert late[name] - early[name] <= (RUNS - SETTLED) // 2, name
    for name, most in MEGABYTES.items():
        assert late[name] - early[name] <= most, name


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
