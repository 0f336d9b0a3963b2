"""The rule of a menu: fitted on what its treatments earn with the units, eligibility kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import allowed
from coarse_spark.core.policy_tree.rule import AssignmentRule, fit_rule
from coarse_spark.core.profit import profit_matrix


def fit_menu_rule(
    features: pd.DataFrame,
    theta: FloatArray,
    weights: FloatArray,
    problem: MenuProblem,
    menu: PricedMenu,
    *,
    depth: int,
    eligible: Sequence[str] = (),
) -> AssignmentRule:
    """Return the rule that earns most with the treatments of a menu without limits.

    Parameters
    ----------
    features : (n, ·) numbers and texts of the units.
    theta : (n, p) their coefficients, those of rules included.
    weights : (n,).
    problem : of the menu, with the rules that have coefficients.
    menu : the treatments; prices are not kept.
    depth : of the tree.
    eligible : columns of the rules of eligibility, in their order.
    """
    psi, layout = menu.psi, problem.layout
    asks = psi[:, layout.eligibility] < 0
    plain = psi.copy()
    plain[:, layout.eligibility] = 0.0
    order = np.argsort(-(weights @ profit_matrix(theta, plain)), kind="stable")
    earned, may = profit_matrix(theta, psi), allowed(theta, psi, layout)
    # who may not get a treatment gets the first of the order instead: the tree need not know why
    instead = order[may[:, order].argmax(axis=1)]
    with_others = np.take_along_axis(earned, instead[:, None], axis=1)
    profits = np.where(may, earned, with_others)
    rule = fit_rule(features, profits, weights, depth=depth)
    requires = tuple(
        tuple(name for name, asked in zip(eligible, row, strict=True) if asked)
        for row in asks.tolist()
    )
    return replace(rule, requires=requires, order=tuple(order.tolist()))
