"""Menus do not depend on the rounding of the sums they are chosen from.

They are the same to 1e-9 after changes of 1e-14.
"""

from __future__ import annotations

import numpy as np
import pytest

from coarse_spark.core.menu.choose import choose_menus
from coarse_spark.core.menu.population import ArrayPopulation
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.simulate.promotions import MAX_DAYS, MAX_DEPTH, simulate_promotions_block


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rounding_of_responses_does_not_move_treatments(seed: int) -> None:
    """Profit is cubic in the depth: a margin that falls with it, times a quadratic response.

    Some optima lie on the edge.
    """
    bounds = {"depth": MAX_DEPTH, "days": MAX_DAYS}
    space = TreatmentSpace.from_dict(
        {n: {"kind": "continuous", "lower": 0, "upper": u, "control": 0} for n, u in bounds.items()}
    )
    profit = Profit("0.45 - depth / 100", "where(depth + days > 0, 0.15, 0) + 0.01 * days")
    problem = MenuProblem.build(space, "quadratic", profit)
    units = simulate_promotions_block(0, seed, experiment=True).iloc[:3_000]
    theta = units[[f"theta_{j}" for j in range(6)]].to_numpy(float)
    rng, weights, found = np.random.default_rng(seed), np.ones(len(theta)), []
    for noise in (0.0, 1e-14):
        rounded = theta * (1 + noise * rng.standard_normal(theta.shape))
        population = ArrayPopulation(problem, rounded, weights)
        settings = SearchSettings(starts=3, cells=500, passes=3)
        found.append(choose_menus(population, [1, 2, 3], settings).chosen)
    for k in (1, 2, 3):
        np.testing.assert_allclose(
            found[1][k].menu.treatments, found[0][k].menu.treatments, rtol=0, atol=1e-9
        )
