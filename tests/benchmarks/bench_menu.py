"""Menus beside peers, oracles and known tables, one JSON object a line.

    python tests/benchmarks/bench_menu.py                 all of it, a few minutes
    python tests/benchmarks/bench_menu.py truth gaps      some of: tables gaps truth masses budget scale

Each line: {"name", "ours", "peer", "ratio", "unit", "reached", …}. Shares are percent of (granular − best uniform) at the truth
of the field simulation. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  # threads are limited before numpy starts them
from sklearn.cluster import KMeans  # noqa: E402

from coarse_spark.core.menu.bounded_curve import search_within  # noqa: E402
from coarse_spark.core.menu.choose import choose_curve, choose_menu, sketch_units  # noqa: E402
from coarse_spark.core.menu.limits import Budget, MenuLimits  # noqa: E402
from coarse_spark.core.menu.lloyd import PricedMenu, refine, segment_sums  # noqa: E402
from coarse_spark.core.menu.problem import MenuProblem  # noqa: E402
from coarse_spark.core.menu.search import ProfitTable  # noqa: E402
from coarse_spark.core.menu.settings import SearchSettings  # noqa: E402
from coarse_spark.core.menu.transport import exact_assignment, transport  # noqa: E402
from coarse_spark.core.profit import Profit, profit_matrix  # noqa: E402
from coarse_spark.core.treatments import TreatmentSpace  # noqa: E402
from coarse_spark.simulate.field import field_simulation  # noqa: E402

Line = dict[str, Any]
TIE = 1e-3  # percentage points: two runs that reach the same optimum of a finite population differ by less


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


def tables() -> Iterator[Line]:
    """Distortions of the Lloyd–Max quantizers from a million normal ideal points."""
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": -5, "upper": 5, "control": 0}}
    )
    problem = MenuProblem.build(space, "quadratic", Profit())
    points = np.random.default_rng(7).normal(size=1_000_000)
    theta = np.column_stack([-(points**2), 2 * points, np.full(len(points), -1.0)])
    curve = choose_curve(problem, theta, [2, 4, 5, 8])
    for k, distortion in {2: 0.3634, 4: 0.1175, 5: 0.07994, 8: 0.03454}.items():
        ours = -curve[k].value
        yield line(
            f"Lloyd-Max distortion, K = {k}",
            ours,
            distortion,
            "squared distance",
            abs(ours / distortion - 1) <= 0.005,
            gap=curve[k].gap,
        )


def gaps() -> Iterator[Line]:
    """Certified gaps of the whole curve, and what the curve costs."""
    for dimensions, units, largest, target in (
        (1, 3_000, 10, 0.001),
        (2, 3_000, 10, 0.005),
        (2, 200_000, 10, 0.005),
    ):
        problem, theta = field_problem(dimensions), field_simulation(units, dimensions).theta
        start = time.process_time()
        curve = choose_curve(problem, theta, range(1, largest + 1))
        seconds = time.process_time() - start
        worst = max(menu.gap for menu in curve.values())
        yield line(
            f"largest certified gap, {dimensions}-D, {units} units, K = 1…{largest}", worst, target, "of granular − control",
            worst <= target, cpu_seconds=round(seconds, 2),
        )  # fmt: skip


def truth() -> Iterator[Line]:
    """Share of granular − uniform at the truth, beside what one would use instead."""
    problem = field_problem(2)
    for seed in range(3):
        theta = field_simulation(20_000, 2, seed).theta
        curve = choose_curve(problem, theta, [1, 2, 3, 5, 8], seed=seed)
        for k in (2, 3, 5, 8):
            ours = curve[k]
            for peer, menu in peers(problem, theta, k, seed).items():
                other = float(profit_matrix(theta, problem.psi_at(menu)).max(axis=1).mean())
                share = (
                    100 * (other - ours.uniform_value) / (ours.granular_value - ours.uniform_value)
                )
                mine = 100 * ours.captured_of_uniform
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
    rng, ones = np.random.default_rng(seed), np.ones(len(theta))
    drawn = PricedMenu.build(
        problem, problem.candidates[rng.choice(len(problem.psi), k, replace=False)]
    )
    lloyd = (
        refine(problem, {k: drawn}, lambda asked: segment_sums(theta, ones, asked), max_passes=200)
        .menus[k]
        .treatments
    )
    sample = theta[rng.choice(len(theta), 4_000, replace=False)]
    table = ProfitTable(profit_matrix(sample, problem.psi), np.ones(len(sample)))
    greedy = table.greedy(k, np.empty(0, dtype=np.intp))
    return {
        "k-means on optimal treatments": np.clip(by_treatment, 0, 2),
        "k-means on coefficients": by_coefficients,
        "single-start Lloyd": lloyd,
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
    """CPU of the curve K = 1…10 within a budget on a sketch, against the one without, and what the budget's menus spend."""
    problem, spending = field_problem(2), Profit("0", "0.3 * (t1 + t2)")
    for seed in range(3):
        theta = field_simulation(20_000, 2, seed).theta
        clusters, _ = sketch_units(problem, theta, np.ones(len(theta)))
        seconds, curves = [], []
        for limits in (MenuLimits(budget=Budget(0.3, spending)), MenuLimits()):
            start = time.process_time()
            curves.append(
                search_within(problem, clusters, range(1, 11), SearchSettings(limits, starts=8))
            )
            seconds.append(time.process_time() - start)
        values = [menu.value(problem, clusters) for menu in curves[0].values()]
        yield line(
            f"CPU of the curve within a budget against without, seed {seed}", seconds[0], seconds[1], "s",
            bool(np.all(np.diff(values) > 0)) and seconds[0] <= 10 * seconds[1], values=[round(value, 6) for value in values],
        )  # fmt: skip


def scale() -> Iterator[Line]:
    """CPU of the whole curve K = 1…10 in two dimensions, bounds included, as the population grows."""
    problem, seconds = field_problem(2), {}
    for units in (100_000, 1_000_000):
        theta = field_simulation(units, 2).theta
        start = time.process_time()
        choose_curve(problem, theta, range(1, 11), max_passes=5)
        seconds[units] = time.process_time() - start
    growth = seconds[1_000_000] / seconds[100_000]
    yield line(
        "CPU of the curve, 1,000,000 against 100,000 units",
        seconds[1_000_000],
        seconds[100_000],
        "s",
        growth <= 11,
    )


PARTS: dict[str, Callable[[], Iterator[Line]]] = {
    "tables": tables, "gaps": gaps, "truth": truth, "masses": masses, "budget": budget, "scale": scale,
}  # fmt: skip


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
