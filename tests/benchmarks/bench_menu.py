"""Menus beside peers, oracles and known tables, one JSON object a line.

    python tests/benchmarks/bench_menu.py               all of it, a few minutes
    python tests/benchmarks/bench_menu.py truth gaps    of: tables gaps truth masses budget scale

Each line: {"name", "ours", "peer", "ratio", "unit", "reached", …}. Shares are percent of
(granular − best uniform) at the truth of the field simulation. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  # threads are limited before numpy starts them
from sklearn.cluster import KMeans  # noqa: E402

from coarse_spark.core.menu.assignment.transport import exact_assignment, transport  # noqa: E402
from coarse_spark.core.menu.choose import MenuCurve, choose_menu, choose_menus  # noqa: E402
from coarse_spark.core.menu.menu import PricedMenu  # noqa: E402
from coarse_spark.core.menu.population import ArrayPopulation  # noqa: E402
from coarse_spark.core.menu.problem.limits import Budget, Limits  # noqa: E402
from coarse_spark.core.menu.problem.problem import MenuProblem  # noqa: E402
from coarse_spark.core.menu.search.lloyd import lloyd  # noqa: E402
from coarse_spark.core.menu.search.search import search_menus  # noqa: E402
from coarse_spark.core.menu.search.settings import SearchSettings  # noqa: E402
from coarse_spark.core.menu.search.steps import FreeChoice, sums_of  # noqa: E402
from coarse_spark.core.menu.search.table import ProfitTable  # noqa: E402
from coarse_spark.core.menu.stability import value_within  # noqa: E402
from coarse_spark.core.menu.units import WeightedUnits  # noqa: E402
from coarse_spark.core.profit import Profit, profit_matrix  # noqa: E402
from coarse_spark.core.treatments import TreatmentSpace  # noqa: E402
from coarse_spark.simulate.field import field_simulation  # noqa: E402

Line = dict[str, Any]
# percentage points: two runs that reach the same optimum of finitely many differ by less
TIE = 1e-3


def field_problem(dimensions: int) -> MenuProblem:
    names = [f"t{j + 1}" for j in range(dimensions)]
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in names}
    )
    return MenuProblem.build(space, "quadratic", Profit("1", f"0.3 * ({' + '.join(names)})"))


def line(name: str, ours: float, peer: float, unit: str, reached: bool, **more: Any) -> Line:
    ratio = ours / peer if peer else None
    return {
        "name": name,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "unit": unit,
        "reached": bool(reached),
        **more,
    }


@dataclass(frozen=True)
class Curve:
    """Menus of all sizes for units in memory, and the CPU time of all that."""

    menus: MenuCurve
    granular: float
    seconds: float

    def value(self, k: int) -> float:
        return self.menus.chosen[k].value

    def gap(self, k: int) -> float:
        bound = min(self.menus.chosen[k].upper_bound, self.granular)
        whole = self.granular - self.menus.control_value
        return max(bound - self.value(k), 0.0) / whole

    def captured(self, value: float) -> float:
        """Share of granular − uniform, in percent."""
        uniform = self.menus.uniform_value
        return 100 * (value - uniform) / (self.granular - uniform)


def curve(problem: MenuProblem, theta: np.ndarray, sizes: Iterable[int], **settings: Any) -> Curve:
    start = time.process_time()
    population = ArrayPopulation(problem, theta, np.ones(len(theta)))
    menus = choose_menus(population, sizes, SearchSettings(**settings))
    granular = float(problem.granular(theta)[1].mean())
    return Curve(menus, granular, time.process_time() - start)


def tables() -> Iterator[Line]:
    """Distortions of the Lloyd–Max quantizers from a million normal ideal points."""
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": -5, "upper": 5, "control": 0}}
    )
    problem = MenuProblem.build(space, "quadratic", Profit())
    points = np.random.default_rng(7).normal(size=1_000_000)
    theta = np.column_stack([-(points**2), 2 * points, np.full(len(points), -1.0)])
    found = curve(problem, theta, [2, 4, 5, 8])
    for k, distortion in {2: 0.3634, 4: 0.1175, 5: 0.07994, 8: 0.03454}.items():
        ours = -found.value(k)
        yield line(
            f"Lloyd-Max distortion, K = {k}",
            ours,
            distortion,
            "squared distance",
            abs(ours / distortion - 1) <= 0.005,
            gap=found.gap(k),
        )


def gaps() -> Iterator[Line]:
    """Certified gaps of the whole curve, and what the curve costs."""
    for dimensions, units, largest, target in (
        (1, 3_000, 10, 0.001),
        (2, 3_000, 10, 0.005),
        (2, 200_000, 10, 0.005),
    ):
        problem, theta = field_problem(dimensions), field_simulation(units, dimensions).theta
        found = curve(problem, theta, range(1, largest + 1))
        worst = max(found.gap(k) for k in found.menus.chosen)
        yield line(
            f"largest certified gap, {dimensions}-D, {units} units, K = 1…{largest}",
            worst,
            target,
            "of granular − control",
            worst <= target,
            cpu_seconds=round(found.seconds, 2),
        )


def truth() -> Iterator[Line]:
    """Share of granular − uniform at the truth, beside what one would use instead."""
    problem = field_problem(2)
    for seed in range(3):
        theta = field_simulation(20_000, 2, seed).theta
        found = curve(problem, theta, [1, 2, 3, 5, 8], seed=seed)
        for k in (2, 3, 5, 8):
            mine = found.captured(found.value(k))
            for peer, menu in peers(problem, theta, k, seed).items():
                other = float(profit_matrix(theta, problem.psi_at(menu)).max(axis=1).mean())
                share = found.captured(other)
                yield line(
                    f"{peer}, K = {k}, seed {seed}",
                    mine,
                    share,
                    "% of granular − uniform",
                    mine >= share - TIE,
                )


def peers(problem: MenuProblem, theta: np.ndarray, k: int, seed: int) -> dict[str, np.ndarray]:
    """Treatments (k, d) by other methods; all are given the best assignment."""
    treatments, _ = problem.granular(theta)
    by_treatment = KMeans(k, n_init=10, random_state=seed).fit(treatments).cluster_centers_
    labels = KMeans(k, n_init=10, random_state=seed).fit_predict(
        theta / theta.std(axis=0).clip(1e-9)
    )
    means = np.vstack([theta[labels == label].mean(axis=0) for label in range(k)])
    by_coefficients = problem.polish(means, problem.best_candidates(means))[0]
    rng, units = np.random.default_rng(seed), WeightedUnits.of(theta, np.ones(len(theta)))
    rows = rng.choice(len(problem.psi), k, replace=False)
    drawn, step = PricedMenu.build(problem, problem.candidates[rows]), FreeChoice(sums_of(units))
    first = step([(k, drawn)], {})[0]
    single = lloyd(problem, {k: first}, step, max_passes=200, tolerance=1e-9).found[k].menu
    sample = theta[rng.choice(len(theta), 4_000, replace=False)]
    table = ProfitTable(profit_matrix(sample, problem.psi), np.ones(len(sample)))
    greedy = table.greedy(k, np.empty(0, dtype=np.intp))
    return {
        "k-means on optimal treatments": np.clip(by_treatment, 0, 2),
        "k-means on coefficients": by_coefficients,
        "single-start Lloyd": single.treatments,
        "greedy": problem.candidates[greedy],
        "greedy with swaps": problem.candidates[table.swap(greedy)],
    }


def masses() -> Iterator[Line]:
    """Fixed masses: value against a min-cost flow on all units, and shares at a million."""
    problem = field_problem(2)
    shares = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    for units in (20_000, 1_000_000):
        theta = field_simulation(units, 2).theta
        menu = choose_menu(
            theta[:4_000], space=problem.space, basis="quadratic", profit=problem.profit, k=5
        )
        profits, weights, wanted = profit_matrix(theta, menu.psi), np.ones(units), shares * units
        start = time.process_time()
        chosen, prices = exact_assignment(profits, weights, wanted, wanted, np.zeros(5))
        seconds = time.process_time() - start
        value = float(profits[np.arange(units), chosen].sum())
        off = float(np.abs(np.bincount(chosen, minlength=5) / units - shares).max())
        if units <= 20_000:
            oracle, kind = transport(profits, weights, wanted, wanted).value, "min-cost flow"
        else:
            oracle, kind = (
                float((profits - prices).max(axis=1).sum() + prices @ wanted),
                "dual bound",
            )
        reached = abs(value / oracle - 1) <= 1e-6 and off == 0
        yield line(
            f"fixed masses, {units} units against {kind}",
            value,
            oracle,
            "profit",
            reached,
            share_error=off,
            cpu_seconds=round(seconds, 2),
        )


def budget() -> Iterator[Line]:
    """CPU of the curve K = 1…10 within a budget on a sketch, against without; the menus' values."""
    problem, spending = field_problem(2), Profit("0", "0.3 * (t1 + t2)")
    for seed in range(3):
        theta = field_simulation(20_000, 2, seed).theta
        units = ArrayPopulation(problem, theta, np.ones(len(theta))).sketch(4_000).units
        seconds, curves = [], []
        for limits in (Limits(budget=Budget(0.3, spending)), Limits()):
            start, settings = time.process_time(), SearchSettings(limits, starts=8)
            curves.append(search_menus(problem, units, range(1, 11), settings))
            seconds.append(time.process_time() - start)
        values = [value_within(menu, units) for menu in curves[0].values()]
        yield line(
            f"CPU of the curve within a budget against without, seed {seed}",
            seconds[0],
            seconds[1],
            "s",
            bool(np.all(np.diff(values) > 0)) and seconds[0] <= 10 * seconds[1],
            values=[round(value, 6) for value in values],
        )


def scale() -> Iterator[Line]:
    """CPU of the whole curve K = 1…10 in two dimensions, bounds included, as units become more."""
    problem, seconds = field_problem(2), {}
    for units in (100_000, 1_000_000):
        theta = field_simulation(units, 2).theta
        seconds[units] = curve(problem, theta, range(1, 11), passes=5).seconds
    growth = seconds[1_000_000] / seconds[100_000]
    yield line(
        "CPU of the curve, 1,000,000 against 100,000 units",
        seconds[1_000_000],
        seconds[100_000],
        "s",
        growth <= 11,
    )


PARTS: dict[str, Callable[[], Iterator[Line]]] = {
    "tables": tables,
    "gaps": gaps,
    "truth": truth,
    "masses": masses,
    "budget": budget,
    "scale": scale,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"some of: {' '.join(PARTS)}")
    for part in parser.parse_args().parts or PARTS:
        for found in PARTS[part]():
            print(json.dumps(found, default=float, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
