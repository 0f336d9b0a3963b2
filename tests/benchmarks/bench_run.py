"""A whole run at warehouse size: what every step takes, beside plain reads and writes.

    python tests/benchmarks/bench_run.py         1 million experiment rows, 10 million units: hours
    python tests/benchmarks/bench_run.py --rows 20000 --units 100000 --partitions 50   some minutes

Prints one JSON object a line. The steps are those of ``coarse-spark run`` in one local session, as
its log tells them (``coarse_spark.steps``). ``--partitions`` markets have sizes by Zipf's law, each
with response models of its own as far as it has the rows. The peer of validate, score and assign
reads and writes the same bytes by plain Spark: it sums every column of both inputs, and copies the
tables ``responses`` and ``assignments`` that the run wrote. With several ``--units`` every size is
a process of its own, and the last lines are how steps grow, as exponents of the number of units.

    python tests/benchmarks/bench_run.py --units 1000000 --heaviest 0.8 --levels 1000000 \\
        --learner sieve --max-rows 80000

is the table that nobody wants: one market has 80 % of all rows, ten times what one worker fits at a
time, and one feature has a text a row.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import grown, own_process
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import NumericType

from coarse_spark.config.models import Configuration
from coarse_spark.lake.session import open_session
from coarse_spark.pipeline import run_all
from coarse_spark.resources import Used, measured

NUMBERS = [f"x{j}" for j in range(8)]
BESIDE_PLAIN = ("validate", "score", "assign")
SHAPE = ("rows", "partitions", "heaviest", "levels")


class StepLines(logging.Handler):
    """Prints the line of every step, and keeps what it took."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, dict[str, Any]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        line = json.loads(record.getMessage())
        self.taken[line["step"]] = {name: line[name] for name in asdict(Used())}
        print(json.dumps({"kind": "step", **line}), flush=True)


def units_of(spark: SparkSession, count: int, options: argparse.Namespace, seed: int) -> DataFrame:
    """Return units with features, in markets whose sizes follow Zipf's law."""
    # a market r has the share log(1 + 1/r) / log(partitions + 1), nearly in proportion to 1/r
    rank = F.floor(F.exp(F.rand(seed) * F.log(F.lit(options.partitions + 1.0))))
    rank = F.when(F.rand(seed + 20) < options.heaviest, F.lit(1)).otherwise(rank)
    numbers = [(F.rand(seed + 1 + j) * 2 - 1).alias(name) for j, name in enumerate(NUMBERS)]
    market = F.format_string("m%05d", rank).alias("market")
    texts = [F.format_string("c%08d", F.col("id") % max(options.levels, 1)).alias("customer")]
    return spark.range(count).select(
        F.col("id").alias("unit_id"), market, *numbers, *(texts if options.levels else [])
    )


def features(options: argparse.Namespace) -> list[str]:
    return [*NUMBERS, *(["customer"] if options.levels else [])]


def write_inputs(spark: SparkSession, options: argparse.Namespace, folder: Path) -> None:
    """Write an experiment and a population of the two-dimensional field simulation."""
    units_of(spark, options.units[0], options, 1).write.format("delta").save(
        str(folder / "population")
    )
    # the noise is the sum of twelve uniform numbers: nearly normal
    noise = sum((F.rand(200 + j) for j in range(12)), F.lit(-6.0))
    rows = units_of(spark, options.rows, options, 100).withColumns(
        {"t1": F.rand(301) * 2, "t2": F.rand(302) * 2, "noise": noise}
    )
    slopes = "".join(
        f" + (1.2 + 0.8*x{j} + 0.6*greatest(x{j + 2}, 0) - 0.4*x{j + 4}*x{j + 5}) * t{j + 1}"
        f" - 0.5 * (0.8 + 0.5*if(x{j + 3} > 0, 1, 0) + 0.2*x{j + 6}) * t{j + 1} * t{j + 1}"
        for j in (0, 1)
    )
    outcome = F.expr(f"sin(pi()*x0*x1) + x2 {slopes} - 0.25*t1*t2 + noise").alias("y")
    rows.select("unit_id", "market", *features(options), "t1", "t2", outcome).write.format(
        "delta"
    ).save(str(folder / "experiment"))


def configuration(options: argparse.Namespace, folder: Path) -> Configuration:
    dimension = {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}
    return Configuration.model_validate(
        {
            "experiment": {
                "path": str(folder / "experiment"),
                "unit_id": "unit_id",
                "partition_by": ["market"],
                "features": features(options),
                "outcome": "y",
            },
            "treatments": {"t1": dimension, "t2": dimension},
            "design": {"kind": "randomized"},
            "response": {
                "basis": "quadratic",
                "learner": options.learner,
                "scale": "additive",
                "folds": 3,
                "max_rows": options.max_rows,
            },
            "profit": {"margin": "1", "cost": "0.3 * (t1 + t2)"},
            "menu": {"sizes": f"1-{options.largest}", "select": "auto"},
            "population": {"path": str(folder / "population")},
            "output": {"path": str(folder / "tables")},
        }
    )


def plain(spark: SparkSession, folder: Path) -> None:
    """Read what validate, score and assign read, and write what they write, in plain Spark."""
    for name in ("experiment", "population"):
        table = spark.read.format("delta").load(str(folder / name))
        numbers = [f.name for f in table.schema if isinstance(f.dataType, NumericType)]
        table.agg(F.max("market"), *(F.sum(number) for number in numbers)).collect()
    for name in ("responses", "assignments"):
        table = spark.read.format("delta").load(str(folder / "tables" / name))
        table.write.format("delta").save(str(folder / f"copy of {name}"))


def worker(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run all steps of one size."""
    folder = Path(tempfile.mkdtemp(prefix="bench-run-", dir=options.folder))
    # for millions of units: the thorough compiler pays
    spark = open_session(driver_memory=options.driver_memory)
    lines, log = StepLines(), logging.getLogger("coarse_spark.steps")
    log.setLevel(logging.INFO)
    log.addHandler(lines)
    try:
        write_inputs(spark, options, folder)
        with measured(spark) as used:
            run_all(spark, configuration(options, folder), "bench")
        lines.taken["whole run"] = asdict(used)
        with measured(spark) as used:
            plain(spark, folder)
        lines.taken["plain"] = asdict(used)
        size = {"units": options.units[0], **{name: getattr(options, name) for name in SHAPE}}
        for step in ("whole run", "plain"):
            print(json.dumps({"kind": "step", **size, "step": step, **lines.taken[step]}))
        ratio = {
            figure: round(
                sum(lines.taken[step][figure] for step in BESIDE_PLAIN)
                / lines.taken["plain"][figure],
                2,
            )
            for figure in ("seconds", "cpu_seconds")
        }
        name = "validate + score + assign / plain reads and writes"
        print(json.dumps({"kind": "ratio", **size, "ratio": name, **ratio, "target": 2}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        spark.stop()
    return lines.taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the experiment")
    parser.add_argument("--units", nargs="+", type=int, default=[10_000_000])
    parser.add_argument("--partitions", type=int, default=1_000)
    parser.add_argument("--heaviest", type=float, default=0.0, help="share put into one market")
    parser.add_argument("--levels", type=int, default=0, help="of a text feature more, if any")
    parser.add_argument("--learner", default="auto")
    parser.add_argument("--max-rows", type=int, default=150_000, help="that one fit sees")
    parser.add_argument("--largest", type=int, default=10, help="largest size of a menu")
    parser.add_argument("--driver-memory", default="6g")
    parser.add_argument("--folder", help="for the tables, which are removed at the end")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options)))
        return
    passed = [
        part
        for name in (*SHAPE, "learner", "max_rows", "largest", "driver_memory", "folder")
        if getattr(options, name) is not None
        for part in (f"--{name.replace('_', '-')}", str(getattr(options, name)))
    ]
    found = {
        units: own_process(__file__, options=[*passed, "--units", str(units)], shown=True)
        for units in sorted(options.units)
    }
    for line in grown(found):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
