"""Menus of all sizes for a population of any size: sample, search on the driver, passes over all units, limits, upper bounds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.additive import Additive, Flat
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu import lloyd
from coarse_spark.core.menu.bounded import BoundedMenu, lottery_size, with_lottery
from coarse_spark.core.menu.bounded_curve import search_within
from coarse_spark.core.menu.curve import rising
from coarse_spark.core.menu.limits import MenuLimits
from coarse_spark.core.menu.lloyd import Aggregate, PricedMenu, Refined, SegmentSums, refine
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.settings import SearchSettings
from coarse_spark.core.menu.settlement import refine_within
from coarse_spark.core.menu.sketch import MicroClusters, SketchSums
from coarse_spark.core.profit import profit_matrix
from coarse_spark.distributed.certify import Certificate, LimitedCertificate
from coarse_spark.distributed.frames import theta_columns
from coarse_spark.distributed.lloyd import segment_sums
from coarse_spark.distributed.settle import (
    population_of,
    population_sample,
    settle_units,
    with_tickets,
)
from coarse_spark.distributed.sketch import sketch
from coarse_spark.errors import InvalidInputError

log = logging.getLogger(__name__)

_BOUND_TOLERANCE = 2e-4  # of granular − control: what the search for an upper bound may leave open
_PASS_TOLERANCE = 1e-4  # of profit over control: no pass over all units is worth less


@dataclass(frozen=True, eq=False)
class PopulationMenus:
    """Menus of all sizes with their exact values on all units.

    Attributes
    ----------
    problem : the one that menus and sums belong to; under limits its last coefficient is a hash of the unit (``with_lottery``).
    refined : menus by size (and ``UNIFORM``), their segment sums over all units, and the history of the passes. Under limits the
        sums are those of the assignment that keeps them to the unit.
    bounded : the same menus with their limits and the prices of these.
    bounds : size → profit per unit weight that no menu of this size exceeds.
    sketch_values : size → what the sketch takes the same menu to earn: units of one cell that prefer different treatments are told
        apart less finely there.
    control_value : profit per unit weight when nobody is treated.
    micro_clusters : number of micro-clusters the search worked on.
    """

    problem: MenuProblem
    refined: Refined
    bounded: dict[int, BoundedMenu]
    bounds: dict[int, float]
    sketch_values: dict[int, float]
    control_value: float
    micro_clusters: int


UNIFORM = 0  # key of the best single treatment beside the menus of K treatments, which may have to hold others


def search_menus(
    problem: MenuProblem, clusters: MicroClusters, sizes: Iterable[int], settings: SearchSettings
) -> dict[int, BoundedMenu]:
    """Return the menus of all sizes found on micro-clusters, and under ``UNIFORM`` the best single treatment."""
    return {
        UNIFORM: _best_single(problem, clusters, settings),
        **search_within(problem, clusters, sizes, settings),
    }


def _best_single(
    problem: MenuProblem, clusters: MicroClusters, settings: SearchSettings
) -> BoundedMenu:
    """Return the reference of all menus: the best single treatment within the budget where one keeps it, else the best of all.

    Share limits are not for one treatment. What keeps the budget stays as it is: passes must not move it, nor does it have prices.
    """
    free, budget = SearchSettings(starts=1, seed=settings.seed), settings.limits.budget
    if budget is not None:
        try:
            found = search_within(
                problem, clusters, [1], replace(free, limits=MenuLimits(budget=budget))
            )[1]
            return BoundedMenu.free_of_limits(
                PricedMenu.build(problem, found.menu.treatments, fixed=np.ones(1, dtype=bool))
            )
        except InvalidInputError as error:
            log.info("the best single treatment is found without a budget: %s", error)
    return search_within(problem, clusters, [1], free)[1]


def choose_menus(
    responses: DataFrame,
    problem: MenuProblem,
    sizes: Iterable[int],
    settings: SearchSettings,
    *,
    cells: int,
    passes: int,
) -> PopulationMenus:
    """Choose a menu of every size for the units of ``responses``: unit_id, weight, theta_0 … theta_{p−1}.

    Parameters
    ----------
    settings : of the search on the sketch; what every menu keeps and holds. cells : micro-clusters of the sketch at most.
    passes : Lloyd passes over all units at most.

    The frame is read ``passes`` + 2 times at most, under limits a few times more: hand over a table or a materialized frame.
    """
    limits = settings.limits
    if not limits.free:
        responses, problem = with_tickets(responses, problem.coefficients), with_lottery(problem)
    units = responses.select(
        F.lit(0).alias("sketch_group"),
        F.xxhash64(F.col("unit_id").cast("string")).alias("key"),
        "weight",
        *theta_columns(problem.coefficients),
    )
    population = sketch(units, problem, cells=cells, groups=[0], drawn=True)[0]
    clusters = population.clusters
    menus = search_menus(problem, clusters, sizes, settings)
    sized = {k: menu for k, menu in menus.items() if k != UNIFORM}
    certificate: Certificate | LimitedCertificate
    if limits.free:
        gain = (
            problem.granular(clusters.theta)[1]
            - profit_matrix(clusters.theta, problem.control_psi[None, :])[:, 0]
        )
        tolerance = _BOUND_TOLERANCE * float(np.average(gain, weights=clusters.weights))
        plain = {k: menu.menu for k, menu in sized.items()}
        certificate = Certificate.prepare(
            problem, plain, population, tolerance=tolerance, always_offered=settings.fixed
        )
    else:
        certificate = LimitedCertificate.prepare(
            problem, sized, population, always_offered=settings.fixed
        )
    records: dict[str, Flat] = {}

    def beside(theta: FloatArray, weights: FloatArray) -> dict[str, Additive]:
        at = population.cells(theta)
        return {
            "sketch": population.sums(theta, weights, at),
            **certificate.record(theta, weights, at),
        }

    def aggregate(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        # the cells' sums and the bounds hold whatever the menus become: the first pass serves them as well
        sums, more = segment_sums(responses, asked, None if records else beside)
        records.update(more)
        return sums

    passes = max(passes, 1)
    if limits.free:
        found = {k: menu.menu for k, menu in menus.items()}
        refined = refine(problem, found, aggregate, max_passes=passes, tolerance=_PASS_TOLERANCE)
        refined = _rising(problem, clusters, refined, aggregate, passes)
        bounded = {k: BoundedMenu.free_of_limits(menu) for k, menu in refined.menus.items()}
    else:
        drawn = _drawn(problem, menus, lottery_size(problem, clusters.theta))
        refined, bounded = _within_limits(responses, problem, drawn, aggregate, passes)
    everyone = next(iter(refined.sums.values()))
    control = float(everyone.value_of_all(problem.control_psi[None, :])[0])
    if isinstance(certificate, Certificate):
        bounds = certificate.bounds(sized, records, everyone.rows.sum(axis=0))
    else:
        bounds = certificate.bounds(records)
    clusters = SketchSums.of_flat(records["sketch"]).clusters()
    on_sketch = lloyd.segment_sums(clusters.theta, clusters.weights, refined.menus)
    sketch_values = {k: on_sketch[k].value(menu.psi) for k, menu in refined.menus.items()}
    return PopulationMenus(
        problem, refined, bounded, bounds, sketch_values, control, len(clusters.weights)
    )


def _rising(
    problem: MenuProblem,
    clusters: MicroClusters,
    refined: Refined,
    aggregate: Aggregate,
    passes: int,
) -> Refined:
    # the best single treatment is no smaller menu: it need not hold what every menu has to offer
    menus = {k: menu for k, menu in refined.menus.items() if k != UNIFORM}
    sums = {k: refined.sums[k] for k in menus}
    risen = rising(
        problem,
        clusters,
        Refined(menus, sums, refined.history),
        aggregate,
        max_passes=passes,
        tolerance=_PASS_TOLERANCE,
    )
    uniform = {UNIFORM: refined.menus[UNIFORM]}, {UNIFORM: refined.sums[UNIFORM]}
    return Refined({**uniform[0], **risen.menus}, {**uniform[1], **risen.sums}, risen.history)


def _drawn(
    problem: MenuProblem, menus: Mapping[int, BoundedMenu], lottery: float
) -> dict[int, BoundedMenu]:
    """Return menus under whose limits units that respond alike are told apart by lot."""
    return {
        k: m if m.free else replace(m, lottery=lottery).at(problem, m.menu.prices, m.charge)
        for k, m in menus.items()
    }


def _within_limits(
    responses: DataFrame,
    problem: MenuProblem,
    menus: Mapping[int, BoundedMenu],
    aggregate: Aggregate,
    passes: int,
) -> tuple[Refined, dict[int, BoundedMenu]]:
    """Return menus after passes over all units and the settlement of their limits to the unit, treatments in ascending order."""
    everyone = population_of(responses)
    sample = population_sample(responses, everyone, problem.coefficients)
    passed = refine_within(
        problem, menus, aggregate, sample, max_passes=passes, tolerance=_PASS_TOLERANCE
    )
    # the lottery goes by place on the menu, so places are final before anybody is settled
    places = {k: menu.ordered(problem) for k, menu in passed.menus.items()}
    settled = settle_units(responses, problem, places, everyone=everyone, sample=sample, ids=False)
    bounded = {k: found.bounded for k, found in settled.items()}
    sums = {k: found.sums for k, found in settled.items()}
    return Refined({k: menu.menu for k, menu in bounded.items()}, sums, passed.history), bounded
