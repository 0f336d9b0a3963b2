"""What publishing costs at warehouse size: the contract of the tables and the checks.

Prints one JSON object a line.

    python tests/benchmarks/bench_publish.py --units 10000000

The peer is a plain Delta copy of the same assignments, in the same session; a second one is laid
out like the table, a folder a run, which costs Spark a sort and a projection of each row.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from bench_scale import line, problem, timed, write_responses
from pyspark.sql import DataFrame

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.distributed.assign import assign
from coarse_spark.distributed.published import assigned_treatments, unit_set
from coarse_spark.lake.contract import ASSIGNMENTS, OutputLayout
from coarse_spark.lake.output import prepare
from coarse_spark.lake.session import open_session
from coarse_spark.lake.tables import Lake

TREATMENTS = ["t1", "t2"]
NUMBERS = ["expected_profit", "expected_incremental_profit", "regret"]
REPEATS = 3


def check(population: DataFrame, responses: DataFrame, assignments: DataFrame) -> None:
    """Do what ``check_publishable`` reads of tables of all units."""
    sets = [unit_set(table) for table in (population, responses, assignments)]
    assert sets[0] == sets[1] == sets[2]
    groups = assigned_treatments(assignments, TREATMENTS, NUMBERS)
    assert groups["unfit"].sum() == 0


def copy(assignments: DataFrame, folder: Path, *partitions: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    assignments.write.format("delta").partitionBy(*partitions).save(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10_000_000)
    units = parser.parse_args().units
    spark, posed = open_session(driver_memory="6g"), problem()
    folder = Path(tempfile.mkdtemp(prefix="bench-publish-"))
    try:
        write_responses(spark, units, str(folder / "responses"))
        responses = spark.read.format("delta").load(str(folder / "responses"))
        lake = Lake(spark, path=str(folder / "tables"))
        prepare(lake, OutputLayout("bigint", dict.fromkeys(TREATMENTS, "double"), 6))
        menu = PricedMenu.build(posed, posed.candidates[[40, 120, 200, 300, 400]])
        lake.replace(ASSIGNMENTS, "run", assign(responses, posed, menu), 1)
        assignments = lake.read("assignments", "run")
        rows = assignments.drop("run_id")
        best: dict[str, float] = {}
        for number in range(REPEATS):
            actions = {
                "copy": lambda: copy(rows, folder / "copy"),
                "partitioned": lambda: copy(assignments, folder / "partitioned", "run_id"),
                "contract": lambda number=number: lake.replace(
                    ASSIGNMENTS, f"again-{number}", rows, 1
                ),
                "checks": lambda: check(responses, responses, assignments),
            }
            for name, action in actions.items():
                seconds, _ = timed(action)
                best[name] = min(best.get(name, seconds), seconds)
        ratios = [
            ("checks before publishing / plain copy", "checks", "copy", 1.3),
            ("copy under the contract / plain copy", "contract", "copy", 1.3),
            (
                "copy under the contract / partitioned copy",
                "contract",
                "partitioned",
                1.3,
            ),
        ]
        for name, ours, peer, target in ratios:
            line(name, best[ours], best[peer], "s", units=units, target=target)
    finally:
        spark.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
