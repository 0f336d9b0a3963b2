"""What tests of menus share: curves of sizes, and the names inside the package that may move."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from coarse_spark import choose_menu
from coarse_spark.core.menu.limits import Budget as Budget

if TYPE_CHECKING:
    import numpy as np

    from coarse_spark.core.menu.problem import MenuProblem
    from coarse_spark.core.menu.result import Menu


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
    return menu.constraints.spending


def budget_price(menu: Menu) -> float:
    """Return what one more unit of budget is worth to a menu within limits."""
    return menu.constraints.budget_price
