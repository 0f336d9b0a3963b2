"""What a firm would do instead of a menu: segment its customers, or search a grid of treatments.

Each comparison has as many unique treatments as the menu and is tuned on the same units with the
same responses, all to earn most: a segmentation gives every segment the single treatment that is
best for its members. What differs is who belongs together, or which treatments are looked at:

- ``segments_features_kmeans``: k-means on encoded features (Lloyd 1982);
- ``segments_features_tree``: a regression tree on features (Breiman et al. 1984) with one leaf a
  segment, grown on the units' profits under all treatments;
- ``segments_responses_kmeans``: k-means on standardized response coefficients;
- ``segments_treatments_kmeans``: k-means on the units' own best treatments;
- ``best_of_grid``: the best K of a prespecified grid, every unit under the best of them for it;
- ``random_menu``: K treatments drawn from the candidates, every unit under the best for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.tree import DecisionTreeRegressor

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem, row_blocks
from coarse_spark.core.menu.problem.rules import allowed
from coarse_spark.core.menu.search.table import ProfitTable
from coarse_spark.core.menu.sketch import profit_metric
from coarse_spark.core.menu.units import SegmentSums, WeightedUnits, assign
from coarse_spark.core.policies import PolicyMap, PolicyUnits, menu_policy
from coarse_spark.core.profit import profit_matrix
from coarse_spark.core.treatments import Categorical

_KMEANS_STARTS = 4
_ENUMERATED = 3_000  # menus of grid points that are all looked at; else greedy and swaps
_TREE_LEAF = 0.01  # least share of the units in a leaf


Segments = Callable[[PolicyUnits], IntArray]


def segment_policy(
    segments: Segments, units: PolicyUnits, weights: FloatArray, count: int
) -> PolicyMap:
    """Return the policy of a segmentation: each segment under the treatment that earns most in it.

    A member that may not get the treatment of its segment earns what the control does.

    Parameters
    ----------
    segments : from units to a segment below ``count``.
    units : n of them, whose responses choose the treatments.
    weights : (n,).
    count : of segments. An empty one gets the best single treatment.
    """
    problem, members = units.problem, segments(units)
    sums = SegmentSums.of(members, units.theta, weights, count)
    rows = np.where(sums.weight[:, None] > 0, sums.rows, sums.rows.sum(axis=0))
    if problem.layout.eligibility.stop > problem.layout.eligibility.start:
        profits = _eligible_profits(units, weights, members, count)
        empty = sums.weight <= 0
        profits[empty] = profits.sum(axis=0)
        return partial(_under_segments, problem.psi[profits.argmax(axis=1)], segments)
    best = (rows @ problem.psi.T).argmax(axis=1)
    treatments = problem.polish(rows[:, :-1] / rows[:, -1:], best)[0]
    return partial(_under_segments, problem.psi_at(treatments), segments)


def _under_segments(psi: FloatArray, segments: Segments, units: PolicyUnits) -> FloatArray:
    return psi[segments(units)]


def _eligible_profits(
    units: PolicyUnits, weights: FloatArray, members: IntArray, count: int
) -> FloatArray:
    """Σ w (count, J) of what segments earn under candidates; the control's where refused."""
    problem, total = units.problem, np.zeros((count, len(units.problem.psi)))
    for block in row_blocks(len(units.theta), len(problem.psi)):
        theta = units.theta[block]
        none = profit_matrix(theta, problem.control_psi[None, :])
        may = allowed(theta, problem.psi, problem.layout)
        profits = np.where(may, profit_matrix(theta, problem.psi), none)
        np.add.at(total, members[block], profits * weights[block, None])
    return total


@dataclass(frozen=True, eq=False)
class _Nearest:
    """Units by the nearest of centroids (K, q) in some coordinates."""

    coordinates: Callable[[PolicyUnits], FloatArray]
    centroids: FloatArray

    @staticmethod
    def fit(
        coordinates: Callable[[PolicyUnits], FloatArray],
        units: PolicyUnits,
        weights: FloatArray,
        k: int,
        seed: int,
    ) -> _Nearest:
        points = coordinates(units)
        distinct = len(np.unique(points, axis=0))
        found = KMeans(min(k, distinct), n_init=_KMEANS_STARTS, random_state=seed)
        return _Nearest(coordinates, found.fit(points, sample_weight=weights).cluster_centers_)

    def __call__(self, units: PolicyUnits) -> IntArray:
        # ‖x − c‖² less what is the same for all centroids
        psi = np.column_stack([2 * self.centroids, -((self.centroids**2).sum(axis=1))])
        return assign(self.coordinates(units), psi)


@dataclass(frozen=True, eq=False)
class _Leaves:
    """Units by the leaf of a tree on their encoded features."""

    coordinates: Callable[[PolicyUnits], FloatArray]
    tree: DecisionTreeRegressor
    leaves: IntArray

    @staticmethod
    def fit(
        coordinates: Callable[[PolicyUnits], FloatArray],
        units: PolicyUnits,
        weights: FloatArray,
        k: int,
        seed: int,
    ) -> _Leaves:
        points = coordinates(units)
        # squared distances of these targets are those of profits, over treatments
        profit, psi = units.problem.layout.profit, units.problem.psi
        theta = units.theta[:, profit]
        target = theta @ profit_metric(theta, np.column_stack([psi[:, profit], psi[:, -1]]))
        tree = DecisionTreeRegressor(
            max_leaf_nodes=k, min_weight_fraction_leaf=_TREE_LEAF, random_state=seed
        ).fit(points, target, sample_weight=weights)
        return _Leaves(coordinates, tree, np.unique(tree.apply(points)))

    def __call__(self, units: PolicyUnits) -> IntArray:
        reached = self.tree.apply(self.coordinates(units))
        return np.asarray(np.searchsorted(self.leaves, reached), dtype=np.intp)


def _encoded(encoder: FeatureEncoder, units: PolicyUnits) -> FloatArray:
    return encoder.transform(units.features)[:, 1:]


def _standardized(center: FloatArray, scale: FloatArray, units: PolicyUnits) -> FloatArray:
    return np.asarray((units.theta[:, : len(center)] - center) / scale)


def _own_best(units: PolicyUnits) -> FloatArray:
    """Own best treatments with every dimension in [0, 1], levels as indicators."""
    space, columns = units.problem.space, []
    for values, dimension, (low, high) in zip(
        units.best.T, space.dimensions, space.bounds, strict=True
    ):
        if isinstance(dimension, Categorical):
            columns.append(np.eye(len(dimension.levels))[values.astype(np.intp)])
        else:
            columns.append(((values - low) / (high - low))[:, None])
    return np.hstack(columns)


def fit_comparisons(
    names: Sequence[str],
    k: int,
    *,
    sketch: WeightedUnits,
    sample: PolicyUnits,
    weights: FloatArray,
    grid_points: int,
    seed: int,
) -> dict[str, PolicyMap]:
    """Return the policies of comparisons with ``k`` treatments.

    Parameters
    ----------
    names : some of ``COMPARISONS``.
    k : as many as the menu has.
    sketch : all units that the comparisons may be tuned on, in cells, for what searches menus. Its
        cells tell profits apart, not responses: they have no place in segments of their own.
    sample : of these units, with features where a comparison is on them, for segmentations.
    weights : (n,) of the sample.
    grid_points : a dimension of the prespecified grid.
    seed : of the starts of k-means and of random menus.
    """
    problem = sample.problem
    fits: Mapping[str, Callable[[], PolicyMap]] = {
        "segments_features_kmeans": lambda: segmented(_Nearest, on_features()),
        "segments_features_tree": lambda: segmented(_Leaves, on_features()),
        "segments_responses_kmeans": lambda: segmented(
            _Nearest, _scaled_responses(sample, weights)
        ),
        "segments_treatments_kmeans": lambda: segmented(_Nearest, _own_best),
        "best_of_grid": lambda: menu_policy(_best_of_grid(problem, sketch, k, grid_points)),
        "random_menu": lambda: menu_policy(_random_menu(problem, k, seed)),
    }

    def on_features() -> Callable[[PolicyUnits], FloatArray]:
        return partial(_encoded, FeatureEncoder.fit(sample.features, weights, knots=0))

    def segmented(kind: Any, coordinates: Any) -> PolicyMap:
        # one segment, or nothing that tells units apart
        if k == 1 or not coordinates(sample).shape[1]:
            return segment_policy(_all_together, sample, weights, 1)
        return segment_policy(kind.fit(coordinates, sample, weights, k, seed), sample, weights, k)

    return {name: fits[name]() for name in names}


def _all_together(units: PolicyUnits) -> IntArray:
    return np.zeros(len(units.theta), dtype=np.intp)


def _scaled_responses(
    units: PolicyUnits, weights: FloatArray
) -> Callable[[PolicyUnits], FloatArray]:
    theta = units.theta[:, units.problem.layout.profit]
    center = weights @ theta / weights.sum()
    scale = np.sqrt(weights @ (theta - center) ** 2 / weights.sum())
    # what does not vary but for rounding says nothing
    varies = scale > 1e-9 * np.abs(theta).max(axis=0, initial=1e-300)
    return partial(_standardized, center, np.where(varies, scale, np.inf))


def grid_of(problem: MenuProblem, points: int) -> FloatArray:
    """Return a prespecified grid of treatments (G, d), with at most ``points`` a dimension.

    Evenly spaced between the bounds; of steps or values evenly spaced ones, all levels of a
    categorical dimension, and the control. Treatments that may not be offered are left out. Of a
    finite list of treatments as many as a grid would have are evenly spaced ones.
    """
    space = problem.space
    if space.finite is not None:
        most = min(points ** len(space.dimensions), len(problem.candidates))
        rows = np.linspace(0, len(problem.candidates) - 1, most).round().astype(np.intp)
        return problem.candidates[rows]
    values = []
    for dimension in space.dimensions:
        if isinstance(dimension, Categorical):
            values.append(np.arange(len(dimension.levels), dtype=np.float64))
            continue
        offered = dimension.grid(points)
        chosen = np.linspace(0, len(offered) - 1, min(points, len(offered))).round()
        values.append(offered[chosen.astype(np.intp)])
    grid = np.array(list(product(*values)))
    grid = grid[space.allowed(grid)]
    control = space.control[None, :]
    if problem.position(space.control) is not None and not space.same(grid, space.control).any():
        grid = np.vstack([grid, control])
    return grid if len(grid) else problem.candidates


def _best_of_grid(problem: MenuProblem, units: WeightedUnits, k: int, points: int) -> PricedMenu:
    grid = grid_of(problem, points)
    profits = profit_matrix(units.theta, problem.psi_at(grid))
    return PricedMenu.build(problem, grid[best_columns(profits, units.weights, k)])


def best_columns(profits: FloatArray, weights: FloatArray, k: int) -> list[int]:
    """Return the ``k`` columns of profits (n, G) of which units like their best most.

    All sets are looked at where they are few; else the greedy set is improved by swaps until none
    gains.
    """
    k = min(k, profits.shape[1])

    def value(columns: Iterable[int]) -> float:
        return float(weights @ profits[:, list(columns)].max(axis=1))

    if comb(profits.shape[1], k) <= _ENUMERATED:
        return list(max(combinations(range(profits.shape[1]), k), key=value))
    table = ProfitTable(profits, weights)
    columns: list[int] = table.swap(table.greedy(k, np.array([], dtype=np.intp))).tolist()
    return columns


def _random_menu(problem: MenuProblem, k: int, seed: int) -> PricedMenu:
    drawn = np.random.default_rng(seed).choice(
        len(problem.candidates), min(k, len(problem.candidates)), replace=False
    )
    return PricedMenu.build(problem, problem.candidates[np.sort(drawn)])
