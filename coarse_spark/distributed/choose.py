"""Menus of all sizes for a population of any size: sketch, search on the driver, Lloyd passes over all units, upper bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.menu import lloyd
from coarse_spark.core.menu.curve import search_curve
from coarse_spark.core.menu.debiased import Corrections, debiased_menus
from coarse_spark.core.menu.lloyd import PricedMenu, Refined, SegmentSums, refine
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import MicroClusters, profit_metric
from coarse_spark.core.profit import profit_matrix
from coarse_spark.distributed.aggregate import FloatArray
from coarse_spark.distributed.certify import Certificate
from coarse_spark.distributed.lloyd import segment_sums
from coarse_spark.distributed.sketch import sketch
from coarse_spark.distributed.units import theta_columns

_BOUND_TOLERANCE = 2e-4  # of granular − control: what the search for an upper bound may leave open
_PASS_TOLERANCE = 1e-4  # of profit over control: no pass over all units is worth less


@dataclass(frozen=True, eq=False)
class PopulationMenus:
    """Menus of all sizes with their exact values on all units.

    Attributes
    ----------
    refined : menus by size (and ``UNIFORM``), their segment sums over all units, and the history of the passes.
    bounds : size → profit per unit weight that no menu of this size exceeds.
    sketch_values : size → what the sketch takes the same menu to earn: units of one cell that prefer different treatments are told
        apart less finely there.
    debiased_shares : size → share of the experiment's corrections that its treatments follow; empty for the plain update.
    control_value : profit per unit weight when nobody is treated.
    micro_clusters : number of micro-clusters the search worked on.
    """

    refined: Refined
    bounds: dict[int, float]
    sketch_values: dict[int, float]
    debiased_shares: dict[int, float]
    control_value: float
    micro_clusters: int


UNIFORM = 0  # key of the best single treatment beside the menus of K treatments, which may have to hold others


def search_menus(
    problem: MenuProblem,
    clusters: MicroClusters,
    sizes: Iterable[int],
    *,
    starts: int,
    seed: int,
    always_offered: FloatArray | None = None,
    previous: FloatArray | None = None,
) -> dict[int, PricedMenu]:
    """Return the menus of all sizes found on micro-clusters, and the best single treatment under the key ``UNIFORM``."""
    menus = search_curve(problem, clusters, sizes, fixed=always_offered, previous=previous, starts=starts, seed=seed)
    return {UNIFORM: search_curve(problem, clusters, [1], starts=1, seed=seed)[1], **menus}


def choose_menus(
    responses: DataFrame,
    problem: MenuProblem,
    sizes: Iterable[int],
    *,
    cells: int,
    passes: int,
    starts: int,
    seed: int,
    always_offered: FloatArray | None = None,
    previous: FloatArray | None = None,
    corrections: Corrections | None = None,
) -> PopulationMenus:
    """Choose a menu of every size for the units of ``responses``: unit_id, weight, theta_0 … theta_{p−1}.

    Parameters
    ----------
    cells : micro-clusters of the sketch at most. passes : Lloyd passes over all units at most.
    starts, seed : of the search on the sketch. always_offered : encoded treatments (f, d) on every menu.
    previous : encoded treatments (l, d) of an earlier menu, the most used first: one more start.
    corrections : what the experiment says of the segments of menus; treatments follow it (see ``core.menu.debiased``).

    The frame is read ``passes`` + 3 times at most: hand over a table or a materialized frame.
    """
    units = responses.select(
        F.lit(0).alias("sketch_group"),
        F.xxhash64(F.col("unit_id").cast("string")).alias("key"),
        "weight",
        *theta_columns(problem.coefficients),
    )
    population = sketch(units, problem, cells=cells, groups=[0])[0]
    clusters = population.clusters
    menus = search_menus(problem, clusters, sizes, starts=starts, seed=seed, always_offered=always_offered, previous=previous)
    gain = problem.granular(clusters.theta)[1] - profit_matrix(clusters.theta, problem.control_psi[None, :])[:, 0]
    attainable = float(np.average(gain, weights=clusters.weights))
    sized = {k: menu for k, menu in menus.items() if k != UNIFORM}
    certificate = Certificate.prepare(
        problem, sized, population, tolerance=_BOUND_TOLERANCE * attainable, always_offered=always_offered
    )
    records: dict[str, FloatArray] = {}

    def aggregate(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        # bounds hold whatever the menus become: the first pass serves them as well
        sums, beside = segment_sums(responses, asked, None if records else certificate.record)
        records.update(beside)
        return sums

    refined = refine(problem, menus, aggregate, max_passes=max(passes, 1), tolerance=_PASS_TOLERANCE)
    shares: dict[int, float] = {}
    if corrections is not None:
        refined, shares = _debiased(responses, problem, refined, corrections, clusters)
    everyone = next(iter(refined.sums.values()))
    control = float(everyone.value_of_all(problem.control_psi[None, :])[0])
    bounds = certificate.bounds(sized, records, everyone.rows.sum(axis=0))
    on_sketch = lloyd.segment_sums(clusters.theta, clusters.weights, refined.menus)
    sketch_values = {k: on_sketch[k].value(menu.psi) for k, menu in refined.menus.items()}
    return PopulationMenus(refined, bounds, sketch_values, shares, control, len(clusters.weights))


def _debiased(
    responses: DataFrame, problem: MenuProblem, refined: Refined, corrections: Corrections, clusters: MicroClusters
) -> tuple[Refined, dict[int, float]]:
    def plain(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(responses, asked)[0]

    moved, shares = debiased_menus(problem, refined.menus, corrections, plain, profit_metric(clusters.theta, problem.psi))
    ordered = {k: menu.ordered()[0] for k, menu in moved.items()}
    return Refined(ordered, plain(ordered), refined.history), shares
