"""What tests of menus share: curves of sizes, and the names inside the package that may move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from coarse_spark import choose_menu
from coarse_spark.core.menu.problem.limits import Budget as Budget

if TYPE_CHECKING:
    from coarse_spark.core.menu.menu import Menu
    from coarse_spark.core.menu.problem.limits import Shares
    from coarse_spark.core.menu.problem.problem import MenuProblem
    from coarse_spark.core.treatments import TreatmentSpace


def curve(
    problem: MenuProblem, theta: np.ndarray, sizes: Iterable[int], **arguments: Any
) -> dict[int, Menu]:
    """Return menus of several sizes; ``arguments`` are those of ``choose_menu``."""
    return {
        k: choose_menu(
            theta,
            space=problem.space,
            basis=problem.basis,
            profit=problem.profit,
            k=k,
            **arguments,
        )
        for k in sizes
    }


def spending(menu: Menu) -> float:
    """Return what a menu within limits spends per unit weight."""
    return menu.limits.spending


def budget_price(menu: Menu) -> float:
    """Return what one more unit of budget is worth to a menu within limits."""
    return menu.limits.budget_price


def keeps_shares(
    menu: Menu,
    shares: np.ndarray,
    space: TreatmentSpace,
    min_share: Shares = None,
    max_share: Shares = None,
) -> bool:
    """Return whether shares (K,) of a menu keep limits as ``choose_menu`` takes them."""
    lower, upper = (
        np.full(menu.k, default) if given is None or isinstance(given, Mapping) else given
        for given, default in ((min_share, 0.0), (max_share, 1.0))
    )
    lower, upper = np.broadcast_to(lower, menu.k), np.broadcast_to(upper, menu.k)
    for given, sign in ((min_share, 1), (max_share, -1)):
        for row, limit in given.items() if isinstance(given, Mapping) else ():
            place = (menu.encoded == space.candidates[row]).all(axis=1)
            if sign > 0 and limit > 0 and not place.any():
                return False
            if (sign * (shares[place] - limit) < -1e-9).any():
                return False
    orders = (shares[list(order)] for order in permutations(range(menu.k)))
    return any(((lower <= own + 1e-9) & (own <= upper + 1e-9)).all() for own in orders)
