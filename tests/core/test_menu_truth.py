"""With true responses of the simulated promotion, the menu is the best over a coarse grid."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from coarse_spark import Profit, TreatmentSpace, choose_menu
from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import profit_matrix
from coarse_spark.simulate.promotions import MAX_DAYS, MAX_DEPTH, simulate_promotions_block

PROFIT = Profit("0.45 - depth / 100", "where(depth + days > 0, 0.15, 0) + 0.01 * days")


@pytest.mark.parametrize("k", [1, 2, 3])
def test_promotions_reach_the_brute_force_optimum(k: int) -> None:
    grid = pd.DataFrame(
        [
            (depth, days)
            for depth in np.linspace(0, MAX_DEPTH, 6)
            for days in np.linspace(0, MAX_DAYS, 4)
        ],
        columns=["depth", "days"],
    )
    space = TreatmentSpace.from_candidates(grid, control={"depth": 0, "days": 0})
    units = simulate_promotions_block(0, seed=3, experiment=True).iloc[:400]
    theta = units[[f"theta_{j}" for j in range(6)]].to_numpy(float)
    profits = profit_matrix(theta, PROFIT.psi(space.candidates, Basis("quadratic", space)))
    best = max(
        profits[:, list(menu)].max(axis=1).mean() for menu in combinations(range(len(grid)), k)
    )
    menu = choose_menu(theta, space=space, basis="quadratic", profit=PROFIT, k=k, seed=0)
    assert menu.value == pytest.approx(best, rel=1e-12)
    assert menu.upper_bound >= menu.value - 1e-12
    served = profits[
        np.arange(len(theta)),
        [
            np.flatnonzero((space.candidates == menu.encoded[z]).all(axis=1))[0]
            for z in menu.assign(theta)
        ],
    ]
    assert served.mean() == pytest.approx(menu.value, rel=1e-12)
