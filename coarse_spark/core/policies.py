"""What a policy is: a map from units, as they are known, to the treatments that they get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.units import assign

if TYPE_CHECKING:  # a menu knows of transport, which configurations that read names here do not
    from coarse_spark.core.menu.menu import PricedMenu

# what a menu is compared with (``core.comparisons``)
ON_FEATURES = ("segments_features_kmeans", "segments_features_tree")
SEGMENTATIONS = (*ON_FEATURES, "segments_responses_kmeans", "segments_treatments_kmeans")
COMPARISONS = (*SEGMENTATIONS, "best_of_grid", "random_menu")


@dataclass(frozen=True, eq=False)
class PolicyUnits:
    """Units as a policy sees them.

    Attributes
    ----------
    problem : what is to be had from them.
    theta : (n, p) response coefficients, which decide.
    features : (n, ·); none where no policy looks at them.
    by_rule : (n,) treatments by the rule of a menu, −1 for none; empty where none is judged.
    """

    problem: MenuProblem
    theta: FloatArray
    features: pd.DataFrame = field(default_factory=pd.DataFrame)
    by_rule: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    @cached_property
    def best(self) -> FloatArray:
        """(n, d) the units' own best treatments, encoded."""
        return self.problem.granular(self.theta)[0]


# from units to the rows ψ (n, p + 1) of the treatments that they get
PolicyMap = Callable[[PolicyUnits], FloatArray]


def menu_policy(menu: PricedMenu, rows: FloatArray | None = None) -> PolicyMap:
    """Return the policy by which every unit gets its best treatment of a menu, at its prices.

    Parameters
    ----------
    menu : the menu.
    rows : (K, ·) of its treatments, to return in the place of their rows ψ.
    """
    return partial(_under_menu, menu.psi if rows is None else rows, menu.priced_psi)


def _under_menu(rows: FloatArray, priced: FloatArray, units: PolicyUnits) -> FloatArray:
    return rows[assign(units.theta, priced)]


def rule_policy(menu: PricedMenu, rows: FloatArray | None = None) -> PolicyMap:
    """Return the policy by which units get what the rule of a menu gives them (``by_rule``).

    Parameters are those of ``menu_policy``.
    """
    return partial(_by_rule, menu.psi if rows is None else rows)


def _by_rule(rows: FloatArray, units: PolicyUnits) -> FloatArray:
    return rows[units.by_rule]
