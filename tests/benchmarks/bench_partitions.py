"""Response models of many partitions through Spark beside the same fits bare in one process.

    python tests/benchmarks/bench_partitions.py                              a quarter of an hour
    python tests/benchmarks/bench_partitions.py --partitions 40 --learner sieve

Prints one JSON object a line. Both run in processes of their own, one fit with one thread at a time
(two cores slow each other: the same work costs more CPU seconds on both), on the same rows (one
treatment dimension of the field simulation), pooled model and shrinkage included. Ours is the CPU
time of ``fit_responses`` from a Delta table to a Delta table, of the driver, the JVM and all Python
workers, start of the workers and compilation by the JVM included; the second line leaves the JVM
out. The peer's is that of the fits alone, with the rows in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import own_process

from coarse_spark.config.models import Configuration
from coarse_spark.simulate.field import field_simulation

TICKS = os.sysconf("SC_CLK_TCK")


def configuration(learner: str, features: int, folder: str) -> Configuration:
    return Configuration.model_validate(
        {
            "experiment": {
                "path": f"{folder}/experiment",
                "unit_id": "unit_id",
                "partition_by": ["market"],
                "features": [f"x{j}" for j in range(features)],
                "outcome": "y",
            },
            "treatments": {"t1": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}},
            "design": {"kind": "randomized"},
            "response": {
                "basis": "quadratic",
                "learner": learner,
                "scale": "additive",
                "folds": 3,
            },
            "output": {"path": f"{folder}/tables"},
        }
    )


def market(number: int, rows: int) -> pd.DataFrame:
    """The experiment of one market: the same rows wherever it is drawn."""
    drawn = field_simulation(rows, 1, seed=number)
    ids = pd.Series(np.arange(number * rows, (number + 1) * rows), name="unit_id")
    return pd.concat([ids, drawn.X, drawn.T, pd.Series(drawn.y, name="y")], axis=1).assign(
        market=f"m{number}"
    )


def tree_cpu(pid: int) -> dict[str, float]:
    """CPU seconds of a process and its descendants, dead ones included, by program.

    The programs are "java" and "python".
    """
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, fields = (
                    (folder / "stat").read_text(encoding="ascii").split("(", 1)[1].rsplit(")", 1)
                )
            except OSError:
                continue  # ended meanwhile: its parent has its time
            numbers = fields.split()
            parents[int(folder.name)] = int(numbers[1])
            own, children = (
                sum(map(int, numbers[11:13])) / TICKS,
                sum(map(int, numbers[13:15])) / TICKS,
            )
            used[int(folder.name)] = ("java" if name == "java" else "python", own, children)
    total = {"java": 0.0, "python": 0.0}
    for process, (program, own, children) in used.items():
        ancestor = process
        while ancestor not in (pid, 0, 1):
            ancestor = parents.get(ancestor, 0)
        if ancestor == pid:
            total[program] += own
            total["python"] += children  # ended workers
    return total


def fit_on_spark(options: argparse.Namespace) -> dict[str, float]:
    from coarse_spark.distributed.fit import fit_responses
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.distributed.materialize import materialized
    from coarse_spark.lake.session import open_session
    from coarse_spark.pipeline.settings import experiment_setup, fit_settings

    folder = tempfile.mkdtemp(prefix="bench-partitions-")
    configured = configuration(options.learner, options.features, folder)
    setup, settings = experiment_setup(configured), fit_settings(configured)
    spark = open_session(master="local[1]")
    try:
        rows = options.rows

        def draw(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            for batch in batches:
                for number in batch["id"]:
                    yield market(int(number), rows)

        names = ", ".join(f"x{j} double" for j in range(10))
        drawn = spark.range(options.partitions).mapInPandas(
            draw, f"unit_id bigint, {names}, t1 double, y double, market string"
        )
        drawn.write.format("delta").save(f"{folder}/experiment")
        start, before = time.perf_counter(), tree_cpu(os.getpid())
        units = experiment_units(spark.read.format("delta").load(f"{folder}/experiment"), setup)
        with materialized(units) as kept:
            fit_responses(kept, setup, settings).write.format("delta").save(f"{folder}/models")
        after, seconds = tree_cpu(os.getpid()), time.perf_counter() - start
        written = spark.read.format("delta").load(f"{folder}/models")
        fitted = written.where("fold = -1 AND status = 'ok'").count() - 1
        if fitted != options.partitions:
            raise SystemExit(f"{fitted} of {options.partitions} partitions were fitted")
    finally:
        spark.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return {"wall": seconds, **{program: after[program] - before[program] for program in after}}


def fit_bare(options: argparse.Namespace) -> dict[str, float]:
    from coarse_spark.core.learners.crossfit import accumulate, fit_models, solve
    from coarse_spark.core.learners.encoding.preparation import Preparation
    from coarse_spark.core.learners.encoding.rows import TrialRows
    from coarse_spark.core.learners.ridge.gram import GramStatistics
    from coarse_spark.pipeline.settings import learner_settings

    setup = configuration(options.learner, options.features, "unused")
    folds, settings = setup.response.folds, learner_settings(setup)
    names = list(setup.experiment.features)
    markets = [market(number, options.rows) for number in range(options.partitions)]
    rng = np.random.default_rng(0)
    trials = [
        TrialRows(
            rows[names],
            rows[["t1"]].to_numpy(),
            rows["y"].to_numpy(),
            key=rows["unit_id"].to_numpy(),
            fold=rng.integers(0, folds, len(rows)),
        )
        for rows in markets
    ]
    start, before = time.perf_counter(), time.process_time()
    sample = pd.concat(markets).sample(
        min(50_000, options.rows * options.partitions), random_state=0
    )
    preparation = Preparation.fit(
        TrialRows(sample[names], sample[["t1"]].to_numpy(), sample["y"].to_numpy()),
        basis=setup.basis,
        settings=settings,
    )
    sums: dict[int, GramStatistics] = {}
    for trial in trials:
        for part, found in accumulate(preparation, trial, folds=folds, settings=settings).items():
            sums[part] = sums[part] + found if part in sums else found
    _, pooled = solve(preparation, sums, folds=folds, settings=settings)
    for trial in trials:
        fit_models(trial, basis=setup.basis, settings=settings, pooled=pooled)
    return {"wall": time.perf_counter() - start, "python": time.process_time() - before}


WORKERS = {"spark": fit_on_spark, "bare": fit_bare}


def measured(worker: str) -> dict[str, float]:
    return own_process(__file__, worker, options=sys.argv[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--rows", type=int, default=5_000, help="rows of every partition")
    parser.add_argument("--learner", default="auto")
    parser.add_argument("--features", type=int, default=6, help="features that are used, of ten")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    bare, spark = measured("bare"), measured("spark")
    shape = f"{options.partitions} x {options.rows} rows, {options.learner}"
    more: dict[str, Any] = {"wall": round(spark["wall"], 1), "peer_wall": round(bare["wall"], 1)}
    for name, ours in (
        ("Spark", spark["java"] + spark["python"]),
        ("Python of Spark", spark["python"]),
    ):
        ratio = round(ours / bare["python"], 3)
        numbers = {
            "ours": round(ours, 1),
            "peer": round(bare["python"], 1),
            "ratio": ratio,
            "unit": "CPU seconds",
        }
        print(
            json.dumps({"name": f"fit {shape}: {name} / bare", **numbers, "target": 1.3, **more}),
            flush=True,
        )


if __name__ == "__main__":
    main()
