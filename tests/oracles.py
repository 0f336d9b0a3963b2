"""The best menu of a few candidates by other means than the package's: what searches must reach.

Profits are linear: unit i earns ψ_j·(θ_i, 1) under candidate j. Every function takes the response
coefficients ``theta`` (n, p) and the candidates' rows ``psi`` (J, p + 1), and nothing here knows
how the package searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

Shares = float | Sequence[float] | Mapping[int, float]

_SECONDS = 120


class Infeasible(Exception):  # noqa: N818  # an answer, not a fault
    """No menu meets the limits."""


@dataclass(frozen=True, eq=False)
class Limits:
    """What a menu has to keep.

    Attributes
    ----------
    lower, upper : shares of the weight: of every treatment; one a place of the menu; or
        {row: share}, where a lower one of more than 0 puts the row on the menu.
    spending : (J, p + 1) rows s of what candidates spend: unit i costs s_j·(θ_i, 1).
    budget : most that may be spent per unit weight.
    required : rows that are on every menu.
    allowed : (n, J) which candidates a unit may get; all of them by default.
    """

    lower: Shares = 0.0
    upper: Shares = 1.0
    spending: np.ndarray | None = None
    budget: float = np.inf
    required: Sequence[int] = ()
    allowed: np.ndarray | None = None


@dataclass(frozen=True)
class Best:
    """The best menu.

    Attributes
    ----------
    rows : of the candidates, by place.
    value : per unit weight, each unit with one treatment; −inf where no such assignment of these
        rows keeps the limits.
    bound : per unit weight, where a unit may be split between treatments: no menu earns more.
    """

    rows: tuple[int, ...]
    value: float
    bound: float


def profits_of(theta: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Return profits (n, J)."""
    return theta @ psi[:, :-1].T + psi[:, -1]


def enumeration(
    theta: np.ndarray,
    psi: np.ndarray,
    k: int,
    *,
    weights: np.ndarray | None = None,
    required: Sequence[int] = (),
    allowed: np.ndarray | None = None,
) -> Best:
    """Return the best of all menus of k candidates without limits, by trying each.

    Raises
    ------
    Infeasible : every menu leaves a unit without a candidate that it may get.
    """
    profits, mass = _prepared(theta, psi, weights)
    if allowed is not None:
        profits = np.where(allowed, profits, -np.inf)
    others = [row for row in range(len(psi)) if row not in required]
    menus = [(*required, *rest) for rest in combinations(others, k - len(required))]
    values = [float(mass @ profits[:, list(menu)].max(axis=1)) for menu in menus]
    best = int(np.argmax(values))
    if values[best] == -np.inf:
        raise Infeasible(f"no menu of {k} candidates serves every unit")
    return Best(menus[best], values[best], values[best])


def greedy(
    theta: np.ndarray,
    psi: np.ndarray,
    k: int,
    *,
    weights: np.ndarray | None = None,
    required: Sequence[int] = (),
) -> tuple[float, tuple[int, ...]]:
    """Return value and rows of the menu that grows by the best addition: often no optimum."""
    profits, mass = _prepared(theta, psi, weights)
    rows, best = list(required), np.full(len(theta), -np.inf)
    if rows:
        best = profits[:, rows].max(axis=1)
    while len(rows) < k:
        values = mass @ np.maximum(profits, best[:, None])
        values[rows] = -np.inf
        rows.append(int(values.argmax()))
        best = np.maximum(best, profits[:, rows[-1]])
    return float(mass @ best), tuple(rows)


def integer_program(
    theta: np.ndarray,
    psi: np.ndarray,
    k: int,
    limits: Limits | None = None,
    *,
    weights: np.ndarray | None = None,
) -> Best:
    """Return the best menu of k candidates within limits, by mixed-integer programming (HiGHS).

    Variables: x_ij share of unit i on candidate j, y_jk whether candidate j takes place k. Maximize
    Σ w_i π_ij x_ij with Σ_j x_ij = 1, x_ij <= Σ_k y_jk <= 1, Σ_j y_jk = 1, and Σ_i w_i x_ij between
    Σ_k lower_jk y_jk and Σ_k upper_jk y_jk. Where all places have the same limits, one place takes
    all k candidates.

    Raises
    ------
    Infeasible : no menu meets the limits.
    """
    limits = limits or Limits()
    profits, mass = _prepared(theta, psi, weights)
    n, size = profits.shape
    place_lower, row_lower = _shares(limits.lower, 0.0, k, size)
    place_upper, row_upper = _shares(limits.upper, 1.0, k, size)
    alike = np.ptp(place_lower) == 0 and np.ptp(place_upper) == 0
    places = 1 if alike else k
    x = np.arange(n * size).reshape(n, size)
    y = n * size + np.arange(size * places).reshape(size, places)
    lower = np.maximum(place_lower[None, :places], row_lower[:, None])
    upper = np.minimum(place_upper[None, :places], row_upper[:, None])
    of_row = [np.append(x[:, row], y[row]) for row in range(size)]
    rules = [
        _sums(x, np.ones(x.shape), 1.0, 1.0),
        _sums(
            [np.append(cell, y[row]) for row in range(size) for cell in x[:, row]],
            np.tile(np.append(1.0, -np.ones(places)), (n * size, 1)),
            -np.inf,
            0.0,
        ),
        _sums(y.T, np.ones(y.T.shape), k / places, k / places),
        _sums(y, np.ones(y.shape), 0.0, 1.0),
        _sums(of_row, [np.append(mass, -row) for row in lower], 0.0, np.inf),
        _sums(of_row, [np.append(mass, -row) for row in upper], -np.inf, 0.0),
    ]
    held = [*limits.required, *np.flatnonzero(row_lower > 0)]
    if held:
        rules.append(_sums(y[held], np.ones((len(held), places)), 1.0, 1.0))
    spent = None
    if limits.spending is not None:
        spent = mass[:, None] * profits_of(theta, limits.spending)
        rules.append(_sums([x.ravel()], [spent.ravel()], -np.inf, limits.budget))
    highest = np.ones(n * size + y.size)
    if limits.allowed is not None:
        highest[x[~limits.allowed]] = 0.0
    gains = mass[:, None] * profits
    bound, found = _solved(gains, rules, highest, whole=y.ravel())
    opened = found[y] > 0.5
    rows = np.flatnonzero(opened[:, 0]) if alike else opened.argmax(axis=0)
    at = np.zeros(k, dtype=int) if alike else np.arange(k)

    # the same rows with every unit on one of them
    x = np.arange(n * k).reshape(n, k)
    rules = [
        _sums(x, np.ones(x.shape), 1.0, 1.0),
        _sums(x.T, np.tile(mass, (k, 1)), lower[rows, at] - 1e-12, upper[rows, at] + 1e-12),
    ]
    if spent is not None:
        rules.append(_sums([x.ravel()], [spent[:, rows].ravel()], -np.inf, limits.budget))
    highest = np.ones(n * k)
    if limits.allowed is not None:
        highest[x[~limits.allowed[:, rows]]] = 0.0
    try:
        value, _ = _solved(gains[:, rows], rules, highest, whole=x.ravel())
    except Infeasible:
        value = -np.inf
    return Best(tuple(rows.tolist()), value, bound)


def _prepared(
    theta: np.ndarray, psi: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return profits (n, J) and weights (n,) that add up to one."""
    mass = np.ones(len(theta)) if weights is None else np.asarray(weights, dtype=float)
    return profits_of(theta, psi), mass / mass.sum()


def _shares(given: Shares, default: float, k: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of places (k,) and of candidates (J,) that limits stand for."""
    places, rows = np.full(k, default), np.full(size, default)
    if isinstance(given, Mapping):
        for row, share in given.items():
            rows[row] = share
    else:
        places[:] = given
    return places, rows


def _sums(
    variables: Iterable[np.ndarray],
    factors: Iterable[np.ndarray],
    low: float | np.ndarray,
    high: float | np.ndarray,
) -> tuple[list[np.ndarray], list[np.ndarray], float | np.ndarray, float | np.ndarray]:
    """Return a constraint a row: the sum of factors times variables stays between low and high."""
    return list(variables), list(factors), low, high


def _solved(
    gains: np.ndarray, rules: list[tuple], highest: np.ndarray, whole: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the largest Σ gains · x and its x, from 0 to ``highest`` and whole at ``whole``."""
    constraints = []
    for variables, factors, low, high in rules:
        rows = np.repeat(np.arange(len(variables)), [len(row) for row in variables])
        entries = (np.concatenate(factors), (rows, np.concatenate(variables)))
        matrix = coo_array(entries, shape=(len(variables), len(highest))).tocsr()
        constraints.append(LinearConstraint(matrix, low, high))
    losses, integral = np.zeros(len(highest)), np.zeros(len(highest))
    losses[: gains.size] = -gains.ravel()
    integral[whole] = 1
    found = milp(
        losses,
        constraints=constraints,
        bounds=Bounds(0.0, highest),
        integrality=integral,
        options={"time_limit": _SECONDS, "mip_rel_gap": 1e-9},
    )
    if found.status == 2:
        raise Infeasible("no menu meets the limits")
    if found.status != 0:
        raise RuntimeError(f"the integer programme did not finish: {found.message}")
    return -float(found.fun), found.x
