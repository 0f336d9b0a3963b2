"""Assignment of many units to ten treatments within three budgets, the shape of DuaLip's problems.

    python tests/benchmarks/bench_limits.py [UNITS [PEER_UNITS]]

Beside HiGHS on the whole programme of the peer's units for the optimum, and beside one plain pass
(every unit's best treatment at given prices) over all units for time. Times are CPU seconds.
"""

from __future__ import annotations

import sys
from time import process_time

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, kron

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.limits import Limit, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.steps import PricedPass
from coarse_spark.core.menu.settle import settle
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace

K, BUDGETS, MOST = 10, 3, (0.35, 0.25, 0.35)
SPACE = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": list(range(K)), "control": 0}}
)


def problem() -> tuple[MenuProblem, Limits]:
    """Return ten arms, each of which uses three resources more or less."""
    rng = np.random.default_rng(0)
    limits = []
    for number in range(BUDGETS):
        used = np.round(rng.uniform(0.2, 1.0, K), 3)
        used[0] = 0.0
        text = " + ".join(f"{rate} * (arm == {arm})" for arm, rate in enumerate(used) if rate)
        limits.append(Limit(f"resource {number + 1}", Profit("0", text), at_most=MOST[number]))
    return (
        MenuProblem.build(SPACE, "arms", Profit()).with_totals(limits),
        Limits(limits=tuple(limits)),
    )


def units(count: int) -> np.ndarray:
    """Return what units earn (n, K) under each arm."""
    rng = np.random.default_rng(1)
    taste = rng.normal(size=(count, 3)) @ rng.normal(size=(3, K))
    return 0.3 * taste + np.linspace(0, 0.5, K) + rng.gumbel(0, 0.3, (count, K))


def assigned(theta: np.ndarray) -> tuple[float, np.ndarray, tuple[float, ...], float, float]:
    """Return value, use, prices and CPU seconds within budgets, and those of a plain pass."""
    of, limits = problem()
    population = ArrayPopulation(of, theta, np.ones(len(theta)))
    arms = PricedMenu.build(of, SPACE.candidates, limits=limits.of_size(K, of))
    start = process_time()
    sample = population.sample()
    pricing = PricedPass(lambda menus: population.sums(menus)[0], sample)
    priced = pricing.priced(arms)
    assert priced is not None
    done = settle(population, {K: priced}, sample)[K]
    seconds = process_time() - start
    start = process_time()
    population.sums({K: priced})
    plain = process_time() - start
    used = done.menu.used(done.sums)
    return done.sums.value(done.menu.psi), used, done.menu.limit_prices, seconds, plain


def optimum(theta: np.ndarray) -> tuple[float, float]:
    """Return HiGHS's optimum of the whole programme, per unit, and CPU seconds."""
    of, limits = problem()
    n = len(theta)
    profits = profit_matrix(theta, of.psi)
    counted = [profit_matrix(theta, rows) for rows in of.counted_at(of.candidates)]
    start = process_time()
    found = linprog(
        -profits.ravel(),
        csr_array(np.array(counted).reshape(BUDGETS, -1)),
        np.array([limit.most for limit in limits.totals]) * n,
        kron(eye_array(n), np.ones((1, K))),
        np.ones(n),
        method="highs",
    )
    return -found.fun / n, process_time() - start


def main(count: int = 1_000_000, peer: int = 20_000) -> None:
    """Print the figures."""
    theta = units(count)
    value, used, prices, seconds, plain = assigned(theta[:peer])
    best, highs = optimum(theta[:peer])
    print(f"{peer:,} units: {value:.6f} of HiGHS's {best:.6f} ({value / best:.5%}), use {used}")
    print(f"  CPU {seconds:.2f} s, HiGHS on the whole programme {highs:.2f} s")
    value, used, prices, seconds, plain = assigned(theta)
    print(f"{count:,} units: {value:.6f}, use {used}, prices {np.round(prices, 5)}")
    print(f"  CPU {seconds:.2f} s, a plain pass {plain:.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
