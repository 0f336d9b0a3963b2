"""Menus and assignments at warehouse size beside MLlib's KMeans and plain Delta.

Prints one JSON object a line.

    python tests/benchmarks/bench_scale.py --units 10000000

Everything runs in one local session on one table of simulated responses (two treatment dimensions,
quadratic basis). Ours is the whole curve K = 1 … 10 with upper bounds; the peer is ONE KMeans fit
(K = 5, 10 iterations) of the same coefficients. A tenth of the units shows how time and driver
memory grow, and serves exact masses.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml.clustering import KMeans
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from coarse_spark.core.menu.assignment.transport import exact_assignment
from coarse_spark.core.menu.choose import MenuCurve, choose_menus, with_tie_break
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import SizeLimits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.menu.settle import Settled, settle
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.distributed.assign import assign, best_position, profit_column
from coarse_spark.distributed.frames import theta_columns
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.lake.session import open_session
from coarse_spark.pipeline.limits import settled_units

NAMES = theta_columns(6)


def problem() -> MenuProblem:
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("t1", "t2")}
    )
    return MenuProblem.build(space, "quadratic", Profit("1", "0.3 * (t1 + t2)"))


def write_responses(spark: SparkSession, units: int, path: str) -> None:
    """Write responses like those of the two-dimensional field simulation.

    Native expressions make them: cheap at any size.
    """

    def uniform(number: int) -> Column:
        return F.rand(number) * 2 - 1

    features = spark.range(units).select(
        F.col("id").alias("unit_id"), *(uniform(j).alias(f"x{j}") for j in range(8))
    )
    slope = [
        F.expr(f"1.2 + 0.8*x{j} + 0.6*greatest(x{j + 2}, 0) - 0.4*x{j + 4}*x{j + 5}")
        for j in (0, 1)
    ]
    curve = [F.expr(f"-0.5*(0.8 + 0.5*if(x{j + 3} > 0, 1, 0) + 0.2*x{j + 6})") for j in (0, 1)]
    theta = [F.expr("sin(pi()*x0*x1) + x2"), *slope, curve[0], F.lit(-0.25), curve[1]]
    columns = [value.alias(name) for value, name in zip(theta, NAMES, strict=True)]
    features.select(
        "unit_id", F.lit(1.0).alias("weight"), F.lit(1e9).alias("granular_profit"), *columns
    ).write.format("delta").save(path)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def line(name: str, ours: float, peer: float, unit: str, **more: Any) -> None:
    print(
        json.dumps(
            {
                "name": name,
                "ours": round(ours, 3),
                "peer": round(peer, 3),
                "ratio": round(ours / peer, 4),
                "unit": unit,
                **more,
            }
        ),
        flush=True,
    )


def native_pass(responses: DataFrame, menu: PricedMenu) -> None:
    """Make one Lloyd pass for a menu in native expressions: the peer of the Arrow pass."""
    position = best_position([profit_column(row) for row in menu.priced_psi])
    responses.groupBy(F.coalesce(position, F.lit(0)).alias("segment")).agg(
        F.sum("weight"), *(F.sum(F.col("weight") * F.col(name)) for name in NAMES)
    ).collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10_000_000)
    parser.add_argument("--skip-kmeans", action="store_true", help="leave out the slow peer")
    units, skip = vars(parser.parse_args()).values()
    spark, posed = open_session(driver_memory="6g"), problem()
    folder = Path(tempfile.mkdtemp(prefix="bench-scale-"))

    def curve(responses: DataFrame) -> MenuCurve:
        settings = SearchSettings(starts=8, cells=4_000, passes=3, tolerance=1e-4)
        return choose_menus(ResponseTable(responses, posed), range(1, 11), settings)

    try:
        tables = {size: str(folder / f"responses-{size}") for size in (units // 10, units)}
        for size, path in tables.items():
            write_responses(spark, size, path)
        tenth, responses = (spark.read.format("delta").load(path) for path in tables.values())
        # starts Python workers and compiles: neither depends on the number of units
        curve(tenth)
        fewer, _ = timed(lambda: curve(tenth))
        before = driver_megabytes()
        # whoever comes first loads a table's log
        plain_sums(responses)
        seconds, found = timed(lambda: curve(responses))
        line("curve of ten times the units / curve", seconds, fewer, "s", units=units, target=11)
        line(
            "driver memory at ten times the units / before",
            driver_megabytes(),
            before,
            "MB",
            units=units,
        )
        plain, _ = timed(lambda: plain_sums(responses))
        gaps = {k: one.upper_bound - one.value for k, one in found.chosen.items()}
        granular = gap_scale(responses, posed) - found.control_value
        more = {
            "units": units,
            "largest_gap_percent": round(100 * max(gaps.values()) / granular, 3),
        }
        line("curve K = 1..10 with bounds / plain sums", seconds, plain, "s", **more)
        if not skip:
            peer, _ = timed(
                lambda: KMeans(k=5, maxIter=10, seed=0).fit(
                    VectorAssembler(inputCols=NAMES, outputCol="features").transform(responses)
                )
            )
            line(
                "curve K = 1..10 with bounds / one KMeans fit",
                seconds,
                peer,
                "s",
                **more,
                target=0.333,
            )

        menus = {k: one.menu for k, one in found.chosen.items()}
        table = ResponseTable(responses, posed)
        all_sizes, _ = timed(lambda: table.sums(menus))
        one_by_one, _ = timed(lambda: [native_pass(responses, menu) for menu in menus.values()])
        line(
            "Lloyd pass of all sizes, Arrow / native expressions",
            all_sizes,
            one_by_one,
            "s",
            units=units,
        )

        menu = menus[5]
        copied, _ = timed(lambda: responses.write.format("delta").save(str(folder / "copy")))
        assigned = assign(responses, posed, menu)
        published, _ = timed(
            lambda: assigned.write.format("delta").save(str(folder / "assignments"))
        )
        line(
            "publish assignments of K = 5 / plain Delta copy",
            published,
            copied,
            "s",
            units=units,
            target=1.5,
        )
        exact_masses(tenth, posed, menu, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        spark.stop()


def plain_sums(responses: DataFrame) -> None:
    """The least that a pass over the responses can cost."""
    responses.agg(*(F.sum(name) for name in NAMES)).collect()


def driver_megabytes() -> float:
    """The most memory that the driver's Python process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exact_masses(responses: DataFrame, posed: MenuProblem, menu: PricedMenu, folder: Path) -> None:
    """Print what exact masses for one menu's treatments, kept to the unit, cost.

    They stand beside the plain assignment, and beside the transport in memory.
    """
    masses = np.array([0.1, 0.15, 0.2, 0.25, 0.3])
    population = ResponseTable(responses, posed).told_apart()
    problem, drawn = population.problem, population.rows
    sample = population.sample()
    exact_menu = PricedMenu.build(problem, menu.treatments, limits=SizeLimits(masses, masses))
    exact_menu = with_tie_break(problem, {5: exact_menu}, sample)[5]

    path, free = str(folder / "masses"), assign(responses, posed, menu)
    plain, _ = timed(lambda: free.write.format("delta").save(str(folder / "free")))

    def publish() -> Settled:
        population = ResponseTable(responses, posed).told_apart()
        settled = settle(population, {5: exact_menu}, population.sample())[5]
        units = settled_units(population, settled.deciding, settled.boundary.reach)
        rows = assign(drawn, problem, settled.deciding, settled=units)
        rows.write.format("delta").save(path)
        return settled

    seconds, settled = timed(publish)
    landed = responses.sparkSession.read.format("delta").load(path)
    landed = landed.groupBy("treatment_id").count().orderBy("treatment_id").toPandas()
    units, counts = int(landed["count"].sum()), landed["count"].to_numpy()
    exact = bool((counts == np.round(masses * units)).all())
    line(
        "fixed masses of K = 5 / plain assignment",
        seconds,
        plain,
        "s",
        units=units,
        exact=exact,
        settled=len(settled.boundary.ids),
    )
    theta = responses.select(*NAMES).toPandas().to_numpy(np.float64)
    profits, every = profit_matrix(theta, menu.psi), np.arange(len(theta))
    best, _ = exact_assignment(
        profits,
        np.ones(len(theta)),
        masses * len(theta),
        masses * len(theta),
        np.zeros(len(masses)),
    )
    line(
        "value of fixed masses / transport in memory",
        settled.sums.value(settled.menu.psi),
        profits[every, best].mean(),
        "profit a unit",
        units=units,
    )


def gap_scale(responses: DataFrame, posed: MenuProblem) -> float:
    """Granular value on a sample: the scale that gaps are reported on."""
    sample = (
        responses.orderBy(F.xxhash64("unit_id"))
        .limit(50_000)
        .select(*NAMES)
        .toPandas()
        .to_numpy(np.float64)
    )
    return float(posed.granular(sample)[1].mean())


if __name__ == "__main__":
    main()
