from __future__ import annotations

import numpy as np
import pytest

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.sketch import SketchTree, profit_metric
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, segment_sums
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace

SPACE = TreatmentSpace.from_dict(
    {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in ("a", "b")}
)
PROBLEM = MenuProblem.build(SPACE, "quadratic", Profit("1", "0.3 * (a + b)"))


def _units(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    peak, bend = rng.uniform(0, 2, (n, 2)), rng.uniform(0.5, 1.5, (n, 2))
    return np.column_stack(
        [
            rng.normal(size=n),
            peak[:, 0] * bend[:, 0],
            peak[:, 1] * bend[:, 1],
            -bend[:, 0] / 2,
            0.1 * peak[:, 0],
            -bend[:, 1] / 2,
        ]
    )


def _sums(tree: SketchTree, theta: np.ndarray, weights: np.ndarray) -> SegmentSums:
    return SegmentSums.of(tree.cells(theta), theta, weights, tree.count)


def test_metric_is_the_spread_of_profit_differences() -> None:
    theta = _units(200)
    metric = profit_metric(theta, PROBLEM.psi)
    differences = profit_matrix(theta[:100] - theta[100:], PROBLEM.psi * [*[1] * 6, 0])
    liked = (
        np.bincount(profit_matrix(theta, PROBLEM.psi).argmax(axis=1), minlength=len(PROBLEM.psi))
        / 200
    )
    share = 0.5 / len(PROBLEM.psi) + 0.5 * liked
    centred = differences - (differences @ share)[:, None]
    expected = np.sqrt((centred**2) @ share)
    np.testing.assert_allclose(
        np.linalg.norm((theta[:100] - theta[100:]) @ metric, axis=1), expected, rtol=1e-7
    )
    # the constant shifts every profit of a unit alike and does not count
    assert np.abs(np.array([5.0, 0, 0, 0, 0, 0]) @ metric).max() < 1e-12


def test_cells_do_not_depend_on_the_order_of_rows_nor_on_blocks() -> None:
    theta, weights = _units(3_000), np.random.default_rng(1).uniform(0.5, 2, 3_000)
    tree = SketchTree.build(WeightedUnits.of(theta, weights), PROBLEM.psi, 150)
    order = np.random.default_rng(2).permutation(3_000)
    shuffled = SketchTree.build(WeightedUnits.of(theta[order], weights[order]), PROBLEM.psi, 150)
    for name, array in vars(tree).items():
        np.testing.assert_array_equal(array, getattr(shuffled, name))
    cells = tree.cells(theta)
    assert tree.count == 150
    assert set(cells) == set(range(150))
    np.testing.assert_array_equal(
        np.concatenate([tree.cells(part) for part in np.array_split(theta, 7)]), cells
    )


def test_sums_add_up_and_keep_the_mean_response() -> None:
    theta, weights = _units(2_000), np.random.default_rng(1).uniform(0, 2, 2_000)
    tree = SketchTree.build(WeightedUnits.of(theta, weights), PROBLEM.psi, 100)
    whole = _sums(tree, theta, weights)
    parts = _sums(tree, theta[:700], weights[:700]) + _sums(tree, theta[700:], weights[700:])
    np.testing.assert_allclose(parts.theta, whole.theta, rtol=1e-12, atol=1e-10)
    units = whole.means
    assert units.behind.sum() == 2_000
    np.testing.assert_allclose(units.weights @ units.theta, weights @ theta, rtol=1e-10)


@pytest.mark.parametrize("cells", [1, 20, 400])
def test_more_cells_lose_less_and_never_overstate(cells: int) -> None:
    theta, weights = _units(4_000), np.ones(4_000)
    menu = PricedMenu.build(PROBLEM, np.array([[0.5, 0.5], [1.5, 0.5], [1.0, 1.5]]))
    rows = {0: menu.priced_psi}
    exact = segment_sums(theta, weights, rows)[0].value(menu.psi)
    tree = SketchTree.build(WeightedUnits.of(theta, weights), PROBLEM.psi, cells)
    units = _sums(tree, theta, weights).means
    rough = segment_sums(units.theta, units.weights, rows)[0].value(menu.psi)
    assert rough <= exact + 1e-12
    assert exact - rough < {1: 1.0, 20: 0.05, 400: 0.012}[cells]


def test_alike_units_share_one_cell() -> None:
    theta = np.repeat(_units(3), 50, axis=0)
    tree = SketchTree.build(WeightedUnits.of(theta, np.ones(150)), PROBLEM.psi, 100)
    assert tree.count == 3
    np.testing.assert_array_equal(np.sort(np.bincount(tree.cells(theta))), [50, 50, 50])
    assert SketchTree.build(WeightedUnits.of(theta[:50], np.ones(50)), PROBLEM.psi, 100).count == 1
