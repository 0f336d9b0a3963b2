"""Assignment of units to given treatments under limits on their shares: semi-discrete transport.

The dual has one shadow price a treatment: unit i takes argmax_k π_ik − λ_k (power cells). POT's
network simplex finds the transport and its prices on a sketch; on all units the prices are improved
by minimizing the dual, and the few units at the boundary between cells are then assigned by an
exact transport among themselves, which is repeated until no other unit would gain by moving: the
result is an optimal assignment in whole units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import ot
from scipy.optimize import minimize

from coarse_spark.core.arrays import FloatArray, IntArray

_SIMPLEX_ITERATIONS = 10_000_000
_ROUNDS = 30
_BOUNDARY = 200  # units nearest to indifference between two treatments, exact from the start


@dataclass(frozen=True, eq=False)
class Transport:
    """A transport plan and the shadow prices that support it.

    Attributes
    ----------
    plan : (m, K) mass of every unit on every treatment.
    prices : (K,).
    value : Σ plan · profit.
    """

    plan: FloatArray
    prices: FloatArray
    value: float


def transport(
    profits: FloatArray, weights: FloatArray, lower: FloatArray, upper: FloatArray
) -> Transport:
    """Maximize the profit of a transport plan whose column sums stay within limits.

    It is found by POT's network simplex.

    Parameters
    ----------
    profits : (m, K).
    weights : (m,).
    lower, upper : (K,) masses, Σ lower <= Σ weights <= Σ upper.
    """
    # in units of the mean weight: whole units stay whole numbers, and POT's absolute tolerances fit
    mean = float(weights.mean())
    weights, lower = weights / mean, lower / mean
    total = float(weights.sum())
    upper = np.minimum(upper / mean, total)
    # a treatment is two sinks: what it must get, and what it may get besides; an idle source fills
    # what no unit takes of the second
    may = np.maximum(upper - lower, 0.0)
    idle = float(lower.sum() + may.sum() - total)
    k = profits.shape[1]
    scale = max(float(np.ptp(profits)), 1e-300)
    costs = (profits.max() - profits) / scale
    costs = np.hstack([costs, costs])
    source = weights
    if idle > 1e-12 * total:
        costs = np.vstack([costs, np.concatenate([np.full(k, 10.0 * k), np.zeros(k)])])
        source = np.append(weights, idle)
    sinks = np.concatenate([lower, may])
    open_ = sinks > 0
    sinks = sinks * (source.sum() / sinks.sum())
    plan = np.zeros(costs.shape)
    plan[:, open_], record = ot.emd(
        np.ascontiguousarray(source),
        np.ascontiguousarray(sinks[open_]),
        np.ascontiguousarray(costs[:, open_]),
        numItermax=_SIMPLEX_ITERATIONS,
        log=True,
    )
    level = np.full(2 * k, -np.inf)
    level[open_] = record["v"]
    if len(source) > len(weights):
        level += record["u"][-1]
    real = plan[: len(weights)]
    flexible = real[:, k:].sum(axis=0) > 1e-12 * total
    prices = -np.where(flexible | (level[:k] == -np.inf), level[k:], level[:k]) * scale
    result = real[:, :k] + real[:, k:]
    shares = result.sum(axis=0)
    prices = _normalized(prices, shares, lower, upper, total, 1e-9 * scale)
    closed = upper <= 0
    if closed.any() and not closed.all():
        # no unit may get it: the lowest price at which none wants it
        best = (profits[:, ~closed] - prices[~closed]).max(axis=1)
        prices[closed] = np.maximum((profits[:, closed] - best[:, None]).max(axis=0), 0.0)
    return Transport(result * mean, prices, float((result * profits).sum()) * mean)


def _normalized(
    prices: FloatArray,
    shares: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    total: float,
    noise: float,
) -> FloatArray:
    """Choose the constant that limits leave open, and keep to complementary slackness.

    That gives the prices their signs and zeros.
    """
    at_upper, at_lower = shares >= upper - 1e-9 * total, shares <= lower + 1e-9 * total
    slack = ~at_upper & ~at_lower
    prices = np.where(np.isfinite(prices), prices, 0.0)
    if slack.any():
        prices = prices - prices[slack].mean()
        prices[slack] = 0.0
        prices = np.where(
            at_upper & ~at_lower,
            np.maximum(prices, 0),
            np.where(at_lower & ~at_upper, np.minimum(prices, 0), prices),
        )
    elif not at_lower.any():
        prices = prices - prices.min()
    elif not at_upper.any():
        prices = prices - prices.max()
    else:
        # any constant will do that leaves upper limits a price from 0 up and lower ones from 0 down
        up, down = at_upper & ~at_lower, at_lower & ~at_upper
        least, most = -prices[up].min(initial=np.inf), -prices[down].max(initial=-np.inf)
        prices = prices + max(least, min(most, -float(shares @ prices) / total))
    return np.asarray(np.where(np.abs(prices) > noise, prices, 0.0))


def improve_prices(
    profits: FloatArray,
    weights: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    prices: FloatArray,
) -> FloatArray:
    """Minimize the dual Σ w max_k(π_ik − λ_k) + Σ_k max(λ_k upper_k, λ_k lower_k) over λ.

    Starts from given prices (K,) and returns better ones.
    """
    total, k = float(weights.sum()), profits.shape[1]
    scale = max(float(np.ptp(profits)), 1e-300)
    rows = np.arange(len(profits))

    def dual(split: FloatArray) -> tuple[float, FloatArray]:
        net = profits - (split[:k] - split[k:]) * scale
        best = net.argmax(axis=1)
        shares = np.bincount(best, weights, minlength=k) / total
        value = (
            float(weights @ net[rows, best]) / (total * scale)
            + float(split[:k] @ upper - split[k:] @ lower) / total
        )
        return value, np.concatenate([upper / total - shares, shares - lower / total])

    start = np.concatenate([np.maximum(prices, 0), np.maximum(-prices, 0)]) / scale
    found = minimize(
        dual,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * k),
        options={"maxiter": 200, "ftol": 1e-14},
    )
    return np.asarray((found.x[:k] - found.x[k:]) * scale)


def whole_limits(
    weights: FloatArray, lower: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return limits in whole units for equally weighted ones.

    That is the least number at or above lower, and the largest at or below upper. Exact masses
    (lower = upper) that are no whole numbers are rounded by largest remainders, so that they still
    add up.
    """
    if np.ptp(weights) > 1e-12 * weights.max():
        return lower, upper
    return whole_masses(float(weights[0]), len(weights), lower, upper)


def whole_masses(
    unit: float, count: int, lower: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the limits of ``whole_limits`` for ``count`` units of weight ``unit`` each."""
    low, high = lower / unit, upper / unit
    exact = high - low <= 1e-9 * count
    least, most = np.ceil(low - 1e-9), np.floor(high + 1e-9)
    least[exact] = most[exact] = np.floor(low[exact] + 1e-9)
    crossed = least > most
    least[crossed] = most[crossed]
    missing = int(count - most.sum())
    if missing > 0:
        for position in np.argsort(-(high - most), kind="stable")[:missing]:
            most[position] += 1
            if exact[position]:
                least[position] = max(least[position], most[position])
    # minima that whole units cannot keep together: those are lowered that were rounded up most
    excess = int(least.sum() - count)
    if excess > 0:
        least[np.argsort(-(least - low), kind="stable")[:excess]] -= 1
    return least * unit, most * unit


def exact_assignment(
    profits: FloatArray,
    weights: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    prices: FloatArray,
) -> tuple[IntArray, FloatArray]:
    """Assign every unit to one treatment within limits at the largest profit.

    Returns the treatments (n,) and the prices (K,). Equally weighted units meet ``whole_limits``
    exactly; of unequally weighted ones each treatment may be off by one unit's weight.

    Parameters
    ----------
    profits : (n, K).
    weights : (n,).
    lower, upper : (K,) masses.
    prices : (K,) to start from.
    """
    n, k = profits.shape
    lower, upper = whole_limits(weights, lower, upper)
    prices = improve_prices(profits, weights, lower, upper, prices)
    rows = np.arange(n)
    window = _BOUNDARY
    chosen = (profits - prices).argmax(axis=1)
    core = np.zeros(n, dtype=bool)
    for _ in range(_ROUNDS):
        net = profits - prices
        best = net.argmax(axis=1)
        loss = net[rows, best][:, None] - net
        shares = np.bincount(best, weights, minlength=k)
        above, below = np.maximum(shares - upper, 0).sum(), np.maximum(lower - shares, 0).sum()
        excess = float(above + below) / float(weights.mean())
        reach = min(n, int(2 * excess) + window)
        for a in range(k):
            members = np.flatnonzero(best == a)
            for b in range(k):
                if b != a and members.size:
                    boundary = members
                    if members.size > reach:
                        nearest = np.argpartition(loss[members, b], reach - 1)[:reach]
                        boundary = members[nearest]
                    core[boundary] = True
        outside = np.flatnonzero(~core)
        decided = np.bincount(best[outside], weights[outside], minlength=k)
        inner = np.flatnonzero(core)
        low, high = np.maximum(lower - decided, 0.0), upper - decided
        if (high < -1e-9 * weights.mean()).any() or low.sum() > weights[inner].sum() * (1 + 1e-12):
            window *= 4
            continue
        solved = transport(profits[inner], weights[inner], low, np.maximum(high, 0.0))
        chosen, prices = best, solved.prices
        chosen[inner] = solved.plan.argmax(axis=1)
        net = profits - prices
        tempted = net.max(axis=1) - net[rows, chosen] > 1e-9 * max(float(np.ptp(profits)), 1e-300)
        tempted[inner] = False
        if not tempted.any():
            break
        core[tempted] = True
        window *= 2
    return chosen, prices
