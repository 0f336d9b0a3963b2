"""Menus and assignments at warehouse size beside MLlib's KMeans and plain Delta, step by step.

    python tests/benchmarks/bench_scale.py                       1, 10 and 50 million units: hours
    python tests/benchmarks/bench_scale.py --units 10000 100000 --masses 10000      some minutes

Prints one JSON object a line: for every step its seconds, the CPU seconds of driver, JVM and Python
workers together and the most memory of each; ratios to peers of the same process; and how steps
grow from size to size, as exponents of the number of units (1 is in proportion).

Every size is a process of its own with one local session, on one table of simulated responses (two
treatment dimensions and a quadratic basis, or ``--arms`` treatments with a coefficient each). Ours
is the whole curve K = 1 … ``--largest`` with upper bounds; the peer is ONE KMeans fit (K = 5, 10
iterations) of the same coefficients. Exact masses are of at most ``--masses`` units. On a machine
that others use too, CPU seconds and ratios tell more than seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import grown, own_process
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
from coarse_spark.resources import Used, measured

MASSES = np.array([0.1, 0.15, 0.2, 0.25, 0.3])


@dataclass
class Steps:
    """Measures steps, and keeps what they took."""

    spark: SparkSession
    units: int
    taken: dict[str, Used] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, units: int | None = None) -> Iterator[None]:
        with measured(self.spark) as used:
            yield
        self.taken[name] = used
        self.line("step", step=name, units=units or self.units, **asdict(used))

    def ratio(self, name: str, ours: str, peer: str, target: float | None = None) -> None:
        one, other = asdict(self.taken[ours]), asdict(self.taken[peer])
        ratios = {part: round(one[part] / other[part], 3) for part in ("seconds", "cpu_seconds")}
        self.line("ratio", ratio=name, **ratios, target=target)

    def line(self, kind: str, **found: Any) -> None:
        print(json.dumps({"kind": kind, "units": self.units, **found}), flush=True)


def problem(arms: int) -> MenuProblem:
    if arms:
        offers = pd.DataFrame({"offer": np.linspace(0.0, 1.0, arms)})
        space = TreatmentSpace.from_candidates(offers, control={"offer": 0.0})
        return MenuProblem.build(space, "arms", Profit("1", "0.1 * offer"))
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("t1", "t2")}
    )
    return MenuProblem.build(space, "quadratic", Profit("1", "0.3 * (t1 + t2)"))


def theta(arms: int) -> list[Column]:
    """Coefficients in the columns x0 … x7: of the two-dimensional field simulation, or of arms."""
    if arms:
        # a unit has a treatment that it likes best, and likes its neighbours nearly as much
        place = F.expr("0.5 + 0.3*x0 + 0.2*x1")
        shape = [F.lit(j / (arms - 1)) - place for j in range(arms)]
        noise = [F.col(f"x{2 + j % 6}") for j in range(arms)]
        return [F.col("x2") - 2 * s * s + 0.1 * n for s, n in zip(shape, noise, strict=True)]
    slope = [
        F.expr(f"1.2 + 0.8*x{j} + 0.6*greatest(x{j + 2}, 0) - 0.4*x{j + 4}*x{j + 5}")
        for j in (0, 1)
    ]
    curve = [F.expr(f"-0.5*(0.8 + 0.5*if(x{j + 3} > 0, 1, 0) + 0.2*x{j + 6})") for j in (0, 1)]
    return [F.expr("sin(pi()*x0*x1) + x2"), *slope, curve[0], F.lit(-0.25), curve[1]]


def write_responses(spark: SparkSession, units: int, arms: int, path: str) -> None:
    """Write responses in native expressions: cheap at any size."""
    uniform = [(F.rand(j) * 2 - 1).alias(f"x{j}") for j in range(8)]
    features = spark.range(units).select(F.col("id").alias("unit_id"), *uniform)
    values = theta(arms)
    columns = [value.alias(n) for value, n in zip(values, theta_columns(len(values)), strict=True)]
    fixed = F.lit(1.0).alias("weight"), F.lit(1e9).alias("granular_profit")
    features.select("unit_id", *fixed, *columns).write.format("delta").save(path)


def native_pass(responses: DataFrame, menu: PricedMenu, names: list[str]) -> None:
    """Make one Lloyd pass for a menu in native expressions: the peer of the Arrow pass."""
    position = best_position([profit_column(row) for row in menu.priced_psi])
    responses.groupBy(F.coalesce(position, F.lit(0)).alias("segment")).agg(
        F.sum("weight"), *(F.sum(F.col("weight") * F.col(name)) for name in names)
    ).collect()


def worker(options: argparse.Namespace, units: int) -> None:
    spark, posed = open_session(driver_memory=options.driver_memory), problem(options.arms)
    folder = Path(tempfile.mkdtemp(prefix="bench-scale-", dir=options.folder))
    steps, names = Steps(spark, units), theta_columns(posed.coefficients)

    def curve(responses: DataFrame) -> MenuCurve:
        settings = SearchSettings(starts=8, cells=4_000, passes=3, tolerance=1e-4)
        sizes = range(1, options.largest + 1)
        return choose_menus(ResponseTable(responses, posed), sizes, settings)

    def table(name: str, size: int) -> DataFrame:
        write_responses(spark, size, options.arms, str(folder / name))
        return spark.read.format("delta").load(str(folder / name))

    try:
        few = table("few", min(units, 20_000))
        # starts Python workers and compiles: neither depends on the number of units
        curve(few)
        with steps.step("write responses"):
            responses = table("responses", units)
        plain_sums(few, names)
        with steps.step("plain sums"):
            plain_sums(responses, names)
        with steps.step("curve"):
            found = curve(responses)
        granular = gap_scale(responses, posed) - found.control_value
        gaps = [one.upper_bound - one.value for one in found.chosen.values()]
        steps.line(
            "curve",
            largest=options.largest,
            coefficients=posed.coefficients,
            largest_gap_percent=round(100 * max(gaps) / granular, 3),
        )
        steps.ratio("curve / plain sums", "curve", "plain sums")
        if not options.skip_kmeans:
            assembled = VectorAssembler(inputCols=names, outputCol="features").transform(responses)
            with steps.step("one KMeans fit"):
                KMeans(k=5, maxIter=10, seed=0).fit(assembled)
            steps.ratio("curve / one KMeans fit", "curve", "one KMeans fit", 1 / 6)
        menus = {k: one.menu for k, one in found.chosen.items()}
        with steps.step("Lloyd pass of all sizes"):
            ResponseTable(responses, posed).sums(menus)
        with steps.step("Lloyd pass of all sizes, native expressions"):
            for menu in menus.values():
                native_pass(responses, menu, names)
        menu = menus[min(5, options.largest)]
        publish(steps, responses, posed, menu, folder)
        if menu.k == len(MASSES):
            few = table("masses", min(units, options.masses))
            exact_masses(steps, few, posed, menu, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        spark.stop()
    print(json.dumps({name: asdict(used) for name, used in steps.taken.items()}))


def publish(
    steps: Steps, responses: DataFrame, posed: MenuProblem, menu: PricedMenu, folder: Path
) -> None:
    """Measure the assignment of one menu beside a copy of what it reads."""
    copy, written = folder / "copy", folder / "assignments"
    with steps.step("plain Delta copy"):
        responses.write.format("delta").save(str(copy))
    shutil.rmtree(copy)
    with steps.step("assign"):
        assign(responses, posed, menu).write.format("delta").save(str(written))
    shutil.rmtree(written)
    steps.ratio("assign / plain Delta copy", "assign", "plain Delta copy", 1.5)


def plain_sums(responses: DataFrame, names: list[str]) -> None:
    """The least that a pass over the responses can cost."""
    responses.agg(*(F.sum(name) for name in names)).collect()


def exact_masses(
    steps: Steps, responses: DataFrame, posed: MenuProblem, menu: PricedMenu, folder: Path
) -> None:
    """Measure exact masses for one menu's treatments, kept to the unit.

    They stand beside the plain assignment, and beside the transport in memory.
    """
    population = ResponseTable(responses, posed).told_apart()
    problem, drawn = population.problem, population.rows
    sample = population.sample()
    limits = SizeLimits(MASSES, MASSES)
    exact_menu = PricedMenu.build(problem, menu.treatments, limits=limits)
    exact_menu = with_tie_break(problem, {5: exact_menu}, sample)[5]
    path, units = str(folder / "exact"), population.size().units
    with steps.step("plain assignment", units):
        assign(responses, posed, menu).write.format("delta").save(str(folder / "free"))

    def settled() -> Settled:
        population = ResponseTable(responses, posed).told_apart()
        found = settle(population, {5: exact_menu}, population.sample())[5]
        few = settled_units(population, found.deciding, found.boundary.reach)
        rows = assign(drawn, problem, found.deciding, settled=few)
        rows.write.format("delta").save(path)
        return found

    with steps.step("fixed masses", units):
        found = settled()
    steps.ratio("fixed masses / plain assignment", "fixed masses", "plain assignment", 5)
    landed = responses.sparkSession.read.format("delta").load(path)
    counts = landed.groupBy("treatment_id").count().orderBy("treatment_id").toPandas()["count"]
    numbers = responses.select(*theta_columns(posed.coefficients)).toPandas().to_numpy(np.float64)
    profits, every = profit_matrix(numbers, menu.psi), np.arange(units)
    masses = MASSES * units
    best, _ = exact_assignment(profits, np.ones(units), masses, masses, np.zeros(len(masses)))
    value = found.sums.value(found.menu.psi) / profits[every, best].mean()
    steps.line(
        "masses",
        units=units,
        exact=bool((counts.to_numpy() == np.round(masses)).all()),
        settled_one_by_one=len(found.boundary.ids),
        value_beside_transport_in_memory=value,
    )


def gap_scale(responses: DataFrame, posed: MenuProblem) -> float:
    """Granular value on a sample: the scale that gaps are reported on."""
    names = theta_columns(posed.coefficients)
    ordered = responses.orderBy(F.xxhash64("unit_id")).limit(50_000).select(*names)
    return float(posed.granular(ordered.toPandas().to_numpy(np.float64))[1].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [1_000_000, 10_000_000, 50_000_000]
    parser.add_argument("--units", nargs="+", type=int, default=sizes)
    parser.add_argument("--largest", type=int, default=10, help="largest size of a menu")
    parser.add_argument("--arms", type=int, default=0, help="treatments with a coefficient each")
    parser.add_argument("--masses", type=int, default=1_000_000, help="most units of exact masses")
    parser.add_argument("--skip-kmeans", action="store_true", help="leave out the slow peer")
    parser.add_argument("--driver-memory", default="6g")
    parser.add_argument("--folder", help="for the tables, which are removed at the end")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options, options.worker)
        return
    given = ["--largest", "--arms", "--masses", "--driver-memory"]
    values = [options.largest, options.arms, options.masses, options.driver_memory]
    passed = [str(part) for pair in zip(given, values, strict=True) for part in pair]
    passed += ["--skip-kmeans"] if options.skip_kmeans else []
    passed += ["--folder", options.folder] if options.folder else []
    found = {
        units: own_process(__file__, units, options=passed, shown=True)
        for units in sorted(options.units)
    }
    for line in grown(found):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
