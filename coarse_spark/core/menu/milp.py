"""The best menu of a small finite space by mixed-integer programming (HiGHS): an oracle, share limits and a budget included."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.budget import BudgetSearch
from coarse_spark.core.menu.constrained import ConstrainedSearch
from coarse_spark.core.menu.limited import LimitedMenu
from coarse_spark.core.menu.limits import Budget
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError

_MAX_SIZE = 60_000  # units x candidates
_SECONDS = 120


def milp_menu(search: ConstrainedSearch, budget: Budget | None) -> LimitedMenu:
    """Solve for the menu of candidates; returns it with prices 0, which the settlement on all units improves.

    Variables: x_ij share of unit i on candidate j, y_jk whether candidate j takes position k. Maximize Σ w_i π_ij x_ij with Σ_j
    x_ij = 1, x_ij <= Σ_k y_jk <= 1, Σ_j y_jk = 1, and lower_jk y_jk <= Σ_i w_i x_ij <= upper_jk y_jk summed over positions.

    Raises
    ------
    InvalidInputError : the problem is too large, infeasible, or not solved in time.
    """
    problem, k = search.problem, search.k
    profits = profit_matrix(search.sketch.theta, problem.psi)
    mass = search.sketch.weights / search.sketch.weights.sum()
    m, size = profits.shape
    if m * size > _MAX_SIZE:
        raise InvalidInputError(
            f"method 'milp' has {m} x {size} units x candidates, more than {_MAX_SIZE} can be solved; use 'auto'"
        )
    limits, symmetric = search.limits, search.limits.symmetric
    positions = 1 if symmetric else k
    count = m * size + size * positions
    x = np.arange(m * size).reshape(m, size)
    y = m * size + np.arange(size * positions).reshape(size, positions)
    rows: list[LinearConstraint] = []

    def add(
        row: IntArray,
        column: IntArray,
        entry: FloatArray,
        low: FloatArray,
        high: FloatArray,
    ) -> None:
        rows.append(
            LinearConstraint(
                coo_array((entry, (row, column)), shape=(len(low), count)).tocsr(), low, high
            )
        )

    every = np.arange(m)
    add(np.repeat(every, size), x.ravel(), np.ones(m * size), np.ones(m), np.ones(m))
    link = np.arange(m * size)
    add(
        np.concatenate([link, np.repeat(link, positions)]),
        np.concatenate([x.ravel(), np.tile(y, (m, 1)).ravel()]),
        np.concatenate([np.ones(m * size), -np.ones(m * size * positions)]),
        np.full(m * size, -np.inf),
        np.zeros(m * size),
    )
    wanted = float(k) if symmetric else 1.0
    add(
        np.tile(np.arange(positions), size),
        y.ravel(),
        np.ones(y.size),
        np.full(positions, wanted),
        np.full(positions, wanted),
    )
    add(
        np.repeat(np.arange(size), positions),
        y.ravel(),
        np.ones(y.size),
        np.zeros(size),
        np.ones(size),
    )
    if not limits.free:
        lower = np.maximum(limits.lower[None, :positions], limits.candidate_lower[:, None])
        upper = np.minimum(limits.upper[None, :positions], limits.candidate_upper[:, None])
        column = np.concatenate([x.T.ravel(), y.ravel()])
        row = np.concatenate([np.repeat(np.arange(size), m), np.repeat(np.arange(size), positions)])
        share = np.tile(mass, size)
        add(
            row,
            column,
            np.concatenate([share, -lower.ravel()]),
            np.zeros(size),
            np.full(size, np.inf),
        )
        add(
            row,
            column,
            np.concatenate([share, -upper.ravel()]),
            np.full(size, -np.inf),
            np.zeros(size),
        )
    if budget is not None:
        spending = (
            profit_matrix(
                search.sketch.theta, BudgetSearch(search, budget).rows(problem.candidates)
            )
            * mass[:, None]
        )
        add(
            np.zeros(m * size, dtype=np.intp),
            x.ravel(),
            spending.ravel(),
            np.array([-np.inf]),
            np.array([budget.limit]),
        )
    low, high = np.zeros(count), np.ones(count)
    for row_of in search.limited.rows(search.fixed):
        if symmetric:
            low[y[row_of]] = 1.0
        else:
            add(
                np.zeros(positions, dtype=np.intp),
                y[row_of],
                np.ones(positions),
                np.ones(1),
                np.ones(1),
            )
    if symmetric:
        low[y[limits.forced]] = 1.0
    gain = np.zeros(count)
    gain[: m * size] = -(profits * mass[:, None]).ravel()
    whole = np.concatenate([np.zeros(m * size), np.ones(y.size)])
    solved = milp(
        gain,
        constraints=rows,
        bounds=Bounds(low, high),
        integrality=whole,
        options={"time_limit": _SECONDS, "mip_rel_gap": 1e-9},
    )
    if solved.status == 2:
        raise InvalidInputError(
            f"no menu of {k} candidates meets all limits; loosen them, or choose another k"
        )
    if solved.x is None or solved.status != 0:
        raise InvalidInputError(
            f"method 'milp' did not finish in {_SECONDS} s: {solved.message}; use 'auto'"
        )
    open_ = solved.x[m * size :].reshape(size, positions) > 0.5
    columns = np.flatnonzero(open_[:, 0]) if symmetric else open_.argmax(axis=0)
    return LimitedMenu(problem.candidates[columns], np.zeros(k), -float(solved.fun))
